//! The engine against small servers of its own, each reply as told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::slots::SlotMap;
use super::*;
use crate::distribution::Distribution;
use crate::resp::{self, Reply};
use crate::workload::Operations;

type Answer = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

/// A server that answers each request, by its first word.
fn serve(answer: Arc<Answer>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve_one(socket, &*answer));
        }
    });
    address
}

fn serve_one(mut socket: TcpStream, answer: &Answer) {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = socket.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
        while let Some((Reply::Array(Some(words)), length)) = resp::parse(&bytes).unwrap() {
            let Some(Reply::Bulk(Some(word))) = words.first() else { return };
            if socket.write_all(&answer(word)).is_err() {
                return;
            }
            bytes.drain(..length);
        }
    }
}

fn load(clients: usize, rate: Option<f64>, reads_percent: u8) -> Load {
    Load {
        operations: Operations {
            first_key: 0,
            keys: 100,
            distribution: Distribution::Uniform,
            reads_percent,
            flavour: crate::workload::Flavour::Plain,
            value_bytes: 8,
            seed: 1,
            fill: false,
        },
        clients,
        pipeline: 1,
        rate,
        bursts: None,
        threads: 1,
        warmup: Duration::ZERO,
        seconds: Duration::from_millis(600),
    }
}

fn run_on(address: SocketAddr, load: &Load) -> Recorder {
    let map = SlotMap::discover(&[address.to_string()], false).unwrap();
    let phases = Phases::of(load, Duration::from_millis(1));
    run(load, phases, &map, &Interrupt::default(), || Ok(())).unwrap().0
}

#[test]
fn a_connection_that_ends_behind_a_reply_is_replaced() {
    // The first answers one of four requests that came together, and ends in the same breath.
    let first = std::sync::Mutex::new(true);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let answer: Arc<Answer> =
        Arc::new(
            |word| {
                if word == b"CLUSTER" { b"-ERR unknown command\r\n".to_vec() } else { b"+OK\r\n".to_vec() }
            },
        );
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut bytes = [0; 4096];
            let count = socket.peek(&mut bytes).unwrap_or(0);
            let is_load = bytes[..count].windows(3).any(|word| word == b"SET");
            if is_load && std::mem::take(&mut *first.lock().unwrap()) {
                let mut read = 0;
                while bytes[..read].windows(3).filter(|word| *word == b"SET").count() < 4 {
                    read += socket.read(&mut bytes[read..]).unwrap();
                }
                socket.write_all(b"+OK\r\n").unwrap();
                continue;
            }
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve_one(socket, &*answer));
        }
    });
    let recorder = run_on(address, &Load { pipeline: 4, ..load(1, None, 0) });
    assert_eq!(recorder.disconnects, 1);
    assert!(recorder.operations() > 10, "it goes on, on another: {}", recorder.operations());
}

#[test]
fn a_stall_shows_in_an_open_loop_and_hides_in_a_closed_one() {
    // Every reply at once, but for one pause of 300 ms: what is measured, not a wait for something.
    let stalling = || {
        let start = std::time::Instant::now();
        let stalled = std::sync::Mutex::new(false);
        serve(Arc::new(move |word| {
            let mut stalled = stalled.lock().unwrap();
            if word == b"SET" && !*stalled && start.elapsed() > Duration::from_millis(100) {
                *stalled = true;
                std::thread::sleep(Duration::from_millis(300));
            }
            if word == b"CLUSTER" { b"-ERR unknown command\r\n".to_vec() } else { b"+OK\r\n".to_vec() }
        }))
    };
    let slow = |recorder: &Recorder| {
        let slow_ns = 100_000_000;
        recorder.writes.len() - recorder.writes.count_between(0, slow_ns)
    };
    // Longer than the pause by far: on a busy machine it may begin late.
    let closed = run_on(stalling(), &Load { seconds: Duration::from_secs(2), ..load(1, None, 0) });
    // Once, and whenever a busy machine let it wait.
    assert!((1..=15).contains(&slow(&closed)), "the only client waited once: {}", slow(&closed));
    let open = run_on(stalling(), &load(1, Some(1000.0), 0));
    assert_eq!(open.operations(), 600, "every arrival is accounted for");
    // Those that were due in the first 200 ms of the pause waited for 100 ms or more.
    assert!(slow(&open) >= 150, "{} of 600", slow(&open));
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let address = serve(Arc::new(|word| match word {
        b"GET" => b"$-1\r\n".to_vec(),
        _ => b"-ERR unknown command\r\n".to_vec(),
    }));
    let recorder = run_on(address, &load(4, Some(500.0), 100));
    assert_eq!((recorder.reads.len(), recorder.misses), (300, 300));
}

