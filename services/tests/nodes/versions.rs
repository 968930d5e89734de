//! Values with versions, and a lock made of them, against real nodes whose clients lose connections.

use crate::common::cutter::Cutter;
use crate::common::{PATIENCE, TestCluster, lone, wide};
use flotilla_services::client::{Lock, PutError, Versions};
use flotilla_services::hands::{Stopwatch, pause, spawn};
use std::time::Duration;

fn versions(cluster: &TestCluster) -> Versions {
    Versions::new(cluster.nodes.client(), PATIENCE)
}

#[test]
fn a_put_depends_on_the_version_srv_01() {
    let cluster = lone();
    let mut keys = versions(&cluster);
    assert_eq!(keys.get(b"k").unwrap(), None);
    assert!(matches!(keys.put(b"k", b"v", 3, None), Err(PutError::NoKey)));
    assert_eq!(keys.put(b"k", b"v", 0, None).unwrap(), 1);
    assert_eq!(keys.get(b"k").unwrap(), Some((b"v".to_vec(), 1)));
    assert!(matches!(keys.put(b"k", b"w", 0, None), Err(PutError::Version { found: 1 })));
    assert_eq!(keys.put(b"k", b"w", 1, None).unwrap(), 2);
    assert_eq!(keys.put(b"soon", b"w", 0, Some(Duration::from_millis(20))).unwrap(), 1);
    let clock = Stopwatch::start();
    while keys.get(b"soon").unwrap().is_some() {
        assert!(clock.elapsed() < PATIENCE);
    }
    assert!(keys.put(b"soon", b"w", 0, None).unwrap() > 1, "it doesn't begin anew");
}

#[test]
fn as_many_puts_succeed_as_the_version_says_srv_02() {
    let cluster = wide();
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let mut keys = versions(&cluster);
            spawn(move || {
                let mut done = 0;
                for _ in 0..40 {
                    let (value, version) = keys.get(b"shared").unwrap().unwrap_or_default();
                    match keys.put(b"shared", &[&value[..], b"x"].concat(), version, None) {
                        Ok(new) => {
                            assert_eq!(new, version + 1);
                            done += 1;
                        }
                        Err(PutError::Version { found }) => assert!(found > version),
                        Err(error) => panic!("{error}"),
                    }
                }
                done
            })
        })
        .collect();
    let done: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let (value, version) = versions(&cluster).get(b"shared").unwrap().unwrap();
    assert_eq!((value.len() as u64, version), (done, done));
}

#[test]
fn a_put_whose_reply_is_lost_happens_at_most_once_srv_04() {
    let cluster = lone();
    let cutter = Cutter::start(&cluster);
    let mut keys = versions(&cluster);
    let (mut version, mut maybe, mut expected) = (0, 0, Vec::new());
    let clock = Stopwatch::start();
    for round in 0_u64.. {
        if round >= 100 && maybe > 0 {
            break;
        }
        assert!(clock.elapsed() < PATIENCE, "no reply was ever lost");
        let value = round.to_be_bytes();
        match keys.put(b"k", &value, version, None) {
            Ok(new) => {
                assert_eq!(new, version + 1, "nobody else writes");
                (version, expected) = (new, value.to_vec());
            }
            Err(PutError::Maybe) => {
                maybe += 1;
                let (found, now) = keys.get(b"k").unwrap().unwrap_or_default();
                match now - version {
                    0 => assert_eq!(found, expected, "it wasn't done"),
                    1 => assert_eq!(found, value, "it was done, once"),
                    more => panic!("it was done {more} times"),
                }
                (version, expected) = (now, found);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(cutter.end() > 0);
}

fn lock(cluster: &TestCluster, name: &str, owner: &str) -> Lock {
    Lock::new(cluster.nodes.client(), name.as_bytes(), owner.as_bytes(), None, PATIENCE)
}

#[test]
fn a_lock_is_taken_and_given_back_lck_01() {
    let cluster = lone();
    let (mut ours, mut theirs) = (lock(&cluster, "l", "we"), lock(&cluster, "l", "they"));
    let held = ours.acquire().unwrap();
    assert_eq!(theirs.try_acquire().unwrap(), None);
    assert!(ours.release(held).unwrap());
    let later = theirs.acquire().unwrap();
    assert!(later.token > held.token);
    assert!(!ours.release(held).unwrap(), "it isn't ours any more");
    assert!(theirs.release(later).unwrap());
}

#[test]
fn two_locks_have_nothing_to_do_with_each_other_lck_02() {
    let cluster = wide();
    let (mut one, mut other) = (lock(&cluster, "one", "we"), lock(&cluster, "other", "we"));
    let (first, second) = (one.acquire().unwrap(), other.acquire().unwrap());
    assert!(one.release(first).unwrap());
    assert_eq!(lock(&cluster, "other", "they").try_acquire().unwrap(), None);
    let again = lock(&cluster, "one", "they").try_acquire().unwrap();
    assert!(again.is_some() && other.release(second).unwrap());
}

#[test]
fn a_lease_ends_by_itself() {
    let cluster = lone();
    let lease = Some(Duration::from_millis(50));
    let mut ours = Lock::new(cluster.nodes.client(), b"l", b"we", lease, PATIENCE);
    let held = ours.acquire().unwrap();
    let later = lock(&cluster, "l", "they").acquire().unwrap();
    assert!(later.token > held.token && !ours.release(held).unwrap());
}

/// Clients that take turns: in the critical section a key is set, looked at, and reset.
fn take_turns(cluster: &TestCluster, clients: usize, rounds: usize) {
    let threads: Vec<_> = (0..clients)
        .map(|number| {
            let mut lock = lock(cluster, "l", &format!("client {number}"));
            let mut keys = versions(cluster);
            spawn(move || {
                for _ in 0..rounds {
                    let held = lock.acquire().unwrap();
                    let inside = |keys: &mut Versions, value: &[u8]| {
                        let (_, version) = keys.get(b"inside").unwrap().unwrap_or_default();
                        match keys.put(b"inside", value, version, None) {
                            Ok(_) | Err(PutError::Maybe) => {}
                            Err(error) => panic!("somebody else is in: {error}"),
                        }
                    };
                    let (before, _) = keys.get(b"inside").unwrap().unwrap_or_default();
                    let me = format!("client {number}").into_bytes();
                    assert!(before.is_empty() || before == me, "{} is in", before.escape_ascii());
                    inside(&mut keys, &me);
                    pause(Duration::from_millis(1));
                    let (within, _) = keys.get(b"inside").unwrap().unwrap_or_default();
                    assert!(within.is_empty() || within == me, "{} is in", within.escape_ascii());
                    // Until it is certainly done.
                    while keys.get(b"inside").unwrap().is_some_and(|(value, _)| !value.is_empty()) {
                        inside(&mut keys, b"");
                    }
                    assert!(lock.release(held).unwrap(), "nobody takes a lock that is held");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn one_holder_at_a_time_lck_03() {
    let cluster = wide();
    take_turns(&cluster, 1, 50);
    take_turns(&cluster, 10, 10);
}

#[test]
fn one_holder_at_a_time_though_replies_are_lost_lck_04() {
    let cluster = lone();
    let cutter = Cutter::start(&cluster);
    take_turns(&cluster, 1, 30);
    take_turns(&cluster, 5, 10);
    assert!(cutter.end() > 0);
}
