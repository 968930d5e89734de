//! Native clients that count and read all the time, tolerate no error, and whose histories must be linearizable.
//!
//! A counter tells the place of everything that happens to it: whoever increments it is told how many did before, and whoever reads it
//! sees how many have. So an order is known, and what is left to check is that it agrees with the times of the calls.

use super::{PATIENCE, TestCluster};
use flotilla_services::client::{Client, ClientOptions};
use flotilla_services::hands::{Stopwatch, spawn};
use futures_lite::future::block_on;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// One call: which counter, when, and what was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) key: usize,
    pub(crate) called: Duration,
    pub(crate) returned: Duration,
    pub(crate) sum: i64,
    pub(crate) is_read: bool,
}

impl Call {
    /// Where it stands in the counter's history: right behind its own increment, or the last that it saw.
    fn place(&self) -> i64 {
        2 * self.sum + i64::from(self.is_read)
    }
}

/// Whether there is an order of the calls that explains all answers.
pub(crate) fn judge(calls: &[Call]) -> Result<(), String> {
    let keys: BTreeSet<usize> = calls.iter().map(|call| call.key).collect();
    keys.iter().try_for_each(|key| judge_one(calls.iter().filter(|call| call.key == *key).copied().collect()))
}

fn judge_one(mut calls: Vec<Call>) -> Result<(), String> {
    let sums: BTreeMap<i64, usize> =
        calls.iter().filter(|call| !call.is_read).fold(BTreeMap::new(), |mut sums, call| {
            *sums.entry(call.sum).or_default() += 1;
            sums
        });
    let count = i64::try_from(sums.len()).unwrap();
    if sums.values().any(|times| *times > 1) || sums.keys().copied().ne(1..=count) {
        return Err(format!("increments were lost or doubled: {sums:?}"));
    }
    if let Some(call) = calls.iter().find(|call| !(0..=count).contains(&call.sum)) {
        return Err(format!("{call:?} saw what nobody made"));
    }
    calls.sort_by_key(|call| call.called);
    let mut over = calls.clone();
    over.sort_by_key(|call| call.returned);
    let (mut over, mut latest) = (over.into_iter().peekable(), None::<Call>);
    for call in calls {
        while let Some(before) = over.next_if(|before| before.returned < call.called) {
            if latest.is_none_or(|latest| latest.place() < before.place()) {
                latest = Some(before);
            }
        }
        if let Some(before) = latest.filter(|before| before.place() > call.place()) {
            return Err(format!("{call:?} doesn't see {before:?}, which was over"));
        }
    }
    Ok(())
}

/// Clients at work.
pub(crate) struct Histories {
    over: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    workers: Vec<std::thread::JoinHandle<Vec<Call>>>,
}

impl Histories {
    /// So many clients, each with connections of its own, on counters in different groups.
    pub(crate) fn start(cluster: &TestCluster, clients: usize) -> Self {
        const KEYS: usize = 8;
        let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clock = Stopwatch::start();
        let worker = |number: usize| {
            let (over, count, addresses) = (Arc::clone(&over), Arc::clone(&calls), cluster.nodes.addresses());
            spawn(move || {
                let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
                let options = ClientOptions { timeout: PATIENCE, patience: Duration::from_millis(500) };
                let client = block_on(Client::connect(&addresses, options)).unwrap();
                let mut calls = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let at = calls.len() + number;
                    let (key, is_read) = (at / 2 % KEYS, at % 2 == 1);
                    let name = format!("counter:{key}").into_bytes();
                    let called = clock.elapsed();
                    let sum = match is_read {
                        true => block_on(client.get(&name))
                            .unwrap()
                            .map_or(0, |sum| String::from_utf8(sum).unwrap().parse().unwrap()),
                        false => block_on(client.increment(&name, 1)).unwrap(),
                    };
                    calls.push(Call { key, called, returned: clock.elapsed(), sum, is_read });
                    count.fetch_add(1, Ordering::Relaxed);
                }
                calls
            })
        };
        let workers = (0..clients).map(worker).collect();
        Self { over, calls, workers }
    }

    /// Waits for so many more calls to be answered.
    pub(crate) fn wait_for_more(&self, calls: u64) {
        let (clock, before) = (Stopwatch::start(), self.calls.load(Ordering::Relaxed));
        while self.calls.load(Ordering::Relaxed) < before + calls {
            assert!(clock.elapsed() < PATIENCE, "clients aren't served");
            assert!(!self.workers.iter().any(|worker| worker.is_finished()), "a call failed");
            flotilla_services::hands::pause(Duration::from_millis(5));
        }
    }

    /// Ends it, and judges; returns how many calls there were, and the longest. Not one of them failed.
    pub(crate) fn stop(self) -> (usize, Duration) {
        self.over.store(true, Ordering::Relaxed);
        let calls: Vec<Call> = self.workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        judge(&calls).unwrap_or_else(|error| panic!("{error}"));
        let longest = calls.iter().map(|call| call.returned - call.called).max().unwrap_or_default();
        (calls.len(), longest)
    }
}
