//! Backups and restores that are cut off, refused, or short of room.

use super::common::{PATIENCE, output, run, start, text};
use super::{LONG_BYTES, ask, backed_up, fails, flotilla, keys_of, nodes};
use flotilla_services::acl::{PasswordHash, Secret};
use flotilla_services::client::Reply;
use flotilla_services::hands::{Stopwatch, pause, spawn};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

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
