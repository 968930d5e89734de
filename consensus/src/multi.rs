//! The Raft groups of one core over one write-ahead log.
//!
//! Everything that happens between two calls of [`Multi::flush`] shares one frame of the log and one message per
//! peer, however many groups took part: the price of a turn doesn't grow with the number of groups. Neither does that of
//! time passing: `timers.rs` finds the replicas whose clock has run out, and what is idle rests on `pairs.rs`.

mod pairs;
mod restoring;
mod timers;
mod times;

pub use pairs::Pairs;

use crate::membership::Membership;
use crate::message::{GroupId, Header, Kind, Outbox, WireError, decode};
use crate::raft::{
    Change, ChangeRefused, Context, Member, Proposal, Raft, RaftConfig, ReadTicket, Refused, Role,
    TransferError, Transition,
};
use flotilla_runtime::machine::MILLISECOND;
use flotilla_runtime::{
    BlockPool, CoreId, DiskError, DiskReply, Effect, Effects, Histogram, Nanos, NodeId, OpId, PeerId,
};
use flotilla_storage::{
    Damage, Log, LogConfig, LostFrames, Lsn, PayloadWriter, Progress, RecordHeader, RecordKind, Recovered,
};
pub use restoring::has_left;
use restoring::{give_up_rest, incarnation_of, is_blank, log_damage, restore};
use std::collections::BTreeSet;
use std::rc::Rc;
use timers::Timers;
use times::Times;

/// A group that pins an old segment with at most so many bytes of entries has them written again.
const MOVED_BYTES_MAX: usize = 64 << 10;

/// How often such groups are looked for, while there are too many segments.
const PINNED_LOOK_INTERVAL: Nanos = 5 * MILLISECOND;

/// What a core's groups need to know.
#[derive(Clone, Debug)]
pub struct MultiConfig {
    /// This node.
    pub me: NodeId,
    /// The groups with a replica on this core, each with the voters that it is founded with; ascending by id. Of a group that
    /// this core has records of, the log knows better.
    pub groups: Vec<(GroupId, Vec<Member>)>,
    /// How each behaves.
    pub raft: RaftConfig,
    /// The log under them.
    pub log: LogConfig,
    /// Every peer frame starts with this byte, so that services may have channels of their own.
    pub channel: u8,
}

/// One group's replica on this core.
#[derive(Debug)]
pub struct Replica {
    /// The state machine.
    pub raft: Raft,
    dirty: bool,
    /// It is among the unsynced.
    unsynced: bool,
    /// While it rests: the peers whose pulses it goes by.
    rests_on: Vec<PeerId>,
}

/// All replicas of a core.
#[derive(Debug)]
pub struct Multi {
    replicas: Vec<Replica>,
    /// Their groups, in the same order.
    ids: Vec<GroupId>,
    wal: Log,
    outbox: Outbox,
    /// Replicas that something happened to since the last flush.
    dirty: Vec<usize>,
    /// Replicas with records that aren't durable yet.
    unsynced: Vec<usize>,
    /// Room for the next list of places: a turn allocates none.
    spare: Vec<usize>,
    timers: Timers,
    pairs: Pairs,
    /// Idle groups may rest.
    rests: bool,
    /// Peers to whom a replica's word doesn't hold any more.
    broken: BTreeSet<PeerId>,
    /// When groups that pin an old segment are looked for again.
    pinned_look: Nanos,
    /// Snapshot parts and their answers, for the owner.
    snapshot_mail: Vec<SnapshotMail>,
    times: Times,
}

/// A part of a snapshot, or the answer to one, as it came from a peer.
#[derive(Debug)]
pub struct SnapshotMail {
    /// The replica it is for.
    pub place: usize,
    /// Who sent it.
    pub from: NodeId,
    /// What it says.
    pub header: Header,
    /// The part.
    pub body: Vec<u8>,
}

