//! Real processes, real disks: what kill -9, a torn log, a damaged log and SIGTERM leave behind.

use crate::common::{PATIENCE, output, program, run, start, text, wide};
use flotilla_services::hands::{Stopwatch, pause};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The newest segment in use of a node's first core, and where its last frame ends.
fn newest_segment(data: &std::path::Path) -> (PathBuf, u64) {
    let json = output(Command::new(program()).args(["wal", "inspect", "--json"]).arg(data));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let used = report["segments"].as_array().unwrap().iter().filter(|segment| segment["epoch"].is_u64());
    let newest = used.max_by_key(|segment| segment["epoch"].as_u64()).unwrap();
    (PathBuf::from(newest["file"].as_str().unwrap()), newest["end"].as_u64().unwrap())
}

#[test]
fn what_was_acknowledged_survives_the_death_of_every_process() {
    let mut cluster = wide();
    for number in 0..300 {
        cluster.set(&format!("key:{number}"), &format!("value:{number}"));
    }
    for round in 0..3 {
        for node in 1..=3 {
            cluster.nodes.kill(node);
        }
        for node in 1..=3 {
            cluster.nodes.restart(node).unwrap();
        }
        cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
        for number in 0..300 {
            assert_eq!(
                cluster.get(&format!("key:{number}")),
                Some(format!("value:{number}")),
                "round {round}"
            );
        }
    }
}

#[test]
fn a_torn_tail_is_cut_off_and_said_so() {
    let mut cluster = start(|options| options.nodes = 1);
    cluster.set("kept", "yes");
    cluster.nodes.kill(1);
    let (file, end) = newest_segment(&cluster.data(1));
    // The next frame's header got to the disk, its payload only in part.
    let mut image = std::fs::read(&file).unwrap();
    let at = usize::try_from(end).unwrap();
    let first = image[4096..8192].to_vec();
    image[at..at + 4096].copy_from_slice(&first);
    let last_lsn = u64::from_le_bytes(image[at + 16..at + 24].try_into().unwrap());
    assert!(last_lsn > 0);
    std::fs::write(&file, image).unwrap();
    cluster.nodes.restart(1).unwrap();
    cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
    assert_eq!(cluster.get("kept"), Some("yes".to_owned()));
}

/// What a stopped node had written a while ago can't be read any more.
fn spoil(data: &std::path::Path, blocks: std::ops::Range<usize>) -> PathBuf {
    let (file, end) = newest_segment(data);
    assert!(end > 2 * blocks.start as u64 * 4096, "only {end} bytes were written");
    let mut image = std::fs::read(&file).unwrap();
    blocks.for_each(|block| image[block * 4096 + 100] ^= 1);
    std::fs::write(&file, &image).unwrap();
    file
}

#[test]
fn a_replica_that_lost_part_of_its_log_gets_it_back_and_votes_again() {
    let mut cluster = start(|options| {
        options.nodes = 3;
        // Every write is a frame of its own on every node.
        options.raft.spare_sync_wait_us = 0;
    });
    for number in 0..100 {
        cluster.set(&format!("key:{number}"), "first");
    }
    cluster.nodes.kill(3);
    for number in 50..150 {
        cluster.set(&format!("key:{number}"), "second");
    }
    // Behind the frames of the founding, and more than one, since that of a pause is shorter than that.
    spoil(&cluster.data(3), 20..24);
    cluster.nodes.restart(3).unwrap();
    let clock = Stopwatch::start();
    let is_whole = |info: &str| info.contains("groups_repairing:0") && !info.contains("leader=none");
    while !is_whole(&cluster.info(3)) {
        assert!(clock.elapsed() < PATIENCE, "it is never whole: {}", cluster.words(3));
        pause(Duration::from_millis(5));
    }
    assert!(
        cluster.words(3).contains("doesn't vote until the others have given it back"),
        "{}",
        cluster.words(3)
    );
    // Each of the others in turn has to do with its help.
    for other in [1, 2] {
        cluster.nodes.kill(other);
        cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
        for number in 0..150 {
            let expected = if number < 50 { "first" } else { "second" };
            assert_eq!(cluster.get(&format!("key:{number}")), Some(expected.to_owned()), "without {other}");
        }
        cluster.nodes.restart(other).unwrap();
        cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
    }
}

