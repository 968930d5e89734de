//! Connections that break.

use super::{PATIENCE, TestCluster};
use flotilla_services::client::{Connection, Reply};
use flotilla_services::hands::{pause, spawn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Has all clients of a node lose their connections, again and again, whatever they wait for.
pub(crate) struct Cutter {
    stop: Arc<AtomicBool>,
    cuts: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Cutter {
    pub(crate) fn start(cluster: &TestCluster) -> Self {
        let (stop, cuts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let addresses = cluster.nodes.addresses();
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&cuts));
        let thread = spawn(move || {
            let mut connections: Vec<Connection> =
                addresses.iter().map(|address| Connection::open(address, PATIENCE).unwrap()).collect();
            while !stopped.load(Ordering::Relaxed) {
                for connection in &mut connections {
                    let killed = connection.execute(&[b"CLIENT", b"KILL", b"TYPE", b"normal"]);
                    if let Ok(Reply::Integer(killed)) = killed {
                        counted.fetch_add(u64::try_from(killed).unwrap(), Ordering::Relaxed);
                    }
                }
                pause(Duration::from_millis(3));
            }
        });
        Self { stop, cuts, thread: Some(thread) }
    }

    /// Returns how many were cut.
    pub(crate) fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.cuts.load(Ordering::Relaxed)
    }
}
