//! The numbers: what they look like, whether they are true, and whether they are explained.

use super::common::{PATIENCE, TestCluster, output, start};
use super::exposition::{Family, parse, sum};
use super::http::{get, on_path, until};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn metrics(cluster: &TestCluster, node: u32) -> BTreeMap<String, Family> {
    let answer = get(cluster.nodes.admin(node), "/metrics");
    assert!(
        answer.head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{answer:?}"
    );
    parse(&answer.text)
}

/// The metrics that the page explains: name, type and labels.
fn explained() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
        let is_metric = names_in(name).next() == Some(name);
        if !is_metric {
            return None;
        }
        let labels = cells[3].split(',').map(|it| it.trim().trim_matches('`').to_owned());
        Some((name.to_owned(), (cells[2].to_owned(), labels.filter(|it| !it.is_empty()).collect())))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn numbers_are_true_and_every_one_is_explained() {
    let cluster = start(|options| (options.cores, options.groups) = (2, 2));
    let mut client = cluster.nodes.client();
    for number in 0..300 {
        let key = format!("key-{number}");
        client.execute(key.as_bytes(), &[b"SET", key.as_bytes(), b"value"], PATIENCE).unwrap();
        client.execute(key.as_bytes(), &[b"GET", key.as_bytes()], PATIENCE).unwrap();
    }
    let mut connection = cluster.connect(1);
    connection.execute(&[b"SET", b"key"]).unwrap();
    connection.execute(&[b"NONSENSE"]).unwrap();
    connection.execute(&[b"FLOTILLA.CLUSTER", b"MOVE", b"0", b"77"]).unwrap();

    let keys = |families: &BTreeMap<String, Family>| sum(families, "flotilla_keys", &[]);
    let first = until(|| metrics(&cluster, 1), |it| keys(it) == 300.0);
    let all: Vec<_> = (1..=3).map(|node| metrics(&cluster, node)).collect();
    let everywhere =
        |name: &str, labels: &[(&str, &str)]| all.iter().map(|it| sum(it, name, labels)).sum::<f64>();
    assert!(everywhere("flotilla_commands_total", &[("command", "set")]) >= 301.0);
    assert!(everywhere("flotilla_command_seconds_count", &[("class", "write")]) >= 300.0);
    assert!(everywhere("flotilla_command_seconds_count", &[("class", "read")]) >= 300.0);
    assert!(everywhere("flotilla_raft_proposals_total", &[]) >= 300.0);
    assert!(sum(&first, "flotilla_command_errors_total", &[("error", "ERR")]) >= 3.0);
    assert!(sum(&first, "flotilla_raft_applied_entries_total", &[]) >= 300.0);
    assert!(sum(&first, "flotilla_data_bytes", &[]) >= 300.0 * 10.0);
    for stage in ["queue", "build", "sync", "disk", "network", "quorum", "apply"] {
        assert!(everywhere("flotilla_stage_seconds_count", &[("stage", stage)]) >= 1.0, "{stage}");
    }
    for name in [
        "flotilla_log_syncs_total",
        "flotilla_log_sync_seconds_count",
        "flotilla_log_frames_total",
        "flotilla_log_written_bytes_total",
        "flotilla_core_turn_seconds_count",
        "flotilla_core_busy_seconds_total",
        "flotilla_peer_sent_bytes_total",
        "flotilla_peer_received_bytes_total",
        "flotilla_mesh_sent_messages_total",
        "flotilla_mesh_received_messages_total",
        "flotilla_client_received_bytes_total",
        "flotilla_client_sent_bytes_total",
        "flotilla_connections",
        "flotilla_log_segments",
        "flotilla_uptime_seconds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    ] {
        assert!(sum(&first, name, &[]) > 0.0, "{name}");
    }
    let led: f64 = everywhere("flotilla_raft_groups", &[("role", "leader")]);
    assert_eq!(led, 3.0, "two groups and the controller");
    assert_eq!(sum(&first, "flotilla_peer_links_up", &[("peer", "2")]), 4.0);

    // Counters never go back.
    let then = metrics(&cluster, 1);
    for (name, family) in first.iter().filter(|(_, family)| family.kind == "counter") {
        assert!(sum(&then, name, &[]) >= sum(&first, name, &[]), "{name} {family:?}");
    }

    let explained = explained();
    let printed: BTreeSet<&String> = first.keys().collect();
    assert_eq!(printed, explained.keys().collect(), "docs/metrics.md explains what a node prints");
    for (name, family) in &first {
        let (kind, labels) = &explained[name];
        assert_eq!(kind, &family.kind, "{name}");
        let used = family.samples.iter().flat_map(|it| it.labels.keys()).filter(|it| *it != "le");
        let used: BTreeSet<String> = used.cloned().collect();
        assert!(used.is_subset(labels) && (family.samples.is_empty() || used == *labels), "{name}: {used:?}");
    }
    read_by_python(&get(cluster.nodes.admin(1), "/metrics").text);
}

/// The reader that Prometheus' own library for Python has.
fn read_by_python(text: &str) {
    let python = on_path("python3");
    let has_it = |python: &PathBuf| {
        let found = Command::new(python).args(["-c", "import prometheus_client"]).output();
        found.is_ok_and(|found| found.status.success())
    };
    let Some(python) = python.filter(has_it) else {
        eprintln!("skipped: no python3 with prometheus_client");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics.txt");
    std::fs::write(&file, text).unwrap();
    let script = "import sys\n\
                  from prometheus_client.parser import text_string_to_metric_families as parse\n\
                  print(sum(len(it.samples) for it in parse(open(sys.argv[1]).read())))\n";
    let count = output(Command::new(python).args(["-c", script]).arg(&file));
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(count.trim().parse::<usize>().unwrap(), lines);
}

/// Names of metrics in the expressions of the dashboard.
fn names_in(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_'));
    words.filter(|word| word.starts_with("flotilla_") || word.starts_with("process_"))
}

fn expressions(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().filter(|_| ["expr", "definition"].contains(&key.as_str())) {
                    Some(text) => found.push(text.to_owned()),
                    None => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_what_there_is() {
    let text = std::fs::read_to_string(root().join("deploy/grafana/flotilla.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let (explained, mut found) = (explained(), Vec::new());
    expressions(&dashboard, &mut found);
    assert!(found.len() >= 20, "{found:?}");
    for expression in &found {
        let names: Vec<&str> = names_in(expression).collect();
        assert!(!names.is_empty(), "{expression} shows none of our metrics");
        for name in names {
            let kind = |name: &str| explained.get(name).map(|(kind, _)| kind.as_str());
            let ends = ["_bucket", "_sum", "_count"];
            let histogram = ends.iter().find_map(|end| name.strip_suffix(end)).and_then(kind);
            assert!(
                kind(name).is_some() || histogram == Some("histogram"),
                "{expression}: there is no {name}"
            );
            let is_counter = kind(name) == Some("counter") || histogram == Some("histogram");
            assert!(
                !is_counter || expression.contains("rate(") || expression.contains("increase("),
                "{expression}"
            );
        }
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
}
