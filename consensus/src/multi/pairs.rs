//! Liveness between two nodes' cores, for all the groups that they share: what lets idle groups keep still.
//!
//! **Off by default** ([`crate::RaftConfig::rests`]): then nobody offers rest, there are no pairs and no pulses, and every group
//! has its heartbeats. An owner that goes by a group's heartbeats for a while, for its snapshots say, holds it awake
//! ([`crate::Multi::hold`]).
//!
//! **Resting.** A leader whose followers have everything, and know it committed, offers them rest ([`Kind::Rest`]). A
//! follower that agrees word by word answers, and from then on neither of them has a timer or a heartbeat in this group:
//! both go by the *pulse*, one small message for each pair of cores every two heartbeats, however many groups there
//! are. Whom a pulse wakes shortly before its own is due sends that too: most of the time all cores sleep. Anything that
//! happens to a resting replica (a proposal, a read, any message but a pulse, a link's loss) rouses it
//! first, and then Raft's own rules hold as if it had never rested.
//!
//! **Who may rest.** Only a group that is settled, as its leader and each follower see it for themselves (one predicate,
//! `Raft::may_rest`), because a resting leader tells nobody anything:
//! - all entries are committed and on disk on both sides, and no read round waits: nothing is left to send;
//! - no leadership is being handed over, nor is anybody there whom the preference puts before the leader, no follower's
//!   readers wait, and no leases are on (they live on real answers, [`crate::raft`]'s `lease`);
//! - everybody there is whole and has all that (a replica that is blank, repairing or behind is told things over and over);
//! - the members are steady: one set of voters, which is everybody; no change in the log that isn't in effect, nobody who
//!   learns or was just removed. A voter that comes back from anywhere campaigns or asks for repair, and its first pulse
//!   rouses the group anyway; a learner only waits, and whoever was removed has to be told;
//! - a voter that is away (unheard of for an election timeout) keeps nobody awake, as long as the others are a quorum.
//!
//! Another configuration in effect is another group: that rouses the replica, breaks its word towards the members there were
//! (whoever left must not go by it) and makes pairs with the new ones.
//!
//! **What a pulse says.** It carries its sender's *epoch* towards the receiver: "every rest that we agreed on in this
//! epoch still stands on my side: where I led, I still lead in that term; where I followed you, I still do". A replica
//! that leaves the term in which it promised that (or stops leading in it) ends the epoch: its core takes a new one, says
//! so at once, and rouses every group that rested with that peer; the peer does the same when it sees the new epoch. An
//! epoch starts from a random number, so a restart ends it too. No pulse for an election timeout, and everything that
//! rested with that peer is roused.
//!
//! **Why that is safe.** Nothing in Raft's safety rests on timers; a pulse stands in for exactly two of them.
//! - *The follower's election timer.* Roused, a follower has heard of its leader when the last pulse came: it votes and
//!   campaigns no sooner than a follower that got a heartbeat then. So what a lease takes for granted of followers holds.
//! - *The leader's check-quorum.* Roused, a leader counts a follower as alive if its pulse came within the timeout. That
//!   decides only whether it steps down. **A pulse never confirms a read and never extends a lease**: it says nothing
//!   about terms at the time it was sent. A read rouses its group, and its round asks the followers by name.
//!
//! **Why nothing is stuck.** An offer or an answer that is lost leaves the leader awake: it goes on with heartbeats and
//! offers again. A follower that rests under a leader that doesn't, hears from it all the time. A leader that rests while
//! its follower is awake (roused by a third node's vote request) is roused by that follower's own pre-vote at the latest,
//! and speaks. A leader that was deposed while it rested ends its epochs, so nobody goes on believing in it. A node that
//! is away keeps nobody awake: groups rest with a quorum, and its first message or pulse, or its link, rouses them.

use crate::message::{GroupId, Header, Kind, Outbox};
use flotilla_runtime::{CoreId, Nanos, PeerId, SplitMix64};
use std::collections::{BTreeMap, BTreeSet};

/// What this core and one peer's know of each other.
#[derive(Debug)]
struct Pair {
    /// Ours, towards it.
    epoch: u64,
    /// Its own, in its last pulse; 0 before the first.
    theirs: u64,
    /// When that came.
    heard: Nanos,
    /// The replicas here that go by its pulse.
    resting: BTreeSet<usize>,
}

/// All the peers that this core shares groups with, or did. A core's pulse to a node that is gone for good costs next to
/// nothing.
#[derive(Debug)]
pub struct Pairs {
    peers: BTreeMap<PeerId, Pair>,
    me: PeerId,
    rng: SplitMix64,
    interval: Nanos,
    timeout: Nanos,
    pulse_deadline: Nanos,
}

