//! Real nodes on disks that fail, lie about what is durable, or are full.

use crate::rig::{Acknowledged, Load, PATIENCE, Rig, start, wait_for_more, wait_until};
use flotilla_services::client::{Connection, Reply};
use flotilla_services::hands::Stopwatch;
use flotilla_sim::faultfs::{Errno, Fault, Operation, When};
use std::time::Duration;

const SEGMENTS: &str = "segment-*";
/// One small write at a time: done on the spot, by one system call that writes and syncs.
const LONE: Load = Load { clients: 1, value_bytes: 64 };
/// Commits of several blocks: through the ring, a write and a sync.
const BUSY: Load = Load { clients: 8, value_bytes: 8000 };

/// A node alone whose log meets a fault.
fn stops_and_loses_nothing(load: Load, operation: Operation, nth: u64, fault: Fault, words: &[&str]) {
    let Some(mut rig) = start(1, |options| options.log.segment_bytes = 2 << 20) else { return };
    rig.wait_for_spares(1);
    let rule = rig.disk(1).inject(operation, SEGMENTS, When::Nth(nth), fault);
    let acknowledged = load.until_silence(&rig, rule);
    let status = rig.nodes.wait_for_end(1, PATIENCE).expect("the node stops");
    assert_eq!(status.code(), Some(1), "{}", rig.words(1));
    assert_eq!(rig.disk(1).fired(rule), 1);
    assert!(acknowledged.len() as u64 >= nth / 2, "only {} were acknowledged before", acknowledged.len());
    let said = rig.words(1);
    let last = said.lines().last().unwrap_or_default();
    for part in ["can't be trusted any more", "/core-0/segment-0000", "at offset "] {
        assert!(last.contains(part), "no word of {part} in {last}");
    }
    assert!(words.iter().any(|words| last.contains(words)), "no word of {words:?} in {last}");
    rig.disk(1).lose_unsynced().unwrap();
    rig.disk(1).heal();
    rig.nodes.restart(1).unwrap_or_else(|error| panic!("{error}"));
    rig.wait_for_leaders();
    rig.check(&acknowledged);
}

const IO: Fault = Fault::Error(Errno::IO);
const IO_WORDS: &[&str] = &["failed: Input/output error (os error 5)"];

#[test]
fn a_write_that_fails_stops_the_node() {
    stops_and_loses_nothing(LONE, Operation::Write, 40, IO, IO_WORDS);
    stops_and_loses_nothing(BUSY, Operation::Write, 10, IO, IO_WORDS);
}

#[test]
fn a_sync_that_fails_stops_the_node_and_is_not_tried_again() {
    stops_and_loses_nothing(LONE, Operation::Sync, 40, IO, IO_WORDS);
    stops_and_loses_nothing(BUSY, Operation::Sync, 10, IO, IO_WORDS);
}

#[test]
fn a_short_write_stops_the_node() {
    // On a slow disk it goes through the ring, and FUSE makes an error of it.
    let words = [IO_WORDS[0], "failed: only 512 of 4096 bytes were written (os error 0)"];
    stops_and_loses_nothing(LONE, Operation::Write, 40, Fault::Short(512), &words);
}

/// It never should: segments are written before they are used.
#[test]
fn a_segment_write_without_space_stops_the_node() {
    let words = ["failed: No space left on device (os error 28)"];
    stops_and_loses_nothing(LONE, Operation::Write, 40, Fault::Error(Errno::NOSPC), &words);
}

/// One of three stops; the others go on, and when it is back it has everything.
fn one_of_three_stops(load: Load, operation: Operation, of_the_leader: bool) {
    let Some(mut rig) = start(3, |_| {}) else { return };
    let leader = rig.leader();
    let node = if of_the_leader { leader } else { leader % 3 + 1 };
    rig.wait_for_spares(node);
    let acknowledged = load.while_doing(&mut rig, |rig, count| {
        wait_for_more(count, 20);
        rig.disk(node).inject(operation, SEGMENTS, When::Nth(5), IO);
        let status = rig.nodes.wait_for_end(node, PATIENCE).expect("the node stops");
        assert_eq!(status.code(), Some(1), "{}", rig.words(node));
        wait_for_more(count, 50);
        rig.disk(node).heal();
        rig.nodes.restart(node).unwrap_or_else(|error| panic!("{error}"));
        wait_for_more(count, 20);
    });
    rig.wait_for_catching_up(node);
    rig.lose_power();
    rig.check(&acknowledged);
}

