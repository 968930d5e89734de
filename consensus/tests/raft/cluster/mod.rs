//! Replicas of one group that a test moves by hand: it decides whose timer fires, which messages arrive, whose disk syncs.

#![allow(dead_code, reason = "each test file uses its part")]

use flotilla_consensus::message::decode;
use flotilla_consensus::{
    Change, ChangeRefused, GroupId, Kind, Multi, MultiConfig, RaftConfig, Refused, Role, Transition,
    raft::Member,
};
use flotilla_runtime::machine::MILLISECOND;
use flotilla_runtime::{
    BlockPool, CoreId, DiskError, DiskReply, Effect, Effects, FileId, Nanos, NodeId, OpId, PeerId,
};
use flotilla_storage::{Identity, LogConfig, RecordHeader, Recovery};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const GROUP: GroupId = GroupId(1);
/// The channel's byte and the sender's incarnation.
const FRAME_HEADER_BYTES: usize = 9;

struct Replica {
    multi: Multi,
    unsynced: Vec<Unsynced>,
    files: BTreeMap<FileId, Vec<u8>>,
}

/// A write that isn't synced yet.
struct Unsynced {
    op: OpId,
    file: FileId,
    offset: u64,
    bytes: Vec<u8>,
    since: Nanos,
}

pub(crate) struct Cluster {
    replicas: Vec<Replica>,
    founders: usize,
    /// Frames on their way: (from, to, bytes).
    pub(crate) wire: Vec<(usize, usize, Vec<u8>)>,
    /// Replicas whose frames don't arrive and don't leave.
    pub(crate) cut_off: BTreeSet<usize>,
    /// No frame with such a message arrives at that replica.
    pub(crate) withheld: Option<(usize, Kind)>,
    /// Replicas whose disks take their time.
    pub(crate) slow_disks: BTreeSet<usize>,
    /// Replicas whose disks have no room for another file.
    pub(crate) full_disks: BTreeSet<usize>,
    /// How the frames of a replica begin: the channel, and the incarnation of its log.
    pub(crate) beginnings: BTreeMap<usize, Vec<u8>>,
    /// Bytes of all frames so far.
    pub(crate) sent_bytes: usize,
    /// Syncs of each replica's disk so far.
    pub(crate) syncs: Vec<u32>,
    /// By how many millionths each replica's clock is slower than the world's.
    pub(crate) slower_ppm: Vec<u64>,
    config: RaftConfig,
    /// Messages of groups so far: all but pulses.
    pub(crate) sent_messages: usize,
    groups: u64,
    pub(crate) now: Nanos,
}

pub(crate) fn peer(node: usize) -> PeerId {
    PeerId { node: NodeId(u32::try_from(node + 1).unwrap()), core: CoreId(0) }
}

fn identity(node: usize) -> Identity {
    Identity { cluster: 1, node: u32::try_from(node + 1).unwrap(), core: 0 }
}

fn no_space() -> DiskError {
    let reason = "no space left on device".to_owned();
    DiskError { operation: "create", file: "segment".to_owned(), offset: 0, errno: 28, reason }
}

/// `founders` vote from the start; the others are known, and not in the groups.
fn open(
    node: usize,
    (founders, nodes, groups): (usize, usize, u64),
    files: &BTreeMap<FileId, Vec<u8>>,
    raft: RaftConfig,
    now: Nanos,
) -> Multi {
    let pool = BlockPool::new();
    let mut recovery = Recovery::new(identity(node));
    for (file, content) in files {
        recovery.segment(*file, pool.copy_of(content)).unwrap();
    }
    let members: Vec<Member> = (0..founders).map(|node| Member { peer: peer(node) }).collect();
    let config = MultiConfig {
        me: peer(node).node,
        groups: (0..groups).map(|number| (GroupId(GROUP.0 + number), members.clone())).collect(),
        raft,
        log: LogConfig { segment_bytes: 1 << 20, ..LogConfig::new(identity(node)) },
        channel: 0,
    };
    let mut multi = Multi::open(config, pool, recovery.finish().unwrap(), node as u64 ^ now << 8, now);
    (founders..nodes).for_each(|node| multi.introduce(0, peer(node)));
    multi
}

