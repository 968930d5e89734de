//! The few things that tools (client, demo, command line, workers) may do and machines may not: wait, measure time, and start threads.

use std::time::Duration;

/// Measures elapsed time.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts now.
    #[allow(clippy::disallowed_methods, reason = "hands: a tool's clock, no machine uses it")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The time since.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The calendar's time: milliseconds since 1970, 0 for anything earlier.
#[allow(clippy::disallowed_methods, reason = "hands: a tool's calendar, no machine uses it")]
pub fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Waits a little between two looks at something that announces itself in no other way.
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Starts a thread of a tool.
#[allow(clippy::disallowed_methods, reason = "hands: a tool's thread, no machine runs on it")]
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(work)
}

/// The same, where others decide how many there are: the system may have no more.
///
/// # Errors
/// The system's.
pub fn try_spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().spawn(work).map(drop)
}
