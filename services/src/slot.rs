//! Which slot a key is in, and which shard a slot is in.
//!
//! As in Redis Cluster: CRC16 (XMODEM) of the key, or of what stands between its first `{` and the next `}` if that
//! isn't empty, modulo 16384.

use crate::command::{Spec, code};
use crate::kv::{Once, Transaction};

/// Slots in a cluster.
pub const SLOTS: u16 = 16384;

/// A key's hash slot: 0 to 16383.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// A command whose keys are in different slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CROSSSLOT Keys in request don't hash to the same slot")]
pub struct CrossSlot;

const CRC16: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "less than 256; try_from isn't const")]
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) ^ u16::from(*byte))])
}

impl Slot {
    /// The slot of a key.
    pub fn of_key(key: &[u8]) -> Self {
        let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
            let inside = &key[open + 1..];
            let length = inside.iter().position(|byte| *byte == b'}')?;
            (length > 0).then(|| &inside[..length])
        });
        Self(crc16(tag.unwrap_or(key)) % SLOTS)
    }

    /// The shard, of `shards` in all, that the slot is in.
    pub fn shard(self, shards: u16) -> u16 {
        let shard = u32::from(self.0) * u32::from(shards) / u32::from(SLOTS);
        u16::try_from(shard).expect("less than the number of shards")
    }
}

/// The first slot of a shard.
pub fn first_slot(shard: u16, shards: u16) -> u16 {
    let slot = (u32::from(shard) * u32::from(SLOTS)).div_ceil(u32::from(shards));
    u16::try_from(slot).expect("at most the number of slots")
}

/// The last slot of a shard.
pub fn last_slot(shard: u16, shards: u16) -> u16 {
    first_slot(shard + 1, shards) - 1
}

/// A short key in that slot.
pub fn key_in(slot: u16) -> Vec<u8> {
    let keys = (0_u32..).map(|number| format!("slot:{number}").into_bytes());
    keys.into_iter().find(|key| Slot::of_key(key).0 == slot).expect("some key hashes to every slot")
}

/// The slot of all keys of a command; `None` if it has no keys.
///
/// # Errors
/// [`CrossSlot`].
pub fn slot_of_command(spec: &Spec, args: &[&[u8]]) -> Result<Option<Slot>, CrossSlot> {
    if spec.code == code::EXEC {
        return Transaction::parse(args).map_or(Ok(None), |transaction| transaction.slot());
    }
    if spec.code == code::FLOTILLA_ONCE {
        return Once::parse(args).map_or(Ok(None), |once| slot_of_command(once.spec, once.args));
    }
    let mut keys = spec.keys(args).map(Slot::of_key);
    let Some(first) = keys.next() else { return Ok(None) };
    if keys.all(|slot| slot == first) { Ok(Some(first)) } else { Err(CrossSlot) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // From CLUSTER KEYSLOT of Redis 7.
        assert_eq!(Slot::of_key(b"123456789"), Slot(12739));
        assert_eq!(Slot::of_key(b"foo"), Slot(12182));
        assert_eq!(Slot::of_key(b"a{foo}b"), Slot(12182));
        assert_ne!(Slot::of_key(b"{}foo"), Slot::of_key(b""));
        assert_eq!(Slot::of_key(b"{user1000}.following"), Slot::of_key(b"{user1000}.followers"));
        assert_eq!(Slot::of_key(b"foo{}{bar}"), Slot(crc16(b"foo{}{bar}") % SLOTS));
        assert_eq!(Slot::of_key(b"foo{{bar}}zap"), Slot::of_key(b"{bar"));
        assert_eq!(Slot::of_key(&key_in(8191)), Slot(8191));
    }

    #[test]
    fn shards_split_the_slots_without_gap_or_overlap() {
        for shards in [1, 3, 7, 64, 1000, 16384] {
            for shard in 0..shards {
                let (first, last) = (first_slot(shard, shards), last_slot(shard, shards));
                assert!(first <= last);
                assert_eq!((Slot(first).shard(shards), Slot(last).shard(shards)), (shard, shard));
            }
            assert_eq!((first_slot(0, shards), last_slot(shards - 1, shards)), (0, SLOTS - 1));
        }
    }
}
