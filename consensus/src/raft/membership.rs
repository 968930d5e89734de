//! Who is in the group, as this replica knows it, and how that changes (§6 of the paper, §4 of the thesis).
//!
//! * A configuration is an entry. It is in effect from the moment that this replica knows it to be committed, and is then
//!   recorded in the log, so that a restart and a snapshot have it. The record needs no waiting for: it repeats what
//!   is committed.
//! * One change at a time: a leader proposes none while its log has one that isn't committed, nor before it has committed an
//!   entry of its own term. So whoever has a configuration in its log knows that the one before is committed: it is at most
//!   one behind, and majorities of consecutive configurations meet ([`crate::confchange`]).
//! * Messages are taken from whoever this replica has heard of, member or not: the sender may know more than we do.
//!
//! Members have places in a table, which grows and is never put in another order: promises under way name places.

use super::places::{PLACES_MAX, Places, Voters};
use super::{Context, Member, Proposal, Raft, Refused, Role};
use crate::confchange::{ChangeError, Changer, Configuration, Step};
use crate::membership::{MEMBERS_MAX, Membership, SCHEMA_MEMBERSHIP};
use crate::progress::{Mode, Progress};
use crate::quorum::{MajorityConfig, VoteResult};
use flotilla_runtime::{NodeId, PeerId};
use flotilla_storage::{Log, NUMBER_MAX, RecordHeader, RecordKind};

/// A learner that lacks no more than so many committed entries may become a voter.
const CAUGHT_UP_WITHIN: u64 = 1024;
/// Whoever left is sent entries for so many heartbeats, so that it learns that it did, and stops campaigning.
const FAREWELLS: u8 = 10;
const _: () = assert!(MEMBERS_MAX + 2 < PLACES_MAX, "whoever is needed has a place");

/// One part of a change of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A replica there gets all entries, and has no say; a voter becomes that.
    AddLearner(PeerId),
    /// A learner that has caught up becomes a voter.
    Promote(NodeId),
    /// A replica isn't in the group any more.
    Remove(NodeId),
}

/// How a change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// At once if it touches at most one voter, else through a joint configuration that the leader leaves by itself.
    Auto,
    /// Through a joint configuration, which stands until [`Raft::leave_joint`] unless `auto_leave`.
    Joint {
        /// The leader leaves it by itself.
        auto_leave: bool,
    },
}

/// Why the group isn't changed. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeRefused {
    /// As any other entry.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Another change is under way, or this leader hasn't yet committed an entry of its own.
    #[error("another change is under way (entry {0} isn't committed): try again")]
    Pending(u64),
    /// The rules of configurations forbid it.
    #[error(transparent)]
    Rules(#[from] ChangeError),
    /// Only a learner that has what the others have can vote at once.
    #[error("node {} is no learner that has caught up", .0.0)]
    NotCaughtUp(NodeId),
    /// The group would depend on members that are dead, far away, or have to get back what they lost.
    #[error("no majority of the group as it would be is alive and whole")]
    Unhealthy,
    /// There is nothing to change.
    #[error("the group is like that already")]
    Nothing,
    /// The group can't have so many members.
    #[error("a group has at most {MEMBERS_MAX} members")]
    TooMany,
}

/// The configuration in effect, in places, and the ones before it that are still of use.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Configurations by the index from which they are in effect; the last is in effect now.
    history: Vec<(u64, Membership)>,
    /// Entries of the log that hold configurations not in effect yet: one, unless more were committed at once.
    coming: Vec<u64>,
    /// Places of those who decide.
    pub(super) voters: Voters,
    /// Places of everybody else that gets entries.
    pub(super) others: Places,
    /// Who has a vote of its own: ours.
    pub(super) votes: bool,
    /// Leader: places of those who left, each with the entry that says so and how many more heartbeats it gets at most.
    departing: Vec<(usize, u64, u8)>,
    /// Recorded with every configuration: whose log this is.
    incarnation: u64,
}

