//! Both clocks of a core.

use crate::machine::{Nanos, Now};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Reads both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: self.monotonic(), unix_ms: u64::try_from(unix.as_millis()).unwrap_or(0) }
    }

    pub(super) fn monotonic(self) -> Nanos {
        self.at(Instant::now())
    }

    pub(super) fn at(self, now: Instant) -> Nanos {
        // Starts at one second, so that "long ago" can be said.
        let since = now.saturating_duration_since(self.0).as_nanos();
        1_000_000_000 + u64::try_from(since).unwrap_or(u64::MAX)
    }
}
