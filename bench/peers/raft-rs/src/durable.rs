//! Durable: a thread for each replica, with a raft-engine log of its own; messages go through channels. Its disk is either waited for
//! in turn, or is another thread's, which writes all that has gathered as one batch while the replica goes on.

use crate::replica::{self, Write, NODES};
use crate::{Measured, Plan};
use raft::eraftpb::{Entry, HardState, Message};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(50);
const REGION: u64 = 1;
const KEPT: u64 = 10_000;

#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// What comes to a replica.
enum News {
    Message(Message),
    /// Everything up to the ready of this number is durable.
    Durable(u64),
}

type Senders = Vec<Sender<News>>;

pub fn run(plan: Plan, folder: &str, in_turn: bool) {
    let over = Arc::new(AtomicBool::new(false));
    let (senders, inboxes): (Senders, Vec<Receiver<News>>) = (0..NODES).map(|_| channel()).unzip();
    let threads: Vec<_> = inboxes
        .into_iter()
        .enumerate()
        .map(|(place, inbox)| {
            let (senders, over) = (senders.clone(), Arc::clone(&over));
            let folder = format!("{folder}/{place}");
            std::thread::spawn(move || node(place, plan, Disk::open(&folder), in_turn, &inbox, senders, &over))
        })
        .collect();
    for thread in threads {
        thread.join().expect("a replica runs to the end");
    }
}

/// Sends a message to whom it is for.
fn send(senders: &[Sender<News>], message: Message) {
    // Nobody hears those who have ended.
    let _ = senders[message.to as usize - 1].send(News::Message(message));
}

fn node(
    place: usize,
    plan: Plan,
    mut disk: Disk,
    in_turn: bool,
    inbox: &Receiver<News>,
    senders: Senders,
    over: &AtomicBool,
) {
    let mut node = replica::new(place as u64 + 1);
    if place == 0 {
        node.campaign().expect("nobody leads");
    }
    let mut writer = None;
    let mut own = None;
    match in_turn {
        true => own = Some(disk),
        false => {
            let (writes, waiting) = channel::<Write>();
            let senders = senders.clone();
            std::thread::spawn(move || {
                while let Ok(first) = waiting.recv() {
                    let all: Vec<Write> = std::iter::once(first).chain(waiting.try_iter()).collect();
                    let number = all.last().map_or(0, |last| last.number);
                    disk.store(all.iter().map(|write| (&write.entries[..], write.state.as_ref())));
                    let _ = senders[place].send(News::Durable(number));
                    all.into_iter().flat_map(|write| write.messages).for_each(|message| send(&senders, message));
                }
            });
            writer = Some(writes);
        }
    }
    let data = vec![0x5a; plan.bytes];
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let mut measured = Measured::begin(plan);
    let mut next_tick = Instant::now() + TICK;
    while !over.load(Ordering::Relaxed) {
        let leads = node.raft.state == raft::StateRole::Leader;
        while leads && waiting.len() < plan.in_flight {
            node.propose(vec![], data.clone()).expect("it leads");
            waiting.push_back(Instant::now());
        }
        if !node.has_ready() {
            match inbox.recv_timeout(next_tick.saturating_duration_since(Instant::now())) {
                Ok(news) => hear(&mut node, news),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        inbox.try_iter().for_each(|news| hear(&mut node, news));
        let now = Instant::now();
        if now >= next_tick {
            next_tick = now + TICK;
            node.tick();
        }
        let send = |message: Message| send(&senders, message);
        let commits = match (&mut own, &writer) {
            (Some(disk), _) => replica::turn(&mut node, send, |ready| {
                if !ready.entries().is_empty() || ready.must_sync() {
                    disk.store(std::iter::once((&ready.entries()[..], ready.hs())));
                }
            }),
            (None, Some(writer)) => replica::turn_async(&mut node, send, |write| drop(writer.send(write))),
            (None, None) => unreachable!("the disk is somebody's"),
        };
        if leads && commits > 0 && !waiting.is_empty() {
            let now = Instant::now();
            for at in waiting.drain(..commits as usize) {
                measured.latency(now - at);
            }
            if measured.committed(now, commits) {
                over.store(true, Ordering::Relaxed);
                measured.print();
            }
        }
    }
}

fn hear(node: &mut raft::RawNode<raft::storage::MemStorage>, news: News) {
    match news {
        News::Message(message) => node.step(message).expect("from a member"),
        News::Durable(number) => node.on_persist_ready(number),
    }
}

/// One replica's log.
struct Disk {
    engine: Engine,
    batch: LogBatch,
    compacted: u64,
}

impl Disk {
    fn open(folder: &str) -> Self {
        let engine = Engine::open(Config {
            dir: folder.to_owned(),
            // No compression: neither log has any.
            batch_compression_threshold: ReadableSize::kb(0),
            // Files are used again, as ours are, and written with zeros before that.
            purge_threshold: ReadableSize::mb(256),
            prefill_for_recycle: true,
            ..Config::default()
        });
        Self { engine: engine.expect("raft-engine opens its folder"), batch: LogBatch::default(), compacted: 0 }
    }

    /// Makes these durable, with one sync.
    fn store<'a>(&mut self, writes: impl Iterator<Item = (&'a [Entry], Option<&'a HardState>)>) {
        let mut last = 0;
        for (entries, state) in writes {
            self.batch.add_entries::<Entries>(REGION, entries).expect("entries follow each other");
            if let Some(state) = state {
                self.batch.put_message(REGION, b"state".to_vec(), state).expect("a small message");
            }
            last = entries.last().map_or(last, |entry| entry.index);
        }
        if self.batch.is_empty() {
            return;
        }
        let compact = last > self.compacted + 2 * KEPT;
        if compact {
            // What is old isn't needed: its files are used again.
            self.batch.add_command(REGION, Command::Compact { index: last - KEPT });
            self.compacted = last - KEPT;
        }
        self.engine.write(&mut self.batch, true).expect("raft-engine writes");
        if compact {
            self.engine.purge_expired_files().expect("raft-engine purges");
        }
    }
}
