//! Workers that nodes keep beside themselves.

use crate::cluster::start_slow_count;
use crate::fleet::Fleet;
use crate::rig::{children, classes, is_alive, signal, wait_until};
use flotilla_services::config::MapReduceSettings;
use rustix::process::Signal;

fn fleet() -> Fleet {
    let two = MapReduceSettings { workers: 2, ..MapReduceSettings::default() };
    Fleet::start_with(0, |options| options.mapreduce = two)
}

/// The process of a node's workers, once it is there.
fn workers(fleet: &Fleet, node: u32) -> u32 {
    let mut found = Vec::new();
    wait_until("the node's workers", || {
        found = children(fleet.cluster.nodes.pid(node).unwrap());
        found.len() == 1
    });
    found[0]
}

#[test]
fn a_job_needs_no_process_but_the_nodes() {
    let fleet = fleet();
    let rig = fleet.rig();
    let (job, expected) = start_slow_count(&fleet, &rig, 1);
    for node in 1..=3 {
        let pid = workers(&fleet, node);
        wait_until("both of its tasks to give way", || {
            classes(pid).iter().filter(|it| **it == 5).count() >= 2
        });
        assert!(classes(pid).contains(&0), "who speaks with the coordinator doesn't give way");
    }
    let ended = job.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), expected);
    assert!(rig.is_committed() && !rig.has_leftovers());
}

#[test]
fn workers_that_end_are_started_again_and_end_with_their_node() {
    let mut fleet = fleet();
    let rig = fleet.rig();
    let (job, expected) = start_slow_count(&fleet, &rig, 1);
    let first = workers(&fleet, 1);
    signal(first, Signal::KILL);
    wait_until("other workers", || {
        let all = children(fleet.cluster.nodes.pid(1).unwrap());
        !all.is_empty() && !all.contains(&first)
    });
    let ended = job.end();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(rig.sorted(), expected);
    let last = workers(&fleet, 1);
    fleet.cluster.nodes.kill(1);
    wait_until("its workers to end with the node", || !is_alive(last));
}
