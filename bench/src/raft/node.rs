//! One node: a replica of every group over a log of its own, and the clients of the groups that it leads. Each client
//! proposes an entry, waits until it is committed and applied, and proposes the next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_consensus::{GroupId, Multi, MultiConfig, RaftConfig, Role, raft::Member};
use flotilla_runtime::{
    BlockPool, CoreId, DiskError, DiskReply, Effects, FileId, Nanos, NodeId, OpId, PeerId, Slice,
};
use flotilla_storage::{Identity, LogConfig, RECORD_HEADER_BYTES, Recovery};
use serde::{Deserialize, Serialize};

use crate::recorder::{Latencies, latencies};

/// Nodes of every cluster here.
pub(super) const NODES: usize = 3;
/// Applied entries that are kept for slow followers, of each group at least, and times those in flight.
const KEPT: (u64, u64) = (64, 4);
/// The schema of the entries: nobody reads them.
const SCHEMA: u16 = 9;

/// What to commit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(super) groups: u64,
    /// Clients of all groups together: so many entries are in flight.
    pub(super) in_flight: usize,
    /// Of an entry's payload.
    pub(super) bytes: usize,
    /// Not measured; begins with the first commit.
    pub(super) warmup: Duration,
    /// Measured.
    pub(super) time: Duration,
}

/// What was measured, where the leaders are.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// None where the clock is looked at too rarely for that.
    pub(super) latencies: Option<Latencies>,
    pub(super) commits: u64,
    /// From the end of the warm-up to the last commit counted.
    pub(super) nanos: Nanos,
    /// When the first commit was seen; moved on to the end of the warm-up.
    begun: Option<Nanos>,
    /// The warm-up is over.
    pub(super) has_begun: bool,
    /// The load has run as long as it should.
    pub(super) is_over: bool,
    /// Groups that have a leader, as the nodes see it.
    pub(super) led: u64,
}

/// Handed out of the core's thread.
pub(super) type Shared = Arc<Mutex<Measured>>;

pub(super) fn shared(has_latencies: bool) -> Shared {
    let (commits, nanos, led) = (0, 0, 0);
    let measured = Measured {
        latencies: has_latencies.then(latencies),
        commits,
        nanos,
        begun: None,
        has_begun: false,
        is_over: false,
        led,
    };
    Arc::new(Mutex::new(measured))
}

#[derive(Debug, Default)]
struct Group {
    clients: usize,
    applied: u64,
    has_leader: bool,
    /// What the clients wait for: the index, and since when.
    waiting: VecDeque<(u64, Nanos)>,
}

/// See the module.
pub(super) struct Node {
    pub(super) multi: Multi,
    plan: Plan,
    groups: Vec<Group>,
    kept: u64,
    payload: Vec<u8>,
    dirty: Vec<usize>,
    shared: Shared,
    /// As it was told last.
    is_over: bool,
    has_latencies: bool,
    /// How long the commits of this turn took.
    took: Vec<Nanos>,
}

pub(super) fn peer(node: usize) -> PeerId {
    PeerId { node: NodeId(u32::try_from(node + 1).expect("few nodes")), core: CoreId(0) }
}

impl Node {
    /// A node with nothing in its log, or what `files` say.
    pub(super) fn new(
        place: usize,
        plan: Plan,
        pool: BlockPool,
        files: Vec<(FileId, Slice)>,
        seed: u64,
        now: Nanos,
        shared: Shared,
    ) -> Result<Self, String> {
        let me = peer(place).node;
        let identity = Identity { cluster: 1, node: me.0, core: 0 };
        let mut recovery = Recovery::new(identity);
        for (file, image) in files {
            recovery.segment(file, image).map_err(|error| error.to_string())?;
        }
        let recovered = recovery.finish().map_err(|error| error.to_string())?;
        let members: Vec<Member> = (0..NODES).map(|node| Member { peer: peer(node) }).collect();
        let config = MultiConfig {
            me,
            groups: (1..=plan.groups).map(|group| (GroupId(group), members.clone())).collect(),
            raft: RaftConfig { rests: true, ..RaftConfig::default() },
            log: LogConfig::new(identity),
            channel: 0,
        };
        let groups = usize::try_from(plan.groups).map_err(|error| error.to_string())?;
        let has_latencies = shared.lock().unwrap_or_else(PoisonError::into_inner).latencies.is_some();
        // The clients are dealt out evenly.
        let clients = |place| (plan.in_flight + groups - 1 - place) / groups;
        Ok(Self {
            multi: Multi::open(config, pool, recovered, seed, now),
            groups: (0..groups).map(|place| Group { clients: clients(place), ..Group::default() }).collect(),
            kept: KEPT.0 + KEPT.1 * plan.in_flight as u64 / plan.groups,
            payload: vec![0x5a; plan.bytes],
            dirty: Vec::new(),
            has_latencies,
            shared,
            is_over: false,
            took: Vec::new(),
            plan,
        })
    }

