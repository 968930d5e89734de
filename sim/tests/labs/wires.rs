//! What goes over the wires, counted: NET-04, 05 and 07, and the hazards H-16, H-17 and H-26.

use crate::{get, integer, set};
use flotilla_consensus::Kind;
use flotilla_sim::script::{Answer, CallId, Script, Setup, Weather};
use std::collections::BTreeSet;

fn started(nodes: usize) -> (Script, usize) {
    let setup = Setup::new(nodes);
    let mut script = Script::new(setup);
    let leader = script.elected(setup.elected_within_ms()).unwrap();
    script.run_for(100).unwrap();
    (script, leader)
}

/// NET-04, NET-05: the counters that these tests rely on are exact: a message each way for a command, and its bytes.
#[test]
fn messages_and_bytes_are_counted_exactly_net_04_net_05() {
    let (mut script, leader) = started(2);
    let value = "v".repeat(284);
    let (mut appends, mut answers, mut bytes) = (0, 0, 0);
    for number in 0..17 {
        script.take_traffic();
        let call = script.ask(leader, &["SET", &format!("key:{number:02}"), &value]);
        script.answered(call, 5).unwrap();
        let sent = script.take_traffic();
        appends += sent.of(Kind::Append);
        answers += sent.of(Kind::AppendReply);
        bytes += sent.bytes - 65 * (sent.of(Kind::Heartbeat) + sent.of(Kind::HeartbeatReply));
    }
    assert_eq!((appends, answers), (17, 17));
    let (entry, _) = script.entries(leader).last().map(|(_, _, it)| (it.len(), ())).unwrap();
    // A channel byte, an incarnation of 8, a header of 56; the record's header of 48 at most, and what it is padded with.
    let most = 17 * (65 + 65 + entry + 48 + 16);
    let least = 17 * (65 + 65 + entry);
    assert!((least..=most).contains(&usize::try_from(bytes).unwrap()), "{bytes}: {least} to {most}");
}

/// NET-07: three hundred clients of one command each on a network that loses a tenth, and the leader dies meanwhile: some
/// are served, some not, and nobody is told anything wrong.
#[test]
fn an_unreliable_network_tells_nobody_anything_wrong_net_07() {
    for seed in 0..5 {
        let mut script = Script::new(Setup::new(3).seed(seed));
        let leader = script.elected(2_000).unwrap();
        script.weather(Weather::Unreliable);
        let mut calls: Vec<CallId> = Vec::new();
        for number in 0..300 {
            calls.push(script.ask(leader, &["INCR", "counter"]));
            script.run_for(1).unwrap();
            if number == 250 {
                script.crash(leader);
            }
        }
        let all = |script: &Script| calls.iter().all(|call| script.answer(*call).is_some());
        script.wait(11_000, "every client is told something", all).unwrap();
        let values: Vec<i64> = calls.iter().filter_map(|call| integer(script.answer(*call))).collect();
        let distinct: BTreeSet<&i64> = values.iter().collect();
        assert!(!values.is_empty() && values.len() < 300 && distinct.len() == values.len());
        script.restart(leader);
        script.weather(Weather::Fair);
        let count: usize = get(&mut script, "counter").unwrap().parse().unwrap();
        assert!((values.len()..=251).contains(&count), "{count}, and {} were done", values.len());
    }
}

