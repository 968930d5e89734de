//! A hash table from keys to what their values have become.
//!
//! Open addressing over slots of 32 bytes. A key of up to 16 bytes, which is nearly every word there is, lies in its
//! slot as two numbers and is compared as such; a longer one lies in an arena, and its hash and place in the slot.

use super::Plan;
use crate::mapreduce::job::{Combiner, Job, count_of};
use crate::mapreduce::run::prefix;
use crate::mapreduce::varint;

/// Keys up to here lie in their slot.
const INLINE_BYTES: usize = 16;
/// In [`Slot::length`] of a key that lies in the arena.
const IN_ARENA: u32 = u32::MAX;
/// Slots at the beginning: 1 MiB, which a core's second-level cache holds.
const SLOTS_MIN: usize = 1 << 15;
/// In [`Slot::value`] of a [`Combiner::Distinct`] key: no value yet.
const NONE: u64 = u32::MAX as u64;

/// A key and what its values have become.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The key, zero padded; or its hash, and its place in the arena with its length below.
    key: (u64, u64),
    /// One more than the key's length, [`IN_ARENA`], or 0 if the slot is free.
    length: u32,
    /// The sum; or the place in `folded`; or the latest value's number, and the place of the chain of all.
    value: u64,
}

/// One link of a key's set of values.
#[derive(Clone, Copy, Debug)]
struct Link {
    value: u32,
    next: u32,
}

/// Keys and what their values have become.
#[derive(Debug)]
pub struct Table {
    combiner: Combiner,
    slots: Vec<Slot>,
    used: usize,
    arena: Vec<u8>,
    folded: Vec<Vec<u8>>,
    folded_bytes: usize,
    links: Vec<Link>,
    values: Interned,
}

/// Values that many keys have, each once.
#[derive(Debug, Default)]
struct Interned {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    index: std::collections::BTreeMap<Vec<u8>, u32>,
    /// The one that came last comes next, mostly.
    latest: Option<u32>,
}

impl Interned {
    fn get(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let from = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.bytes[from..self.ends[number]]
    }

    #[inline]
    fn number_of(&mut self, value: &[u8]) -> u32 {
        if let Some(latest) = self.latest
            && self.get(latest) == value
        {
            return latest;
        }
        let number = match self.index.get(value) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.ends.len()).expect("bounded by memory");
                self.bytes.extend_from_slice(value);
                self.ends.push(self.bytes.len());
                self.index.insert(value.to_vec(), number);
                number
            }
        };
        self.latest = Some(number);
        number
    }
}

/// A key made ready for the table.
#[derive(Clone, Copy)]
struct Probe {
    key: (u64, u64),
    length: u32,
    hash: u64,
}

impl Probe {
    #[inline]
    fn short(key: (u64, u64), length: usize) -> Self {
        // Every bit of the key reaches the low bits, by which slots are chosen.
        let mixed = u128::from(key.0 ^ 0x9e37_79b9_7f4a_7c15) * u128::from(key.1 ^ 0xe703_7ed1_a0b4_28db);
        Self { key, length: length as u32 + 1, hash: mixed as u64 ^ (mixed >> 64) as u64 }
    }

    #[inline]
    fn of(key: &[u8]) -> Self {
        if key.len() > INLINE_BYTES {
            let hash = crate::mapreduce::partition::hash(key);
            return Self { key: (hash, 0), length: IN_ARENA, hash };
        }
        let mut padded = [0; INLINE_BYTES];
        padded[..key.len()].copy_from_slice(key);
        Self::short(halves(&padded), key.len())
    }
}

#[inline]
fn halves(bytes: &[u8; 16]) -> (u64, u64) {
    let all = u128::from_le_bytes(*bytes);
    (all as u64, (all >> 64) as u64)
}

impl Table {
    /// An empty one.
    pub fn new(combiner: Combiner) -> Self {
        Self {
            combiner,
            slots: vec![Slot::default(); SLOTS_MIN],
            used: 0,
            arena: Vec::new(),
            folded: Vec::new(),
            folded_bytes: 0,
            links: Vec::new(),
            values: Interned::default(),
        }
    }

