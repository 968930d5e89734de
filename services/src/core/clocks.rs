//! Clocks that disagree, told to whoever can set them.
//!
//! A key's expiry is told by the group's own clock, which is the latest time in its log: it follows whichever leader's clock is ahead. A
//! node that finds that clock ahead of its own has a clock that is behind, or the log had a leader whose clock was ahead. Nothing is
//! decided by any of it: an entry's time is taken as it is.

use super::Core;
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::{Nanos, Now};

/// What the clocks of nodes that are kept by NTP, and the way of an entry, never come to, in milliseconds.
const APART_MAX_MS: u64 = 5000;
/// Between two warnings.
const TELL_EVERY: Nanos = 60 * SECOND;

/// When it was told last.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    tell_again_at: Nanos,
}

impl Core {
    /// How far this node's clock is behind the furthest of its groups' clocks, in milliseconds.
    pub(super) fn clock_behind_ms(&self, now: Now) -> u64 {
        let ahead = self.groups.iter().map(|group| group.clock_ms.saturating_sub(now.unix_ms));
        ahead.max().unwrap_or(0)
    }

    /// Tells the operator of clocks that are too far apart, now and then.
    pub(super) fn compare_clocks(&mut self, now: Now) {
        if now.monotonic < self.clocks.tell_again_at {
            return;
        }
        let behind = self.clock_behind_ms(now);
        if behind > APART_MAX_MS {
            self.clocks.tell_again_at = now.monotonic + TELL_EVERY;
            tracing::warn!(
                core = self.id.0,
                "this node's clock is {}.{} s behind the time in the log: keys expire by the clock that is ahead; set the nodes' clocks by NTP \
                 (timedatectl, chronyc tracking)",
                behind / 1000,
                behind % 1000 / 100
            );
        }
    }
}