#[test]
fn a_leader_whose_disk_fails_is_replaced() {
    one_of_three_stops(BUSY, Operation::Sync, true);
}

#[test]
fn a_follower_whose_disk_fails_is_not_missed() {
    one_of_three_stops(LONE, Operation::Write, false);
}

#[test]
fn what_was_acknowledged_outlives_a_loss_of_power_h11_h12() {
    for nodes in [1, 3] {
        let Some(mut rig) = start(nodes, |options| options.log.snapshot_after_bytes = 256 << 10) else {
            return;
        };
        let mut acknowledged = Acknowledged::new();
        for load in [Load { clients: 4, value_bytes: 100 }, Load { clients: 4, value_bytes: 5000 }] {
            acknowledged.extend(load.while_doing(&mut rig, |rig, count| {
                wait_for_more(count, 300);
                rig.lose_power();
                wait_for_more(count, 10);
            }));
            rig.check(&acknowledged);
        }
    }
}

fn set(client: &mut Connection, key: &str, value_bytes: usize) -> Result<(), String> {
    let reply = client.execute(&[b"SET", key.as_bytes(), &vec![b'v'; value_bytes]]).unwrap();
    match reply {
        Reply::Status(_) => Ok(()),
        Reply::Error(error) => Err(error),
        other => panic!("SET {key}: {other}"),
    }
}

/// Writes until that is refused, rightly; returns what was acknowledged.
fn write_until_refused(rig: &Rig, node: u32, prefix: &str) -> Acknowledged {
    let mut client = rig.connect(node);
    let mut acknowledged = Acknowledged::new();
    for number in 0..10_000 {
        let key = format!("{prefix}:{number}");
        let mut done = set(&mut client, &key, 3000);
        // On a machine under load the leadership may move; then this one hasn't happened.
        while done.as_ref().is_err_and(|error| !error.starts_with("MISCONF ")) {
            client = rig.connect(rig.leader());
            done = set(&mut client, &key, 3000);
        }
        if let Err(error) = done {
            let own = "MISCONF Errors writing to the log: No space left on device; reads are still served, free some \
                       space on this node's disk";
            // The others' logs may have been longer.
            let others = "MISCONF Errors writing to the log: the disks of other nodes are full, and no majority is left; \
                          reads are still served, free some space on their disks";
            assert!(error == own || error == others, "{error}");
            return acknowledged;
        }
        acknowledged.insert(key, "v".repeat(3000));
    }
    panic!("a full disk takes everything: {}", rig.words(node));
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself() {
    let Some(mut rig) = start(1, |_| {}) else { return };
    rig.wait_for_spares(1);
    rig.disk(1).set_room(Some(100_000));
    let mut acknowledged = write_until_refused(&rig, 1, "first");
    assert!(acknowledged.len() > 500, "both spares were used: {}", acknowledged.len());
    // It reads on, refuses on, and looks for room about once a second, however much it is asked.
    let tries = || rig.disk(1).count(Operation::Create, SEGMENTS);
    let (before, clock) = (tries(), Stopwatch::start());
    let mut client = rig.connect(1);
    let mut asked = 0_u64;
    while tries() < before + 2 {
        assert!(clock.elapsed() < PATIENCE, "it doesn't look for room");
        let reply = client.execute(&[b"GET", b"first:7"]).unwrap();
        assert!(matches!(reply, Reply::Bulk(bytes) if bytes.len() == 3000));
        assert!(set(&mut client, "more", 10).unwrap_err().starts_with("MISCONF "));
        asked += 1;
    }
    assert!(clock.elapsed() > Duration::from_millis(900) && asked > 10, "{asked} in {:?}", clock.elapsed());
    let is_whole = |entry: &std::fs::DirEntry| entry.metadata().unwrap().len() == 1 << 20;
    let files = std::fs::read_dir(rig.disk(1).backing().join("core-0")).unwrap().map(Result::unwrap);
    let broken: Vec<_> = files.filter(|entry| !is_whole(entry)).collect();
    assert!(broken.len() <= 1, "half-made segments are removed: {broken:?}");
    // It starts on the full disk, too.
    rig.nodes.kill(1);
    rig.nodes.restart(1).unwrap_or_else(|error| panic!("{error}"));
    rig.check(&acknowledged);
    acknowledged.extend(write_until_refused(&rig, 1, "second"));
    rig.disk(1).set_room(None);
    let mut client = rig.connect(1);
    wait_until("there is room again", || set(&mut client, "again", 3000).is_ok());
    acknowledged.insert("again".to_owned(), "v".repeat(3000));
    let said = rig.words(1);
    assert!(said.contains("writes are refused until there is room"), "{said}");
    assert!(said.contains("there is room for the log again"), "{said}");
    rig.lose_power();
    rig.check(&acknowledged);
}

#[test]
fn snapshots_on_a_full_disk_are_given_up_and_taken_later() {
    let Some(rig) = start(1, |options| options.log.snapshot_after_bytes = 128 << 10) else { return };
    rig.wait_for_spares(1);
    let tries = || rig.disk(1).count(Operation::Create, "*.tmp");
    rig.disk(1).set_room(Some(0));
    let acknowledged = write_until_refused(&rig, 1, "first");
    let (before, clock) = (tries(), Stopwatch::start());
    let mut client = rig.connect(1);
    wait_until("a snapshot is tried again and again", || {
        assert!(set(&mut client, "more", 10).is_err());
        tries() >= before + 2
    });
    assert!(clock.elapsed() > Duration::from_millis(900), "not each time that something happens");
    let left = || {
        let files = std::fs::read_dir(rig.disk(1).backing().join("core-0")).unwrap();
        files.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".tmp")).count()
    };
    assert!(left() <= 1, "what was given up is removed");
    rig.disk(1).set_room(None);
    wait_until("there is room again", || set(&mut client, "again", 10).is_ok());
    wait_until("a snapshot is taken", || rig.disk(1).count(Operation::Rename, "*.tmp") > 0);
    rig.check(&acknowledged);
}

