//! Pairs one behind the other. What is sorted are entries of 16 bytes with the first bytes of the key, not the pairs.

use super::Plan;
use crate::mapreduce::run::prefix;

/// Where a pair is, and enough of its key to compare most.
#[derive(Clone, Copy, Debug)]
struct Entry {
    prefix: u64,
    partition: u32,
    /// In the arena, in units of [`UNIT`].
    at: u32,
}

/// Pairs begin at multiples of this, so that an arena of 16 GiB can be addressed.
const UNIT: usize = 4;

/// Pairs, and the order they are in.
#[derive(Debug, Default)]
pub struct Pairs {
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

/// What is over when it is noticed that a budget is used up, of ordinary pairs.
const ROOM_OVER: usize = 1 << 20;
/// A pair takes at least so much of the arena: two lengths, and a key of a few bytes.
const PAIR_MIN: usize = 12;

impl Pairs {
    /// Room for as many as a budget of `bytes` has. It is only asked for, and memory when something comes to be there: a vector that
    /// grows holds its old room and twice as much again for a moment, and an allocator keeps what it had once. Where so much isn't to
    /// be had, it grows all the same.
    pub fn with_room(bytes: usize) -> Self {
        let mut pairs = Self::default();
        let _ = pairs.arena.try_reserve_exact(bytes.saturating_add(ROOM_OVER));
        let _ = pairs.entries.try_reserve_exact(bytes / (PAIR_MIN + size_of::<Entry>()));
        pairs
    }

    /// Bytes held.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.arena.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    /// Appends a pair.
    #[inline]
    pub fn push(&mut self, plan: &Plan, key: &[u8], value: &[u8]) {
        let partition = if plan.partitions == 1 { 0 } else { plan.partition_of(key) };
        let padding = self.arena.len().next_multiple_of(UNIT) - self.arena.len();
        self.arena.extend_from_slice(&[0; UNIT][..padding]);
        let at = u32::try_from(self.arena.len() / UNIT).expect("the memory budget is below 16 GiB");
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("pairs are bounded").to_le_bytes();
        self.arena.extend_from_slice(&length(key));
        self.arena.extend_from_slice(&length(value));
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(value);
        self.entries.push(Entry { prefix: prefix(key), partition, at });
    }

    /// Hands out the pairs by partition, key, and the order in which they came.
    pub(super) fn drain<E>(
        &mut self,
        _: &Plan,
        mut take: impl FnMut(u32, &[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let arena = &self.arena;
        self.entries.sort_unstable_by(|a, b| {
            (a.partition, a.prefix)
                .cmp(&(b.partition, b.prefix))
                .then_with(|| pair(arena, a.at).0.cmp(pair(arena, b.at).0))
                .then(a.at.cmp(&b.at))
        });
        for entry in &self.entries {
            let (key, value) = pair(arena, entry.at);
            take(entry.partition, key, value)?;
        }
        self.clear();
        Ok(())
    }
}

#[inline]
fn pair(arena: &[u8], at: u32) -> (&[u8], &[u8]) {
    let pair = &arena[at as usize * UNIT..];
    let length = |at: usize| u32::from_le_bytes(pair[at..at + 4].try_into().expect("four bytes")) as usize;
    let (key, value) = (length(0), length(4));
    (&pair[8..8 + key], &pair[8 + key..8 + key + value])
}