    /// Whether it adds up counts.
    #[inline]
    pub fn sums(&self) -> bool {
        self.combiner == Combiner::Sum
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Bytes held, about.
    #[inline]
    pub fn bytes(&self) -> usize {
        // A slot, and what sorting takes.
        self.used * (2 * size_of::<Slot>() + 24)
            + self.arena.len()
            + self.folded_bytes
            + self.links.len() * size_of::<Link>()
            + self.values.bytes.len() * 3
    }

    /// Forgets all; keeps the slots.
    pub fn clear(&mut self) {
        self.slots.fill(Slot::default());
        self.used = 0;
        self.arena.clear();
        self.folded.clear();
        self.folded_bytes = 0;
        self.links.clear();
        self.values = Interned::default();
    }

    /// Adds to a key's sum.
    #[inline]
    pub fn add(&mut self, key: &[u8], n: u64) {
        let place = self.place(Probe::of(key), key);
        let slot = &mut self.slots[place];
        slot.value = slot.value.saturating_add(n);
    }

    /// Whether it holds sets of values.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.combiner == Combiner::Distinct
    }

    /// Adds one to the sum of the key `block[start..end]`.
    #[inline]
    pub fn add_span(&mut self, block: &[u8], start: usize, end: usize) {
        let place = self.place_of_span(block, start, end);
        let slot = &mut self.slots[place];
        slot.value = slot.value.saturating_add(1);
    }

    #[inline]
    fn place_of_span(&mut self, block: &[u8], start: usize, end: usize) -> usize {
        let length = end - start;
        let around: Option<&[u8; 16]> = block.get(start..).and_then(<[u8]>::first_chunk);
        match around {
            Some(around) if length <= INLINE_BYTES => {
                // What is behind the key is cut off, without a branch for each length.
                let all = u128::from_le_bytes(*around) & MASKS[length];
                self.place(Probe::short((all as u64, (all >> 64) as u64), length), &[])
            }
            _ => {
                let key = &block[start..end];
                self.place(Probe::of(key), key)
            }
        }
    }

    /// Puts a value to a key's others.
    #[inline]
    pub fn emit(&mut self, job: &dyn Job, key: &[u8], value: &[u8]) {
        match self.combiner {
            Combiner::Sum => self.add(key, count_of(value)),
            Combiner::Distinct => self.insert(key, value),
            Combiner::Fold | Combiner::None => self.fold(job, key, value),
        }
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) {
        let (number, used) = (self.values.number_of(value), self.used);
        let place = self.place(Probe::of(key), key);
        self.insert_at(place, self.used > used, number);
    }

    /// Puts a value into the set of the key `block[start..end]`.
    #[inline]
    pub fn insert_span(&mut self, block: &[u8], start: usize, end: usize, value: &[u8]) {
        let (number, used) = (self.values.number_of(value), self.used);
        let place = self.place_of_span(block, start, end);
        self.insert_at(place, self.used > used, number);
    }

    #[inline]
    fn insert_at(&mut self, place: usize, is_new: bool, number: u32) {
        if is_new {
            self.slots[place].value = NONE << 32 | NONE;
        }
        let slot = &mut self.slots[place];
        let (latest, first) = (slot.value >> 32, slot.value as u32);
        if latest == u64::from(number) {
            return;
        }
        let mut at = first;
        while let Some(link) = self.links.get(at as usize) {
            if link.value == number {
                slot.value = u64::from(number) << 32 | u64::from(first);
                return;
            }
            at = link.next;
        }
        let link = u32::try_from(self.links.len()).expect("bounded by memory");
        self.links.push(Link { value: number, next: first });
        slot.value = u64::from(number) << 32 | u64::from(link);
    }

    fn fold(&mut self, job: &dyn Job, key: &[u8], value: &[u8]) {
        let used = self.used;
        let place = self.place(Probe::of(key), key);
        if self.used > used {
            self.slots[place].value = self.folded.len() as u64;
            self.folded.push(value.to_vec());
            self.folded_bytes += value.len() + size_of::<Vec<u8>>();
            return;
        }
        let folded = &mut self.folded[self.slots[place].value as usize];
        let before = folded.len();
        job.fold(key, folded, value);
        self.folded_bytes = (self.folded_bytes + folded.len()).saturating_sub(before);
    }