#[test]
fn a_follower_on_a_full_disk_holds_nobody_up_and_catches_up() {
    let Some(mut rig) = start(3, |_| {}) else { return };
    let follower = rig.leader() % 3 + 1;
    rig.wait_for_spares(follower);
    rig.disk(follower).set_room(Some(0));
    let load = Load { clients: 2, value_bytes: 20_000 };
    let acknowledged = load.while_doing(&mut rig, |rig, count| {
        wait_until("it says that it is full", || rig.words(follower).contains("writes are refused"));
        wait_for_more(count, 100);
        assert!(rig.nodes.is_running(follower), "{}", rig.words(follower));
    });
    let behind = rig.applied(follower);
    assert!(behind < rig.applied(rig.leader()), "it can't have it all");
    rig.disk(follower).set_room(None);
    rig.wait_for_catching_up(follower);
    rig.lose_power();
    rig.check(&acknowledged);
}

#[test]
fn a_follower_without_room_for_a_snapshot_gets_another() {
    let Some(mut rig) = start(3, |options| options.log.snapshot_after_bytes = 64 << 10) else { return };
    let follower = rig.leader() % 3 + 1;
    rig.nodes.kill(follower);
    let load = Load { clients: 4, value_bytes: 4000 };
    // The others forget what it needs.
    let acknowledged = load.while_doing(&mut rig, |_, count| wait_for_more(count, 500));
    rig.disk(follower).set_room(Some(0));
    rig.nodes.restart(follower).unwrap_or_else(|error| panic!("{error}"));
    wait_until("it says that it has no room", || {
        rig.words(follower).contains("a snapshot from the leader was given up")
    });
    rig.disk(follower).set_room(None);
    rig.wait_for_catching_up(follower);
    rig.lose_power();
    rig.check(&acknowledged);
}

#[test]
fn when_every_disk_is_full_reads_are_served_also_by_a_new_leader() {
    let Some(mut rig) = start(3, |_| {}) else { return };
    for node in 1..=3 {
        rig.wait_for_spares(node);
        rig.disk(node).set_room(Some(0));
    }
    let leader = rig.leader();
    let acknowledged = write_until_refused(&rig, leader, "first");
    rig.check(&acknowledged);
    rig.nodes.kill(leader);
    rig.check(&acknowledged);
    rig.nodes.restart(leader).unwrap_or_else(|error| panic!("{error}"));
    for node in 1..=3 {
        rig.disk(node).set_room(None);
    }
    let mut client = rig.nodes.client();
    wait_until("there is room again", || {
        matches!(client.execute(b"k", &[b"SET", b"k", b"v"], PATIENCE), Ok(Reply::Status(_)))
    });
    rig.wait_for_catching_up(leader);
    rig.check(&acknowledged);
}
