//! A cluster whose nodes reach each other over narrow lines: so much a second and no more, whatever else this machine does.

use crate::common::{PATIENCE, TestCluster, start};
use flotilla_services::hands::{Stopwatch, pause, spawn};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// What a line holds by itself, in bytes: little, so that it is the leader's queue that grows.
const LINE_BYTES: usize = 64 * 1024;

/// Three nodes, between which `bytes_per_second` go over each line; and which of them leads.
pub(crate) fn narrow(bytes_per_second: usize) -> (TestCluster, u32) {
    // What a line holds is ahead of a heartbeat; who leads is no matter of this.
    let mut cluster = start(|options| options.raft.election_timeout_ms = 2000);
    let configs: Vec<_> = (1..=3).map(|node| cluster.nodes.config(node).to_owned()).collect();
    let texts: Vec<_> = configs.iter().map(|config| std::fs::read_to_string(config).unwrap()).collect();
    let port_of = |line: &str| line.strip_prefix("peer_port = ")?.trim().parse::<u16>().ok();
    let ports: Vec<u16> = texts[0].lines().filter_map(port_of).collect();
    assert_eq!(ports.len(), 3, "{}", texts[0]);
    (1..=3).for_each(|node| cluster.nodes.kill(node));
    for (node, (config, text)) in configs.iter().zip(&texts).enumerate() {
        let lines = text.lines().map(|line| match port_of(line) {
            Some(port) if port != ports[node] => format!("peer_port = {}", line_to(port, bytes_per_second)),
            _ => line.to_owned(),
        });
        std::fs::write(config, lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    // Two of them have to be there before the first one is ready.
    (1..=3).for_each(|node| cluster.nodes.restart(node).unwrap());
    cluster.nodes.wait_until_founded(PATIENCE).unwrap();
    let clock = Stopwatch::start();
    loop {
        let leads = |node: &u32| cluster.info(*node).contains("group0:role=leader");
        if let Some(leader) = (1..=3).find(leads) {
            return (cluster, leader);
        }
        assert!(clock.elapsed() < PATIENCE, "nobody leads");
        pause(Duration::from_millis(5));
    }
}

/// Listens, and passes on what comes; returns the port. Ends with the test's process.
fn line_to(port: u16, bytes_per_second: usize) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    set_socket_recv_buffer_size(&listener, LINE_BYTES).unwrap();
    let own = listener.local_addr().unwrap().port();
    spawn(move || {
        for near in listener.incoming() {
            // A node that isn't there yet, or any more: the other one tries again.
            let (Ok(near), Ok(far)) = (near, TcpStream::connect(("127.0.0.1", port))) else { continue };
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let (back, front) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            spawn(move || pass_on(near, far, Some(bytes_per_second)));
            spawn(move || pass_on(back, front, None));
        }
    });
    own
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, bytes_per_second: Option<usize>) {
    let mut buffer = vec![0; LINE_BYTES];
    let clock = Stopwatch::start();
    // When the line is free again: what was passed on takes its time.
    let mut free_at = Duration::ZERO;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if let Some(rate) = bytes_per_second {
            pause(free_at.saturating_sub(clock.elapsed()));
            free_at = free_at.max(clock.elapsed()) + Duration::from_secs_f64(count as f64 / rate as f64);
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
