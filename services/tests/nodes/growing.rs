//! Nodes come and go while real clients write and read, by one command of an operator each; and are restarted one after the other.

use crate::common::history::{Call, Histories, judge};
use crate::common::{PATIENCE, TestCluster, output, program, run, start, text};
use crate::http::{get, status, until};
use flotilla_services::admin::status::Status;
use flotilla_services::hands::{Stopwatch, pause};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Three nodes, and three more that may come; four groups with shards, one without, and the controller.
fn cluster() -> TestCluster {
    start(|options| (options.nodes, options.spares, options.groups, options.spare_groups) = (6, 3, 4, 1))
}

const GROUPS: usize = 6;

fn command(cluster: &TestCluster, at: u32, words: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("cluster").args(words).args(["--addr", &cluster.nodes.address(at), "--timeout", "60"]);
    command
}

/// `flotilla cluster …` at a node, to its end; what it says.
fn order(cluster: &TestCluster, at: u32, words: &[&str]) -> String {
    let said = output(&mut command(cluster, at, words));
    eprint!("{said}");
    said
}

/// Every node's groups, as `flotilla cluster nodes` shows them: those that it leads, and those that it follows.
fn placed(cluster: &TestCluster, at: u32) -> BTreeMap<u32, (BTreeSet<String>, BTreeSet<String>)> {
    let said = output(&mut command(cluster, at, &["nodes", "--json"]));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["leaderless"].as_array().unwrap().len(), 0, "{said}");
    let groups = |row: &serde_json::Value, what: &str| -> BTreeSet<String> {
        row[what].as_array().unwrap().iter().map(|group| group.as_str().unwrap().to_owned()).collect()
    };
    let rows = said["nodes"].as_array().unwrap().iter();
    rows.map(|row| {
        (row["node"].as_u64().unwrap().try_into().unwrap(), (groups(row, "leads"), groups(row, "follows")))
    })
    .collect()
}

/// Waits until each of these nodes leads equally many groups.
fn wait_for_even_leaders(cluster: &TestCluster, over: &[u32]) -> BTreeMap<u32, BTreeSet<String>> {
    let clock = Stopwatch::start();
    loop {
        let placed = placed(cluster, over[0]);
        let led: BTreeMap<u32, BTreeSet<String>> =
            over.iter().map(|node| (*node, placed[node].0.clone())).collect();
        if led.values().all(|groups| groups.len() == GROUPS / over.len()) {
            return led;
        }
        assert!(clock.elapsed() < PATIENCE, "the leaderships aren't spread: {led:?}");
        pause(Duration::from_millis(50));
    }
}

/// Asserts that three replicas of every group are spread evenly over these nodes, and that no other node has one.
fn assert_spread(cluster: &TestCluster, over: &[u32]) {
    let placed = placed(cluster, over[0]);
    let loads: BTreeMap<u32, usize> =
        placed.iter().map(|(node, (leads, follows))| (*node, leads.len() + follows.len())).collect();
    assert_eq!(loads.values().sum::<usize>(), 3 * GROUPS, "{placed:?}");
    for (node, load) in loads {
        let fair = if over.contains(&node) { 3 * GROUPS / over.len() } else { 0 };
        assert_eq!(load, fair, "node {node}: {placed:?}");
    }
}

fn fill(cluster: &TestCluster) {
    for number in 0..200 {
        cluster.set(&format!("kept:{number}"), &"v".repeat(2000));
    }
}

fn assert_kept(cluster: &TestCluster) {
    for number in 0..200 {
        assert_eq!(cluster.get(&format!("kept:{number}")), Some("v".repeat(2000)), "kept:{number}");
    }
}

fn stop(cluster: &mut TestCluster, node: u32) {
    assert!(cluster.nodes.stop(node, PATIENCE), "node {node}: {}", cluster.words(node));
}