/// A majority elects a leader while the third node may still be asking what it has missed: as long as that isn't answered it
/// counts as failed, and then nothing is written without the two others.
#[test]
fn a_founded_cluster_does_without_any_one_of_its_nodes_at_once() {
    for node in [3, 2, 1] {
        let mut cluster = start(|options| options.nodes = 3);
        cluster.nodes.kill(node);
        cluster.set("key", "value");
        assert_eq!(cluster.get("key"), Some("value".to_owned()), "without {node}");
    }
}

#[test]
fn damage_that_nobody_can_mend_is_refused_with_segment_offset_and_group() {
    let mut cluster = start(|options| (options.nodes, options.controller) = (1, false));
    for number in 0..20 {
        cluster.set(&format!("key:{number}"), "value");
    }
    cluster.nodes.kill(1);
    let file = spoil(&cluster.data(1), 4..5);
    let image = std::fs::read(&file).unwrap();
    let refused = cluster.nodes.restart(1).unwrap_err().to_string();
    let name = file.file_name().unwrap().to_str().unwrap();
    for part in [name, "is damaged at offset 16384", "group 1: entries from", "No other node has a replica"] {
        assert!(refused.contains(part), "{refused}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), image, "nothing was changed");
    // A look at it says the same, and fails.
    let look = run(Command::new(program()).args(["wal", "inspect"]).arg(cluster.data(1)));
    assert_eq!(look.status.code(), Some(1), "{}", text(&look.stdout));
    assert!(text(&look.stdout).contains("DAMAGED: frame 4 at offset 16384"), "{}", text(&look.stdout));
}

#[test]
fn sigterm_drains_and_the_others_go_on() {
    let mut cluster = wide();
    cluster.set("before", "1");
    for node in 1..=3 {
        assert!(cluster.nodes.stop(node, PATIENCE), "node {node}: {}", cluster.words(node));
        cluster.set("meanwhile", &node.to_string());
        cluster.nodes.restart(node).unwrap();
    }
    assert_eq!(
        (cluster.get("before"), cluster.get("meanwhile")),
        (Some("1".to_owned()), Some("3".to_owned()))
    );
}

#[test]
fn a_follower_that_is_far_behind_is_caught_up_by_a_snapshot() {
    let mut cluster = start(|options| {
        options.log.segment_bytes = 40 << 20;
        options.log.snapshot_after_bytes = 256 << 10;
        // Smaller than a value.
        options.log.snapshot_piece_bytes = 8 << 10;
    });
    cluster.set("first", "1");
    cluster.nodes.kill(3);
    let value = "x".repeat(20_000);
    for number in 0..300 {
        cluster.set(&format!("key:{}", number % 30), &format!("{value}{number}"));
    }
    cluster.nodes.restart(3).unwrap();
    // The two that wrote it all are gone in turn: the third must have it.
    let caught_up = || {
        let applied = |node| {
            let reply = cluster.connect(node).execute(&[b"INFO", b"replication"]).unwrap();
            let flotilla_services::client::Reply::Bulk(bytes) = reply else { panic!("{reply}") };
            let text = text(&bytes);
            let field = text.split("applied=").nth(1).unwrap();
            field.split(',').next().unwrap().parse::<u64>().unwrap()
        };
        applied(3) >= applied(1).max(applied(2))
    };
    let clock = Stopwatch::start();
    while !caught_up() {
        assert!(clock.elapsed() < PATIENCE, "node 3 doesn't catch up: {}", cluster.words(3));
        pause(Duration::from_millis(20));
    }
    assert!(cluster.words(3).contains("a snapshot was installed"), "{}", cluster.words(3));
    cluster.nodes.kill(1);
    for number in 270..300 {
        let found = cluster.get(&format!("key:{}", number % 30));
        assert_eq!(found, Some(format!("{value}{number}")));
    }
}

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Command::new(program());
    demo.args(["demo", "--seconds", "1"]).env("TMPDIR", folder.path());
    let said = output(&mut demo);
    for part in ["durable", "p99", "sync", "without a leader", "CPU"] {
        assert!(said.contains(part), "no word of {part} in {said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it left something behind");
}

#[test]
fn the_demo_interrupted_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Command::new(program());
    demo.args(["demo", "--seconds", "20"]).env("TMPDIR", folder.path());
    let mut child =
        demo.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let clock = Stopwatch::start();
    let nodes = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let ours = processes.filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            text(&line).contains(folder.path().to_str().unwrap())
        });
        ours.count()
    };
    while nodes() < 3 {
        assert!(clock.elapsed() < PATIENCE, "the demo starts no nodes");
        pause(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert!(!status.success());
    assert_eq!(nodes(), 0, "a node runs on");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it left something behind");
}
