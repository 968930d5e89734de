//! Leaderships on their way, with real processes.

use crate::common::load::Load;
use crate::common::{PATIENCE, TestCluster, output, program, run, start, text, wide};
use flotilla_services::client::Reply;
use flotilla_services::config::RaftSettings;
use flotilla_services::hands::{Stopwatch, pause};
use std::process::Command;
use std::time::Duration;

/// Much longer than a handover may take, on a busy machine too.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(3);

fn slow_to_elect(nodes: u32) -> TestCluster {
    let election_timeout_ms = u64::try_from(ELECTION_TIMEOUT.as_millis()).unwrap();
    start(|options| {
        options.nodes = nodes;
        options.raft = RaftSettings { election_timeout_ms, ..RaftSettings::default() };
    })
}

/// Who leads a group, as a node sees it.
fn leader(cluster: &TestCluster, at: u32, group: u32) -> Option<u32> {
    let info = cluster.info(at);
    let line = info.lines().find(|line| line.starts_with(&format!("group{group}:")))?;
    line.split("leader=").nth(1)?.split(',').next()?.parse().ok()
}

fn wait_for_leader(cluster: &TestCluster, at: u32, group: u32, wanted: u32) {
    let clock = Stopwatch::start();
    while leader(cluster, at, group) != Some(wanted) {
        assert!(clock.elapsed() < PATIENCE, "{wanted} doesn't lead group {group}: {}", cluster.info(at));
        pause(Duration::from_millis(5));
    }
}

#[test]
fn a_leader_that_is_stopped_under_load_is_missed_for_much_less_than_an_election_timeout() {
    let mut cluster = slow_to_elect(3);
    let loads: Vec<Load> = (0..4).map(|number| Load::start(&cluster, number)).collect();
    for _ in 0..3 {
        let leading = leader(&cluster, 1, 0).or_else(|| leader(&cluster, 2, 0)).unwrap();
        let clock = Stopwatch::start();
        assert!(cluster.nodes.stop(leading, PATIENCE), "{}", cluster.words(leading));
        eprintln!("node {leading} drained in {:?}", clock.elapsed());
        cluster.nodes.restart(leading).unwrap();
    }
    for load in loads {
        let (answered, longest) = load.stop();
        eprintln!("{answered} writes and reads, the longest took {longest:?}");
        assert!(longest < ELECTION_TIMEOUT / 2, "{longest:?}");
    }
}

#[test]
fn an_operator_makes_a_node_the_leader() {
    let cluster = slow_to_elect(3);
    let load = Load::start(&cluster, 0);
    for (round, to) in [3, 1, 2, 1].into_iter().enumerate() {
        // Any node takes the order.
        let at = u32::try_from(round % 3).unwrap() + 1;
        let mut command = Command::new(program());
        command.args(["cluster", "transfer-leader", "--addr", &cluster.nodes.address(at)]);
        let said = output(command.args(["--group", "0", "--node", &to.to_string()]));
        assert_eq!(said, format!("node {to} leads group 0\n"));
        wait_for_leader(&cluster, to, 0, to);
    }
    let (answered, longest) = load.stop();
    eprintln!("{answered} writes and reads, the longest took {longest:?}");
    assert!(longest < ELECTION_TIMEOUT / 2, "{longest:?}");
    let mut wrong = Command::new(program());
    wrong.args(["cluster", "transfer-leader", "--addr", &cluster.nodes.address(1), "-g", "7", "-n", "1"]);
    let refused = run(&mut wrong);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("no such group or node"), "{}", text(&refused.stderr));
}

#[test]
fn leaders_are_spread_over_the_nodes_and_go_back_after_a_rolling_restart() {
    let mut cluster = wide();
    let settled = |cluster: &TestCluster| {
        for group in 0..4 {
            let node = group % 3 + 1;
            let core = group % 2;
            let clock = Stopwatch::start();
            let leads = || {
                let first = cluster.nodes.address(node);
                let (host, port) = first.rsplit_once(':').unwrap();
                let address = format!("{host}:{}", port.parse::<u32>().unwrap() + core);
                let mut connection = flotilla_services::client::Connection::open(&address, PATIENCE).unwrap();
                let Ok(Reply::Bulk(info)) = connection.execute(&[b"INFO", b"replication"]) else {
                    return false;
                };
                text(&info).contains(&format!("group{group}:role=leader"))
            };
            while !leads() {
                assert!(clock.elapsed() < PATIENCE, "node {node} doesn't lead group {group}");
                pause(Duration::from_millis(20));
            }
        }
    };
    settled(&cluster);
    for node in 1..=3 {
        assert!(cluster.nodes.stop(node, PATIENCE), "node {node}: {}", cluster.words(node));
        cluster.nodes.restart(node).unwrap();
    }
    settled(&cluster);
}

#[test]
fn a_cluster_that_is_stopped_as_a_whole_doesn_t_wait_for_itself() {
    let mut cluster = slow_to_elect(3);
    cluster.set("key", "value");
    let clock = Stopwatch::start();
    for node in 1..=3 {
        cluster.nodes.terminate(node);
    }
    for node in 1..=3 {
        let status = cluster.nodes.wait_for_end(node, PATIENCE).unwrap();
        assert!(status.success(), "{}", cluster.words(node));
    }
    eprintln!("stopped in {:?}", clock.elapsed());
}
