//! A timer wheel: to arm or to cancel a timer takes a few instructions, however many there are, and allocates nothing once
//! there has been room for as many.
//!
//! ```text
//!   level 0   64 slots of one tick (65.5 µs)    what is due within 4 ms
//!   level 1   64 slots of 64 ticks              … 268 ms
//!     ⋮
//!   level 5   64 slots of 64⁵ ticks             … 52 days; what is due later waits here and is looked at again
//! ```
//!
//! A timer lies in the lowest level whose slot tells it from now; when its slot begins it moves down, until it is due. A
//! slot is a list through the entries; a bit for each slot says whether anything is in it, so to find the next one is
//! counting zeros.
//!
//! It knows no clock: time is an argument. It never fires early, and at most a tick late.

use crate::machine::Nanos;

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// A tick is 2^16 ns.
const TICK_BITS: u32 = 16;
/// Further ahead nothing is put: half of the wheel, so that what lies ahead and what lies behind differ.
const AHEAD_MAX: u64 = 1 << (SLOT_BITS * LEVELS as u32 - 1);
/// The end of a list.
const NONE: u32 = u32::MAX;

/// Names an armed timer. After it has fired or was cancelled it names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerKey {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Entry<T> {
    /// In ticks.
    due: u64,
    next: u32,
    previous: u32,
    /// `level * 64 + slot`.
    place: u16,
    generation: u32,
    /// None: the entry is free.
    payload: Option<T>,
}

/// Timers, each with something that comes back when it is due.
#[derive(Debug)]
pub struct Wheel<T> {
    /// In ticks: everything that was due before has fired.
    now: u64,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    entries: Vec<Entry<T>>,
    /// A list of free entries.
    free: u32,
    armed: usize,
}

impl<T> Wheel<T> {
    /// An empty wheel that begins at `now`.
    pub fn new(now: Nanos) -> Self {
        Self {
            now: now >> TICK_BITS,
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            entries: Vec::new(),
            free: NONE,
            armed: 0,
        }
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Arms a timer: `payload` comes back from the first [`Self::expire`] at or after `due`.
    pub fn arm(&mut self, due: Nanos, payload: T) -> TimerKey {
        // Rounded up, since nothing fires early.
        let due = (due >> TICK_BITS) + u64::from(due & ((1 << TICK_BITS) - 1) != 0);
        let index = match self.free {
            NONE => {
                let index = u32::try_from(self.entries.len()).expect("fewer timers than fit the memory");
                let (next, previous) = (NONE, NONE);
                self.entries.push(Entry { due, next, previous, place: 0, generation: 0, payload: None });
                index
            }
            index => {
                self.free = self.entries[index as usize].next;
                index
            }
        };
        let entry = &mut self.entries[index as usize];
        (entry.due, entry.payload) = (due, Some(payload));
        let generation = entry.generation;
        self.armed += 1;
        self.link(index);
        TimerKey { index, generation }
    }

    /// Takes a timer back, with what it was armed with. `None` if it isn't armed any more.
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        self.payload(key)?;
        self.unlink(key.index);
        self.release(key.index)
    }

