//! More clients than a node likes, and odd ones: those that only sit there, those that come and go, those that don't read.

use crate::common::{PATIENCE, TestCluster, start};
use crate::load::percentile;
use crate::{alone, descriptors, memory_kib, process};
use flotilla_services::client::{Connection, Reply};
use flotilla_services::hands::{Stopwatch, pause, spawn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What another client sees meanwhile: the median and the 99th percentile of so many writes.
fn latency(client: &mut Connection, writes: usize) -> (Duration, Duration) {
    let mut took: Vec<Duration> = (0..writes)
        .map(|_| {
            let clock = Stopwatch::start();
            let reply = client.execute(&[b"SET", b"other", b"value"]).unwrap();
            assert_eq!(reply, Reply::Status("OK".to_owned()));
            clock.elapsed()
        })
        .collect();
    (percentile(&mut took, 50), percentile(&mut took, 99))
}

/// Whether a client that took so long before takes about as long now, on a machine that others use as well.
#[track_caller]
fn unharmed(before: (Duration, Duration), now: (Duration, Duration), at_most_ms: u64) {
    let more = Duration::from_millis(at_most_ms);
    assert!(now.0 <= 3 * before.0 + more && now.1 <= 5 * before.1 + 10 * more, "{before:?}, then {now:?}");
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = Stopwatch::start();
    while !is_so() {
        assert!(clock.elapsed() < PATIENCE, "it never happens that {what}");
        pause(Duration::from_millis(5));
    }
}

fn lone_with(connections_max: usize) -> TestCluster {
    start(|options| (options.nodes, options.limits.connections_max) = (1, connections_max))
}

fn open(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ping(mut stream: &TcpStream) {
    stream.write_all(b"PING\r\n").unwrap();
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
}

/// Ten thousand clients that do nothing cost little memory and nobody's time; the next one is turned away in Redis' words.
#[test]
fn ten_thousand_idle_connections_harm_nobody() {
    let _alone = alone();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let most = limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap());
    let count = most.saturating_sub(500).min(10_000);
    let cluster = lone_with(count + 1);
    let (pid, address) = (process(&cluster, 1), cluster.nodes.address(1));
    let mut other = cluster.connect(1);
    latency(&mut other, 500);
    let before = latency(&mut other, 1000);
    let (memory, _) = memory_kib(pid);
    let idle: Vec<TcpStream> = (0..count).map(|_| open(&address)).collect();
    idle.iter().for_each(ping);
    let each = (memory_kib(pid).0 - memory) * 1024 / count;
    let meanwhile = (0..3).map(|_| latency(&mut other, 1000)).min().unwrap();
    println!(
        "{count} idle connections, {each} bytes each; others took {before:.0?}, and now {meanwhile:.0?} (p50, p99)"
    );
    assert!(each <= 8192, "{each} bytes for each connection");
    unharmed(before, meanwhile, 2);
    let mut words = Vec::new();
    open(&address).read_to_end(&mut words).unwrap();
    assert_eq!(words, b"-ERR max number of clients reached\r\n");
    // One goes, and one may come.
    drop(idle.into_iter().next());
    wait_until("there is room again", || {
        let mut stream = open(&address);
        let mut reply = [0; 5];
        stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut reply).is_ok() && &reply == b"+PONG"
    });
}

/// Clients come, ask once and go, some without waiting for the answer: nothing is left of them, and nobody notices.
#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let _alone = alone();
    let cluster = lone_with(10_000);
    let (pid, address) = (process(&cluster, 1), cluster.nodes.address(1));
    let mut other = cluster.connect(1);
    let churn = |times: usize| {
        let threads = (0..4).map(|_| {
            let address = address.clone();
            spawn(move || {
                for number in 0..times {
                    let mut stream = open(&address);
                    match number % 3 {
                        0 => stream.write_all(b"SET k v\r\nGET k\r\n").unwrap(),
                        1 => stream.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nhalf of it").unwrap(),
                        _ => ping(&stream),
                    }
                }
            })
        });
        threads.collect::<Vec<_>>()
    };
    // What is allocated once is there after the first.
    churn(300).into_iter().for_each(|thread| thread.join().unwrap());
    let before = latency(&mut other, 1000);
    let clients = |other: &mut Connection| {
        let Reply::Bulk(info) = other.execute(&[b"INFO", b"clients"]).unwrap() else { panic!("INFO") };
        crate::common::text(&info).contains("connected_clients:1\r\n")
    };
    wait_until("they are gone", || clients(&mut other));
    let (open_before, memory) = (descriptors(pid), memory_kib(pid).0);
    let threads = churn(2000);
    let meanwhile = latency(&mut other, 1000);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    wait_until("they are gone", || clients(&mut other));
    wait_until("their descriptors are closed", || descriptors(pid) <= open_before);
    let grown = memory_kib(pid).0.saturating_sub(memory);
    println!(
        "8000 came and went: {grown} KiB more; another took {before:.0?}, and meanwhile {meanwhile:.0?} (p50, p99)"
    );
    assert!(grown <= 16 * 1024, "{grown} KiB are left of them");
    unharmed(before, meanwhile, 50);
}

