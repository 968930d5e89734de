//! When snapshots are due, and what follows from one.

use super::super::shards::Status;
use super::super::testing::Lone;
use super::*;
use crate::entry::{self, SCHEMA_COMMAND_V1};
use flotilla_runtime::Machine;
use std::rc::Rc;

/// Writes so many entries, and applies them.
fn write(lone: &mut Lone, entries: u64) {
    let set = crate::command::lookup(b"SET").unwrap().code;
    let last = lone.core.groups[0].applied + entries;
    for _ in 0..entries {
        let write = |writer: &mut flotilla_storage::PayloadWriter<'_>| {
            entry::write(writer, 1, set, &[b"SET", b"key", b"value"]);
        };
        lone.core.multi.propose(lone.now.monotonic, 0, SCHEMA_COMMAND_V1, 100, write).unwrap();
    }
    for _ in 0..1000 {
        if lone.core.groups[0].applied == last {
            return;
        }
        lone.turn();
    }
    panic!("{} of {last} entries are applied", lone.core.groups[0].applied);
}

#[test]
fn what_a_snapshot_covers_is_forgotten_over_several_turns_and_all_of_it() {
    let mut lone = Lone::leading();
    write(&mut lone, 3 * FORGOTTEN_IN_A_TURN);
    let (index, term) = (lone.core.groups[0].applied, lone.core.multi.raft(0).term());
    let forgotten = |lone: &Lone| lone.core.multi.raft(0).log().snapshot().0;
    lone.core.snapshots.groups[0].newest = Some(SnapshotFile { number: 1, index, term, bytes: 4096 });
    lone.core.forget_log(lone.now, 0);
    assert_eq!(forgotten(&lone), FORGOTTEN_IN_A_TURN);
    let mut turns = 0;
    while forgotten(&lone) < index {
        assert!(lone.core.deadline().is_some_and(|at| at <= lone.now.monotonic), "it goes on at once");
        let before = forgotten(&lone);
        lone.turn();
        assert!(forgotten(&lone) - before <= FORGOTTEN_IN_A_TURN);
        turns += 1;
        assert!(turns < 10, "{} of {index}", forgotten(&lone));
    }
    assert!(!lone.core.snapshots.is_forgetting);
}

#[test]
fn no_snapshot_is_taken_of_a_part_of_a_shard_that_comes() {
    let mut lone = Lone::leading();
    write(&mut lone, 200);
    let bytes = lone.core.multi.raft(0).log().bytes();
    let mut config = (*lone.core.config).clone();
    config.log.snapshot_after_bytes = bytes / 2;
    lone.core.config = Rc::new(config);
    assert!(lone.core.is_snapshot_due(0));
    lone.core.groups[0].shards.get_mut(0).unwrap().status = Status::Arriving { from: 7 };
    assert!(!lone.core.is_snapshot_due(0), "it would soon be followed by one of all of it");
    write(&mut lone, 400);
    assert!(lone.core.is_snapshot_due(0), "the log doesn't wait for ever");
}
