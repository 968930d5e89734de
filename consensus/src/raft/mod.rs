//! One Raft group, sans-IO.
//!
//! ```text
//!             election timeout             majority of pre-votes         majority of votes
//!  Follower ────────────────────▶ PreCandidate ───────────▶ Candidate ───────────────────▶ Leader
//!     ▲                               │                        │                             │
//!     └───────────────────────────────┴──── a leader, or a higher term, or (leader) no quorum ┘
//! ```
//!
//! The owner ([`crate::Multi`]) calls [`Raft::receive`] and [`Raft::tick`], appends through
//! [`Raft::propose`], reports durability with [`Raft::persisted`], and once a turn calls [`Raft::flush`],
//! which is where appends, acknowledgements and read rounds leave.
//!
//! Sources: Ongaro & Ousterhout 2014 (§ numbers below), Ongaro's thesis 2014 (pre-vote §9.6, check-quorum
//! §6.2, ReadIndex §6.4), and etcd's field experience for the details.

mod config;
mod election;
mod lease;
mod membership;
mod places;
mod read;
mod repair;
mod replication;
mod rest;
mod snapshot;
mod thrift;
mod transfer;

use crate::log::RaftLog;
use crate::membership::{Membership, SCHEMA_MEMBERSHIP};
use crate::message::{GroupId, Header, Kind, Message, Outbox, WireError};
use crate::multi::Pairs;
use crate::progress::Progress;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{Nanos, NodeId, PeerId, SplitMix64};
use flotilla_storage::{Damage, HardState, Log, Lsn, PayloadWriter, RecordHeader, RecordKind};
use lease::Lease;
use membership::Members;
use read::{Question, Questions};
use repair::{Founding, Repairing};
use rest::Rest;
use std::collections::VecDeque;
use std::rc::Rc;
use thrift::Thrift;
use transfer::{Preference, Transfer};

pub use config::RaftConfig;
pub use lease::LeaseConfig;
pub use membership::{Change, ChangeRefused, Transition};
pub use read::{ReadState, ReadTicket};
pub use repair::Asked;
pub use transfer::{PREFERRED_FOR, TransferError};

/// What a replica is in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows the leader it hears, or waits for one.
    Follower,
    /// Asks whether an election could be won, without disturbing anybody (§9.6 of the thesis).
    PreCandidate,
    /// Asks for votes in a term of its own.
    Candidate,
    /// Was elected.
    Leader,
}

/// Why a proposal or a read wasn't taken. The client may retry: nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// This replica doesn't lead; who does, as far as it knows.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// Too much is under way.
    #[error("too many entries are waiting for disk or quorum")]
    Busy,
    /// It would never fit.
    #[error("the entry is too large")]
    TooLarge,
    /// The leadership is being handed over: ask its next owner, or this one if nothing comes of it.
    #[error("the leadership is being handed over")]
    Transferring,
    /// The log can't grow: [`Log::no_room_for`] says why.
    #[error("no room on the disk for another segment of the log")]
    NoRoom,
}

/// Where a proposal went. It succeeded when the entry applied at `index` has this `term`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its place in the group's log.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
}

/// A replica of the group, and the core of its node where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Node and core.
    pub peer: PeerId,
}

/// What a method may touch besides the group itself.
pub struct Context<'a> {
    /// The instant of the event.
    pub now: Nanos,
    /// The core's log: what is appended here is in its open frame.
    pub wal: &'a mut Log,
    /// The core's outgoing messages.
    pub outbox: &'a mut Outbox,
    /// What the core's peers vouch for.
    pub pairs: &'a Pairs,
}