    /// The slot of a key, which is made if there is none. Its bytes are looked at only if they are too long for it.
    #[inline]
    fn place(&mut self, probe: Probe, key: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut place = probe.hash as usize & mask;
        loop {
            let slot = &self.slots[place];
            if slot.length == probe.length
                && slot.key.0 == probe.key.0
                && (slot.key.1 == probe.key.1 || slot.length == IN_ARENA)
                && (slot.length != IN_ARENA || self.long_key(slot) == key)
            {
                return place;
            }
            if slot.length == 0 {
                return self.occupy(place, probe, key);
            }
            place = (place + 1) & mask;
        }
    }

    #[cold]
    fn occupy(&mut self, place: usize, probe: Probe, key: &[u8]) -> usize {
        if self.used * 2 >= self.slots.len() {
            self.grow();
            return self.place(probe, key);
        }
        let mut slot = Slot { key: probe.key, length: probe.length, value: 0 };
        if probe.length == IN_ARENA {
            slot.key.1 = self.arena.len() as u64;
            varint::put(&mut self.arena, key.len() as u64);
            self.arena.extend_from_slice(key);
        }
        self.slots[place] = slot;
        self.used += 1;
        place
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![Slot::default(); old.len() * 2];
        let mask = self.slots.len() - 1;
        for slot in old.into_iter().filter(|slot| slot.length != 0) {
            let hash = match slot.length {
                IN_ARENA => slot.key.0,
                length => Probe::short(slot.key, length as usize - 1).hash,
            };
            let mut place = hash as usize & mask;
            while self.slots[place].length != 0 {
                place = (place + 1) & mask;
            }
            self.slots[place] = slot;
        }
    }

    #[inline]
    fn long_key(&self, slot: &Slot) -> &[u8] {
        let rest = &self.arena[slot.key.1 as usize..];
        let (length, head) = varint::get(rest).expect("written by `occupy`");
        &rest[head..head + length as usize]
    }

    fn key<'a>(&'a self, slot: &Slot, room: &'a mut [u8; 16]) -> &'a [u8] {
        if slot.length == IN_ARENA {
            return self.long_key(slot);
        }
        *room = (u128::from(slot.key.0) | u128::from(slot.key.1) << 64).to_le_bytes();
        &room[..slot.length as usize - 1]
    }

