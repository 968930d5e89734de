//! What can go wrong while a job runs.

use crate::jobs::count;
use crate::rig::{Rig, Running, is_alive, signal, wait_until};
use rustix::process::Signal;
use std::fs;
use std::process::Command;

/// Word count as commands, each task of which takes a while: there is time to do damage.
fn slow_count(rig: &Rig, more: &[&str]) -> (Running, Vec<String>) {
    let text = String::from_utf8(rig.words(6, 300_000)).unwrap();
    let fixed = [
        "--mapper",
        "sleep 0.2; tr -cs A-Za-z '\\n' | sed 's/$/\\t1/'",
        "--reducer",
        "awk -F '\\t' '{ n[$1] += $2 } END { for (w in n) print w \"\\t\" n[w] }'",
        "--reducers",
        "2",
    ];
    let arguments: Vec<&str> = fixed.iter().chain(more).copied().collect();
    (rig.start(&arguments), count([text]))
}

fn check(rig: &Rig, job: Running, expected: &[String]) -> serde_json::Value {
    let ended = job.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), expected);
    assert!(rig.is_committed() && !rig.has_leftovers());
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn h4_a_worker_that_is_killed_is_replaced_and_its_task_done_again() {
    let rig = Rig::new();
    let (job, expected) = slow_count(&rig, &["--workers", "2"]);
    rig.wait_for_work("map-");
    signal(job.wait_for_workers(2)[0], Signal::KILL);
    let status = check(&rig, job, &expected);
    let failures = status["failures"].as_array().unwrap();
    assert!(failures.iter().any(|it| it["what"].as_str().unwrap().contains("signal: 9")), "{failures:?}");
}

#[test]
fn mr_08_a_worker_that_was_stopped_and_wakes_after_its_task_is_done_elsewhere_changes_nothing() {
    let rig = Rig::new();
    let (job, expected) = slow_count(&rig, &["--workers", "2", "--lease", "0.5"]);
    rig.wait_for_work("map-");
    let stopped = job.wait_for_workers(2)[0];
    signal(stopped, Signal::STOP);
    // The other one is at reducing, so the stopped one's map task has been done by it.
    rig.wait_for_work("reduce-");
    signal(stopped, Signal::CONT);
    check(&rig, job, &expected);
}

#[test]
fn a_worker_that_stays_stopped_does_not_keep_the_job_from_its_end() {
    let rig = Rig::new();
    let (job, expected) = slow_count(&rig, &["--workers", "2", "--lease", "0.5"]);
    rig.wait_for_work("map-");
    let stopped = job.wait_for_workers(2)[0];
    signal(stopped, Signal::STOP);
    check(&rig, job, &expected);
    assert!(!is_alive(stopped));
}

#[test]
fn the_job_fails_clearly_when_every_worker_is_gone() {
    let rig = Rig::new();
    let (job, _) = slow_count(&rig, &["--workers", "2", "--no-replacements", "--grace", "0.3"]);
    rig.wait_for_work("map-");
    for worker in job.wait_for_workers(2) {
        signal(worker, Signal::KILL);
    }
    let ended = job.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("no worker has been there for 0.3 s"), "{ended:?}");
    assert!(!rig.is_committed() && !rig.has_leftovers() && rig.text().is_empty());
}

#[test]
fn workers_end_when_their_coordinator_is_killed_and_nothing_is_committed() {
    let rig = Rig::new();
    let (job, expected) = slow_count(&rig, &["--workers", "2"]);
    rig.wait_for_work("map-");
    let workers = job.wait_for_workers(2);
    signal(job.pid, Signal::KILL);
    wait_until("the workers' end", || !workers.iter().any(|pid| is_alive(*pid)));
    job.end();
    assert!(!rig.is_committed() && rig.text().is_empty());
    // What it has left is in nobody's way.
    let (again, _) = slow_count(&rig, &["--workers", "2"]);
    let ended = again.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), expected);
}

#[test]
fn mr_09_h2_leftovers_of_other_jobs_never_show() {
    let rig = Rig::new();
    let text = String::from_utf8(rig.words(2, 50_000)).unwrap();
    let stale = rig.output().join("_work-0123456789abcdef");
    fs::create_dir_all(&stale).unwrap();
    for name in ["map-00000-1-1", "map-00000-1-2", "reduce-00000-1-3"] {
        fs::write(stale.join(name), "stale\t1\n").unwrap();
    }
    let ended = rig.start(&["--job", "wc", "--reducers", "2"]).end();
    assert!(ended.status.success(), "a private folder of another job is no output: {ended:?}");
    assert_eq!(rig.sorted(), count([text.clone()]));
    let ended = rig.start(&["--job", "wc", "--reducers", "2"]).end();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--overwrite"), "{ended:?}");
    fs::write(rig.output().join("part-00007"), "stale\t1\n").unwrap();
    let ended = rig.start(&["--job", "wc", "--reducers", "2", "--overwrite"]).end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), count([text]));
    assert!(!rig.output().join("part-00007").exists());
}

