//! Reads without a key: they look at every group that this core leads.

use super::group::Group;
use crate::command::{Spec, glob};
use crate::kv::{Keyspace, number};
use crate::resp::ReplyWriter;

fn shards(groups: &[Group]) -> impl Iterator<Item = (u64, &Keyspace)> {
    let led = groups.iter().filter(|group| group.is_leading());
    led.flat_map(|group| group.shards.iter().map(|shard| (group.clock_ms, shard)))
}

/// Answers a keyless read.
pub(super) fn read(groups: &[Group], spec: &Spec, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    match spec.name {
        "dbsize" => {
            let keys: u64 = shards(groups).map(|(_, shard)| shard.len()).sum();
            reply.integer(i64::try_from(keys).unwrap_or(i64::MAX));
        }
        "keys" => {
            let found: Vec<&[u8]> = shards(groups)
                .flat_map(|(clock, shard)| shard.keys_after(clock, None))
                .filter(|key| glob(args[1], key))
                .collect();
            reply.array(found.len());
            found.into_iter().for_each(|key| reply.bulk(key));
        }
        "randomkey" => match shards(groups).find_map(|(clock, shard)| shard.keys_after(clock, None).next()) {
            Some(key) => reply.bulk(key),
            None => reply.null(),
        },
        _ => scan(groups, args, reply),
    }
}

/// Nothing is led here: every answer is empty.
pub(super) fn nothing_led(spec: &Spec, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    if spec.is_write() {
        return reply.simple("OK");
    }
    read(&[], spec, args, reply);
}

/// `SCAN`: the cursor is a shard and a hash that a key's place in it is compared with, so that a key which is there
/// from the first call to the last is seen, whatever comes and goes.
fn scan(groups: &[Group], args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    let cursor: u64 = std::str::from_utf8(args[1]).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (mut count, mut pattern, mut wanted_type) = (10, None, None);
    for pair in args[2..].chunks_exact(2) {
        match &pair[0].to_ascii_uppercase()[..] {
            b"COUNT" => count = number::integer(pair[1]).and_then(|n| usize::try_from(n).ok()).unwrap_or(10),
            b"MATCH" => pattern = Some(pair[1]),
            _ => wanted_type = Some(pair[1].to_ascii_lowercase()),
        }
    }
    let (found, next) = scan_from(groups, cursor, count.max(1));
    let shown: Vec<&[u8]> = found
        .into_iter()
        .filter(|key| pattern.is_none_or(|pattern| glob(pattern, key)))
        .filter(|_| wanted_type.as_deref().is_none_or(|wanted| wanted == b"string"))
        .collect();
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(shown.len());
    shown.into_iter().for_each(|key| reply.bulk(key));
}

/// Keys are visited by the 48-bit hash of their bytes, shard after shard.
fn scan_from(groups: &[Group], cursor: u64, count: usize) -> (Vec<&[u8]>, u64) {
    const HASH_BITS: u32 = 48;
    let (mut place, mut least) = (cursor >> HASH_BITS, cursor & ((1 << HASH_BITS) - 1));
    let all: Vec<(u64, &Keyspace)> = shards(groups).collect();
    let mut found = Vec::new();
    while let Some((clock, shard)) = usize::try_from(place).ok().and_then(|place| all.get(place)) {
        let mut hashed: Vec<(u64, &[u8])> = shard
            .keys_after(*clock, None)
            .map(|key| (hash(key) >> (64 - HASH_BITS), key))
            .filter(|(hash, _)| *hash >= least)
            .collect();
        hashed.sort_unstable();
        for (hash, key) in hashed {
            if found.len() >= count && hash != least {
                return (found, place << HASH_BITS | hash);
            }
            least = hash;
            found.push(key);
        }
        place += 1;
        least = 0;
        if found.len() >= count && usize::try_from(place).is_ok_and(|place| place < all.len()) {
            return (found, place << HASH_BITS);
        }
    }
    (found, 0)
}

fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (folded ^ (folded >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
