//! How often an entry's bytes are copied, and what is allocated for it: on the leader once, from the client's bytes into
//! the block that goes to the disk; on a follower once, from the peer's frame into its block. Nothing is allocated an
//! entry: what is, is a turn's.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

use flotilla_consensus::{GroupId, Multi, MultiConfig, RaftConfig, Role, raft::Member};
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::{BlockPool, CoreId, DiskReply, Effect, Effects, NodeId, PeerId, Slice};
use flotilla_services::entry;
use flotilla_storage::{Identity, LogConfig, RECORD_HEADER_BYTES, RecordHeader, Recovery};

/// Counts allocations.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

struct Node {
    multi: Multi,
    out: Effects<()>,
    /// What went to the disk.
    blocks: Vec<Slice>,
    /// What goes to the other one.
    frames: Vec<Vec<u8>>,
}

fn peer(number: u32) -> PeerId {
    PeerId { node: NodeId(number), core: CoreId(0) }
}

impl Node {
    fn new(number: u32) -> Self {
        let identity = Identity { cluster: 1, node: number, core: 0 };
        let config = MultiConfig {
            me: NodeId(number),
            groups: vec![(GroupId(1), (1..=2).map(|node| Member { peer: peer(node) }).collect())],
            raft: RaftConfig { append_bytes_max: 4 << 20, ..RaftConfig::default() },
            log: LogConfig { frame_bytes_max: 4 << 20, ..LogConfig::new(identity) },
            channel: 1,
        };
        let recovered = Recovery::new(identity).finish().unwrap();
        let multi = Multi::open(config, BlockPool::new(), recovered, number.into(), 0);
        Self { multi, out: Effects::default(), blocks: Vec::new(), frames: Vec::new() }
    }

    /// Ends the turn; the disk does at once what it is asked.
    fn flush(&mut self, now: u64) {
        loop {
            self.multi.flush(now, &mut self.out);
            let mut done = Vec::new();
            for effect in self.out.drain() {
                match effect {
                    Effect::Send { frame, .. } => self.frames.push(frame),
                    Effect::Write { op, block, .. } => {
                        self.blocks.push(block);
                        done.push(op);
                    }
                    Effect::Sync { op, .. }
                    | Effect::CreateFile { op, .. }
                    | Effect::RemoveFile { op, .. } => done.push(op),
                    other => panic!("{other:?}"),
                }
            }
            if done.is_empty() {
                return;
            }
            for op in done {
                self.multi.disk(now, op, &Ok(DiskReply::Done), &mut self.out);
            }
        }
    }
}

/// Both exchange what they have to say until there is nothing left.
fn talk(leader: &mut Node, follower: &mut Node, now: u64) {
    loop {
        leader.flush(now);
        follower.flush(now);
        let (asked, told) = (std::mem::take(&mut leader.frames), std::mem::take(&mut follower.frames));
        if asked.is_empty() && told.is_empty() {
            return;
        }
        asked.iter().for_each(|frame| follower.multi.receive(now, NodeId(1), &frame[1..]).unwrap());
        told.iter().for_each(|frame| leader.multi.receive(now, NodeId(2), &frame[1..]).unwrap());
    }
}

fn propose(leader: &mut Node, now: u64, entries: usize, value: &[u8]) {
    let args: [&[u8]; 3] = [b"SET", b"a key of some length", value];
    for _ in 0..entries {
        let most = entry::archive_bytes_max(&args);
        leader
            .multi
            .propose(now, 0, entry::SCHEMA_COMMAND_V1, most, |writer| entry::write(writer, now, 7, &args))
            .unwrap();
    }
}

fn lies_in(inner: &[u8], outer: &[u8]) -> bool {
    let (inner, outer) = (inner.as_ptr_range(), outer.as_ptr_range());
    outer.start <= inner.start && inner.end <= outer.end
}

#[test]
fn entries_are_copied_once_and_allocate_nothing() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let (mut leader, mut follower) = (Node::new(1), Node::new(2));
    let mut now = SECOND;
    while leader.multi.raft(0).role() != Role::Leader {
        now += SECOND;
        leader.multi.tick(now, &mut leader.out);
        talk(&mut leader, &mut follower, now);
    }
    let value = [b'v'; 256];
    let mut turn = |entries: usize| -> (u64, u64) {
        leader.blocks.clear();
        follower.blocks.clear();
        let before = dhat::HeapStats::get().total_blocks;
        propose(&mut leader, now, entries, &value);
        let proposed = dhat::HeapStats::get().total_blocks;
        talk(&mut leader, &mut follower, now);
        let replicated = dhat::HeapStats::get().total_blocks;
        let commit = leader.multi.raft(0).commit();
        assert_eq!(commit, leader.multi.raft(0).log().last_index());
        for index in commit - entries as u64 + 1..=commit {
            for node in [&leader, &follower] {
                let record = &node.multi.raft(0).log().entry(index).unwrap().record;
                let (_, payload) = RecordHeader::decode(record).unwrap();
                assert!(
                    node.blocks.iter().any(|block| lies_in(record, block)),
                    "the disk got these very bytes"
                );
                let archive = entry::read(payload).unwrap();
                assert!(lies_in(&archive.args[2].0, payload), "it is read where it lies");
                assert_eq!(&*archive.args[2].0, value);
            }
            let [ours, theirs] = [&leader, &follower]
                .map(|node| node.multi.raft(0).log().entry(index).unwrap().record.to_vec());
            assert!(
                ours == theirs && ours.len() > RECORD_HEADER_BYTES,
                "the bytes that were sent are logged"
            );
        }
        for node in [&mut leader, &mut follower] {
            let upto = node.multi.raft(0).commit();
            node.multi.compact(0, upto);
        }
        (proposed - before, replicated - proposed)
    };
    for _ in 0..20 {
        turn(2000);
    }
    let (few, many) = (turn(200), turn(2000));
    println!("allocations proposing and replicating: 200 entries {few:?}, 2000 entries {many:?}");
    // What there is belongs to the turn: frames, messages, operations.
    assert!(many.0 <= few.0 + 8, "proposing: {few:?} for 200 entries, {many:?} for 2000");
    assert!(many.1 <= few.1 + 40, "replicating: {few:?} for 200 entries, {many:?} for 2000");
    assert!(many.0 + many.1 < 100, "{many:?}");
}
