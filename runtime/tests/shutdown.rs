//! A node is stopped under load, again and again in one process: nothing that was acknowledged is lost, and nothing is left
//! behind: no descriptor, no thread, no byte (no task either: a core that ends with one left panics in this build).
//!
//! A hundred times; as often as `FLOTILLA_SHUTDOWNS` says, if it is set.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

use flotilla_runtime::driver::{CoreOptions, NodeHandle, NodeOptions, run};
use flotilla_runtime::{
    BlockPool, ConnId, CoreBoot, CoreId, DiskReply, Effect, Effects, Event, FileId, Machine, Nanos, NodeId,
    Now, OpId, SplitMix64,
};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const PATIENCE: Duration = Duration::from_secs(30);
const BLOCK: u64 = 4096;
/// Blocks of a core's file. When it is full a round takes in nothing more.
const BLOCKS: u64 = 256;
const CLIENTS: usize = 6;
/// Fewer answers are waited for than there is room for on one core.
const ANSWERS_MAX: u64 = BLOCKS - 50;
/// Rounds before anything is compared: whatever is made once is there.
const FIRST_ROUNDS: u32 = 10;

/// What cores tell each other: take this number down; it is taken down, or not; I won't ask again.
enum Word {
    Take { conn: ConnId, number: u64 },
    Taken { conn: ConnId, number: u64 },
    Refused,
    Done,
}

/// Takes numbers down, each in a block of its own, on this core's disk (even ones) or on the other's. Answers a number when
/// it is durable. It drains when all that it took in is done.
struct Ledger {
    core: CoreId,
    pool: BlockPool,
    last: u64,
    writing: BTreeMap<u64, (Option<CoreId>, ConnId, u64)>,
    asked_the_other: u64,
    is_stopping: bool,
    /// It, and the other core, won't ask any more.
    is_done: bool,
    is_other_done: bool,
    is_drained: bool,
}

impl Ledger {
    fn write(&mut self, by: Option<CoreId>, conn: ConnId, number: u64, out: &mut Effects<Word>) {
        let place = self.last;
        if place == BLOCKS {
            return Self::refuse(by, out);
        }
        self.last += 1;
        let op = OpId(self.last);
        self.writing.insert(self.last, (by, conn, number));
        let block = self.pool.copy_of(&number.to_le_bytes());
        out.push(Effect::Write { op, file: FileId::segment(1), offset: place * BLOCK, block, sync: true });
    }

    /// The disk is full: whoever asked waits for its connection's end.
    fn refuse(by: Option<CoreId>, out: &mut Effects<Word>) {
        if let Some(to) = by {
            out.push(Effect::Mesh { to, message: Word::Refused });
        }
    }

    fn reply(conn: ConnId, number: u64, out: &mut Effects<Word>) {
        out.push(Effect::Reply { conn, bytes: format!("{number}\n").into_bytes() });
    }
}

impl Machine for Ledger {
    type Message = Word;

    fn step(&mut self, _: Now, event: Event<'_, Word>, out: &mut Effects<Word>) {
        match event {
            Event::Client { bytes, taken, .. } if self.is_stopping => taken.bytes = bytes.len(),
            Event::Client { conn, bytes, taken } => {
                while let Some(end) = bytes[taken.bytes..].iter().position(|byte| *byte == b'\n') {
                    let line = std::str::from_utf8(&bytes[taken.bytes..taken.bytes + end]).unwrap();
                    taken.bytes += end + 1;
                    let number: u64 = line.parse().unwrap();
                    if number.is_multiple_of(2) {
                        self.write(None, conn, number, out);
                    } else {
                        self.asked_the_other += 1;
                        out.push(Effect::Mesh {
                            to: CoreId(1 - self.core.0),
                            message: Word::Take { conn, number },
                        });
                    }
                }
            }
            Event::Disk { op, result } => {
                assert!(matches!(result, Ok(DiskReply::Done)), "{result:?}");
                match self.writing.remove(&op.0).unwrap() {
                    (None, conn, number) => Self::reply(conn, number, out),
                    (Some(to), conn, number) => {
                        out.push(Effect::Mesh { to, message: Word::Taken { conn, number } });
                    }
                }
            }
            Event::Mesh { from, message: Word::Take { conn, number } } => {
                self.write(Some(from), conn, number, out);
            }
            Event::Mesh { message: Word::Taken { conn, number }, .. } => {
                self.asked_the_other -= 1;
                Self::reply(conn, number, out);
            }
            Event::Mesh { message: Word::Refused, .. } => self.asked_the_other -= 1,
            Event::Mesh { message: Word::Done, .. } => self.is_other_done = true,
            Event::Shutdown => self.is_stopping = true,
            _ => {}
        }
    }

    fn flush(&mut self, _: Now, out: &mut Effects<Word>) {
        if self.is_stopping && !self.is_done && self.asked_the_other == 0 {
            self.is_done = true;
            out.push(Effect::Mesh { to: CoreId(1 - self.core.0), message: Word::Done });
        }
        if self.is_done && self.is_other_done && !self.is_drained && self.writing.is_empty() {
            self.is_drained = true;
            out.push(Effect::Drained);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        None
    }
}

/// Sends numbers, several at a time, until the node ends the connection, and tells of each answer. Returns what was answered.
fn load(
    mut stream: TcpStream,
    numbers: impl Iterator<Item = u64>,
    depth: usize,
    tell: &mpsc::Sender<()>,
) -> Vec<u64> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut answered, mut numbers, mut waiting) = (Vec::new(), numbers, 0);
    loop {
        let mut text = String::new();
        while waiting < depth {
            text += &format!("{}\n", numbers.next().unwrap());
            waiting += 1;
        }
        // It fails when the node has ended; what it had answered is there to be read.
        let _ = stream.write_all(text.as_bytes());
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(count) if count > 0 && line.ends_with('\n') => {
                answered.push(line.trim_end().parse().unwrap());
                // Nobody listens any more when the node is stopped.
                let _ = tell.send(());
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => panic!("the node hangs"),
            _ => return answered,
        }
        waiting -= 1;
    }
}