impl Members {
    pub(super) fn new(index: u64, membership: Membership, incarnation: u64) -> Self {
        Self { history: vec![(index, membership)], incarnation, ..Self::default() }
    }

    fn newest(&self) -> &(u64, Membership) {
        self.history.last().expect("there is always a configuration, if only an assumed one")
    }
}

impl Raft {
    /// The configuration in effect, and the entry that brought it; 0 for the one that the group was founded with.
    pub fn membership(&self) -> (u64, &Membership) {
        let (index, membership) = self.group_of.newest();
        (*index, membership)
    }

    /// The configuration that was in effect at `index`; if that is forgotten, the oldest that isn't. With the entry that
    /// brought it.
    pub fn membership_at(&self, index: u64) -> (u64, &Membership) {
        let history = &self.group_of.history;
        let at = history.iter().rposition(|(from, _)| *from <= index).unwrap_or(0);
        (history[at].0, &history[at].1)
    }

    /// Whether this replica has a vote.
    pub fn is_voter(&self) -> bool {
        self.group_of.votes
    }

    /// Whether this replica is to have the group's entries, as far as it knows.
    pub(super) fn is_in_group(&self) -> bool {
        self.membership().1.peers.contains_key(&u64::from(self.members[self.me].peer.node.0))
    }

    /// The entry of a change that isn't in effect yet.
    pub fn pending_change(&self) -> Option<u64> {
        self.group_of.coming.last().copied()
    }

    /// All entries of such changes: more than one only until the next turn.
    pub fn pending_changes(&self) -> &[u64] {
        &self.group_of.coming
    }

    /// Leader: how far a member's log is known to agree with ours, and whether that counts for anything: it doesn't while
    /// the member has to get back what it may have lost.
    pub fn matched(&self, node: NodeId) -> Option<(u64, bool)> {
        let place = self.place_of(node)?;
        self.progress.get(place).map(|progress| (progress.matched, progress.counts))
    }

    /// Whether the member at a place has a vote.
    pub(super) fn has_vote(&self, place: usize) -> bool {
        self.group_of.voters.has(place)
    }

    pub(super) fn place_of(&self, node: NodeId) -> Option<usize> {
        self.members.iter().position(|member| member.peer.node == node)
    }

    /// Whether those for whom `yes` holds decide.
    pub(super) fn is_quorum(&self, yes: impl Fn(usize) -> bool) -> bool {
        self.group_of.voters.is_quorum(yes)
    }

    /// The greatest value that a quorum has reached.
    pub(super) fn reached(&self, value: impl Fn(usize) -> u64) -> u64 {
        self.group_of.voters.reached(value)
    }

    /// Makes a peer known that isn't in the group yet: it may be heard.
    pub fn introduce(&mut self, peer: PeerId) {
        if self.place_of(peer.node).is_none() && self.members.len() < PLACES_MAX {
            let membership = self.membership().1.clone();
            self.give_place(peer, &membership);
        }
    }

    /// Leader: proposes another configuration.
    ///
    /// # Errors
    /// [`ChangeRefused`].
    pub fn change(
        &mut self,
        cx: &mut Context<'_>,
        changes: &[Change],
        how: Transition,
    ) -> Result<Proposal, ChangeRefused> {
        self.may_change()?;
        let now = &self.membership().1;
        let mut peers = now.peers.clone();
        let mut steps = Vec::new();
        for change in changes {
            steps.push(match change {
                Change::AddLearner(peer) => {
                    peers.insert(u64::from(peer.node.0), *peer);
                    Step::AddLearner(u64::from(peer.node.0))
                }
                Change::Promote(node) if self.has_caught_up(*node) => Step::AddVoter(u64::from(node.0)),
                Change::Promote(node) => return Err(ChangeRefused::NotCaughtUp(*node)),
                Change::Remove(node) => Step::Remove(u64::from(node.0)),
            });
        }
        let changer = Changer(&now.configuration);
        let configuration = match how {
            Transition::Auto => match changer.simple(&steps) {
                Err(ChangeError::TooManyVoters) => changer.enter_joint(true, &steps),
                settled => settled,
            },
            Transition::Joint { auto_leave } => changer.enter_joint(auto_leave, &steps),
        }?;
        if configuration == now.configuration {
            return Err(ChangeRefused::Nothing);
        }
        if !self.is_healthy(cx, &configuration) {
            return Err(ChangeRefused::Unhealthy);
        }
        self.propose_membership(cx, configuration, peers)
    }

