//! `flotilla wal` on the folders of real nodes: whole, torn, damaged, repaired, and on what is no log at all.

use crate::common::{PATIENCE, TestCluster, output, program, run, start, text};
use flotilla_services::hands::{Stopwatch, pause};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs `flotilla wal`: its exit status, standard output and standard error.
fn wal(args: &[&str], dir: &Path) -> (i32, String, String) {
    let done = run(Command::new(program()).arg("wal").args(args).arg(dir));
    (done.status.code().unwrap_or(-1), text(&done.stdout), text(&done.stderr))
}

fn json(args: &[&str], dir: &Path) -> (i32, serde_json::Value) {
    let (status, out, err) = wal(&[args, &["--json"]].concat(), dir);
    let value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}{err}"));
    (status, value)
}

/// What `verify` says of the only core.
fn verdict(dir: &Path) -> (i32, serde_json::Value) {
    let (status, report) = json(&["verify"], dir);
    (status, report["cores"][0].clone())
}

/// One node that has written some keys and died.
fn dead_node() -> TestCluster {
    // One group: what its log holds is looked at entry by entry.
    let mut cluster = start(|options| (options.nodes, options.controller) = (1, false));
    for number in 0..30 {
        cluster.set(&format!("key:{number}"), &format!("value {number}"));
    }
    cluster.nodes.kill(1);
    cluster
}

fn core(cluster: &TestCluster, node: u32) -> PathBuf {
    cluster.data(node).join("core-0")
}

/// The segment of a core that is in use, and its content.
fn segment(core: &Path) -> (PathBuf, Vec<u8>) {
    let path = core.join(verdict(core).1["segments"][0]["file"].as_str().unwrap());
    let image = fs::read(&path).unwrap();
    (path, image)
}

/// Flips a bit in the payload of the frame in a block of the segment in use.
fn spoil(core: &Path, block: usize) -> PathBuf {
    let (path, mut image) = segment(core);
    assert_eq!(&image[block * 4096..block * 4096 + 4], b"FRM1");
    image[block * 4096 + 100] ^= 1;
    fs::write(&path, image).unwrap();
    path
}

/// Puts a repaired copy in the place of the folder.
fn put_in_place(core: &Path) {
    fs::rename(core, core.with_extension("damaged")).unwrap();
    fs::rename(core.with_extension("repaired"), core).unwrap();
}

#[test]
fn a_whole_log_is_verified_and_dumped() {
    let cluster = dead_node();
    let (status, report) = verdict(&cluster.data(1));
    // A kill may leave a frame half written.
    assert!(status == 0 && ["whole", "torn"].contains(&report["verdict"].as_str().unwrap()), "{report}");
    let last = report["groups"][0]["entries"][1].as_u64().unwrap();
    assert!(last >= 31 && report["groups"][0]["group"] == 1 && report["node"] == 1, "{report}");
    assert_eq!(report["in_use"], false);
    let (status, said, _) = wal(&["verify"], &core(&cluster, 1));
    assert!(status == 0 && said.contains("a start ") && said.contains("group 1: entries 1 to "), "{said}");

    let (status, dump) = json(&["dump", "--group", "1"], &cluster.data(1));
    let entries = dump["entries"].as_array().unwrap();
    assert!(status == 0 && entries.len() as u64 == last);
    assert!(entries[0]["index"] == 1 && entries[0]["schema"] == 0 && entries[0]["bytes"] == 0);
    let sets: Vec<_> = entries.iter().filter(|entry| entry["args"][1].to_string().contains("key:")).collect();
    assert_eq!(sets.len(), 30);
    assert_eq!(sets[7]["args"], serde_json::json!(["SET", "key:7", "value 7"]));
    let (from, to) = (sets[1]["index"].to_string(), sets[3]["index"].to_string());
    let (_, said, _) = wal(&["dump", "--group", "1", "--from", &from, "--to", &to], &cluster.data(1));
    assert!(said.contains("\"value 1\"") && said.contains("\"value 3\""), "{said}");
    assert!(!said.contains("\"value 0\"") && !said.contains("\"value 4\""), "{said}");
    // Whoever stops reading gets no panic.
    let shell =
        format!("{} wal dump --group 1 {} | head -n 1", program().display(), cluster.data(1).display());
    let head = run(Command::new("sh").args(["-c", &shell]));
    assert!(head.stderr.is_empty(), "{}", text(&head.stderr));
}