fn messages(frame: &[u8]) -> usize {
    let (mut at, mut count) = (FRAME_HEADER_BYTES, 0);
    while at < frame.len() {
        let (message, next) = decode(frame, at).unwrap();
        count += usize::from(message.header.kind != Kind::Pulse);
        at = next;
    }
    count
}

fn has(frame: &[u8], kind: Kind) -> bool {
    let mut at = FRAME_HEADER_BYTES;
    while at < frame.len() {
        let (message, next) = decode(frame, at).unwrap();
        if message.header.kind == kind {
            return true;
        }
        at = next;
    }
    false
}

/// Idle groups rest.
fn resting() -> RaftConfig {
    RaftConfig { rests: true, ..RaftConfig::default() }
}

impl Cluster {
    pub(crate) fn new(nodes: usize) -> Self {
        Self::with(nodes, resting())
    }

    pub(crate) fn with_groups(nodes: usize, groups: u64) -> Self {
        Self::build((nodes, nodes, groups), resting())
    }

    pub(crate) fn with(nodes: usize, config: RaftConfig) -> Self {
        Self::build((nodes, nodes, 1), config)
    }

    /// The last `spares` nodes aren't in the group.
    pub(crate) fn with_spares(founders: usize, spares: usize) -> Self {
        Self::build((founders, founders + spares, 1), resting())
    }

    /// The disks of some take their time from the start.
    pub(crate) fn with_slow_disks(nodes: usize, slow_disks: impl IntoIterator<Item = usize>) -> Self {
        let mut cluster = Self::unfounded((nodes, nodes, 1), resting());
        cluster.slow_disks = slow_disks.into_iter().collect();
        cluster.found();
        cluster
    }

    fn build((founders, nodes, groups): (usize, usize, u64), config: RaftConfig) -> Self {
        let mut cluster = Self::unfounded((founders, nodes, groups), config);
        cluster.found();
        cluster
    }

    /// They find out that the groups are new.
    fn found(&mut self) {
        (0..self.replicas.len()).for_each(|node| self.flush(node));
        self.deliver();
        self.sent_bytes = 0;
    }

    fn unfounded((founders, nodes, groups): (usize, usize, u64), config: RaftConfig) -> Self {
        let replica = |node| {
            let files = BTreeMap::new();
            let multi = open(node, (founders, nodes, groups), &files, config, 0);
            Replica { multi, unsynced: Vec::new(), files }
        };
        let replicas = (0..nodes).map(replica).collect();
        let (cut_off, slow_disks, full_disks) = Default::default();
        let (wire, withheld) = Default::default();
        let (syncs, slower_ppm) = (vec![0; nodes], vec![0; nodes]);
        Self {
            replicas,
            founders,
            wire,
            cut_off,
            withheld,
            slow_disks,
            full_disks,
            beginnings: BTreeMap::new(),
            sent_bytes: 0,
            sent_messages: 0,
            groups,
            syncs,
            slower_ppm,
            config,
            now: 1,
        }
    }

    /// What the replica's clock shows.
    fn clock(&self, node: usize) -> Nanos {
        self.now - self.now / 1_000_000 * self.slower_ppm[node]
    }

    /// The replica does something, and its turn ends.
    pub(crate) fn act<R>(&mut self, node: usize, act: impl FnOnce(&mut Multi, Nanos) -> R) -> R {
        let now = self.clock(node);
        let result = act(&mut self.replicas[node].multi, now);
        self.flush(node);
        result
    }

    pub(crate) fn raft(&self, node: usize) -> &flotilla_consensus::Raft {
        self.raft_at(node, 0)
    }

