//! Versions: a value and its version at once, and a write that depends on it.
//!
//! A key's version is 1 at first and grows with every change of the key. A key that is made anew begins above every
//! version that a removed key of its shard ever had, so whoever compares versions can't take another life of a key for the
//! one that it knows.

use super::expiry::Expiry;
use super::keyspace::{Keyspace, Value};
use super::number;
use super::string::WRONG_TYPE;
use crate::command::Rejected;
use crate::resp::ReplyWriter;

/// The arguments of `FLOTILLA.CAS key version value [EX|PX|EXAT|PXAT time | KEEPTTL]`.
pub(crate) fn parse_cas(args: &[&[u8]], clock_ms: u64) -> Result<(u64, Expiry), Rejected> {
    let version = number::integer(args[2]).and_then(|version| u64::try_from(version).ok());
    let version = version.ok_or_else(|| Rejected::new("ERR version is not an integer or out of range"))?;
    let expiry = match args.len() {
        4 => Expiry::None,
        5 if args[4].eq_ignore_ascii_case(b"KEEPTTL") => Expiry::Keep,
        6 => match Expiry::parse_option("flotilla.cas", args, 4, clock_ms) {
            Some(expiry) => expiry?,
            None => return Err(Rejected::syntax()),
        },
        _ => return Err(Rejected::syntax()),
    };
    Ok((version, expiry))
}

impl Keyspace {
    /// `FLOTILLA.GETV`: the version and the value, or null.
    pub(super) fn read_version(&self, clock_ms: u64, key: &[u8], reply: &mut ReplyWriter<'_>) {
        let Some(entry) = self.get(clock_ms, key) else { return reply.null_array() };
        let Some(bytes) = entry.value.as_string() else { return reply.error(WRONG_TYPE) };
        reply.array(2);
        reply.unsigned(entry.version);
        reply.bulk(bytes);
    }

    /// `FLOTILLA.CAS`: version 0 stands for a key that isn't there.
    pub(super) fn compare_and_set(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let key = args[1];
        let (version, expiry) = match parse_cas(args, clock_ms) {
            Ok(parsed) => parsed,
            Err(rejected) => return reply.error(&rejected.to_string()),
        };
        let entry = self.get(clock_ms, key);
        let (found, former) = entry.map_or((0, None), |entry| (entry.version, entry.deadline_ms()));
        if found != version {
            return match found {
                0 => reply.error("NOKEY there is no such key"),
                _ => reply.error(&format!("VERSION the key has version {found}")),
            };
        }
        self.store(clock_ms, key, Value::String(args[3].to_vec()), expiry.deadline(former));
        // 0 if it ended before it began.
        reply.unsigned(self.version(clock_ms, key));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;

    #[test]
    fn srv_01_puts_are_conditional_on_the_version() {
        let mut shard = Shard::default();
        assert_eq!(shard.say("flotilla.getv k"), "*-1");
        assert_eq!(shard.say("flotilla.cas k 1 v"), "-NOKEY there is no such key");
        assert_eq!(shard.say("flotilla.cas k 0 v"), ":1");
        assert_eq!(shard.say("flotilla.cas k 0 w"), "-VERSION the key has version 1");
        assert_eq!(shard.say("flotilla.cas k 1 w"), ":2");
        assert_eq!(shard.say("flotilla.getv k"), "*2 :2 $1 w");
    }

    #[test]
    fn every_change_counts_and_a_key_never_begins_anew() {
        let mut shard = Shard::default();
        for (command, version) in [
            ("set k v", 1),
            ("append k w", 2),
            ("expire k 100", 3),
            ("expire k 100 nx", 3),
            ("get k", 3),
            ("persist k", 4),
        ] {
            shard.say(command);
            assert_eq!(shard.version("k"), version, "{command}");
        }
        shard.say("del k");
        shard.say("set k v");
        assert_eq!(shard.version("k"), 5);
        shard.say("set other v");
        assert_eq!(shard.version("other"), 5, "the shard remembers one number for all keys that are gone");
        shard.say("flushall");
        shard.say("set k v px 100");
        assert_eq!(shard.version("k"), 6);
        shard.advance(100);
        assert_eq!(shard.version("k"), 0, "it is over, though nobody has removed it");
        shard.say("set k v");
        assert_eq!(shard.version("k"), 7);
    }

    #[test]
    fn a_write_with_an_end() {
        let mut shard = Shard::default();
        shard.say("flotilla.cas k 0 v px 100");
        assert_eq!(shard.say("pttl k"), ":100");
        shard.say("flotilla.cas k 1 v keepttl");
        assert_eq!(shard.say("pttl k"), ":100");
        shard.say("flotilla.cas k 2 v");
        assert_eq!(shard.say("pttl k"), ":-1");
        assert_eq!(
            shard.say("flotilla.cas k 3 v ex 0"),
            "-ERR invalid expire time in 'flotilla.cas' command"
        );
        assert_eq!(shard.say("flotilla.cas k x v"), "-ERR version is not an integer or out of range");
        assert_eq!(shard.say("flotilla.cas k 3 v nx"), "-ERR syntax error");
    }
}
