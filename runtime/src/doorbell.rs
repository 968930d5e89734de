//! A doorbell: wakes who sleeps, costs who is awake nothing.
//!
//! A sleeper announces that it lies down, then looks once more; a ringer publishes, then looks whether somebody
//! lies there. A sequentially consistent fence stands between the two steps on both sides, so at least one of
//! them sees the other (Dekker's argument), and no wake-up is lost:
//!
//! ```text
//!   sleeper                                    ringer
//!   sleeping := true    [Sleeper::lie_down]    publish (a ring's tail, its head, its close)
//!   fence(SeqCst)       [Sleeper::lie_down]    fence(SeqCst)               [announce]
//!   look again; nothing → Poll::Pending        sleeping? exchange it, wake [Ringer::ring]
//! ```
//!
//! The exchange hands each sleep to one ringer only: the bell rings at most once per sleep, whoever shares it. While
//! the sleeper is awake a ringer pays one load of a flag that nobody writes: no system call, no wake.
//!
//! The fences are explicit, not `SeqCst` on the flag: the looking again is a load of something else, which only a
//! fence orders, and loom models the fences.
//!
//! The waker is kept from sleep to sleep, since a task's waker rarely changes, in a mutex that is touched only
//! by a change of waker and by a ring that really wakes. It is never cloned or dropped on a ringer's thread,
//! because an executor may dislike to see its task freed elsewhere.
//!
//! It must never carry data, nor be relied on for more than "look again": a wake-up may be spurious.

use crate::sync::{Arc, AtomicBool, Mutex, Ordering, fence};
use std::sync::PoisonError;
use std::task::Waker;

/// A bell with its one sleeper and its first ringer; clone the ringer for more.
pub(crate) fn doorbell() -> (Sleeper, Ringer) {
    let bell = Arc::new(Bell { sleeping: AtomicBool::new(false), waker: Mutex::new(None) });
    (Sleeper { bell: Arc::clone(&bell), lying: false, waker: None }, Ringer { bell })
}

#[repr(align(128))]
struct Bell {
    /// True from lying down until a ringer takes it, or the sleeper gets up by itself.
    sleeping: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    fn set_waker(&self, waker: Option<Waker>) {
        let old = std::mem::replace(&mut *self.waker.lock().unwrap_or_else(PoisonError::into_inner), waker);
        drop(old);
    }
}

/// The half of who is woken.
pub(crate) struct Sleeper {
    bell: Arc<Bell>,
    /// Whether `sleeping` may still be true.
    lying: bool,
    /// What the bell holds, to see a change without its mutex.
    waker: Option<Waker>,
}

impl Sleeper {
    /// Lets the next ring wake `waker`. The caller **must look again** after this for what it waits for, and
    /// [get up](Self::get_up) if it is there.
    pub(crate) fn lie_down(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            self.waker = Some(waker.clone());
            self.bell.set_waker(Some(waker.clone()));
        }
        self.lying = true;
        // Relaxed: who reads this takes the waker's mutex after we did, since what it read can't lie in its future.
        self.bell.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Tells the ringers that nobody sleeps. A ring that has begun may still wake.
    #[inline]
    pub(crate) fn get_up(&mut self) {
        if self.lying {
            self.lying = false;
            // A swap, though the old value is of no interest: it puts this after the ring that it may overwrite in
            // loom's eyes too, which doesn't conclude that from the order of stores. Once per sleep, so cheap.
            self.bell.sleeping.swap(false, Ordering::AcqRel);
        }
    }
}

impl Drop for Sleeper {
    /// Frees the waker here, on the sleeper's own thread.
    fn drop(&mut self) {
        self.get_up();
        self.bell.set_waker(None);
    }
}

/// Proof that what was published before it is ordered before the look at any bell.
#[derive(Clone, Copy)]
pub(crate) struct Announced(());

/// The ringer's fence: one for any number of published rings and of bells to ring after it.
#[inline]
pub(crate) fn announce() -> Announced {
    fence(Ordering::SeqCst);
    Announced(())
}

/// The half of who wakes; the several ringers of one sleeper share its bell.
#[derive(Clone)]
pub(crate) struct Ringer {
    bell: Arc<Bell>,
}

impl Ringer {
    /// Wakes the sleeper if it sleeps and no other ringer got there first. Says whether it rang.
    #[inline]
    pub(crate) fn ring(&self, _: Announced) -> bool {
        let sleeping = &self.bell.sleeping;
        // The plain load first: an exchange takes the cache line away from the others even when it fails.
        let mine = sleeping.load(Ordering::Relaxed)
            && sleeping.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if mine {
            self.wake();
        }
        mine
    }

