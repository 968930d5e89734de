//! Rows of the labs' sharded store: SKV (2020 to 2024), S1 (2025 and 2026), CH, and the hazards of migration.
//!
//! A cluster has groups on three nodes each and a controller on all of them. Clerks ask any node; nodes hand commands on.

mod clerks;
mod lab4;
mod lab5;

use flotilla_services::client::Reply;
use flotilla_services::slot::Slot;
use flotilla_sim::script::{Answer, CallId, SHARDS, Script, Setup, is_for_another};

/// The shard of a key.
fn shard_of(key: &str) -> u16 {
    Slot::of_key(key.as_bytes()).shard(SHARDS)
}

/// A key for each shard.
fn a_key_of_each() -> Vec<String> {
    let key =
        |shard: u16| (0..).map(|number| format!("k{number}")).find(|key| shard_of(key) == shard).unwrap();
    (0..SHARDS).map(key).collect()
}

/// Such a cluster, ready.
fn cluster(setup: Setup) -> Script {
    let mut script = Script::new(setup);
    script.at_home(20_000).unwrap();
    script
}

fn set(script: &mut Script, key: &str, value: &str) {
    script.clerk(&["SET", key, value], 20_000).unwrap();
}

fn get(script: &mut Script, key: &str) -> Option<String> {
    match script.clerk(&["GET", key], 20_000).unwrap() {
        Reply::Bulk(bytes) => Some(String::from_utf8(bytes).unwrap()),
        Reply::Null => None,
        other => panic!("GET {key}: {other}"),
    }
}

/// Sets a key of each shard to what `value` makes of it.
fn fill(script: &mut Script, value: impl Fn(&str) -> String) {
    for key in a_key_of_each() {
        set(script, &key, &value(&key));
    }
}

fn check(script: &mut Script, value: impl Fn(&str) -> String) {
    for key in a_key_of_each() {
        assert_eq!(get(script, &key), Some(value(&key)), "{key}");
    }
}

fn same(key: &str) -> String {
    format!("value of {key}")
}

/// Which of these keys can be read within so many milliseconds. None may be read as absent.
fn readable(script: &mut Script, keys: &[String], milliseconds: u64) -> Vec<String> {
    let end = script.now_ms() + milliseconds;
    let mut open: Vec<(String, Option<(CallId, u64)>)> = keys.iter().map(|key| (key.clone(), None)).collect();
    let mut read = Vec::new();
    while script.now_ms() < end && !open.is_empty() {
        let now = script.now_ms();
        open.retain_mut(|(key, call)| {
            match call.and_then(|(call, _)| script.answer(call)) {
                Some(Answer::Reply(Reply::Bulk(bytes))) => {
                    assert_eq!(String::from_utf8_lossy(bytes), same(key));
                    read.push(key.clone());
                    return false;
                }
                Some(Answer::Reply(Reply::Error(error))) if is_for_another(error) => *call = None,
                Some(Answer::Lost) => *call = None,
                Some(answer) => panic!("{key}: {answer:?}"),
                // Lost on the way, perhaps.
                None if call.is_some_and(|(_, since)| now >= since + 400) => *call = None,
                None => {}
            }
            if call.is_none() {
                *call = script.ask_any(&["GET", key]).map(|call| (call, now));
            }
            true
        });
        script.run_for(10).unwrap();
    }
    read.sort();
    read
}

/// Those of the keys whose shards are among these.
fn among(keys: &[String], shards: &[u16]) -> Vec<String> {
    let mut found: Vec<String> = keys.iter().filter(|key| shards.contains(&shard_of(key))).cloned().collect();
    found.sort();
    found
}

/// A change of the configuration that nobody waits for. It goes to any node.
fn ask_for(script: &mut Script, words: &str) {
    let args: Vec<&str> = std::iter::once("FLOTILLA.CLUSTER").chain(words.split(' ')).collect();
    script.ask_any(&args);
}
