//! RSM-01 to 08: the replicated state machine under the log, seen through a counter.

use crate::{get, incr, integer};
use flotilla_sim::script::{Answer, CallId, Script, Setup};

fn started(setup: Setup) -> (Script, usize) {
    let mut script = Script::new(setup);
    let leader = script.elected(setup.elected_within_ms()).unwrap();
    (script, leader)
}

fn asked(script: &mut Script, node: usize, command: &str, times: usize) -> Vec<CallId> {
    (0..times).map(|_| script.ask(node, &[command, "counter"])).collect()
}

fn all_answered(script: &mut Script, calls: &[CallId], limit_ms: u64) {
    let all = |script: &Script| calls.iter().all(|call| script.answer(*call).is_some());
    script.wait(limit_ms, "every command ends", all).unwrap();
}

/// RSM-01: a command's reply is its own result, and every replica executes it once.
#[test]
fn a_reply_is_the_command_s_own_result_rsm_01() {
    let (mut script, _) = started(Setup::new(3));
    for number in 1..=10 {
        assert_eq!(incr(&mut script, 3), number);
    }
    script.converged(1_000).unwrap();
    assert!((0..3).all(|node| script.entries(node).len() == 10), "an entry each, on every replica");
}

/// RSM-02: fifty at once.
#[test]
fn fifty_at_once_are_fifty_results_rsm_02() {
    let (mut script, leader) = started(Setup::new(3));
    let calls = asked(&mut script, leader, "INCR", 50);
    all_answered(&mut script, &calls, 1_000);
    let values: Vec<_> = calls.iter().map(|call| integer(script.answer(*call)).unwrap()).collect();
    assert_eq!(values, (1..=50).collect::<Vec<i64>>());
    script.converged(1_000).unwrap();
}

/// RSM-03: the leader is cut off; the next one goes on with the same state, and the old one catches up.
#[test]
fn another_leader_goes_on_rsm_03() {
    let (mut script, first) = started(Setup::new(3));
    assert_eq!(incr(&mut script, 3), 1);
    script.disconnect(first);
    let begun = script.now_ms();
    assert_eq!(incr(&mut script, 2), 2);
    assert!(script.now_ms() - begun <= script.setup().elected_within_ms() + 100);
    assert_ne!(script.leader(), Some(first));
    assert!(script.applied(first) < script.applied(script.leader().unwrap()));
    script.connect(first);
    script.converged(1_000).unwrap();
    assert_eq!(incr(&mut script, 3), 3);
}

/// RSM-04: what a leader without a majority was given neither happens nor is answered; once it hears the others, all of it
/// is answered: it didn't happen. Also when the others' log is far shorter.
#[test]
fn pending_commands_of_a_deposed_leader_are_redirected_rsm_04() {
    for seed in 0..10 {
        let (mut script, first) = started(Setup::new(3).seed(seed));
        assert_eq!(incr(&mut script, 3), 1);
        script.disconnect(first);
        let calls = asked(&mut script, first, "DECR", 100);
        assert_eq!(incr(&mut script, 2), 2);
        script.run_for(1_000).unwrap();
        assert!(calls.iter().all(|call| script.answer(*call).is_none()), "nobody knows yet");
        assert_eq!(incr(&mut script, 2), 3);
        script.connect(first);
        all_answered(&mut script, &calls, 1_000);
        for call in &calls {
            assert!(script.answer(*call).is_some_and(Answer::is_elsewhere), "{:?}", script.answer(*call));
        }
        script.converged(1_000).unwrap();
        assert_eq!(incr(&mut script, 3), 4);
    }
}

/// RSM-05: the log rebuilds the state.
#[test]
fn a_restart_of_all_replays_the_log_rsm_05() {
    let (mut script, _) = started(Setup::new(3));
    for number in 1..=100 {
        assert_eq!(incr(&mut script, 3), number);
    }
    (0..3).for_each(|node| script.shut_down(node));
    script.wait(5_000, "all are down", |script| (0..3).all(|node| !script.is_up(node))).unwrap();
    (0..3).for_each(|node| script.restart(node));
    assert_eq!(incr(&mut script, 3), 101);
    script.converged(1_000).unwrap();
}

