//! The labs' own tests, with their applications.

use crate::rig::{Rig, books, is_alive, wait_until};
use std::collections::BTreeSet;
use std::fs;

fn with_books(app: &str, workers: &str, reducers: &str, more: &[&str]) -> Option<(Rig, Vec<String>)> {
    let books = books()?;
    let rig = Rig::new();
    let markers = rig.path("markers");
    fs::create_dir_all(&markers).unwrap();
    let dir = format!("dir={}", markers.display());
    let input = books.to_str().unwrap();
    let fixed =
        ["--job", app, "--input", input, "--workers", workers, "--reducers", reducers, "--arg", dir.as_str()];
    let arguments = fixed.iter().chain(more).map(|it| (*it).to_owned()).collect();
    Some((rig, arguments))
}

fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn mr_03_maps_run_in_parallel() {
    let Some((rig, arguments)) = with_books("lab-mtiming", "2", "1", &[]) else { return };
    rig.run(&borrowed(&arguments));
    let lines = rig.sorted();
    let times: BTreeSet<&String> = lines.iter().filter(|line| line.starts_with("times-")).collect();
    assert_eq!(times.len(), 2, "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("parallel-") && line.contains(" 2")), "{lines:?}");
}

#[test]
fn mr_04_reduces_run_in_parallel() {
    let Some((rig, arguments)) = with_books("lab-rtiming", "2", "10", &[]) else { return };
    rig.run(&borrowed(&arguments));
    let lines = rig.sorted();
    assert_eq!(lines.len(), 10);
    assert!(lines.iter().filter(|line| line.ends_with(" 2")).count() >= 2, "{lines:?}");
}

#[test]
fn mr_05_h3_every_map_runs_exactly_once() {
    let Some((rig, arguments)) = with_books("lab-jobcount", "4", "2", &["--arg", "pace=0.4"]) else { return };
    rig.run(&borrowed(&arguments));
    assert_eq!(rig.sorted(), ["a 8"]);
}

#[test]
fn mr_06_mr_10_output_is_final_as_soon_as_any_process_ends() {
    let Some((rig, arguments)) = with_books("lab-early-exit", "3", "8", &["--arg", "pace=0.5"]) else {
        return;
    };
    let mut job = rig.start(&borrowed(&arguments));
    let workers = job.wait_for_workers(3);
    wait_until("the first to end", || job.has_ended() || workers.iter().any(|pid| !is_alive(*pid)));
    let then = rig.sorted();
    let ended = job.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(then, rig.sorted());
    assert_eq!(then.len(), 8);
    assert!(workers.iter().all(|pid| !is_alive(*pid)), "all workers have ended by themselves");
}

#[test]
fn mr_07_h4_workers_that_crash_and_dawdle_change_nothing() {
    let Some((rig, arguments)) = with_books("lab-nocrash", "2", "2", &[]) else { return };
    rig.run(&borrowed(&arguments));
    let expected = rig.sorted();
    let more = ["--arg", "pace=0.05", "--attempts", "500"];
    let Some((crashing, arguments)) = with_books("lab-crash", "3", "2", &more) else { return };
    let status = crashing.run(&borrowed(&arguments));
    assert_eq!(crashing.sorted(), expected);
    assert_eq!(expected.len(), 4);
    assert!(!status["failures"].as_array().unwrap().is_empty(), "nothing has crashed");
}
