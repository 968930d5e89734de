//! Clients that are served by any node (`redirect = "forward"`): an election is a pause for them, not an error.

use flotilla_services::client::Reply;
use flotilla_sim::script::{Answer, Script, Setup};

fn cluster(seed: u64) -> (Script, usize) {
    let setup = Setup { forward: true, ..Setup::new(3).seed(seed) };
    let mut script = Script::new(setup);
    let leader = script.elected(setup.elected_within_ms()).unwrap();
    script.one(&["SET", "k", "before"], 3, true).unwrap();
    (script, leader)
}

fn others(leader: usize) -> [usize; 2] {
    [(leader + 1) % 3, (leader + 2) % 3]
}

/// Whoever asks while nobody leads waits for the next leader, reader or writer, and is served.
#[test]
fn commands_wait_for_the_next_leader() {
    for seed in 0..20 {
        let (mut script, leader) = cluster(seed);
        let limit_ms = script.setup().elected_within_ms();
        script.crash(leader);
        let [one, other] = others(leader);
        // A write that is on its way to the leader when that dies has an outcome that nobody knows.
        script.run_for(20).unwrap();
        let mut calls = Vec::new();
        // First the dead one is still thought to lead; then nobody is; then there is a new leader.
        while script.leader().is_none() {
            assert!(script.now_ms() < 10_000, "nobody is elected");
            let value = calls.len().to_string();
            calls.push((script.ask(one, &["SET", "k", &value]), "OK".to_owned()));
            calls.push((script.ask(other, &["STRLEN", "k"]), String::new()));
            script.run_for(20).unwrap();
        }
        assert!(calls.len() > 10, "an election takes longer than that");
        for (call, _) in &calls {
            match script.answered(*call, limit_ms).unwrap() {
                Answer::Reply(Reply::Status(_) | Reply::Integer(_)) => {}
                answer => panic!("seed {seed}: {answer:?}"),
            }
        }
        let last = script.ask(other, &["GET", "k"]);
        let Answer::Reply(Reply::Bulk(value)) = script.answered(last, limit_ms).unwrap() else { panic!() };
        assert_ne!(value, b"before");
        script.restart(leader);
        script.converged(2_000).unwrap();
    }
}

/// Without a majority nobody leads: that is said after five seconds, and the command isn't done later.
#[test]
fn who_waits_in_vain_is_told() {
    let (mut script, leader) = cluster(7);
    let [one, other] = others(leader);
    script.crash(leader);
    script.crash(other);
    // The one that is left gives the leader up.
    script.run_for(2_000).unwrap();
    let call = script.ask(one, &["SET", "k", "after"]);
    script.run_for(4_900).unwrap();
    assert_eq!(script.answer(call), None);
    let told = script.answered(call, 200).unwrap();
    let Answer::Reply(Reply::Error(text)) = &told else { panic!("{told:?}") };
    assert!(text.starts_with("CLUSTERDOWN "), "{text}");
    script.restart(leader);
    script.restart(other);
    script.converged(10_000).unwrap();
    let call = script.ask(one, &["GET", "k"]);
    assert_eq!(script.answered(call, 2_000).unwrap(), Answer::Reply(Reply::Bulk(b"before".to_vec())));
}
