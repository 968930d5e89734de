//! The status page, in a browser.

use super::common::load::Load;
use super::common::{PATIENCE, TestCluster, output, start};
use super::http::{on_path, status, until};
use super::jobs::submit;
use flotilla_services::admin::status::Status;
use std::path::PathBuf;
use std::process::Command;

/// Chromium, or `None` (said aloud) where it isn't installed and nobody insists.
fn chromium() -> Option<PathBuf> {
    let found = on_path("chromium");
    let insisted = std::env::var_os("FLOTILLA_REQUIRE_CHROMIUM").is_some();
    assert!(found.is_some() || !insisted, "chromium is required: apt-get install chromium");
    found
}

/// The page of a node as a browser has it after a few seconds of its own time.
fn shown(chromium: &PathBuf, address: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(chromium);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=20000",
        "--dump-dom",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    output(command.arg(format!("http://{address}/")))
}

/// What is within the element of that id, up to the next element that has one.
fn section<'a>(dom: &'a str, id: &str) -> &'a str {
    let (_, rest) = dom.split_once(&format!(" id=\"{id}\"")).unwrap_or_else(|| panic!("no {id} in {dom}"));
    rest.split(" id=\"").next().unwrap()
}

/// Three nodes with two groups that serve, shards on their way to a third, so slowly that they are seen, and a job.
fn busy() -> TestCluster {
    let cluster = start(|options| {
        (options.groups, options.spare_groups, options.shards) = (2, 1, 16);
        options.log.migration_bytes_per_second = 8 << 10;
        options.log.migration_bytes_per_second_under_load = 8 << 10;
    });
    let (mut client, value) = (cluster.nodes.client(), vec![b'x'; 64 << 10]);
    for number in 0..64 {
        let key = format!("key-{number}");
        client.execute(key.as_bytes(), &[b"SET", key.as_bytes(), &value], PATIENCE).unwrap();
    }
    submit(&cluster, 1);
    until(
        || cluster.connect(1).execute(&[b"FLOTILLA.CLUSTER", b"JOIN", b"2"]).unwrap().to_string(),
        |it| it.starts_with("(integer)"),
    );
    cluster
}

#[test]
fn a_browser_shows_every_section() {
    let Some(chromium) = chromium() else { return };
    let cluster = busy();
    let loads: Vec<_> = (1..=4).map(|number| Load::start(&cluster, number)).collect();
    // A node that clients write to, and that sees shards move.
    let is_busy = |it: &Status| {
        it.groups.iter().any(|group| group.role == "leader" && ["0", "1"].contains(&group.group.as_str()))
            && it.migrations.iter().any(|it| it.done_bytes.is_some())
    };
    let find = || (1..=3).find(|node| is_busy(&status(&cluster, *node)));
    let node = until(find, Option::is_some).unwrap();
    let dom = shown(&chromium, cluster.nodes.admin(node));
    for load in loads {
        load.stop();
    }
    assert!(
        dom.contains("data-shown=\"yes\"") && dom.contains(&format!("<title>node {node} of local</title>"))
    );
    for (id, parts) in [
        ("name", &[format!("Node {node} of local").as_str()][..]),
        ("state", &[">ready<"]),
        ("about", &["Flotilla 0.", "configuration 2"]),
        (
            "tiles",
            &[
                "commands/s",
                "errors/s",
                "clients",
                "keys here",
                "data here",
                "memory",
                "CPU",
                " %",
                "syncs/s",
            ],
        ),
        ("plot", &["<polyline", "2 minutes ago"]),
        ("ring", &["16 shards", "class=\"shard\"", "class=\"moving\"", "on their way"]),
        ("groupcolors", &["group 0: ", "group 1: ", ", node "]),
        ("migrations", &["<progress", " of ", "KiB"]),
        ("groups", &["leader", "controller", "node "]),
        ("nodes", &["this one", "1 of 1 links", "version 2", "127.0.0.1:"]),
        ("cores", &[" %", " of 4"]),
        ("stages", &["queue", "build", "write", "sync", "disk", "network", "quorum", "apply"]),
        ("jobs", &["count 1", "running", "0 of 3", "0 of 2"]),
    ] {
        let section = section(&dom, id);
        for part in parts {
            assert!(section.contains(part), "no {part} in {id}: {section}");
        }
    }
    for card in ["movingcard", "jobscard"] {
        assert!(!section(&dom, card).starts_with(" hidden"), "{card} is hidden");
    }
    assert_eq!(dom.matches("class=\"shard\"").count(), 16);
    let (shown, _) = dom.split_once("<script>").unwrap();
    assert!(!shown.contains("NaN") && !shown.contains("undefined"), "{shown}");
}

#[test]
fn the_page_fetches_nothing_from_elsewhere() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/page.html")).unwrap();
    assert_eq!(text.matches("http:").count(), text.matches("http://www.w3.org/").count());
    assert!(!text.contains("https:") && !text.contains("src="));
    assert_eq!(text.matches("fetch(").count(), text.matches("fetch(\"/status\"").count());
}
