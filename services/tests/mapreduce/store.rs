//! Jobs from keys to keys: exactly once, while shards move and processes die.

use crate::common::mover::Mover;
use crate::common::text;
use crate::fleet::Fleet;
use crate::rig::{Rig, signal, wait_until};
use flotilla_services::client::Reply;
use flotilla_services::hands::pause;
use flotilla_services::slot::{first_slot, key_in};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is put aside and not published yet.
const ASIDE: &str = "flotilla.mr:";
/// Those of a local cluster.
const SHARDS: u16 = 64;
const PATIENCE: Duration = Duration::from_secs(60);
/// A mapper that takes its time; its lines are the key, a tab, a line of the value.
const MAPPER: &str = "sleep 0.1; cut -f2- | tr -cs a-z '\\n' | grep . | sed 's/$/\\t1/'; true";
const COUNT: &str = "awk -F '\t' '{ n[$1] += $2 } END { for (w in n) print w \"\\t\" n[w] }'";

/// Groups that shards can move between.
fn fleet(workers: usize) -> Fleet {
    Fleet::start_with(workers, |options| (options.cores, options.groups, options.spare_groups) = (2, 2, 2))
}

/// Keys with a few words each, and how often each word is in them.
fn fill(fleet: &Fleet, count: u32) -> BTreeMap<String, String> {
    let (mut client, mut counts) = (fleet.cluster.nodes.client(), BTreeMap::<String, u64>::new());
    for number in 0..count {
        let key = format!("doc:{number:05}");
        let words: Vec<String> = (0..=number % 4)
            .map(|n| format!("{}w", "abcdefg".repeat(1 + ((number + n) % 9) as usize)))
            .collect();
        words.iter().for_each(|word| *counts.entry(word.clone()).or_default() += 1);
        let value = words.join(if number % 2 == 0 { "\n" } else { " " });
        let reply = client.execute(key.as_bytes(), &[b"SET", key.as_bytes(), value.as_bytes()], PATIENCE);
        assert!(matches!(reply, Ok(Reply::Status(_))), "{reply:?}");
    }
    fleet.cluster.set("other:1", "nobody asked for this");
    counts.into_iter().map(|(word, n)| (word, n.to_string())).collect()
}

/// All keys that begin so, and their values: shard by shard, wherever each is by then.
fn pairs(fleet: &Fleet, prefix: &str) -> Vec<(String, Vec<u8>)> {
    let (mut found, mut client) = (Vec::new(), fleet.cluster.nodes.client());
    let pattern = format!("{prefix}*");
    for shard in 0..SHARDS {
        let slot = first_slot(shard, SHARDS);
        let (route, mut from) = (key_in(slot), b"-".to_vec());
        loop {
            let walk: [&[u8]; 6] = [b"FLOTILLA.WALK", &route, &from, b"+", b"MATCH", pattern.as_bytes()];
            let reply = client.execute(&route, &walk, PATIENCE).unwrap();
            let Reply::Array(page) = &reply else { panic!("{reply}") };
            let [next, Reply::Array(items)] = &page[..] else { panic!("{reply}") };
            for pair in items.chunks(2) {
                let [Reply::Bulk(key), Reply::Bulk(value)] = pair else { panic!("{reply}") };
                found.push((text(key), value.clone()));
            }
            let Reply::Bulk(next) = next else { break };
            from = [b"(", &next[..]].concat();
        }
    }
    found
}

fn names(fleet: &Fleet, prefix: &str) -> BTreeSet<String> {
    pairs(fleet, prefix).into_iter().map(|(key, _)| key).collect()
}

/// Keys without what they all begin with, and their values.
fn keys(fleet: &Fleet, prefix: &str) -> BTreeMap<String, String> {
    let pair = |(key, value): (String, Vec<u8>)| (key[prefix.len()..].to_owned(), text(&value));
    pairs(fleet, prefix).into_iter().map(pair).collect()
}

/// The output, once it is known to be whole.
fn output(fleet: &Fleet, prefix: &str) -> BTreeMap<String, String> {
    let mut output = keys(fleet, prefix);
    let mark: serde_json::Value = serde_json::from_str(&output.remove("_SUCCESS").unwrap()).unwrap();
    assert_eq!(mark["schema"], "flotilla-mr-output-keys-1");
    output
}

/// What attempts have put aside goes when the job has ended.
fn wait_until_swept(fleet: &Fleet) {
    wait_until("what was put aside to go", || names(fleet, ASIDE).is_empty());
}

struct Job {
    child: std::process::Child,
}

impl Job {
    fn start(fleet: &Fleet, arguments: &[&str]) -> Self {
        let mut command = Command::new(crate::common::program());
        command.args(["mr", "run", "--json", "--addr", &fleet.address(1)]).args(arguments);
        Self { child: command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap() }
    }

    fn end(self) -> (bool, String) {
        let output = self.child.wait_with_output().unwrap();
        (output.status.success(), text(&[output.stdout, output.stderr].concat()))
    }
}

#[test]
fn keys_become_keys_exactly_once_while_shards_move_and_a_worker_dies() {
    let mut fleet = fleet(3);
    let expected = fill(&fleet, 1500);
    let mover = Mover::start(&fleet.cluster);
    let arguments = ["--from-keys", "doc:*", "--mapper", MAPPER, "--reducer", COUNT, "--reducers", "3"];
    let job = Job::start(&fleet, &[&arguments[..], &["--to-keys", "count:"]].concat());
    // Of the two that don't coordinate, one dies at its work; the coordinator has its own test.
    fleet.rig().wait_for_work("map-00003");
    let coordinator = fleet.coordinator();
    let victim = fleet.workers.iter().position(|worker| worker.id() != coordinator.pid).unwrap();
    let _ = fleet.workers[victim].kill();
    let (went_well, said) = job.end();
    assert!(went_well, "{said}");
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    let changes = mover.stop();
    assert!(changes >= 4);
    assert_eq!(output(&fleet, "count:"), expected, "{status}");
    wait_until_swept(&fleet);
    assert_eq!(fleet.cluster.get("other:1").as_deref(), Some("nobody asked for this"));
}

