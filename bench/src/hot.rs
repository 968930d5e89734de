//! The hot paths, each with a fixed input: what Criterion times (`cargo bench -p flotilla-bench`) and what callgrind counts
//! instructions of (`bench/instructions.sh`). Names no other module of this crate, since the benches include this file.

use flotilla_consensus::raft::Member;
use flotilla_consensus::{GroupId, Multi, MultiConfig, RaftConfig, Role};
use flotilla_runtime::{
    BlockPool, CoreId, DiskReply, Effect, Effects, Nanos, NodeId, PeerId, SplitMix64, mesh,
};
use flotilla_services::entry::Args;
use flotilla_services::mapreduce::run::{Merge, RunWriter, Segment, SegmentReader};
use flotilla_services::mapreduce::words::words;
use flotilla_services::resp::{Limits, Parsed, parse};
use flotilla_storage::{Identity, Log, LogConfig, RecordHeader, RecordKind, Recovery};

/// A hot path.
pub(crate) struct HotPath {
    /// What it is called in `bench/instructions.txt`.
    pub(crate) name: &'static str,
    /// Units of work in a call: entries, bytes, commands…
    pub(crate) units: u64,
    /// Prepares the input; what it returns does the work once.
    pub(crate) prepare: fn() -> Box<dyn FnMut()>,
}

/// All of them, in the order in which they are counted.
pub(crate) const ALL: [HotPath; 7] = [
    HotPath { name: "frame_build", units: ENTRIES, prepare: frame_build },
    HotPath { name: "frame_crc", units: FRAME_BYTES as u64, prepare: frame_crc },
    HotPath { name: "raft_step", units: COMMITS as u64, prepare: raft_step },
    HotPath { name: "resp_parse", units: COMMANDS as u64, prepare: resp_parse },
    HotPath { name: "mesh_hop", units: HOPS, prepare: mesh_hop },
    HotPath { name: "merge", units: (RUNS * PAIRS) as u64, prepare: merge },
    HotPath { name: "tokenizer", units: TEXT_BYTES as u64, prepare: tokenizer },
];

const ENTRIES: u64 = 256;
const ENTRY_BYTES: usize = 64;
const FRAME_BYTES: usize = 256 * 1024;
const COMMITS: usize = 512;
const IN_FLIGHT: usize = 64;
const COMMANDS: usize = 2048;
const HOPS: u64 = 8192;
const RUNS: usize = 8;
const PAIRS: usize = 512;
const TEXT_BYTES: usize = 256 * 1024;
const NODES: usize = 3;

fn identity(node: u32) -> Identity {
    Identity { cluster: 1, node, core: 0 }
}

/// A disk that has done everything at once: what it was asked for. What is sent goes to `send`.
fn done<M>(out: &mut Effects<M>, mut send: impl FnMut(PeerId, &[u8])) -> Vec<flotilla_runtime::OpId> {
    let mut ops = Vec::new();
    for effect in out.drain() {
        match effect {
            Effect::Write { op, .. }
            | Effect::Sync { op, .. }
            | Effect::CreateFile { op, .. }
            | Effect::RemoveFile { op, .. } => ops.push(op),
            Effect::Send { to, frame } => send(to, &frame),
            _ => {}
        }
    }
    ops
}

/// A group commit of small entries into the log.
fn frame_build() -> Box<dyn FnMut()> {
    let recovered = Recovery::new(identity(1)).finish().expect("an empty log is a good one");
    let mut log = Log::open(LogConfig::new(identity(1)), BlockPool::new(), recovered.tail);
    let mut out = Effects::<()>::default();
    let (payload, mut index) = ([0x5a; ENTRY_BYTES], 0);
    Box::new(move || {
        for _ in 0..ENTRIES {
            index += 1;
            let (kind, length) = (RecordKind::Entry, ENTRY_BYTES as u32);
            log.append(&RecordHeader { group: 1, kind, schema: 9, index, term: 1, length }, &payload);
        }
        log.release(1, index);
        commit(&mut log, &mut out);
    })
}