#[test]
fn code_that_panics_fails_the_job_or_loses_only_the_records_that_it_panics_at() {
    let rig = Rig::new();
    let mut lines: Vec<String> = (0..3000).map(|n| format!("line {n}")).collect();
    lines[700] = "PANIC one".to_owned();
    lines[701] = "PANIC two".to_owned();
    lines[2900] = "PANIC three".to_owned();
    rig.input("lines.txt", lines.join("\n"));
    let ended = rig.start(&["--job", "lab-panic"]).end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("can't stand this line"), "{ended:?}");
    assert!(!rig.is_committed() && !rig.has_leftovers());
    let status = rig.run(&["--job", "lab-panic", "--skip-bad-records"]);
    let mut expected: Vec<&String> = lines.iter().filter(|line| !line.contains("PANIC")).collect();
    expected.sort();
    assert!(rig.sorted().iter().eq(expected));
    let skipped = status["skipped"].as_array().unwrap();
    let offsets: Vec<u64> = skipped.iter().map(|at| at["offset"].as_u64().unwrap()).collect();
    let text = lines.join("\n");
    let found: Vec<u64> = text.match_indices("PANIC").map(|(at, _)| at as u64).collect();
    assert_eq!(offsets, found);
    assert_eq!(status["counters"]["skipped_records"], 3);
}

#[test]
fn an_input_that_changes_or_goes_away_fails_the_job() {
    for change in ["grow", "remove"] {
        let rig = Rig::new();
        let (job, _) = slow_count(&rig, &["--workers", "1"]);
        rig.wait_for_work("map-");
        for file in 0..6 {
            let path = rig.path("in").join(format!("words-{file:03}.txt"));
            match change {
                "grow" => fs::write(&path, [fs::read(&path).unwrap(), b"more\n".to_vec()].concat()).unwrap(),
                _ => fs::remove_file(&path).unwrap(),
            }
        }
        let ended = job.end();
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let what = if change == "grow" { "changed since the job was submitted" } else { "No such file" };
        assert!(ended.stderr.contains(what), "{ended:?}");
        assert!(!rig.is_committed() && !rig.has_leftovers());
    }
}

#[test]
fn map_outputs_that_are_lost_after_they_were_done_are_made_again() {
    let rig = Rig::new();
    let text = String::from_utf8(rig.words(3, 600_000)).unwrap();
    let job = rig.start(&[
        "--mapper",
        "tr -cs A-Za-z '\\n'",
        "--reducer",
        "sleep 0.3; uniq -c | awk '{ print $2 \"\\t\" $1 }'",
        "--reducers",
        "5",
        "--workers",
        "2",
    ]);
    rig.wait_for_work("reduce-");
    let mut damaged = 0;
    for entry in fs::read_dir(rig.work().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("map-") {
            // One is gone, the others have a byte changed.
            if damaged == 0 {
                fs::remove_file(&path).unwrap();
            } else {
                let mut bytes = fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::remove_file(&path).unwrap();
                fs::write(&path, bytes).unwrap();
            }
            damaged += 1;
        }
    }
    assert!(damaged >= 2);
    let ended = job.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), count([text]));
}

#[test]
fn a_full_disk_fails_the_job_with_its_reason_and_commits_nothing() {
    let rig = Rig::new();
    rig.words(4, 1 << 20);
    let disk = rig.output();
    fs::create_dir_all(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "none"]).arg(&disk).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no right to mount a small disk");
        return;
    }
    let ended = rig.start(&["--job", "sort", "--workers", "2"]).end();
    let (committed, leftovers) = (rig.is_committed(), rig.has_leftovers());
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("No space left on device"), "{ended:?}");
    assert!(!committed && !leftovers);
}

#[test]
fn an_interrupted_job_is_cancelled_and_leaves_nothing() {
    let rig = Rig::new();
    let (job, _) = slow_count(&rig, &["--workers", "2"]);
    rig.wait_for_work("map-");
    signal(job.pid, Signal::INT);
    let ended = job.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("cancelled"), "{ended:?}");
    assert!(!rig.is_committed() && !rig.has_leftovers());
}