/// One life of a node: it begins, serves clients that never pause, and is stopped among them.
fn live(folder: &Path, round: u64, chance: &mut SplitMix64) -> usize {
    let mut options = NodeOptions::new(NodeId(1), 7, 1);
    let mut addresses = Vec::new();
    for core in 0..2 {
        let [clients, peers] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        addresses.push(clients.local_addr().unwrap());
        options.cores.push(CoreOptions { clients, peers, folder: folder.join(core.to_string()) });
    }
    let build = |boot: CoreBoot| {
        let (core, pool) = (boot.core, boot.pool);
        Ok(Ledger {
            core,
            pool,
            last: 0,
            writing: BTreeMap::new(),
            asked_the_other: 0,
            is_stopping: false,
            is_done: false,
            is_other_done: false,
            is_drained: false,
        })
    };
    let (ready, is_ready) = mpsc::channel();
    let stop = NodeHandle::new();
    let handle = stop.clone();
    let node = std::thread::spawn(move || run(options, build, handle, move || ready.send(()).unwrap()));
    is_ready.recv_timeout(PATIENCE).unwrap();
    let (tell, answers) = mpsc::channel();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let stream = TcpStream::connect(addresses[client % 2]).unwrap();
            let depth = 1 + chance.below(8) as usize;
            let first = round << 32 | (client as u64) << 24;
            let tell = tell.clone();
            std::thread::spawn(move || load(stream, first.., depth, &tell))
        })
        .collect();
    // The stop is to find the node in many states: from before the first answer to when a core's file is nearly full.
    (0..chance.below(ANSWERS_MAX)).for_each(|_| answers.recv_timeout(PATIENCE).unwrap());
    stop.stop();
    node.join().unwrap().unwrap();
    let written: Vec<u8> = (0..2).flat_map(|core| std::fs::read(segment(folder, core)).unwrap()).collect();
    let there: std::collections::BTreeSet<u64> = written
        .chunks(BLOCK as usize)
        .map(|block| u64::from_le_bytes(block[..8].try_into().unwrap()))
        .collect();
    let answered: Vec<u64> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    for number in &answered {
        assert!(there.contains(number), "round {round}: {number} was acknowledged, and isn't there");
    }
    answered.len()
}

fn segment(folder: &Path, core: u64) -> std::path::PathBuf {
    folder.join(core.to_string()).join(FileId::segment(1).to_string())
}

/// Open descriptors, threads, and bytes of the heap.
fn holdings() -> [usize; 3] {
    let count = |of: &str| std::fs::read_dir(of).unwrap().count();
    [count("/proc/self/fd"), count("/proc/self/task"), dhat::HeapStats::get().curr_bytes]
}

/// What glommio itself leaves behind of an executor in which next to nothing happens, but that another thread wakes it: a
/// descriptor and some bytes, for each.
fn left_by_glommio(executors: usize) -> [f64; 3] {
    let before = holdings();
    for _ in 0..executors {
        let (sender, waker) = mpsc::channel::<std::task::Waker>();
        let builder = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound);
        let one = builder.spawn(move || async move {
            let mut is_first = true;
            std::future::poll_fn(|cx| {
                if !std::mem::take(&mut is_first) {
                    return std::task::Poll::Ready(());
                }
                sender.send(cx.waker().clone()).unwrap();
                std::task::Poll::Pending
            })
            .await;
        });
        waker.recv().unwrap().wake();
        one.unwrap().join().unwrap();
    }
    let after = holdings();
    [0, 1, 2].map(|it| (after[it] as f64 - before[it] as f64) / executors as f64)
}

#[test]
fn a_node_stopped_under_load_loses_nothing_and_leaves_nothing() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let rounds: u64 = std::env::var("FLOTILLA_SHUTDOWNS").map_or(100, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    for core in 0..2 {
        std::fs::create_dir_all(folder.path().join(core.to_string())).unwrap();
        std::fs::write(segment(folder.path(), core), vec![0; (BLOCKS * BLOCK) as usize]).unwrap();
    }
    let mut chance = SplitMix64::new(8);
    let mut answered = 0;
    let mut round = 0;
    let mut lives = |count: u64| {
        for _ in 0..count {
            round += 1;
            answered += live(folder.path(), round, &mut chance);
        }
    };
    lives(FIRST_ROUNDS.into());
    left_by_glommio(4);
    let before = holdings();
    lives(rounds);
    let after = holdings();
    let of_glommio = left_by_glommio(20);
    assert!(answered > rounds as usize * 10, "only {answered} answers: that was no load");
    let executors = (rounds * 2) as f64;
    eprintln!(
        "{rounds} lives, {answered} answers; before {before:?}, after {after:?}; an executor of glommio's leaves {of_glommio:?}"
    );
    for (what, it) in ["descriptors", "threads", "bytes"].into_iter().zip(0..) {
        let left = (after[it] as f64 - before[it] as f64) / executors;
        assert!(
            left <= of_glommio[it] + [0.0, 0.0, 64.0][it],
            "{left} {what} are left of each core, {} by glommio",
            of_glommio[it]
        );
    }
}
