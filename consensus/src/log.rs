//! The entries of one group, in memory.
//!
//! An entry is a whole record of the write-ahead log (header and payload) as a [`Slice`]: the very bytes that
//! went, or are about to go, to disk. Sending one to a peer and applying it read the same bytes.
//!
//! Everything since the last snapshot is kept, so a follower is caught up either from here or by a snapshot;
//! nothing is ever read back from disk while the node runs.

use flotilla_runtime::Slice;
use flotilla_runtime::planted::{Bug, planted};
use std::collections::VecDeque;

/// One entry: its term, and the record that holds it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The term of the leader that proposed it.
    pub term: u64,
    /// Header and payload, as in the log.
    pub record: Slice,
}

/// The entries after `snapshot_index`, contiguous.
#[derive(Debug, Default)]
pub struct RaftLog {
    snapshot_index: u64,
    snapshot_term: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl RaftLog {
    /// A log whose entries up to `snapshot_index` are covered by a snapshot.
    pub fn new(snapshot_index: u64, snapshot_term: u64) -> Self {
        Self { snapshot_index, snapshot_term, entries: VecDeque::new(), bytes: 0 }
    }

    /// The first index whose entry is here (whether or not there is one yet).
    pub fn first_index(&self) -> u64 {
        self.snapshot_index + 1
    }

    /// The last index, 0 for an empty log.
    pub fn last_index(&self) -> u64 {
        self.snapshot_index + self.entries.len() as u64
    }

    /// The term of the last entry, 0 for an empty log.
    pub fn last_term(&self) -> u64 {
        self.entries.back().map_or(self.snapshot_term, |entry| entry.term)
    }

    /// Bytes of records held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The index and term that the snapshot covers.
    pub fn snapshot(&self) -> (u64, u64) {
        (self.snapshot_index, self.snapshot_term)
    }

    /// The term at `index`, if it is still known: 0 at index 0.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.snapshot_index {
            return Some(self.snapshot_term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// The entry at `index`, if it is here.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.first_index())?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// The records of all entries, in order.
    pub fn records(&self) -> impl Iterator<Item = &Slice> {
        self.entries.iter().map(|entry| &entry.record)
    }

    /// The same records, elsewhere in memory.
    ///
    /// # Panics
    /// If they aren't as many.
    pub fn replace_records(&mut self, records: Vec<Slice>) {
        assert_eq!(records.len(), self.entries.len(), "each record is replaced by itself");
        for (entry, record) in self.entries.iter_mut().zip(records) {
            entry.record = record;
        }
    }

    /// Appends an entry right behind the last one.
    ///
    /// # Panics
    /// If the term goes back: a leader only appends its own term, a follower what it checked.
    pub fn push(&mut self, term: u64, record: Slice) {
        assert!(term >= self.last_term(), "terms never go back along a log");
        self.bytes += record.len();
        self.entries.push_back(Entry { term, record });
    }

    /// Forgets the entries from `index` on.
    ///
    /// # Panics
    /// If that would cut into the snapshot.
    pub fn truncate(&mut self, index: u64) {
        assert!(index > self.snapshot_index, "a snapshot holds only committed entries");
        while self.last_index() >= index {
            let entry = self.entries.pop_back().expect("last_index is past the snapshot");
            self.bytes -= entry.record.len();
        }
    }

    /// Forgets the entries up to `index`, now covered by a snapshot.
    ///
    /// # Panics
    /// If `index` isn't in the log.
    pub fn compact(&mut self, index: u64) {
        if index <= self.snapshot_index {
            return;
        }
        let term = self.term(index).expect("only what is in the log can be compacted");
        while self.snapshot_index < index {
            let entry = self.entries.pop_front().expect("index is in the log");
            self.bytes -= entry.record.len();
            self.snapshot_index += 1;
        }
        self.snapshot_term = term;
    }

    /// Drops everything: a snapshot from the leader replaces the log.
    pub fn reset(&mut self, snapshot_index: u64, snapshot_term: u64) {
        *self = Self::new(snapshot_index, snapshot_term);
    }

    /// Whether a log ending in (`last_term`, `last_index`) is at least as up to date as this one (§5.4.1).
    pub fn is_behind_or_equal(&self, last_index: u64, last_term: u64) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last_index()) || planted(Bug::NoUpToDateCheck)
    }

    /// For a follower that refuses an append at `index`: the first index of the term that it has there, and
    /// that term, so that the leader can skip the whole term (§5.3, "fast back-up").
    pub fn conflict(&self, index: u64) -> (u64, u64) {
        if index > self.last_index() {
            return (self.last_index() + 1, 0);
        }
        let Some(term) = self.term(index) else { return (self.first_index(), 0) };
        let mut first = index;
        while first > self.first_index() && self.term(first - 1) == Some(term) {
            first -= 1;
        }
        (first, term)
    }

    /// The last index at or below `index` whose term is at most `term`: where a leader retries after a conflict.
    pub fn last_index_of_term_at_most(&self, index: u64, term: u64) -> u64 {
        let mut index = index.min(self.last_index());
        while index > self.snapshot_index && self.term(index).is_some_and(|at| at > term) {
            index -= 1;
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_runtime::BlockPool;

    fn log(terms: &[u64]) -> RaftLog {
        let mut log = RaftLog::default();
        for term in terms {
            log.push(*term, BlockPool::new().copy_of(b"x").subslice(0, 1));
        }
        log
    }

    #[test]
    fn indices_start_at_one_and_terms_follow() {
        let log = log(&[1, 1, 4]);
        assert_eq!((log.first_index(), log.last_index(), log.last_term()), (1, 3, 4));
        assert_eq!([0, 1, 3, 4].map(|index| log.term(index)), [Some(0), Some(1), Some(4), None]);
    }

    #[test]
    fn truncation_and_compaction_keep_the_rest() {
        let mut log = log(&[1, 2, 2, 3, 5]);
        log.truncate(5);
        log.compact(2);
        assert_eq!((log.snapshot(), log.first_index(), log.last_index()), ((2, 2), 3, 4));
        assert_eq!([1, 2, 3, 4].map(|index| log.term(index)), [None, Some(2), Some(2), Some(3)]);
        assert_eq!(log.bytes(), 2);
    }

    #[test]
    fn conflicts_skip_whole_terms() {
        let follower = log(&[1, 1, 2, 2, 2]);
        assert_eq!(follower.conflict(9), (6, 0));
        assert_eq!(follower.conflict(5), (3, 2));
        let leader = log(&[1, 1, 1, 3, 3]);
        assert_eq!(leader.last_index_of_term_at_most(5, 2), 3);
        assert_eq!(leader.last_index_of_term_at_most(2, 9), 2);
    }

    #[test]
    fn up_to_date_compares_term_before_length() {
        let log = log(&[1, 3]);
        assert!(log.is_behind_or_equal(2, 3) && log.is_behind_or_equal(1, 4));
        assert!(!log.is_behind_or_equal(1, 3) && !log.is_behind_or_equal(9, 2));
    }
}
