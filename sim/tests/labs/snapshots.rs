//! RAFT-D1 to D7, and the hazards of snapshots: logs stay short, and whoever is too far behind gets a snapshot.

use crate::{get, incr, set};
use flotilla_consensus::Kind;
use flotilla_sim::script::{Script, Setup, Weather};

const AFTER: usize = 4096;

/// What the log may have: a snapshot is begun after so much, and more comes while it is written.
fn is_trimmed(script: &Script, nodes: usize, most: usize) {
    for node in 0..nodes {
        let bytes = script.log_bytes(node);
        assert!(bytes <= most, "node {node} keeps {bytes} bytes of log, a snapshot is due every {AFTER}");
    }
}

/// RAFT-D1: logs are trimmed all the time, and nobody who keeps up is sent a snapshot.
#[test]
fn logs_stay_short_raft_d1() {
    let mut script = Script::new(Setup::new(3).snapshot_after(AFTER));
    let value = "v".repeat(100);
    for round in 0..30 {
        for _ in 0..script.draw(5, 14) {
            script.one(&["SET", "key", &value], 3, true).unwrap();
            is_trimmed(&script, 3, 2 * AFTER);
        }
        assert!(round < 20 || (0..3).all(|node| script.group(node).unwrap().first_index > 100));
    }
    assert_eq!(script.snapshot_parts(), 0);
    script.converged(1_000).unwrap();
}

/// A victim misses so much that only a snapshot helps, thirty times.
fn install(weather: Weather, crash: bool) {
    let mut script = Script::new(Setup::new(3).snapshot_after(AFTER).seed(7));
    script.weather(weather);
    let value = "v".repeat(1000);
    set(&mut script, "begin", 3);
    for round in 0..30 {
        let leader = script.elected(20_000).unwrap();
        let victim = if round % 3 == 1 { leader } else { (leader + 1) % 3 };
        match crash {
            true => script.crash(victim),
            false => script.disconnect(victim),
        }
        for _ in 0..script.draw(25, 30) {
            script.one(&["SET", "key", &value], 2, true).unwrap();
            // Four times the threshold is kept for somebody who may come back.
            is_trimmed(&script, 3, 6 * AFTER);
        }
        let behind = script.applied(victim);
        script.restart(victim);
        script.connect(victim);
        let index = set(&mut script, &format!("round:{}", round % 4), 3);
        assert!(script.applied(victim) >= index && index > behind + 25);
        is_trimmed(&script, 3, 6 * AFTER);
    }
    let parts = script.snapshot_parts();
    assert!(parts >= 25, "only {parts} parts of snapshots were sent");
    script.weather(Weather::Fair);
    script.converged(2_000).unwrap();
    for round in 0..4 {
        assert_eq!(get(&mut script, &format!("round:{round}")).as_deref(), Some("x"));
    }
}

/// RAFT-D2: the victim was cut off.
#[test]
fn who_was_away_gets_a_snapshot_raft_d2() {
    install(Weather::Fair, false);
}

/// RAFT-D3: the same on an unreliable network.
#[test]
fn who_was_away_gets_a_snapshot_over_a_bad_network_raft_d3() {
    install(Weather::Unreliable, false);
}

/// RAFT-D4: the victim was down.
#[test]
fn who_was_down_gets_a_snapshot_raft_d4() {
    install(Weather::Fair, true);
}

/// RAFT-D5: the same on an unreliable network.
#[test]
fn who_was_down_gets_a_snapshot_over_a_bad_network_raft_d5() {
    install(Weather::Unreliable, true);
}

/// RAFT-D6: all crash and come back from a snapshot and the log behind it, five times.
#[test]
fn all_come_back_from_snapshot_and_log_raft_d6() {
    let mut script = Script::new(Setup::new(3).snapshot_after(AFTER));
    let value = "v".repeat(200);
    let mut last = 0;
    for round in 0..5 {
        for _ in 0..script.draw(25, 40) {
            script.one(&["SET", "key", &value], 3, true).unwrap();
        }
        let index = set(&mut script, &format!("round:{round}"), 3);
        assert!(index > last, "the index never decreases");
        last = index;
        (0..3).for_each(|node| script.crash(node));
        (0..3).for_each(|node| script.restart(node));
        let firsts = (0..3).map(|node| script.group(node).unwrap().first_index);
        assert!(firsts.min() > Some(1), "they start from a snapshot");
        for round in 0..=round {
            assert_eq!(get(&mut script, &format!("round:{round}")).as_deref(), Some("x"));
        }
    }
    script.converged(2_000).unwrap();
}

/// RAFT-D7: two restarts with one command between; the snapshot isn't forgotten by what is written after the first.
#[test]
fn a_snapshot_outlives_the_next_restarts_raft_d7() {
    let mut script = Script::new(Setup::new(3).snapshot_after(AFTER));
    for number in 1..=100 {
        assert_eq!(incr(&mut script, 3), number);
    }
    assert!((0..3).all(|node| script.group(node).unwrap().first_index > 1));
    for round in 1..=2 {
        (0..3).for_each(|node| script.crash(node));
        (0..3).for_each(|node| script.restart(node));
        assert_eq!(incr(&mut script, 3), 100 + round);
    }
    script.converged(2_000).unwrap();
}