    /// The replica of the group at `place`.
    pub(crate) fn raft_at(&self, node: usize, place: usize) -> &flotilla_consensus::Raft {
        self.replicas[node].multi.raft(place)
    }

    /// The term and payload of every entry up to `last`.
    pub(crate) fn entries(&self, node: usize, last: u64) -> Vec<(u64, Vec<u8>)> {
        let entry = |index| {
            let entry = self.raft(node).log().entry(index).unwrap();
            (entry.term, RecordHeader::decode(&entry.record).unwrap().1.to_vec())
        };
        (1..=last).map(entry).collect()
    }

    pub(crate) fn propose(&mut self, node: usize, payload: &[u8]) -> u64 {
        self.try_to_propose(node, payload).unwrap()
    }

    pub(crate) fn try_to_propose(&mut self, node: usize, payload: &[u8]) -> Result<u64, Refused> {
        let index = self.propose_at(node, 0, payload);
        self.flush(node);
        index
    }

    /// In the group at `place`, without ending the turn.
    pub(crate) fn propose_at(&mut self, node: usize, place: usize, payload: &[u8]) -> Result<u64, Refused> {
        let (now, multi) = (self.now, &mut self.replicas[node].multi);
        let proposal = multi.propose(now, place, 9, payload.len(), |writer| writer.put(payload));
        proposal.map(|proposal| proposal.index)
    }

    pub(crate) fn read(&mut self, node: usize) -> flotilla_consensus::ReadTicket {
        let leads = self.raft(node).role() == Role::Leader;
        self.act(node, |multi, now| if leads { multi.read(now, 0) } else { multi.read_at_follower(now, 0) })
            .unwrap()
    }

    pub(crate) fn change(
        &mut self,
        node: usize,
        changes: &[Change],
        how: Transition,
    ) -> Result<u64, ChangeRefused> {
        let proposal = self.replicas[node].multi.change(self.now, 0, changes, how);
        self.flush(node);
        proposal.map(|proposal| proposal.index)
    }

    pub(crate) fn leave_joint(&mut self, node: usize) -> Result<u64, ChangeRefused> {
        let proposal = self.replicas[node].multi.leave_joint(self.now, 0);
        self.flush(node);
        proposal.map(|proposal| proposal.index)
    }

    /// Who votes, as a node has it; in etcd's words.
    pub(crate) fn configuration(&self, node: usize) -> String {
        self.raft(node).membership().1.configuration.to_string()
    }

    /// The node has a snapshot of everything committed, and forgets its log.
    pub(crate) fn compact(&mut self, node: usize) {
        let (index, multi) = (self.raft(node).commit(), &mut self.replicas[node].multi);
        let term = multi.raft(0).log().term(index).unwrap();
        multi.mark_snapshot(0, index, term, &1_u64.to_le_bytes());
        multi.compact(0, index);
        self.flush(node);
    }

    /// A follower gets the leader's snapshot, as their owners would carry it.
    pub(crate) fn install(&mut self, from: usize, to: usize) {
        let (index, term) = self.raft(from).log().snapshot();
        let (since, membership) = self.raft(from).membership_at(index);
        let membership = membership.clone();
        let multi = &mut self.replicas[to].multi;
        multi.take_membership(self.now, 0, since, membership);
        let lsn = multi.mark_snapshot(0, index, term, &1_u64.to_le_bytes());
        multi.install_snapshot(self.now, 0, index, term, lsn);
        self.flush(to);
    }

    /// Everything that the node's disk holds now, and a way back to it.
    pub(crate) fn disk(&self, node: usize) -> BTreeMap<FileId, Vec<u8>> {
        self.replicas[node].files.clone()
    }

    /// The node's disk is another: an empty one, or what it was before. The node starts again.
    pub(crate) fn swap_disk(&mut self, node: usize, files: BTreeMap<FileId, Vec<u8>>) {
        self.replicas[node].files = files;
        self.restart(node);
    }

