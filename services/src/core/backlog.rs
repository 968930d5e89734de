//! How much a turn applies.
//!
//! A replica that was away, or restarts, may have millions of committed entries to apply. It takes them a part at a time, and between
//! two turns its core goes on reading, answering and voting. What depends on an entry waits for `applied`, never for the commit.

use flotilla_runtime::Nanos;
use std::collections::VecDeque;

/// Entries that a turn applies, of all groups: some 1 ms, even where none of the data is in a cache.
const APPLIED_MAX: usize = 1024;
/// Who has waited longest gets that much, whatever the others have taken.
const APPLIED_OF_THE_FIRST: usize = 64;

/// Of a core.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Entries of a turn.
    most: usize,
    left: usize,
    /// Groups with more to apply than there was time for; who has waited longest first.
    waiting: VecDeque<usize>,
    /// By place: whether it is among them.
    waits: Vec<bool>,
    /// How many of them this turn may still look at.
    unseen: usize,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { most: APPLIED_MAX, left: 0, waiting: VecDeque::new(), waits: Vec::new(), unseen: 0 }
    }
}

impl Backlog {
    /// Turns apply less than usual, so that a short run sees how they go on.
    pub(super) fn keep_small(&mut self, most: usize) {
        self.most = most;
    }

    /// A turn begins: first come the groups to which something has happened.
    pub(super) fn begin(&mut self) {
        self.left = self.most;
        self.unseen = self.waiting.len();
    }

    /// Then those that have waited since earlier turns, in their order: [`Self::next`].
    pub(super) fn begin_waiting(&mut self) {
        self.left = self.left.max(APPLIED_OF_THE_FIRST.min(self.most));
    }

    /// The place of the next one, as long as there is time.
    pub(super) fn next(&mut self) -> Option<usize> {
        if self.left == 0 || self.unseen == 0 {
            return None;
        }
        self.unseen -= 1;
        let place = self.waiting.pop_front()?;
        self.waits[place] = false;
        Some(place)
    }

    /// What the group at `place` may apply now. One that waits doesn't overtake the others, whatever happens to it.
    pub(super) fn share(&self, place: usize) -> usize {
        if self.waits.get(place).is_some_and(|waits| *waits) { 0 } else { self.left }
    }

    /// The group at `place` has applied so many, and `is_behind` still.
    pub(super) fn took(&mut self, place: usize, entries: usize, is_behind: bool) {
        self.left = self.left.saturating_sub(entries);
        if !is_behind {
            return;
        }
        if self.waits.len() <= place {
            self.waits.resize(place + 1, false);
        }
        if !std::mem::replace(&mut self.waits[place], true) {
            self.waiting.push_back(place);
        }
    }

    /// There is more to do at once.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        (!self.waiting.is_empty()).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A turn, in which something has happened to the groups `dirty`. Returns who applied how much.
    fn turn(
        backlog: &mut Backlog,
        behind: &mut BTreeMap<usize, usize>,
        dirty: &[usize],
    ) -> Vec<(usize, usize)> {
        let mut applied = Vec::new();
        let mut look = |backlog: &mut Backlog, place| {
            let left = behind.entry(place).or_default();
            let entries = backlog.share(place).min(*left);
            *left -= entries;
            backlog.took(place, entries, *left > 0);
            applied.push((place, entries));
        };
        backlog.begin();
        dirty.iter().for_each(|place| look(backlog, *place));
        backlog.begin_waiting();
        while let Some(place) = backlog.next() {
            look(backlog, place);
        }
        applied
    }

    #[test]
    fn nobody_starves_behind_a_group_with_much_to_do() {
        let (mut backlog, mut behind) = (Backlog::default(), BTreeMap::from([(1, 2500), (2, 3), (9, 1)]));
        assert_eq!(turn(&mut backlog, &mut behind, &[1, 2, 9]), [(1, 1024), (2, 0), (9, 0)]);
        assert!(backlog.deadline().is_some());
        assert_eq!(turn(&mut backlog, &mut behind, &[]), [(1, 1024)]);
        behind.insert(3, 1500);
        assert_eq!(
            turn(&mut backlog, &mut behind, &[3]),
            [(3, 1024), (2, 3), (9, 1), (1, 60)],
            "who waits goes on meanwhile"
        );
        assert_eq!(turn(&mut backlog, &mut behind, &[2, 1]), [(2, 0), (1, 0), (3, 476), (1, 392)]);
        assert_eq!(backlog.deadline(), None);
    }

    #[test]
    fn ten_thousand_groups_that_are_behind_take_no_longer_than_one() {
        let (mut backlog, mut behind) = (Backlog::default(), (0..10_000).map(|place| (place, 100)).collect());
        let all: Vec<usize> = (0..10_000).collect();
        let mut turns = 0;
        let mut dirty = &all[..];
        while turns == 0 || backlog.deadline().is_some() {
            let applied = turn(&mut backlog, &mut behind, dirty);
            assert!(
                applied.iter().map(|(_, entries)| entries).sum::<usize>()
                    <= APPLIED_MAX + APPLIED_OF_THE_FIRST
            );
            (turns, dirty) = (turns + 1, &[]);
        }
        assert!(behind.values().all(|left| *left == 0));
        assert_eq!(turns, 1_000_000_usize.div_ceil(APPLIED_MAX));
    }
}
