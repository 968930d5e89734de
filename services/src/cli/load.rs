//! The demo's load: many clients, each a thread with a connection of its own, that remember what was acknowledged.

use crate::client::{Cluster, Reply};
use crate::hands::{Stopwatch, spawn};
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A client gives up on a command after this: longer than any failover.
const PATIENCE: Duration = Duration::from_secs(15);

/// What all clients share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Tells the clients to stop.
    pub(super) stop: AtomicBool,
    /// Writes acknowledged so far.
    pub(super) acknowledged: AtomicU64,
    /// Microseconds since the start of the newest acknowledgement, and of the first one after [`Self::mark`].
    pub(super) newest_us: AtomicU64,
    /// Only latencies of this phase are recorded: 0 none, else the phase's number.
    pub(super) recording: AtomicBool,
    /// The longest time without any acknowledgement since it was last set to 0, in microseconds.
    pub(super) longest_gap_us: AtomicU64,
    errors: Mutex<Vec<String>>,
}

impl Shared {
    /// What went wrong for clients, if anything.
    pub(super) fn errors(&self) -> Vec<String> {
        self.errors.lock().map(|errors| errors.clone()).unwrap_or_default()
    }

    fn acknowledge(&self, clock: &Stopwatch) {
        let now = micros(clock.elapsed());
        let last = self.newest_us.swap(now, Ordering::Relaxed);
        self.longest_gap_us.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// A running client: it ends with how many of its keys were acknowledged, and its latencies in nanoseconds.
pub(super) type Client = JoinHandle<(u64, Histogram<u64>)>;

/// The key of a client's n-th write. Its value is [`value_of`].
pub(super) fn key_of(client: u64, number: u64) -> Vec<u8> {
    format!("demo:{client}:{number}").into_bytes()
}

/// The value that goes with a key: 64 bytes that can be recomputed.
pub(super) fn value_of(client: u64, number: u64) -> Vec<u8> {
    format!("{:064}", u128::from(client) << 64 | u128::from(number)).into_bytes()
}

/// Starts one client that writes its keys in order, each until it is acknowledged.
pub(super) fn start_client(id: u64, mut cluster: Cluster, shared: Arc<Shared>, clock: Stopwatch) -> Client {
    spawn(move || {
        let mut latencies = Histogram::new(3).expect("three digits are allowed");
        let mut number = 0;
        while !shared.stop.load(Ordering::Relaxed) {
            let (key, value) = (key_of(id, number), value_of(id, number));
            let started = Stopwatch::start();
            match cluster.execute(&key, &[b"SET", &key, &value], PATIENCE) {
                Ok(Reply::Status(_)) => {}
                Ok(other) => {
                    report(&shared, format!("SET was answered with {other}"));
                    break;
                }
                Err(error) => {
                    report(&shared, error.to_string());
                    break;
                }
            }
            number += 1;
            shared.acknowledge(&clock);
            if shared.recording.load(Ordering::Relaxed) {
                latencies.record(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)).ok();
            }
        }
        (number, latencies)
    })
}

fn report(shared: &Shared, error: String) {
    if let Ok(mut errors) = shared.errors.lock() {
        errors.push(error);
    }
}

/// A duration in whole microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