    /// A frame from the node at `from`.
    pub(super) fn receive(&mut self, now: Nanos, from: NodeId, frame: &[u8]) -> Result<(), String> {
        self.multi.receive(now, from, &frame[1..]).map_err(|error| error.to_string())
    }

    pub(super) fn disk<M>(
        &mut self,
        now: Nanos,
        op: OpId,
        result: &Result<DiskReply, DiskError>,
        out: &mut Effects<M>,
    ) {
        self.multi.disk(now, op, result, out);
    }

    /// Ends the turn: applies, answers the clients, whose next proposals go with it.
    pub(super) fn flush<M>(&mut self, now: Nanos, out: &mut Effects<M>) {
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.extend_from_slice(self.multi.dirty());
        let (mut commits, mut led) = (0, 0);
        for place in dirty.drain(..) {
            commits += self.apply(now, place);
            if !self.is_over {
                self.propose(now, place);
            }
            if !self.groups[place].has_leader && self.multi.raft(place).leader().is_some() {
                self.groups[place].has_leader = true;
                led += 1;
            }
        }
        self.dirty = dirty;
        if commits > 0 || led > 0 {
            self.tell(now, commits, led);
        }
        self.multi.flush(now, out);
    }

    fn tell(&mut self, now: Nanos, commits: u64, led: u64) {
        let mut measured = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        measured.led += led;
        if commits == 0 {
            return;
        }
        let is_measured = measured.has_begun && !measured.is_over;
        if let Some(latencies) = measured.latencies.as_mut().filter(|_| is_measured) {
            self.took.iter().for_each(|took| latencies.saturating_record(*took));
        }
        self.took.clear();
        measured.committed(now, commits, &self.plan);
        self.is_over = measured.is_over;
    }

    fn apply(&mut self, now: Nanos, place: usize) -> u64 {
        let (raft, group) = (self.multi.raft(place), &mut self.groups[place]);
        let (commit, mut commits) = (raft.commit(), 0);
        while group.applied < commit {
            let entry = raft.log().entry(group.applied + 1).expect("committed entries are in the log");
            assert!(entry.record.len() >= RECORD_HEADER_BYTES, "a whole record");
            group.applied += 1;
            if let Some((_, since)) = group.waiting.pop_front_if(|(index, _)| *index <= group.applied) {
                commits += 1;
                if self.has_latencies {
                    self.took.push(now - since);
                }
            }
        }
        if group.applied > raft.log().snapshot().0 + 2 * self.kept {
            // As if a snapshot had been taken: segments are used again.
            let index = group.applied - self.kept;
            let term = raft.log().term(index).expect("kept until now");
            self.multi.mark_snapshot(place, index, term, &0_u64.to_le_bytes());
            self.multi.compact(place, index);
        }
        commits
    }

    fn propose(&mut self, now: Nanos, place: usize) {
        let group = &mut self.groups[place];
        if self.multi.raft(place).role() != Role::Leader {
            return;
        }
        while group.waiting.len() < group.clients {
            let payload = &self.payload;
            let proposal =
                self.multi.propose(now, place, SCHEMA, payload.len(), |writer| writer.put(payload));
            let Ok(proposal) = proposal else { return };
            group.waiting.push_back((proposal.index, now));
        }
    }
}

impl Measured {
    fn committed(&mut self, now: Nanos, commits: u64, plan: &Plan) {
        let from = *self.begun.get_or_insert_with(|| now + nanos(plan.warmup));
        if now < from || self.is_over {
            return;
        }
        if !self.has_begun {
            self.has_begun = true;
            self.begun = Some(now);
            return;
        }
        self.commits += commits;
        self.nanos = now - from;
        self.is_over = now >= from + nanos(plan.time);
    }
}

pub(super) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
