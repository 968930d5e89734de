//! A whole cluster to a folder and into another cluster, with real processes.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

mod common;

use common::{PATIENCE, TestCluster, output, program, run, start, text};
use flotilla_services::acl::{PasswordHash, Secret};
use flotilla_services::client::{Cluster, Connection, Reply};
use flotilla_services::hands::{Stopwatch, pause, spawn};
use std::fs;
use std::path::{Path, PathBuf};
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

/// Lets groups come and go until told to stop; returns how often.
struct Mover {
    over: Arc<AtomicBool>,
    worker: std::thread::JoinHandle<u32>,
}

impl Mover {
    fn start(cluster: &TestCluster, orders: &'static [&'static [&'static str]]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (address, stop) = (cluster.nodes.address(1), Arc::clone(&over));
        let worker = spawn(move || {
            let mut changes = 0;
            while !stop.load(Ordering::Relaxed) {
                let order = orders[changes as usize % orders.len()];
                output(flotilla(&["cluster"]).args(order).args(["--addr", &address, "--wait", "--json"]));
                changes += 1;
            }
            changes
        });
        Self { over, worker }
    }

    fn stop(self) -> u32 {
        self.over.store(true, Ordering::Relaxed);
        self.worker.join().unwrap()
    }
}

#[test]
fn a_cluster_under_load_whose_shards_move_is_restored_into_one_of_another_shape() {
    let source = start(|options| (options.cores, options.groups, options.spare_groups) = (2, 2, 2));
    let mut client = source.nodes.client();
    let keys = fill(&mut client);
    let pairs = Pairs::start(&source);
    let mover = Mover::start(
        &source,
        &[&["join", "2", "3"], &["leave", "0", "1"], &["join", "0", "1"], &["leave", "2", "3"]],
    );
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

#[test]
fn a_backup_that_is_killed_looks_unfinished_and_the_next_one_takes_its_place() {
    let (source, whole) = backed_up(4_000);
    let folder = source.folder.path().join("again");
    let mut command = flotilla(&["backup", "--limit", "1", "--nodes", &nodes(&source)]);
    let mut child = command.arg(&folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let clock = Stopwatch::start();
    let has_file = || {
        fs::read_dir(&folder).is_ok_and(|entries| {
            entries.flatten().any(|it| it.path().extension().is_some_and(|end| end == "backup"))
        })
    };
    while !has_file() {
        assert!(clock.elapsed() < PATIENCE && child.try_wait().unwrap().is_none(), "a file is finished");
        pause(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (status, said) = fails(flotilla(&["backup", "verify"]).arg(&folder));
    assert!(status == 2 && said.contains("wasn't finished"), "{said}");
    let (status, said) = fails(flotilla(&["restore", "--nodes", &nodes(&source)]).arg(&folder));
    assert!(status == 2 && said.contains("wasn't finished"), "{said}");
    output(flotilla(&["backup", "--nodes", &nodes(&source)]).arg(&folder));
    output(flotilla(&["backup", "verify"]).arg(&folder));
    // Anybody can check it.
    output(Command::new("sha256sum").args(["--quiet", "-c", "SHA256SUMS"]).current_dir(&folder));
    // Readings that were left behind are no harm: the node ends them.
    assert!(whole.join("manifest.json").exists());
}

#[test]
fn a_cluster_that_goes_away_ends_a_backup_and_leaves_nothing() {
    let (mut source, _) = backed_up(3_000);
    let folder = source.folder.path().join("again");
    let mut command = flotilla(&["backup", "--limit", "1", "--timeout", "2", "--nodes", &nodes(&source)]);
    let mut child = command.arg(&folder).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let clock = Stopwatch::start();
    while fs::read_dir(&folder).map_or(0, Iterator::count) < 3 {
        assert!(clock.elapsed() < PATIENCE && child.try_wait().unwrap().is_none(), "it is begun");
        pause(Duration::from_millis(1));
    }
    source.nodes.kill(1);
    let done = child.wait_with_output().unwrap();
    let said = text(&done.stderr);
    assert!(done.status.code() == Some(1) && said.lines().count() == 1, "{said}");
    assert!(said.contains("flotilla: shard ") && said.contains(&source.nodes.address(1)), "{said}");
    assert!(!folder.exists(), "nothing is left");
}

#[test]
fn damage_is_told_before_anything_is_loaded() {
    let (_source, folder) = backed_up(200);
    let target = start(|options| options.nodes = 1);
    let file = fs::read_dir(&folder)
        .unwrap()
        .map(|it| it.unwrap().path())
        .find(|it| it.extension().is_some_and(|end| end == "backup"))
        .unwrap();
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&file, &bad).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    for command in
        [&mut flotilla(&["backup", "verify"]), flotilla(&["restore"]).args(["--nodes", &nodes(&target)])]
    {
        let (status, said) = fails(command.arg(&folder));
        assert!(status == 1 && said.contains(name) && said.contains(": shard "), "{said}");
    }
    assert_eq!(keys_of(&target), 0);
    fs::write(&file, &good[..good.len() - 10]).unwrap();
    let (status, said) = fails(flotilla(&["backup", "verify"]).arg(&folder));
    assert!(status == 1 && said.contains(name) && said.contains("cut off"), "{said}");
}

#[test]
fn bad_folders_and_bad_clusters_get_one_line_each() {
    let (source, whole) = backed_up(10);
    let all = nodes(&source);
    let place = source.folder.path();
    let (full, file) = (place.join("full"), place.join("file"));
    fs::create_dir(&full).unwrap();
    fs::write(full.join("holiday.jpg"), b"x").unwrap();
    fs::write(&file, b"x").unwrap();
    let cases: [(&[&str], &Path, i32, &str); 10] = [
        (&["backup", "--nodes", &all], &full, 2, "holiday.jpg"),
        (&["backup", "--nodes", &all], &file, 2, "is no folder"),
        (&["backup", "--nodes", &all], &whole, 2, "has a backup already"),
        (
            &["backup", "--nodes", &all],
            Path::new("/nowhere/at/all"),
            1,
            "can't make the folder /nowhere/at/all",
        ),
        (&["backup", "--nodes", &all], Path::new("/proc/backup"), 1, "can't make the folder /proc/backup"),
        (
            &["backup", "--nodes", "127.0.0.1:1,127.0.0.1:2"],
            &place.join("new"),
            1,
            "no node of the cluster answers: 127.0.0.1:1: ",
        ),
        (&["backup", "verify"], &place.join("new"), 2, "is no backup"),
        (&["restore", "--nodes", &all], &full, 2, "is no backup"),
        (&["restore", "--nodes", "127.0.0.1:1"], &whole, 1, "no node of the cluster answers"),
        (&["restore", "--nodes", &all], &whole, 1, "isn't empty, it has 10 keys"),
    ];
    for (words, path, status, says) in cases {
        let (found, said) = fails(flotilla(words).arg(path));
        assert!(found == status && said.contains(says), "{words:?}: {found} {said}");
    }
    assert!(full.join("holiday.jpg").exists() && !place.join("new").exists());
    for words in [
        &["backup"][..],
        &["restore"],
        &["backup", "--parallel", "0", "x"],
        &["restore", "--existing", "perhaps", "x"],
    ] {
        assert_eq!(run(&mut flotilla(words)).status.code(), Some(2), "{words:?}");
    }
    // A backup of the future.
    let manifest = whole.join("manifest.json");
    let newer = fs::read_to_string(&manifest).unwrap().replace("\"version\": 1", "\"version\": 7");
    fs::write(&manifest, newer).unwrap();
    let sums = output(Command::new("sh").args(["-c", "sha256sum shard-* manifest.json"]).current_dir(&whole));
    fs::write(whole.join("SHA256SUMS"), sums).unwrap();
    let (status, said) = fails(flotilla(&["backup", "verify"]).arg(&whole));
    assert!(status == 1 && said.contains("of version 7"), "{said}");
}

#[test]
fn who_may_not_read_everything_may_not_back_up() {
    let secret = Secret::new("secret");
    let source = start(|options| {
        options.nodes = 1;
        options.controller = false;
        options.requirepass_sha256 = Some(PasswordHash::of(b"secret"));
        options.security.password = Some(secret.clone());
    });
    let mut client = source.nodes.client();
    for (user, rules) in [
        ("reader", &["~*", "+@read", "+cluster"][..]),
        ("some", &["~a*", "+@all"]),
        ("keeper", &["~*", "+flotilla.backup", "+cluster"]),
        (
            "filler",
            &[
                "~*",
                "+flotilla.backup",
                "+cluster",
                "+flotilla.load",
                "+flotilla.loadfrom",
                "+setrange",
                "+expire",
                "+del",
            ],
        ),
    ] {
        let command: Vec<&[u8]> = [&b"ACL"[..], b"SETUSER", user.as_bytes(), b"on", b">word"]
            .into_iter()
            .chain(rules.iter().map(|rule| rule.as_bytes()))
            .collect();
        assert_eq!(client.execute(b"k", &command, PATIENCE).unwrap(), Reply::Status("OK".to_owned()));
    }
    ask(&mut client, &[b"SET", b"key", b"value"]);
    ask(&mut client, &[b"SET", b"long", &vec![b'l'; LONG_BYTES]]);
    let folder = source.folder.path().join("backup");
    let backup = |user: Option<&str>, password: Option<&str>| {
        let mut command = flotilla(&["backup", "--nodes", &nodes(&source)]);
        if let Some(user) = user {
            command.args(["--user", user]);
        }
        match password {
            Some(password) => command.env("FLOTILLA_PASSWORD", password),
            None => command.env_remove("FLOTILLA_PASSWORD"),
        };
        command.arg(&folder);
        command
    };
    for (user, password, says) in [
        (None, None, "NOAUTH"),
        (None, Some("wrong"), "WRONGPASS"),
        (Some("reader"), Some("word"), "NOPERM"),
        (Some("some"), Some("word"), "NOPERM"),
    ] {
        let (status, said) = fails(&mut backup(user, password));
        assert!(status == 1 && said.contains(says), "{user:?}: {status} {said}");
    }
    assert!(!folder.exists());
    output(&mut backup(Some("keeper"), Some("word")));
    let restore = |user: &str| {
        let mut command =
            flotilla(&["restore", "--existing", "replace", "--user", user, "--nodes", &nodes(&source)]);
        command.env("FLOTILLA_PASSWORD", "word").arg(&folder);
        command
    };
    let (status, said) = fails(&mut restore("keeper"));
    assert!(status == 1 && said.contains("NOPERM"), "{said}");
    ask(&mut client, &[b"DEL", b"long"]);
    output(&mut restore("filler"));
    assert_eq!(ask(&mut client, &[b"STRLEN", b"long"]), Reply::Integer(LONG_BYTES as i64));
}

#[test]
fn a_full_disk_ends_a_backup_with_one_line() {
    let (source, _) = backed_up(2_000);
    let folder = source.folder.path().join("small");
    fs::create_dir(&folder).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=200k", "none"]).arg(&folder).output();
    if !mount.is_ok_and(|done| done.status.success()) {
        return eprintln!("skipped: a small file system can't be mounted here");
    }
    let done = run(flotilla(&["backup", "--nodes", &nodes(&source)]).arg(&folder));
    let left = fs::read_dir(&folder).unwrap().count();
    assert!(Command::new("umount").arg(&folder).status().unwrap().success());
    let said = text(&done.stderr);
    assert!(done.status.code() == Some(1) && said.contains("No space left"), "{said}");
    assert_eq!((said.lines().count(), left), (1, 0), "{said}");
}

/// The most memory that a command held, in KiB, and what it said.
fn peak(command: &mut Command) -> (u64, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut most, clock) = (0, Stopwatch::start());
    let status = format!("/proc/{}/status", child.id());
    while child.try_wait().unwrap().is_none() {
        assert!(clock.elapsed() < PATIENCE, "{command:?} doesn't end");
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix(" kB"));
        most = line.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0).max(most);
        pause(Duration::from_millis(2));
    }
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", text(&done.stderr));
    (most, text(&done.stdout))
}

#[test]
fn memory_is_bounded_however_much_there_is_and_two_may_back_up_at_a_time() {
    const VALUE_BYTES: usize = 8 << 20;
    let source = start(|options| options.nodes = 1);
    let mut client = source.nodes.client();
    for number in 0..16_u8 {
        ask(&mut client, &[b"SET", &[b'k', number], &vec![number; VALUE_BYTES]]);
    }
    let backup = |name: &str| {
        let mut command = flotilla(&["backup", "--json", "--nodes", &nodes(&source)]);
        command.arg(source.folder.path().join(name));
        command
    };
    let mut first = backup("first");
    let other = spawn(move || peak(&mut first));
    let (most, said) = peak(&mut backup("second"));
    assert!(said.contains("\"keys\":16,"), "{said}");
    let target = start(|options| options.nodes = 1);
    let mut restore = flotilla(&["restore", "--json", "--nodes", &nodes(&target)]);
    let (restored, said) = peak(restore.arg(source.folder.path().join("second")));
    assert!(said.contains("\"loaded\":16,"), "{said}");
    for most in [most, other.join().unwrap().0, restored] {
        // Half of what there is.
        assert!((1..(VALUE_BYTES as u64) * 16 / 2048).contains(&most), "{most} KiB");
        eprintln!("{most} KiB at most, for {} KiB", 16 * VALUE_BYTES / 1024);
    }
    let mut other = target.nodes.client();
    for number in [0, 15] {
        let found = ask(&mut other, &[b"GET", &[b'k', number]]);
        assert!(found == Reply::Bulk(vec![number; VALUE_BYTES]), "value {number}");
    }
}
