//! What the labs ask of their network, of real processes, sockets and links between nodes; and of a node that ends.

use crate::common::{PATIENCE, TestCluster, lone, start, text};
use flotilla_services::client::{Connection, Reply};
use flotilla_services::config::Redirect;
use flotilla_services::hands::{Stopwatch, pause, spawn};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many commands the node has been given so far, this question included.
fn commands(connection: &mut Connection) -> u64 {
    let Reply::Bulk(info) = connection.execute(&[b"INFO", b"stats"]).unwrap() else { panic!("INFO") };
    let info = text(&info);
    let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    line.unwrap().trim().parse().unwrap()
}

/// NET-01: a command reaches what its name says, with numbers and words either way.
#[test]
fn a_command_reaches_what_its_name_says_net_01() {
    let cluster = lone();
    let mut client = cluster.connect(1);
    assert_eq!(client.execute(&[b"SET", b"number", b"41"]).unwrap(), Reply::Status("OK".to_owned()));
    assert_eq!(client.execute(&[b"incr", b"number"]).unwrap(), Reply::Integer(42));
    assert_eq!(client.execute(&[b"GET", b"number"]).unwrap(), Reply::Bulk(b"42".to_vec()));
    assert!(matches!(client.execute(&[b"INCREASE", b"number"]).unwrap(), Reply::Error(_)));
}

/// NET-02: arguments and replies of every shape arrive as they were: empty, with any bytes, long, nested.
#[test]
fn any_bytes_arrive_as_they_were_net_02() {
    let cluster = lone();
    let mut client = cluster.connect(1);
    let all: Vec<u8> = (0..=255).collect();
    let long = all.repeat(4096);
    let values: [&[u8]; 4] = [b"", b"\r\n$-1\r\n", &all, &long];
    for value in values {
        client.execute(&[b"SET", b"{k}1", value]).unwrap();
        assert_eq!(client.execute(&[b"GET", b"{k}1"]).unwrap(), Reply::Bulk(value.to_vec()));
        let both = client.execute(&[b"MGET", b"{k}1", b"{k}none"]).unwrap();
        assert_eq!(both, Reply::Array(vec![Reply::Bulk(value.to_vec()), Reply::Null]));
    }
}