#[test]
fn three_nodes_become_six_and_the_first_three_leave() {
    let mut cluster = cluster();
    fill(&cluster);
    let histories = Histories::start(&cluster, 4);
    (4..=6).for_each(|node| cluster.nodes.restart(node).unwrap());
    order(&cluster, 1, &["rebalance", "--nodes", "1,2,3,4,5,6", "--wait"]);
    assert_spread(&cluster, &[1, 2, 3, 4, 5, 6]);
    assert!(order(&cluster, 5, &["rebalance"]).starts_with("0 replicas moved"));
    wait_for_even_leaders(&cluster, &[1, 2, 3, 4, 5, 6]);
    // Shards go to a group whose members know each other only since then.
    order(&cluster, 6, &["join", "4", "--wait"]);
    histories.wait_for_more(200);
    order(&cluster, 4, &["rebalance", "--nodes", "4,5,6", "--wait"]);
    assert_spread(&cluster, &[4, 5, 6]);
    wait_for_even_leaders(&cluster, &[4, 5, 6]);
    (1..=3).for_each(|node| stop(&mut cluster, node));
    histories.wait_for_more(200);
    let (calls, longest) = histories.stop();
    eprintln!("{calls} calls, the longest took {longest:?}");
    assert_kept(&cluster);
}

#[test]
fn six_nodes_become_three_again_one_after_the_other() {
    let mut cluster = cluster();
    fill(&cluster);
    (4..=6).for_each(|node| cluster.nodes.restart(node).unwrap());
    let histories = Histories::start(&cluster, 4);
    order(&cluster, 2, &["rebalance", "--wait"]);
    assert_spread(&cluster, &[1, 2, 3, 4, 5, 6]);
    for node in 4..=6 {
        let said = order(&cluster, 1, &["remove", &node.to_string(), "--wait"]);
        assert!(said.contains("can be stopped"), "{said}");
        stop(&mut cluster, node);
    }
    assert_spread(&cluster, &[1, 2, 3]);
    histories.wait_for_more(200);
    let (calls, longest) = histories.stop();
    eprintln!("{calls} calls, the longest took {longest:?}");
    assert_kept(&cluster);
}

#[test]
fn a_dead_node_is_replaced_by_one_command() {
    let mut cluster = cluster();
    fill(&cluster);
    let histories = Histories::start(&cluster, 4);
    cluster.nodes.kill(3);
    std::fs::remove_dir_all(cluster.data(3)).unwrap();
    cluster.nodes.restart(4).unwrap();
    order(&cluster, 1, &["replace", "3", "4", "--wait"]);
    assert_spread(&cluster, &[1, 2, 4]);
    assert!(order(&cluster, 2, &["replace", "3", "4"]).starts_with("0 replicas moved"));
    // It stands in for the dead one.
    cluster.nodes.kill(1);
    histories.wait_for_more(200);
    let (calls, longest) = histories.stop();
    eprintln!("{calls} calls, the longest took {longest:?}");
    assert_kept(&cluster);
}

#[test]
fn a_node_that_left_forgets_what_it_had_at_its_next_start_and_may_come_back() {
    let mut cluster = cluster();
    fill(&cluster);
    cluster.nodes.restart(4).unwrap();
    order(&cluster, 1, &["replace", "3", "4"]);
    let outside = |info: &str, has_keys: bool| {
        let outside = info.lines().filter(|line| line.contains(":role=outside"));
        outside.filter(|line| line.trim_end().ends_with("keys=0") != has_keys).count()
    };
    let clock = Stopwatch::start();
    while outside(&cluster.info(3), true) < 4 {
        assert!(clock.elapsed() < PATIENCE, "it still has its keys: {}", cluster.info(3));
    }
    stop(&mut cluster, 3);
    cluster.nodes.restart(3).unwrap();
    wait_until_outside(&cluster);
    assert_eq!(outside(&cluster.info(3), true), 0, "it has forgotten what it had");
    let histories = Histories::start(&cluster, 4);
    order(&cluster, 1, &["replace", "4", "3"]);
    assert_spread(&cluster, &[1, 2, 3]);
    cluster.nodes.kill(1);
    histories.wait_for_more(200);
    histories.stop();
    assert_kept(&cluster);
}