    pub(crate) fn flush(&mut self, node: usize) {
        let mut out = Effects::<()>::default();
        let now = self.clock(node);
        self.replicas[node].multi.flush(now, &mut out);
        self.carry_out(node, out);
    }

    fn carry_out(&mut self, node: usize, mut out: Effects<()>) {
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        let now = self.now;
        for effect in out.drain() {
            let replica = &mut self.replicas[node];
            match effect {
                Effect::Send { to, frame } => {
                    self.sent_bytes += frame.len();
                    self.beginnings.insert(node, frame[..FRAME_HEADER_BYTES].to_vec());
                    self.sent_messages += messages(&frame);
                    self.wire.push((node, usize::try_from(to.node.0).unwrap() - 1, frame));
                }
                Effect::Write { op, file, offset, block, .. } => {
                    replica.unsynced.push(Unsynced { op, file, offset, bytes: block.to_vec(), since: now });
                }
                // Its writes come first in the queue; it has no bytes of its own.
                Effect::Sync { op, file } => {
                    replica.unsynced.push(Unsynced { op, file, offset: 0, bytes: Vec::new(), since: now });
                }
                Effect::CreateFile { op, .. } if self.full_disks.contains(&node) => failed.push(op),
                Effect::CreateFile { op, file, bytes } => {
                    replica.files.insert(file, vec![0; usize::try_from(bytes).unwrap()]);
                    done.push(op);
                }
                Effect::RemoveFile { op, file } => {
                    replica.files.remove(&file);
                    done.push(op);
                }
                other => unreachable!("{other:?}"),
            }
        }
        self.answer(node, done, &Ok(DiskReply::Done));
        self.answer(node, failed, &Err(no_space()));
        if !self.slow_disks.contains(&node) {
            self.sync(node);
        }
    }

    /// The disk of a replica does what it was asked.
    pub(crate) fn sync(&mut self, node: usize) {
        self.sync_before(node, Nanos::MAX);
    }

    /// The disk of a replica does what it was asked until then.
    pub(crate) fn sync_before(&mut self, node: usize, until: Nanos) {
        let replica = &mut self.replicas[node];
        let mut done = Vec::new();
        let asked: Vec<Unsynced> = replica.unsynced.extract_if(.., |asked| asked.since <= until).collect();
        self.syncs[node] += u32::from(!asked.is_empty());
        for Unsynced { op, file, offset, bytes, .. } in asked {
            let at = usize::try_from(offset).unwrap();
            replica.files.get_mut(&file).unwrap()[at..at + bytes.len()].copy_from_slice(&bytes);
            done.push(op);
        }
        self.answer(node, done, &Ok(DiskReply::Done));
    }

    fn answer(&mut self, node: usize, done: Vec<OpId>, result: &Result<DiskReply, DiskError>) {
        if done.is_empty() {
            return;
        }
        let mut out = Effects::<()>::default();
        let now = self.clock(node);
        for op in done {
            self.replicas[node].multi.disk(now, op, result, &mut out);
        }
        self.replicas[node].multi.flush(now, &mut out);
        self.carry_out(node, out);
    }

    /// The replica's next timer fires.
    pub(crate) fn fire(&mut self, node: usize) {
        if self.raft(node).deadline() != Nanos::MAX {
            let late = self.raft(node).deadline().saturating_sub(self.clock(node));
            self.now += late * 1_000_000 / (1_000_000 - self.slower_ppm[node]) + u64::from(late > 0);
        }
        self.tick(node);
    }

    fn tick(&mut self, node: usize) {
        let mut out = Effects::<()>::default();
        let now = self.clock(node);
        self.replicas[node].multi.tick(now, &mut out);
        self.replicas[node].multi.flush(now, &mut out);
        self.carry_out(node, out);
    }

