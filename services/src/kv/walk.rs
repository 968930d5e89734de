//! `FLOTILLA.WALK`: the keys of one shard in their order, with their values, page by page.
//!
//! A shard is a fixed set of slots and moves as a whole. So whoever walks through every shard of the cluster, each page from
//! behind the last key of the one before, meets every key that is there all the time exactly once, wherever shards go meanwhile
//! and whoever leads: unlike `FLOTILLA.RANGE` and `SCAN` from node to node.

use super::keyspace::Keyspace;
use super::number;
use super::range::bound;
use crate::command::{Rejected, glob};
use crate::resp::ReplyWriter;
use std::ops::Bound;

/// Keys that are looked at unless a command says otherwise.
const KEYS_USUAL: usize = 1000;
/// No page looks at more.
const KEYS_MAX: usize = 100_000;
/// Bytes of keys and values after which a page ends, unless a command says otherwise.
const BYTES_USUAL: usize = 1 << 20;

/// What `FLOTILLA.WALK key start end [LIMIT n] [BYTES n] [MATCH pattern]` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Walk<'a> {
    from: Bound<&'a [u8]>,
    to: Bound<&'a [u8]>,
    /// Keys that are looked at.
    keys_max: usize,
    /// Of the page: one pair more than fits is returned.
    bytes_max: usize,
    pattern: Option<&'a [u8]>,
}

impl<'a> Walk<'a> {
    /// Reads it. The ends are those of `FLOTILLA.RANGE`.
    pub(crate) fn parse(args: &[&'a [u8]]) -> Result<Self, Rejected> {
        let (from, to) = (bound(args[2])?, bound(args[3])?);
        let mut walk = Self { from, to, keys_max: KEYS_USUAL, bytes_max: BYTES_USUAL, pattern: None };
        for option in args[4..].chunks(2) {
            let [name, value] = option else { return Err(Rejected::syntax()) };
            let count = || {
                let count = number::integer(value).and_then(|count| usize::try_from(count).ok());
                count.filter(|count| *count > 0).ok_or_else(Rejected::not_an_integer)
            };
            match &name.to_ascii_uppercase()[..] {
                b"LIMIT" => walk.keys_max = count()?.min(KEYS_MAX),
                b"BYTES" => walk.bytes_max = count()?,
                b"MATCH" => walk.pattern = Some(value),
                _ => return Err(Rejected::syntax()),
            }
        }
        if args[2] == b"+" || args[3] == b"-" || super::range::is_backwards(from, to) {
            walk.keys_max = 0;
        }
        Ok(walk)
    }
}

impl Keyspace {
    /// The last key that was looked at, if there may be more behind it, and keys and values in turn.
    pub(super) fn walk(&self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let walk = match Walk::parse(args) {
            Ok(walk) => walk,
            Err(rejected) => return reply.error(&rejected.to_string()),
        };
        let (mut found, mut bytes, mut next) = (Vec::new(), 0, None);
        let is_empty = walk.keys_max == 0;
        let keys = (!is_empty).then(|| self.range(clock_ms, walk.from, walk.to));
        for (count, (key, entry)) in (1..).zip(keys.into_iter().flatten()) {
            if walk.pattern.is_none_or(|pattern| glob(pattern, key))
                && let Some(value) = entry.value.as_string()
            {
                bytes += key.len() + value.len();
                found.push((key, value));
            }
            if count >= walk.keys_max || bytes >= walk.bytes_max {
                next = Some(key);
                break;
            }
        }
        reply.array(2);
        match next {
            Some(key) => reply.bulk(key),
            None => reply.null(),
        }
        reply.array(found.len() * 2);
        for (key, value) in found {
            reply.bulk(key);
            reply.bulk(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;

    #[test]
    fn pages_go_on_behind_the_last_key_that_was_looked_at() {
        let mut shard = Shard::default();
        for key in ["a", "b1", "b2", "c", "d"] {
            shard.say(&format!("set {key} v{key}"));
        }
        for (line, said) in [
            ("flotilla.walk x - + limit 2", "*2 $2 b1 *4 $1 a $2 va $2 b1 $3 vb1"),
            ("flotilla.walk x (b1 + limit 2 match b*", "*2 $1 c *2 $2 b2 $3 vb2"),
            ("flotilla.walk x (c + limit 2", "*2 $-1 *2 $1 d $2 vd"),
            ("flotilla.walk x [b (c match c*", "*2 $-1 *0"),
            ("flotilla.walk x - + bytes 4", "*2 $2 b1 *4 $1 a $2 va $2 b1 $3 vb1"),
            ("flotilla.walk x (c (b", "*2 $-1 *0"),
            ("flotilla.walk x + -", "*2 $-1 *0"),
            ("flotilla.walk x - + limit 0", "-ERR value is not an integer or out of range"),
            ("flotilla.walk x - + limit", "-ERR syntax error"),
            ("flotilla.walk x - + many 3", "-ERR syntax error"),
            ("flotilla.walk x a b", "-ERR an end of a range is [key, (key, - or +"),
        ] {
            assert_eq!(shard.say(line), said, "{line}");
        }
        shard.say("set a v px 50");
        shard.advance(50);
        assert_eq!(shard.say("flotilla.walk x - (b"), "*2 $-1 *0", "its time has come");
    }
}
