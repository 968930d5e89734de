//! Shards that move between groups while people's clients use them, with real processes.

use crate::common::load::Load;
use crate::common::mover::{Mover, change};
use crate::common::{PATIENCE, TestCluster, client, output, program, run, start, text};
use flotilla_services::client::{Connection, Reply};
use flotilla_services::config::Redirect;
use std::process::Command;

/// Three nodes of two cores, two groups with all shards, two without.
fn cluster() -> TestCluster {
    start(|options| (options.cores, options.groups, options.spare_groups) = (2, 2, 2))
}

#[test]
fn clients_notice_nothing_of_shards_that_move() {
    let cluster = cluster();
    for number in 0..500 {
        cluster.set(&format!("kept:{number}"), &"v".repeat(1000));
    }
    let loads: Vec<Load> = (0..6).map(|number| Load::start(&cluster, number)).collect();
    let mover = Mover::start(&cluster);
    let changes = mover.stop();
    for load in loads {
        let (answered, longest) = load.stop();
        eprintln!("{answered} writes and reads over {changes} changes, the longest took {longest:?}");
        assert!(answered > 20 && longest < PATIENCE / 10, "{answered}, {longest:?}");
    }
    for number in 0..500 {
        assert_eq!(cluster.get(&format!("kept:{number}")), Some("v".repeat(1000)));
    }
}

#[test]
fn a_leader_s_death_in_the_middle_of_a_move_loses_nothing() {
    let mut cluster = cluster();
    for number in 0..500 {
        cluster.set(&format!("kept:{number}"), &"v".repeat(4000));
    }
    let loads: Vec<Load> = (0..3).map(|number| Load::start(&cluster, number)).collect();
    for (round, words) in [["JOIN", "2", "3"], ["LEAVE", "0", "1"], ["JOIN", "0", "1"]].iter().enumerate() {
        let node = u32::try_from(round).unwrap() + 1;
        let mut connection = cluster.connect(node);
        let command: Vec<&[u8]> = std::iter::once(&b"FLOTILLA.CLUSTER"[..])
            .chain(words.iter().map(|word| word.as_bytes()))
            .collect();
        let begun = connection.execute(&command).unwrap();
        assert!(matches!(begun, Reply::Integer(_)), "{begun}");
        // Groups are led by different nodes: each of them dies once while shards are on their way.
        cluster.nodes.kill(node);
        cluster.nodes.restart(node).unwrap();
        change(&cluster.nodes.address(node % 3 + 1), &["status"]);
    }
    for load in loads {
        let (answered, longest) = load.stop();
        eprintln!("{answered} writes and reads, the longest took {longest:?}");
    }
    for number in 0..500 {
        assert_eq!(cluster.get(&format!("kept:{number}")), Some("v".repeat(4000)));
    }
}

#[test]
fn people_s_cluster_clients_ride_over_a_resharding() {
    let (Some(redis_cli), Some(benchmark)) = (client("redis-cli"), client("redis-benchmark")) else { return };
    let cluster = cluster();
    let mover = Mover::start(&cluster);
    rust_cluster_client(&cluster);
    for number in 0..30 {
        let (key, value) = (format!("cli:{number}"), format!("value:{number}"));
        let cli = |args: &[&str]| {
            output(Command::new(&redis_cli).args(["-c", "-p", &cluster.port(1 + number % 3)]).args(args))
        };
        // redis-cli follows MOVED and does nothing else by itself.
        assert_eq!(retried(|| cli(&["set", &key, &value])), "OK\n");
        assert_eq!(retried(|| cli(&["get", &key])), format!("{value}\n"));
    }
    if let Some(python) = client("python").filter(|path| path.ends_with("test-clients/bin/python")) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/redis_py_resharding.py");
        let said = output(Command::new(&python).args([script, "127.0.0.1", &cluster.port(1)]));
        assert!(said.starts_with("ok "), "{said}");
    }
    // It asks once where the slots are, and ends at the first MOVED; but it must end with that, and disturb nobody.
    let mut command = Command::new(&benchmark);
    command.args(["-p", &cluster.port(2), "--cluster", "-t", "set", "-n", "4000", "-c", "10", "-q"]);
    let report = text(&run(&mut command).stdout);
    eprintln!("redis-benchmark --cluster: {}", report.lines().last().unwrap_or_default());
    eprintln!("{} changes", mover.stop());
}

/// Whether nobody leads the key's group at the moment, as after a start, when leaderships go where they belong.
fn may_be_retried(said: &str) -> bool {
    said.starts_with("TRYAGAIN ") || said.starts_with("CLUSTERDOWN ")
}

/// Says it again as long as the answer is that it may be tried again.
fn retried(mut say: impl FnMut() -> String) -> String {
    loop {
        let said = say();
        if !may_be_retried(&said) {
            return said;
        }
    }
}

fn rust_cluster_client(cluster: &TestCluster) {
    use redis::Commands;
    let seeds = (1..=3).map(|node| format!("redis://{}/", cluster.nodes.address(node)));
    let client = redis::cluster::ClusterClient::new(seeds.collect::<Vec<_>>()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for number in 0..2000 {
        let key = format!("rust:{number}");
        connection.set::<_, _, ()>(&key, number).unwrap();
        assert_eq!(connection.get::<_, i64>(&key).unwrap(), number);
    }
}

#[test]
fn a_client_that_knows_no_cluster_is_served_through_a_resharding() {
    let cluster = start(|options| {
        (options.cores, options.groups, options.spare_groups) = (2, 2, 2);
        options.redirect = Redirect::Forward;
    });
    let mover = Mover::start(&cluster);
    let mut connection = Connection::open(&cluster.nodes.address(1), PATIENCE).unwrap();
    let (mut done, mut again) = (0, 0);
    for number in 0..3000 {
        let (key, value) = (format!("plain:{}", number % 100), number.to_string());
        let set: [&[u8]; 3] = [b"SET", key.as_bytes(), value.as_bytes()];
        loop {
            match connection.execute(&set).unwrap() {
                Reply::Status(_) => break,
                Reply::Error(error) if may_be_retried(&error) => again += 1,
                other => panic!("{other}"),
            }
        }
        match connection.execute(&[b"GET", key.as_bytes()]).unwrap() {
            Reply::Bulk(bytes) => assert_eq!(text(&bytes), value),
            Reply::Error(error) if may_be_retried(&error) => again += 1,
            other => panic!("{other}"),
        }
        done += 2;
    }
    eprintln!("{done} commands over {} changes, {again} of them were to be tried again", mover.stop());
    assert!(again * 20 < done, "{again} of {done}");
}

#[test]
fn bad_orders_change_nothing() {
    let cluster = cluster();
    let order = |words: &[&str]| {
        let mut command = Command::new(program());
        command.arg("cluster").args(words).args(["--addr", &cluster.nodes.address(2)]);
        let done = run(&mut command);
        (done.status.code(), text(&done.stderr))
    };
    for (words, says) in [
        (&["join", "9"][..], "count from 0"),
        (&["join", "nonsense"], "count from 0"),
        (&["leave", "0", "1"], "somebody has to serve"),
        (&["move", "9999", "1"], "count from 0"),
        (&["query", "77"], "there is no such configuration"),
    ] {
        let (status, said) = order(words);
        assert!(status == Some(1) && said.contains(says), "{words:?}: {status:?} {said}");
    }
    let none = start(|options| options.controller = false);
    let mut command = Command::new(program());
    let done = run(command.args(["cluster", "join", "0", "--addr", &none.nodes.address(1)]));
    assert!(text(&done.stderr).contains("no controller"), "{}", text(&done.stderr));
}
