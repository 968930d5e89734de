//! `SCAN`: a walk over the keys, shard after shard, a shard's keys in their order.
//!
//! A cursor is the shard (14 bits) and a hash of the last key that was looked at (48 bits; 0 before the first). Where that
//! key stands a group remembers for the newest cursors. Otherwise (another node leads now, or the cursor is old) it looks the
//! key up by its hash, and if it is gone begins the shard anew. So a key that is there from the first call to the last is
//! returned at least once, whatever comes and goes meanwhile, and whoever leads.

use super::group::Group;
use crate::command::glob;
use crate::kv::{Keyspace, number};
use crate::resp::ReplyWriter;
use std::collections::{BTreeMap, VecDeque};

const HASH_BITS: u32 = 48;
/// In the place of a shard, since 0 is the end: the first shard of all, from its beginning.
const FIRST_ANEW: u64 = 1 << 14;
/// Cursors that a group remembers.
const REMEMBERED_MAX: usize = 256;

/// Where a walk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) shard: u64,
    /// Of the last key that was looked at.
    hash: u64,
}

impl Cursor {
    /// The beginning of a shard.
    pub(super) fn at(shard: u64) -> Self {
        Self { shard, hash: 0 }
    }

    /// As the client sent it.
    pub(super) fn parse(arg: &[u8]) -> Option<Self> {
        let number: u64 = std::str::from_utf8(arg).ok()?.parse().ok()?;
        match number >> HASH_BITS {
            FIRST_ANEW => Some(Self::at(0)),
            shard => Some(Self { shard, hash: number & ((1 << HASH_BITS) - 1) }),
        }
    }

    pub(super) fn number(self) -> u64 {
        self.shard << HASH_BITS | self.hash
    }

    /// What the client is to ask with next, where a walk has come so far.
    fn next(self, shards_total: u16) -> u64 {
        match self.number() {
            // Behind the last shard of all.
            _ if self.shard >= u64::from(shards_total) => 0,
            // The first one is on its way to another group, and hasn't been looked at.
            0 => FIRST_ANEW << HASH_BITS,
            number => number,
        }
    }
}

/// The keys behind which the newest cursors stand.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    keys: BTreeMap<u64, Box<[u8]>>,
    order: VecDeque<u64>,
}

impl Remembered {
    fn insert(&mut self, cursor: u64, key: &[u8]) {
        if let Some(known) = self.keys.get_mut(&cursor) {
            // Two keys of one hash: from the first of them on, nothing is left out.
            if key < &**known {
                *known = key.into();
            }
            return;
        }
        if self.order.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        self.keys.insert(cursor, key.into());
        self.order.push_back(cursor);
    }
}

/// What a call looks for.
struct Options<'a> {
    count: usize,
    pattern: Option<&'a [u8]>,
    wanted_type: Option<Vec<u8>>,
}

impl<'a> Options<'a> {
    fn parse(args: &[&'a [u8]]) -> Self {
        let mut options = Self { count: 10, pattern: None, wanted_type: None };
        for pair in args[2..].chunks_exact(2) {
            match &pair[0].to_ascii_uppercase()[..] {
                b"COUNT" => {
                    let count = number::integer(pair[1]).and_then(|count| usize::try_from(count).ok());
                    options.count = count.unwrap_or(10).max(1);
                }
                b"MATCH" => options.pattern = Some(pair[1]),
                _ => options.wanted_type = Some(pair[1].to_ascii_lowercase()),
            }
        }
        options
    }
}

/// Answers a call that begins in a shard of this group. `shards_total`: of the cluster.
pub(super) fn scan(group: &mut Group, shards_total: u16, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    let mut cursor = Cursor::parse(args[1]).unwrap_or_else(|| Cursor::at(0));
    let options = Options::parse(args);
    let mut shown: Vec<&[u8]> = Vec::new();
    let mut looked_at = 0;
    let mut newest: Option<(u64, &[u8])> = None;
    'walk: loop {
        let shard = u16::try_from(cursor.shard).ok().and_then(|number| group.shards.get(number));
        let Some(shard) = shard.filter(|shard| shard.is_serving()).map(|shard| &shard.keys) else { break };
        let after = begin(shard, cursor, &group.remembered);
        for (key, entry) in shard.entries_after(group.clock_ms, after.as_deref()) {
            looked_at += 1;
            cursor.hash = hash(key);
            let fits = options.pattern.is_none_or(|pattern| glob(pattern, key))
                && options.wanted_type.as_deref().is_none_or(|it| it == entry.value.type_name().as_bytes());
            if fits {
                shown.push(key);
            }
            if looked_at >= options.count {
                newest = Some((cursor.number(), key));
                break 'walk;
            }
        }
        cursor = Cursor::at(cursor.shard + 1);
        if looked_at >= options.count {
            break;
        }
    }
    let next = cursor.next(shards_total);
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(shown.len());
    shown.iter().for_each(|key| reply.bulk(key));
    if let Some((cursor, key)) = newest.map(|(cursor, key)| (cursor, key.to_vec())) {
        group.remembered.insert(cursor, &key);
    }
}

/// Nothing more to look at.
pub(super) fn nothing(reply: &mut ReplyWriter<'_>) {
    reply.array(2);
    reply.bulk(b"0");
    reply.array(0);
}

/// The key behind which a walk goes on in a shard; `None`: at its beginning.
fn begin(shard: &Keyspace, cursor: Cursor, remembered: &Remembered) -> Option<Box<[u8]>> {
    if cursor.hash == 0 {
        return None;
    }
    let known = remembered.keys.get(&cursor.number()).cloned();
    // By the logical clock 0 nothing is over: an expired key that is still here marks a place, too.
    known.or_else(|| shard.keys_after(0, None).find(|key| hash(key) == cursor.hash).map(Into::into))
}

/// 48 bits, never 0.
fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (folded ^ (folded >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - HASH_BITS)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_can_t_begin_isn_t_at_its_end() {
        let next = Cursor::at(0).next(64);
        assert_ne!(next, 0);
        assert_eq!(Cursor::parse(next.to_string().as_bytes()), Some(Cursor::at(0)));
        assert_eq!((Cursor::at(3).next(64), Cursor::at(64).next(64)), (3 << HASH_BITS, 0));
        let midway = Cursor { shard: 5, hash: 9 };
        assert_eq!(Cursor::parse(midway.next(64).to_string().as_bytes()), Some(midway));
    }
}
