//! The rows of the labs' behaviours that concern Raft, the replicated state machine, its network and the store over it, and the
//! hazards of real implementations, each as a named test. `docs/labs.md` lists which row is tested where.
//!
//! The limits in the rows are the labs'; those here are as tight as ours can be.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

mod agreement;
mod churn;
mod clerk;
mod elections;
mod kv;
mod machine;
mod persistence;
mod sharding;
mod snapshots;
mod table;
mod waiting;
mod wires;

use flotilla_services::client::Reply;
use flotilla_sim::script::{Answer, CallId, Script};

/// The number that a command was answered with.
fn integer(answer: Option<&Answer>) -> Option<i64> {
    match answer {
        Some(Answer::Reply(Reply::Integer(value))) => Some(*value),
        _ => None,
    }
}

/// Increments the counter once, on so many nodes; returns its value.
fn incr(script: &mut Script, on: usize) -> i64 {
    let (_, reply) = script.one(&["INCR", "counter"], on, true).unwrap();
    let Reply::Integer(value) = reply else { panic!("INCR was answered with {reply}") };
    value
}

/// What a linearizable read of a key says.
fn get(script: &mut Script, key: &str) -> Option<String> {
    for _ in 0..100 {
        if let Some(leader) = script.leader() {
            let call = script.ask(leader, &["GET", key]);
            match script.answered(call, 15_000).unwrap() {
                Answer::Reply(Reply::Bulk(bytes)) => return Some(String::from_utf8(bytes).unwrap()),
                Answer::Reply(Reply::Null) => return None,
                answer => assert!(answer.is_elsewhere() || answer == Answer::Lost, "{answer:?}"),
            }
        }
        script.run_for(50).unwrap();
    }
    panic!("nobody reads");
}

/// Sets a key; each key is an entry that can be found in the logs.
fn set(script: &mut Script, key: &str, on: usize) -> u64 {
    script.one(&["SET", key, "x"], on, true).unwrap().0
}

/// How many nodes have an entry in memory that sets this key.
fn logged(script: &Script, nodes: usize, key: &str) -> usize {
    let names = |payload: &[u8]| payload.windows(key.len()).any(|window| window == key.as_bytes());
    (0..nodes).filter(|node| script.entries(*node).iter().any(|(_, _, payload)| names(payload))).count()
}

/// None of these was done, whatever else was said.
fn none_done(script: &Script, calls: &[CallId]) {
    for call in calls {
        assert!(!script.answer(*call).is_some_and(Answer::is_done), "{:?}", script.answer(*call));
    }
}
