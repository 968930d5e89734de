//! What the threads of a node share besides the mesh: a word to all of its cores, and whether a core may have been forgotten.
//!
//! Both are written against the [`sync`](crate::sync) shim, and loom explores them (`loom_models` below). A core that waits must hear of a
//! word, so it [attends](Control::attend) with its bell before it looks for the first time:
//!
//! ```text
//!   core                                   who controls the node
//!   leave the bell (in a mutex)            write the word (stop, new settings)
//!   look for a word; nothing → wait        ring every bell (in the same mutex)
//! ```
//!
//! Whoever comes to the mutex second sees what the other did before it, so no word is missed, and a core that only looks pays a
//! load.

use crate::sync::{Arc, AtomicBool, AtomicUsize, Mutex, Ordering};
use std::sync::PoisonError;
use std::task::Waker;

/// Words to all cores of a node, from any thread. `S` are settings.
pub(crate) struct Control<S> {
    is_stopping: AtomicBool,
    /// How often there were other settings.
    reloads: AtomicUsize,
    newest: Mutex<Option<Arc<S>>>,
    bells: Mutex<Vec<Waker>>,
    posts: Mutex<Vec<Arc<Post>>>,
}

impl<S> Control<S> {
    /// Nothing has been said.
    pub(crate) fn new() -> Self {
        Self {
            is_stopping: AtomicBool::new(false),
            reloads: AtomicUsize::new(0),
            newest: Mutex::new(None),
            bells: Mutex::new(Vec::new()),
            posts: Mutex::new(Vec::new()),
        }
    }

    /// Asks the cores to drain.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Hands other settings to the cores.
    pub(crate) fn reload(&self, settings: S) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(settings));
        // Release: who sees the number finds these settings, or newer ones.
        self.reloads.fetch_add(1, Ordering::Release);
        self.ring();
    }

    /// From now on `bell` is woken by every word. The caller looks for words that were said before.
    pub(crate) fn attend(&self, bell: Waker) {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner).push(bell);
    }

    /// Nobody listens any more.
    pub(crate) fn dismiss(&self) {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether the cores are to drain.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// How often there were other settings.
    pub(crate) fn reloads(&self) -> usize {
        self.reloads.load(Ordering::Acquire)
    }

    /// The newest of them.
    pub(crate) fn newest(&self) -> Option<Arc<S>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The posts of the node's cores, once there are any.
    pub(crate) fn appoint(&self, posts: Vec<Arc<Post>>) {
        *self.posts.lock().unwrap_or_else(PoisonError::into_inner) = posts;
    }

    /// How often each core has come round; [`ENDED`] if it won't any more. None, as long as the node hasn't been started.
    pub(crate) fn beats(&self) -> Vec<usize> {
        let posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        posts.iter().map(|post| post.beats.load(Ordering::Relaxed)).collect()
    }

    fn ring(&self) {
        for bell in &*self.bells.lock().unwrap_or_else(PoisonError::into_inner) {
            bell.wake_by_ref();
        }
    }
}

/// What a core that has ended as it should has counted to.
pub(crate) const ENDED: usize = usize::MAX;

/// Where a core is: with its own loop, or in the hands of an executor that may forget it. One thread looks after the posts of
/// all cores.
pub(crate) struct Post {
    is_in_hands: AtomicBool,
    /// Counts how often the core came to be there, and how often it came round by itself. Nobody else writes it.
    beats: AtomicUsize,
    /// Wakes something of the core's executor. It is never used up.
    waker: Mutex<Option<Waker>>,
}

impl Post {
    /// In the executor's hands, with nobody to wake yet.
    pub(crate) fn new() -> Self {
        Self { is_in_hands: AtomicBool::new(true), beats: AtomicUsize::new(0), waker: Mutex::new(None) }
    }

    /// Who is woken from now on, if anybody.
    pub(crate) fn set_waker(&self, waker: Option<Waker>) {
        let old = std::mem::replace(&mut *self.waker.lock().unwrap_or_else(PoisonError::into_inner), waker);
        drop(old);
    }

    /// The core's loop lets the executor run.
    #[inline]
    pub(crate) fn hand_over(&self) {
        self.beat();
        self.is_in_hands.store(true, Ordering::Relaxed);
    }

    /// The loop runs again.
    #[inline]
    pub(crate) fn regain(&self) {
        self.is_in_hands.store(false, Ordering::Relaxed);
    }

