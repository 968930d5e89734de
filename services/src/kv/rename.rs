//! Keys that get another name, or a double.

use super::keyspace::Keyspace;
use crate::command::{Rejected, code};
use crate::resp::ReplyWriter;

/// The options of `COPY`: whether it replaces what is there.
pub(crate) fn parse_copy(args: &[&[u8]]) -> Result<bool, Rejected> {
    let mut replace = false;
    let mut place = 3;
    while place < args.len() {
        match &args[place].to_ascii_uppercase()[..] {
            b"REPLACE" => replace = true,
            b"DB" if place + 1 < args.len() => {
                let database =
                    super::number::integer(args[place + 1]).ok_or_else(Rejected::not_an_integer)?;
                if database != 0 {
                    return Err(Rejected::new("ERR DB index is out of range"));
                }
                place += 1;
            }
            _ => return Err(Rejected::syntax()),
        }
        place += 1;
    }
    if args[1] == args[2] {
        return Err(Rejected::new("ERR source and destination objects are the same"));
    }
    Ok(replace)
}

impl Keyspace {
    pub(super) fn rename(
        &mut self,
        clock_ms: u64,
        command: u16,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
    ) {
        let (from, to) = (args[1], args[2]);
        if self.get(clock_ms, from).is_none() {
            return reply.error("ERR no such key");
        }
        let is_free = self.get(clock_ms, to).is_none();
        let renames = from != to && (command == code::RENAME || is_free);
        if renames && let Some(entry) = self.remove(clock_ms, from) {
            let deadline_ms = entry.deadline_ms();
            self.insert(to, entry.value, deadline_ms);
        }
        match command {
            code::RENAME => reply.simple("OK"),
            _ => reply.integer(i64::from(renames)),
        }
    }

    pub(super) fn copy(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let replace = parse_copy(args).unwrap_or(false);
        let is_free = self.get(clock_ms, args[2]).is_none();
        let entry = self.get(clock_ms, args[1]).filter(|_| replace || is_free).cloned();
        reply.integer(i64::from(entry.is_some()));
        if let Some(entry) = entry {
            let deadline_ms = entry.deadline_ms();
            self.insert(args[2], entry.value, deadline_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;

    #[test]
    fn a_key_takes_its_end_along() {
        let mut shard = Shard::default();
        assert_eq!(shard.say("rename a b"), "-ERR no such key");
        shard.say("set a 1 px 500");
        shard.say("set b 2");
        assert_eq!(shard.say("renamenx a b"), ":0");
        assert_eq!(shard.say("copy a b"), ":0");
        assert_eq!(shard.say("copy a b replace"), ":1");
        assert_eq!(shard.say("pttl b"), ":500");
        shard.say("del b");
        assert_eq!(shard.say("renamenx a b"), ":1");
        assert_eq!((shard.say("exists a"), shard.say("pttl b")), (":0".into(), ":500".into()));
        assert_eq!(shard.say("rename b b"), "+OK");
        assert_eq!(shard.say("renamenx b b"), ":0");
        assert_eq!(shard.say("get b"), "$1 1");
        assert_eq!(shard.say("copy b b"), "-ERR source and destination objects are the same");
        assert_eq!(shard.say("copy b c db 1"), "-ERR DB index is out of range");
    }
}
