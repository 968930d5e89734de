//! How tasks give way to whoever else wants the CPU: first of all the store's cores on the same machine.
//!
//! The kernel's class for it (`SCHED_IDLE`) isn't enough. It lets a thread that wakes up take the CPU at once, but only from threads of its own
//! cgroup or session; the kernel's own threads, which end a direct write and its sync, wait for the end of a time slice, and so does a thread that
//! has used up its share: 4 to 20 ms, at a clock of 250 Hz. A task that sleeps now and then ends every slice itself.

use crate::hands::{Stopwatch, pause};
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use thread_priority::ThreadPriority;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
};

/// A task works for so long between two looks.
const PIECE: Duration = Duration::from_micros(200);
/// While somebody else wants its CPU it then sleeps for so long.
const NAP: Duration = Duration::from_micros(100);
/// Somebody who wanted it is expected again for so long.
const CAREFUL: Duration = Duration::from_millis(50);
/// To have waited for the CPU for less is nothing, in nanoseconds.
const WAITED_MIN: u64 = 5_000;

/// Of one thread.
#[derive(Debug)]
struct Pace {
    /// The kernel's words about this thread; the second is for how long it has waited for a CPU.
    schedstat: File,
    waited: u64,
    /// Since the last look or nap.
    working: Stopwatch,
    /// Since the last look that showed that somebody wanted the CPU.
    disturbed: Option<Stopwatch>,
}

thread_local! {
    static PACE: RefCell<Option<Pace>> = const { RefCell::new(None) };
}

/// From now on the calling thread, and whatever it starts, has only the CPU time that nobody else wants, and [`breathe`] does something.
///
/// # Errors
/// The system's words.
pub(super) fn give_way() -> Result<(), String> {
    let schedstat = File::open("/proc/thread-self/schedstat").map_err(|error| error.to_string())?;
    PACE.set(Some(Pace::of(schedstat)));
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy)
        .map_err(|error| error.to_string())
}

/// Called by a task at least every 200 us or so: lets others have the CPU if they want it. Nothing, in a thread that doesn't give way.
pub(super) fn breathe() {
    PACE.with_borrow_mut(|pace| {
        if let Some(pace) = pace {
            pace.breathe();
        }
    });
}

impl Pace {
    fn of(schedstat: File) -> Self {
        Self { schedstat, waited: 0, working: Stopwatch::start(), disturbed: None }
    }

    fn breathe(&mut self) {
        if self.working.elapsed() < PIECE {
            return;
        }
        match self.is_disturbed(self.waited()) {
            true => pause(NAP),
            false => std::thread::yield_now(),
        }
        self.working = Stopwatch::start();
    }

    /// Whether somebody wants this CPU, or lately did: `waited` is for how long the thread has waited for one, in nanoseconds.
    fn is_disturbed(&mut self, waited: u64) -> bool {
        if waited > self.waited + WAITED_MIN {
            self.disturbed = Some(Stopwatch::start());
        }
        self.waited = waited;
        self.disturbed.is_some_and(|since| since.elapsed() < CAREFUL)
    }

    fn waited(&self) -> u64 {
        let mut text = [0; 64];
        let read = self.schedstat.read_at(&mut text, 0).unwrap_or(0);
        let words = std::str::from_utf8(&text[..read]).unwrap_or_default();
        words.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(self.waited)
    }
}

/// Breathes at every piece that is written.
#[derive(Debug)]
pub(super) struct Paced<W>(pub(super) W);

impl<W: std::io::Write> std::io::Write for Paced<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        breathe();
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hands::spawn;

    /// The class of a thread, from the kernel: 5 is `SCHED_IDLE`.
    fn class() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(38).unwrap().to_owned()
    }

    #[test]
    fn a_thread_that_gives_way_starts_threads_that_do() {
        let there = spawn(|| {
            give_way().unwrap();
            (class(), spawn(class).join().unwrap())
        });
        let (own, started) = there.join().unwrap();
        assert_eq!((own.as_str(), started.as_str(), class().as_str()), ("5", "5", "0"));
    }

    #[test]
    fn it_is_careful_for_a_while_after_it_had_to_wait() {
        let mut pace = Pace::of(File::open("/proc/thread-self/schedstat").unwrap());
        assert!(!pace.is_disturbed(WAITED_MIN), "that is nothing");
        let since = Stopwatch::start();
        while pace.is_disturbed(2 * WAITED_MIN + 1) {
            pause(NAP);
        }
        assert!(since.elapsed() >= CAREFUL);
        assert!(
            pace.waited() > 0,
            "a thread that is started waits for a CPU first: the kernel's words are understood"
        );
    }

    #[test]
    fn others_only_pass() {
        breathe();
        assert!(PACE.with_borrow(Option::is_none));
    }
}
