//! The cure for glommio's lost wake-ups.
//!
//! glommio 0.9 can park an executor that has runnable tasks. So whenever a core's loop lets its executor run, it sees to it that
//! a timer of its own goes off within 5 ms. That wakes one thread of the process, which looks after the core until its loop
//! runs again. An executor that has been in one place between two looks computes, or is forgotten: it is woken
//! through a waker that is never used up. The first tries follow soon upon each other, since whoever is forgotten once may be
//! forgotten again at once. Then they become rarer: each leaves something with the executor until it runs, and some thirty
//! thousand are more than glommio counts.
//!
//! Only the core sets its timer, and it remembers when it did. A busy core sets it four hundred times a second, and the thread
//! looks two hundred times; one with nothing to do takes it back before it waits, so that nobody is woken for nothing.

use super::start::THREAD_NAME;
use crate::control::Post;
use crate::sync::Arc;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How soon the timer goes off, and how often the thread looks then.
const PERIOD: Duration = Duration::from_millis(5);
/// A timer that was set longer ago is set anew.
const FRESH: Duration = Duration::from_micros(2500);
/// How soon a core that was woken is woken again, until it runs: from so many wakes on, after so long.
const TRIES: [(u32, Duration); 4] = [
    (0, Duration::from_micros(500)),
    (20, Duration::from_millis(10)),
    (3000, Duration::from_secs(1)),
    (20_000, Duration::from_secs(60)),
];
/// A wait of that length means that the core has little to do...
const LONG_WAIT: Duration = Duration::from_millis(1);
/// ...if it is among so many of the last.
const WAITS: u32 = 4;

/// A core's own side of it.
pub(super) struct Watch {
    post: Arc<Post>,
    timer: Arc<OwnedFd>,
    /// When it was set, if it may still go off.
    set: Cell<Option<Instant>>,
    waits_since_long: Cell<u32>,
}

impl Watch {
    /// Where the core is.
    pub(super) fn post(&self) -> Arc<Post> {
        Arc::clone(&self.post)
    }

    /// The core's loop lets the executor run: it is looked after until [`Self::regain`].
    #[inline]
    pub(super) fn hand_over(&self) {
        self.post.hand_over();
        let now = Instant::now();
        if self.set.get().is_none_or(|set| now.saturating_duration_since(set) >= FRESH) {
            self.set.set(Some(now));
            self.set_timer(PERIOD);
        }
    }

    /// The loop runs again.
    #[inline]
    pub(super) fn regain(&self) {
        self.post.regain();
    }

    /// The core is about to wait: nobody need be woken if it does so for long.
    pub(super) fn will_wait(&self) {
        if self.waits_since_long.get() < WAITS && self.set.take().is_some() {
            self.set_timer(Duration::ZERO);
        }
    }

    /// It has waited for so long.
    pub(super) fn waited(&self, time: Duration) {
        let since = self.waits_since_long.get();
        self.waits_since_long.set(if time >= LONG_WAIT { 0 } else { since.saturating_add(1) });
    }

    /// Zero: it doesn't go off.
    fn set_timer(&self, after: Duration) {
        let after = Timespec::try_from(after).expect("a few ms");
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: zero, it_value: after };
        let set = timerfd_settime(&*self.timer, TimerfdTimerFlags::empty(), &spec);
        set.expect("a timer that is open can be set");
    }

    /// The core has come round.
    #[inline]
    pub(super) fn beat(&self) {
        self.post.beat();
    }

    /// Lets the guardian wake the calling task from now on. It has to be called before that task waits for the first time,
    /// and can't be a task of its own: that would be one more that the executor can forget to run.
    pub(super) async fn keep_awake(&self) {
        poll_fn(|cx| {
            self.post.set_waker(Some(cx.waker().clone()));
            Poll::Ready(())
        })
        .await;
    }
}

impl Drop for Watch {
    /// Where the executor of what is woken still is. Nobody waits for the core any more.
    fn drop(&mut self) {
        self.post.set_waker(None);
        self.post.end();
    }
}

