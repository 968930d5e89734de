//! Much data: what a key costs in memory, and how fast it is back after a restart. 200 000 keys by default;
//! `FLOTILLA_KEYS=10000000` measures what `docs/redis.md` states.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

mod common;

use common::{PATIENCE, start};
use flotilla_services::client::{Connection, Reply};
use flotilla_services::hands::{Stopwatch, pause, spawn};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Commands in one write.
const BATCH: usize = 1000;
/// A value's bytes. A key has 16.
const VALUE_BYTES: usize = 32;

/// Sets keys numbered from `first`, on one connection.
fn load(address: &str, first: usize, count: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let value = "v".repeat(VALUE_BYTES);
    let mut replies = vec![0; BATCH * 5];
    for batch in (first..first + count).step_by(BATCH) {
        let numbers = batch..(batch + BATCH).min(first + count);
        let replies = &mut replies[..numbers.len() * 5];
        let set = |number| format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:{number:012}\r\n$32\r\n{value}\r\n");
        stream.write_all(numbers.map(set).collect::<String>().as_bytes()).unwrap();
        stream.read_exact(replies).unwrap();
        assert!(replies.chunks(5).all(|reply| reply == b"+OK\r\n"), "{}", replies.escape_ascii());
    }
}

/// Loads all keys; returns how long it took.
fn load_all(address: &str, keys: usize) -> Duration {
    let clock = Stopwatch::start();
    let each = keys / 4;
    let threads = (0..4).map(|number| {
        let address = address.to_owned();
        spawn(move || load(&address, number * each, each))
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    clock.elapsed()
}

fn resident_bytes(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}

fn process(config: &Path) -> u32 {
    let config = config.to_str().unwrap();
    let of_node = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        common::text(&line).contains(config).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    };
    std::fs::read_dir("/proc").unwrap().flatten().find_map(of_node).unwrap()
}

/// Redis' bytes for each of the same keys, without persistence, if it is installed.
fn redis_bytes(keys: usize) -> Option<usize> {
    struct Server(Child);
    impl Drop for Server {
        fn drop(&mut self) {
            // It fails only if it is gone already.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut command = Command::new("redis-server");
    command.args(["--port", &free, "--save", "", "--appendonly", "no"]).stdout(Stdio::null());
    let server = Server(command.spawn().ok()?);
    let address = format!("127.0.0.1:{free}");
    let clock = Stopwatch::start();
    while Connection::open(&address, PATIENCE).is_err() {
        assert!(clock.elapsed() < PATIENCE, "redis-server doesn't listen");
        pause(Duration::from_millis(5));
    }
    let before = resident_bytes(server.0.id());
    load_all(&address, keys);
    Some((resident_bytes(server.0.id()) - before) / keys)
}

/// What is in memory for a key is less than six times the 48 bytes that the client gave, and all of them are back after a restart.
#[test]
fn many_keys_take_little_memory_and_are_soon_back() {
    let keys: usize = std::env::var("FLOTILLA_KEYS").map_or(200_000, |keys| keys.parse().unwrap());
    let mut cluster = start(|options| {
        options.nodes = 1;
        options.log.snapshot_after_bytes = 16 << 20;
    });
    let before = resident_bytes(process(cluster.nodes.config(1)));
    let took = load_all(&cluster.nodes.address(1), keys);
    let grown = resident_bytes(process(cluster.nodes.config(1))) - before;
    let count = |cluster: &common::TestCluster| cluster.connect(1).execute(&[b"DBSIZE"]).unwrap();
    let all = Reply::Integer(i64::try_from(keys).unwrap());
    assert_eq!(count(&cluster), all);
    let load_rate = keys as f64 / took.as_secs_f64();
    cluster.nodes.kill(1);
    let clock = Stopwatch::start();
    cluster.nodes.restart(1).unwrap();
    let ready = clock.elapsed();
    cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
    assert_eq!(count(&cluster), all);
    let served = clock.elapsed();
    let restarted = resident_bytes(process(cluster.nodes.config(1))).saturating_sub(before);
    let back = keys as f64 / served.as_secs_f64();
    println!(
        "{keys} keys of 16 bytes with values of {VALUE_BYTES}: loaded at {load_rate:.0}/s; {} bytes each, {} after a restart; \
         ready again after {ready:.2?}, serving after {served:.2?}: {back:.0} keys/s; redis: {:?} bytes each",
        grown / keys,
        restarted / keys,
        redis_bytes(keys),
    );
    // With what doesn't depend on the keys: the log in memory, and buffers.
    let fixed = 96 << 20;
    assert!(grown <= fixed + keys * 6 * (16 + VALUE_BYTES), "{grown} bytes");
}
