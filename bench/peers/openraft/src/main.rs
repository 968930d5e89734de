//! Three openraft replicas in one thread and in memory; so many clients, each of which writes an entry of so many bytes
//! and waits until it is applied. Prints one JSON object.

mod network;
#[path = "../../printed.rs"]
mod printed;
mod store;

use openraft::{BasicNode, Config, Raft};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

openraft::declare_raft_types!(
    /// Bytes in, nothing out.
    pub Types: D = Vec<u8>, R = (), Node = BasicNode
);

const NODES: u64 = 3;

fn main() {
    let usage = "usage: raft-openraft core IN_FLIGHT BYTES SECONDS";
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, in_flight, bytes, seconds] = &args[..] else { panic!("{usage}") };
    assert_eq!(mode, "core", "{usage}");
    let in_flight: usize = in_flight.parse().expect(usage);
    let bytes: usize = bytes.parse().expect(usage);
    let time = Duration::from_secs_f64(seconds.parse().expect(usage));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(tokio::task::LocalSet::new().run_until(run(in_flight, bytes, time)));
}

async fn run(in_flight: usize, bytes: usize, time: Duration) {
    let config = Config {
        heartbeat_interval: 100,
        election_timeout_min: 1000,
        election_timeout_max: 2000,
        max_payload_entries: 4096,
        snapshot_policy: openraft::SnapshotPolicy::Never,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("a sound configuration"));
    let router = network::Router::default();
    let mut nodes = Vec::new();
    for id in 1..=NODES {
        let (log, machine) = (store::LogStore::default(), store::StateMachine::default());
        let raft = Raft::<Types>::new(id, Arc::clone(&config), router.clone(), log, machine);
        let raft = raft.await.expect("a replica starts");
        router.add(id, raft.clone());
        nodes.push(raft);
    }
    let members: BTreeMap<u64, BasicNode> = (1..=NODES).map(|id| (id, BasicNode::default())).collect();
    nodes[0].initialize(members).await.expect("nobody leads");
    let leads = nodes[0].wait(Some(Duration::from_secs(10)));
    leads.state(openraft::ServerState::Leader, "the first one leads").await.expect("it is elected");
    let (commits, over) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(false)));
    let clients: Vec<_> = (0..in_flight)
        .map(|_| {
            let (raft, commits, over) = (nodes[0].clone(), Rc::clone(&commits), Rc::clone(&over));
            tokio::task::spawn_local(async move {
                while !over.get() {
                    raft.client_write(vec![0x5a; bytes]).await.expect("it leads");
                    commits.set(commits.get() + 1);
                }
            })
        })
        .collect();
    tokio::time::sleep(time / 3).await;
    let (from, before, usage) = (Instant::now(), commits.get(), printed::Usage::now());
    tokio::time::sleep(time).await;
    printed::print(commits.get() - before, from.elapsed().as_secs_f64(), &usage, std::iter::empty());
    over.set(true);
    for client in clients {
        client.await.expect("a client ends");
    }
}