/// Writes and syncs what the log was given, on a disk that has done everything at once.
pub(crate) fn commit(log: &mut Log, out: &mut Effects<()>) {
    loop {
        log.flush(0, out);
        let ops = done(out, |_, _| {});
        if ops.is_empty() {
            return;
        }
        for op in ops {
            log.disk(op, &Ok(DiskReply::Done), out);
        }
    }
}

/// The header of a large frame: a checksum for every 4 KiB of it.
fn frame_crc() -> Box<dyn FnMut()> {
    use flotilla_storage::frame::{FrameHeader, Touched, header_bytes};
    let rest = vec![0x5a; FRAME_BYTES];
    let header_len = header_bytes(FRAME_BYTES);
    let mut head = vec![0; header_len];
    Box::new(move || {
        let header = FrameHeader {
            epoch: 1,
            lsn: flotilla_storage::Lsn(1),
            durable: flotilla_storage::Lsn(0),
            header_len: header_len as u16,
            payload_len: FRAME_BYTES as u32,
            records: 1,
            prev_crc: 0,
            header_crc: 0,
            oldest_live: 0,
            touched: Touched::default(),
            touched_before: Touched::default(),
        };
        std::hint::black_box(header.write(&mut head, &rest));
    })
}

/// Three replicas of a group in one thread, on disks that do everything at once.
struct Trio {
    nodes: Vec<Multi>,
    out: Vec<Effects<()>>,
    now: Nanos,
}

impl Trio {
    fn new() -> Self {
        let peer = |node| PeerId { node: NodeId(node), core: CoreId(0) };
        let members: Vec<Member> = (1..=NODES as u32).map(|node| Member { peer: peer(node) }).collect();
        let now = 1_000_000_000;
        let open = |node: u32| {
            let recovered = Recovery::new(identity(node)).finish().expect("an empty log is a good one");
            let config = MultiConfig {
                me: NodeId(node),
                groups: vec![(GroupId(1), members.clone())],
                raft: RaftConfig { rests: true, ..RaftConfig::default() },
                log: LogConfig::new(identity(node)),
                channel: 0,
            };
            Multi::open(config, BlockPool::new(), recovered, u64::from(node), now)
        };
        let nodes: Vec<Multi> = (1..=NODES as u32).map(open).collect();
        Self { out: nodes.iter().map(|_| Effects::default()).collect(), nodes, now }
    }

    /// Until nobody has anything to say or to write.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for place in 0..NODES {
                self.nodes[place].flush(self.now, &mut self.out[place]);
                let mut mail = Vec::new();
                let ops = done(&mut self.out[place], |to, frame| mail.push((to, frame.to_vec())));
                quiet &= ops.is_empty() && mail.is_empty();
                for op in ops {
                    self.nodes[place].disk(self.now, op, &Ok(DiskReply::Done), &mut self.out[place]);
                }
                for (to, frame) in mail {
                    let from = NodeId(place as u32 + 1);
                    let to = &mut self.nodes[to.node.0 as usize - 1];
                    // The first byte is the channel's.
                    to.receive(self.now, from, &frame[1..]).expect("these nodes speak well");
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.raft(0).role() == Role::Leader)
    }
}

/// Entries from proposal to commit, 64 in flight, on all three replicas.
fn raft_step() -> Box<dyn FnMut()> {
    let mut trio = Trio::new();
    let leader = loop {
        trio.settle();
        if let Some(leader) = trio.leader() {
            break leader;
        }
        trio.now += 10_000_000;
        for place in 0..NODES {
            if trio.nodes[place].deadline().is_some_and(|deadline| deadline <= trio.now) {
                trio.nodes[place].tick(trio.now, &mut trio.out[place]);
            }
        }
    };
    let payload = [0x5a; ENTRY_BYTES];
    Box::new(move || {
        for _ in 0..COMMITS / IN_FLIGHT {
            let mut last = 0;
            for _ in 0..IN_FLIGHT {
                let node = &mut trio.nodes[leader];
                let proposal = node.propose(trio.now, 0, 9, payload.len(), |writer| writer.put(&payload));
                last = proposal.expect("it leads, and there is room").index;
            }
            trio.settle();
            assert!(trio.nodes[leader].raft(0).commit() >= last, "committed");
            trio.now += 1_000;
        }
        // As if a snapshot had been taken: segments are used again.
        for node in &mut trio.nodes {
            let index = node.raft(0).commit();
            let term = node.raft(0).log().term(index).expect("it was just committed");
            node.mark_snapshot(0, index, term, &0_u64.to_le_bytes());
            node.compact(0, index);
        }
        trio.settle();
    })
}