    /// The core runs. Only the core itself may call this: it is no read-modify-write.
    #[inline]
    pub(crate) fn beat(&self) {
        self.beats.store(self.beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The core won't run any more, and needn't.
    pub(crate) fn end(&self) {
        self.beats.store(ENDED, Ordering::Relaxed);
    }

    /// A number that changes whenever the core runs, if it is in the executor's hands. What is seen may be old: the next look
    /// sees what has changed.
    pub(crate) fn look(&self) -> Option<usize> {
        self.is_in_hands.load(Ordering::Relaxed).then(|| self.beats.load(Ordering::Relaxed))
    }

    /// Wakes the core's executor.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::testing::ThreadWaker;

    #[test]
    fn every_word_rings_every_bell() {
        let control = Control::new();
        let (waker, wakes) = ThreadWaker::current();
        control.reload(1);
        control.attend(waker.clone());
        control.attend(waker);
        assert_eq!((control.reloads(), control.newest().as_deref()), (1, Some(&1)));
        control.reload(2);
        assert_eq!((control.newest().as_deref(), wakes.count()), (Some(&2), 2));
        assert!(!control.is_stopping());
        control.stop();
        assert!(control.is_stopping() && wakes.count() == 4);
        control.dismiss();
        control.stop();
        assert_eq!((wakes.count(), wakes.holders()), (4, 1), "nobody listens, no waker is left");
    }

    #[test]
    fn a_post_tells_who_is_in_hands_and_for_the_how_manieth_time() {
        let post = Post::new();
        post.wake();
        let (waker, wakes) = ThreadWaker::current();
        post.set_waker(Some(waker));
        assert_eq!(post.look(), Some(0));
        post.beat();
        assert_eq!(post.look(), Some(1));
        post.regain();
        assert_eq!(post.look(), None);
        post.hand_over();
        assert_eq!(post.look(), Some(2));
        post.wake();
        post.wake();
        assert_eq!(wakes.count(), 2, "the waker isn't used up");
        post.set_waker(None);
        post.wake();
        assert_eq!((wakes.count(), wakes.holders()), (2, 1));
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::testing::{ThreadWaker, explore};
    use loom::thread;
    use std::task::Poll;

    /// A core attends while the node is stopped. Unbounded. A missed word is a deadlock to loom.
    #[test]
    fn loom_no_stop_is_missed() {
        explore("no_stop_is_missed", None, || {
            let control = Arc::new(Control::<()>::new());
            let core = Arc::clone(&control);
            let core = thread::spawn(move || {
                let (waker, wakes) = ThreadWaker::current();
                core.attend(waker);
                wakes.park_until(|_| if core.is_stopping() { Poll::Ready(()) } else { Poll::Pending });
            });
            control.stop();
            core.join().expect("the core has heard it");
        });
    }

    /// Two cores, one word with settings, then the stop. Each hears both, and never a number without its settings. Two
    /// preemptions.
    #[test]
    fn loom_two_cores_hear_every_word() {
        explore("two_cores_hear_every_word", Some(2), || {
            let control = Arc::new(Control::new());
            let cores = [0, 1].map(|_| {
                let control = Arc::clone(&control);
                thread::spawn(move || {
                    let (waker, wakes) = ThreadWaker::current();
                    control.attend(waker);
                    wakes.park_until(|_| {
                        let seen = control.reloads();
                        if seen > 0 {
                            assert_eq!(control.newest().as_deref(), Some(&7));
                        }
                        if control.is_stopping() && seen > 0 { Poll::Ready(()) } else { Poll::Pending }
                    });
                })
            });
            control.reload(7);
            control.stop();
            cores.into_iter().for_each(|core| core.join().expect("the core has heard both"));
            control.dismiss();
        });
    }

    /// A core's loop runs, and then the core is forgotten by its executor, while another thread looks after it and wakes it
    /// when two looks have seen it at the same place. It doesn't stay forgotten; and its end takes the waker away under the
    /// looks. Three preemptions.
    #[test]
    fn loom_a_forgotten_core_is_woken() {
        explore("a_forgotten_core_is_woken", Some(3), || {
            let post = Arc::new(Post::new());
            let is_awake = Arc::new(AtomicBool::new(false));
            let (looked_after, awake) = (Arc::clone(&post), Arc::clone(&is_awake));
            let core = thread::spawn(move || {
                let (waker, wakes) = ThreadWaker::current();
                looked_after.set_waker(Some(waker));
                looked_after.regain();
                looked_after.hand_over();
                // Forgotten: only a wake ends this.
                wakes.park_until(|_| if wakes.count() > 0 { Poll::Ready(()) } else { Poll::Pending });
                looked_after.set_waker(None);
                awake.store(true, Ordering::Release);
            });
            let mut seen = None;
            while !is_awake.load(Ordering::Acquire) {
                let now = post.look();
                if now.is_some() && now == seen {
                    post.wake();
                }
                seen = now;
                thread::yield_now();
            }
            core.join().expect("the core was woken");
        });
    }
}
