//! `FLOTILLA.PUBLISH`: pairs that were put aside under one key become keys, all at once and once only.
//!
//! Whoever has much to write and may be interrupted puts it aside first, as the value of a key of its own in the shard that the
//! pairs belong to. Publishing sets the pairs and empties that value, as one entry of the log: so however many try, and however
//! often, each pair is set once; and what nobody decides to publish never shows.
//!
//! ```text
//! value = "FLOTPUB1" pair*      pair = length of key | key | length of value | value      lengths: varints
//! ```

use super::keyspace::{Keyspace, Value};
use crate::mapreduce::varint;
use crate::resp::ReplyWriter;

/// What pairs that were put aside begin with.
pub const PUBLISH_MAGIC: &[u8; 8] = b"FLOTPUB1";

/// Appends a pair to what is put aside.
pub fn put_pair(staged: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        varint::put(staged, part.len() as u64);
        staged.extend_from_slice(part);
    }
}

/// The next pair of some, and those behind it; `None` if they end within it.
pub fn next_pair(pairs: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let part = |bytes: &mut &'_ [u8]| -> Option<usize> {
        let (length, used) = varint::get(bytes)?;
        *bytes = bytes.get(used..)?;
        usize::try_from(length).ok().filter(|length| *length <= bytes.len())
    };
    let mut rest = pairs;
    let length = part(&mut rest)?;
    let (key, mut rest) = rest.split_at(length);
    let length = part(&mut rest)?;
    let (value, rest) = rest.split_at(length);
    Some((key, value, rest))
}

impl Keyspace {
    /// The number of pairs that were set; 0: they had been before. -1: nothing was put aside there. `is_ours`: whether a key is in
    /// this shard; if one isn't, nothing is done.
    pub(crate) fn publish(
        &mut self,
        clock_ms: u64,
        args: &[&[u8]],
        is_ours: impl Fn(&[u8]) -> bool,
        reply: &mut ReplyWriter<'_>,
    ) {
        let staged = match self.get(clock_ms, args[1]) {
            None => return reply.integer(-1),
            Some(entry) => (entry.value.as_string().cloned(), entry.deadline_ms()),
        };
        let (Some(staged), deadline_ms) = staged else { return reply.integer(-1) };
        if staged.is_empty() {
            return reply.integer(0);
        }
        let mut pairs = Vec::new();
        let Some(mut rest) = staged.strip_prefix(PUBLISH_MAGIC) else {
            return reply.error("ERR what is there wasn't put aside to be published");
        };
        while !rest.is_empty() {
            let Some((key, value, behind)) = next_pair(rest) else {
                return reply.error("ERR what was put aside to be published ends within a pair");
            };
            if !is_ours(key) || key == args[1] {
                return reply.error("ERR what was put aside to be published has a key of another shard");
            }
            pairs.push((key, value));
            rest = behind;
        }
        for (key, value) in &pairs {
            self.insert(key, Value::String(value.to_vec()), None);
        }
        self.insert(args[1], Value::String(Vec::new()), deadline_ms);
        reply.length_of(pairs.len());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;
    use super::*;
    use crate::command::code;
    use proptest::prelude::*;

    fn staged(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = PUBLISH_MAGIC.to_vec();
        pairs.iter().for_each(|(key, value)| put_pair(&mut bytes, key.as_bytes(), value.as_bytes()));
        bytes
    }

    #[test]
    fn pairs_are_set_once() {
        let mut shard = Shard::default();
        shard.say("set a old px 100");
        let bytes = staged(&[("a", "1"), ("b", ""), ("a", "2")]);
        shard.execute(&[b"set", b"aside", &bytes, b"px", b"1000"]);
        assert_eq!(shard.say("flotilla.publish aside"), ":3");
        assert_eq!(shard.say("mget a b aside"), "*3 $1 2 $0  $0 ");
        assert_eq!((shard.say("pttl a"), shard.say("pttl aside")), (":-1".into(), ":1000".into()));
        shard.say("set a mine");
        assert_eq!(shard.say("flotilla.publish aside"), ":0");
        assert_eq!(shard.say("get a"), "$4 mine", "a later write stays");
        assert_eq!(shard.say("flotilla.publish nothing"), ":-1");
    }

    #[test]
    fn what_makes_no_sense_is_refused_as_a_whole() {
        let mut shard = Shard::default();
        let mut cut = staged(&[("a", "1"), ("b", "2")]);
        cut.pop();
        for bytes in [&b"plain"[..], &cut, &staged(&[("a", "1"), ("aside", "2")])] {
            shard.execute(&[b"set", b"aside", bytes]);
            assert!(shard.say("flotilla.publish aside").starts_with("-ERR what "), "{bytes:?}");
            assert_eq!(shard.say("exists a b"), ":0");
        }
        let bytes = staged(&[("a", "1"), ("elsewhere", "2")]);
        shard.execute(&[b"set", b"aside", &bytes]);
        let (mut out, args) = (Vec::new(), [&b"flotilla.publish"[..], b"aside"]);
        let mut reply = ReplyWriter::new(&mut out, crate::resp::Protocol::Resp2);
        shard.keys.publish(0, &args, |key| key != b"elsewhere", &mut reply);
        assert!(out.starts_with(b"-ERR"), "{out:?}");
        assert_eq!(shard.say("exists a"), ":0");
        let refused = shard.say("flotilla.once 1 1 0 flotilla.publish aside");
        assert!(refused.contains("can't be a write of a session"), "{refused}");
        assert_eq!(code::FLOTILLA_PUBLISH, 40, "in logs on disks");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut shard = Shard::default();
            let staged = [&PUBLISH_MAGIC[..], &bytes].concat();
            shard.execute(&[b"set", b"aside", &staged]);
            shard.say("flotilla.publish aside");
        }
    }
}
