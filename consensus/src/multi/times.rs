//! How long the disk takes, for whoever operates the node. Nothing is decided by it.

use flotilla_runtime::{Histogram, Nanos};
use flotilla_storage::Lsn;
use std::collections::VecDeque;

/// The group commits that the disk has, and how long those before took.
#[derive(Debug)]
pub(super) struct Times {
    /// The last frame of each, and when it was given.
    under_way: VecDeque<(Lsn, Nanos)>,
    last: Lsn,
    pub(super) commits: Histogram,
}

impl Times {
    /// Behind what was there when the log was opened.
    pub(super) fn new(last: Lsn) -> Self {
        Self { under_way: VecDeque::new(), last, commits: Histogram::default() }
    }

    /// Frames up to this one were given to the disk.
    pub(super) fn given(&mut self, now: Nanos, lsn: Lsn) {
        if lsn > self.last {
            self.last = lsn;
            self.under_way.push_back((lsn, now));
        }
    }

    /// Frames up to this one are durable.
    pub(super) fn durable(&mut self, now: Nanos, lsn: Lsn) {
        while let Some((_, since)) = self.under_way.pop_front_if(|(last, _)| *last <= lsn) {
            self.commits.record(now.saturating_sub(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_commit_is_measured_once() {
        let mut times = Times::new(Lsn(7));
        // As recovery left it.
        times.given(5, Lsn(7));
        times.durable(6, Lsn(7));
        assert_eq!(times.commits.count(), 0);
        times.given(10, Lsn(8));
        times.given(11, Lsn(8));
        times.given(20, Lsn(10));
        times.durable(1000, Lsn(8));
        assert_eq!((times.commits.count(), times.commits.sum_nanos()), (1, 990));
        times.durable(2000, Lsn(10));
        assert_eq!((times.commits.count(), times.commits.sum_nanos()), (2, 990 + 1980));
    }
}
