//! What a write waits for: one of each group at a time is followed through its stages.
//!
//! ```text
//!   proposed ──queue──▶ in a frame that the disk has ──disk──────▶ durable here
//!             (build)                                  (write, sync)
//!                                                    ──network───▶ durable on the first other node that says so
//!                                                    ──quorum────▶ committed ──apply──▶ answered
//! ```
//!
//! Those in parentheses, and `apply`, are work rather than waiting, and no machine has a clock: the driver takes the time of its own
//! operations (`write`, `sync`) and of the machine's two calls at the end of a turn, and the machine, which alone knows whether a frame was
//! built or an entry applied in them, counts the time at the beginning of the next.
//!
//! The next write of a group is followed when the last one that was is committed, and durable here, so it costs a write one comparison, and
//! there are as many samples as rounds. Instants are those of the core's turns; one that is before the last counts as none passed. Nothing is
//! decided by any of it.

use super::Core;
use crate::admin::report::STAGES;
use flotilla_consensus::{Proposal, Role};
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::{Histogram, Nanos, Now};
use flotilla_storage::Lsn;

/// Writes that a core follows at once.
const FOLLOWED_MAX: usize = 16;
/// One that isn't committed by then isn't followed any further.
const FOLLOWED_FOR_MAX: Nanos = 10 * SECOND;

const QUEUE: usize = 0;
const BUILD: usize = 1;
const WRITE: usize = 2;
const SYNC: usize = 3;
const DISK: usize = 4;
const NETWORK: usize = 5;
const QUORUM: usize = 6;
const APPLY: usize = 7;

/// A write that is followed.
#[derive(Debug)]
struct Followed {
    place: usize,
    proposal: Proposal,
    frame: Lsn,
    began: Nanos,
    given: Option<Nanos>,
    is_durable: bool,
    is_known_elsewhere: bool,
    is_committed: bool,
}

/// The writes that are followed, and how long the stages of those before took.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    followed: Vec<Followed>,
    times: [Histogram; STAGES.len()],
    /// In the turn before, entries were applied, and frames built.
    pub(super) has_applied: bool,
    /// See above.
    pub(super) has_built: bool,
}

impl Core {
    /// A turn ends: how long did the parts of the one before take in which something was done?
    pub(super) fn time_last_turn(&mut self) {
        let Stages { times, has_applied, has_built, .. } = &mut self.stages;
        if std::mem::take(has_applied) {
            times[APPLY].record(self.vitals.applied_nanos.get());
        }
        if std::mem::take(has_built) {
            times[BUILD].record(self.vitals.flushed_nanos.get());
        }
    }

    /// By [`STAGES`].
    pub(super) fn stage_times(&self) -> [Histogram; STAGES.len()] {
        let mut times = self.stages.times;
        times[WRITE] = *self.vitals.segment_writes.borrow();
        times[SYNC] = *self.vitals.segment_syncs.borrow();
        times
    }

    /// A write of a client was proposed.
    pub(super) fn follow(&mut self, now: Now, place: usize, proposal: Proposal) {
        if self.groups[place].is_followed || self.stages.followed.len() == FOLLOWED_MAX {
            return;
        }
        self.groups[place].is_followed = true;
        self.stages.followed.push(Followed {
            place,
            proposal,
            frame: self.multi.wal().open_lsn(),
            began: now.monotonic,
            given: None,
            is_durable: false,
            is_known_elsewhere: false,
            is_committed: false,
        });
    }

    /// The turn is over: how far have they come?
    pub(super) fn follow_on(&mut self, now: Now) {
        if self.stages.followed.is_empty() {
            return;
        }
        let mut followed = std::mem::take(&mut self.stages.followed);
        followed.retain_mut(|it| {
            let goes_on = self.goes_on(now.monotonic, it);
            self.groups[it.place].is_followed = goes_on;
            goes_on
        });
        self.stages.followed = followed;
    }

    fn goes_on(&mut self, now: Nanos, it: &mut Followed) -> bool {
        let (raft, wal, times) = (self.multi.raft(it.place), self.multi.wal(), &mut self.stages.times);
        let Proposal { index, term } = it.proposal;
        if raft.role() != Role::Leader || raft.term() != term || now > it.began + FOLLOWED_FOR_MAX {
            return false;
        }
        if it.given.is_none() && wal.given() >= it.frame {
            times[QUEUE].record(now.saturating_sub(it.began));
            it.given = Some(now);
        }
        let Some(given) = it.given else { return true };
        if !it.is_durable && raft.durable() >= index {
            times[DISK].record(now.saturating_sub(given));
            it.is_durable = true;
        }
        let has_it = |node| raft.matched(node).is_some_and(|(matched, _)| matched >= index);
        let mut others = raft
            .members()
            .iter()
            .map(|member| member.peer.node)
            .filter(|node| *node != self.config.node_id());
        if !it.is_known_elsewhere && others.any(has_it) {
            times[NETWORK].record(now.saturating_sub(given));
            it.is_known_elsewhere = true;
        }
        if !it.is_committed && raft.commit() >= index {
            times[QUORUM].record(now.saturating_sub(given));
            it.is_committed = true;
        }
        !(it.is_durable && it.is_committed)
    }
}
