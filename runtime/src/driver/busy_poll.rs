//! Whether a core looks for what comes next before it sleeps.
//!
//! To be woken takes 30 to 60 µs here, to look takes less than one. So a core whose waits have mostly been short looks for a while,
//! giving the CPU away between two looks, and sleeps only when nothing has come. One whose waits are long sleeps at once: heartbeats and
//! their answers alone never make a core look.

use std::cell::Cell;
use std::time::Duration;

/// More short waits than that don't count for more.
const CREDIT_MAX: u32 = 16;
/// From here on it looks.
const CREDIT_TO_LOOK: u32 = 4;
/// What a long wait costs; a short one brings 1.
const COST_OF_LONG: u32 = 2;

/// What a core has learnt of its waits.
#[derive(Debug)]
pub(super) struct BusyPoll {
    longest: Duration,
    credit: Cell<u32>,
}

impl BusyPoll {
    /// Looks for so long at most; zero: never.
    pub(super) fn new(longest: Duration) -> Self {
        Self { longest, credit: Cell::new(0) }
    }

    /// For how long to look before the core sleeps, if at all.
    pub(super) fn look_for(&self) -> Option<Duration> {
        (self.credit.get() >= CREDIT_TO_LOOK && !self.longest.is_zero()).then_some(self.longest)
    }

    /// A wait has ended after so long, by something that `came` or because the core's patience was over.
    pub(super) fn waited(&self, time: Duration, came: bool) {
        let credit = self.credit.get();
        self.credit.set(if came && time <= self.longest {
            (credit + 1).min(CREDIT_MAX)
        } else {
            credit.saturating_sub(COST_OF_LONG)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(40);
    const LONG: Duration = Duration::from_millis(50);

    fn after(waits: impl IntoIterator<Item = Duration>) -> Option<Duration> {
        let poll = BusyPoll::new(Duration::from_micros(100));
        waits.into_iter().for_each(|time| poll.waited(time, true));
        poll.look_for()
    }

    #[test]
    fn a_busy_core_looks_and_an_idle_one_sleeps() {
        assert_eq!(after([]), None);
        assert!(after([SHORT; 4]).is_some());
        // An idle leader: a heartbeat, two answers, silence.
        assert_eq!(after([SHORT, SHORT, LONG].into_iter().cycle().take(999)), None);
        // Requests one after the other, and something else now and then.
        assert!(after([SHORT, SHORT, SHORT, SHORT, LONG].into_iter().cycle().take(54)).is_some());
        assert_eq!(after([SHORT; 99].into_iter().chain([LONG; 7])), None, "and soon sleeps again");
    }

    #[test]
    fn zero_is_never() {
        let poll = BusyPoll::new(Duration::ZERO);
        (0..99).for_each(|_| poll.waited(Duration::ZERO, true));
        assert_eq!(poll.look_for(), None);
    }

    #[test]
    fn a_deadline_is_nothing_that_came() {
        let poll = BusyPoll::new(LONG);
        (0..99).for_each(|_| poll.waited(SHORT, false));
        assert_eq!(poll.look_for(), None);
    }
}
