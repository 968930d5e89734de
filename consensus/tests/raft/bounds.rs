//! What a group holds at most, whatever its followers and its clients do.

use crate::cluster::Cluster;
use flotilla_consensus::{RaftConfig, Refused};

fn bounded() -> RaftConfig {
    RaftConfig {
        uncommitted_max: 100,
        uncommitted_bytes_max: 200_000,
        entry_bytes_max: 300_000,
        append_bytes_max: 20_000,
        in_flight_bytes_max: 50_000,
        window_max: 16,
        window: 16,
        ..RaftConfig::default()
    }
}

/// Proposes until it is refused; returns how many were taken and why no more.
fn fill(cluster: &mut Cluster, bytes: usize) -> (usize, Refused) {
    for taken in 0..1000 {
        if let Err(refused) = cluster.try_to_propose(0, &vec![7; bytes]) {
            return (taken, refused);
        }
    }
    panic!("nothing is ever too much");
}

#[test]
fn a_leader_without_a_majority_takes_so_many_entries_and_bytes_and_says_that_it_is_busy() {
    let mut cluster = Cluster::with(3, bounded());
    cluster.elect(0);
    cluster.cut_off = [1, 2].into();
    assert_eq!(fill(&mut cluster, 10_000), (19, Refused::Busy), "bytes");
    cluster.cut_off.clear();
    for _ in 0..20 {
        cluster.fire(0);
        cluster.deliver();
    }
    assert_eq!(cluster.raft(0).commit(), cluster.raft(0).log().last_index(), "it was all taken for good");
    cluster.cut_off = [1, 2].into();
    assert_eq!(fill(&mut cluster, 10), (100, Refused::Busy), "entries");
}

#[test]
fn an_entry_beyond_the_bound_is_refused_and_one_within_it_always_goes() {
    let mut cluster = Cluster::with(3, bounded());
    cluster.elect(0);
    assert_eq!(cluster.try_to_propose(0, &[7; 300_001]), Err(Refused::TooLarge));
    let index = cluster.propose(0, &[7; 300_000]);
    assert_eq!(cluster.try_to_propose(0, b"x"), Err(Refused::Busy), "it alone is more than may wait");
    cluster.deliver();
    assert_eq!(cluster.raft(0).commit(), index);
    cluster.propose(0, b"x");
}

#[test]
fn what_is_in_flight_to_a_slow_follower_is_bounded_and_the_others_go_on_h18() {
    let mut cluster = Cluster::with(3, bounded());
    cluster.elect(0);
    cluster.deliver();
    cluster.slow_disks = [2].into();
    let mut index = 0;
    let mut sent_to_the_slow_one = 0;
    for _ in 0..500 {
        index = cluster.propose(0, &[7; 5_000]);
        let to_it = cluster.wire.iter().filter(|(_, to, _)| *to == 2);
        sent_to_the_slow_one += to_it.map(|(.., frame)| frame.len()).sum::<usize>();
        cluster.deliver();
    }
    assert_eq!(cluster.raft(0).commit(), index);
    // 50 kB, and the append that reaches beyond them.
    assert!(sent_to_the_slow_one < 80_000, "{sent_to_the_slow_one} bytes are on their way to it");
    cluster.slow_disks.clear();
    for _ in 0..60 {
        cluster.sync(2);
        cluster.deliver();
        cluster.fire(0);
        cluster.deliver();
    }
    assert_eq!(cluster.raft(2).commit(), index);
}

#[test]
fn a_dead_follower_holds_no_memory() {
    let mut cluster = Cluster::with(3, bounded());
    cluster.elect(0);
    cluster.deliver();
    cluster.cut_off = [2].into();
    cluster.sent_bytes = 0;
    for _ in 0..300 {
        let index = cluster.propose(0, &[7; 5_000]);
        cluster.deliver();
        // The state machine takes a snapshot now and then, and forgets the log.
        if index.is_multiple_of(50) {
            cluster.act(0, |multi, _| multi.compact(0, index));
        }
        assert!(cluster.raft(0).log().bytes() < 60 * 5_100, "{}", cluster.raft(0).log().bytes());
    }
    for _ in 0..20 {
        cluster.fire(0);
        cluster.deliver();
    }
    assert!(cluster.sent_bytes < 300 * 5_100 + 200_000, "{} bytes to two of them", cluster.sent_bytes);
    let wanting: Vec<u32> = cluster.raft(0).wanting_snapshot().map(|node| node.0).collect();
    assert_eq!(wanting, [3], "it gets a snapshot when it is back");
}