/// Every group that node 3 has something of says that it isn't a part of it.
fn wait_until_outside(cluster: &TestCluster) {
    let clock = Stopwatch::start();
    loop {
        let info = cluster.info(3);
        let outside = info.lines().filter(|line| line.contains(":role=outside")).count();
        if outside == GROUPS && info.contains("groups_repairing:0") {
            return;
        }
        assert!(clock.elapsed() < PATIENCE, "it hasn't learnt that it was replaced: {info}");
    }
}

#[test]
fn a_node_that_was_replaced_while_it_was_dead_learns_of_it_when_it_comes_back() {
    let mut cluster = cluster();
    fill(&cluster);
    cluster.nodes.kill(3);
    cluster.nodes.restart(4).unwrap();
    order(&cluster, 1, &["replace", "3", "4", "--wait"]);
    let histories = Histories::start(&cluster, 4);
    cluster.nodes.restart(3).unwrap();
    wait_until_outside(&cluster);
    // Then it may go, and forgets when it comes again; or take part anew.
    stop(&mut cluster, 3);
    cluster.nodes.restart(3).unwrap();
    wait_until_outside(&cluster);
    assert!(
        cluster.info(3).contains("6 replicas of groups that this node has left are dropped"),
        "{}",
        cluster.info(3)
    );
    order(&cluster, 1, &["replace", "4", "3", "--wait"]);
    assert_spread(&cluster, &[1, 2, 3]);
    histories.wait_for_more(200);
    histories.stop();
    assert_kept(&cluster);
}