#[test]
fn a_torn_tail_is_no_damage() {
    let cluster = dead_node();
    let (path, mut image) = segment(&core(&cluster, 1));
    let (_, before) = verdict(&cluster.data(1));
    let end = (4096..).step_by(4096).find(|at| image[*at..*at + 4] != *b"FRM1").unwrap();
    // A frame's header of this epoch whose payload never came.
    let frame = image[8192..12_288].to_vec();
    image[end..end + 4096].copy_from_slice(&frame);
    image[end + 200] ^= 1;
    fs::write(path, image).unwrap();
    let (status, report) = verdict(&cluster.data(1));
    assert_eq!((status, &report["verdict"]), (0, &serde_json::json!("torn")), "{report}");
    assert_eq!(report["torn_tail"]["offset"], end);
    assert_eq!(report["last_frame"], before["last_frame"]);
}

#[test]
fn damage_is_told_and_a_lone_node_goes_on_with_a_repaired_copy() {
    let mut cluster = dead_node();
    let core = core(&cluster, 1);
    let path = spoil(&core, 12);
    let damaged = fs::read(&path).unwrap();
    let (status, said, error) = wal(&["verify"], &core);
    assert_eq!((status, error.lines().count()), (1, 1), "{said}{error}");
    for part in [".log is damaged at offset 49152", "group 1: entries from", "a start opens"] {
        assert!(said.contains(part), "no word of {part} in {said}");
    }
    let (_, report) = verdict(&core);
    let first_lost = report["lost_frames"][0]["frames"][0].as_u64().unwrap();
    let from = report["groups"][0]["damage"]["from"].as_u64().unwrap();
    assert!(said.contains(&format!("--truncate-at {first_lost}")), "{said}");
    assert!(cluster.nodes.restart(1).unwrap_err().to_string().contains("No other node has a replica"));

    let at = first_lost.to_string();
    let (status, _, error) = wal(&["repair", "--truncate-at", &at], &core);
    assert!(status == 2 && error.contains("--yes"), "it asks first: {error}");
    assert!(!core.with_extension("repaired").exists());
    let (status, repair) = json(&["repair", "--truncate-at", &at, "--yes"], &core);
    assert!(status == 0 && repair["lost"][0]["group"] == 1, "{repair}");
    assert_eq!(fs::read(&path).unwrap(), damaged, "the folder itself stays as it is");
    let (status, report) = verdict(&core.with_extension("repaired"));
    assert_eq!((status, &report["verdict"]), (0, &serde_json::json!("repaired")), "{report}");
    let (status, _, error) = wal(&["repair", "--truncate-at", &at, "--yes"], &core);
    assert!(status == 1 && error.contains("is there already"), "{error}");

    put_in_place(&core);
    for life in 0..3 {
        cluster.nodes.restart(1).unwrap();
        cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
        assert_eq!(
            cluster.get("key:0"),
            Some("value 0".to_owned()),
            "life {life}, entries from {from} are lost"
        );
        assert_eq!(cluster.get("key:29"), None, "given up");
        for earlier in 0..life {
            assert_eq!(cluster.get(&format!("life:{earlier}")), Some("yes".to_owned()));
        }
        cluster.set(&format!("life:{life}"), "yes");
        cluster.nodes.kill(1);
    }
}

