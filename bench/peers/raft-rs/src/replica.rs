//! One replica: raft-rs over its own storage in memory.

use raft::eraftpb::{Entry, HardState, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode};

pub const NODES: u64 = 3;

/// Entries that are kept in memory behind the last one applied.
const KEPT: u64 = 20_000;

pub fn new(id: u64) -> RawNode<MemStorage> {
    let config = Config {
        id,
        election_tick: 10,
        heartbeat_tick: 2,
        max_size_per_msg: 256 << 10,
        max_inflight_msgs: 256,
        pre_vote: true,
        check_quorum: true,
        batch_append: true,
        skip_bcast_commit: true,
        ..Config::default()
    };
    let voters: Vec<u64> = (1..=NODES).collect();
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&config, MemStorage::new_with_conf_state((voters, vec![])), &logger).expect("a sound configuration")
}

/// Takes a turn: messages go out, entries are stored by `store` and then in memory. Returns how many were committed.
pub fn turn(
    node: &mut RawNode<MemStorage>,
    mut send: impl FnMut(Message),
    store: impl FnOnce(&raft::Ready),
) -> u64 {
    if !node.has_ready() {
        return 0;
    }
    let mut ready = node.ready();
    let (mut commits, mut applied) = (0, 0);
    let mut apply = |entries: Vec<raft::eraftpb::Entry>| {
        for entry in entries {
            commits += u64::from(!entry.data.is_empty());
            applied = entry.index;
        }
    };
    ready.take_messages().into_iter().for_each(&mut send);
    apply(ready.take_committed_entries());
    store(&ready);
    {
        let mut memory = node.mut_store().wl();
        memory.append(ready.entries()).expect("entries follow each other");
        if let Some(state) = ready.hs() {
            memory.set_hardstate(state.clone());
        }
    }
    ready.take_persisted_messages().into_iter().for_each(&mut send);
    let mut light = node.advance(ready);
    if let Some(commit) = light.commit_index() {
        node.mut_store().wl().mut_hard_state().set_commit(commit);
    }
    light.take_messages().into_iter().for_each(&mut send);
    apply(light.take_committed_entries());
    node.advance_apply();
    let first = raft::Storage::first_index(node.store()).expect("in memory");
    if applied > first + 2 * KEPT {
        node.mut_store().wl().compact(applied - KEPT).expect("applied entries may go");
    }
    commits
}

/// What somebody else makes durable, and then tells the replica by [`RawNode::on_persist_ready`].
pub struct Write {
    pub number: u64,
    pub entries: Vec<Entry>,
    pub state: Option<HardState>,
    /// What leaves when it is durable.
    pub messages: Vec<Message>,
}

/// Takes a turn that waits for no disk: messages go out, entries are in memory at once and given to `write`. Returns how many were
/// committed.
pub fn turn_async(node: &mut RawNode<MemStorage>, mut send: impl FnMut(Message), mut write: impl FnMut(Write)) -> u64 {
    if !node.has_ready() {
        return 0;
    }
    let mut ready = node.ready();
    let (mut commits, mut applied) = (0, 0);
    ready.take_messages().into_iter().for_each(&mut send);
    for entry in ready.take_committed_entries() {
        commits += u64::from(!entry.data.is_empty());
        applied = entry.index;
    }
    let (entries, state) = (ready.take_entries(), ready.hs().cloned());
    {
        let mut memory = node.mut_store().wl();
        memory.append(&entries).expect("entries follow each other");
        if let Some(state) = &state {
            memory.set_hardstate(state.clone());
        }
    }
    let state = state.filter(|_| ready.must_sync() || !entries.is_empty());
    write(Write { number: ready.number(), entries, state, messages: ready.take_persisted_messages() });
    node.advance_append_async(ready);
    if applied > 0 {
        node.advance_apply_to(applied);
    }
    let first = raft::Storage::first_index(node.store()).expect("in memory");
    if applied > first + 2 * KEPT {
        node.mut_store().wl().compact(applied - KEPT).expect("applied entries may go");
    }
    commits
}
