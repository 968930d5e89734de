//! RAFT-C4 and C6 to C8: leaders that come and go, a thousand times.

use crate::set;
use flotilla_sim::script::{CallId, Script, Setup, Weather};
use std::collections::BTreeSet;

/// What the labs wait between two rounds of Figure 8: mostly a moment, sometimes up to half a second.
fn labs_pause(script: &mut Script) {
    let long = script.chance(10);
    let pause = script.draw(0, if long { 499 } else { 12 });
    script.run_for(pause).unwrap();
}

fn up(script: &Script) -> usize {
    (0..5).filter(|node| script.is_connected(*node)).count()
}

/// RAFT-C4: every leader crashes soon after it was given something, so entries of many terms are on some nodes and not on
/// others; no committed entry ever changes. The order of events that makes counting an older term's entries fatal is too
/// rare for this: `consensus/tests/raft/scenarios.rs` goes through it step by step.
#[test]
fn figure_8_a_thousand_times_raft_c4() {
    for (seed, election_ms) in [(1, 400), (2, 400), (3, 400), (4, 40), (5, 40), (6, 40)] {
        // With snapshots, or every start would read a longer log.
        let setup = Setup::new(5).seed(seed).snapshot_after(16 << 10);
        let setup = Setup { election_ms, heartbeat_ms: election_ms / 8, ..setup };
        let mut script = Script::new(setup);
        set(&mut script, "begin", 1);
        for round in 0..1000 {
            let key = format!("key:{round}");
            let calls: Vec<(usize, CallId)> =
                (0..5).map(|node| (node, script.ask(node, &["SET", &key, "x"]))).collect();
            let leader = calls.iter().rev().find(|(_, call)| script.placed(*call).is_some());
            let leader = leader.map(|(node, _)| *node);
            labs_pause(&mut script);
            if let Some(leader) = leader {
                script.crash(leader);
            }
            if up(&script) < 3 {
                let node = usize::try_from(script.draw(0, 4)).unwrap();
                script.restart(node);
            }
        }
        (0..5).for_each(|node| script.restart(node));
        set(&mut script, "end", 5);
        script.converged(5_000).unwrap();
        let least = if election_ms < 100 { 100 } else { 20 };
        assert!(script.elections() >= least, "seed {seed}: only {} elections", script.elections());
    }
}

/// RAFT-C6: the same with links instead of crashes, on a network that loses frames and has most answers late.
#[test]
fn figure_8_on_an_unreliable_network_raft_c6() {
    for seed in 1..20 {
        let mut script = Script::new(Setup::new(5).seed(seed));
        script.weather(Weather::Unreliable);
        set(&mut script, "begin", 1);
        for round in 0..1000 {
            if round == 200 {
                script.weather(Weather::LongReordering);
            }
            let key = format!("key:{round}");
            let calls: Vec<(usize, CallId)> =
                (0..5).map(|node| (node, script.ask(node, &["SET", &key, "x"]))).collect();
            let leader = calls
                .iter()
                .rev()
                .find(|(node, call)| script.placed(*call).is_some() && script.is_connected(*node));
            let leader = leader.map(|(node, _)| *node);
            labs_pause(&mut script);
            if let Some(leader) = leader.filter(|_| script.chance(50)) {
                script.disconnect(leader);
            }
            if up(&script) < 3 {
                let node = usize::try_from(script.draw(0, 4)).unwrap();
                script.connect(node);
            }
        }
        (0..5).for_each(|node| script.connect(node));
        assert!(script.elections() >= 3, "seed {seed}: only {} elections", script.elections());
        // As in the labs the network stays as it is.
        set(&mut script, "end", 5);
        script.weather(Weather::Fair);
        script.converged(5_000).unwrap();
    }
}

/// A client that gives commands to whoever leads, or to anybody, and remembers what it saw done.
#[derive(Default)]
struct Client {
    call: Option<CallId>,
    key: String,
    asked: u64,
    saw: Vec<String>,
}

impl Client {
    fn go_on(&mut self, script: &mut Script, number: usize) {
        match self.call.map(|call| script.answer(call).cloned()) {
            Some(None) => return,
            Some(Some(answer)) if answer.is_done() => self.saw.push(self.key.clone()),
            _ => {}
        }
        let anybody = usize::try_from(script.draw(0, 4)).unwrap();
        let to = script.leader().unwrap_or(anybody);
        self.asked += 1;
        self.key = format!("client:{number}:{};", self.asked);
        self.call = Some(script.ask(to, &["SET", &self.key, "x"]));
    }
}

/// The keys of the clients that a node's log has.
fn keys(script: &Script, node: usize) -> BTreeSet<String> {
    let key = |(_, _, payload): (u64, u64, Vec<u8>)| {
        let text = String::from_utf8_lossy(&payload).into_owned();
        let (start, end) = (text.find("client:")?, text.find(';')?);
        text.get(start..=end).map(str::to_owned)
    };
    script.entries(node).into_iter().filter_map(key).collect()
}

fn churn(weather: Weather, seed: u64) {
    let mut script = Script::new(Setup::new(5).seed(seed));
    set(&mut script, "begin", 5);
    script.weather(weather);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::default()).collect();
    for _ in 0..20 {
        let node = usize::try_from(script.draw(0, 4)).unwrap();
        if script.chance(20) {
            script.disconnect(node);
        }
        if script.chance(50) {
            let node = usize::try_from(script.draw(0, 4)).unwrap();
            script.restart(node);
            script.connect(node);
        }
        if script.chance(20) {
            let node = usize::try_from(script.draw(0, 4)).unwrap();
            script.crash(node);
        }
        for _ in 0..70 {
            for (number, client) in clients.iter_mut().enumerate() {
                client.go_on(&mut script, number);
            }
            script.run_for(10).unwrap();
        }
    }
    script.weather(Weather::Fair);
    (0..5).for_each(|node| script.restart(node));
    script.heal();
    set(&mut script, "end", 5);
    script.converged(5_000).unwrap();
    let logs: Vec<BTreeSet<String>> = (0..5).map(|node| keys(&script, node)).collect();
    let mut seen = 0;
    for client in &clients {
        seen += client.saw.len();
        for key in &client.saw {
            assert!(logs.iter().all(|log| log.contains(key)), "seed {seed}: {key} was seen done");
        }
    }
    assert!(seen > 20, "seed {seed}: only {seen} were done");
}

/// RAFT-C7: what a client saw done while nodes came and went is in every log at the end.
#[test]
fn churn_loses_nothing_that_a_client_saw_raft_c7() {
    (0..20).for_each(|seed| churn(Weather::Fair, seed));
}

/// RAFT-C8: the same on an unreliable network.
#[test]
fn churn_on_an_unreliable_network_raft_c8() {
    (0..20).for_each(|seed| churn(Weather::Unreliable, seed));
}