/// What the guardian knows of a core.
struct Watched {
    post: Arc<Post>,
    timer: Arc<OwnedFd>,
    /// When to look, while the core is in its executor's hands.
    due: Option<Instant>,
    seen: Option<usize>,
    /// Wakes since it was last seen to run.
    wakes: u32,
}

impl Watched {
    /// Looks, and wakes it if need be.
    fn look_after(&mut self, now: Instant) {
        let seen = self.post.look();
        if seen.is_none() || seen != self.seen {
            (self.seen, self.wakes) = (seen, 0);
            self.due = seen.is_some().then(|| now + PERIOD);
        } else if self.due.is_none_or(|due| due <= now) {
            self.post.wake();
            let again = TRIES.iter().rev().find(|(wakes, _)| *wakes <= self.wakes);
            self.due = again.map(|(_, after)| now + *after);
            self.wakes += 1;
        }
    }
}

/// The thread, until it is [ended](Self::end); a guardian that is dropped goes on, since the cores may.
#[derive(Debug)]
pub(super) struct Guardian {
    over: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Guardian {
    /// Looks after so many cores; the watches are theirs.
    ///
    /// # Errors
    /// There can't be another thread, or another descriptor.
    pub(super) fn start(cores: usize) -> io::Result<(Self, Vec<Watch>)> {
        let over = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (mut watches, mut all) = (Vec::new(), Vec::new());
        let now = Instant::now();
        for _ in 0..cores {
            let post = Arc::new(Post::new());
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let timer = Arc::new(timerfd_create(TimerfdClockId::Monotonic, flags)?);
            let (set, waits_since_long) = (Cell::new(None), Cell::new(0));
            watches.push(Watch { post: Arc::clone(&post), timer: Arc::clone(&timer), set, waits_since_long });
            all.push(Watched { post, timer, due: Some(now + PERIOD), seen: None, wakes: 0 });
        }
        let is_over = Arc::clone(&over);
        let name = format!("{THREAD_NAME}-watchdog");
        let thread = Builder::new().name(name).spawn(move || guard(&is_over, &mut all))?;
        Ok((Self { over, thread }, watches))
    }

    /// Ends at once.
    pub(super) fn end(self) {
        // It has nothing that could fail.
        let _ = rustix::io::write(&*self.over, &1_u64.to_le_bytes());
        let _ = self.thread.join();
    }
}

fn guard(is_over: &OwnedFd, all: &mut [Watched]) {
    loop {
        let now = Instant::now();
        let next = all.iter().filter_map(|watched| watched.due).min();
        let patience = next.map(|next| next.saturating_duration_since(now));
        let patience = patience.map(|it| Timespec::try_from(it).expect("a minute at most"));
        let timers = all.iter().map(|watched| PollFd::new(&*watched.timer, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> =
            std::iter::once(PollFd::new(is_over, PollFlags::IN)).chain(timers).collect();
        // Whatever it says: who is there is looked at.
        let _ = poll(&mut fds, patience.as_ref());
        let rung: Vec<bool> = fds.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect();
        if rung[0] {
            return;
        }
        let now = Instant::now();
        for (watched, rung) in all.iter_mut().zip(&rung[1..]) {
            if *rung {
                // How often it went off is of no interest.
                let _ = rustix::io::read(&*watched.timer, &mut [0; 8]);
            }
            if *rung || watched.due.is_some_and(|due| due <= now) {
                watched.look_after(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glommio::{Latency, LocalExecutorBuilder, Placement, Shares};
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::time::Instant;

    /// For how long an executor is watched.
    const TIME: Duration = Duration::from_millis(700);
    /// Whoever hasn't gone on by then doesn't.
    const STALLED: Duration = Duration::from_millis(500);
    /// With a guardian.
    const LONGEST: Duration = Duration::from_millis(20);

    /// An executor with the settings with which glommio nearly always parks with a runnable task: a class whose latency is to
    /// matter, and a task of it that is always runnable. With so short a preemption timer it is over before anything is
    /// run. Returns the longest that nothing ran; the executor is woken by the test itself when nobody else does.
    fn longest_stall(is_guarded: bool) -> Duration {
        let (guardian, mut watches) = Guardian::start(1).unwrap();
        let watch = watches.remove(0);
        let mut guardian = Some(guardian);
        if !is_guarded && let Some(guardian) = guardian.take() {
            guardian.end();
        }
        let (beat, beats) = mpsc::channel();
        let kept = Arc::clone(&watch.post);
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .spawn(move || async move {
                watch.keep_awake().await;
                let matters = Latency::Matters(Duration::from_micros(20));
                let class = glommio::executor().create_task_queue(Shares::default(), matters, "eager");
                let running = Arc::clone(&watch.post);
                let eager = async move {
                    let begun = Instant::now();
                    let (mut last, mut longest) = (begun, Duration::ZERO);
                    while begun.elapsed() < TIME {
                        running.beat();
                        futures_lite::future::yield_now().await;
                        longest = longest.max(last.elapsed());
                        last = Instant::now();
                        let _ = beat.send(());
                    }
                    longest
                };
                let longest = glommio::spawn_local_into(eager, class).unwrap().await;
                drop(watch);
                longest
            })
            .unwrap();
        // Beats come, then end. If they don't come any more the stall has shown, and the executor is woken until it ends.
        let mut patience = STALLED;
        loop {
            match beats.recv_timeout(patience) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    patience = Duration::from_millis(1);
                    kept.wake();
                }
            }
        }
        let longest = executor.join().unwrap();
        if let Some(guardian) = guardian {
            guardian.end();
        }
        longest
    }

    #[test]
    fn who_runs_or_waits_is_left_alone_and_others_more_and_more_rarely() {
        let (guardian, mut watches) = Guardian::start(1).unwrap();
        guardian.end();
        let watch = watches.remove(0);
        let start = Instant::now();
        let (post, timer) = (Arc::clone(&watch.post), Arc::clone(&watch.timer));
        let mut watched = Watched { post, timer, due: Some(start), seen: None, wakes: 0 };
        let mut now = start;
        let mut look = |until: Duration| {
            watched.wakes = 0;
            while now < start + until {
                watched.look_after(now);
                now = watched.due.unwrap_or(now + PERIOD);
            }
            watched.wakes
        };
        let seconds = Duration::from_secs;
        watch.regain();
        assert_eq!(look(seconds(1)), 0);
        watch.hand_over();
        assert!((20..150).contains(&look(seconds(2))));
        watch.hand_over();
        assert_eq!(look(seconds(2) + PERIOD), 0, "it has come to run");
        assert!(look(seconds(86_400)) < 32_000, "glommio counts in 16 bits");
    }

    #[test]
    fn a_core_with_little_to_do_wakes_nobody() {
        let (guardian, mut watches) = Guardian::start(1).unwrap();
        let watch = watches.remove(0);
        let goes_off = || {
            let mut fds = [PollFd::new(&*watch.timer, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::try_from(PERIOD * 20).unwrap())).unwrap() > 0
        };
        guardian.end();
        watch.hand_over();
        watch.regain();
        watch.waited(LONG_WAIT);
        watch.will_wait();
        assert!(!goes_off());
        (0..WAITS).for_each(|_| watch.waited(Duration::ZERO));
        watch.hand_over();
        watch.will_wait();
        assert!(goes_off(), "a busy core doesn't take its timer back");
    }

    #[test]
    fn an_executor_that_parks_with_a_runnable_task_is_woken() {
        let unguarded: Vec<_> = (0..3).map(|_| longest_stall(false)).collect();
        assert!(unguarded.iter().any(|stall| *stall >= STALLED), "glommio is cured: {unguarded:?}");
        // A machine that is busy with other things holds anybody up now and then, but not every time.
        let guarded: Vec<_> = (0..5).map(|_| longest_stall(true)).collect();
        eprintln!("longest stalls: {unguarded:?} by itself, {guarded:?} with a guardian");
        assert!(guarded.iter().all(|stall| *stall < STALLED), "{guarded:?}");
        assert!(guarded.iter().any(|stall| *stall <= LONGEST), "{guarded:?}");
    }
}