/// Everybody is asked to stop while a hundred commands are under way: all of them end, and so do the nodes. Returns the
/// (done, perhaps done).
fn shut_down_busily(script: &mut Script) -> (i64, i64) {
    let leader = script.elected(5_000).unwrap();
    let calls = asked(script, leader, "INCR", 100);
    (0..3).for_each(|node| script.shut_down(node));
    all_answered(script, &calls, 4_000);
    script.wait(4_000, "all are down", |script| (0..3).all(|node| !script.is_up(node))).unwrap();
    let count = |what: fn(&Answer) -> bool| {
        let such = |call: &&CallId| script.answer(**call).is_some_and(what);
        calls.iter().filter(such).count()
    };
    let (done, lost) = (count(Answer::is_done), count(|answer| *answer == Answer::Lost));
    (i64::try_from(done).unwrap(), i64::try_from(lost).unwrap())
}

/// RSM-06, H-25: nothing waits for a node that has stopped. The labs allow 11 s; a drain is 3 s at most.
#[test]
fn every_command_ends_when_the_nodes_stop_rsm_06_h25() {
    for seed in 0..5 {
        let (mut script, _) = started(Setup::new(3).seed(seed));
        shut_down_busily(&mut script);
        // The same when there is nobody to agree with: the leader can't finish, and says so.
        (0..3).for_each(|node| script.restart(node));
        let leader = script.elected(5_000).unwrap();
        script.disconnect((leader + 1) % 3);
        script.disconnect((leader + 2) % 3);
        let calls = asked(&mut script, leader, "INCR", 100);
        script.shut_down(leader);
        all_answered(&mut script, &calls, 3_100);
        script.wait(100, "it is down", |script| !script.is_up(leader)).unwrap();
        // And when it dies.
        script.heal();
        script.restart(leader);
        let leader = script.elected(5_000).unwrap();
        let calls = asked(&mut script, leader, "INCR", 100);
        script.crash(leader);
        all_answered(&mut script, &calls, 0);
    }
}

/// RSM-07: what was asked before a shutdown isn't taken for what is asked after it.
#[test]
fn commands_from_before_a_shutdown_are_not_confused_with_later_ones_rsm_07() {
    for seed in 0..5 {
        let (mut script, _) = started(Setup::new(3).seed(seed));
        let (mut least, mut most) = (0, 0);
        for _ in 0..3 {
            let (done, lost) = shut_down_busily(&mut script);
            (least, most) = (least + done, most + done + lost);
            (0..3).for_each(|node| script.restart(node));
            let value = incr(&mut script, 3);
            (least, most) = (least + 1, most + 1);
            assert!((least..=most).contains(&value), "{value} isn't between {least} and {most}");
            assert_eq!(incr(&mut script, 3), value + 1);
            (least, most) = (value + 1, value + 1);
        }
        script.converged(1_000).unwrap();
    }
}

/// RSM-08: snapshots keep the log short, and a restart begins with one.
#[test]
fn a_restart_of_all_begins_with_a_snapshot_rsm_08() {
    let (mut script, _) = started(Setup::new(3).snapshot_after(4096));
    for number in 1..=100 {
        assert_eq!(incr(&mut script, 3), number);
        let longest = (0..3).map(|node| script.log_bytes(node)).max().unwrap();
        assert!(longest <= 2 * 4096, "{longest} bytes of log");
    }
    (0..3).for_each(|node| script.crash(node));
    (0..3).for_each(|node| script.restart(node));
    assert!((0..3).all(|node| script.group(node).unwrap().first_index > 1));
    assert_eq!(incr(&mut script, 3), 101);
    assert_eq!(get(&mut script, "counter").as_deref(), Some("101"));
    script.converged(1_000).unwrap();
}