    /// Hands out keys with their values, by partition and key.
    pub(super) fn drain<E>(
        &mut self,
        plan: &Plan,
        mut take: impl FnMut(u32, &[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut order = Vec::with_capacity(self.used);
        for slot in self.slots.iter().filter(|slot| slot.length != 0) {
            let mut room = [0; 16];
            let key = self.key(slot, &mut room);
            let partition = if plan.partitions == 1 { 0 } else { plan.partition_of(key) };
            order.push((partition, prefix(key), *slot));
        }
        order.sort_unstable_by(|(part, prefix, slot), (other_part, other_prefix, other)| {
            (part, prefix).cmp(&(other_part, other_prefix)).then_with(|| {
                let (mut room, mut other_room) = ([0; 16], [0; 16]);
                self.key(slot, &mut room).cmp(self.key(other, &mut other_room))
            })
        });
        let mut value = Vec::new();
        for (partition, _, slot) in &order {
            let mut room = [0; 16];
            let key = self.key(slot, &mut room);
            match self.combiner {
                Combiner::Sum => {
                    value.clear();
                    varint::put(&mut value, slot.value);
                    take(*partition, key, &value)?;
                }
                Combiner::Distinct => {
                    let mut values = Vec::new();
                    let mut at = slot.value as u32;
                    while let Some(link) = self.links.get(at as usize) {
                        values.push(self.values.get(link.value));
                        at = link.next;
                    }
                    values.sort_unstable();
                    for value in values {
                        take(*partition, key, value)?;
                    }
                }
                Combiner::Fold | Combiner::None => {
                    take(*partition, key, &self.folded[slot.value as usize])?;
                }
            }
        }
        self.clear();
        Ok(())
    }
}

/// What of 16 bytes belongs to a key of each length.
static MASKS: [u128; INLINE_BYTES + 1] = {
    let mut masks = [0; INLINE_BYTES + 1];
    let mut length = 1;
    while length <= INLINE_BYTES {
        masks[length] = u128::MAX >> (128 - 8 * length as u32);
        length += 1;
    }
    masks
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    struct Longest;
    impl Job for Longest {
        fn combiner(&self) -> Combiner {
            Combiner::Fold
        }
        fn map(
            &self,
            _: &crate::mapreduce::Record<'_>,
            _: &mut dyn crate::mapreduce::Emit,
        ) -> crate::mapreduce::Done {
            Ok(())
        }
        fn fold(&self, _: &[u8], into: &mut Vec<u8>, value: &[u8]) {
            if value.len() > into.len() {
                *into = value.to_vec();
            }
        }
        fn reduce(
            &self,
            _: &[u8],
            _: &mut dyn crate::mapreduce::Values,
            _: &mut dyn crate::mapreduce::Emit,
        ) -> crate::mapreduce::Done {
            Ok(())
        }
    }

    fn plan(partitions: u32) -> Plan {
        Plan {
            job: Arc::new(Longest),
            partitioner: crate::mapreduce::Partitioner::Hash,
            partitions,
            memory_bytes_max: 1 << 20,
        }
    }

    /// Keys of every length around those that change how they are held, many of them alike at the front.
    fn keys() -> impl Iterator<Item = Vec<u8>> {
        (0..120_000_u32).map(|n| {
            let n = n.wrapping_mul(2_654_435_761) % 40_000;
            let mut key = format!("{n}").into_bytes();
            key.extend(std::iter::repeat_n(b'k', n as usize % 23));
            if n == 7 { Vec::new() } else { key }
        })
    }

    fn drained(table: &mut Table) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (mut found, mut last) = (Vec::new(), 0);
        let taken = table.drain(&plan(4), |partition, key, value| {
            assert!(partition >= last);
            last = partition;
            found.push((partition, key.to_vec(), value.to_vec()));
            Ok::<(), ()>(())
        });
        taken.unwrap();
        assert!(found.is_sorted());
        assert!(table.is_empty());
        let mut found: Vec<_> = found.into_iter().map(|(_, key, value)| (key, value)).collect();
        found.sort();
        found
    }

    #[test]
    fn sums_are_those_of_a_map_whichever_way_they_are_counted() {
        let mut table = Table::new(Combiner::Sum);
        for _ in 0..2 {
            let mut expected: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
            for (n, key) in keys().enumerate() {
                *expected.entry(key.clone()).or_default() += if n % 3 == 0 { 5 } else { 1 };
                let mut block = b"around".to_vec();
                block.extend_from_slice(&key);
                match n % 3 {
                    0 => table.add(&key, 5),
                    1 => table.add_span(&block, 6, 6 + key.len()),
                    _ => {
                        block.extend_from_slice(b"and much behind it");
                        table.add_span(&block, 6, 6 + key.len());
                    }
                }
            }
            let found: BTreeMap<Vec<u8>, u64> =
                drained(&mut table).into_iter().map(|(key, value)| (key, count_of(&value))).collect();
            assert!(found == expected);
        }
    }

    #[test]
    fn sets_hold_each_value_once() {
        let mut table = Table::new(Combiner::Distinct);
        let mut expected = BTreeSet::new();
        for (n, key) in keys().enumerate() {
            let value = format!("value{}", n / 10 % 17).into_bytes();
            table.emit(&Longest, &key, &value);
            expected.insert((key, value));
        }
        let found = drained(&mut table);
        assert_eq!(found.len(), expected.len());
        assert!(found.into_iter().collect::<BTreeSet<_>>() == expected);
    }

    #[test]
    fn folds_are_the_jobs_own() {
        let mut table = Table::new(Combiner::Fold);
        for value in [&b"aa"[..], b"a", b"aaaa", b"aaa"] {
            table.emit(&Longest, b"key", value);
            table.emit(&Longest, b"a key that is much longer", value);
        }
        let found = drained(&mut table);
        assert!(found.len() == 2 && found.iter().all(|(_, value)| value == b"aaaa"));
    }
}
