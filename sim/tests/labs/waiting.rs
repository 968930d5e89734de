//! The hazards of those who wait for a command: H-6 to H-9, H-24.

use crate::{get, incr, integer};
use flotilla_services::client::Reply;
use flotilla_sim::script::{Answer, CallId, Script, Setup};
use std::collections::BTreeSet;

/// H-6: leaders come and go so that two clients wait for different commands at the same index. Everybody is answered, and
/// with the truth.
#[test]
fn two_may_wait_at_the_same_index_h6() {
    let mut collisions = 0;
    for seed in 0..20 {
        let mut script = Script::new(Setup::new(3).seed(seed));
        let mut calls: Vec<CallId> = Vec::new();
        script.elected(2_000).unwrap();
        for _ in 0..12 {
            // Everybody leads for a moment at most, and alone, so that logs of several terms lie beside each other.
            let Some(leader) = script.leader() else {
                script.run_for(50).unwrap();
                continue;
            };
            (0..3).for_each(|node| script.disconnect(node));
            for _ in 0..6 {
                calls.push(script.ask(leader, &["INCR", "counter"]));
            }
            script.run_for(500).unwrap();
            let pair = usize::try_from(script.draw(0, 2)).unwrap();
            script.connect(pair);
            script.connect((pair + 1) % 3);
            let pause = script.draw(300, 900);
            script.run_for(pause).unwrap();
            let open: Vec<u64> = calls
                .iter()
                .filter(|call| script.answer(**call).is_none())
                .filter_map(|call| script.placed(*call).map(|(index, _)| index))
                .collect();
            collisions += open.len() - open.iter().collect::<BTreeSet<_>>().len();
        }
        script.heal();
        let all = |script: &Script| calls.iter().all(|call| script.answer(*call).is_some());
        script.wait(11_000, "every command ends", all).unwrap();
        script.converged(5_000).unwrap();
        truthful(&mut script, &calls);
    }
    assert!(collisions > 0, "no two ever waited at the same index");
}

/// Every increment that was answered has a value of its own, and the counter has counted those, and no more than it may.
fn truthful(script: &mut Script, calls: &[CallId]) {
    let values: Vec<i64> = calls.iter().filter_map(|call| integer(script.answer(*call))).collect();
    let distinct: BTreeSet<&i64> = values.iter().collect();
    assert_eq!(distinct.len(), values.len(), "two were told the same: {values:?}");
    let lost = calls.iter().filter(|call| script.answer(**call) == Some(&Answer::Lost)).count();
    let count: usize = get(script, "counter").map_or(0, |count| count.parse().unwrap());
    assert!((values.len()..=values.len() + lost).contains(&count), "{count}: {} and {lost}", values.len());
}

/// H-7: a command is registered before it can be applied: no reply ever waits for a timeout.
#[test]
fn no_reply_is_missed_h7() {
    for nodes in [1, 3] {
        let mut script = Script::new(Setup::new(nodes));
        let leader = script.elected(2_000).unwrap();
        script.run_for(100).unwrap();
        for number in 1..=750 {
            let call = script.ask(leader, &["INCR", "counter"]);
            let answer = script.answered(call, 3).unwrap();
            assert_eq!(integer(Some(&answer)), Some(number));
        }
    }
}

/// H-8: clients that don't wait for their answers stop nobody.
#[test]
fn clients_that_are_gone_hold_up_nothing_h8() {
    let mut script = Script::new(Setup::new(3));
    let leader = script.elected(2_000).unwrap();
    script.run_for(100).unwrap();
    for round in 0..300 {
        let calls: Vec<CallId> = (0..3).map(|_| script.ask(leader, &["INCR", "counter"])).collect();
        let read = script.ask(leader, &["GET", "counter"]);
        if round % 3 == 0 {
            script.run_for(1).unwrap();
        }
        calls.iter().skip(1).for_each(|call| script.hang_up(leader, *call));
        script.hang_up(leader, read);
        script.answered(calls[0], 5).unwrap();
    }
    script.converged(100).unwrap();
    assert_eq!(get(&mut script, "counter").as_deref(), Some("900"), "what was taken is done");
}