/// A client's pipeline: SET and GET in turn.
fn resp_parse() -> Box<dyn FnMut()> {
    let mut bytes = Vec::new();
    for number in 0..COMMANDS {
        let (key, value) = (format!("key:{number:012}"), "v".repeat(64));
        match number % 2 {
            0 => bytes.extend_from_slice(
                format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$64\r\n{value}\r\n", key.len()).as_bytes(),
            ),
            _ => {
                bytes.extend_from_slice(format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).as_bytes())
            }
        }
    }
    Box::new(move || {
        let (limits, mut args, mut at) = (Limits::default(), Args::default(), 0);
        while at < bytes.len() {
            let parsed = parse(&bytes[at..], &limits, &mut args).expect("these commands are whole");
            let Parsed::Command { consumed } = parsed else { unreachable!("these commands are whole") };
            at += consumed;
            std::hint::black_box(&args);
        }
    })
}

/// Messages from one core to another, sixteen at a time.
fn mesh_hop() -> Box<dyn FnMut()> {
    let mut endpoints = mesh::<u64>(2, 1024);
    let (mut to, mut from) = (endpoints.pop().expect("two cores"), endpoints.pop().expect("two cores"));
    Box::new(move || {
        for batch in 0..HOPS / 16 {
            for message in 0..16 {
                from.send(CoreId(1), batch * 16 + message).expect("there is room");
            }
            from.publish();
            let mut sum = 0_u64;
            assert_eq!(to.receive(16, |_, message| sum += message), 16);
            std::hint::black_box(sum);
        }
    })
}

/// Sorted runs with many equal keys, as of a word count.
fn merge() -> Box<dyn FnMut()> {
    let mut random = SplitMix64::new(1);
    let run = |random: &mut SplitMix64| -> (Vec<u8>, Segment) {
        let mut keys: Vec<String> = (0..PAIRS).map(|_| format!("word{:05}", random.below(2_000))).collect();
        keys.sort();
        let mut writer = RunWriter::new(Vec::new()).expect("memory");
        writer.begin(0);
        for key in &keys {
            writer.push(key.as_bytes(), &1_u64.to_le_bytes()).expect("memory");
        }
        writer.end().expect("memory");
        let (bytes, segments) = writer.finish().expect("memory");
        (bytes, segments[0])
    };
    let runs: Vec<(Vec<u8>, Segment)> = (0..RUNS).map(|_| run(&mut random)).collect();
    Box::new(move || {
        let readers = runs.iter().map(|(bytes, segment)| {
            SegmentReader::new(&bytes[..], "run", *segment).expect("it was just written")
        });
        let mut merge = Merge::new(readers.collect()).expect("it was just written");
        let mut pairs = 0;
        while let Some(least) = merge.least() {
            std::hint::black_box((least.key(), least.value()));
            pairs += 1;
            merge.advance().expect("it was just written");
        }
        assert_eq!(pairs, RUNS * PAIRS);
    })
}

/// Words of a text, some of them beyond ASCII.
fn tokenizer() -> Box<dyn FnMut()> {
    let mut random = SplitMix64::new(2);
    let mut text = String::new();
    while text.len() < TEXT_BYTES {
        for _ in 0..1 + random.below(9) {
            text.push(char::from(b'a' + random.below(26) as u8));
        }
        text.push_str(if random.below(50) == 0 { "é, " } else { " " });
    }
    Box::new(move || {
        let mut found = 0_usize;
        words(text.as_bytes(), |start, end| found += end - start);
        std::hint::black_box(found);
    })
}