/// One replica of one group. In the order of use: with a thousand groups, the price of a turn is the cache lines that each touches;
/// what every message needs comes first, and what is seldom there lies elsewhere.
#[derive(Debug)]
#[repr(C)]
pub struct Raft {
    group: GroupId,
    term: u64,
    commit: u64,
    /// Our log is on our disk up to here.
    durable: u64,
    /// The newest term that our disk knows.
    recorded_term: u64,
    leader: Option<usize>,
    /// This replica's place in `members`.
    me: usize,
    /// Follower: our log agrees with the current leader's up to here.
    matched: u64,
    /// Follower: the last index acknowledged to the current leader.
    acknowledged: u64,
    log: RaftLog,
    /// Appended, not yet durable: (frame, last index in it), oldest first.
    pending: VecDeque<(Lsn, u64)>,
    /// Promises that must not leave before the frame holding them is durable.
    deferred: VecDeque<(Lsn, Deferred)>,
    /// Everybody heard of: whoever is in the group, was, or may come to be. A place here is a replica's number.
    members: Vec<Member>,
    progress: Vec<Progress>,
    /// Part of our log is lost: we aren't a voter.
    repairing: Option<Box<Repairing>>,
    role: Role,
    /// Follower: an append waits for its answer.
    ack_due: bool,
    /// Leader: the disks of so many followers are full that nothing more would be committed.
    is_hemmed_in: bool,
    /// About to stop: we lead no more.
    is_retiring: bool,
    /// Terms since we last knew a leader.
    leaderless_terms: u32,
    election_deadline: Nanos,
    heartbeat_deadline: Nanos,
    leader_heard: Option<Nanos>,
    rng: SplitMix64,
    config: Rc<RaftConfig>,
    /// Who of the members decides, and who gets entries.
    group_of: Members,
    /// Whether the group is idle, and keeps still.
    rest: Rest,
    /// Leader: bytes of the entries behind `commit`.
    uncommitted_bytes: usize,
    /// Leader: the newest read round sent, the newest confirmed, and the newest that a reader waits for.
    round_sent: u64,
    round_confirmed: u64,
    round_wanted: u64,
    /// Leader: followers' questions for their readers.
    asked: Vec<Question>,
    transfer: Option<Transfer>,
    thrift: Thrift,
    /// How far the owner has applied, if it says.
    applied: u64,
    /// Follower: our own questions.
    questions: Questions,
    preference: Preference,

    vote: Option<NodeId>,
    votes: Vec<Option<bool>>,
    /// Leader: the index of the empty entry that began its term.
    term_start: u64,
    lease: Lease,
    /// The group is new, and not all founders are ready: nobody campaigns yet.
    founding: Option<Box<Founding>>,
    /// How often it has asked for votes.
    campaigns: u64,
}

#[derive(Clone, Copy, Debug)]
enum Deferred {
    /// Our vote for ourselves in this term.
    OwnVote { term: u64 },
    /// This term.
    Term(u64),
    /// A granted vote.
    Reply { to: PeerId, header: Header },
    /// The record that this replica has again what it had lost.
    Repaired,
}

/// What recovery found of a group, and who its members are.
#[derive(Debug)]
pub struct Restored {
    /// Term, vote and a commit index that was true once.
    pub hard_state: HardState,
    /// The entries after the snapshot, all durable.
    pub log: RaftLog,
    /// What was lost.
    pub damage: Option<Damage>,
    /// The newest configuration recorded, or assumed, and the entry that brought it.
    pub membership: (u64, Membership),
    /// Drawn when the core's log was created: a node whose disk was wiped is told apart from its former self.
    pub incarnation: u64,
}

impl Raft {
    /// A replica as its disk left it; a follower, whatever it was.
    ///
    /// # Panics
    /// If the log is ahead of its term.
    pub fn new(
        group: GroupId,
        me: PeerId,
        config: Rc<RaftConfig>,
        restored: Restored,
        seed: u64,
        now: Nanos,
    ) -> Self {
        let Restored { hard_state, log, damage, membership, incarnation } = restored;
        let mut rng = SplitMix64::new(seed ^ group.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let repairing = damage.map(|damage| Box::new(Repairing::new(&damage, rng.next())));
        assert!(log.last_term() <= hard_state.term, "a log never runs ahead of its term");
        let commit = hard_state.commit.clamp(log.snapshot().0, log.last_index());
        let mut raft = Self {
            group,
            config,
            me: 0,
            group_of: Members::new(membership.0, membership.1, incarnation),
            term: hard_state.term,
            recorded_term: hard_state.term,
            vote: hard_state.vote.filter(|_| !planted(Bug::VoteForgotten)),
            role: Role::Follower,
            leader: None,
            commit,
            durable: log.last_index(),
            pending: VecDeque::new(),
            deferred: VecDeque::new(),
            matched: 0,
            acknowledged: 0,
            ack_due: false,
            votes: vec![None],
            progress: Vec::new(),
            term_start: 0,
            round_sent: 0,
            round_confirmed: 0,
            round_wanted: 0,
            uncommitted_bytes: 0,
            lease: Lease::default(),
            thrift: Thrift::default(),
            is_hemmed_in: false,
            asked: Vec::new(),
            transfer: None,
            questions: Questions::new(rng.next()),
            preference: Preference::default(),
            is_retiring: false,
            applied: u64::MAX,
            election_deadline: 0,
            heartbeat_deadline: 0,
            // In a former life, perhaps.
            leader_heard: Some(now),
            leaderless_terms: 0,
            rng,
            repairing,
            founding: None,
            rest: Rest::default(),
            campaigns: 0,
            log,
            members: vec![Member { peer: me }],
        };
        raft.restore_members();
        raft.reset_election_deadline(now);
        raft
    }

    /// The group's number.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whom this replica voted for in the current term.
    pub fn vote(&self) -> Option<NodeId> {
        self.vote
    }

    /// What it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The leader of the current term, if known.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader.map(|place| self.members[place].peer.node)
    }