    #[cold]
    fn wake(&self) {
        if let Some(waker) = &*self.bell.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::testing::ThreadWaker;

    #[test]
    fn rings_only_who_sleeps_and_once() {
        let (waker, wakes) = ThreadWaker::current();
        let (mut sleeper, ringer) = doorbell();
        let another = ringer.clone();
        assert!(!ringer.ring(announce()), "awake from the start");
        sleeper.lie_down(&waker);
        assert!(another.ring(announce()) && !ringer.ring(announce()));
        sleeper.lie_down(&waker);
        sleeper.get_up();
        assert!(!ringer.ring(announce()));
        assert_eq!(wakes.count(), 1);
    }

    #[test]
    fn the_waker_is_kept_replaced_and_freed_with_the_sleeper() {
        let (first, first_wakes) = ThreadWaker::current();
        let (second, second_wakes) = ThreadWaker::current();
        let (mut sleeper, ringer) = doorbell();
        for waker in [&first, &first, &second] {
            sleeper.lie_down(waker);
            ringer.ring(announce());
        }
        assert_eq!((first_wakes.count(), second_wakes.count()), (2, 1));
        sleeper.lie_down(&second);
        drop((sleeper, first, second));
        assert!(!ringer.ring(announce()));
        assert_eq!((first_wakes.holders(), second_wakes.holders()), (1, 1), "no waker is left in the bell");
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::AtomicUsize;
    use crate::testing::{ThreadWaker, explore};
    use loom::thread;
    use std::task::Poll;

    /// One ringer, one sleeper, one relaxed flag as the news. Unbounded. A lost wake-up is a deadlock to loom.
    #[test]
    fn loom_no_wake_up_is_lost() {
        explore("no_wake_up_is_lost", None, || {
            let (mut sleeper, ringer) = doorbell();
            let news = Arc::new(AtomicBool::new(false));
            let published = Arc::clone(&news);
            let other = thread::spawn(move || {
                published.store(true, Ordering::Relaxed);
                ringer.ring(announce());
            });
            ThreadWaker::current().1.park_until(|cx| {
                sleeper.lie_down(cx.waker());
                if news.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
            });
            other.join().expect("the ringer is done");
        });
    }

    /// Two ringers of one sleeper, each with one piece of news; the bell rings at most once per sleep, and the
    /// waker is woken as often as a ringer says so. Three preemptions.
    #[test]
    fn loom_two_ringers_ring_once_per_sleep() {
        explore("two_ringers_ring_once_per_sleep", Some(3), || {
            let (mut sleeper, ringer) = doorbell();
            let news = Arc::new(AtomicUsize::new(0));
            let others = [ringer.clone(), ringer].map(|ringer| {
                let news = Arc::clone(&news);
                thread::spawn(move || {
                    news.fetch_add(1, Ordering::Relaxed);
                    usize::from(ringer.ring(announce()))
                })
            });
            let (_, wakes) = ThreadWaker::current();
            let mut sleeps = 0;
            wakes.park_until(|cx| {
                sleeper.lie_down(cx.waker());
                sleeps += 1;
                if news.load(Ordering::Relaxed) == 2 { Poll::Ready(()) } else { Poll::Pending }
            });
            let rung: usize = others.map(|other| other.join().expect("the ringer is done")).iter().sum();
            assert!(rung <= sleeps, "{rung} rings for {sleeps} sleeps");
            assert_eq!(wakes.count(), rung);
        });
    }

    /// The sleeper lies down with one waker, then with another, while the ringer rings. Unbounded.
    /// The waker that counts is the last one: it must not be missed.
    #[test]
    fn loom_a_replaced_waker_is_the_one_woken() {
        explore("a_replaced_waker_is_the_one_woken", None, || {
            let (mut sleeper, ringer) = doorbell();
            let news = Arc::new(AtomicBool::new(false));
            let published = Arc::clone(&news);
            let other = thread::spawn(move || {
                published.store(true, Ordering::Relaxed);
                ringer.ring(announce());
            });
            let (stale, _) = ThreadWaker::current();
            sleeper.lie_down(&stale);
            ThreadWaker::current().1.park_until(|cx| {
                sleeper.lie_down(cx.waker());
                if news.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
            });
            other.join().expect("the ringer is done");
        });
    }
}
