//! What the users remember together, and whether it can be true.
//!
//! Registers are judged by a search for an order ([`crate::linear`]). Where an answer tells its own place in the order
//! (the counter's value, a list's length), there is nothing to search: the places must agree with the times.

use super::atomics::{Versioned, both};
use super::{Key, token, value_of};
use crate::linear::{Did, Operation, Verdict, check};
use crate::rng::Rng;
use flotilla_services::client::Reply;
use std::collections::{BTreeMap, BTreeSet};

/// When an operation was called, and when it returned, if it did.
pub(super) type When = (u64, Option<u64>);

/// Of these last ones, one is read now and then.
const LEASES_READ: usize = 6;

/// An operation that tells its place: how often the thing had been changed when it took effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) when: When,
    pub(super) place: u64,
    pub(super) is_change: bool,
}

/// One list.
#[derive(Debug, Default)]
struct List {
    /// The tokens that were appended: with the length told, if an answer came.
    appended: Vec<(u64, Option<i64>, When)>,
    seen: Vec<(Vec<u8>, When)>,
}

/// One counter.
#[derive(Debug, Default)]
struct Counter {
    counts: Vec<Placed>,
    uncertain: u64,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Memory {
    registers: BTreeMap<Key, Vec<Operation>>,
    leases: Vec<u64>,
    lists: BTreeMap<u64, List>,
    counters: BTreeMap<u64, Counter>,
    pairs: BTreeMap<u64, Counter>,
    once: BTreeMap<u64, Counter>,
    versions: BTreeMap<u64, Versioned>,
}

impl Memory {
    /// A lease of late.
    pub(super) fn some_lease(&self, rng: &mut Rng) -> Option<u64> {
        let back = usize::try_from(rng.between(1, LEASES_READ as u64)).expect("few");
        self.leases.len().checked_sub(back).map(|place| self.leases[place])
    }

    pub(super) fn wrote(&mut self, key: Key, value: Option<u64>, (called, returned): When) {
        let history = self.registers.entry(key).or_default();
        history.push(Operation { called, returned, did: Did::Write(value) });
        if let Key::Lease(number) = key {
            self.leases.push(number);
            // It ends by itself, whenever that is; then it is over for ever.
            history.push(Operation { called, returned: None, did: Did::Write(None) });
        }
    }

    pub(super) fn counted(&mut self, counter: u64, count: Option<i64>, when: When) {
        self.counters.entry(counter).or_default().counted(count, when);
    }

    /// An increment that is sent until it is answered was answered.
    pub(super) fn counted_once(&mut self, counter: u64, count: i64, when: When) {
        self.once.entry(counter).or_default().counted(Some(count), when);
    }

    /// Both halves of a pair went up, to this.
    pub(super) fn paired(&mut self, pair: u64, count: Option<i64>, when: When) {
        self.pairs.entry(pair).or_default().counted(count, when);
    }

    /// The newest version of a key that anybody has seen.
    pub(super) fn known_version(&self, tag: u64) -> u64 {
        self.versions.get(&tag).map_or(0, Versioned::known)
    }

    pub(super) fn version(&mut self, tag: u64) -> &mut Versioned {
        self.versions.entry(tag).or_default()
    }

    pub(super) fn appended(&mut self, list: u64, value: u64, length: Option<i64>, when: When) {
        self.lists.entry(list).or_default().appended.push((value, length, when));
    }

    pub(super) fn read(&mut self, key: Key, reply: &Reply, when: When) -> Result<(), String> {
        match key {
            Key::Register(_) | Key::Lease(_) => {
                let did = Did::Read(value_of(reply)?);
                let (called, returned) = when;
                self.registers.entry(key).or_default().push(Operation { called, returned, did });
            }
            Key::List(list) => {
                self.lists.entry(list).or_default().seen.push((text_of(reply)?, when));
            }
            Key::Version(tag) => self.version(tag).read(reply, when)?,
            Key::Pair(tag) => {
                let place = u64::try_from(both(reply)?).unwrap_or(0);
                let counts = &mut self.pairs.entry(tag).or_default().counts;
                counts.push(Placed { when, place, is_change: false });
            }
            Key::Counter(tag) | Key::Once(tag) => {
                let text = String::from_utf8(text_of(reply)?).unwrap_or_default();
                let place = if text.is_empty() { Ok(0) } else { text.parse() };
                let place = place.map_err(|_| format!("reply: the counter is {text:?}"))?;
                let counters = if matches!(key, Key::Once(_)) { &mut self.once } else { &mut self.counters };
                let counter = counters.entry(tag).or_default();
                counter.counts.push(Placed { when, place, is_change: false });
            }
        }
        Ok(())
    }

