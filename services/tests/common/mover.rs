//! An operator who lets groups come and go all the time.

use super::{TestCluster, output, program};
use flotilla_services::hands::spawn;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Each moves half of the shards, or all of them, of four groups of which two have shards at first.
const ORDERS: [&[&str]; 4] =
    [&["join", "2", "3"], &["leave", "0", "1"], &["join", "0", "1"], &["leave", "2", "3"]];

/// `flotilla cluster …` at a node, to its end; what it says.
pub(crate) fn change(address: &str, words: &[&str]) -> String {
    output(Command::new(program()).arg("cluster").args(words).args(["--addr", address, "--wait", "--json"]))
}

/// Moves shards to and fro until told to stop, and each way once at least; each time every shard gets where it should be.
pub(crate) struct Mover {
    over: Arc<AtomicBool>,
    worker: std::thread::JoinHandle<u32>,
}

impl Mover {
    pub(crate) fn start(cluster: &TestCluster) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (addresses, stop) = (cluster.nodes.addresses(), Arc::clone(&over));
        let worker = spawn(move || {
            let mut changes = 0;
            while !stop.load(Ordering::Relaxed) || changes < ORDERS.len() {
                change(&addresses[changes % addresses.len()], ORDERS[changes % ORDERS.len()]);
                changes += 1;
            }
            u32::try_from(changes).expect("a test ends before")
        });
        Self { over, worker }
    }

    /// Returns how often.
    pub(crate) fn stop(self) -> u32 {
        self.over.store(true, Ordering::Relaxed);
        self.worker.join().unwrap()
    }
}
