//! A whole cluster to a folder and into another cluster, with real processes.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

#[path = "../common/mod.rs"]
mod common;

mod refusals;

use common::mover::Mover;
use common::{PATIENCE, TestCluster, output, program, run, start, text};
use flotilla_services::client::{Cluster, Connection, Reply};
use flotilla_services::hands::{Stopwatch, pause, spawn};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Longer than the piece in which a value is carried.
const LONG_BYTES: usize = 1_500_000;
/// Pairs of keys that are written together all the time.
const PAIRS: u64 = 24;
/// In the year 2100.
const FAR_MS: u64 = 4_102_444_800_000;

fn flotilla(words: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(words);
    command
}

fn nodes(cluster: &TestCluster) -> String {
    cluster.nodes.addresses().join(",")
}

/// Its exit status, and what it said on standard error: one line, or it wouldn't be read.
fn fails(command: &mut Command) -> (i32, String) {
    let done = run(command);
    let said = text(&done.stderr);
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    (done.status.code().unwrap(), said)
}

fn json(command: &mut Command) -> serde_json::Value {
    serde_json::from_str(&output(command)).unwrap()
}

fn ask(client: &mut Cluster, command: &[&[u8]]) -> Reply {
    client.execute(command[1], command, PATIENCE).unwrap()
}

/// A key's version and value, and when it ends.
fn all_of(client: &mut Cluster, key: &[u8]) -> (Reply, Reply) {
    (ask(client, &[b"FLOTILLA.GETV", key]), ask(client, &[b"PEXPIRETIME", key]))
}

/// Keys that nobody writes meanwhile: of every kind.
fn fill(client: &mut Cluster) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for number in 0..400_u32 {
        let key = [&b"kept:\xff\x00\r\n"[..], &number.to_be_bytes()].concat();
        let value: Vec<u8> = (0..number % 300).map(|byte| (byte * number) as u8).collect();
        // The start of a cluster has given out version 1 in some shards.
        for _ in 0..2 + number % 3 {
            ask(client, &[b"SET", &key, &value]);
        }
        match number % 4 {
            0 => {
                drop(ask(client, &[b"PEXPIREAT", &key, (FAR_MS + u64::from(number)).to_string().as_bytes()]))
            }
            1 => drop(ask(client, &[b"APPEND", &key, b"more"])),
            _ => {}
        }
        keys.push(key);
    }
    let long: Vec<u8> = (0..LONG_BYTES).map(|byte| (byte / 7) as u8).collect();
    ask(client, &[b"SET", b"long", &long]);
    ask(client, &[b"PEXPIREAT", b"long", FAR_MS.to_string().as_bytes()]);
    for _ in 0..2 {
        ask(client, &[b"SET", b"", b"of the empty key"]);
        ask(client, &[b"SET", b"empty", b""]);
    }
    keys.extend([b"long".to_vec(), Vec::new(), b"empty".to_vec()]);
    keys
}

/// Writes pairs until told to stop: each time both halves, and a higher number.
struct Pairs {
    over: Arc<AtomicBool>,
    acknowledged: Arc<Vec<AtomicU64>>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

fn halves(pair: u64) -> [Vec<u8>; 2] {
    ["a", "b"].map(|half| format!("{{pair:{pair}}}:{half}").into_bytes())
}

impl Pairs {
    fn start(cluster: &TestCluster) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..PAIRS).map(|_| AtomicU64::new(0)).collect());
        let worker = |first: u64| {
            let (mut client, over, acknowledged) =
                (cluster.nodes.client(), Arc::clone(&over), Arc::clone(&acknowledged));
            spawn(move || {
                let mut number = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    number += 1;
                    for pair in (first..PAIRS).step_by(3) {
                        let ([one, other], value) = (halves(pair), number.to_string());
                        let value = value.as_bytes();
                        ask(&mut client, &[b"MSET", &one, value, &other, value]);
                        acknowledged[pair as usize].store(number, Ordering::SeqCst);
                    }
                }
            })
        };
        let workers = (0..3).map(worker).collect();
        let this = Self { over, acknowledged, workers };
        let clock = Stopwatch::start();
        while this.so_far().contains(&0) {
            assert!(clock.elapsed() < PATIENCE, "the pairs are written");
            pause(Duration::from_millis(2));
        }
        this
    }

    /// The last number of each pair that was acknowledged.
    fn so_far(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|it| it.load(Ordering::SeqCst)).collect()
    }

    fn stop(self) -> Vec<u64> {
        self.over.store(true, Ordering::Relaxed);
        let acknowledged = Arc::clone(&self.acknowledged);
        self.workers.into_iter().for_each(|worker| worker.join().unwrap());
        acknowledged.iter().map(|it| it.load(Ordering::SeqCst)).collect()
    }
}

