//! RAFT-B1 to B10: what is committed, and what that costs.

use crate::{get, logged, none_done, set};
use flotilla_consensus::Kind;
use flotilla_sim::script::{Answer, CallId, Script, Setup};

fn started(setup: Setup) -> (Script, usize) {
    let mut script = Script::new(setup);
    let leader = script.elected(setup.elected_within_ms()).unwrap();
    (script, leader)
}

/// RAFT-B1: commands are committed in the order given, one entry each, at the first try; before, there is nothing.
#[test]
fn commands_are_committed_one_after_the_other_raft_b1() {
    let (mut script, leader) = started(Setup::new(3));
    script.run_for(1_000).unwrap();
    assert!((0..3).all(|node| script.entries(node).is_empty()), "nobody has asked for anything");
    let start = script.commit(leader);
    assert_eq!(start, 1, "the leader's own entry");
    for number in 1..=3 {
        let key = format!("key:{number}");
        let (index, _) = script.one(&["SET", &key, "x"], 3, false).unwrap();
        assert_eq!(index, start + number);
    }
    script.converged(1_000).unwrap();
}

/// RAFT-B2: every command goes to every peer once. The labs allow 200 000 bytes.
#[test]
fn every_command_is_sent_once_to_each_peer_raft_b2() {
    let (mut script, _) = started(Setup::new(3));
    set(&mut script, "warm", 3);
    script.take_traffic();
    let value = "v".repeat(5000);
    for number in 0..10 {
        script.one(&["SET", &format!("key:{number}"), &value], 3, false).unwrap();
    }
    let sent = script.take_traffic();
    assert!((100_000..110_000).contains(&sent.bytes), "{} bytes for 2 x 10 x 5000", sent.bytes);
    assert!(sent.of(Kind::Append) <= 20 + 2, "{sent:?}");
}

/// RAFT-B3: followers go one after the other; two of three agree, one alone commits nothing.
#[test]
fn a_leader_without_followers_commits_nothing_raft_b3() {
    let (mut script, leader) = started(Setup::new(3));
    set(&mut script, "one", 3);
    script.disconnect((leader + 1) % 3);
    set(&mut script, "two", 2);
    script.run_for(1_000).unwrap();
    let last = set(&mut script, "three", 2);
    assert_eq!(script.leader(), Some(leader), "one follower is enough");
    script.disconnect((leader + 2) % 3);
    let call = script.ask(leader, &["SET", "alone", "x"]);
    assert_eq!(script.placed(call).map(|(index, _)| index), Some(last + 1));
    script.run_for(2_000).unwrap();
    none_done(&script, &[call]);
    assert_eq!((0..3).map(|node| script.commit(node)).max(), Some(last));
}

/// RAFT-B4: leaders go one after the other; what every lone server is given isn't committed.
#[test]
fn what_lone_servers_are_given_is_not_committed_raft_b4() {
    let (mut script, first) = started(Setup::new(3));
    set(&mut script, "one", 3);
    script.disconnect(first);
    set(&mut script, "two", 2);
    set(&mut script, "three", 2);
    let second = script.leader().unwrap();
    assert_ne!(first, second);
    script.disconnect(second);
    let committed = (0..3).map(|node| script.commit(node)).max();
    let calls: Vec<CallId> = (0..3).map(|node| script.ask(node, &["SET", "alone", "x"])).collect();
    script.run_for(2_000).unwrap();
    none_done(&script, &calls);
    assert_eq!((0..3).map(|node| script.commit(node)).max(), committed);
}

/// RAFT-B5: a follower that was away gets what it missed.
#[test]
fn a_follower_catches_up_raft_b5() {
    let (mut script, leader) = started(Setup::new(3));
    set(&mut script, "before", 3);
    let away = (leader + 1) % 3;
    script.disconnect(away);
    for number in 0..4 {
        set(&mut script, &format!("key:{number}"), 2);
    }
    let term = script.term(leader);
    script.connect(away);
    // With the leader that there is, within a few heartbeats.
    script.converged(6 * script.setup().heartbeat_ms).unwrap();
    assert_eq!((script.leader(), script.term(away)), (Some(leader), term));
    for number in 0..4 {
        assert_eq!(logged(&script, 3, &format!("key:{number}")), 3);
    }
    set(&mut script, "after", 3);
}

/// RAFT-B6: a leader with one of four followers commits nothing; after the repair all five agree.
#[test]
fn a_minority_s_leader_commits_nothing_and_all_agree_after_repair_raft_b6() {
    let (mut script, leader) = started(Setup::new(5));
    let before = set(&mut script, "before", 5);
    let away = [1, 2, 3].map(|step| (leader + step) % 5);
    away.iter().for_each(|node| script.disconnect(*node));
    let call = script.ask(leader, &["SET", "minority", "x"]);
    assert_eq!(script.placed(call).map(|(index, _)| index), Some(before + 1));
    script.run_for(2_000).unwrap();
    none_done(&script, &[call]);
    assert!((0..5).all(|node| script.commit(node) == before));
    away.iter().for_each(|node| script.connect(*node));
    let index = set(&mut script, "after", 5);
    // An entry a term, and perhaps the minority's.
    assert!((before + 2..=before + 4).contains(&index), "{index} after {before}");
    script.converged(1_000).unwrap();
}

