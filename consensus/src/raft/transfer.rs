//! Handing the leadership over (thesis §3.10), and to whom it should belong.
//!
//! ```text
//!  leader                               target                               others
//!  takes no proposals, sends appends ──▶ has everything on disk
//!  TimeoutNow ─────────────────────────▶ campaigns at once, no pre-vote
//!  steps down, votes ◀── Vote, flagged ──┴── Vote, flagged ───────────────▶ vote, whomever they heard
//!                                        leads ◀─────────────────────────── one sync later
//! ```
//!
//! A flagged vote request overrides the rule that nobody votes while a leader is alive. So once it has sent a
//! `TimeoutNow`, a leader never again relies on a lease in that term: the message may arrive at any time.
//!
//! **Preference.** The owner may give the members an order. A member that comes later in it waits longer before it
//! campaigns, and when it leads it hands over to an earlier one that has been fit for [`PREFERRED_FOR`] election timeouts
//! without a break. Who leads is then decided by who is well, not by who was faster.

use super::{Context, Raft, Role};
use crate::message::Kind;
use crate::progress::Mode;
use flotilla_runtime::{Nanos, NodeId};
use std::cmp::Reverse;

/// A member that should lead does so when it has been fit for so many election timeouts: one that comes and goes must not
/// take the leadership with it each time.
pub const PREFERRED_FOR: Nanos = 10;
/// Who has more committed entries than that to apply would keep clients waiting: some milliseconds' worth.
const UNAPPLIED_MAX: u64 = 4096;
/// A member that wasn't heard of for so many heartbeats is a bad successor.
const HEARD_WITHIN: Nanos = 3;

/// Why the leadership isn't handed over. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// This replica doesn't lead; who does, as far as it knows.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// The target isn't a voter of the group, or it leads already.
    #[error("it is no other voter of the group")]
    NoOtherVoter,
    /// The target can't lead at the moment.
    #[error("it isn't fit to lead: {0}")]
    Unfit(&'static str),
    /// The leadership is being handed to somebody already.
    #[error("the leadership is being handed over already")]
    UnderWay(NodeId),
}

/// Leader: a transfer under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    target: usize,
    /// Then it is given up.
    until: Nanos,
    /// A `TimeoutNow` has left.
    is_told: bool,
}

impl Transfer {
    /// The place of who is to lead.
    pub(super) fn target(&self) -> usize {
        self.target
    }
}

/// In which order the members should lead.
#[derive(Debug, Default)]
pub(super) struct Preference {
    /// The first should lead. Whoever isn't in it comes last.
    order: Vec<NodeId>,
    /// Leader: who should lead instead, and since when it has been fit to.
    fit_since: Option<(usize, Nanos)>,
    /// Leader: what was committed at the last heartbeat; a fit member has that.
    commit_then: u64,
}

impl Preference {
    /// Leader: whoever waited to take over waits again.
    pub(super) fn begin_again(&mut self) {
        self.fit_since = None;
    }
}

impl Raft {
    /// Says in which order the members should lead, the first first. The same on every replica.
    pub fn prefer(&mut self, now: Nanos, order: Vec<NodeId>) {
        self.preference = Preference { order, ..Preference::default() };
        self.reset_election_deadline(now);
    }

    /// This member's place in the order of preference, and how many places there are.
    pub(super) fn rank(&self, place: usize) -> (usize, usize) {
        let order = &self.preference.order;
        let node = self.members[place].peer.node;
        let rank = order.iter().position(|member| *member == node).unwrap_or(order.len());
        (rank, if order.is_empty() { 1 } else { self.members.len().max(order.len()) })
    }

    /// Whom the leadership is being handed to.
    pub fn transferring_to(&self) -> Option<NodeId> {
        self.transfer.map(|transfer| self.members[transfer.target].peer.node)
    }

    /// Whether this replica has been told to stop leading, see [`Self::retire`].
    pub fn is_retiring(&self) -> bool {
        self.is_retiring
    }

    /// Begins to hand the leadership to `node`. Until it leads, or an election timeout has passed, proposals are refused
    /// with [`super::Refused::Transferring`].
    ///
    /// # Errors
    /// [`TransferError`], and then nothing was done.
    pub fn transfer_to(&mut self, now: Nanos, node: NodeId) -> Result<(), TransferError> {
        if self.role != Role::Leader {
            return Err(TransferError::NotLeader(self.leader()));
        }
        let place = self.members.iter().position(|member| member.peer.node == node);
        let target = place.filter(|place| *place != self.me && self.has_vote(*place));
        let target = target.ok_or(TransferError::NoOtherVoter)?;
        if let Some(under_way) = self.transferring_to() {
            return Err(TransferError::UnderWay(under_way));
        }
        if let Some(why) = self.unfit(now, target) {
            return Err(TransferError::Unfit(why));
        }
        self.begin_transfer(now, target);
        Ok(())
    }

    /// Hands the leadership to the member that is fittest; returns which that is.
    pub fn transfer_away(&mut self, now: Nanos) -> Option<NodeId> {
        if self.role != Role::Leader {
            return None;
        }
        if self.transfer.is_none() {
            let fit = (0..self.members.len()).filter(|place| *place != self.me);
            let fit = fit.filter(|place| self.unfit(now, *place).is_none());
            let target = fit.min_by_key(|place| {
                let progress = &self.progress[*place];
                let is_quiet = progress.last_heard() + HEARD_WITHIN * self.config.heartbeat < now;
                let is_behind = progress.mode != Mode::Replicate || progress.matched < self.commit;
                (is_quiet, is_behind, self.rank(*place).0, Reverse(progress.matched), *place)
            })?;
            self.begin_transfer(now, target);
        }
        self.transferring_to()
    }

