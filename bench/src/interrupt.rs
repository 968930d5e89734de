//! Ctrl-C: the first one is a flag that every loop looks at, the second one ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::{BenchError, Result};

/// The shared flag. Cloning it is cheap; looking at it is one relaxed load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP for the rest of the process's life.
    pub(crate) fn install() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Order matters: the conditional exit must see the flag as the previous signal left it.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupt.0))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupt.0)))
                .map_err(BenchError::io("catching signals"))?;
        }
        Ok(interrupt)
    }

    /// Whether someone asked us to stop.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error if someone asked us to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_set() { Err(BenchError::Interrupted) } else { Ok(()) }
    }

    /// Sleeps until `instant`, or fails as soon as someone asks us to stop.
    pub(crate) fn sleep_until(&self, instant: Instant) -> Result<()> {
        loop {
            self.check()?;
            let left = instant.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}