    /// Leader: from now on only the incoming voters decide.
    ///
    /// # Errors
    /// [`ChangeRefused`].
    pub fn leave_joint(&mut self, cx: &mut Context<'_>) -> Result<Proposal, ChangeRefused> {
        self.may_change()?;
        let now = &self.membership().1;
        let (configuration, peers) = (Changer(&now.configuration).leave_joint()?, now.peers.clone());
        self.propose_membership(cx, configuration, peers)
    }

    fn may_change(&self) -> Result<(), ChangeRefused> {
        if self.role != Role::Leader {
            return Err(Refused::NotLeader(self.leader()).into());
        }
        match self.pending_change() {
            Some(index) => Err(ChangeRefused::Pending(index)),
            None if self.commit < self.term_start => Err(ChangeRefused::Pending(self.term_start)),
            None => Ok(()),
        }
    }

    /// Leader: whether a member may vote: it does already, or is a learner that lacks little, and none of what it may have lost.
    pub fn has_caught_up(&self, node: NodeId) -> bool {
        let Some(place) = self.place_of(node) else { return false };
        if self.membership().1.is_voter(node) {
            return true;
        }
        let Some(progress) = self.progress.get(place) else { return false };
        let is_near = progress.matched + CAUGHT_UP_WITHIN >= self.commit && progress.matched > 0;
        self.group_of.others.has(place) && progress.counts && progress.mode != Mode::Snapshot && is_near
    }

    /// Leader: whether a member spoke lately and what it says counts.
    pub fn is_well(&self, now: flotilla_runtime::Nanos, node: NodeId) -> bool {
        let since = now.saturating_sub(self.config.election_timeout);
        let Some(place) = self.place_of(node) else { return false };
        let lives = |progress: &Progress| {
            progress.counts && (progress.last_heard() >= since || self.rests_with(place))
        };
        place == self.me || self.progress.get(place).is_some_and(lives)
    }

    /// Whether those who would decide can: the ones that spoke lately and whose acknowledgements count.
    fn is_healthy(&self, cx: &Context<'_>, configuration: &Configuration) -> bool {
        let node = |id: u64| NodeId(u32::try_from(id).expect("the numbers are nodes'"));
        configuration.voters.vote_result(|id| Some(self.is_well(cx.now, node(id)))) == VoteResult::Won
    }

    fn propose_membership(
        &mut self,
        cx: &mut Context<'_>,
        configuration: Configuration,
        mut peers: std::collections::BTreeMap<u64, PeerId>,
    ) -> Result<Proposal, ChangeRefused> {
        peers.retain(|id, _| configuration.contains(*id));
        if peers.len() > MEMBERS_MAX {
            return Err(ChangeRefused::TooMany);
        }
        let bytes = Membership { configuration, peers }.encode();
        Ok(self.propose(cx, SCHEMA_MEMBERSHIP, bytes.len(), |writer| writer.put(&bytes))?)
    }

    /// An entry was added to the log.
    pub(super) fn note_entry(&mut self, index: u64, schema: u16) {
        if schema != SCHEMA_MEMBERSHIP {
            return;
        }
        // Its leader knew the one before it to be committed, and our log is the same up to here.
        if let Some(before) = self.group_of.coming.last() {
            self.commit = self.commit.max(*before);
        }
        self.group_of.coming.push(index);
    }

    /// Entries from `index` on were replaced.
    pub(super) fn note_cut(&mut self, index: u64) {
        self.group_of.coming.retain(|at| *at < index);
    }