    /// The owner has applied so far. One that lags far behind what is committed couldn't serve if it led, and declines to.
    /// Without this it isn't asked about.
    pub fn note_applied(&mut self, index: u64) {
        self.applied = index;
    }

    /// Whether the leadership had better go to somebody else.
    pub(super) fn declines(&self) -> bool {
        let lags = self.applied.saturating_add(UNAPPLIED_MAX) < self.commit;
        self.is_retiring || lags || self.is_repairing() || !self.is_voter()
    }

    /// Leads no more, now and in the future: gives the leadership away, doesn't campaign, takes none over. It goes on to
    /// vote and to follow. For a node that is about to stop.
    pub fn retire(&mut self, cx: &mut Context<'_>) {
        self.is_retiring = true;
        match self.leader {
            _ if self.role == Role::Leader => {
                self.transfer_away(cx.now);
            }
            Some(leader) => self.decline(cx, leader),
            None => {}
        }
    }

    /// Tells the leader not to hand us anything.
    fn decline(&self, cx: &mut Context<'_>, leader: usize) {
        let reply = self.heartbeat_reply(cx, 0);
        self.send(cx, leader, &reply);
    }

    fn unfit(&self, now: Nanos, place: usize) -> Option<&'static str> {
        if !self.has_vote(place) {
            return Some("it has no vote");
        }
        let progress = &self.progress[place];
        if !progress.is_reachable {
            return Some("the link to it is broken");
        }
        if progress.last_heard() + self.config.election_timeout < now {
            return Some("it hasn't been heard of for an election timeout");
        }
        if progress.mode == Mode::Snapshot {
            return Some("it is so far behind that it needs a snapshot");
        }
        if !progress.counts {
            return Some("it lost part of its log and hasn't got it back yet");
        }
        progress.declines.then_some("it declines: it is about to stop, or has much to apply yet")
    }

    fn begin_transfer(&mut self, now: Nanos, target: usize) {
        self.preference.begin_again();
        self.transfer = Some(Transfer { target, until: now + self.config.election_timeout, is_told: false });
    }

    /// Leader, end of the turn: the target campaigns as soon as it has everything.
    pub(super) fn drive_transfer(&mut self, cx: &mut Context<'_>) {
        let Some(Transfer { target, until, is_told: false }) = self.transfer else { return };
        if self.progress[target].matched == self.log.last_index() {
            self.lease.revoke();
            self.transfer = Some(Transfer { target, until, is_told: true });
            self.send_timeout_now(cx, target);
        } else {
            self.hurry(cx, target);
        }
    }

    fn send_timeout_now(&self, cx: &mut Context<'_>, target: usize) {
        let header = self.header(Kind::TimeoutNow);
        self.send(cx, target, &header);
    }

    /// Leader, once a heartbeat: a transfer goes on or is given up, or one is due.
    pub(super) fn look_after_leadership(&mut self, cx: &mut Context<'_>) {
        match self.transfer {
            Some(Transfer { until, .. }) if until <= cx.now => self.give_transfer_up(cx.now),
            Some(Transfer { target, is_told: true, .. }) => self.send_timeout_now(cx, target),
            Some(_) => {}
            None if self.is_retiring => {
                self.transfer_away(cx.now);
            }
            None => self.consider_preference(cx.now),
        }
    }

    /// Leader: the target of a transfer is out of reach, perhaps.
    pub(super) fn give_transfer_up_to(&mut self, now: Nanos, place: usize) {
        if self.transfer.is_some_and(|transfer| transfer.target == place) {
            self.give_transfer_up(now);
        }
    }

    fn give_transfer_up(&mut self, now: Nanos) {
        self.transfer = None;
        if self.is_retiring {
            self.transfer_away(now);
        }
    }

    /// Leader: a follower says whether it may be handed the leadership.
    pub(super) fn note_declines(&mut self, now: Nanos, from: usize, declines: bool) {
        self.progress[from].declines = declines;
        if declines {
            self.give_transfer_up_to(now, from);
        }
    }

    /// Leader: it gives the leadership away, or will once one of `there`, who should lead instead, has been fit for long enough.
    pub(super) fn is_handing_over(&self, there: impl Fn(usize) -> bool) -> bool {
        let mine = self.rank(self.me).0;
        let waits =
            |place: usize| self.rank(place).0 < mine && !self.progress[place].declines && there(place);
        self.transfer.is_some() || self.is_retiring || self.group_of.others.iter().any(waits)
    }

    fn consider_preference(&mut self, now: Nanos) {
        let mine = self.rank(self.me).0;
        let (commit_then, heartbeat) = (self.preference.commit_then, self.config.heartbeat);
        let better = (0..self.members.len()).filter(|place| self.rank(*place).0 < mine);
        let fit = better.filter(|place| {
            let progress = &self.progress[*place];
            self.unfit(now, *place).is_none()
                && progress.mode == Mode::Replicate
                && progress.matched >= commit_then
                && progress.last_heard() + HEARD_WITHIN * heartbeat >= now
        });
        let best = fit.min_by_key(|place| self.rank(*place).0);
        self.preference.commit_then = self.commit;
        let since = match (best, self.preference.fit_since) {
            (Some(best), Some((before, since))) if best == before => since,
            _ => now,
        };
        self.preference.fit_since = best.map(|best| (best, since));
        if let Some(best) = best
            && now >= since + PREFERRED_FOR * self.config.election_timeout
        {
            self.begin_transfer(now, best);
        }
    }

    /// The leader wants us to take over.
    pub(super) fn on_timeout_now(&mut self, cx: &mut Context<'_>, from: usize) {
        self.follow(cx, from);
        if self.declines() {
            return self.decline(cx, from);
        }
        self.ask_for_votes(cx, true);
    }
}
