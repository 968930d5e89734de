//! Leases: a leader that serves reads without asking anybody, because nobody can have been elected yet (thesis §6.4.1).
//!
//! Whoever hears a leader votes for nobody else until an election timeout has passed on its own clock; whoever starts
//! waits as long, since it may have heard one in its former life. So if a majority answered a heartbeat that left at `s`,
//! there is no other leader before `s` + election timeout, as the slowest of their clocks counts. The leader's own clock
//! may run slower than theirs by a bound that the operator states, hence
//!
//! ```text
//!   the lease ends at  s + election_timeout / (1 + clock_drift_max)      on the leader's clock
//! ```
//!
//! It is measured from the *sending* of the heartbeat, and compared with the clock as it is when a read comes. Only the
//! rates of the clocks matter, not what they show. A clock that stands still while others go on (a virtual machine that is
//! paused or moved) breaks any bound; that is why leases are off unless asked for.
//!
//! When the voters change, a lease begins again: what a quorum of others confirmed doesn't bind these.
//!
//! A leader that hands over overrides those promises, so after that it has no lease for the rest of its term.

use super::Raft;
use flotilla_runtime::Nanos;
use flotilla_runtime::planted::{Bug, planted};
use std::collections::VecDeque;

/// Rounds in the air whose sending is remembered. Forgetting one makes a lease shorter, never longer.
const ROUNDS_MAX: usize = 64;

/// What a leader must know to rely on time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseConfig {
    /// While one node's monotonic clock advances by a second, another's advances by at most so many millionths more.
    pub clock_drift_max_ppm: u32,
}

/// Leader: how long nobody else can be elected.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Rounds that aren't confirmed yet, and when each was first sent.
    sent: VecDeque<(u64, Nanos)>,
    until: Nanos,
    is_revoked: bool,
}

impl Lease {
    /// Nothing that was confirmed or sent before counts.
    pub(super) fn begin_again(&mut self) {
        self.sent.clear();
        self.until = 0;
    }

    /// No more leases in this term.
    pub(super) fn revoke(&mut self) {
        self.is_revoked = true;
    }
}

impl Raft {
    /// Leader: a round of heartbeats leaves.
    pub(super) fn note_round_sent(&mut self, now: Nanos) {
        if self.config.lease.is_none() {
            return;
        }
        if self.lease.sent.len() == ROUNDS_MAX {
            self.lease.sent.pop_front();
        }
        self.lease.sent.push_back((self.round_sent, now));
    }

    /// Leader: a majority has answered a round.
    pub(super) fn extend_lease(&mut self) {
        let Some(LeaseConfig { clock_drift_max_ppm }) = self.config.lease else { return };
        let confirmed = self.round_confirmed;
        while let Some((_, sent)) = self.lease.sent.pop_front_if(|(round, _)| *round <= confirmed) {
            let drift_ppm = if planted(Bug::LeaseDriftIgnored) { 0 } else { clock_drift_max_ppm };
            let times = if planted(Bug::LeaseTooLong) { 3 } else { 1 };
            let lasts = u128::from(self.config.election_timeout) * 1_000_000 * times;
            let lasts = lasts / (1_000_000 + u128::from(drift_ppm));
            self.lease.until = sent + Nanos::try_from(lasts).expect("shorter than the election timeout");
        }
    }

    /// Leader: nobody else can lead at `now`.
    pub(super) fn has_lease(&self, now: Nanos) -> bool {
        self.config.lease.is_some() && !self.lease.is_revoked && now < self.lease.until
    }
}