    /// Judges all of it. `unanswered` tells how many of the increments of a counter, which are sent until they are answered,
    /// weren't. Returns how many histories couldn't be decided.
    ///
    /// # Errors
    /// What can't be true.
    pub(super) fn judge(&self, unanswered: impl Fn(u64) -> u64) -> Result<u64, String> {
        let mut undecided = 0;
        for (key, history) in &self.registers {
            match check(history) {
                Verdict::Linearizable => {}
                Verdict::Undecided => undecided += 1,
                Verdict::Broken { at } => {
                    return Err(format!("linearizability: {key:?}: {}", shown(history, at)));
                }
            }
        }
        for (number, counter) in &self.counters {
            counter.judge(0).map_err(|what| format!("exactly once: counter {number}: {what}"))?;
        }
        for (number, counter) in &self.once {
            let judged = counter.judge(unanswered(*number));
            judged.map_err(|what| format!("exactly once: counter {number} of sessions: {what}"))?;
        }
        for (number, pair) in &self.pairs {
            pair.judge(0).map_err(|what| format!("exactly once: pair {number}: {what}"))?;
        }
        for (number, version) in &self.versions {
            version.judge().map_err(|what| format!("linearizability: versions of {number}: {what}"))?;
        }
        for (number, list) in &self.lists {
            list.judge().map_err(|what| format!("linearizability: list {number}: {what}"))?;
        }
        Ok(undecided)
    }
}

impl Counter {
    fn counted(&mut self, count: Option<i64>, when: When) {
        match count.map(u64::try_from) {
            Some(place) => {
                self.counts.push(Placed { when, place: place.unwrap_or(0), is_change: true });
            }
            None => self.uncertain += 1,
        }
    }

