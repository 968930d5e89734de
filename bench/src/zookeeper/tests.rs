//! The engine against a small ZooKeeper of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;
use crate::distribution::Distribution;
use crate::workload::{Flavour, Operations};

/// What the members have seen, all of them together.
#[derive(Default)]
struct Seen {
    znodes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Sessions opened and closed, at each member.
    sessions: [(usize, usize); 3],
    /// How often each type of request came.
    requests: BTreeMap<i32, usize>,
    /// Keys of which a write is refused, once each.
    throttled: BTreeSet<Vec<u8>>,
    /// After so many requests a member hangs up, once.
    hangs_up_at: Option<usize>,
    /// A reply to a request that nobody made, instead of the one after so many.
    confused_at: Option<usize>,
}

const STAT: [u8; 68] = [0; 68];

fn take<'a>(record: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = record.split_at(count);
    *record = rest;
    taken
}

fn int(record: &mut &[u8]) -> i32 {
    i32::from_be_bytes(take(record, 4).try_into().unwrap())
}

fn buffer<'a>(record: &mut &'a [u8]) -> &'a [u8] {
    let length = int(record) as usize;
    take(record, length)
}

fn send(socket: &mut TcpStream, parts: &[&[u8]]) -> std::io::Result<()> {
    let record = parts.concat();
    socket.write_all(&[&(record.len() as i32).to_be_bytes()[..], &record].concat())
}

fn receive(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut record = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut record)?;
    Ok(record)
}

/// One session at member `member`, until it is closed or breaks.
fn serve_one(mut socket: TcpStream, member: usize, seen: &Mutex<Seen>) -> std::io::Result<()> {
    assert_eq!(receive(&mut socket)?.len(), 45, "a session begins with its request");
    seen.lock().unwrap().sessions[member].0 += 1;
    send(&mut socket, &[&[0; 4], &30_000_i32.to_be_bytes(), &[1; 8], &16_i32.to_be_bytes(), &[2; 16], &[0]])?;
    loop {
        let record = receive(&mut socket)?;
        let mut rest = &record[..];
        let (xid, kind) = (int(&mut rest), int(&mut rest));
        let mut state = seen.lock().unwrap();
        *state.requests.entry(kind).or_default() += 1;
        let total: usize = state.requests.values().sum();
        if state.hangs_up_at.is_some_and(|at| total > at) {
            state.hangs_up_at = None;
            return Ok(());
        }
        let confused = state.confused_at.is_some_and(|at| total > at);
        let (mut error, mut fields) = (0, Vec::new());
        match kind {
            -11 => state.sessions[member].1 += 1,
            1 | 4 | 5 => {
                let path = buffer(&mut rest).to_vec();
                assert!(path.starts_with(b"/key:") && path.len() == 17, "{path:?}");
                match (kind, state.znodes.contains_key(&path)) {
                    (1, true) => error = -110,
                    (4 | 5, false) => error = -101,
                    (5, true) if state.throttled.remove(&path) => error = -127,
                    (4, true) => {
                        let value = &state.znodes[&path];
                        fields = [&(value.len() as i32).to_be_bytes(), &value[..], &STAT].concat();
                    }
                    (create, _) => {
                        let value = buffer(&mut rest).to_vec();
                        fields = match create {
                            1 => [&17_i32.to_be_bytes(), &path[..]].concat(),
                            _ => STAT.to_vec(),
                        };
                        state.znodes.insert(path, value);
                    }
                }
            }
            11 => assert_eq!(xid, -2),
            other => panic!("a request of type {other}"),
        }
        let xid = if confused {
            state.confused_at = None;
            9999
        } else {
            xid
        };
        drop(state);
        // A sign of life that nobody asked for, before each reply: it answers nothing.
        send(&mut socket, &[&(-2_i32).to_be_bytes(), &[0; 12]])?;
        send(&mut socket, &[&xid.to_be_bytes(), &[0; 8], &i32::to_be_bytes(error), &fields])?;
        if kind == -11 {
            return Ok(());
        }
    }
}

/// Three members that share their state.
fn serve(seen: Seen) -> (Ensemble, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(seen));
    let member = |number: usize| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::clone(&seen);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                // The end of a connection is no news here.
                std::thread::spawn(move || drop(serve_one(socket, number, &seen)));
            }
        });
        address
    };
    let members = (0..3).map(member).collect();
    (Ensemble { members, version: "1".to_owned() }, seen)
}

fn load(clients: usize, flavour: Flavour, reads_percent: u8, fill: bool) -> Load {
    Load {
        operations: Operations {
            first_key: 0,
            keys: 100,
            distribution: Distribution::Uniform,
            reads_percent,
            flavour,
            value_bytes: 8,
            seed: 1,
            fill,
        },
        clients,
        pipeline: 4,
        rate: None,
        bursts: None,
        threads: 1,
        warmup: Duration::ZERO,
        seconds: Duration::from_millis(300),
    }
}