/// H-9: a command that was replaced is never answered with the result of what replaced it; and one that survived its
/// leader is answered with its own.
#[test]
fn nobody_is_told_of_another_s_command_h9() {
    for seed in 0..10 {
        let mut script = Script::new(Setup::new(3).seed(seed));
        let first = script.elected(2_000).unwrap();
        incr(&mut script, 3);
        script.disconnect(first);
        let replaced: Vec<CallId> =
            (0..4).map(|_| script.ask(first, &["SET", "key", "replaced", "GET"])).collect();
        // At the same indices, other commands with other results.
        for _ in 0..6 {
            incr(&mut script, 2);
        }
        script.connect(first);
        script.converged(1_000).unwrap();
        for call in replaced {
            let placed = script.placed(call).unwrap();
            assert!(script.applied(first) >= placed.0);
            assert!(script.answer(call).is_some_and(Answer::is_elsewhere), "{:?}", script.answer(call));
        }
        assert_eq!(get(&mut script, "key"), None);
        // The followers have it, but the leader isn't told; it leads no more, and then everybody has it.
        let leader = script.elected(2_000).unwrap();
        (0..3).filter(|node| *node != leader).for_each(|node| script.cut(node, leader));
        let call = script.ask(leader, &["SET", "key", "kept"]);
        script.run_for(2_000).unwrap();
        assert_eq!(script.answer(call), None, "it can't know");
        script.heal();
        let answer = script.answered(call, 2_000).unwrap();
        assert_eq!(answer, Answer::Reply(Reply::Status("OK".to_owned())));
        assert_eq!(get(&mut script, "key").as_deref(), Some("kept"));
    }
}

/// H-24: nobody is known by the time of day. Two at the same instant are two, and when a calendar goes back an hour no
/// write is lost, and nothing that has expired comes back.
#[test]
fn clocks_name_nobody_h24() {
    let mut script = Script::new(Setup::new(3));
    let leader = script.elected(2_000).unwrap();
    let calls = [0, 1].map(|_| script.ask(leader, &["INCR", "counter"]));
    for (call, expected) in calls.iter().zip([1, 2]) {
        let answer = script.answered(*call, 1_000).unwrap();
        assert_eq!(integer(Some(&answer)), Some(expected));
    }
    script.one(&["SET", "brief", "x", "PX", "100"], 3, true).unwrap();
    script.run_for(500).unwrap();
    assert_eq!(get(&mut script, "brief"), None);
    for hours in [-1, 2, -3] {
        (0..3).for_each(|node| script.set_calendar(node, hours * 3_600_000));
        let before: i64 = get(&mut script, "counter").unwrap().parse().unwrap();
        for number in 1..=5 {
            assert_eq!(incr(&mut script, 3), before + number, "{hours} h");
        }
        assert_eq!(get(&mut script, "brief"), None, "{hours} h");
        let leader = script.leader().unwrap();
        script.crash(leader);
        assert_eq!(incr(&mut script, 2), before + 6);
        script.restart(leader);
        script.converged(3_000).unwrap();
    }
}

/// NET-10: a command that was handed on to the leader ends for its client, too, when the answer is lost on the way back, or
/// when there is no way there.
#[test]
fn who_waits_for_another_node_s_answer_waits_not_for_ever_net_10() {
    let mut script = Script::new(Setup { forward: true, ..Setup::new(3) });
    let leader = script.elected(2_000).unwrap();
    script.run_for(100).unwrap();
    let other = (leader + 1) % 3;
    let call = script.ask(other, &["INCR", "counter"]);
    let answer = script.answered(call, 5).unwrap();
    assert_eq!(integer(Some(&answer)), Some(1), "it is handed on");
    script.cut(leader, other);
    let calls = [["INCR", "counter"], ["GET", "counter"]].map(|command| script.ask(other, &command));
    script.run_for(5_000).unwrap();
    assert!(script.answer(calls[0]).is_none(), "the answer may still come");
    let all = |script: &Script| calls.iter().all(|call| script.answer(*call).is_some());
    script.wait(5_100, "it doesn't come", all).unwrap();
    assert_eq!(script.answer(calls[0]), Some(&Answer::Lost));
    assert!(script.answer(calls[1]).is_some_and(Answer::is_elsewhere), "a read may be tried again");
    script.mend(leader, other);
    assert_eq!(get(&mut script, "counter").as_deref(), Some("2"), "it was done");
    // The leader dies. Whoever asks then waits for the next one.
    let leader = script.elected(2_000).unwrap();
    script.run_for(200).unwrap();
    script.crash(leader);
    script.run_for(5).unwrap();
    let call = script.ask((leader + 1) % 3, &["INCR", "counter"]);
    let answer = script.answered(call, script.setup().elected_within_ms()).unwrap();
    assert_eq!(integer(Some(&answer)), Some(3));
}
