//! An idle group keeps still: see [`crate::multi`]'s pairs for what that rests on, and why it is safe.

use super::repair::Asked;
use super::{Context, Raft, Role};
use crate::message::{Header, Kind};
use crate::multi::Pairs;
use crate::progress::Mode;
use flotilla_runtime::{Nanos, PeerId};

/// What a replica has to do with resting.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// No timer, no heartbeat.
    is_resting: bool,
    /// The owner has something to do with the group for which it wants the heartbeats.
    is_held: bool,
    /// Leader: the last index at the last heartbeat: a group is idle when it has moved for none.
    last_seen: u64,
    /// Leader: the last index that the offer is about; 0 for none.
    offered: u64,
    /// In this term we offered rest, or agreed to it: who may go by our word.
    promised: To,
    /// That word doesn't hold any more for these, and they don't know yet.
    broken: Vec<PeerId>,
    /// Peers that got a place: their cores and ours have to know of each other.
    newcomers: Vec<PeerId>,
}

/// Some of the members.
#[derive(Clone, Copy, Debug, Default)]
enum To {
    #[default]
    Nobody,
    /// Our leader.
    One(PeerId),
    /// All others in the group.
    All,
}

impl Raft {
    /// Whether this replica keeps still: no timer of its own, until it is roused.
    pub fn is_resting(&self) -> bool {
        self.rest.is_resting
    }

    /// Those whose pulses a resting replica goes by.
    pub(crate) fn rests_on(&self) -> Vec<PeerId> {
        let agreed = |place: &usize| match self.role {
            Role::Leader => self.progress[*place].rests.0 == self.log.last_index(),
            _ => self.leader == Some(*place),
        };
        self.group_of.others.iter().filter(agreed).map(|place| self.members[place].peer).collect()
    }

    /// Whether it rests, or one of the next two has something to tell.
    pub(crate) fn has_news_of_rest(&self) -> bool {
        let Rest { is_resting, broken, newcomers, .. } = &self.rest;
        *is_resting || !broken.is_empty() || !newcomers.is_empty()
    }