    /// Finds the configurations in a log that was read back, and puts the newest recorded one into effect.
    pub(super) fn restore_members(&mut self) {
        let first = self.log.first_index().max(self.membership().0 + 1);
        for index in first..=self.log.last_index() {
            let record = &self.log.entry(index).expect("between the first and the last").record;
            let schema = RecordHeader::decode(record).map_or(0, |(header, _)| header.schema);
            self.note_entry(index, schema);
        }
        self.give_places();
    }

    /// Puts every configuration into effect that is known to be committed.
    pub(crate) fn settle_members(&mut self, cx: &mut Context<'_>) {
        while self.group_of.coming.first().is_some_and(|index| *index <= self.commit) {
            let index = self.group_of.coming.remove(0);
            let Some(entry) = self.log.entry(index) else { continue };
            let decoded = RecordHeader::decode(&entry.record).ok();
            let membership = decoded.and_then(|(_, payload)| Membership::decode(payload));
            let membership = membership.expect("a leader proposes only what it can read");
            self.take_effect(cx, index, membership);
        }
        if self.group_of.voters.is_joint()
            && self.role == Role::Leader
            && self.membership().1.configuration.auto_leave
        {
            // If it can't be proposed yet, the next turn tries again.
            let _ = self.leave_joint(cx);
        }
    }

    /// The configuration in effect, for the body of an answer: the entry that brought it, in eight bytes, before it.
    pub(super) fn membership_to_tell(&self) -> Vec<u8> {
        let (since, membership) = self.membership();
        [&since.to_le_bytes()[..], &membership.encode()].concat()
    }

    /// Takes the configuration of an answer into effect; returns whether there was one that makes sense.
    pub(super) fn learn_membership(&mut self, cx: &mut Context<'_>, body: &[u8]) -> bool {
        let Some((since, membership)) = body.split_first_chunk() else { return false };
        let (since, membership) = (u64::from_le_bytes(*since), Membership::decode(membership));
        let Some(membership) = membership.filter(|_| since <= NUMBER_MAX) else { return false };
        self.take_effect(cx, since, membership);
        true
    }

    /// A configuration that is committed at `index`, from the log, a snapshot, or somebody's answer.
    pub fn take_effect(&mut self, cx: &mut Context<'_>, index: u64, membership: Membership) {
        let (newest, assumed) = (self.membership().0, self.is_repairing());
        if index < newest || (index == newest && !(assumed && index == 0)) {
            return;
        }
        // Whoever rests on our word, or we on theirs, may not be in the group any more.
        self.rouse(cx.now, cx.pairs);
        self.break_promise();
        if index == newest {
            self.group_of.history.pop();
        }
        self.group_of.history.push((index, membership));
        self.group_of.coming.retain(|at| *at > index);
        self.record_membership(cx.wal);
        let before = self.group_of.others;
        self.give_places();
        if self.role != Role::Leader {
            return;
        }
        // What another set of voters confirmed says nothing of who these may elect.
        self.lease.begin_again();
        self.transfer = self.transfer.filter(|transfer| self.has_vote(transfer.target()));
        let (last, others) = (self.log.last_index(), self.group_of.others);
        for place in others.iter().filter(|place| !before.has(*place)) {
            self.progress[place] = Progress::new(last + 1, cx.now);
        }
        let left = before.iter().filter(|place| !others.has(*place));
        self.group_of.departing.retain(|(place, _, _)| !others.has(*place));
        self.group_of.departing.extend(left.map(|place| (place, index, FAREWELLS)));
        if self.group_of.votes {
            return self.advance_commit();
        }
        for place in others {
            self.send_heartbeat(cx, place);
        }
        self.step_down(cx);
    }

    /// Leader: who is sent entries and heartbeats.
    pub(super) fn receivers(&self) -> Places {
        let departing = self.group_of.departing.iter().map(|(place, _, _)| *place);
        self.group_of.others.iter().chain(departing).collect()
    }

