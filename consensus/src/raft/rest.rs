//! An idle group keeps still: see [`crate::multi`]'s pairs for what that rests on, and why it is safe.

use super::{Context, Raft, Role};
use crate::message::{Header, Kind};
use crate::multi::Pairs;
use crate::progress::Mode;
use crate::quorum::majority;
use flotilla_runtime::{Nanos, PeerId};

/// What a replica has to do with resting.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    /// No timer, no heartbeat.
    is_resting: bool,
    /// Leader: the last index at the last heartbeat: a group is idle when it has moved for none.
    last_seen: u64,
    /// Leader: the last index that the offer is about; 0 for none.
    offered: u64,
    /// In this term we offered rest, or agreed to it: who may go by our word.
    promised: To,
    /// That word doesn't hold any more, and they don't know yet.
    broken: To,
}

/// Some of the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum To {
    #[default]
    Nobody,
    /// The one at this place.
    One(usize),
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
            Role::Leader => *place != self.me && self.progress[*place].rests.0 == self.log.last_index(),
            _ => self.leader == Some(*place),
        };
        let places = (0..self.members.len()).filter(agreed);
        places.map(|place| self.members[place].peer).collect()
    }

    /// Those to whom its word doesn't hold any more. Asked once: the answer is acted upon.
    pub(crate) fn take_broken(&mut self) -> Vec<PeerId> {
        if self.rest.broken == To::Nobody {
            return Vec::new();
        }
        let is_meant = |place: &usize| match self.rest.broken {
            To::Nobody => false,
            To::One(one) => *place == one,
            To::All => *place != self.me,
        };
        let peers = (0..self.members.len()).filter(is_meant).map(|place| self.members[place].peer).collect();
        self.rest.broken = To::Nobody;
        peers
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
        if !was_idle || !self.could_rest(cx.now) {
            return;
        }
        (self.rest.offered, self.rest.promised) = (last, To::All);
        for place in (0..self.members.len()).filter(|place| *place != self.me) {
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

    /// Leader: whether all is done, and known to everybody who is there.
    fn could_rest(&self, now: Nanos) -> bool {
        let last = self.log.last_index();
        let mut there = 1;
        for (place, progress) in self.progress.iter().enumerate() {
            if place == self.me || self.is_away(place, now) {
                continue;
            }
            there += 1;
            if progress.mode != Mode::Replicate || progress.matched != last || !progress.counts {
                return false;
            }
        }
        self.role == Role::Leader
            && !self.is_repairing()
            && self.commit == last
            && self.durable == last
            && !self.has_unsynced()
            && self.round_wanted <= self.round_confirmed
            && self.progress.iter().all(|progress| progress.asked.is_none())
            && there >= majority(self.members.len())
    }

    /// Nothing was heard of it for an election timeout: it keeps nobody awake.
    fn is_away(&self, place: usize, now: Nanos) -> bool {
        self.progress[place].last_heard() + self.config.election_timeout <= now
    }

    /// Follower: agrees, if that is how things stand here too.
    pub(super) fn on_rest(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        self.commit = self.commit.max(header.commit.min(self.matched));
        let index = header.index;
        let as_here = [self.log.last_index(), self.durable, self.matched, self.commit] == [index; 4];
        let peer = self.members[from].peer;
        let idle = !self.is_repairing() && !self.has_unsynced() && !self.ack_due;
        if as_here && idle && cx.pairs.is_current(cx.now, peer, header.aux) {
            (self.rest.is_resting, self.rest.promised) = (true, To::One(from));
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
        let mut others = (0..self.members.len()).filter(|place| *place != self.me);
        if others.all(|place| self.is_away(place, cx.now) || agrees(place)) && self.could_rest(cx.now) {
            self.rest.is_resting = true;
        }
    }

    /// The term in which we promised is over for us, or our leadership is.
    pub(super) fn break_promise(&mut self) {
        let broken = match (self.rest.broken, self.rest.promised) {
            (broken, To::Nobody) => broken,
            (To::Nobody, promised) => promised,
            (broken, promised) if broken == promised => broken,
            _ => To::All,
        };
        self.rest = Rest { broken, ..Rest::default() };
    }
}