/// NET-04, NET-06: twenty clients with ten commands each, all answered, and the node has counted exactly those.
#[test]
fn twenty_clients_at_once_are_counted_exactly_net_06_net_04() {
    let cluster = Arc::new(lone());
    let mut counter = cluster.connect(1);
    let before = commands(&mut counter);
    for number in 1..=17 {
        assert_eq!(counter.execute(&[b"INCR", b"seventeen"]).unwrap(), Reply::Integer(number));
    }
    assert_eq!(commands(&mut counter), before + 17 + 1);
    let clients = (0..20).map(|number: u32| {
        let cluster = Arc::clone(&cluster);
        spawn(move || {
            let mut client = cluster.connect(1);
            let key = format!("key:{number}");
            for round in 1..=10 {
                let reply = client.execute(&[b"INCR", key.as_bytes()]).unwrap();
                assert_eq!(reply, Reply::Integer(round));
            }
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(commands(&mut counter), before + 18 + 200 + 1);
}

/// NET-08: twenty commands at once on one connection are all answered, in order, and counted.
#[test]
fn twenty_at_once_on_one_connection_net_08() {
    let cluster = lone();
    let mut client = cluster.connect(1);
    let before = commands(&mut client);
    let command: &[&[u8]] = &[b"INCR", b"counter"];
    client.send(std::iter::repeat_n(command, 20)).unwrap();
    for number in 1..=20 {
        assert_eq!(client.receive().unwrap(), Reply::Integer(number));
    }
    assert_eq!(commands(&mut client), before + 20 + 1);
}

/// The process of a node.
fn process(cluster: &TestCluster, node: u32) -> Pid {
    let config = cluster.nodes.config(node).to_str().unwrap().to_owned();
    let of_node = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        text(&line).contains(&config).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    };
    let found = std::fs::read_dir("/proc").unwrap().flatten().find_map(of_node);
    Pid::from_raw(found.unwrap()).unwrap()
}

/// The node that leads the only group.
fn leader(cluster: &TestCluster) -> u32 {
    let clock = Stopwatch::start();
    loop {
        let leads = |node: &u32| cluster.info(*node).contains("group0:role=leader");
        if let Some(node) = (1..=3).find(leads) {
            return node;
        }
        assert!(clock.elapsed() < PATIENCE, "nobody leads");
        pause(Duration::from_millis(5));
    }
}

/// NET-10, COD-04: sixty-four commands of sixteen clients are on their way over one link to a node that takes them in and
/// doesn't answer. When it dies, every one of them ends.
#[test]
fn what_waits_for_a_node_ends_when_it_dies_net_10_cod_04() {
    let mut cluster = start(|options| options.redirect = Redirect::Forward);
    let leader = leader(&cluster);
    let other = leader % 3 + 1;
    let mut clients: Vec<Connection> = (0..16).map(|_| cluster.connect(other)).collect();
    let command: &[&[u8]] = &[b"INCR", b"counter"];
    // The link multiplexes: all are answered, each with its own.
    let mut values = Vec::new();
    clients.iter_mut().for_each(|client| client.send(std::iter::repeat_n(command, 4)).unwrap());
    for client in &mut clients {
        for _ in 0..4 {
            let Reply::Integer(value) = client.receive().unwrap() else { panic!("INCR") };
            values.push(value);
        }
    }
    values.sort_unstable();
    assert_eq!(values, (1..=64).collect::<Vec<i64>>());
    kill_process(process(&cluster, leader), Signal::STOP).unwrap();
    clients.iter_mut().for_each(|client| client.send(std::iter::repeat_n(command, 4)).unwrap());
    cluster.nodes.kill(leader);
    let clock = Stopwatch::start();
    for client in &mut clients {
        let told = (0..4).filter(|_| matches!(client.receive(), Ok(Reply::Integer(_)))).count();
        assert_eq!(told, 0, "nobody can have counted it");
    }
    assert!(clock.elapsed() < Duration::from_secs(2), "they waited for {:?}", clock.elapsed());
    // The others have a leader soon, and the same clients' successors are served.
    let mut again = cluster.connect(other);
    let clock = Stopwatch::start();
    while !matches!(again.execute(command), Ok(Reply::Integer(_))) {
        assert!(clock.elapsed() < PATIENCE, "nobody serves");
        pause(Duration::from_millis(5));
        again = cluster.connect(other);
    }
}

/// RSM-06, H-25: a hundred clients are busy while every node is asked to stop. All of them hear of it, the nodes end well,
/// and no process is left.
#[test]
fn every_client_hears_of_the_end_rsm_06_h25() {
    let mut cluster = start(|_| {});
    let (served, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let leader = leader(&cluster);
    let clients = (0..100).map(|number: u32| {
        let mut client = cluster.connect(leader);
        let (served, ended) = (Arc::clone(&served), Arc::clone(&ended));
        spawn(move || {
            let key = format!("key:{number}");
            while let Ok(reply) = client.execute(&[b"INCR", key.as_bytes()]) {
                let elsewhere = matches!(reply, Reply::Error(_));
                served.fetch_add(usize::from(!elsewhere), Ordering::Relaxed);
            }
            ended.fetch_add(1, Ordering::Relaxed);
        })
    });
    let clients: Vec<_> = clients.collect();
    let clock = Stopwatch::start();
    while served.load(Ordering::Relaxed) < 1000 {
        assert!(clock.elapsed() < PATIENCE, "they aren't served");
        pause(Duration::from_millis(2));
    }
    let processes: Vec<Pid> = (1..=3).map(|node| process(&cluster, node)).collect();
    let clock = Stopwatch::start();
    for pid in &processes {
        kill_process(*pid, Signal::TERM).unwrap();
    }
    for node in 1..=3 {
        let status = cluster.nodes.wait_for_end(node, PATIENCE).expect("it ends");
        assert!(status.success(), "node {node}: {status}: {}", cluster.words(node));
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(ended.load(Ordering::Relaxed), 100);
    assert!(clock.elapsed() < Duration::from_secs(11), "it took {:?}", clock.elapsed());
    for pid in processes {
        assert!(!std::path::Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists());
    }
}
