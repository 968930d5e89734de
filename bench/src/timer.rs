//! A timer of nanoseconds: epoll's own timeout counts milliseconds, which would show in an open loop's latencies.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::error::{BenchError, Result};

/// A timerfd. Readable once its time has come, until it is armed again.
#[derive(Debug)]
pub(crate) struct Timer(OwnedFd);

impl Timer {
    /// A timer that isn't armed.
    pub(crate) fn new() -> Result<Self> {
        timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .map(Self)
            .map_err(|error| BenchError::io("creating a timer")(error.into()))
    }

    /// Goes off once, `after` from now.
    pub(crate) fn arm(&self, after: Duration) -> Result<()> {
        // Zero would disarm it.
        let after = after.max(Duration::from_nanos(1));
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: after.as_secs() as i64, tv_nsec: after.subsec_nanos().into() },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &spec)
            .map(drop)
            .map_err(|error| BenchError::io("arming a timer")(error.into()))
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