#[test]
fn a_repaired_copy_among_replicas_gets_back_what_it_gave_up() {
    let mut cluster = start(|options| (options.nodes, options.controller) = (3, false));
    for number in 0..40 {
        cluster.set(&format!("key:{number}"), "first");
    }
    cluster.nodes.kill(3);
    let core = core(&cluster, 3);
    assert_eq!(wal(&["repair", "--yes", "--truncate-at", "6"], &core).0, 0);
    put_in_place(&core);
    cluster.nodes.restart(3).unwrap();
    let clock = Stopwatch::start();
    let is_whole = |info: &str| info.contains("groups_repairing:0") && !info.contains("leader=none");
    while !is_whole(&cluster.info(3)) {
        assert!(clock.elapsed() < PATIENCE, "it is never whole: {}", cluster.words(3));
        pause(std::time::Duration::from_millis(5));
    }
    assert!(cluster.words(3).contains("doesn't vote until the others"), "{}", cluster.words(3));
    cluster.nodes.kill(1);
    cluster.nodes.wait_for_leaders(PATIENCE).unwrap();
    for number in 0..40 {
        assert_eq!(cluster.get(&format!("key:{number}")), Some("first".to_owned()));
    }
}

#[test]
fn a_running_node_is_looked_at_and_not_repaired() {
    let cluster = start(|options| {
        (options.nodes, options.cores, options.groups, options.controller) = (1, 2, 2, false)
    });
    cluster.set("key", "value");
    let (_, report) = verdict(&cluster.data(1));
    assert_eq!(report["in_use"], true, "{report}");
    let (status, _, error) = wal(&["repair", "--yes", "--truncate-at", "1"], &core(&cluster, 1));
    assert!(status == 1 && error.contains("is in use by a running node: stop it first"), "{error}");
    let (status, _, error) = wal(&["repair", "--yes", "--truncate-at", "1"], &cluster.data(1));
    assert!(status == 2 && error.contains("core-0, ") && error.contains("core-1"), "{error}");
    assert!(cluster.get("key").is_some(), "nothing disturbs it");
}

#[test]
fn what_is_no_log_is_refused_in_one_line_with_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "no log").unwrap();
    let looped = folder.path().join("looped");
    std::os::unix::fs::symlink(&looped, &looped).unwrap();
    let missing = folder.path().join("missing");
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let closed_words = if fs::read_dir(&closed).is_ok() { "no log segments in" } else { "can't read" };
    for command in
        [&["inspect"][..], &["verify"], &["dump", "--group", "1"], &["repair", "--yes", "--truncate-at", "3"]]
    {
        for (dir, words) in [
            (&missing, "No such file or directory"),
            (&looped, "symbolic links"),
            (&file, "is a file: name the folder that it is in"),
            (&folder.path().to_path_buf(), "no log segments in"),
            (&closed, closed_words),
        ] {
            let (status, out, error) = wal(command, dir);
            assert!(status == 2 && out.is_empty(), "{command:?} {}: {out}{error}", dir.display());
            assert!(error.lines().count() == 1 && error.contains(words), "{command:?}: {error}");
        }
    }
    assert_eq!(run(Command::new(program()).args(["wal", "dump", "/tmp"])).status.code(), Some(2));
    let zero = run(Command::new(program()).args(["wal", "repair", "--truncate-at", "0", "/tmp"]));
    assert_eq!(zero.status.code(), Some(2));
}