    /// What an armed timer was armed with. `None` if it isn't armed any more.
    pub fn payload(&mut self, key: TimerKey) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        entry.payload.as_mut().filter(|_| entry.generation == key.generation)
    }

    /// When [`Self::expire`] is to be called next: never later than the next timer is due, and earlier only if that is more
    /// than 4 ms away.
    pub fn next(&self) -> Option<Nanos> {
        self.next_slot().map(|(_, at)| at << TICK_BITS)
    }

    /// Hands over what is due at `now`, earlier ones first.
    pub fn expire(&mut self, now: Nanos, mut f: impl FnMut(T)) {
        let now = now >> TICK_BITS;
        while let Some((place, at)) = self.next_slot().filter(|(_, at)| *at <= now) {
            self.now = self.now.max(at);
            let mut index = std::mem::replace(&mut self.heads[place], NONE);
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
            while index != NONE {
                let next = self.entries[index as usize].next;
                if self.entries[index as usize].due > self.now {
                    self.link(index);
                } else if let Some(payload) = self.release(index) {
                    f(payload);
                }
                index = next;
            }
        }
        self.now = self.now.max(now);
    }

    /// The next slot that has something, and the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, u64)> {
        // What is in a lower level is due before anything in a higher one: it shares the higher one's current slot.
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let shift = SLOT_BITS * level as u32;
        let current = (self.now >> shift) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(current).trailing_zeros();
        let slot = (current + ahead) as usize % SLOTS;
        let at = ((self.now >> shift) + u64::from(ahead)) << shift;
        Some((level * SLOTS + slot, at))
    }

    /// Puts an entry where it belongs.
    fn link(&mut self, index: u32) {
        let due = self.entries[index as usize].due.clamp(self.now, self.now + AHEAD_MAX);
        let differs = u64::BITS - (due ^ self.now).leading_zeros();
        let level = (differs.saturating_sub(1) / SLOT_BITS).min(LEVELS as u32 - 1);
        let slot = (due >> (SLOT_BITS * level)) as usize % SLOTS;
        let place = level as usize * SLOTS + slot;
        let head = std::mem::replace(&mut self.heads[place], index);
        self.occupied[level as usize] |= 1 << slot;
        let entry = &mut self.entries[index as usize];
        (entry.place, entry.next, entry.previous) = (place as u16, head, NONE);
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let (place, next, previous) = (usize::from(entry.place), entry.next, entry.previous);
        match previous {
            NONE => self.heads[place] = next,
            previous => self.entries[previous as usize].next = next,
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if self.heads[place] == NONE {
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        }
    }

    fn release(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = self.free;
        self.free = index;
        self.armed -= 1;
        entry.payload.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{MILLISECOND, SECOND};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const TICK: Nanos = 1 << TICK_BITS;

    fn fired(wheel: &mut Wheel<u32>, now: Nanos) -> Vec<u32> {
        let mut all = Vec::new();
        wheel.expire(now, |payload| all.push(payload));
        all
    }

    #[test]
    fn a_timer_fires_once_and_never_early() {
        for start in [0, 7 * SECOND, u64::MAX >> 3] {
            for ahead in [1, TICK, MILLISECOND, 5 * MILLISECOND, SECOND, 3600 * SECOND, 90 * 86_400 * SECOND]
            {
                let mut wheel = Wheel::new(start);
                wheel.arm(start + ahead, 1);
                let mut now = start;
                while let Some(next) = wheel.next() {
                    assert!(next > now || ahead < TICK && next >= now, "it comes on: {next} after {now}");
                    assert!(next <= start + ahead + TICK, "{next} for {ahead} after {start}");
                    let early = fired(&mut wheel, (start + ahead - 1).min(next)).is_empty();
                    assert!(early || ahead < TICK, "{ahead} after {start}");
                    now = next;
                    if next >= start + ahead {
                        assert_eq!(fired(&mut wheel, next), [1]);
                    }
                }
                assert!(wheel.is_empty());
            }
        }
    }

    #[test]
    fn a_key_names_one_timer() {
        let mut wheel = Wheel::new(0);
        let first = wheel.arm(SECOND, 1);
        assert_eq!(wheel.payload(first), Some(&mut 1));
        assert_eq!((wheel.cancel(first), wheel.cancel(first), wheel.len()), (Some(1), None, 0));
        let second = wheel.arm(SECOND, 2);
        assert_eq!((wheel.cancel(first), wheel.payload(first)), (None, None), "its place is another's now");
        assert_eq!(fired(&mut wheel, SECOND + TICK), [2]);
        assert_eq!((wheel.cancel(second), wheel.next()), (None, None));
    }

    #[test]
    fn arming_and_cancelling_needs_no_more_room() {
        let mut wheel = Wheel::new(0);
        for round in 0..10_000 {
            let keys: Vec<TimerKey> =
                (0..10).map(|it| wheel.arm(round * MILLISECOND + it * SECOND, 0)).collect();
            keys.into_iter().for_each(|key| {
                wheel.cancel(key).unwrap();
            });
        }
        assert_eq!(wheel.entries.len(), 10);
    }

    proptest! {
        /// Against a sorted map: the same timers fire at the same looks.
        #[test]
        fn behaves_like_a_sorted_map(
            start in 0..1_u64 << 50,
            steps in prop::collection::vec((0..3_u8, 0..40_u32, 0..1_u64 << 20), 0..300),
        ) {
            let (mut wheel, mut model) = (Wheel::new(start), BTreeMap::new());
            let (mut now, mut keys) = (start, Vec::new());
            for (number, (kind, scale, fraction)) in (0..).zip(steps) {
                let span = fraction << scale >> 20;
                match kind {
                    0 => {
                        keys.push((number, wheel.arm(now + span, number)));
                        model.insert(number, now + span);
                    }
                    1 if !keys.is_empty() => {
                        let (number, key) = keys.swap_remove(fraction as usize % keys.len());
                        prop_assert_eq!(wheel.cancel(key).is_some(), model.remove(&number).is_some());
                    }
                    _ => {
                        now += span;
                        let mut got = fired(&mut wheel, now);
                        got.sort_unstable();
                        let ticks = |due: u64| due.div_ceil(TICK);
                        let due: Vec<u32> =
                            model.iter().filter(|(_, due)| ticks(**due) <= now / TICK).map(|(it, _)| *it).collect();
                        prop_assert_eq!(&got, &due);
                        due.iter().for_each(|number| {
                            model.remove(number);
                        });
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.values().min().map(|due| due.div_ceil(TICK) * TICK);
                prop_assert_eq!(wheel.next().is_some(), earliest.is_some());
                prop_assert!(wheel.next().is_none_or(|next| earliest.is_some_and(|it| next <= it.max(now))));
            }
        }
    }
}