    /// Those to whom its word doesn't hold any more. Asked once: the answer is acted upon.
    pub(crate) fn take_broken(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.rest.broken)
    }

    /// A peer has a place now.
    pub(super) fn note_newcomer(&mut self, peer: PeerId) {
        self.rest.newcomers.push(peer);
    }

    /// Those who got a place since this was asked last.
    pub(crate) fn take_newcomers(&mut self) -> Vec<PeerId> {
        std::mem::take(&mut self.rest.newcomers)
    }

    /// While it `is_held` by its owner, who goes by the group's heartbeats, it doesn't rest.
    pub(crate) fn hold(&mut self, is_held: bool) {
        self.rest.is_held = is_held;
    }

    /// Whether its owner has said so.
    pub(crate) fn is_held(&self) -> bool {
        self.rest.is_held
    }

    /// Leader, at rest: a member is as well as its pulses are, and those would have roused us.
    pub(super) fn rests_with(&self, place: usize) -> bool {
        self.is_resting() && self.progress[place].rests.0 == self.log.last_index()
    }

    /// Something happens to the group: Raft's own timers run again, as if heartbeats had come instead of pulses.
    pub(crate) fn rouse(&mut self, now: Nanos, pairs: &Pairs) {
        if !std::mem::take(&mut self.rest.is_resting) {
            return;
        }
        if self.role == Role::Leader {
            let agreed = self.rests_on();
            for (member, progress) in self.members.iter().zip(&mut self.progress) {
                if agreed.contains(&member.peer) {
                    progress.vouched = pairs.heard(member.peer);
                }
                progress.rests = (0, 0);
            }
            (self.rest.offered, self.rest.last_seen) = (0, 0);
            self.heartbeat_deadline = now;
        } else if let Some(leader) = self.leader {
            let heard = pairs.heard(self.members[leader].peer);
            self.leader_heard = self.leader_heard.max(Some(heard));
            self.reset_election_deadline(self.leader_heard.unwrap_or(now));
        }
    }

    /// Leader, with a heartbeat: offers rest once nothing has happened since the last one.
    pub(super) fn offer_rest(&mut self, cx: &mut Context<'_>) {
        let last = self.log.last_index();
        let was_idle = std::mem::replace(&mut self.rest.last_seen, last) == last;
        if !was_idle || !self.may_rest(cx.now) {
            return;
        }
        (self.rest.offered, self.rest.promised) = (last, To::All);
        for place in self.group_of.others {
            let peer = self.members[place].peer;
            let offer = Header {
                index: last,
                commit: self.commit,
                aux: cx.pairs.epoch(peer),
                ..self.header(Kind::Rest)
            };
            self.send(cx, place, &offer);
        }
        self.rest_if_all_agree(cx);
    }

    /// Whether nothing is left to do, as far as this replica can tell. [`crate::multi`]'s pairs say why each of these.
    fn may_rest(&self, now: Nanos) -> bool {
        let last = self.log.last_index();
        let is_done = !self.is_repairing()
            && self.has_steady_members()
            && self.commit == last
            && self.durable == last
            && !self.has_unsynced()
            && !self.rest.is_held;
        let others = self.group_of.others;
        // Readers under a lease rely on heartbeats.
        is_done
            && self.config.rests
            && self.config.lease.is_none()
            && match self.role {
                Role::Leader => {
                    let is_there = |place: usize| place == self.me || !self.is_away(place, now);
                    // Heartbeats tell when there is room again.
                    !self.is_hemmed_in
                        && self.round_wanted <= self.round_confirmed
                        && self.asked.is_empty()
                        && !self.is_handing_over(is_there)
                        && self.is_quorum(is_there)
                        && others.iter().all(|place| !is_there(place) || self.has_all(place))
                }
                Role::Follower => {
                    let follows = self.leader.is_some_and(|leader| others.has(leader));
                    follows && self.matched == last && !self.ack_due && !self.questions.is_waiting()
                }
                Role::PreCandidate | Role::Candidate => false,
            }
    }

    /// Leader: it is whole, and nothing has to be sent to it.
    fn has_all(&self, place: usize) -> bool {
        let progress = &self.progress[place];
        progress.mode == Mode::Replicate
            && progress.matched == self.log.last_index()
            && progress.counts
            && progress.asked.as_deref().is_none_or(Asked::is_answered)
    }

    /// Nothing was heard of it for an election timeout: it keeps nobody awake.
    fn is_away(&self, place: usize, now: Nanos) -> bool {
        self.progress[place].last_heard() + self.config.election_timeout <= now
    }

    /// Follower: agrees, if that is how things stand here too.
    pub(super) fn on_rest(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        self.commit = self.commit.max(header.commit.min(self.matched));
        let (index, peer) = (header.index, self.members[from].peer);
        let as_here = self.log.last_index() == index && self.may_rest(cx.now);
        if as_here && cx.pairs.is_current(cx.now, peer, header.aux) {
            (self.rest.is_resting, self.rest.promised) = (true, To::One(peer));
            let reply = Header { index, aux: cx.pairs.epoch(peer), ..self.header(Kind::RestReply) };
            self.send(cx, from, &reply);
        }
    }

    pub(super) fn on_rest_reply(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        if self.role != Role::Leader {
            return;
        }
        self.progress[from].heard = cx.now;
        let last = self.log.last_index();
        if header.index == last && self.rest.offered == last {
            self.progress[from].rests = (header.index, header.aux);
            self.rest_if_all_agree(cx);
        }
    }

    fn rest_if_all_agree(&mut self, cx: &mut Context<'_>) {
        let last = self.log.last_index();
        let agrees = |place: usize| {
            let (index, epoch) = self.progress[place].rests;
            index == last && cx.pairs.is_current(cx.now, self.members[place].peer, epoch)
        };
        let mut others = self.group_of.others.iter();
        if others.all(|place| self.is_away(place, cx.now) || agrees(place)) && self.may_rest(cx.now) {
            self.rest.is_resting = true;
        }
    }

    /// The term in which we promised is over for us, or our leadership is, or the group is another.
    pub(super) fn break_promise(&mut self) {
        let Rest { promised, mut broken, newcomers, is_held, .. } = std::mem::take(&mut self.rest);
        match promised {
            To::Nobody => {}
            To::One(peer) => broken.push(peer),
            To::All => broken.extend(self.group_of.others.iter().map(|place| self.members[place].peer)),
        }
        self.rest = Rest { broken, newcomers, is_held, ..Rest::default() };
    }
}
