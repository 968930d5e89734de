//! MapReduce in a simulated world: coordinators that come and go, a log that decides, workers that crash, stop and wake, and a
//! network that loses, doubles and delays. Whatever happens, the output is that of a sequential run, and committed once.
//!
//! The coordinator, its ledger, and the engine from splits to output are the real ones; clock, network, files and the log's
//! replication are the world's.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

mod files;
mod world;

use world::{Faults, World};

fn run(seeds: std::ops::Range<u64>, faults: Faults) -> world::Seen {
    let mut seen = world::Seen::default();
    for seed in seeds {
        let mut world = World::new(seed, faults);
        world.run();
        world.check();
        seen.add(&world.seen);
    }
    seen
}

#[test]
fn without_faults_nothing_is_done_twice() {
    let seen = run(0..50, Faults::default());
    assert_eq!((seen.late, seen.lost_outputs, seen.leaders), (0, 0, 50), "{seen:?}");
}

#[test]
fn a_network_that_loses_and_doubles_changes_nothing() {
    let seen = run(0..150, Faults { network: true, ..Faults::default() });
    assert!(seen.dropped > 1000 && seen.doubled > 1000, "{seen:?}");
}

#[test]
fn workers_that_crash_stop_and_wake_change_nothing() {
    let seen = run(0..150, Faults { workers: true, ..Faults::default() });
    assert!(
        seen.crashes > 100 && seen.pauses > 100 && seen.late > 5 && seen.interrupted_commits > 20,
        "{seen:?}"
    );
}

#[test]
fn a_coordinator_that_dies_at_any_moment_changes_nothing_and_no_finished_task_runs_again() {
    let seen = run(0..300, Faults { leaders: true, ..Faults::default() });
    assert!(seen.leaders > 900 && seen.proposals_lost > 20 && seen.proposals_survived > 20, "{seen:?}");
    assert_eq!(seen.assigned_after_done, 0, "{seen:?}");
}

#[test]
fn outputs_of_map_tasks_that_disappear_are_made_again() {
    let seen = run(0..150, Faults { files: true, ..Faults::default() });
    assert!(seen.lost_outputs > 50 && seen.lost_winners > 2, "{seen:?}");
}

#[test]
fn all_of_it_at_once() {
    let all = Faults { network: true, workers: true, leaders: true, files: true, ..Faults::default() };
    let seen = run(1000..1400, all);
    assert!(
        seen.late > 100 && seen.crashes > 100 && seen.leaders > 1200 && seen.interrupted_commits > 50,
        "{seen:?}"
    );
}

#[test]
fn keys_that_change_count_once_each_and_keys_are_written_once_each() {
    let faults =
        Faults { network: true, workers: true, leaders: true, files: true, keys: true, cancel: false };
    let calm = run(0..50, Faults { keys: true, ..Faults::default() });
    assert_eq!((calm.late, calm.reduced_in_vain), (0, 0), "{calm:?}");
    let seen = run(0..200, faults);
    assert!(seen.crashes > 200 && seen.late > 100 && seen.reduced_in_vain > 2, "{seen:?}");
}

#[test]
fn a_job_to_keys_that_is_cancelled_shows_nothing_or_all() {
    let faults =
        Faults { network: true, workers: true, leaders: true, files: false, keys: true, cancel: true };
    let seen = run(0..200, faults);
    assert!(seen.cancelled > 50 && seen.cancelled_too_late > 10, "{seen:?}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    let all = Faults { network: true, workers: true, leaders: true, files: true, ..Faults::default() };
    let (mut one, mut other) = (World::new(7, all), World::new(7, all));
    one.run();
    other.run();
    assert_eq!(one.seen, other.seen);
    assert_eq!(one.log, other.log);
}