#[test]
fn a_cluster_under_load_whose_shards_move_is_restored_into_one_of_another_shape() {
    let source = start(|options| (options.cores, options.groups, options.spare_groups) = (2, 2, 2));
    let mut client = source.nodes.client();
    let keys = fill(&mut client);
    let pairs = Pairs::start(&source);
    let mover = Mover::start(&source);
    let folder = source.folder.path().join("backup");
    let dir = folder.to_str().unwrap();
    let (mut backups, clock) = (0, Stopwatch::start());
    let (mut before, mut after);
    // Again, until some shards have surely moved while they were read.
    loop {
        let _ = fs::remove_dir_all(&folder);
        before = pairs.so_far();
        let said =
            json(&mut flotilla(&["backup", "--json", "--parallel", "2", "--nodes", &nodes(&source), dir]));
        after = pairs.so_far();
        backups += 1;
        assert_eq!((said["shards"].as_u64(), said["cluster"].as_str()), (Some(64), Some("local")));
        assert_eq!(said["keys"].as_u64(), Some(keys.len() as u64 + 2 * PAIRS), "{said}");
        if clock.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    let (changes, last) = (mover.stop(), pairs.stop());
    eprintln!(
        "{backups} backups over {changes} changes; pairs were written {} times",
        last.iter().sum::<u64>()
    );
    assert!(changes > 0 && last > before);
    let checked = json(&mut flotilla(&["backup", "verify", "--json", dir]));
    assert_eq!(checked["keys"].as_u64(), Some(keys.len() as u64 + 2 * PAIRS));

    let target = start(|options| (options.nodes, options.groups, options.shards) = (1, 2, 7));
    let done = json(&mut flotilla(&["restore", "--json", "--nodes", &nodes(&target), dir]));
    assert_eq!(
        (done["loaded"].as_u64(), done["kept"].as_u64()),
        (checked["keys"].as_u64(), Some(0)),
        "{done}"
    );
    let mut other = target.nodes.client();
    for key in &keys {
        let (expected, found) = (all_of(&mut client, key), all_of(&mut other, key));
        let shown = |(value, end): &(Reply, Reply)| format!("{value:.200} {end}");
        let (was, is) = (shown(&expected), shown(&found));
        assert!(expected == found && expected.0 != Reply::Null, "{}: {was}, {is}", key.escape_ascii());
    }
    for pair in 0..PAIRS {
        let [one, two] = halves(pair);
        let found = ask(&mut other, &[b"MGET", &one, &two]);
        let Reply::Array(halves) = found else { panic!("{found}") };
        let [Reply::Bulk(one), Reply::Bulk(two)] = &halves[..] else { panic!("{halves:?}") };
        assert_eq!(one, two, "both halves of pair {pair} are of one moment");
        let number: u64 = text(one).parse().unwrap();
        // The write after the last acknowledged one may have been under way.
        let range = before[pair as usize]..=after[pair as usize] + 1;
        assert!(range.contains(&number), "pair {pair}: {number} is of {range:?}");
    }
    assert_eq!(
        target.nodes.client().execute(b"k", &[b"DBSIZE"], PATIENCE).unwrap(),
        Reply::Integer((keys.len() as u64 + 2 * PAIRS) as i64)
    );
    versions_don_t_go_back(&mut client, &mut other, &keys[2]);
}

/// What the old cluster goes on to give out is never given out by the new one.
fn versions_don_t_go_back(old: &mut Cluster, new: &mut Cluster, key: &[u8]) {
    let version = |client: &mut Cluster| match ask(client, &[b"FLOTILLA.GETV", key]) {
        Reply::Array(parts) => parts[0].clone(),
        other => panic!("{other}"),
    };
    for client in [&mut *old, &mut *new] {
        ask(client, &[b"SET", key, b"other"]);
    }
    let (Reply::Integer(gone), Reply::Integer(next)) = (version(old), version(new)) else {
        panic!("no versions")
    };
    assert!(gone < 100 && next > 1 << 50, "{gone}, {next}");
    let Reply::Integer(session) = ask(new, &[b"FLOTILLA.SESSION", key]) else { panic!("no session") };
    assert!(session > 1 << 50, "{session}");
}

/// A small cluster with some keys, and its backup.
fn backed_up(keys: u32) -> (TestCluster, PathBuf) {
    let source = start(|options| options.nodes = 1);
    let mut client = source.nodes.client();
    for number in 0..keys {
        ask(&mut client, &[b"SET", format!("key:{number}").as_bytes(), &[b'v'; 1000]]);
    }
    let folder = source.folder.path().join("backup");
    output(flotilla(&["backup", "--nodes", &nodes(&source)]).arg(&folder));
    (source, folder)
}

#[test]
fn a_restore_goes_on_through_moves_and_a_leader_s_death_and_again_after_its_own() {
    let (source, folder) = backed_up(6_000);
    let mut target = start(|options| (options.cores, options.groups, options.spare_groups) = (1, 2, 1));
    let restore = |nodes: &str| {
        let mut command = flotilla(&["restore", "--nodes", nodes, "--limit", "1", "--json"]);
        command.arg(&folder).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let all = nodes(&target);
    // Killed in the middle.
    let mut child = restore(&all).spawn().unwrap();
    wait_for_keys(&target, 500, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let (status, said) = fails(flotilla(&["restore", "--nodes", &all]).arg(&folder));
    assert!(status == 1 && said.contains("isn't empty") && said.contains("--existing keep"), "{said}");
    // A client changes what is there, and what is to come.
    let mut client = target.nodes.client();
    for number in [0, 5_999] {
        ask(&mut client, &[b"SET", format!("key:{number}").as_bytes(), b"mine"]);
    }
    let before = keys_of(&target);
    let mut child = restore(&all).args(["--existing", "keep"]).spawn().unwrap();
    wait_for_keys(&target, before + 500, &mut child);
    // Two of three stay: the restore and the moves go on.
    target.nodes.kill(1);
    let mover = spawn({
        let address = target.nodes.address(2);
        move || drop(output(&mut flotilla(&["cluster", "join", "2", "--wait", "--json", "--addr", &address])))
    });
    wait_for_keys(&target, before + 1_500, &mut child);
    target.nodes.restart(1).unwrap();
    mover.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(keys_of(&target), 6_000);
    for number in (0..6_000).step_by(37).chain([5_999]) {
        let key = format!("key:{number}");
        let expected = if [0, 5_999].contains(&number) { "mine".to_owned() } else { "v".repeat(1000) };
        assert_eq!(target.get(&key), Some(expected), "{key}");
    }
    // The backup's values come back where that is asked for.
    let done = json(flotilla(&["restore", "--nodes", &all, "--existing", "replace", "--json"]).arg(&folder));
    assert_eq!((done["loaded"].as_u64(), done["kept"].as_u64()), (Some(6_000), Some(0)));
    assert_eq!(target.get("key:0"), Some("v".repeat(1000)));
    drop(source);
}

fn keys_of(cluster: &TestCluster) -> u64 {
    let look = |address: &String| {
        let mut connection = Connection::open(address, PATIENCE).ok()?;
        match connection.execute(&[b"DBSIZE"]).ok()? {
            Reply::Integer(keys) => u64::try_from(keys).ok(),
            _ => None,
        }
    };
    cluster.nodes.addresses().iter().filter_map(look).sum()
}

/// Waits until the cluster has so many keys, or the child has ended.
fn wait_for_keys(cluster: &TestCluster, keys: u64, child: &mut Child) {
    let clock = Stopwatch::start();
    while keys_of(cluster) < keys && child.try_wait().unwrap().is_none() {
        assert!(clock.elapsed() < PATIENCE, "there are never {keys} keys");
        pause(Duration::from_millis(5));
    }
}
