//! Local clusters whose nodes, processes of their own, have their data on file systems with faults; and clients that
//! remember what was acknowledged.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as it does")]

use flotilla_services::client::{Connection, Reply};
use flotilla_services::config::{Limits, RaftSettings};
use flotilla_services::hands::{Stopwatch, pause};
use flotilla_services::local::{LocalCluster, LocalOptions};
use flotilla_sim::faultfs::{FaultFs, Operation, RuleId, is_here};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The longest that anything may take, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Two clusters that look for free ports at the same time would find the same ones.
static STARTING: Mutex<()> = Mutex::new(());

/// A cluster on faulty disks. Its parts go in this order: processes, mounts, folder.
pub(crate) struct Rig {
    pub(crate) nodes: LocalCluster,
    disks: Vec<FaultFs>,
    folder: tempfile::TempDir,
}

/// What was acknowledged: keys and their values.
pub(crate) type Acknowledged = BTreeMap<String, String>;

/// Starts so many nodes of one core; `None`, said aloud, where there can't be such a disk.
pub(crate) fn start(nodes: u32, change: impl FnOnce(&mut LocalOptions)) -> Option<Rig> {
    if !is_here() {
        return None;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mount = |node| {
        let (behind, mounted) = (format!("behind-{node}"), format!("node-{node}"));
        FaultFs::mount(&folder.path().join(behind), &folder.path().join(mounted)).unwrap()
    };
    let disks: Vec<FaultFs> = (1..=nodes).map(mount).collect();
    let mut options = LocalOptions::new(env!("CARGO_BIN_EXE_flotilla-sim").into(), folder.path().into());
    options.nodes = nodes;
    options.raft = RaftSettings { heartbeat_ms: 25, election_timeout_ms: 150, ..RaftSettings::default() };
    options.limits = Limits { value_bytes_max: 256 << 10, ..Limits::default() };
    options.log.segment_bytes = 1 << 20;
    change(&mut options);
    let one_at_a_time = STARTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let nodes = LocalCluster::start(options).unwrap_or_else(|error| panic!("{error}"));
    drop(one_at_a_time);
    let rig = Rig { nodes, disks, folder };
    rig.nodes.wait_until_founded(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    Some(rig)
}

/// Looks again and again.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = Stopwatch::start();
    while !is_so() {
        assert!(clock.elapsed() < PATIENCE, "it never happens that {what}");
        pause(Duration::from_millis(5));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in 1..=self.disks.len() as u32 {
                eprintln!("what node {node} said:\n{}", self.words(node));
            }
        }
    }
}

impl Rig {
    pub(crate) fn disk(&self, node: u32) -> &FaultFs {
        &self.disks[node as usize - 1]
    }

    pub(crate) fn wait_for_leaders(&self) {
        self.nodes.wait_for_leaders(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Waits until a node has made all the segments that it wants: one in use, two to come.
    pub(crate) fn wait_for_spares(&self, node: u32) {
        wait_until("the spare segments are there", || self.disk(node).count(Operation::Sync, "core-0") >= 3);
    }

    pub(crate) fn connect(&self, node: u32) -> Connection {
        Connection::open(&self.nodes.address(node), PATIENCE).unwrap()
    }

    pub(crate) fn words(&self, node: u32) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("node-{node}.log"))).unwrap_or_default()
    }

    pub(crate) fn leader(&self) -> u32 {
        let mut found = 0;
        wait_until("a node leads", || {
            let mut client = self.nodes.client();
            let _ = client.execute(b"k", &[b"GET", b"k"], PATIENCE);
            let leads = |node: &u32| self.standing(*node).contains("role=leader");
            found = (1..=self.disks.len() as u32).find(leads).unwrap_or(0);
            found > 0
        });
        found
    }

    /// What a node says about its group, nothing if it isn't there.
    pub(crate) fn standing(&self, node: u32) -> String {
        let connection = Connection::open(&self.nodes.address(node), PATIENCE);
        let reply = connection.and_then(|mut connection| connection.execute(&[b"INFO", b"replication"]));
        match reply {
            Ok(Reply::Bulk(bytes)) => String::from_utf8(bytes).unwrap(),
            _ => String::new(),
        }
    }

    /// How far a node has applied the log.
    pub(crate) fn applied(&self, node: u32) -> u64 {
        let standing = self.standing(node);
        let field = standing.split("applied=").nth(1).and_then(|rest| rest.split(',').next());
        field.and_then(|field| field.parse().ok()).unwrap_or(0)
    }

    /// Waits until a node has applied what the leader has.
    pub(crate) fn wait_for_catching_up(&self, node: u32) {
        let goal = self.applied(self.leader());
        wait_until("the node catches up", || self.applied(node) >= goal);
    }

    /// Kills every node, and the power fails; then all start again.
    pub(crate) fn lose_power(&mut self) {
        for node in 1..=self.disks.len() as u32 {
            self.nodes.kill(node);
        }
        for disk in &self.disks {
            disk.lose_unsynced().unwrap();
        }
        for node in 1..=self.disks.len() as u32 {
            self.nodes.restart(node).unwrap_or_else(|error| panic!("{error}"));
        }
        self.wait_for_leaders();
    }

    /// Every acknowledged write is there.
    pub(crate) fn check(&self, acknowledged: &Acknowledged) {
        let mut client = self.nodes.client();
        for (key, value) in acknowledged {
            let reply = client.execute(key.as_bytes(), &[b"GET", key.as_bytes()], PATIENCE).unwrap();
            let is_there = matches!(&reply, Reply::Bulk(bytes) if bytes == value.as_bytes());
            assert!(is_there, "{key} was acknowledged, and {:.100} is there", reply.to_string());
        }
    }
}

