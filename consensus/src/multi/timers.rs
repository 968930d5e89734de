//! When each replica's clock runs out, without looking at all of them.
//!
//! A deadline mostly moves away: every message of a leader puts its followers' elections off. So an alarm that rings
//! before its time costs less than keeping it exact: it is set only when a deadline comes nearer, and set anew, for what
//! the deadline is by then, when it rings.

use flotilla_runtime::Nanos;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No alarm.
const NEVER: Nanos = Nanos::MAX;

/// One alarm for each place.
#[derive(Debug)]
pub(super) struct Timers {
    /// Alarms, the next one first; those that aren't in `set` any more mean nothing.
    alarms: BinaryHeap<Reverse<(Nanos, usize)>>,
    set: Vec<Nanos>,
}

impl Timers {
    pub(super) fn new(places: usize) -> Self {
        Self { alarms: BinaryHeap::new(), set: vec![NEVER; places] }
    }

    /// The deadline of the replica at `place` is this now; `NEVER` for none.
    pub(super) fn arm(&mut self, place: usize, deadline: Nanos) {
        if deadline < self.set[place] {
            self.set[place] = deadline;
            self.alarms.push(Reverse((deadline, place)));
        }
    }

    /// Takes out the place whose alarm rings by `now`: it must be armed again.
    pub(super) fn ring(&mut self, now: Nanos) -> Option<usize> {
        while let Some(Reverse((at, place))) = self.alarms.peek().copied() {
            if at > now {
                return None;
            }
            self.alarms.pop();
            if self.set[place] == at {
                self.set[place] = NEVER;
                return Some(place);
            }
        }
        None
    }

    /// No alarm rings before this.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(timers: &mut Timers, now: Nanos) -> Vec<usize> {
        std::iter::from_fn(|| timers.ring(now)).collect()
    }

    #[test]
    fn an_alarm_rings_once_at_the_nearest_deadline() {
        let mut timers = Timers::new(3);
        timers.arm(0, 30);
        timers.arm(1, 20);
        timers.arm(0, 10);
        timers.arm(1, 50);
        assert_eq!((timers.next(), all(&mut timers, 9)), (Some(10), vec![]));
        assert_eq!(all(&mut timers, 25), [0, 1], "what has moved away rings early, to be armed again");
        timers.arm(1, 50);
        assert_eq!(all(&mut timers, 40), [], "the first alarm of 0 means nothing any more");
        assert_eq!(all(&mut timers, 50), [1]);
    }

    #[test]
    fn never_is_no_alarm() {
        let mut timers = Timers::new(1);
        timers.arm(0, NEVER);
        assert_eq!(timers.next(), None);
    }
}