#[test]
fn logs_that_can_t_be_opened_are_told_apart() {
    let cluster = dead_node();
    let core = core(&cluster, 1);
    let (path, good) = segment(&core);
    let with_header = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = good.clone();
        change(&mut image);
        let crc = crc32fast::hash(&image[..68]).to_le_bytes();
        image[68..72].copy_from_slice(&crc);
        fs::write(&path, image).unwrap();
    };
    with_header(&|image| image[4] = 9);
    let (status, report) = verdict(&core);
    assert_eq!((status, &report["verdict"]), (1, &serde_json::json!("refused")), "{report}");
    assert!(
        report["damage"][0].as_str().unwrap().contains("has format version 9, this program reads 2"),
        "{report}"
    );
    let (status, _, error) = wal(&["dump", "--group", "1"], &core);
    assert!(status == 1 && error.contains("format version 9"), "{error}");

    // Another node's log in this node's folder.
    with_header(&|image| image[16] = 5);
    let (status, report) = verdict(&core);
    assert!(
        status == 1 && report["damage"][0].as_str().unwrap().contains("belongs to core 0 of node 5"),
        "{report}"
    );
    let (status, _, error) = wal(&["repair", "--yes", "--truncate-at", "3"], &core);
    assert!(status == 1 && error.contains("belongs to core 0 of node 5"), "{error}");

    // The same folder without the data folder around it: it is whose it says.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::copy(&path, elsewhere.path().join(path.file_name().unwrap())).unwrap();
    let (status, report) = verdict(elsewhere.path());
    assert!(status == 0 && report["node"] == 5, "{report}");

    fs::write(&path, &good).unwrap();
    let (status, _, error) = wal(&["dump", "--group", "7"], &core);
    assert!(status == 2 && error.contains("the groups there: 1"), "{error}");
    let (status, _, error) = wal(&["repair", "--yes", "--truncate-at", "99999"], &core);
    assert!(status == 1 && error.contains("the log has no frame 99999 or later"), "{error}");
}

#[test]
fn on_a_terminal_repair_asks() {
    // `script` gives a program a terminal of its own.
    if run(Command::new("sh").args(["-c", "command -v script"])).status.code() != Some(0) {
        eprintln!("skipped: script (util-linux) is not installed");
        return;
    }
    let cluster = dead_node();
    let core = core(&cluster, 1);
    let copy = core.with_extension("repaired");
    let command = format!("{} wal repair --truncate-at 5 {}", program().display(), core.display());
    for (answer, written) in [("\n", false), ("n\n", false), ("y\n", true)] {
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let said = text(&done.stdout);
        assert!(said.contains("Write the copy? [y/N]") && said.contains("group 1: entries"), "{said}");
        assert_eq!(done.status.code(), Some(i32::from(!written)), "{said}");
        assert_eq!(copy.exists(), written, "{said}");
    }
}

#[test]
fn a_snapshot_that_is_gone_or_spoiled_is_told() {
    let mut cluster = start(|options| {
        (options.nodes, options.controller) = (1, false);
        options.log.snapshot_after_bytes = 64 << 10;
    });
    let value = "x".repeat(5000);
    let clock = Stopwatch::start();
    let snapshot = loop {
        cluster.set("key", &value);
        let (_, report) = verdict(&cluster.data(1));
        if report["groups"][0]["snapshot"].is_u64() {
            break report["groups"][0]["snapshot"].as_u64().unwrap();
        }
        assert!(clock.elapsed() < PATIENCE, "no snapshot is taken: {report}");
    };
    assert!(snapshot > 0);
    cluster.nodes.kill(1);
    let core = core(&cluster, 1);
    assert_eq!(verdict(&core).0, 0, "{}", output(Command::new(program()).args(["wal", "verify"]).arg(&core)));
    let snapshots = fs::read_dir(&core).unwrap().map(|entry| entry.unwrap().path());
    let snapshots: Vec<PathBuf> =
        snapshots.filter(|path| path.extension().is_some_and(|it| it == "snap")).collect();
    for path in &snapshots {
        let mut image = fs::read(path).unwrap();
        let value = image.windows(100).position(|bytes| bytes.iter().all(|byte| *byte == b'x'));
        image[value.unwrap()] = b'y';
        fs::write(path, image).unwrap();
    }
    let (status, report) = verdict(&core);
    let damage = report["damage"].to_string();
    assert!(status == 1 && damage.contains("a part's checksum is wrong"), "{snapshots:?} {report}");
    snapshots.iter().for_each(|path| fs::remove_file(path).unwrap());
    let (status, report) = verdict(&core);
    assert!(status == 1 && report["damage"].to_string().contains(".snap is missing"), "{report}");
}