/// H-17: an entry is sent once to a follower that keeps up, however many come and however long the log is; and not at all,
/// but for a probe, to one that is silent.
#[test]
fn nothing_is_sent_twice_h17() {
    let (mut script, leader) = started(3);
    let value = "v".repeat(100);
    script.take_traffic();
    let mut calls: Vec<CallId> = Vec::new();
    for round in 0..300 {
        for number in 0..10 {
            calls.push(script.ask(leader, &["SET", &format!("key:{round}:{number}"), &value]));
        }
        script.run_for(1).unwrap();
    }
    let all = |script: &Script| calls.iter().all(|call| script.answer(*call).is_some_and(Answer::is_done));
    script.wait(100, "3000 commands", all).unwrap();
    script.converged(200).unwrap();
    let sent = script.take_traffic();
    let log = u64::try_from(script.log_bytes(leader)).unwrap();
    assert!(sent.bytes < 2 * log * 11 / 10 + 100_000, "{} bytes for a log of {log}", sent.bytes);
    assert!(sent.of(Kind::Append) <= 2 * 2 * 300, "{sent:?}");
    // A follower is silent. What goes to it now are heartbeats and a small append or two.
    let silent = (leader + 1) % 3;
    script.disconnect(silent);
    script.run_for(500).unwrap();
    script.record();
    for number in 0..100 {
        script.one(&["SET", &format!("more:{number}"), &value], 2, true).unwrap();
    }
    script.run_for(2_000).unwrap();
    let appends =
        |sent: &&flotilla_sim::script::Sent| sent.to == silent && sent.kinds.contains(&Kind::Append);
    let appends = script.take_tape().iter().filter(appends).count();
    // A window of four, and the probe that follows.
    assert!(appends <= 5, "{appends} appends to somebody who is silent");
}

/// H-16: what asks for votes says what was so when the candidacy began, the same to everybody; delivered late, it elects
/// nobody.
#[test]
fn late_votes_elect_nobody_h16() {
    for seed in 0..10 {
        let setup = Setup::new(5).seed(seed);
        let mut script = Script::new(setup);
        script.record();
        for _ in 0..4 {
            let leader = script.elected(2 * setup.elected_within_ms()).unwrap();
            set(&mut script, "key", 3);
            script.disconnect(leader);
            script.elected(2 * setup.elected_within_ms()).unwrap();
            script.connect(leader);
        }
        let leader = script.elected(setup.elected_within_ms()).unwrap();
        script.run_for(500).unwrap();
        let term = script.term(leader);
        let votes = [Kind::PreVote, Kind::PreVoteReply, Kind::Vote, Kind::VoteReply];
        let tape = script.take_tape();
        let old: Vec<_> =
            tape.iter().filter(|sent| sent.kinds.iter().all(|kind| votes.contains(kind))).collect();
        assert!(old.len() > 20);
        for sent in old.iter().rev().chain(&old) {
            script.deliver_late(sent);
            script.run_for(3).unwrap();
            assert_eq!((script.leader(), script.term(leader)), (Some(leader), term), "seed {seed}");
        }
    }
}

/// H-26: reads make no entries and share their rounds; commands share appends; what is too much is refused, and the rest
/// goes on.
#[test]
fn reads_need_no_log_and_commands_share_messages_h26() {
    let (mut script, leader) = started(3);
    set(&mut script, "key", 3);
    let last = script.last_entry(leader);
    script.take_traffic();
    let begun = script.now_ms();
    let reads: Vec<CallId> = (0..100).map(|_| script.ask(leader, &["GET", "key"])).collect();
    let all = |script: &Script| reads.iter().all(|call| script.answer(*call).is_some_and(Answer::is_done));
    script.wait(10, "a hundred reads", all).unwrap();
    assert!(script.now_ms() - begun <= 2, "a round trip");
    let sent = script.take_traffic();
    assert!(sent.of(Kind::Heartbeat) <= 4 && sent.of(Kind::Append) == 0, "{sent:?}");
    assert_eq!(script.last_entry(leader), last);
    let writes: Vec<CallId> = (0..1000).map(|_| script.ask(leader, &["INCR", "counter"])).collect();
    let all = |script: &Script| writes.iter().all(|call| script.answer(*call).is_some_and(Answer::is_done));
    script.wait(50, "a thousand commands", all).unwrap();
    let sent = script.take_traffic();
    assert!(sent.of(Kind::Append) <= 10, "{sent:?}");
}