#[test]
fn each_partition_is_of_one_attempt_though_coordinator_and_leaders_die() {
    let mut fleet = fleet(3);
    let expected = fill(&fleet, 300);
    // No two attempts at a reduce task come to the same.
    let reducer =
        "sleep 1; id=$(od -An -N8 -tx8 /dev/urandom | tr -d ' '); cut -f1 | uniq | sed \"s/$/\\t$id/\"";
    let mapper = MAPPER.replace("0.1", "0.02");
    let arguments =
        ["--from-range", "doc:..doc:~", "--mapper", &mapper, "--reducer", reducer, "--reducers", "4"];
    let coordinator = fleet.coordinator();
    let job = Job::start(&fleet, &[&arguments[..], &["--to-keys", "count:"]].concat());
    // Something is put aside: reduce tasks run.
    wait_until("a reduce task to be done", || !names(&fleet, ASIDE).is_empty());
    signal(coordinator.pid, Signal::KILL);
    fleet.cluster.nodes.kill(2);
    fleet.cluster.nodes.restart(2).unwrap();
    let (went_well, said) = job.end();
    assert!(went_well, "{said}");
    let output = output(&fleet, "count:");
    assert_eq!(output.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let attempts: BTreeSet<&String> = output.values().collect();
    assert!(attempts.len() <= 4, "an attempt shows beside another: {output:?}");
    wait_until_swept(&fleet);
}

#[test]
fn files_become_keys_and_keys_become_files() {
    let fleet = fleet(1);
    let rig = Rig::new();
    rig.input("a.txt", "one two two\nthree\n");
    let input = rig.path("in").display().to_string();
    let run = |arguments: &[&str]| Job::start(&fleet, arguments).end();
    let (went_well, said) = run(&["--job", "wc", "--input", &input, "--to-keys", "n:"]);
    assert!(went_well, "{said}");
    let expected = [("one", "1"), ("three", "1"), ("two", "2")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(output(&fleet, "n:"), BTreeMap::from(expected));
    // The values of the keys, in the order of the lines.
    let out = rig.output().display().to_string();
    let (went_well, said) =
        run(&["--job", "sort", "--from-range", "n:..n:~", "--from-keys", "n:t*", "--output", &out]);
    assert!(went_well, "{said}");
    assert_eq!(rig.sorted(), ["1", "2"]);
    // A second time there is something that could be taken for the output.
    let again = ["--job", "wc", "--input", &input, "--to-keys", "n:"];
    let (went_well, said) = run(&again);
    assert!(!went_well && said.contains("there are keys that begin so"), "{said}");
    let (went_well, said) = run(&[&again[..], &["--overwrite"]].concat());
    assert!(went_well, "{said}");
    for (arguments, words) in [
        (
            &["--job", "grep", "--arg", "pattern=x", "--input", &input, "--to-keys", "g:"][..],
            "has no keys, only lines",
        ),
        (&["--job", "wc", "--from-range", "a-b", "--to-keys", "r:"], "write FIRST..LAST"),
        (&["--job", "wc", "--from-keys", "a*", "--to-keys", ""], "wants a prefix"),
        (&["--job", "wc", "--from-keys", "a*", "--input", &input, "--to-keys", "r:"], "cannot be used with"),
    ] {
        let (went_well, said) = run(arguments);
        assert!(!went_well && said.contains(words), "{arguments:?}: {said}");
    }
    let arguments = ["--mapper", "echo oops >&2; exit 3", "--from-keys", "n:*", "--to-keys", "f:"];
    assert!(!run(&arguments).0);
    let (went_well, said) = fleet.mr(&["logs", "4", "map-00000"]);
    assert!(went_well && said.lines().count() == 4 && said.contains("exit status: 3: oops"), "{said}");
    let (_, said) = fleet.mr(&["status", "4"]);
    assert!(said.contains("why        map-00000 has failed 4 times"), "{said}");
    wait_until_swept(&fleet);
}

#[test]
fn a_job_that_is_cancelled_shows_and_leaves_nothing() {
    let fleet = fleet(2);
    fill(&fleet, 50);
    let arguments =
        ["--from-keys", "doc:*", "--mapper", "cut -f2-", "--reducers", "2", "--to-keys", "count:"];
    // One partition is put aside at once, the other never.
    let reducer = "mkdir \"$LOCK\" 2>/dev/null && exec sleep 100; cat";
    let lock = format!("LOCK={}", fleet.cluster.folder.path().join("lock").display());
    let job = Job::start(
        &fleet,
        &[&arguments[..], &["--reducer", reducer, "--env", &lock, "--no-backups"]].concat(),
    );
    wait_until("a partition to be put aside", || !names(&fleet, ASIDE).is_empty());
    assert_eq!(names(&fleet, "count:"), BTreeSet::new());
    let (went_well, said) = fleet.mr(&["cancel", "1"]);
    assert!(went_well, "{said}");
    let (went_well, said) = job.end();
    assert!(!went_well && said.contains("cancelled"), "{said}");
    wait_until_swept(&fleet);
    // Whatever might still come.
    pause(Duration::from_millis(100));
    assert_eq!((names(&fleet, "count:"), names(&fleet, ASIDE)), Default::default());
}
