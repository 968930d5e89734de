//! KV-B: snapshots are taken all the time, and logs stay short.

use super::{AFTER, CALM, Case, Office, generic, plain};
use crate::{get, set};
use flotilla_sim::script::{Script, Setup};

/// KV-B1: whoever missed what is forgotten gets a snapshot, and counts again; the majority forgets without it.
#[test]
fn who_missed_what_is_forgotten_gets_a_snapshot_kv_b1() {
    let mut script = Script::new(Setup::new(3).snapshot_after(AFTER));
    set(&mut script, "a", 3);
    let leader = script.elected(2_000).unwrap();
    let (with, without) = ((leader + 1) % 3, (leader + 2) % 3);
    script.partition(&[without]);
    for number in 0..150 {
        script.one(&["SET", &number.to_string(), &"v".repeat(100)], 2, true).unwrap();
    }
    set(&mut script, "b", 2);
    for node in [leader, with] {
        assert!(script.log_bytes(node) <= 6 * AFTER && script.group(node).unwrap().first_index > 20);
    }
    assert_eq!(script.snapshot_parts(), 0);
    // Now the laggard is needed for a majority.
    script.partition(&[with]);
    for key in ["c", "d"] {
        set(&mut script, key, 2);
    }
    assert!(script.snapshot_parts() > 0);
    for key in ["1", "149", "a", "b", "c", "d"] {
        assert!(get(&mut script, key).is_some(), "{key}");
    }
    script.heal();
    set(&mut script, "e", 3);
    script.converged(2_000).unwrap();
}

/// KV-B2: the state is small, and so is its snapshot, however often it was written; the log is short.
#[test]
fn a_snapshot_is_as_large_as_the_state_kv_b2() {
    let mut script = Script::new(Setup::new(3).snapshot_after(AFTER));
    for number in 0..800 {
        script.one(&["SET", "x", &number.to_string()], 3, true).unwrap();
        assert!((0..3).all(|node| script.log_bytes(node) <= 2 * AFTER));
    }
    // One who comes late is sent what there is, and not what there was: the labs allow 500 bytes, which here is a block for
    // each of the four shards, and three for what stands before and behind them.
    let leader = script.elected(2_000).unwrap();
    let victim = (leader + 1) % 3;
    script.disconnect(victim);
    for number in 0..400 {
        script.one(&["SET", "x", &number.to_string()], 2, true).unwrap();
    }
    script.record();
    script.connect(victim);
    set(&mut script, "y", 3);
    let tape = script.take_tape();
    let bytes: usize = tape.iter().filter(|sent| sent.to == victim).map(|sent| sent.snapshot_bytes()).sum();
    assert!((1..=7 * 4096).contains(&bytes), "{bytes} bytes");
}

/// KV-B3: snapshots hold up no write.
#[test]
fn writes_don_t_wait_for_snapshots_kv_b3() {
    plain::one_after_the_other(Setup::new(3).snapshot_after(AFTER));
}

/// All of these forget what they can.
const TRIMMED: Case = Case { trimmed: true, ..CALM };

/// KV-B4: restarts, one client.
#[test]
fn one_client_restarts_and_snapshots_kv_b4() {
    generic(Case { crashes: true, ..TRIMMED });
}

/// KV-B5: restarts, twenty clients.
#[test]
fn twenty_clients_restarts_and_snapshots_kv_b5() {
    generic(Case { clerks: 20, crashes: true, ..TRIMMED });
}

/// KV-B6: a lossy network.
#[test]
fn snapshots_on_a_lossy_network_kv_b6() {
    generic(Case { clerks: 5, lossy: true, ..TRIMMED });
}

/// KV-B7: restarts and a lossy network.
#[test]
fn snapshots_and_restarts_on_a_lossy_network_kv_b7() {
    generic(Case { clerks: 5, lossy: true, crashes: true, ..TRIMMED });
}

/// KV-B8: restarts, partitions and a lossy network.
#[test]
fn snapshots_restarts_and_partitions_on_a_lossy_network_kv_b8() {
    generic(Case { clerks: 5, lossy: true, crashes: true, partitions: true, ..TRIMMED });
}

/// KV-B9: seven nodes, fifteen clients, shared keys, and all of it: what they see is linearizable.
#[test]
fn whatever_happens_and_is_forgotten_it_is_linearizable_kv_b9() {
    let all = Case { lossy: true, crashes: true, partitions: true, shared: true, ..TRIMMED };
    let mut office = Office::new(Case { nodes: 7, clerks: 15, ..all }, 9);
    for _ in 0..3 {
        office.round();
    }
    office.close();
}