    /// Leader: heartbeats went out; whoever left and has now been told so gets no more.
    pub(super) fn bid_farewell(&mut self) {
        let progress = &self.progress;
        self.group_of.departing.retain_mut(|(place, index, left)| {
            *left -= 1;
            *left > 0 && progress[*place].matched < *index
        });
    }

    /// Whether everybody in the group votes, in one set of voters, and nobody joins, leaves or is on the way out.
    pub(super) fn has_steady_members(&self) -> bool {
        let Members { coming, voters, others, votes, departing, .. } = &self.group_of;
        let all_vote = others.iter().all(|place| voters.incoming.has(place));
        *votes && all_vote && !voters.is_joint() && coming.is_empty() && departing.is_empty()
    }

    /// Leader no more: those who left are on their own.
    pub(super) fn forget_departing(&mut self) {
        self.group_of.departing.clear();
    }

    /// Everybody in the newest configuration has a place, and the roles are told by places.
    fn give_places(&mut self) {
        let membership = self.group_of.newest().1.clone();
        for peer in membership.peers.values() {
            match self.place_of(peer.node) {
                Some(place) if self.members[place].peer == *peer => {}
                Some(place) => {
                    self.members[place].peer = *peer;
                    self.note_newcomer(*peer);
                }
                None => self.give_place(*peer, &membership),
            }
        }
        let places = |ids: &MajorityConfig| -> Places {
            let place = |id: &u64| self.members.iter().position(|it| u64::from(it.peer.node.0) == *id);
            ids.ids().iter().filter_map(place).collect()
        };
        let Configuration { voters, .. } = &membership.configuration;
        let voters = Voters { incoming: places(&voters.incoming), outgoing: places(&voters.outgoing) };
        let members = 0..self.members.len();
        let has = |place: &usize| {
            let node = self.members[*place].peer.node;
            *place != self.me && membership.peers.contains_key(&u64::from(node.0))
        };
        self.group_of.others = members.filter(has).collect();
        self.group_of.votes = voters.has(self.me);
        self.group_of.voters = voters;
    }

    /// A peer gets the next place, or, if the table is full, that of somebody who isn't in the group any more.
    fn give_place(&mut self, peer: PeerId, membership: &Membership) {
        let next = self.log.last_index() + 1;
        self.note_newcomer(peer);
        if self.members.len() < PLACES_MAX {
            self.members.push(Member { peer });
            self.votes.push(None);
            if self.role == Role::Leader {
                self.progress.push(Progress::new(next, 0));
            }
            return;
        }
        let unused = |place: &usize| {
            let node = self.members[*place].peer.node;
            *place != self.me
                && self.leader != Some(*place)
                && !self.group_of.departing.iter().any(|(departing, _, _)| departing == place)
                && !membership.peers.contains_key(&u64::from(node.0))
        };
        let place = (0..self.members.len()).find(unused).expect("there are more places than members");
        self.members[place] = Member { peer };
        self.votes[place] = None;
        if let Some(progress) = self.progress.get_mut(place) {
            *progress = Progress::new(next, 0);
        }
        if let Some(repairing) = &mut self.repairing {
            repairing.forget(place);
        }
    }

    /// Says in the log who is in the group, and whose log it is.
    pub(crate) fn record_membership(&self, wal: &mut Log) {
        let (index, membership) = self.group_of.newest();
        let payload = [&self.group_of.incarnation.to_le_bytes()[..], &membership.encode()].concat();
        let length = u32::try_from(payload.len()).expect("members are few");
        let (kind, group) = (RecordKind::Membership, self.group.0);
        wal.append(&RecordHeader { group, kind, schema: 0, index: *index, term: 0, length }, &payload);
    }

    /// Configurations that no entry and no snapshot from `index` on needs are forgotten.
    pub(super) fn forget_members(&mut self, index: u64) {
        let history = &mut self.group_of.history;
        let needed = history.iter().rposition(|(from, _)| *from <= index).unwrap_or(0);
        history.drain(..needed);
    }
}