    /// So much time passes, in which everything happens when it is due.
    pub(crate) fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(5) {
            self.pass(5);
            (0..self.replicas.len()).for_each(|node| self.tick(node));
            self.deliver();
        }
    }

    /// Whether the replica's timer is about to fire.
    pub(crate) fn is_due(&self, node: usize) -> bool {
        self.raft(node).deadline() <= self.clock(node)
    }

    /// The replica's timer fires, if it is due.
    pub(crate) fn fire_if_due(&mut self, node: usize) {
        if self.is_due(node) {
            self.fire(node);
        }
    }

    /// Every timer that is due fires.
    pub(crate) fn fire_due(&mut self) {
        for node in 0..self.replicas.len() {
            if self.replicas[node].multi.deadline().is_some_and(|due| due <= self.clock(node)) {
                self.tick(node);
            }
        }
    }

    /// Everything on the wire arrives, and what follows from it, until it is quiet.
    pub(crate) fn deliver(&mut self) {
        self.deliver_some(usize::MAX);
    }

    /// At most so many frames arrive.
    pub(crate) fn deliver_some(&mut self, mut frames: usize) {
        while !self.wire.is_empty() && frames > 0 {
            frames -= 1;
            let (from, to, frame) = self.wire.remove(0);
            self.arrive(from, to, &frame);
        }
    }

    /// What is on the wire to this replica arrives; the rest stays.
    pub(crate) fn deliver_to(&mut self, node: usize) {
        for (from, to, frame) in self.wire.extract_if(.., |(_, to, _)| *to == node).collect::<Vec<_>>() {
            self.arrive(from, to, &frame);
        }
    }

    fn arrive(&mut self, from: usize, to: usize, frame: &[u8]) {
        let withheld = self.withheld.is_some_and(|(at, kind)| at == to && has(frame, kind));
        if !withheld && !self.cut_off.contains(&from) && !self.cut_off.contains(&to) {
            let now = self.clock(to);
            self.replicas[to].multi.receive(now, peer(from).node, &frame[1..]).unwrap();
            self.flush(to);
        }
    }

    /// What is on the wire now arrives: half a round trip. Returns how many frames that were.
    pub(crate) fn hop(&mut self) -> usize {
        let arriving = std::mem::take(&mut self.wire);
        let frames = arriving.len();
        for (from, to, frame) in arriving {
            self.arrive(from, to, &frame);
        }
        frames
    }

    /// Time passes without anybody's timer firing.
    pub(crate) fn pass(&mut self, milliseconds: u64) {
        self.now += milliseconds * MILLISECOND;
    }

    /// Makes `node` the leader: the others have heard from none for long enough.
    pub(crate) fn elect(&mut self, node: usize) {
        for _ in 0..10 {
            if self.raft(node).role() == Role::Leader {
                return self.deliver();
            }
            self.pass(1000);
            self.fire(node);
            self.deliver();
        }
        panic!("{node} can't win an election");
    }

    /// Every frame of the replica's log with such a record can't be read any more. Takes effect at its next start.
    pub(crate) fn spoil(&mut self, node: usize, which: impl Fn(&RecordHeader) -> bool) {
        for image in self.replicas[node].files.values_mut() {
            let frames = flotilla_storage::inspect::inspect(image).frames;
            for frame in frames.iter().filter(|frame| frame.records.iter().any(&which)) {
                image[usize::try_from(frame.offset).unwrap() + 100] ^= 1;
            }
        }
    }

    /// The process dies, what its disk hasn't synced is lost, and it starts again.
    pub(crate) fn restart(&mut self, node: usize) {
        let nodes = self.replicas.len();
        self.wire.retain(|(from, to, _)| *from != node && *to != node);
        let now = self.clock(node);
        let replica = &mut self.replicas[node];
        replica.unsynced.clear();
        replica.multi = open(node, (self.founders, nodes, self.groups), &replica.files, self.config, now);
        self.flush(node);
        for other in (0..nodes).filter(|other| *other != node) {
            for up in [false, true] {
                let now = self.clock(other);
                self.replicas[other].multi.link_changed(now, peer(node), up);
            }
            self.flush(other);
        }
    }
}