impl Pairs {
    pub(super) fn new(me: PeerId, (interval, timeout): (Nanos, Nanos), seed: u64, now: Nanos) -> Self {
        let rng = SplitMix64::new(seed ^ 0x7061_6972_7300_0001);
        Self { peers: BTreeMap::new(), me, rng, interval, timeout, pulse_deadline: now }
    }

    /// A group has a member there, or may come to: we are a pair. Until its first pulse nobody rests on it.
    pub(super) fn meet(&mut self, peer: PeerId) {
        if peer.node != self.me.node && !self.peers.contains_key(&peer) {
            let epoch = self.rng.next() | 1;
            self.peers.insert(peer, Pair { epoch, theirs: 0, heard: 0, resting: BTreeSet::new() });
        }
    }

    /// Our epoch towards a peer.
    pub(crate) fn epoch(&self, peer: PeerId) -> u64 {
        self.peers.get(&peer).map_or(0, |pair| pair.epoch)
    }

    /// Whether that is the peer's epoch as far as we know, and it is alive.
    pub(crate) fn is_current(&self, now: Nanos, peer: PeerId, epoch: u64) -> bool {
        let alive = |pair: &Pair| pair.theirs == epoch && now < pair.heard + self.timeout;
        epoch != 0 && self.peers.get(&peer).is_some_and(alive)
    }

    /// Whether no pulse of the peer came for an election timeout.
    pub(super) fn is_silent(&self, now: Nanos, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|pair| now >= pair.heard + self.timeout)
    }

    /// When the peer's last pulse came; 0 before the first.
    pub(crate) fn heard(&self, peer: PeerId) -> Nanos {
        self.peers.get(&peer).map_or(0, |pair| pair.heard)
    }

    /// The replica at `place` goes by the peer's pulse from now on.
    pub(super) fn rest(&mut self, peer: PeerId, place: usize) {
        if let Some(pair) = self.peers.get_mut(&peer) {
            pair.resting.insert(place);
        }
    }

    /// It doesn't any more.
    pub(super) fn unrest(&mut self, peer: PeerId, place: usize) {
        if let Some(pair) = self.peers.get_mut(&peer) {
            pair.resting.remove(&place);
        }
    }

    /// A replica here broke its word: our epoch towards the peer is over. Returns whom that rouses here.
    pub(super) fn end_epoch(&mut self, peer: PeerId, outbox: &mut Outbox) -> BTreeSet<usize> {
        let Some(pair) = self.peers.get_mut(&peer) else { return BTreeSet::new() };
        pair.epoch = pair.epoch.wrapping_add(2);
        pulse(peer, pair.epoch, self.me.core, outbox);
        std::mem::take(&mut pair.resting)
    }

    /// A peer's pulse came. Returns whom that rouses.
    pub(super) fn on_pulse(
        &mut self,
        now: Nanos,
        peer: PeerId,
        epoch: u64,
        outbox: &mut Outbox,
    ) -> BTreeSet<usize> {
        if now + self.interval / 2 >= self.pulse_deadline {
            // Its next one comes before our own timer, if it goes on.
            self.send(now + self.interval / 4, outbox);
        }
        let Some(pair) = self.peers.get_mut(&peer) else { return BTreeSet::new() };
        let is_news = pair.theirs != epoch;
        (pair.theirs, pair.heard) = (epoch, now);
        if is_news { std::mem::take(&mut pair.resting) } else { BTreeSet::new() }
    }

    fn send(&mut self, now: Nanos, outbox: &mut Outbox) {
        self.pulse_deadline = now + self.interval;
        for (peer, pair) in &self.peers {
            pulse(*peer, pair.epoch, self.me.core, outbox);
        }
    }

    /// Sends the pulses that are due. Returns whom the silence of a peer rouses.
    pub(super) fn tick(&mut self, now: Nanos, outbox: &mut Outbox) -> BTreeSet<usize> {
        if now >= self.pulse_deadline {
            self.send(now, outbox);
        }
        let silent = self.peers.values_mut().filter(|pair| now >= pair.heard + self.timeout);
        silent.flat_map(|pair| std::mem::take(&mut pair.resting)).collect()
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        let relied_on = self.peers.values().filter(|pair| !pair.resting.is_empty());
        let silences = relied_on.map(|pair| pair.heard + self.timeout);
        let pulse = (!self.peers.is_empty()).then_some(self.pulse_deadline);
        silences.chain(pulse).min()
    }
}

fn pulse(to: PeerId, epoch: u64, core: CoreId, outbox: &mut Outbox) {
    let header = Header { aux: epoch, index: u64::from(core.0), ..Header::new(Kind::Pulse, GroupId(0), 0) };
    outbox.send(to, &header);
}