/// What clients write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) value_bytes: usize,
}

impl Load {
    fn value(self, key: &str) -> String {
        let mut value = format!("{key} ");
        value.extend(std::iter::repeat_n('v', self.value_bytes.saturating_sub(value.len())));
        value
    }

    /// Writes to node 1, which is alone, until it answers no more: returns what it acknowledged. Whoever asks after
    /// `fault` has happened must get no answer.
    pub(crate) fn until_silence(self, rig: &Rig, fault: RuleId) -> Acknowledged {
        let acknowledged = Mutex::new(Acknowledged::new());
        std::thread::scope(|scope| {
            for client in 0..self.clients {
                let acknowledged = &acknowledged;
                scope.spawn(move || {
                    let mut connection = rig.connect(1);
                    for number in 0.. {
                        let key = format!("{client}:{number}");
                        let value = self.value(&key);
                        let is_too_late = rig.disk(1).fired(fault) > 0;
                        match connection.execute(&[b"SET", key.as_bytes(), value.as_bytes()]) {
                            Ok(Reply::Status(_)) => {
                                assert!(!is_too_late, "{key} was acknowledged after the fault");
                                acknowledged.lock().unwrap().insert(key, value);
                            }
                            Ok(other) => panic!("SET {key}: {other}"),
                            Err(_) => return,
                        }
                    }
                });
            }
        });
        acknowledged.into_inner().unwrap()
    }

    /// Writes to whoever leads, while `meanwhile` goes on. It is given the count of what was acknowledged so far.
    pub(crate) fn while_doing(
        self,
        rig: &mut Rig,
        meanwhile: impl FnOnce(&mut Rig, &AtomicUsize),
    ) -> Acknowledged {
        let (acknowledged, count) = (Mutex::new(Acknowledged::new()), AtomicUsize::new(0));
        let is_over = AtomicBool::new(false);
        let addresses = rig.nodes.addresses();
        std::thread::scope(|scope| {
            for client in 0..self.clients {
                let (acknowledged, count, is_over) = (&acknowledged, &count, &is_over);
                let mut cluster = flotilla_services::client::Cluster::new(addresses.clone());
                scope.spawn(move || {
                    for number in 0.. {
                        if is_over.load(Ordering::Relaxed) {
                            return;
                        }
                        let key = format!("{client}:{number}");
                        let value = self.value(&key);
                        let set: [&[u8]; 3] = [b"SET", key.as_bytes(), value.as_bytes()];
                        if let Ok(Reply::Status(_)) =
                            cluster.execute(key.as_bytes(), &set, Duration::from_secs(2))
                        {
                            acknowledged.lock().unwrap().insert(key, value);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            // Also when it panics: the clients must not wait for ever.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| meanwhile(rig, &count)));
            is_over.store(true, Ordering::Relaxed);
            if let Err(panicked) = done {
                std::panic::resume_unwind(panicked);
            }
        });
        acknowledged.into_inner().unwrap()
    }
}

/// Waits until so many more are acknowledged.
pub(crate) fn wait_for_more(count: &AtomicUsize, more: usize) {
    let goal = count.load(Ordering::Relaxed) + more;
    wait_until("more is acknowledged", || count.load(Ordering::Relaxed) >= goal);
}
