//! Workers that share nothing but the input: what is between map and reduce, and output, goes from one to the other.

use crate::cluster::{slow_count, start_slow_count};
use crate::fleet::Fleet;
use crate::rig::{Rig, Running, wait_until};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Two workers, each with a folder of its own.
fn fleet() -> Fleet {
    let mut fleet = Fleet::start(0);
    fleet.start_worker("one");
    fleet.start_worker("other");
    fleet
}

/// A job of which each worker has finished a map task, and what must come of it.
fn start_where_each_maps(fleet: &Fleet, rig: &Rig) -> (Running, Vec<String>) {
    let started = start_slow_count(fleet, rig, 1);
    for folder in ["one", "other"] {
        wait_until("a map task of each", || fleet.has_file(folder, "map-"));
    }
    started
}

#[test]
fn workers_fetch_from_each_other_what_they_reduce() {
    let fleet = fleet();
    let rig = fleet.rig();
    let (job, expected) = start_where_each_maps(&fleet, &rig);
    let ended = job.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), expected);
    assert!(rig.is_committed() && !rig.has_leftovers());
    let status: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(status["failures"].as_array().map(Vec::len), Some(0), "{status}");
    for folder in ["one", "other"] {
        wait_until("files of the job to go", || !fleet.has_file(folder, ""));
    }
}

#[test]
fn what_a_machine_had_that_is_gone_is_made_again() {
    let mut fleet = fleet();
    let rig = fleet.rig();
    let (job, expected) = start_where_each_maps(&fleet, &rig);
    // Both may have finished some, and one has begun to reduce.
    rig.wait_for_work("reduce-");
    let _ = fleet.workers[0].kill();
    let ended = job.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), expected);
    assert!(rig.is_committed() && !rig.has_leftovers());
    let runs = std::fs::read_to_string(rig.path("ran")).unwrap().lines().count() as u64;
    let status: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(runs > status["maps"][1].as_u64().unwrap(), "its map tasks ran again: {status}");
}

#[test]
fn output_is_where_the_job_was_submitted_though_no_worker_sees_it() {
    let fleet = fleet();
    let rig = fleet.rig();
    let (arguments, expected) = slow_count(&rig);
    // Every process has a working folder of its own there.
    let job = Command::new(env!("CARGO_BIN_EXE_flotilla"))
        .current_dir(rig.folder.path())
        .args(["mr", "run", "--addr", &fleet.address(1), "--output", "/proc/self/cwd/out", "--input"])
        .arg(rig.path("in"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(job.status.success(), "{job:?}");
    assert_eq!(rig.sorted(), expected);
    assert!(rig.is_committed() && !rig.has_leftovers());
}

#[test]
fn files_are_shipped_to_workers_that_see_no_folder_of_the_job() {
    let fleet = fleet();
    let rig = fleet.rig();
    rig.input("a.txt", "a b\nc\n");
    std::fs::write(rig.path("map.sh"), "#!/bin/sh\nsed \"s/^/$(cat word):/\"\n").unwrap();
    std::fs::set_permissions(rig.path("map.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(rig.path("word"), "x".repeat(20_000)).unwrap();
    std::fs::write(rig.path("large"), "y".repeat(600_000)).unwrap();
    let run = |to: &[&str]| {
        let job = Command::new(env!("CARGO_BIN_EXE_flotilla"))
            .current_dir(rig.folder.path())
            .args(["mr", "run", "--addr", &fleet.address(1), "--input", "in"])
            .args(["--mapper", "test $(wc -c < large) = 600000 && ./map.sh | cut -c 19999-"])
            .args(["--reducer", "cat", "--file", "map.sh", "--file", "word", "--file", "large"])
            .args(to)
            .output()
            .unwrap();
        assert!(job.status.success(), "{job:?}");
    };
    run(&["--output", "/proc/self/cwd/out"]);
    assert_eq!(rig.sorted(), ["xx:a b", "xx:c"]);
    run(&["--to-keys", "out:"]);
    assert_eq!(fleet.cluster.get("out:xx:c").as_deref(), Some(""));
    let (_, said) = fleet.mr(&["logs", "1"]);
    assert_eq!(said, "", "nothing has failed");
}
