//! `FLOTILLA.LOAD`: keys from a backup, with their ends and versions.
//!
//! A cluster that is restored is an older one. Clients that saw what it has forgotten may still be there, with versions that
//! it would give out again, for other values. So every restore has an **era**, the second in which it began: from its first
//! load on, a shard gives out no version and no session's number that any cluster gave out before that second, if none of its keys
//! was written more than a million times a second from 1970 on. A restored key keeps the version of the backup, which stands
//! for the very value that it stood for there, unless this shard has given out such a version itself before, perhaps for another
//! value of the key: then it gives a new one.

use super::keyspace::{Entry, Keyspace, Value};
use super::number;
use crate::command::Rejected;
use crate::resp::ReplyWriter;

/// Versions of one second.
const VERSIONS_PER_SECOND: u64 = 1 << 20;
/// Eras are of this time: 2004 to 2242. Numbers that are made of them stay far below 2^63.
const ERAS_S: std::ops::Range<u64> = 1 << 30..1 << 33;
/// A floor that only an era can have brought: 119 years of 300 000 changes a second.
const ERA_FLOOR: u64 = ERAS_S.start * VERSIONS_PER_SECOND;

/// `FLOTILLA.LOAD key value era version deadline KEEP|REPLACE`, and
/// `FLOTILLA.LOADFROM key staged era version deadline KEEP|REPLACE length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    era_s: u64,
    /// What it had in the backup.
    version: u64,
    /// Milliseconds since 1970, 0 for none.
    deadline_ms: u64,
    replaces: bool,
    /// Bytes of a staged value.
    length: u64,
}

/// Reads all but key and value.
pub(crate) fn parse(args: &[&[u8]]) -> Result<Load, Rejected> {
    let number = |place: usize| {
        let number = args.get(place).and_then(|arg| number::integer(arg));
        number.and_then(|number| u64::try_from(number).ok()).ok_or_else(Rejected::not_an_integer)
    };
    let replaces = match &args[6].to_ascii_uppercase()[..] {
        b"KEEP" => false,
        b"REPLACE" => true,
        _ => return Err(Rejected::syntax()),
    };
    let length = if args.len() > 7 { number(7)? } else { 0 };
    let load = Load { era_s: number(3)?, version: number(4)?, deadline_ms: number(5)?, replaces, length };
    if !ERAS_S.contains(&load.era_s) {
        return Err(Rejected::new("ERR the era is no second between 2004 and 2242"));
    }
    Ok(load)
}

/// The version that a change of a key brings. `floor`: that of its shard.
pub(super) fn next_version(version: u64, floor: u64) -> u64 {
    if floor >= ERA_FLOOR { version.max(floor) + 1 } else { version + 1 }
}

impl Keyspace {
    /// Whether something was restored into this shard.
    pub(super) fn is_in_an_era(&self) -> bool {
        self.floor >= ERA_FLOOR
    }
}

impl Load {
    fn floor(&self) -> u64 {
        self.era_s * VERSIONS_PER_SECOND
    }
}

impl Keyspace {
    /// 1: the key is as in the backup. 0: it isn't, since one is there that is to be kept, or since its time has come.
    pub(super) fn load(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        match parse(args) {
            Ok(load) => {
                let is_loaded = self.put_loaded(clock_ms, args[1], &load, || args[2].to_vec());
                reply.integer(i64::from(is_loaded));
            }
            Err(rejected) => reply.error(&rejected.to_string()),
        }
    }

    /// The same with the value of another key, which goes: what is too long for one entry of the log is put there piece by piece.
    /// -1: that isn't there, or isn't that long.
    pub(super) fn load_from(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let load = match parse(args) {
            Ok(load) => load,
            Err(rejected) => return reply.error(&rejected.to_string()),
        };
        let staged = self.get(clock_ms, args[2]).and_then(|entry| entry.value.as_string());
        if args[1] == args[2] || staged.is_none_or(|value| value.len() as u64 != load.length) {
            return reply.integer(-1);
        }
        // Nobody compares its versions: the floor needn't know of them, and still says whether the shard is new.
        let floor = self.floor;
        let entry = self.remove(clock_ms, args[2]).expect("just seen");
        self.floor = floor;
        let Value::String(value) = entry.value;
        let is_loaded = self.put_loaded(clock_ms, args[1], &load, || value);
        reply.integer(i64::from(is_loaded));
    }