/// RAFT-B7: five commands at the same moment are five entries, in one append a follower.
#[test]
fn commands_at_the_same_moment_travel_together_raft_b7() {
    let (mut script, leader) = started(Setup::new(3));
    let before = set(&mut script, "before", 3);
    script.take_traffic();
    let calls: Vec<CallId> =
        (0..5).map(|number| script.ask(leader, &["SET", &format!("key:{number}"), "x"])).collect();
    script
        .wait(100, "five commands", |script| {
            calls.iter().all(|call| script.answer(*call).is_some_and(Answer::is_done))
        })
        .unwrap();
    let indices: Vec<u64> = calls.iter().map(|call| script.placed(*call).unwrap().0).collect();
    assert_eq!(indices, (before + 1..=before + 5).collect::<Vec<_>>());
    assert_eq!(script.traffic().of(Kind::Append), 2);
}

/// RAFT-B8: what an isolated leader alone has is overwritten.
#[test]
fn a_divergent_suffix_is_overwritten_raft_b8() {
    for seed in 0..10 {
        let (mut script, first) = started(Setup::new(3).seed(seed));
        set(&mut script, "101", 3);
        script.disconnect(first);
        let lost: Vec<CallId> =
            ["102", "103", "104"].iter().map(|key| script.ask(first, &["SET", key, "x"])).collect();
        set(&mut script, "instead", 2);
        let second = script.leader().unwrap();
        script.disconnect(second);
        script.connect(first);
        set(&mut script, "with the first", 2);
        script.connect(second);
        set(&mut script, "with all", 3);
        script.converged(1_000).unwrap();
        for key in ["102", "103", "104"] {
            assert_eq!(logged(&script, 3, key), 0, "seed {seed}");
        }
        for call in lost {
            assert!(script.answer(call).is_some_and(Answer::is_elsewhere), "{:?}", script.answer(call));
        }
    }
}

/// Fifty commands that the leader takes and can't commit.
fn fifty_in_vain(script: &mut Script, leader: usize, name: &str) {
    for number in 0..50 {
        let call = script.ask(leader, &["SET", &format!("{name}:{number}"), "x"]);
        assert!(script.placed(call).is_some());
    }
    script.run_for(200).unwrap();
}

/// RAFT-B9: logs that differ in fifties of entries agree again after a few messages, not one an entry.
#[test]
fn back_up_takes_a_few_messages_raft_b9() {
    for seed in 0..5 {
        let setup = Setup::new(5).seed(seed);
        let (mut script, first) = started(setup);
        set(&mut script, "before", 5);
        let partner = (first + 1) % 5;
        let three = [2, 3, 4].map(|step| (first + step) % 5);
        script.partition(&[first, partner]);
        fifty_in_vain(&mut script, first, "first");
        [first, partner].iter().for_each(|node| script.disconnect(*node));
        let second = script.elected(2 * setup.elected_within_ms()).unwrap();
        for number in 0..50 {
            set(&mut script, &format!("kept:{number}"), 3);
        }
        // One of the three is away, and the leader has fifty more that don't count.
        let other = *three.iter().find(|node| **node != second).unwrap();
        script.disconnect(other);
        let third = *three.iter().find(|node| **node != second && **node != other).unwrap();
        script.partition(&[second, third]);
        fifty_in_vain(&mut script, second, "second");
        // The first two and the one that was away go on.
        for node in [second, third] {
            script.disconnect(node);
        }
        for node in [first, partner, other] {
            script.connect(node);
        }
        script.take_traffic();
        let leader = script.elected(4 * setup.elected_within_ms()).unwrap();
        assert_eq!(leader, other, "nobody else of them has what is committed");
        set(&mut script, "settled", 3);
        let appends = script.take_traffic().of(Kind::Append);
        assert!(appends <= 30, "seed {seed}: {appends} appends for two followers with 50 wrong entries");
        for number in 0..50 {
            set(&mut script, &format!("later:{number}"), 3);
        }
        script.heal();
        script.take_traffic();
        let entries = 100;
        set(&mut script, "all", 5);
        script.converged(2_000).unwrap();
        let appends = script.take_traffic().of(Kind::Append);
        assert!(
            appends <= 30,
            "seed {seed}: {appends} appends for two followers that lack {entries} entries"
        );
        assert_eq!(logged(&script, 5, "kept:49") + logged(&script, 5, "later:0"), 10);
        assert_eq!(logged(&script, 5, "first:0") + logged(&script, 5, "second:49"), 0);
    }
}

/// RAFT-B10: the labs allow 30 requests for an election, 42 for eleven commands, 60 for a second of silence.
#[test]
fn few_messages_are_needed_raft_b10() {
    let (mut script, leader) = started(Setup::new(3));
    let election = script.take_traffic();
    // That the group is new, and that everybody is ready, is found out once; who is late is asked again.
    let founding = election.of(Kind::Repair);
    assert!(founding <= 18 && (4..=12).contains(&(election.requests() - founding)), "{election:?}");
    set(&mut script, "first", 3);
    script.take_traffic();
    let before = script.now_ms();
    for number in 0..10 {
        script.ask(leader, &["SET", &format!("key:{number}"), "x"]);
    }
    script.one(&["SET", "last", "x"], 3, false).unwrap();
    let taken = script.now_ms() - before;
    let commands = script.take_traffic();
    let heartbeats = 2 * (taken / script.setup().heartbeat_ms + 1);
    assert!(commands.requests() <= 8 + heartbeats, "{commands:?} in {taken} ms");
    script.run_for(1_000).unwrap();
    let idle = script.take_traffic();
    // The labs count a request and its answer once; a pulse has no answer.
    assert!(idle.requests() + idle.answers() <= 2 * 2 * 21, "{idle:?}");
    assert!(idle.of(Kind::Heartbeat) <= 6, "who has nothing to do rests: {idle:?}");
    assert_eq!(get(&mut script, "key:9").as_deref(), Some("x"));
}