fn run_on(ensemble: &Ensemble, load: &Load) -> Recorder {
    let phases = Phases::of(load, Duration::from_millis(1));
    run(load, phases, ensemble, &Interrupt::default(), || Ok(())).unwrap().0
}

#[test]
fn a_fill_creates_and_the_load_sets_and_gets_in_sessions_that_are_closed() {
    let (ensemble, seen) = serve(Seen::default());
    let filled = run_on(&ensemble, &load(8, Flavour::Plain, 0, true));
    assert_eq!((filled.operations(), &filled.errors), (100, &BTreeMap::new()));
    let requests = std::mem::take(&mut seen.lock().unwrap().requests);
    assert_eq!((requests[&1], requests.get(&5)), (100, None), "all were new");
    let mixed = run_on(&ensemble, &load(8, Flavour::Plain, 50, false));
    assert!(
        mixed.reads.len() > 10 && mixed.writes.len() > 10 && mixed.errors.is_empty(),
        "{:?}",
        mixed.errors
    );
    assert_eq!((mixed.misses, mixed.disconnects), (0, 0));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.requests.get(&1), None, "all were there");
    // Two loads of eight clients; the first member has the first client.
    assert_eq!(seen.sessions, [(6, 6), (6, 6), (4, 4)]);
    assert!(seen.znodes.values().all(|value| value.len() == 8) && seen.znodes.len() == 100);
}

#[test]
fn what_is_there_against_expectation_is_set_and_what_isn_t_is_created() {
    let (ensemble, seen) = serve(Seen::default());
    // Nothing is filled: reads miss, and each write of a new key costs two requests.
    let first = run_on(&ensemble, &load(3, Flavour::Plain, 50, false));
    assert!(first.errors.is_empty() && first.misses > 0, "{:?}", first.errors);
    let keys = seen.lock().unwrap().znodes.len();
    assert!(keys > 10 && seen.lock().unwrap().requests[&1] >= keys);
    let again = run_on(&ensemble, &load(3, Flavour::Plain, 0, true));
    assert_eq!((again.operations(), again.errors.len()), (100, 0), "a fill over what is there");
    let inserts = run_on(&ensemble, &load(3, Flavour::Insert, 0, false));
    assert!(inserts.operations() > 10 && inserts.errors.is_empty(), "{:?}", inserts.errors);
}

#[test]
fn errors_have_zookeepers_names_and_are_done_again_by_a_fill() {
    let key = b"/key:000000000007".to_vec();
    let znodes = BTreeMap::from([(key.clone(), Vec::new())]);
    let (ensemble, seen) = serve(Seen { znodes, throttled: BTreeSet::from([key]), ..Seen::default() });
    let filled = run_on(&ensemble, &load(2, Flavour::Plain, 0, true));
    assert_eq!((filled.operations(), filled.errors["ThrottledOp"]), (100, 1));
    assert!(seen.lock().unwrap().znodes.values().all(|value| value.len() == 8));
}

#[test]
fn a_session_that_breaks_or_answers_out_of_order_is_replaced() {
    for seen in
        [Seen { hangs_up_at: Some(20), ..Seen::default() }, Seen { confused_at: Some(20), ..Seen::default() }]
    {
        let (ensemble, seen) = serve(seen);
        let filled = run_on(&ensemble, &load(1, Flavour::Plain, 0, true));
        assert_eq!((filled.operations(), filled.disconnects), (100, 1), "{:?}", filled.errors);
        let (code, failed) = filled.errors.first_key_value().unwrap();
        assert!(code.starts_with("connection: ") && (1..=4).contains(failed), "{:?}", filled.errors);
        assert_eq!(seen.lock().unwrap().sessions[0], (2, 1), "a second one in place of the one that broke");
    }
}

#[test]
fn a_member_tells_its_version_and_its_role_once_it_serves() {
    let text = "Zookeeper version: 3.8.0-${mvngit.commit.id}, built on 2024-12-29 17:54 UTC\n\
                Latency min/avg/max: 0/0.0/0\nMode: leader\nNode count: 5\n";
    assert_eq!(status(text), Some(Status { version: "3.8.0".to_owned(), leads: true }));
    let follower = text.replace("leader", "follower");
    assert_eq!(status(&follower).map(|it| it.leads), Some(false));
    assert_eq!(status("This ZooKeeper instance is not currently serving requests\n"), None);
    assert_eq!(status(&text.replace("leader", "observer")), None);
}
