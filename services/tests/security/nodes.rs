//! TLS between nodes.

use super::authorities::Authority;
use super::common::{PATIENCE, TestCluster, start};
use super::tls::wait_for_words;
use flotilla_services::client::Reply;
use flotilla_services::config::{Demand, TlsSettings};
use flotilla_services::hands::{Stopwatch, pause};
use std::time::Duration;

fn leader(cluster: &TestCluster) -> u32 {
    let clock = Stopwatch::start();
    loop {
        if let Some(node) = (1..=3).find(|node| cluster.info(*node).contains("group0:role=leader")) {
            return node;
        }
        assert!(clock.elapsed() < PATIENCE, "nobody leads");
        pause(Duration::from_millis(5));
    }
}

fn between_nodes(settings: TlsSettings) -> TestCluster {
    start(|options| options.tls = Some(settings))
}

/// Gives a node another certificate, and restarts it.
fn restart_with(cluster: &mut TestCluster, node: u32, from: &TlsSettings, to: &TlsSettings) {
    let path = cluster.nodes.config(node).to_owned();
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [(&from.cert, &to.cert), (&from.key, &to.key), (&from.ca, &to.ca)] {
        text = text.replace(from.to_str().unwrap(), to.to_str().unwrap());
    }
    cluster.nodes.kill(node);
    std::fs::write(&path, text).unwrap();
    cluster.nodes.restart(node).unwrap_or_else(|error| panic!("{error}"));
}

fn wait_until_it_has(cluster: &TestCluster, node: u32, keys: u32) {
    let clock = Stopwatch::start();
    while !cluster.info(node).contains(&format!("keys={keys}")) {
        assert!(clock.elapsed() < PATIENCE, "node {node} doesn't catch up: {}", cluster.info(node));
        pause(Duration::from_millis(5));
    }
}

#[test]
fn three_nodes_elect_replicate_and_survive_under_mutual_tls() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Authority::new(folder.path(), "harbour").settings(Demand::Off, true);
    let mut cluster = between_nodes(settings);
    // A value of many records goes to the followers, too.
    let big = "x".repeat(1 << 20);
    cluster.set("big", &big);
    for number in 0..50 {
        cluster.set(&format!("key:{number}"), &number.to_string());
    }
    let killed = leader(&cluster);
    cluster.nodes.kill(killed);
    for number in 0..50 {
        assert_eq!(cluster.get(&format!("key:{number}")), Some(number.to_string()));
    }
    cluster.set("after", "the death");
    cluster.nodes.restart(killed).unwrap();
    wait_until_it_has(&cluster, killed, 52);
    assert_eq!(cluster.get("big"), Some(big));
}

/// A node of another authority is no node, and neither is one without TLS; the others go on.
#[test]
fn a_stranger_is_no_node() {
    let folder = tempfile::tempdir().unwrap();
    let own = Authority::new(folder.path(), "harbour").settings(Demand::Off, true);
    let abroad = folder.path().join("abroad");
    std::fs::create_dir(&abroad).unwrap();
    let strange = Authority::new(&abroad, "stranger").settings(Demand::Off, true);
    let mut cluster = between_nodes(own.clone());
    cluster.set("before", "x");
    let stranger = leader(&cluster) % 3 + 1;
    restart_with(&mut cluster, stranger, &own, &strange);
    cluster.set("during", "x");
    let line = wait_for_words(&cluster, stranger, "no TLS connection");
    assert!(line.contains("UnknownIssuer") || line.contains("unknown") || line.contains("Unknown"), "{line}");
    let other = stranger % 3 + 1;
    wait_for_words(&cluster, other, "no TLS connection");
    assert!(cluster.info(stranger).contains("leader=none"), "{}", cluster.info(stranger));
    // It had the first key; what it was told since is nothing.
    assert!(!cluster.info(stranger).contains("keys=2"), "{}", cluster.info(stranger));
    restart_with(&mut cluster, stranger, &strange, &own);
    wait_until_it_has(&cluster, stranger, 2);
}

/// A certificate that the authority has signed for another host is no node's, unless that is switched off.
#[test]
fn a_certificate_is_for_its_host() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "harbour");
    let own = authority.settings(Demand::Off, true);
    let (cert, key) = authority.certify("elsewhere", &["elsewhere.example"]);
    let elsewhere = TlsSettings { cert, key, ..own.clone() };
    let mut cluster = between_nodes(own.clone());
    cluster.set("before", "x");
    let odd = leader(&cluster) % 3 + 1;
    restart_with(&mut cluster, odd, &own, &elsewhere);
    cluster.set("during", "x");
    wait_for_words(&cluster, odd, "no TLS connection");
    let other = odd % 3 + 1;
    let clock = Stopwatch::start();
    while !cluster.words(other).contains("certificate not valid for name")
        && !cluster.words(other).contains("see tls.peer_hosts")
    {
        assert!(clock.elapsed() < PATIENCE, "{}", cluster.words(other));
        pause(Duration::from_millis(5));
    }
    assert!(cluster.info(odd).contains("leader=none"), "{}", cluster.info(odd));
    drop(cluster);

    // By the authority alone.
    let cluster = between_nodes(TlsSettings { peer_hosts: false, ..elsewhere });
    cluster.set("k", "v");
    assert!(matches!(cluster.connect(1).execute(&[b"PING"]), Ok(Reply::Status(_))));
}
