//! The group changes while real processes serve it: a node that is dead for good, disk and all, is replaced under load.

use crate::common::{PATIENCE, TestCluster, start, text};
use flotilla_services::client::{Connection, Reply};
use flotilla_services::hands::{Stopwatch, pause, spawn};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What a node answers to `FLOTILLA.MEMBER` with these arguments; nothing if it isn't there.
fn member(cluster: &TestCluster, node: u32, args: &[&str]) -> Vec<String> {
    let Ok(mut connection) = Connection::open(&cluster.nodes.address(node), PATIENCE) else {
        return Vec::new();
    };
    let mut command: Vec<&[u8]> = vec![b"FLOTILLA.MEMBER"];
    command.extend(args.iter().map(|arg| arg.as_bytes()));
    match connection.execute(&command) {
        Ok(Reply::Array(lines)) => {
            let line = |reply| match reply {
                Reply::Bulk(bytes) => text(&bytes),
                other => panic!("{other}"),
            };
            lines.into_iter().map(line).collect()
        }
        other => panic!("FLOTILLA.MEMBER {args:?}: {other:?}"),
    }
}

/// Asks every node of `of` for a change until one of them shows, of every group, that it is as wanted.
fn change(cluster: &TestCluster, of: &[u32], args: &[&str], wanted: &str) {
    let clock = Stopwatch::start();
    loop {
        let shown: Vec<String> = of.iter().flat_map(|node| member(cluster, *node, &["LIST"])).collect();
        let group = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
        let all: BTreeSet<String> = shown.iter().map(|line| group(line)).collect();
        let is_wanted = |line: &&String| line.contains(wanted) && !line.contains("changes it");
        let done: BTreeSet<String> = shown.iter().filter(is_wanted).map(|line| group(line)).collect();
        if all == done && !all.is_empty() {
            return;
        }
        assert!(clock.elapsed() < PATIENCE, "{args:?} doesn't lead to {wanted}: {shown:?}");
        of.iter().for_each(|node| drop(member(cluster, *node, args)));
        pause(Duration::from_millis(50));
    }
}

/// Writes keys one after the other; every key below the number in `acknowledged` was.
fn write_on(
    cluster: &TestCluster,
    stop: &Arc<AtomicBool>,
    acknowledged: &Arc<AtomicU64>,
) -> impl FnOnce() + use<> {
    let (stop, acknowledged) = (Arc::clone(stop), Arc::clone(acknowledged));
    let mut client = cluster.nodes.client();
    let writer = spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let number = acknowledged.load(Ordering::Relaxed);
            let key = format!("key:{number}");
            let reply = client.execute(key.as_bytes(), &[b"SET", key.as_bytes(), b"there"], PATIENCE);
            assert!(matches!(reply, Ok(Reply::Status(_))), "{reply:?}");
            acknowledged.store(number + 1, Ordering::Relaxed);
        }
    });
    move || writer.join().unwrap()
}

#[test]
fn a_dead_node_is_replaced_under_load_and_nothing_acknowledged_is_lost() {
    let mut cluster = start(|options| (options.nodes, options.spares) = (4, 1));
    let (stop, acknowledged) = (Arc::default(), Arc::default());
    let join = write_on(&cluster, &stop, &acknowledged);
    cluster.nodes.kill(3);
    std::fs::remove_dir_all(cluster.data(3)).unwrap();
    cluster.nodes.restart(4).unwrap();
    change(&cluster, &[1, 2], &["ADD", "4"], "voters=(1 2 3) learners=(4)");
    change(&cluster, &[1, 2], &["REPLACE", "3", "4"], "voters=(1 2 4)");
    let before = acknowledged.load(Ordering::Relaxed);
    while acknowledged.load(Ordering::Relaxed) < before + 20 {
        pause(Duration::from_millis(5));
    }
    stop.store(true, Ordering::Relaxed);
    join();
    // The new one stands in for one that is gone, and knows its group after a restart.
    cluster.nodes.kill(4);
    cluster.nodes.restart(4).unwrap();
    cluster.nodes.kill(1);
    cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
    for number in 0..acknowledged.load(Ordering::Relaxed) {
        assert_eq!(cluster.get(&format!("key:{number}")), Some("there".to_owned()), "key:{number}");
    }
    assert!(member(&cluster, 4, &["LIST"])[0].contains("voters=(1 2 4)"));
}

#[test]
fn a_node_with_an_empty_disk_comes_back_by_itself() {
    let mut cluster = start(|options| options.nodes = 3);
    for number in 0..100 {
        cluster.set(&format!("key:{number}"), "there");
    }
    cluster.nodes.kill(2);
    std::fs::remove_dir_all(cluster.data(2)).unwrap();
    cluster.nodes.restart(2).unwrap();
    let clock = Stopwatch::start();
    while !cluster.info(2).contains("groups_repairing:0") {
        assert!(clock.elapsed() < PATIENCE, "{}", cluster.info(2));
        pause(Duration::from_millis(10));
    }
    // Now it is half of the majority.
    cluster.nodes.kill(1);
    cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
    for number in 0..100 {
        assert_eq!(cluster.get(&format!("key:{number}")), Some("there".to_owned()), "key:{number}");
    }
}

#[test]
fn what_can_t_be_is_refused_in_words() {
    let cluster = start(|options| options.nodes = 3);
    let answers =
        |args: &[&str]| -> Vec<String> { (1..=3).flat_map(|node| member(&cluster, node, args)).collect() };
    assert!(answers(&["ADD", "9"])[0].contains("[[nodes]]"));
    assert!(answers(&["REMOVE", "9"])[0].ends_with("done"));
    assert!(answers(&["REPLACE", "1", "9"])[0].contains("no learner that has caught up"));
    let mut connection = cluster.connect(1);
    for bad in [&[&b"FLOTILLA.MEMBER"[..], b"ADD", b"x"][..], &[b"FLOTILLA.MEMBER", b"SINK"]] {
        assert!(matches!(connection.execute(bad), Ok(Reply::Error(error)) if error.contains("usage")));
    }
}
