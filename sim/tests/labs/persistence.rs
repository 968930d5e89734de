//! RAFT-C1 to C5: what survives crashes and a bad network.

use crate::{get, set};
use flotilla_sim::script::{Answer, CallId, Script, Setup, Weather};

/// RAFT-C1: log, term and vote survive, whoever crashes.
#[test]
fn what_was_committed_survives_every_crash_raft_c1() {
    for seed in 0..10 {
        let setup = Setup::new(3).seed(seed);
        let mut script = Script::new(setup);
        set(&mut script, "11", 3);
        let terms: Vec<u64> = (0..3).map(|node| script.term(node)).collect();
        (0..3).for_each(|node| script.crash(node));
        (0..3).for_each(|node| script.restart(node));
        assert!((0..3).all(|node| script.term(node) >= terms[node]), "terms never go back");
        set(&mut script, "12", 3);
        // The leader.
        let leader = script.elected(setup.elected_within_ms()).unwrap();
        script.crash(leader);
        script.restart(leader);
        set(&mut script, "13", 3);
        // The leader, and something is committed meanwhile.
        let leader = script.elected(setup.elected_within_ms()).unwrap();
        script.crash(leader);
        set(&mut script, "14", 2);
        script.restart(leader);
        script.converged(2_000).unwrap();
        // A follower.
        let leader = script.elected(setup.elected_within_ms()).unwrap();
        script.crash((leader + 1) % 3);
        set(&mut script, "15", 2);
        script.restart((leader + 1) % 3);
        set(&mut script, "16", 3);
        script.converged(2_000).unwrap();
        let keys = ["11", "12", "13", "14", "15", "16"];
        for node in 0..3 {
            let entries = script.entries(node);
            assert!(entries.len() >= 6, "{} entries", entries.len());
        }
        for key in keys {
            assert_eq!(get(&mut script, key).as_deref(), Some("x"));
        }
    }
}

/// RAFT-C2: five rounds of two down, three down, and starts one after the other.
#[test]
fn crashes_and_staggered_starts_lose_nothing_raft_c2() {
    for seed in 0..4 {
        let setup = Setup::new(5).seed(seed);
        let mut script = Script::new(setup);
        let mut number = 11;
        let mut command = |script: &mut Script, on| {
            set(script, &format!("key:{number}"), on);
            number += 1;
        };
        for _ in 0..5 {
            command(&mut script, 5);
            let leader = script.elected(setup.elected_within_ms()).unwrap();
            let place = |step: usize| (leader + step) % 5;
            [1, 2].iter().for_each(|step| script.crash(place(*step)));
            command(&mut script, 3);
            [0, 3, 4].iter().for_each(|step| script.crash(place(*step)));
            [1, 2].iter().for_each(|step| script.restart(place(*step)));
            script.run_for(2 * setup.election_ms).unwrap();
            script.restart(place(3));
            command(&mut script, 3);
            [4, 0].iter().for_each(|step| script.restart(place(*step)));
        }
        command(&mut script, 5);
        script.converged(2_000).unwrap();
        for number in 11..27 {
            assert_eq!(get(&mut script, &format!("key:{number}")).as_deref(), Some("x"), "seed {seed}");
        }
    }
}

/// RAFT-C3: a follower that missed an entry and a leader that comes back agree on it.
#[test]
fn an_old_follower_and_a_restarted_leader_lose_nothing_raft_c3() {
    for seed in 0..10 {
        let setup = Setup::new(3).seed(seed);
        let mut script = Script::new(setup);
        set(&mut script, "101", 3);
        let leader = script.elected(setup.elected_within_ms()).unwrap();
        script.disconnect((leader + 2) % 3);
        set(&mut script, "102", 2);
        script.crash(leader);
        script.crash((leader + 1) % 3);
        script.connect((leader + 2) % 3);
        script.restart(leader);
        set(&mut script, "103", 2);
        script.restart((leader + 1) % 3);
        set(&mut script, "104", 3);
        script.converged(2_000).unwrap();
        for key in ["101", "102", "103", "104"] {
            assert_eq!(get(&mut script, key).as_deref(), Some("x"), "seed {seed}");
        }
    }
}

/// Has each of these keys set, however often that takes.
fn all_set(script: &mut Script, keys: &[String]) {
    let mut calls: Vec<Option<CallId>> = vec![None; keys.len()];
    let end = script.now_ms() + 30_000;
    loop {
        let leader = script.leader();
        let mut open = 0;
        for (key, call) in keys.iter().zip(&mut calls) {
            let answer = call.map(|call| script.answer(call).cloned());
            match (answer, leader) {
                (Some(Some(answer)), _) if answer.is_done() => continue,
                (Some(None), _) => {}
                (_, Some(leader)) => *call = Some(script.ask(leader, &["SET", key, "x"])),
                _ => {}
            }
            open += 1;
        }
        if open == 0 {
            return;
        }
        assert!(script.now_ms() < end, "{open} commands aren't done");
        script.run_for(10).unwrap();
    }
}

/// RAFT-C5: on an unreliable network everything is committed all the same.
#[test]
fn an_unreliable_network_only_takes_longer_raft_c5() {
    for seed in 0..4 {
        let mut script = Script::new(Setup::new(5).seed(seed));
        script.weather(Weather::Unreliable);
        for round in 1..50 {
            let keys: Vec<String> = (0..5).map(|number| format!("key:{round}:{number}")).collect();
            all_set(&mut script, &keys);
        }
        script.weather(Weather::Fair);
        set(&mut script, "100", 5);
        script.converged(2_000).unwrap();
        for round in 1..50 {
            for number in 0..5 {
                assert_eq!(get(&mut script, &format!("key:{round}:{number}")).as_deref(), Some("x"));
            }
        }
    }
}

/// NET-12: the network changes while commands are under way, again and again; every one of them ends.
#[test]
fn the_network_changes_while_commands_wait_net_12() {
    let setup = Setup::new(3);
    let mut script = Script::new(setup);
    script.elected(setup.elected_within_ms()).unwrap();
    let weathers = [Weather::LongReordering, Weather::Fair, Weather::Unreliable, Weather::Fair];
    let mut calls = Vec::new();
    for round in 0..200 {
        script.weather(weathers[round % 4]);
        if let Some(leader) = script.leader() {
            calls.push(script.ask(leader, &["INCR", "counter"]));
        }
        let pause = script.draw(0, 20);
        script.run_for(pause).unwrap();
    }
    script.weather(Weather::Fair);
    let all = |script: &Script| calls.iter().all(|call| script.answer(*call).is_some());
    script.wait(11_000, "every command ends", all).unwrap();
    script.converged(5_000).unwrap();
    let done = calls.iter().filter(|call| script.answer(**call).is_some_and(Answer::is_done)).count();
    let value: usize = get(&mut script, "counter").unwrap().parse().unwrap();
    assert!(done > 100 && value >= done && value <= calls.len(), "{value} after {done} of {}", calls.len());
}
