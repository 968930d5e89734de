//! What the tests of the ring, the doorbell and the mesh share: a waker that unparks a thread and counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

#[cfg(not(loom))]
use real::Spot;
#[cfg(not(loom))]
mod real {
    use std::thread::{Thread, current, park};

    /// Where one thread parks.
    pub(super) struct Spot(Thread);

    impl Spot {
        pub(super) fn here() -> Self {
            Self(current())
        }

        pub(super) fn notify(&self) {
            self.0.unpark();
        }

        pub(super) fn wait(&self) {
            park();
        }
    }
}

// Not loom's `park`: its token is forgotten when the thread meets a mutex, and upsets a `join`.
#[cfg(loom)]
use explored::Spot;
#[cfg(loom)]
mod explored {
    /// Where one thread parks. Loom also explores that `wait` returns for no reason.
    pub(super) struct Spot(loom::sync::Notify);

    impl Spot {
        pub(super) fn here() -> Self {
            Self(loom::sync::Notify::new())
        }

        pub(super) fn notify(&self) {
            self.0.notify();
        }

        pub(super) fn wait(&self) {
            self.0.wait();
        }
    }
}

/// Wakes the thread that made it and counts how often it was asked to.
pub(crate) struct ThreadWaker {
    spot: Spot,
    wakes: AtomicUsize,
}

/// The thread's own hold on its [`ThreadWaker`].
pub(crate) struct Wakes(Arc<ThreadWaker>);

impl ThreadWaker {
    /// Wakes the calling thread.
    pub(crate) fn current() -> (Waker, Wakes) {
        let this = Arc::new(Self { spot: Spot::here(), wakes: AtomicUsize::new(0) });
        (Waker::from(Arc::clone(&this)), Wakes(this))
    }
}

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.spot.notify();
    }
}

impl Wakes {
    /// Polls until ready, parks the thread in between.
    pub(crate) fn park_until<R>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<R>) -> R {
        let waker = Waker::from(Arc::clone(&self.0));
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(result) = poll(&mut cx) {
                return result;
            }
            self.0.spot.wait();
        }
    }

    /// How often the waker was woken.
    pub(crate) fn count(&self) -> usize {
        self.0.wakes.load(Ordering::Relaxed)
    }

    /// Who holds the waker, this reader included.
    #[cfg(not(loom))]
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

/// Runs a model through every interleaving with at most `preemptions` involuntary switches (`None`: all of
/// them) and prints how many there were. The bound is the model's own: `LOOM_MAX_PREEMPTIONS` doesn't change it.
#[cfg(loom)]
pub(crate) fn explore(name: &str, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 10_000;
    let start = std::time::Instant::now();
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let executions = executions.load(Ordering::Relaxed);
    eprintln!("{name}: {executions} executions in {:.2?}, preemptions {preemptions:?}", start.elapsed());
}