impl Multi {
    /// Opens every group as recovery left it.
    pub fn open(
        config: MultiConfig,
        pool: BlockPool,
        mut recovered: Recovered,
        seed: u64,
        now: Nanos,
    ) -> Self {
        let mut wal = Log::open(config.log, pool, std::mem::take(&mut recovered.tail));
        let holes: Vec<LostFrames> = recovered.holes.iter().map(|hole| hole.frames).collect();
        let me = PeerId { node: config.me, core: CoreId(config.log.identity.core) };
        let incarnation = incarnation_of(&recovered, seed);
        let outbox = Outbox::new(&[&[config.channel][..], &incarnation.to_le_bytes()].concat());
        let shared = Rc::new(config.raft);
        let replicas = config.groups.into_iter().map(|(group, members)| {
            let mut found = recovered.take_group(group.0);
            let is_blank = is_blank(&found);
            if is_blank {
                // As far as it can know, it has lost everything.
                found.damage = Some(Damage { from: 1, seen: None, vote_lost: true, given_up: false });
            }
            let is_recorded = found.membership.is_some();
            if !is_blank {
                give_up_rest(&mut wal, group, &found);
            }
            log_damage(&mut wal, group, &found, &holes);
            let restored = restore(found, &members, incarnation);
            let mut raft = Raft::new(group, me, Rc::clone(&shared), restored, seed, now);
            members.iter().for_each(|member| raft.introduce(member.peer));
            if !is_recorded {
                raft.record_membership(&mut wal);
            }
            // Whoever isn't whole has a question for the others.
            let dirty = raft.is_repairing();
            Replica { raft, dirty, unsynced: false, rests_on: Vec::new() }
        });
        let replicas: Vec<Replica> = replicas.collect();
        for replica in &replicas {
            wal.release(replica.raft.group().0, replica.raft.log().snapshot().0);
        }
        let dirty = (0..replicas.len()).filter(|place| replicas[*place].dirty).collect();
        let mut timers = Timers::new(replicas.len());
        for (place, replica) in replicas.iter().enumerate() {
            timers.arm(place, replica.raft.deadline());
        }
        let mut pairs = Pairs::new(me, (config.raft.pulse(), config.raft.election_timeout), seed, now);
        let members = replicas.iter().flat_map(|replica| replica.raft.members());
        if config.raft.rests {
            members.for_each(|member| pairs.meet(member.peer));
        }
        let times = Times::new(wal.given());
        Self {
            ids: replicas.iter().map(|replica| replica.raft.group()).collect(),
            replicas,
            wal,
            timers,
            pairs,
            rests: config.raft.rests,
            broken: BTreeSet::new(),
            pinned_look: now,
            outbox,
            dirty,
            unsynced: Vec::new(),
            spare: Vec::new(),
            snapshot_mail: Vec::new(),
            times,
        }
    }

    /// The place of a group among the replicas, if this core has one.
    pub fn place_of(&self, group: GroupId) -> Option<usize> {
        // Mostly they are numbered without gaps: then it is where it would be.
        let guess = group.0.checked_sub(self.ids.first()?.0).and_then(|at| usize::try_from(at).ok());
        match guess {
            Some(place) if self.ids.get(place) == Some(&group) => Some(place),
            _ => self.ids.binary_search(&group).ok(),
        }
    }

    /// The replica at a place.
    pub fn raft(&self, place: usize) -> &Raft {
        &self.replicas[place].raft
    }

    /// How many replicas live here.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// The log under the groups.
    pub fn wal(&self) -> &Log {
        &self.wal
    }