    /// Every entry up to here is committed; those from the snapshot on are in [`Self::log`].
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// Our own log is durable up to here.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// How often it has asked for votes since it was opened; questions beforehand, whether it would win, aren't counted.
    pub fn campaigns(&self) -> u64 {
        self.campaigns
    }

    /// The entries.
    pub fn log(&self) -> &RaftLog {
        &self.log
    }

    /// Everybody that this replica may hear or speak to, itself included.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The next instant at which [`Self::tick`] has something to do; never, while it rests.
    pub fn deadline(&self) -> Nanos {
        if self.is_resting() {
            return Nanos::MAX;
        }
        if self.role == Role::Leader { self.heartbeat_deadline } else { self.election_deadline }
    }

    /// Time has passed.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        if self.is_resting() {
            return;
        }
        self.settle_members(cx);
        if self.role == Role::Leader {
            if cx.now >= self.heartbeat_deadline {
                self.lead_on(cx);
            }
        } else if cx.now >= self.election_deadline {
            if self.is_repairing() {
                if !self.is_in_group() {
                    self.leader = None;
                }
                self.ask_for_repair(cx);
            } else if self.founding.is_some() {
                self.ask_founders(cx);
            } else if self.is_voter() {
                self.ask_for_pre_votes(cx);
            } else {
                // Nothing to campaign for; and whom it followed may lead no more.
                self.leader = None;
                self.reset_election_deadline(cx.now);
            }
        }
    }

    /// A message from a member of the group, or somebody who was or will be one. `incarnation` is the sender's.
    ///
    /// # Errors
    /// [`WireError`] if the message makes no sense; nothing was changed by the part that doesn't.
    pub fn receive(
        &mut self,
        cx: &mut Context<'_>,
        from: NodeId,
        incarnation: u64,
        message: &Message<'_>,
    ) -> Result<(), WireError> {
        let Some(from) = self.place_of(from) else { return Ok(()) };
        let header = &message.header;
        if self.is_of_a_former_self(from, incarnation, header.kind) {
            return Ok(());
        }
        match header.kind {
            Kind::PreVote => self.on_pre_vote(cx, from, header),
            Kind::PreVoteReply => self.on_pre_vote_reply(cx, from, message),
            Kind::Vote => self.on_vote(cx, from, header),
            Kind::Repair => self.on_repair(cx, from, incarnation, header),
            Kind::RepairReply if header.term <= self.term => self.on_repair_reply(cx, from, message),
            Kind::AppendReply if planted(Bug::StaleReplyCounts) && header.term < self.term => {
                self.on_append_reply(cx, from, header);
            }
            _ if header.term < self.term => self.answer_the_past(cx, from, header),
            kind => {
                if header.term > self.term {
                    self.enter_term(cx, header.term);
                }
                match kind {
                    Kind::VoteReply => self.on_vote_reply(cx, from, header),
                    Kind::Append => {
                        self.follow(cx, from);
                        return self.on_append(cx, from, message);
                    }
                    Kind::AppendReply => self.on_append_reply(cx, from, header),
                    Kind::Heartbeat => {
                        self.follow(cx, from);
                        self.on_heartbeat(cx, from, header);
                    }
                    Kind::HeartbeatReply => self.on_heartbeat_reply(cx, from, header),
                    Kind::Rest => {
                        self.follow(cx, from);
                        self.on_rest(cx, from, header);
                    }
                    Kind::RestReply => self.on_rest_reply(cx, from, header),
                    Kind::Pulse => {}
                    Kind::Snapshot => self.follow(cx, from),
                    Kind::SnapshotReply => self.on_snapshot_reply(cx, from),
                    Kind::RepairReply => self.on_repair_reply(cx, from, message),
                    Kind::RepairAck => self.on_repair_ack(cx, from, header),
                    Kind::TimeoutNow => self.on_timeout_now(cx, from),
                    Kind::ReadIndex => self.on_read_index(cx, from, header),
                    Kind::ReadIndexReply => self.on_read_index_reply(from, header),
                    Kind::PreVote | Kind::PreVoteReply | Kind::Vote | Kind::Repair => {
                        unreachable!("handled above")
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends an entry of the leader's. `write` serializes at most `bytes_max` bytes of payload.
    ///
    /// # Errors
    /// [`Refused`], and then nothing was done.
    pub fn propose(
        &mut self,
        cx: &mut Context<'_>,
        schema: u16,
        bytes_max: usize,
        write: impl FnOnce(&mut PayloadWriter<'_>),
    ) -> Result<Proposal, Refused> {
        if self.role != Role::Leader {
            return Err(Refused::NotLeader(self.leader()));
        }
        if self.transfer.is_some() {
            return Err(Refused::Transferring);
        }
        // Another member may be the way out.
        let is_hemmed_in = self.is_hemmed_in && schema != SCHEMA_MEMBERSHIP;
        if cx.wal.no_room_for(bytes_max).is_some() || is_hemmed_in {
            return Err(Refused::NoRoom);
        }
        if bytes_max > self.config.entry_bytes_max {
            return Err(Refused::TooLarge);
        }
        let uncommitted = self.log.last_index() - self.commit;
        let bytes = self.uncommitted_bytes;
        let is_heavy = bytes > 0 && bytes + bytes_max > self.config.uncommitted_bytes_max;
        if uncommitted >= self.config.uncommitted_max || is_heavy || cx.wal.is_full() {
            return Err(Refused::Busy);
        }
        Ok(self.append_own(cx, schema, bytes_max, write))
    }

    fn append_own(
        &mut self,
        cx: &mut Context<'_>,
        schema: u16,
        bytes_max: usize,
        write: impl FnOnce(&mut PayloadWriter<'_>),
    ) -> Proposal {
        let index = self.log.last_index() + 1;
        let header = RecordHeader {
            group: self.group.0,
            kind: RecordKind::Entry,
            schema,
            index,
            term: self.term,
            length: 0,
        };
        let record = cx.wal.append_with(header, bytes_max, write);
        self.uncommitted_bytes += record.len();
        self.log.push(self.term, record);
        self.note_entry(index, schema);
        self.appended(cx.wal.open_lsn(), index);
        Proposal { index, term: self.term }
    }

    fn appended(&mut self, lsn: Lsn, index: u64) {
        match self.pending.back_mut() {
            Some((last, end)) if *last == lsn => *end = index,
            _ => self.pending.push_back((lsn, index)),
        }
    }

    /// Everything appended in frames up to `lsn` is durable.
    pub fn persisted(&mut self, cx: &mut Context<'_>, lsn: Lsn) {
        while let Some((_, index)) = self.pending.pop_front_if(|(at, _)| *at <= lsn) {
            self.durable = self.durable.max(index);
        }
        assert!(self.durable <= self.log.last_index(), "what was cut off isn't reported durable");
        while let Some((_, promise)) = self.deferred.pop_front_if(|(at, _)| *at <= lsn) {
            match promise {
                Deferred::OwnVote { term } => {
                    self.recorded_term = term;
                    self.count_own_vote(cx, term);
                }
                Deferred::Term(term) => self.recorded_term = term,
                Deferred::Reply { to, header } if header.term == self.term => {
                    cx.outbox.send(to, &header);
                }
                Deferred::Reply { .. } => {}
                Deferred::Repaired => self.repaired(cx),
            }
        }
        if self.role == Role::Leader {
            self.advance_commit();
        }
    }

    /// Whether [`Self::persisted`] has something to do once the log has advanced.
    pub fn has_unsynced(&self) -> bool {
        !self.pending.is_empty() || !self.deferred.is_empty()
    }

    /// Sends what this turn gathered: appends and read rounds (leader), acknowledgements (follower).
    pub fn flush(&mut self, cx: &mut Context<'_>) {
        self.settle_members(cx);
        if self.role == Role::Leader {
            self.send_appends(cx);
            self.start_read_round(cx);
            self.answer_read_indexes(cx);
            self.answer_repairs(cx);
            self.drive_transfer(cx);
        } else {
            self.acknowledge(cx);
            self.ask_for_read_index(cx);
            self.finish_repair(cx);
        }
    }

    /// The link to a member stands again, or broke: what was in flight may be lost.
    pub fn link_changed(&mut self, cx: &mut Context<'_>, node: NodeId, up: bool) {
        let Some(place) = self.place_of(node) else { return };
        if self.role == Role::Leader && self.group_of.others.has(place) {
            let progress = &mut self.progress[place];
            progress.probe_from(progress.matched + 1);
            progress.is_reachable = up;
            if up {
                self.send_heartbeat(cx, place);
            } else {
                self.give_transfer_up_to(cx.now, place);
            }
        } else if up && self.is_repairing() {
            self.ask_for_repair(cx);
        } else if up && self.founding.is_some() {
            self.ask_founders(cx);
        }
    }

    fn send(&self, cx: &mut Context<'_>, to: usize, header: &Header) {
        cx.outbox.send(self.members[to].peer, header);
    }

    fn header(&self, kind: Kind) -> Header {
        Header::new(kind, self.group, self.term)
    }

    /// Appends term and vote to the log; a promise that rests on them waits for [`Log::open_lsn`].
    fn record_hard_state(&self, cx: &mut Context<'_>) {
        let state = HardState { term: self.term, vote: self.vote, commit: self.commit };
        let (header, payload) = state.record(self.group.0);
        cx.wal.append(&header, &payload);
    }
}
