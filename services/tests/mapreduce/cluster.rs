//! Jobs of a cluster: their coordinator may die at any moment, and so may the store's leader.

use crate::fleet::Fleet;
use crate::jobs::count;
use crate::rig::{Rig, Running, signal, wait_until};
use flotilla_services::slot::Slot;
use rustix::process::Signal;
use std::fs;
use std::process::Command;

/// A count whose map tasks leave a line for every time that they run.
pub(crate) fn slow_count(rig: &Rig) -> (Vec<String>, Vec<String>) {
    let text = String::from_utf8(rig.words(8, 300_000)).unwrap();
    let ran = rig.path("ran");
    fs::write(&ran, "").unwrap();
    let mapper = format!("echo ran >> {}; sleep 0.3; tr -cs A-Za-z '\\n' | sed 's/$/\\t1/'", ran.display());
    let reducer = "sleep 0.2; awk -F '\t' '{ n[$1] += $2 } END { for (w in n) print w \"\\t\" n[w] }'";
    let arguments =
        ["--mapper", &mapper, "--reducer", reducer, "--reducers", "3", "--workers", "3", "--no-backups"];
    (arguments.map(str::to_owned).to_vec(), count([text]))
}

/// Starts it at a node; what must come of it.
pub(crate) fn start_slow_count(fleet: &Fleet, rig: &Rig, node: u32) -> (Running, Vec<String>) {
    let (mut arguments, expected) = slow_count(rig);
    arguments.extend(["--addr".to_owned(), fleet.address(node)]);
    (rig.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>()), expected)
}

fn runs(rig: &Rig) -> u64 {
    fs::read_to_string(rig.path("ran")).unwrap().lines().count() as u64
}

#[test]
fn a_job_survives_the_death_of_its_coordinator_without_doing_finished_tasks_again() {
    for phase in ["map-", "reduce-"] {
        let fleet = Fleet::start(3);
        let rig = fleet.rig();
        let coordinator = fleet.coordinator();
        let (job, expected) = start_slow_count(&fleet, &rig, 1);
        rig.wait_for_work(phase);
        signal(coordinator.pid, Signal::KILL);
        let ended = job.end();
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(rig.sorted(), expected);
        assert!(rig.is_committed() && !rig.has_leftovers());
        let status: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        // What each of the three workers was at may have to be done again, the dead one's for sure; what was finished not.
        let under_way = if phase == "map-" { 3 } else { 1 };
        let most = status["maps"][1].as_u64().unwrap() + under_way;
        assert!(runs(&rig) <= most, "{} runs: {status}", runs(&rig));
        let successor = fleet.coordinator();
        assert_ne!(successor, coordinator);
    }
}

#[test]
fn a_job_survives_the_death_of_the_stores_leader() {
    let mut fleet = Fleet::start(2);
    let rig = fleet.rig();
    fleet.coordinator();
    let mut client = fleet.cluster.nodes.client();
    client.refresh().unwrap();
    let leader = fleet.cluster.nodes.node_at(&client.address_of(Slot(0)).unwrap()).unwrap();
    let (job, expected) = start_slow_count(&fleet, &rig, leader % 3 + 1);
    rig.wait_for_work("map-");
    fleet.cluster.nodes.kill(leader);
    let ended = job.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), expected);
    let status: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(runs(&rig), status["maps"][1].as_u64().unwrap(), "nothing ran twice: {status}");
}

#[test]
fn jobs_of_a_cluster_are_listed_and_cancelled() {
    let fleet = Fleet::start(1);
    let rig = fleet.rig();
    let addr = fleet.address(2);
    let (job, _) = start_slow_count(&fleet, &rig, 2);
    rig.wait_for_work("map-");
    let mr = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_flotilla"))
            .arg("mr")
            .args(words)
            .args(["--addr", &addr])
            .output()
            .unwrap()
    };
    let listed = String::from_utf8(mr(&["list"]).stdout).unwrap();
    assert!(listed.starts_with("job-1    running"), "{listed}");
    let status = String::from_utf8(mr(&["status", "1"]).stdout).unwrap();
    assert!(status.contains("running    map-00000 as"), "{status}");
    assert!(mr(&["cancel", "1"]).status.success());
    let ended = job.end();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.contains("cancelled"), "{ended:?}");
    wait_until("the job's folder to go", || !rig.has_leftovers());
    assert_eq!(mr(&["cancel", "1"]).status.code(), Some(1));
    assert_eq!(mr(&["status", "9"]).status.code(), Some(1));
}

#[test]
fn a_deposed_coordinator_cannot_append_even_after_what_it_missed_was_tidied_away() {
    use flotilla_services::mapreduce::coordinator::Fact;
    use flotilla_services::mapreduce::spec::JobId;
    let fleet = Fleet::start(0);
    let fact = Fact::Cancelled { job: JobId(1) };
    let mut old = fleet.log();
    let term = old.begin_term().unwrap().unwrap();
    assert!(old.append(term, &fact).unwrap());
    let mut new = fleet.log();
    let next = new.begin_term().unwrap().unwrap();
    assert_eq!(next, term + 1);
    for _ in 0..250 {
        assert!(new.append(next, &fact).unwrap());
    }
    new.tidy().unwrap();
    assert!(!old.append(term, &fact).unwrap());
    let mut third = fleet.log();
    assert_eq!(third.begin_term().unwrap(), Some(next + 1), "a snapshot is as good as the log");
    assert!(!new.append(next, &fact).unwrap());
}