    fn put_loaded(
        &mut self,
        clock_ms: u64,
        key: &[u8],
        load: &Load,
        value: impl FnOnce() -> Vec<u8>,
    ) -> bool {
        self.begin_era(load);
        let deadline_ms = (load.deadline_ms > 0).then_some(load.deadline_ms);
        let is_over = deadline_ms.is_some_and(|deadline| deadline <= clock_ms);
        if is_over || (!load.replaces && self.get(clock_ms, key).is_some()) {
            return false;
        }
        let value = Value::String(value());
        let own = self.floor & (VERSIONS_PER_SECOND - 1);
        let is_unused = self.floor - own == load.floor()
            && own < VERSIONS_PER_SECOND - 1
            && (own + 1..=load.floor()).contains(&load.version);
        if is_unused && !self.has(key) {
            self.restore(key, Entry::new(value, load.deadline_ms, load.version));
        } else {
            self.insert(key, value, deadline_ms);
        }
        true
    }

    /// The first load of an era. The last bits of the floor say which versions the shard had given out by then; all ones: too many.
    /// Keys that are removed later raise it, and no version that it excludes was given out by this shard before the era.
    fn begin_era(&mut self, load: &Load) {
        if self.floor < load.floor() {
            self.set_floor(load.floor() + self.version_max.min(VERSIONS_PER_SECOND - 1));
            self.sessions.begin_era(load.era_s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;
    use super::*;
    use crate::kv::ShardReader;

    const FLOOR: u64 = 1_700_000_000 * VERSIONS_PER_SECOND;

    #[test]
    fn a_new_shard_gets_the_keys_as_they_were() {
        let mut shard = Shard::default();
        assert_eq!(shard.say("flotilla.load k v 1700000000 7 0 keep"), ":1");
        assert_eq!(shard.say("flotilla.load end v 1700000000 9 1700000000500 keep"), ":1");
        assert_eq!(shard.say("flotilla.load over v 1700000000 9 1700000000000 keep"), ":0");
        assert_eq!(shard.say("flotilla.getv k"), "*2 :7 $1 v");
        assert_eq!((shard.version("end"), shard.say("pttl end")), (9, ":500".to_owned()));
        assert_eq!(shard.say("exists over"), ":0");
    }

    #[test]
    fn what_the_old_cluster_gave_out_later_isn_t_given_out_again() {
        let mut shard = Shard::default();
        shard.say("flotilla.load k v 1700000000 7 0 keep");
        // The old cluster went on to 8, with another value.
        shard.say("set k w");
        assert_eq!(shard.version("k"), FLOOR + 1);
        shard.say("expire k 100");
        assert_eq!(shard.version("k"), FLOOR + 2);
        shard.say("set new v");
        assert_eq!(shard.version("new"), FLOOR + 1);
        shard.say("del k");
        shard.say("set k v");
        assert_eq!(shard.version("k"), FLOOR + 3);
        let session: u64 = shard.say("flotilla.session k")[1..].parse().unwrap();
        assert!(session >> 14 > 1_700_000_000 << 14);
    }

    #[test]
    fn versions_that_the_shard_has_given_out_itself_are_not_given_out_again() {
        for (before, used) in [
            (&["set other v"][..], 1),
            (&["set k x", "set k y", "del k"], 2),
            (&["set k x", "append k y", "expire k 9", "flushall"], 3),
        ] {
            for version in 1..6 {
                let mut shard = Shard::default();
                before.iter().for_each(|line| drop(shard.say(line)));
                assert_eq!(shard.say(&format!("flotilla.load k v 1700000000 {version} 0 keep")), ":1");
                let expected = if version > used { version } else { FLOOR + used + 1 };
                assert_eq!(shard.version("k"), expected, "{before:?} {version}");
            }
        }
        // Of those of an earlier restore nobody knows any more.
        let mut shard = Shard::default();
        shard.say("flotilla.load k v 1700000000 7 0 keep");
        shard.say("flotilla.load l v 1700000001 7 0 keep");
        assert_eq!(shard.version("l"), FLOOR + (2 << 20));
        // Nor is the version of an era to come believed.
        let mut shard = Shard::default();
        let version = (FLOOR + 9).to_string();
        shard.execute(&[b"flotilla.load", b"k", b"v", b"1700000000", version.as_bytes(), b"0", b"keep"]);
        assert_eq!(shard.version("k"), FLOOR + 1);
    }

    #[test]
    fn what_is_there_is_kept_or_replaced() {
        let mut shard = Shard::default();
        shard.say("set k mine");
        assert_eq!(shard.say("flotilla.load k v 1700000000 7 0 keep"), ":0");
        assert_eq!(shard.say("flotilla.getv k"), "*2 :1 $4 mine");
        assert_eq!(shard.say("flotilla.load k v 1700000000 7 1700000000500 replace"), ":1");
        assert_eq!(shard.say("flotilla.getv k"), format!("*2 :{} $1 v", FLOOR + 2));
        assert_eq!(shard.say("pttl k"), ":500");
    }

    #[test]
    fn a_long_value_comes_by_way_of_another_key() {
        let mut shard = Shard::default();
        shard.say("flotilla.load first v 1700000000 1 0 keep");
        shard.say("setrange staged 2 cd");
        assert_eq!(shard.say("flotilla.loadfrom k staged 1700000000 7 0 keep 5"), ":-1", "not that long");
        shard.say("setrange staged 0 ab");
        assert_eq!(shard.say("flotilla.loadfrom k staged 1700000000 7 0 keep 4"), ":1");
        assert_eq!(shard.say("flotilla.getv k"), "*2 :7 $4 abcd");
        assert_eq!(shard.say("exists staged"), ":0");
        assert_eq!(shard.say("flotilla.loadfrom k staged 1700000000 7 0 keep 4"), ":-1", "it was done");
        assert_eq!(shard.say("flotilla.loadfrom k k 1700000000 7 0 replace 4"), ":-1");
        // Those that follow still find a new shard.
        shard.say("flotilla.load last v 1700000000 3 0 keep");
        assert_eq!(shard.version("last"), 3);
    }

    #[test]
    fn bad_loads_are_refused_before_they_are_logged() {
        let mut shard = Shard::default();
        for (line, words) in [
            ("flotilla.load k v 5 1 0 keep", "-ERR the era is no second between 2004 and 2242"),
            (
                "flotilla.load k v 9223372036854775807 1 0 keep",
                "-ERR the era is no second between 2004 and 2242",
            ),
            ("flotilla.load k v 1700000000 -1 0 keep", "-ERR value is not an integer or out of range"),
            ("flotilla.load k v 1700000000 1 x keep", "-ERR value is not an integer or out of range"),
            ("flotilla.load k v 1700000000 1 0 perhaps", "-ERR syntax error"),
            (
                "flotilla.load k v 1700000000 1 0",
                "-ERR wrong number of arguments for 'flotilla.load' command",
            ),
        ] {
            assert_eq!(shard.say(line), words, "{line}");
        }
    }

    /// The shard as a replica knows it that has got it as a snapshot.
    fn restored(shard: &mut Shard) -> Shard {
        let mut bytes = Vec::new();
        shard.keys.freeze();
        assert!(shard.keys.read_frozen(1 << 20, &mut bytes));
        let mut reader = ShardReader::default();
        reader.read(&bytes).unwrap();
        let mut restored = Shard::default();
        restored.keys = reader.finish().unwrap();
        restored
    }

    #[test]
    fn an_era_travels_with_its_shard() {
        let mut shard = Shard::default();
        shard.say("flotilla.load k v 1700000000 7 0 keep");
        let mut shard = restored(&mut shard);
        shard.say("set k w");
        assert_eq!(shard.version("k"), FLOOR + 1);
    }

    #[test]
    fn replicas_give_out_the_same_versions_after_a_flush_whether_they_read_a_snapshot_or_the_log() {
        let mut shard = Shard::default();
        shard.say("flotilla.load first v 1700000000 1 0 keep");
        shard.say("set staged x");
        (0..5).for_each(|_| drop(shard.say("append staged x")));
        assert_eq!(shard.say("flotilla.loadfrom k staged 1700000000 7 0 keep 6"), ":1");
        let mut other = restored(&mut shard);
        for shard in [&mut shard, &mut other] {
            shard.say("set later v");
            shard.say("flushall");
            shard.say("set first x");
        }
        assert_eq!(shard.version("first"), other.version("first"));
        assert!(
            shard.version("first") > FLOOR + 1,
            "that of the key that was set last is never given out again"
        );
    }
}