#[test]
fn what_was_cut_off_goes_on() {
    let mut cluster = cluster();
    fill(&cluster);
    (4..=6).for_each(|node| cluster.nodes.restart(node).unwrap());
    let words = ["rebalance", "--nodes", "4,5,6"];
    for replicas in 1..=4 {
        let mut cut_off = command(&cluster, 4, &words);
        let mut process = cut_off.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let clock = Stopwatch::start();
        let arrived = || -> usize {
            let placed = placed(&cluster, 4);
            placed.range(4..).map(|(_, (leads, follows))| leads.len() + follows.len()).sum()
        };
        while arrived() < replicas {
            assert!(clock.elapsed() < PATIENCE, "nothing moves");
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
    order(&cluster, 4, &words);
    assert_spread(&cluster, &[4, 5, 6]);
    assert_kept(&cluster);
}

/// The version of their protocol that a node speaks with another, once it stands.
fn wait_for_protocol(cluster: &TestCluster, from: u32, to: u32, version: u16) {
    let protocol = |it: &Status| it.nodes.iter().find(|node| node.node == to).unwrap().protocol;
    until(|| status(cluster, from), |it| protocol(it) == Some(version));
}

/// As for an upgrade: the nodes that haven't been restarted yet are of the release before, which speaks another version.
#[test]
fn nodes_are_restarted_one_after_the_other_and_no_call_fails() {
    let mut cluster = start(|options| {
        (options.cores, options.groups, options.spare_groups) = (2, 4, 1);
        options.flags = vec!["--peer-versions=1-1".to_owned()];
    });
    let before = wait_for_even_leaders(&cluster, &[1, 2, 3]);
    let histories = Histories::start(&cluster, 4);
    histories.wait_for_more(100);
    for node in 1..=3 {
        stop(&mut cluster, node);
        histories.wait_for_more(100);
        cluster.nodes.set_flags(node, &[]);
        cluster.nodes.restart(node).unwrap();
        cluster.nodes.wait_until_founded(PATIENCE).unwrap();
        for other in (1..=3).filter(|other| *other != node) {
            let version = if other < node { 2 } else { 1 };
            wait_for_protocol(&cluster, node, other, version);
            wait_for_protocol(&cluster, other, node, version);
        }
    }
    assert_eq!(wait_for_even_leaders(&cluster, &[1, 2, 3]), before, "they go back to where they were");
    let (calls, longest) = histories.stop();
    eprintln!("{calls} calls, the longest took {longest:?}");
}

/// Whoever is ahead by more than a release is told so, as are the others, and they go on without it.
#[test]
fn a_node_of_a_version_that_nobody_else_speaks_is_turned_away_with_the_reason() {
    let mut cluster = start(|_| {});
    cluster.set("before", "x");
    stop(&mut cluster, 3);
    cluster.nodes.set_flags(3, &["--peer-versions=3-4"]);
    cluster.nodes.restart(3).unwrap();
    let told = |node: u32, words: &str| {
        let line = |said: String| said.lines().find(|line| line.contains(words)).map(str::to_owned);
        until(|| line(cluster.words(node)), Option::is_some).unwrap()
    };
    let why = told(1, "node 3 speaks versions 3 to 4 of the nodes' protocol and this one versions 1 to 2");
    assert!(
        why.contains("no link between nodes") && why.contains("upgraded by one release at a time"),
        "{why}"
    );
    // It hears the same of itself, and has turned the others away.
    told(3, "node 3 speaks versions 3 to 4 of the nodes' protocol and this one versions 1 to 2");
    told(3, "speaks versions 1 to 2 of the nodes' protocol and this one versions 3 to 4");
    let answer = until(|| get(cluster.nodes.admin(3), "/readyz"), |it| it.status == 503);
    assert!(answer.text.contains("no leader that is known here"), "{answer:?}");
    cluster.set("during", "x");
    stop(&mut cluster, 3);
    cluster.nodes.set_flags(3, &[]);
    cluster.nodes.restart(3).unwrap();
    cluster.nodes.wait_until_founded(PATIENCE).unwrap();
    wait_for_protocol(&cluster, 3, 1, 2);
    assert_eq!(cluster.get("during").as_deref(), Some("x"));
}

#[test]
fn mistakes_get_one_clear_line_each_and_change_nothing() {
    let mut cluster = cluster();
    let refused = |cluster: &TestCluster, at: u32, words: &[&str], says: &str| {
        let done = run(&mut command(cluster, at, words));
        let said = text(&done.stderr);
        let status = done.status.code();
        assert!(
            status == Some(1) && said.contains(says) && said.lines().count() == 1,
            "{words:?}: {status:?} {said}"
        );
    };
    refused(&cluster, 1, &["rebalance", "--nodes", "1,2,9"], "there is no node 9");
    refused(
        &cluster,
        1,
        &["rebalance", "--nodes", "1,2"],
        "group 0 needs 3 nodes, one for each replica, and 2 would be left",
    );
    refused(&cluster, 1, &["rebalance"], "doesn't answer");
    refused(&cluster, 1, &["replace", "3", "4"], "node 4 is to get a replica of group 0 and doesn't answer");
    refused(&cluster, 1, &["replace", "1", "2"], "node 2 already has a replica of group 0");
    refused(&cluster, 1, &["remove", "3"], "group 0 needs 3 nodes");
    refused(&cluster, 4, &["nodes"], "refused");
    refused(&cluster, 4, &["rebalance"], "name a node that is up with --addr");
    assert_spread(&cluster, &[1, 2, 3]);
    let plan = order(&cluster, 1, &["rebalance", "--plan"]);
    assert!(plan.contains("9 replicas would move"), "{plan}");
    cluster.nodes.kill(2);
    cluster.nodes.kill(3);
    // A leader that nobody answers any more doesn't know it yet.
    let clock = Stopwatch::start();
    while cluster.info(1).contains("role=leader") {
        assert!(clock.elapsed() < PATIENCE, "{}", cluster.info(1));
    }
    refused(&cluster, 1, &["rebalance", "--nodes", "1"], "has no leader, and can't be changed without");
}

#[test]
fn the_judge_of_histories_is_just() {
    let call = |called: u64, returned: u64, sum: i64, is_read: bool| Call {
        key: 0,
        called: Duration::from_secs(called),
        returned: Duration::from_secs(returned),
        sum,
        is_read,
    };
    let good = [
        call(0, 5, 1, false),
        call(1, 2, 0, true),
        call(1, 6, 2, false),
        call(4, 5, 2, true),
        call(3, 6, 1, true),
    ];
    assert_eq!(judge(&good), Ok(()));
    for (bad, why) in [
        (call(7, 8, 1, true), "doesn't see"),
        (call(7, 8, 2, false), "lost or doubled"),
        (call(7, 8, 4, false), "lost or doubled"),
        (call(7, 8, 3, true), "nobody made"),
    ] {
        let error = judge(&[&good[..], &[bad]].concat()).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}
