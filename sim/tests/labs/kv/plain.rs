//! KV-A: nothing is forgotten in this one, and nobody takes a snapshot.

use super::{CALM, Case, append_to_one_key, generic};
use crate::{get, incr};
use flotilla_sim::script::{Answer, Script, Setup};

/// KV-A1: one client.
#[test]
fn one_client_sees_what_it_wrote_kv_a1() {
    let (done, _) = generic(CALM);
    assert!(done > 1_000, "{done}");
}

/// A thousand writes one after the other; the labs allow 33 ms each, and that is ten of ours.
pub(super) fn one_after_the_other(setup: Setup) {
    let mut script = Script::new(setup);
    incr(&mut script, 3);
    let begun = script.now_ms();
    for number in 2..=1000 {
        let leader = script.leader().unwrap();
        let call = script.ask(leader, &["INCR", "counter"]);
        let answer = script.answered(call, 30).unwrap();
        assert_eq!(crate::integer(Some(&answer)), Some(number));
    }
    let took = script.now_ms() - begun;
    assert!(took <= 3 * 1000, "{took} ms for a thousand");
}

/// KV-A2: no write waits for a heartbeat.
#[test]
fn writes_follow_each_other_at_the_speed_of_disk_and_network_kv_a2() {
    one_after_the_other(Setup::new(3));
}

/// KV-A3: five clients at the same time.
#[test]
fn five_clients_kv_a3() {
    let (done, _) = generic(Case { clerks: 5, ..CALM });
    assert!(done > 5_000, "{done}");
}

/// KV-A4: requests and answers get lost: everything is done once.
#[test]
fn five_clients_on_a_lossy_network_kv_a4() {
    let (done, again) = generic(Case { clerks: 5, lossy: true, ..CALM });
    assert!(again * 10 > done as u64, "{done} and {again} again");
}

/// KV-A5: the same on one key.
#[test]
fn appends_to_one_key_are_done_once_and_in_order_kv_a5() {
    (0..4).for_each(|seed| append_to_one_key(3, 5, seed));
}

/// KV-A6: the leader is on the smaller side. The other side goes on; on this one neither a write nor a read is done, and
/// after the repair the old write comes after all, or is refused and may be sent again.
#[test]
fn only_the_majority_goes_on_kv_a6() {
    for seed in 0..10 {
        let setup = Setup::new(5).seed(seed);
        let mut script = Script::new(setup);
        script.one(&["SET", "1", "13"], 5, true).unwrap();
        let leader = script.elected(setup.elected_within_ms()).unwrap();
        let minority = [leader, (leader + 1) % 5];
        script.partition(&minority);
        let write = script.ask(leader, &["SET", "1", "15"]);
        let read = script.ask(leader, &["GET", "1"]);
        // The labs give a second each, once there is a leader.
        script.run_for(setup.elected_within_ms()).unwrap();
        let majority = [2, 3, 4].map(|step| (leader + step) % 5);
        assert!(among(&mut script, &majority, &["SET", "1", "14"]).is_done());
        assert_eq!(text(&among(&mut script, &majority, &["GET", "1"])), Some("14".to_owned()));
        script.run_for(1_000).unwrap();
        for call in [write, read] {
            assert!(!script.answer(call).is_some_and(Answer::is_done), "{:?}", script.answer(call));
        }
        script.heal();
        for (call, words) in [(write, ["SET", "1", "15"].as_slice()), (read, ["GET", "1"].as_slice())] {
            let mut answer = script.answered(call, 4_000).unwrap();
            while !answer.is_done() {
                assert!(answer.is_elsewhere(), "{answer:?}");
                let leader = script.elected(setup.elected_within_ms()).unwrap();
                let again = script.ask(leader, words);
                answer = script.answered(again, 4_000).unwrap();
            }
        }
        assert_eq!(get(&mut script, "1").as_deref(), Some("15"), "the late one wins");
        script.converged(2_000).unwrap();
    }
}

/// Has a command done by one of these nodes, within a second.
fn among(script: &mut Script, nodes: &[usize], words: &[&str]) -> Answer {
    let end = script.now_ms() + 1_000;
    for node in nodes.iter().cycle() {
        assert!(script.now_ms() < end, "{words:?} isn't done");
        let call = script.ask(*node, words);
        let answer = script.answered(call, end - script.now_ms()).unwrap();
        if answer.is_done() {
            return answer;
        }
        assert!(answer.is_elsewhere(), "{answer:?}");
        script.run_for(10).unwrap();
    }
    unreachable!("the cycle has no end")
}

fn text(answer: &Answer) -> Option<String> {
    match answer {
        Answer::Reply(flotilla_services::client::Reply::Bulk(bytes)) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        _ => None,
    }
}

/// KV-A7: partitions, one client.
#[test]
fn one_client_and_partitions_kv_a7() {
    generic(Case { partitions: true, ..CALM });
}

/// KV-A8: partitions, five clients.
#[test]
fn five_clients_and_partitions_kv_a8() {
    generic(Case { clerks: 5, partitions: true, ..CALM });
}

/// KV-A9: all nodes crash, one client.
#[test]
fn one_client_and_restarts_kv_a9() {
    generic(Case { crashes: true, ..CALM });
}

/// KV-A10: all nodes crash, five clients.
#[test]
fn five_clients_and_restarts_kv_a10() {
    generic(Case { clerks: 5, crashes: true, ..CALM });
}

/// KV-A11: the same on a lossy network.
#[test]
fn restarts_on_a_lossy_network_kv_a11() {
    generic(Case { clerks: 5, crashes: true, lossy: true, ..CALM });
}

/// KV-A12: restarts and partitions.
#[test]
fn restarts_and_partitions_kv_a12() {
    generic(Case { clerks: 5, crashes: true, partitions: true, ..CALM });
}

/// KV-A13: restarts, partitions, and a lossy network.
#[test]
fn restarts_and_partitions_on_a_lossy_network_kv_a13() {
    generic(Case { clerks: 5, crashes: true, partitions: true, lossy: true, ..CALM });
}

/// KV-A14: seven nodes, fifteen clients, shared keys, and all of it: what they see is linearizable.
#[test]
fn whatever_happens_it_is_linearizable_kv_a14() {
    let all = Case { crashes: true, partitions: true, lossy: true, shared: true, ..CALM };
    generic(Case { nodes: 7, clerks: 15, ..all });
}