/// Clients that ask for much and don't read it are cut off; what waits for them is bounded, and nobody else waits.
#[test]
fn clients_that_don_t_read_are_cut_off_and_harm_nobody() {
    let _alone = alone();
    const READERS: usize = 20;
    const OUTPUT_MIB: usize = 4;
    let cluster = start(|options| {
        (options.nodes, options.limits.client_output_bytes_max) = (1, OUTPUT_MIB << 20);
    });
    let (pid, address) = (process(&cluster, 1), cluster.nodes.address(1));
    let mut other = cluster.connect(1);
    other.execute(&[b"SET", b"large", &vec![b'x'; 256 << 10]]).unwrap();
    let before = latency(&mut other, 1000);
    let (memory, _) = memory_kib(pid);
    let readers: Vec<TcpStream> = (0..READERS).map(|_| open(&address)).collect();
    for mut reader in &readers {
        // Far more than what its socket holds.
        reader.write_all(&b"GET large\r\n".repeat(400)).unwrap();
    }
    let meanwhile = latency(&mut other, 1000);
    let mut cut = 0;
    for mut reader in readers {
        let mut read = 0;
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            read += count;
        }
        cut += usize::from(read < 400 * (256 << 10));
    }
    let grown = memory_kib(pid).1.saturating_sub(memory) / 1024;
    println!(
        "{cut} of {READERS} were cut off, {grown} MiB; another took {before:.0?}, and meanwhile {meanwhile:.0?}"
    );
    assert_eq!(cut, READERS);
    assert!(grown <= READERS * 4 * OUTPUT_MIB, "{grown} MiB for {READERS} of {OUTPUT_MIB} MiB each");
    unharmed(before, meanwhile, 50);
}

/// A client that sends faster than it can be served doesn't keep the node from serving the others.
#[test]
fn a_client_that_never_stops_sending_holds_up_nobody() {
    let _alone = alone();
    let cluster = lone_with(100);
    let address = cluster.nodes.address(1);
    let mut other = cluster.connect(1);
    let before = latency(&mut other, 1000);
    let over = Arc::new(AtomicBool::new(false));
    let floods = (0..2).map(|_| {
        let (address, over) = (address.clone(), Arc::clone(&over));
        spawn(move || {
            let mut stream = open(&address);
            let mut replies = stream.try_clone().unwrap();
            let reader = spawn(move || {
                let (mut buffer, mut read) = (vec![0; 1 << 20], 0);
                while let Ok(count @ 1..) = replies.read(&mut buffer) {
                    read += count;
                }
                read / b"+PONG\r\n".len()
            });
            let pings = b"PING\r\n".repeat(50_000);
            while !over.load(Ordering::Relaxed) {
                stream.write_all(&pings).unwrap();
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            reader.join().unwrap()
        })
    });
    let floods: Vec<_> = floods.collect();
    let clock = Stopwatch::start();
    let meanwhile = latency(&mut other, 200);
    // The less the other one waits, the sooner it is done; the others are to be served for a second.
    while clock.elapsed() < Duration::from_secs(1) {
        latency(&mut other, 10);
    }
    over.store(true, Ordering::Relaxed);
    let served: usize = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
    println!(
        "{served} PINGs were served; another took {before:.0?}, and meanwhile {meanwhile:.0?} (p50, p99)"
    );
    assert!(served > 100_000, "{served}");
    unharmed(before, meanwhile, 50);
}