    fn judge(&self, unanswered: u64) -> Result<(), String> {
        let uncertain = self.uncertain + unanswered;
        let (changes, looks): (Vec<&Placed>, Vec<&Placed>) = self.counts.iter().partition(|it| it.is_change);
        let count = looks.iter().map(|it| it.place).max().unwrap_or(0);
        let acknowledged = changes.len() as u64;
        let places: BTreeSet<u64> = changes.iter().map(|it| it.place).collect();
        if places.len() as u64 != acknowledged || places.last().is_some_and(|last| *last > count) {
            return Err(format!("counts {places:?} of {count} after {acknowledged} increments"));
        }
        if count < acknowledged || count > acknowledged + uncertain {
            return Err(format!(
                "it is {count} after {acknowledged} acknowledged and {uncertain} uncertain increments"
            ));
        }
        in_order(&self.counts)
    }
}

impl List {
    fn judge(&self) -> Result<(), String> {
        let whole = self.seen.iter().map(|(text, _)| text).max_by_key(|text| text.len());
        let Some(whole) = whole else { return Ok(()) };
        let mut places = BTreeMap::new();
        for (place, found) in whole.chunks(8).enumerate() {
            if places.insert(found, place as u64 + 1).is_some() {
                return Err(format!("{} is in it twice", found.escape_ascii()));
            }
        }
        let mut placed = Vec::new();
        for (value, length, when) in &self.appended {
            let place = places.remove(token(*value).as_bytes());
            let told = length.map(|length| u64::try_from(length / 8).unwrap_or(0));
            if told.is_some() && told != place {
                return Err(format!("{value} was appended as number {told:?} and is number {place:?}"));
            }
            placed.extend(place.map(|place| Placed { when: *when, place, is_change: true }));
        }
        if let Some(found) = places.keys().next() {
            return Err(format!("nobody appended {}", found.escape_ascii()));
        }
        for (text, when) in &self.seen {
            if !whole.starts_with(text) {
                return Err(format!("{} isn't how {} began", text.escape_ascii(), whole.escape_ascii()));
            }
            placed.push(Placed { when: *when, place: text.len() as u64 / 8, is_change: false });
        }
        in_order(&placed)
    }
}

/// What returned before something else was called has the earlier place.
pub(super) fn in_order(operations: &[Placed]) -> Result<(), String> {
    let mut by_call: Vec<&Placed> = operations.iter().collect();
    by_call.sort_by_key(|it| it.when.0);
    let mut by_return: Vec<&Placed> = operations.iter().filter(|it| it.when.1.is_some()).collect();
    by_return.sort_by_key(|it| it.when.1);
    let mut returned = by_return.into_iter().peekable();
    let mut furthest: Option<&Placed> = None;
    for operation in by_call {
        while let Some(before) = returned.next_if(|it| it.when.1.is_some_and(|at| at < operation.when.0)) {
            if furthest.is_none_or(|it| it.place < before.place) {
                furthest = Some(before);
            }
        }
        let Some(before) = furthest else { continue };
        if operation.place < before.place || (operation.is_change && operation.place == before.place) {
            return Err(format!("{operation:?} comes after {before:?} returned"));
        }
    }
    Ok(())
}

fn text_of(reply: &Reply) -> Result<Vec<u8>, String> {
    match reply {
        Reply::Null => Ok(Vec::new()),
        Reply::Bulk(bytes) => Ok(bytes.clone()),
        other => Err(format!("reply: a read was answered with {other}")),
    }
}

/// The operations around an instant.
fn shown(history: &[Operation], at: u64) -> String {
    let mut sorted = history.to_vec();
    sorted.sort_by_key(|op| op.called);
    let place = sorted.partition_point(|op| op.called < at);
    let around = &sorted[place.saturating_sub(20)..(place + 10).min(sorted.len())];
    let lines = around.iter().map(|op| {
        let end = op.returned.map_or_else(|| "?".to_owned(), |at| format!("{:.3}", at as f64 / 1e6));
        format!("\n  {:>10.3} – {end:>10} ms  {:?}", op.called as f64 / 1e6, op.did)
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(memory: &mut Memory, value: u64, length: i64, when: (u64, u64)) {
        memory.appended(0, value, Some(length), (when.0, Some(when.1)));
    }

    fn saw(memory: &mut Memory, text: &str, when: (u64, u64)) {
        let reply = Reply::Bulk(text.as_bytes().to_vec());
        memory.read(Key::List(0), &reply, (when.0, Some(when.1))).unwrap();
    }

    #[test]
    fn a_list_tells_its_order() {
        let mut memory = Memory::default();
        appended(&mut memory, 1, 8, (1, 4));
        appended(&mut memory, 2, 16, (2, 3));
        memory.appended(0, 3, None, (5, None));
        saw(&mut memory, "0000000100000002", (6, 7));
        assert_eq!(memory.judge(|_| 0), Ok(0), "what never returned may not have happened");
        saw(&mut memory, "000000010000000200000003", (8, 9));
        assert_eq!(memory.judge(|_| 0), Ok(0), "or late");
        saw(&mut memory, "0000000100000002", (10, 11));
        assert!(memory.judge(|_| 0).is_err(), "but then it has");
    }

    #[test]
    fn what_was_acknowledged_is_there_once() {
        for text in ["", "0000000100000001", "00000002"] {
            let mut memory = Memory::default();
            appended(&mut memory, 1, 8, (1, 2));
            saw(&mut memory, text, (3, 4));
            assert!(memory.judge(|_| 0).is_err(), "{text}");
        }
    }

    #[test]
    fn the_counter_follows_the_times() {
        let mut memory = Memory::default();
        memory.counted(0, Some(2), (1, Some(2)));
        memory.counted(0, Some(1), (3, Some(4)));
        memory.read(Key::Counter(0), &Reply::Bulk(b"2".to_vec()), (5, Some(6))).unwrap();
        assert!(memory.judge(|_| 0).is_err());
    }

    #[test]
    fn a_lease_that_was_gone_stays_away() {
        let value = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
        let lease = Key::Lease(7);
        let mut memory = Memory::default();
        memory.wrote(lease, Some(7), (1, Some(2)));
        memory.read(lease, &value("v7"), (3, Some(4))).unwrap();
        memory.read(lease, &Reply::Null, (5, Some(6))).unwrap();
        assert_eq!(memory.judge(|_| 0), Ok(0));
        memory.read(lease, &value("v7"), (7, Some(8))).unwrap();
        assert!(memory.judge(|_| 0).is_err());
    }
}
