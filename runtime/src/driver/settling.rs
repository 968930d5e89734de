//! When glommio gets its passes.
//!
//! The core's loop waits by itself, so glommio comes to look at its own rings, and at tasks of a lower class, only when the
//! loop lets it. That costs some fifteen system calls, so it happens only while there is something for it to do:
//!
//! | what glommio has | it gets its passes |
//! |---|---|
//! | operations under way, or the core ends | every 0.2 to 1 ms |
//! | a runnable task of the bulk class, or an operation that was begun since its last passes | after 10 ms |
//! | nothing | four times a second, should anybody have forgotten to say that there is something |

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

/// While operations are under way, at least and at most.
const BUSY: [Duration; 2] = [Duration::from_micros(200), Duration::from_millis(1)];
/// For what has time.
const OWED: [Duration; 2] = [Duration::from_millis(10); 2];
/// A net that nothing should fall into.
const IDLE: [Duration; 2] = [Duration::from_millis(250); 2];

/// What glommio has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Operations under way.
    Operations,
    /// Something that has time.
    Patient,
    /// Nothing that is known of.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Settling {
    last: Cell<Instant>,
    /// It has had operations since its last passes: files are closed in the pass behind them.
    is_owed: Cell<bool>,
}

impl Settling {
    pub(super) fn new() -> Self {
        Self { last: Cell::new(Instant::now()), is_owed: Cell::new(true) }
    }

    fn period(&self, work: Work) -> [Duration; 2] {
        match work {
            Work::Operations => {
                self.is_owed.set(true);
                BUSY
            }
            Work::Patient => OWED,
            Work::Nothing if self.is_owed.get() => OWED,
            Work::Nothing => IDLE,
        }
    }

    /// Whether it is to have its passes now.
    pub(super) fn is_due(&self, work: Work) -> bool {
        self.last.get().elapsed() >= self.period(work)[0]
    }

    /// For how long it can do without, at most.
    pub(super) fn patience(&self, work: Work, now: Instant) -> Duration {
        (self.last.get() + self.period(work)[1]).saturating_duration_since(now)
    }

    /// It had its passes; they began when it had this to do.
    pub(super) fn is_done(&self, work: Work) {
        self.is_owed.set(work == Work::Operations);
        self.last.set(Instant::now());
    }
}

/// Goes once through glommio's own polling, the shortest way.
pub(super) async fn pass() {
    let mut time = Duration::from_micros(1);
    loop {
        let mut sleep = pin!(glommio::timer::sleep(time));
        let mut has_waited = false;
        poll_fn(|cx| {
            let polled = sleep.as_mut().poll(cx);
            has_waited |= polled.is_pending();
            polled
        })
        .await;
        if has_waited {
            return;
        }
        // It was over before it had begun, on a machine that slow.
        time *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_nothing_to_do_is_left_alone() {
        let settling = Settling::new();
        let now = Instant::now();
        assert!(settling.patience(Work::Nothing, now) <= OWED[1], "what was before the loop");
        settling.is_done(Work::Nothing);
        assert!(settling.patience(Work::Nothing, now) > OWED[1]);
        assert!(settling.patience(Work::Patient, now) <= OWED[1] + now.elapsed());
        assert!(settling.patience(Work::Operations, now) <= BUSY[1] + now.elapsed());
        settling.is_done(Work::Operations);
        assert!(
            settling.patience(Work::Nothing, now) <= OWED[1] + now.elapsed(),
            "one more for what was closed"
        );
        settling.is_done(Work::Nothing);
        assert!(settling.patience(Work::Nothing, now) > OWED[1]);
    }
}
