//! How much a turn applies.
//!
//! A replica that was away, or restarts, may have millions of committed entries to apply. It takes them a part at a time, and between
//! two turns its core goes on reading, answering and voting. What depends on an entry waits for `applied`, never for the commit.

use flotilla_runtime::Nanos;

/// Entries that a turn applies, of all groups: some 1 ms, even where none of the data is in a cache.
const APPLIED_MAX: usize = 1024;
/// No group gets less of it than that, whatever the others take.
const APPLIED_OF_A_GROUP_MIN: usize = 16;

/// Of a core.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Entries of a turn.
    most: usize,
    left: usize,
    /// Groups with more to apply than there was time for.
    places: Vec<usize>,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { most: APPLIED_MAX, left: APPLIED_MAX, places: Vec::new() }
    }
}

impl Backlog {
    /// Turns apply less than usual, so that a short run sees how they go on.
    pub(super) fn keep_small(&mut self, most: usize) {
        self.most = most;
    }

    /// A turn begins, in which the groups at `dirty` will be looked at; those that were left over are, too, and come last.
    pub(super) fn begin(&mut self, dirty: &mut Vec<usize>) {
        self.left = self.most;
        if !self.places.is_empty() {
            dirty.retain(|place| !self.places.contains(place));
            dirty.append(&mut self.places);
        }
    }

    /// What a group may apply now.
    pub(super) fn share(&self) -> usize {
        self.left.max(APPLIED_OF_A_GROUP_MIN.min(self.most))
    }

    /// The group at `place` has applied so many, and `is_behind` still.
    pub(super) fn took(&mut self, place: usize, entries: usize, is_behind: bool) {
        self.left = self.left.saturating_sub(entries);
        if is_behind {
            self.places.push(place);
        }
    }

    /// There is more to do at once.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        (!self.places.is_empty()).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_starves_behind_a_group_with_much_to_do() {
        let mut backlog = Backlog::default();
        let mut dirty = vec![1, 2];
        backlog.begin(&mut dirty);
        assert_eq!((dirty, backlog.share()), (vec![1, 2], APPLIED_MAX));
        backlog.took(1, APPLIED_MAX, true);
        assert_eq!(backlog.share(), APPLIED_OF_A_GROUP_MIN, "for the other one");
        backlog.took(2, 3, false);
        assert!(backlog.deadline().is_some());

        let mut dirty = vec![1, 3];
        backlog.begin(&mut dirty);
        assert_eq!((dirty, backlog.share()), (vec![3, 1], APPLIED_MAX), "who is behind comes last, once");
        backlog.took(3, 5, false);
        assert_eq!(backlog.share(), APPLIED_MAX - 5);
        backlog.took(1, 0, false);
        assert_eq!(backlog.deadline(), None);
    }
}