#[test]
fn moved_is_followed_without_an_error() {
    let home = serve(Arc::new(|_| b"+OK\r\n".to_vec()));
    let asked = serve(Arc::new(move |word| match word {
        // It knows no leader of any slot, and sends every key away.
        b"CLUSTER" => b"*0\r\n".to_vec(),
        _ => format!("-MOVED 5 {home}\r\n").into_bytes(),
    }));
    let recorder = run_on(asked, &load(2, None, 0));
    assert!(
        recorder.operations() > 10 && recorder.redirects >= recorder.operations(),
        "{:?}",
        recorder.errors
    );
    assert!(recorder.errors.is_empty(), "{:?}", recorder.errors);
}

#[test]
fn errors_are_counted_by_their_code_and_slow_the_client_down() {
    let address = serve(Arc::new(|word| match word {
        b"CLUSTER" => b"-ERR unknown command\r\n".to_vec(),
        _ => b"-BUSY try later\r\n".to_vec(),
    }));
    let recorder = run_on(address, &load(2, None, 0));
    let busy = recorder.errors["BUSY"];
    assert_eq!(recorder.operations(), 0);
    assert!((2..=130).contains(&busy), "two clients that rest 10 ms after each error: {busy}");
}

#[test]
fn broken_connections_are_errors_and_are_reopened() {
    let count = AtomicU64::new(0);
    let address = serve(Arc::new(move |word| {
        let served = count.fetch_add(1, Ordering::Relaxed);
        match word {
            b"CLUSTER" => b"-ERR unknown command\r\n".to_vec(),
            // Not RESP: the engine hangs up.
            _ if served % 10 == 9 => b"?\r\n".to_vec(),
            _ => b"+OK\r\n".to_vec(),
        }
    }));
    let recorder = run_on(address, &load(2, None, 0));
    assert!(recorder.disconnects > 1 && recorder.operations() > 10, "{:?}", recorder.errors);
    assert_eq!(recorder.errors["connection: invalid data"], recorder.disconnects);
}

/// Runs `load` on a Redis whose writes wait for two replicas.
fn run_waiting(address: SocketAddr, load: &Load) -> Recorder {
    let mut map = SlotMap::discover(&[address.to_string()], true).unwrap();
    map.wait = 2;
    let phases = Phases::of(load, Duration::from_millis(1));
    run(load, phases, &map, &Interrupt::default(), || Ok(())).unwrap().0
}

#[test]
fn a_write_is_done_when_its_replicas_have_it_and_a_pipeline_asks_once() {
    let asked = Arc::new([const { AtomicU64::new(0) }; 2]);
    let counts = Arc::clone(&asked);
    let address = serve(Arc::new(move |word| match word {
        b"WAIT" => {
            counts[1].fetch_add(1, Ordering::Relaxed);
            b":2\r\n".to_vec()
        }
        b"SET" => {
            counts[0].fetch_add(1, Ordering::Relaxed);
            b"+OK\r\n".to_vec()
        }
        _ => b"+PONG\r\n".to_vec(),
    }));
    let recorder = run_waiting(address, &Load { pipeline: 8, ..load(2, None, 0) });
    let [sets, waits] = [0, 1].map(|place: usize| asked[place].load(Ordering::Relaxed));
    assert!(recorder.operations() > 10 && recorder.errors.is_empty(), "{:?}", recorder.errors);
    assert!(sets >= 8 * (waits - 2) && waits > 2, "{sets} SETs and {waits} WAITs");
    let few = serve(Arc::new(|word| match word {
        b"WAIT" => b":1\r\n".to_vec(),
        _ => b"+OK\r\n".to_vec(),
    }));
    let recorder = run_waiting(few, &load(2, None, 0));
    assert_eq!(recorder.operations(), 0, "one replica isn't two");
    assert!(recorder.errors["too few replicas"] > 1, "{:?}", recorder.errors);
}

#[test]
fn a_modification_is_a_read_and_a_write_and_counts_once() {
    let asked = Arc::new([const { AtomicU64::new(0) }; 2]);
    let counts = Arc::clone(&asked);
    let address = serve(Arc::new(move |word| match word {
        b"GET" => {
            counts[0].fetch_add(1, Ordering::Relaxed);
            b"$1\r\nx\r\n".to_vec()
        }
        b"SET" => {
            counts[1].fetch_add(1, Ordering::Relaxed);
            b"+OK\r\n".to_vec()
        }
        _ => b"-ERR unknown command\r\n".to_vec(),
    }));
    let mut modify = load(2, None, 0);
    modify.operations.flavour = crate::workload::Flavour::ReadModifyWrite;
    let recorder = run_on(address, &modify);
    let [gets, sets] = [0, 1].map(|place: usize| asked[place].load(Ordering::Relaxed));
    assert!(gets.abs_diff(sets) <= 2 && sets > 10, "{gets} GETs and {sets} SETs");
    // Those that were answered after the end don't count.
    assert!(
        recorder.writes.len().abs_diff(sets) <= 4 && recorder.reads.is_empty(),
        "{}",
        recorder.writes.len()
    );
}