    /// Something happens to the replica at `place`: if it rests, that rouses it first.
    fn with<R>(&mut self, now: Nanos, place: usize, act: impl FnOnce(&mut Raft, &mut Context<'_>) -> R) -> R {
        self.replicas[place].raft.rouse(now, &self.pairs);
        self.with_resting(now, place, act)
    }

    /// A client asks: a replica that doesn't lead will only say so, and rests on.
    fn with_leader<R>(
        &mut self,
        now: Nanos,
        place: usize,
        act: impl FnOnce(&mut Raft, &mut Context<'_>) -> R,
    ) -> R {
        match self.replicas[place].raft.role() {
            Role::Leader => self.with(now, place, act),
            _ => self.with_resting(now, place, act),
        }
    }

    fn with_resting<R>(
        &mut self,
        now: Nanos,
        place: usize,
        act: impl FnOnce(&mut Raft, &mut Context<'_>) -> R,
    ) -> R {
        let replica = &mut self.replicas[place];
        let (wal, outbox, pairs) = (&mut self.wal, &mut self.outbox, &self.pairs);
        let mut cx = Context { now, wal, outbox, pairs };
        let result = act(&mut replica.raft, &mut cx);
        // Before the owner sees what is committed: its snapshot must have the members, too.
        replica.raft.settle_members(&mut cx);
        self.note_rest(place);
        self.note_dirty(place);
        result
    }

    /// The turn's end looks at the replica at `place`.
    fn note_dirty(&mut self, place: usize) {
        if !std::mem::replace(&mut self.replicas[place].dirty, true) {
            self.dirty.push(place);
        }
    }

    /// Takes note of whom a replica rests on, and to whom its word doesn't hold any more: at once, since a pulse may come in the
    /// same turn.
    fn note_rest(&mut self, place: usize) {
        let replica = &mut self.replicas[place];
        if replica.rests_on.is_empty() && !replica.raft.has_news_of_rest() {
            return;
        }
        let newcomers = replica.raft.take_newcomers();
        if self.rests {
            newcomers.into_iter().for_each(|peer| self.pairs.meet(peer));
        }
        self.broken.extend(replica.raft.take_broken());
        let rests_on = if replica.raft.is_resting() { replica.raft.rests_on() } else { Vec::new() };
        if rests_on != replica.rests_on {
            replica.rests_on.iter().for_each(|peer| self.pairs.unrest(*peer, place));
            rests_on.iter().for_each(|peer| self.pairs.rest(*peer, place));
            replica.rests_on = rests_on;
        }
    }

    /// Takes note of what a replica waits for: the disk, and the time. What it has appended isn't given to the disk before the
    /// turn's end, so that is soon enough.
    fn note_waits(&mut self, place: usize) {
        let replica = &mut self.replicas[place];
        if replica.raft.has_unsynced() && !std::mem::replace(&mut replica.unsynced, true) {
            self.unsynced.push(place);
        }
        self.timers.arm(place, replica.raft.deadline());
    }

    /// The owner of the group at `place` goes by its heartbeats for a while, or doesn't any more: until then it doesn't rest.
    pub fn hold(&mut self, now: Nanos, place: usize, is_held: bool) {
        if self.replicas[place].raft.is_held() != is_held {
            self.replicas[place].raft.hold(is_held);
            if is_held && self.replicas[place].raft.is_resting() {
                self.with(now, place, |_, _| {});
            }
        }
    }

    /// The owner of the group at `place` has applied so far: see [`Raft::note_applied`].
    pub fn note_applied(&mut self, place: usize, index: u64) {
        self.replicas[place].raft.note_applied(index);
    }

    fn rouse(&mut self, now: Nanos, places: BTreeSet<usize>) {
        for place in places {
            self.with(now, place, |_, _| {});
        }
    }

    /// Time has passed.
    pub fn tick<M>(&mut self, now: Nanos, out: &mut Effects<M>) {
        let silenced = self.pairs.tick(now, &mut self.outbox);
        self.rouse(now, silenced);
        let due: Vec<usize> = std::iter::from_fn(|| self.timers.ring(now)).collect();
        for place in due {
            if self.replicas[place].raft.deadline() <= now {
                self.with_resting(now, place, Raft::tick);
            } else {
                self.timers.arm(place, self.replicas[place].raft.deadline());
            }
        }
        self.wal.tick(now, out);
        self.times.given(now, self.wal.given());
    }

    /// A frame of this channel from a peer, without its channel byte: the incarnation of the sender's log, then messages.
    ///
    /// # Errors
    /// [`WireError`] at the first message that makes no sense; the ones before it took effect.
    pub fn receive(&mut self, now: Nanos, from: NodeId, frame: &[u8]) -> Result<(), WireError> {
        let cut_off = WireError::CutOff { at: 0, frame: frame.len() };
        let (incarnation, frame) = frame.split_first_chunk().ok_or(cut_off)?;
        let incarnation = u64::from_le_bytes(*incarnation);
        let mut at = 0;
        while at < frame.len() {
            let (message, next) = decode(frame, at)?;
            at = next;
            if message.header.kind == Kind::Pulse {
                let core = CoreId(u16::try_from(message.header.index).unwrap_or(u16::MAX));
                self.on_pulse(now, PeerId { node: from, core }, message.header.aux);
                continue;
            }
            if let Some(place) = self.place_of(message.header.group) {
                self.with(now, place, |raft, cx| raft.receive(cx, from, incarnation, &message))?;
                let header = message.header;
                let of_this_term = header.term == self.replicas[place].raft.term();
                if matches!(header.kind, Kind::Snapshot | Kind::SnapshotReply) && of_this_term {
                    self.snapshot_mail.push(SnapshotMail {
                        place,
                        from,
                        header,
                        body: message.body.to_vec(),
                    });
                }
            }
        }
        Ok(())
    }

    fn on_pulse(&mut self, now: Nanos, peer: PeerId, epoch: u64) {
        let was_silent = self.pairs.is_silent(now, peer);
        let roused = self.pairs.on_pulse(now, peer, epoch, &mut self.outbox);
        self.rouse(now, roused);
        if was_silent {
            // Groups went to rest without it: their leaders must find out what it lacks.
            let shared = (0..self.replicas.len()).filter(|place| self.shares(*place, peer)).collect();
            self.rouse(now, shared);
        }
    }

    fn shares(&self, place: usize, peer: PeerId) -> bool {
        self.replicas[place].raft.members().iter().any(|member| member.peer == peer)
    }

    /// The link to a peer came up or broke.
    pub fn link_changed(&mut self, now: Nanos, peer: PeerId, up: bool) {
        for place in 0..self.replicas.len() {
            if self.shares(place, peer) {
                self.with(now, place, |raft, cx| raft.link_changed(cx, peer.node, up));
            }
        }
    }

    /// Appends an entry to the group at `place`; `write` serializes at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`Refused`], and then nothing was done.
    pub fn propose(
        &mut self,
        now: Nanos,
        place: usize,
        schema: u16,
        bytes_max: usize,
        write: impl FnOnce(&mut PayloadWriter<'_>),
    ) -> Result<Proposal, Refused> {
        self.with_leader(now, place, |raft, cx| raft.propose(cx, schema, bytes_max, write))
    }

    /// Makes a peer known that isn't in the group at `place` yet.
    pub fn introduce(&mut self, place: usize, peer: PeerId) {
        self.replicas[place].raft.introduce(peer);
        self.note_rest(place);
    }

    /// Proposes another configuration of the group at `place`.
    ///
    /// # Errors
    /// [`ChangeRefused`], and then nothing was done.
    pub fn change(
        &mut self,
        now: Nanos,
        place: usize,
        changes: &[Change],
        how: Transition,
    ) -> Result<Proposal, ChangeRefused> {
        self.with_leader(now, place, |raft, cx| raft.change(cx, changes, how))
    }

    /// Leaves the joint configuration of the group at `place`.
    ///
    /// # Errors
    /// [`ChangeRefused`], and then nothing was done.
    pub fn leave_joint(&mut self, now: Nanos, place: usize) -> Result<Proposal, ChangeRefused> {
        self.with_leader(now, place, Raft::leave_joint)
    }

    /// The configuration that a snapshot from the leader holds, and the entry that brought it. Call it before the snapshot is
    /// marked: a log that has the mark must have the configuration, too.
    pub fn take_membership(&mut self, now: Nanos, place: usize, index: u64, membership: Membership) {
        self.with(now, place, |raft, cx| raft.take_effect(cx, index, membership));
    }

    /// Begins a linearizable read of the group at `place`, which this node must lead.
    ///
    /// # Errors
    /// [`Refused::NotLeader`].
    pub fn read(&mut self, now: Nanos, place: usize) -> Result<ReadTicket, Refused> {
        self.with(now, place, |raft, _| raft.read(now))
    }

    /// Begins a linearizable read of the group at `place`, which another node leads: see [`Raft::read_at_follower`].
    ///
    /// # Errors
    /// [`Refused::NotLeader`].
    pub fn read_at_follower(&mut self, now: Nanos, place: usize) -> Result<ReadTicket, Refused> {
        self.with(now, place, |raft, _| raft.read_at_follower())
    }

    /// Says in which order the members of the group at `place` should lead.
    pub fn prefer(&mut self, now: Nanos, place: usize, order: Vec<NodeId>) {
        self.with(now, place, |raft, _| raft.prefer(now, order));
    }

    /// Begins to hand the leadership of the group at `place` to `node`.
    ///
    /// # Errors
    /// [`TransferError`], and then nothing was done.
    pub fn transfer_to(&mut self, now: Nanos, place: usize, node: NodeId) -> Result<(), TransferError> {
        self.with_leader(now, place, |raft, _| raft.transfer_to(now, node))
    }

    /// This node is about to stop: every group gives its leadership away and takes none over.
    pub fn retire(&mut self, now: Nanos) {
        for place in 0..self.replicas.len() {
            self.with(now, place, Raft::retire);
        }
    }

    /// A disk operation ended. Returns whether it was the log's.
    pub fn disk<M>(
        &mut self,
        now: Nanos,
        op: OpId,
        result: &Result<DiskReply, DiskError>,
        out: &mut Effects<M>,
    ) -> bool {
        match self.wal.disk(op, result, out) {
            None => return false,
            Some(Progress::Advanced(lsn)) => {
                self.times.durable(now, lsn);
                let mut unsynced = std::mem::replace(&mut self.unsynced, std::mem::take(&mut self.spare));
                for place in unsynced.drain(..) {
                    self.replicas[place].unsynced = false;
                    self.with_resting(now, place, |raft, cx| raft.persisted(cx, lsn));
                    self.note_waits(place);
                }
                self.spare = unsynced;
            }
            Some(_) => {}
        }
        true
    }

    /// The replicas that something happened to since the last flush: look for new commits, roles, read rounds.
    pub fn dirty(&self) -> &[usize] {
        &self.dirty
    }

    /// Ends the turn: messages to the peers leave, one frame of the log is cut (if the disk is free).
    pub fn flush<M>(&mut self, now: Nanos, out: &mut Effects<M>) {
        self.end_epochs(now);
        let mut dirty = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.spare));
        for place in dirty.drain(..) {
            let replica = &mut self.replicas[place];
            replica.dirty = false;
            let (wal, outbox, pairs) = (&mut self.wal, &mut self.outbox, &self.pairs);
            replica.raft.flush(&mut Context { now, wal, outbox, pairs });
            self.note_rest(place);
            self.note_waits(place);
        }
        self.spare = dirty;
        self.move_pinned(now);
        for (to, frame) in self.outbox.drain() {
            out.push(Effect::Send { to, frame });
        }
        self.wal.flush(now, out);
        self.times.given(now, self.wal.given());
    }

    /// How long group commits took, from the end of the turn that gave them to the disk to the event that they are durable.
    pub fn commit_times(&self) -> &Histogram {
        &self.times.commits
    }

    /// A group that seldom writes must not keep an old segment of the log: its few entries are appended again. One with
    /// many is for its owner to take a snapshot of, see [`Self::is_pinning`].
    fn move_pinned(&mut self, now: Nanos) {
        if now < self.pinned_look || !self.wal.is_over_full() {
            return;
        }
        self.pinned_look = now + PINNED_LOOK_INTERVAL;
        for (place, replica) in self.replicas.iter_mut().enumerate() {
            let group = replica.raft.group().0;
            if !self.wal.pinned_by(group) {
                continue;
            }
            if replica.raft.log().bytes() <= MOVED_BYTES_MAX {
                replica.raft.move_entries(&mut self.wal);
            } else if replica.raft.is_resting() && !std::mem::replace(&mut replica.dirty, true) {
                // Its owner hasn't looked at it since others have filled the log.
                self.dirty.push(place);
            }
        }
    }

    /// Replicas have left terms in which others rest on their word.
    fn end_epochs(&mut self, now: Nanos) {
        while let Some(peer) = self.broken.pop_first() {
            let roused = self.pairs.end_epoch(peer, &mut self.outbox);
            self.rouse(now, roused);
        }
    }

    /// The next instant at which [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Option<Nanos> {
        [self.timers.next(), self.pairs.deadline(), self.wal.deadline()].into_iter().flatten().min()
    }

    /// The snapshot parts and answers that came.
    pub fn take_snapshot_mail(&mut self) -> Vec<SnapshotMail> {
        std::mem::take(&mut self.snapshot_mail)
    }

    /// Sends a part of the group's snapshot.
    pub fn send_snapshot_part(&mut self, now: Nanos, place: usize, to: NodeId, header: &Header, body: &[u8]) {
        self.with(now, place, |raft, cx| raft.send_snapshot_part(cx, to, header, body));
    }

    /// Answers a part of a snapshot.
    pub fn answer_snapshot_part(&mut self, now: Nanos, place: usize, to: NodeId, index: u64, offset: u64) {
        self.with(now, place, |raft, cx| raft.answer_snapshot_part(cx, to, index, offset));
    }

    /// The group has everything that an offered snapshot covers.
    pub fn needs_no_snapshot(&mut self, now: Nanos, place: usize) {
        self.with(now, place, |raft, _| raft.needs_no_snapshot());
    }

    /// Logs that a durable snapshot covers the group up to (`index`, `term`); `payload` says where it is. Returns the
    /// frame that the record is in.
    pub fn mark_snapshot(&mut self, place: usize, index: u64, term: u64, payload: &[u8]) -> Lsn {
        let group = self.replicas[place].raft.group().0;
        let length = u32::try_from(payload.len()).expect("a mark is small");
        let kind = RecordKind::SnapshotMark;
        self.wal.append(&RecordHeader { group, kind, schema: 0, index, term, length }, payload);
        self.wal.open_lsn()
    }

    /// A snapshot from the leader is durable and marked in the frame `lsn`: the group's log goes on behind it.
    pub fn install_snapshot(&mut self, now: Nanos, place: usize, index: u64, term: u64, lsn: Lsn) {
        self.with(now, place, |raft, _| raft.install(index, term, lsn));
        self.wal.release(self.replicas[place].raft.group().0, index);
    }

    /// Whether the log can't give back space because of this group's entries.
    pub fn is_pinning(&self, place: usize) -> bool {
        self.wal.pinned_by(self.replicas[place].raft.group().0)
    }

    /// Entries of the group at `place` up to `index` are covered by a durable snapshot, which is marked.
    pub fn compact(&mut self, place: usize, index: u64) {
        let raft = &mut self.replicas[place].raft;
        raft.compact(index);
        self.wal.release(raft.group().0, index);
    }
}
