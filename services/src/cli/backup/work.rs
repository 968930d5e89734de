//! Several shards at a time, each by a thread that takes the next one when it has done with one; and a line of progress.

use crate::cli::Failure;
use crate::hands::{Stopwatch, pause, spawn};
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often progress is shown to somebody who looks, and written where nobody does.
const INTERVALS: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(10)];

/// What the threads share: how far they are, and whether they are to stop.
#[derive(Debug)]
pub(super) struct Progress {
    clock: Stopwatch,
    pub(super) keys: AtomicU64,
    pub(super) bytes: AtomicU64,
    /// What it will come to, roughly.
    total: (u64, u64),
    bytes_per_second: Option<u64>,
    /// Somebody has failed, or the user has had enough.
    stop: Arc<AtomicBool>,
}

impl Progress {
    /// `total`: keys and bytes. `stop`: set by Ctrl-C, and by whoever fails.
    pub(super) fn new(total: (u64, u64), limit_mib: Option<u64>, stop: Arc<AtomicBool>) -> Self {
        let (keys, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let bytes_per_second = limit_mib.map(|limit| limit << 20);
        Self { clock: Stopwatch::start(), keys, bytes, total, bytes_per_second, stop }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn seconds(&self) -> f64 {
        self.clock.elapsed().as_secs_f64()
    }

    /// So much more has come or gone; waits as long as the limit asks for.
    ///
    /// # Errors
    /// It is over: somebody has failed, or the user has had enough.
    pub(super) fn add(&self, keys: u64, bytes: u64) -> Result<(), Failure> {
        self.keys.fetch_add(keys, Ordering::Relaxed);
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        while self.bytes_per_second.is_some_and(|limit| bytes as f64 > limit as f64 * self.seconds()) {
            self.go_on()?;
            pause(Duration::from_millis(5));
        }
        self.go_on()
    }

    /// What was counted counts no more.
    pub(super) fn take_back(&self, keys: u64, bytes: u64) {
        self.keys.fetch_sub(keys, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// # Errors
    /// It is over.
    pub(super) fn go_on(&self) -> Result<(), Failure> {
        if self.is_stopped() { Err(Failure::Failed(String::new())) } else { Ok(()) }
    }

    fn line(&self, what: &str) -> String {
        let (keys, bytes) = (self.keys.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let (seconds, (keys_total, bytes_total)) = (self.seconds(), self.total);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let left = match bytes {
            0 => "?".to_owned(),
            _ => format!("{:.0} s", bytes_total.saturating_sub(bytes) as f64 * seconds / bytes as f64),
        };
        let rate = mib(bytes) / seconds.max(1e-3);
        format!(
            "{what}: {keys} of {keys_total} keys, {:.1} of {:.1} MiB, {rate:.1} MiB/s, about {left} left",
            mib(bytes),
            mib(bytes_total)
        )
    }
}

/// Has threads do every job; returns what came of them, in any order. `what` is said in the line of progress, which nobody gets who
/// asked for JSON.
///
/// # Errors
/// The first that failed; the others are stopped then.
pub(super) fn on_all<J: Send + 'static, T: Send + 'static>(
    jobs: Vec<J>,
    threads: u8,
    progress: &Arc<Progress>,
    what: Option<&str>,
    work: impl Fn(J, &Progress) -> Result<T, Failure> + Send + Sync + 'static,
) -> Result<Vec<T>, Failure> {
    let jobs: Arc<Mutex<VecDeque<J>>> = Arc::new(Mutex::new(jobs.into()));
    let work = Arc::new(work);
    let run = |_| {
        let (jobs, work, progress) = (Arc::clone(&jobs), Arc::clone(&work), Arc::clone(progress));
        spawn(move || -> Result<Vec<T>, Failure> {
            let mut done = Vec::new();
            loop {
                let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(job) = job else { return Ok(done) };
                progress.go_on()?;
                done.push(
                    work(job, &progress).inspect_err(|_| progress.stop.store(true, Ordering::Relaxed))?,
                );
            }
        })
    };
    let threads: Vec<_> = (0..threads).map(run).collect();
    let is_watched = std::io::stderr().is_terminal();
    let interval = if is_watched { INTERVALS[0] } else { INTERVALS[1] };
    let mut shown = Duration::ZERO;
    while !threads.iter().all(std::thread::JoinHandle::is_finished) {
        pause(Duration::from_millis(5));
        let elapsed = progress.clock.elapsed();
        if let Some(what) = what.filter(|_| elapsed >= shown + interval) {
            shown = elapsed;
            let line = progress.line(what);
            // Nobody to see it, nothing to do.
            let _ = match is_watched {
                true => write!(std::io::stderr(), "\r{line}\x1b[K"),
                false => writeln!(std::io::stderr(), "{line}"),
            };
        }
    }
    if is_watched && what.is_some() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let (mut all, mut failed) = (Vec::new(), None);
    for thread in threads {
        match thread.join() {
            Ok(Ok(done)) => all.extend(done),
            // Of those who were only stopped, none says why.
            Ok(Err(Failure::Failed(why))) if why.is_empty() => {
                failed.get_or_insert(Failure::Failed(why));
            }
            Ok(Err(failure)) => failed = Some(failure),
            Err(_) => failed = Some(Failure::failed("a thread panicked: this is a bug")),
        }
    }
    failed.map_or(Ok(all), Err)
}