/// H-10: what is at the edge of a snapshot is never given to the state machine as a command: sixteen clients, snapshots,
/// elections (each with its empty entry) and restarts.
#[test]
fn the_edge_of_a_snapshot_is_no_command_h10() {
    let mut script = Script::new(Setup::new(3).snapshot_after(AFTER).seed(10));
    let mut done = 0;
    for round in 0..40 {
        let leader = script.elected(5_000).unwrap();
        let calls: Vec<_> = (0..16).map(|_| script.ask(leader, &["INCR", "counter"])).collect();
        script
            .wait(5_000, "sixteen clients", |script| calls.iter().all(|call| script.answer(*call).is_some()))
            .unwrap();
        done += calls.iter().filter(|call| script.answer(**call).is_some_and(|it| it.is_done())).count();
        let node = if round % 2 == 0 { leader } else { (leader + round) % 3 };
        script.crash(node);
        script.run_for(round as u64 * 7 % 50).unwrap();
        script.restart(node);
    }
    script.converged(5_000).unwrap();
    assert_eq!(get(&mut script, "counter"), Some(done.to_string()));
}

/// H-11: snapshots are taken while the disk is slow and nodes crash at any moment. What a restart finds fits together:
/// the state and the log behind it.
#[test]
fn a_snapshot_and_its_log_always_fit_together_h11() {
    for seed in 0..6 {
        let setup = Setup { disk_us: 3_000, ..Setup::new(3).snapshot_after(AFTER).seed(seed) };
        let mut script = Script::new(setup);
        let (mut done, mut lost) = (0, 0);
        for _ in 0..60 {
            let leader = script.elected(5_000).unwrap();
            let calls: Vec<_> = (0..8).map(|_| script.ask(leader, &["INCR", "counter"])).collect();
            let pause = script.draw(1, 60);
            script.run_for(pause).unwrap();
            let node = usize::try_from(script.draw(0, 2)).unwrap();
            script.crash(node);
            let pause = script.draw(1, 60);
            script.run_for(pause).unwrap();
            script.restart(node);
            script
                .wait(11_000, "every command ends", |script| {
                    calls.iter().all(|call| script.answer(*call).is_some())
                })
                .unwrap();
            let is_done = |call: &&_| script.answer(**call).is_some_and(|it| it.is_done());
            let is_elsewhere = |call: &&_| script.answer(**call).is_some_and(|it| it.is_elsewhere());
            let here = calls.iter().filter(is_done).count();
            done += here;
            lost += calls.len() - here - calls.iter().filter(is_elsewhere).count();
        }
        script.converged(5_000).unwrap();
        let value: usize = get(&mut script, "counter").unwrap().parse().unwrap();
        assert!((done..=done + lost).contains(&value), "seed {seed}: {value} of {done} and {lost}");
        assert!((0..3).all(|node| script.group(node).unwrap().first_index > 1));
    }
}

/// H-13: a snapshot older than what a follower has changes nothing, however late it comes.
#[test]
fn an_old_snapshot_rolls_nothing_back_h13() {
    let mut script = Script::new(Setup::new(3).snapshot_after(AFTER).seed(13));
    let value = "v".repeat(1000);
    let leader = script.elected(2_000).unwrap();
    let victim = (leader + 1) % 3;
    script.disconnect(victim);
    for _ in 0..40 {
        script.one(&["SET", "key", &value], 2, true).unwrap();
    }
    script.record();
    script.connect(victim);
    set(&mut script, "with a snapshot", 3);
    let tape = script.take_tape();
    let parts: Vec<_> = tape.iter().filter(|sent| sent.kinds.contains(&Kind::Snapshot)).collect();
    assert!(!parts.is_empty());
    for number in 0..40 {
        set(&mut script, &format!("key:{}", number % 7), 3);
    }
    script.converged(1_000).unwrap();
    let look = |script: &Script| {
        let group = script.group(victim).unwrap();
        (group.applied, group.commit, group.first_index, group.state_hash())
    };
    let before = look(&script);
    for part in &parts {
        script.deliver_late(part);
        script.run_for(5).unwrap();
    }
    script.run_for(500).unwrap();
    let after = look(&script);
    assert!(after.0 >= before.0 && after.1 >= before.1 && after.2 >= before.2 && after.3 == before.3);
    // And after a restart.
    script.crash(victim);
    script.restart(victim);
    set(&mut script, "afterwards", 3);
    script.converged(1_000).unwrap();
}

/// H-18: catching up around the edge of a snapshot takes messages in proportion to what is sent, and no loop of tries.
#[test]
fn catching_up_by_snapshot_takes_few_messages_h18() {
    let mut script = Script::new(Setup::new(3).snapshot_after(AFTER).seed(18));
    let value = "v".repeat(1000);
    let leader = script.elected(2_000).unwrap();
    let victim = (leader + 1) % 3;
    script.disconnect(victim);
    for number in 0..100 {
        script.one(&["SET", &format!("key:{}", number % 20), &value], 2, true).unwrap();
    }
    script.take_traffic();
    script.connect(victim);
    let begun = script.now_ms();
    script.converged(3_000).unwrap();
    let heartbeats = 4 * ((script.now_ms() - begun) / script.setup().heartbeat_ms + 1);
    let sent = script.take_traffic();
    let parts = sent.of(Kind::Snapshot);
    // Twenty keys of 1000 bytes in pieces of 8 KiB and less.
    assert!((1..=12).contains(&parts), "{sent:?}");
    let messages = sent.requests() + sent.answers() - heartbeats;
    assert!(messages <= 2 * parts + 30, "{sent:?}");
}
