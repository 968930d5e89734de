//! Durable: a thread for each replica, with a raft-engine log of its own; messages go through channels.

use crate::replica::{self, NODES};
use crate::{Measured, Plan};
use raft::eraftpb::{Entry, Message};
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

pub fn run(plan: Plan, folder: &str) {
    let over = Arc::new(AtomicBool::new(false));
    let (senders, inboxes): (Vec<Sender<Message>>, Vec<Receiver<Message>>) = (0..NODES).map(|_| channel()).unzip();
    let threads: Vec<_> = inboxes
        .into_iter()
        .enumerate()
        .map(|(place, inbox)| {
            let (senders, over) = (senders.clone(), Arc::clone(&over));
            let folder = format!("{folder}/{place}");
            std::thread::spawn(move || node(place, plan, &folder, &inbox, &senders, &over))
        })
        .collect();
    for thread in threads {
        thread.join().expect("a replica runs to the end");
    }
}

fn node(
    place: usize,
    plan: Plan,
    folder: &str,
    inbox: &Receiver<Message>,
    senders: &[Sender<Message>],
    over: &AtomicBool,
) {
    let engine = Engine::open(Config {
        dir: folder.to_owned(),
        // No compression: neither log has any.
        batch_compression_threshold: ReadableSize::kb(0),
        ..Config::default()
    })
    .expect("raft-engine opens its folder");
    let mut node = replica::new(place as u64 + 1);
    if place == 0 {
        node.campaign().expect("nobody leads");
    }
    let mut batch = LogBatch::default();
    let mut compacted = 0;
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
                Ok(message) => node.step(message).expect("from a member"),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        inbox.try_iter().for_each(|message| node.step(message).expect("from a member"));
        let now = Instant::now();
        if now >= next_tick {
            next_tick = now + TICK;
            node.tick();
        }
        // Nobody hears those who have ended.
        let send = |message: Message| drop(senders[message.to as usize - 1].send(message));
        let commits = replica::turn(&mut node, send, |ready| store(&engine, &mut batch, &mut compacted, ready));
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

fn store(engine: &Engine, batch: &mut LogBatch, compacted: &mut u64, ready: &raft::Ready) {
    if ready.entries().is_empty() && !ready.must_sync() {
        return;
    }
    batch.add_entries::<Entries>(REGION, ready.entries()).expect("entries follow each other");
    if let Some(state) = ready.hs() {
        batch.put_message(REGION, b"state".to_vec(), state).expect("a small message");
    }
    let last = ready.entries().last().map_or(0, |entry| entry.index);
    let compact = last > *compacted + 2 * KEPT;
    if compact {
        // What is old isn't needed: its files are used again.
        batch.add_command(REGION, Command::Compact { index: last - KEPT });
        *compacted = last - KEPT;
    }
    engine.write(batch, true).expect("raft-engine writes");
    if compact {
        engine.purge_expired_files().expect("raft-engine purges");
    }
}
