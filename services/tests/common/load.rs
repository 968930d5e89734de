//! A client that is always busy, and tolerates no error.

use super::{PATIENCE, TestCluster};
use flotilla_services::client::Reply;
use flotilla_services::hands::{Stopwatch, spawn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Writes and reads as fast as it can until told to stop; returns how often, and the longest time between two answers.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    worker: std::thread::JoinHandle<(u32, Duration)>,
}

impl Load {
    pub(crate) fn start(cluster: &TestCluster, number: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (mut client, stop) = (cluster.nodes.client(), Arc::clone(&over));
        let worker = spawn(move || {
            let key = format!("load:{number}").into_bytes();
            let (mut answered, mut longest) = (0_u32, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let clock = Stopwatch::start();
                let value = answered.to_string();
                let set = client.execute(&key, &[b"SET", &key, value.as_bytes()], PATIENCE).unwrap();
                assert!(matches!(set, Reply::Status(_)), "{set}");
                longest = longest.max(clock.elapsed());
                let clock = Stopwatch::start();
                let got = client.execute(&key, &[b"GET", &key], PATIENCE).unwrap();
                assert!(matches!(&got, Reply::Bulk(bytes) if *bytes == value.as_bytes()), "{got}");
                longest = longest.max(clock.elapsed());
                answered += 1;
            }
            (answered, longest)
        });
        Self { over, worker }
    }

    /// Ends it; returns how often, and the longest.
    pub(crate) fn stop(self) -> (u32, Duration) {
        self.over.store(true, Ordering::Relaxed);
        self.worker.join().unwrap()
    }
}
