//! The timers of a core's tasks: a wheel that the core's loop turns.
//!
//! Not glommio's: those fire only in its own passes, which the loop would have to give it a hundred times a second, and
//! each costs an allocation and a walk through a tree.

use super::clock::Clock;
use crate::machine::Nanos;
use crate::wheel::{TimerKey, Wheel};
use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// See the module.
pub(super) struct Timers {
    wheel: RefCell<Wheel<Waker>>,
    clock: Clock,
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").field("armed", &self.wheel.borrow().len()).finish_non_exhaustive()
    }
}

impl Timers {
    /// None is armed.
    pub(super) fn new(clock: Clock) -> Rc<Self> {
        Rc::new(Self { wheel: RefCell::new(Wheel::new(clock.monotonic())), clock })
    }

    /// Waits for at least so long. A sleep that is dropped leaves nothing behind.
    pub(super) fn sleep(self: &Rc<Self>, time: Duration) -> Sleep {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Sleep { due: self.clock.monotonic().saturating_add(time), key: None, timers: Rc::clone(self) }
    }

    /// When to call [`Self::fire`] next.
    pub(super) fn next(&self) -> Option<Nanos> {
        self.wheel.borrow().next()
    }

    /// Makes those runnable whose time has come. Returns whether there were any.
    pub(super) fn fire(&self, now: Nanos) -> bool {
        let mut fired = false;
        // A waker only puts its task into a queue: nothing here is called back.
        self.wheel.borrow_mut().expire(now, |waker| {
            fired = true;
            waker.wake();
        });
        fired
    }

    /// How many are armed.
    #[cfg(test)]
    pub(super) fn armed(&self) -> usize {
        self.wheel.borrow().len()
    }
}

/// A task's wait, see [`Timers::sleep`].
#[derive(Debug)]
pub(super) struct Sleep {
    due: Nanos,
    /// Armed at the first poll; it has fired when the wheel doesn't know it any more.
    key: Option<TimerKey>,
    timers: Rc<Timers>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut wheel = self.timers.wheel.borrow_mut();
        let Some(key) = self.key else {
            let key = wheel.arm(self.due, cx.waker().clone());
            drop(wheel);
            self.key = Some(key);
            return Poll::Pending;
        };
        let Some(waker) = wheel.payload(key) else { return Poll::Ready(()) };
        if !waker.will_wake(cx.waker()) {
            waker.clone_from(cx.waker());
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.timers.wheel.borrow_mut().cancel(key);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_sleep_ends_when_its_time_has_come() {
        let clock = Clock::start();
        let timers = Timers::new(clock);
        let mut sleep = std::pin::pin!(timers.sleep(Duration::from_millis(2)));
        let mut is_over = || block_on(poll_once(sleep.as_mut())).is_some();
        assert!(!is_over() && !is_over());
        let now = clock.monotonic();
        let next = timers.next().unwrap();
        assert!(next > now && !timers.fire(now));
        assert!(timers.fire(next + 10_000_000) && is_over());
        assert_eq!((timers.next(), timers.armed()), (None, 0));
    }

    #[test]
    fn a_dropped_sleep_leaves_nothing_behind() {
        let timers = Timers::new(Clock::start());
        for _ in 0..3 {
            let mut sleep = std::pin::pin!(timers.sleep(Duration::from_secs(1)));
            assert!(block_on(poll_once(sleep.as_mut())).is_none());
            assert_eq!(timers.armed(), 1);
        }
        assert_eq!(timers.armed(), 0);
    }
}
