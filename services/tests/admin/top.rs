//! `flotilla top`.

use super::common::{output, program, run, start, text};
use super::http::until;
use std::process::Command;

#[test]
fn the_nodes_are_shown_once_or_as_json() {
    let mut cluster = start(|options| options.groups = 2);
    cluster.set("key", "value");
    let admins: Vec<String> = (1..=3).map(|node| cluster.nodes.admin(node).to_owned()).collect();
    let top = |words: &[&str]| {
        let mut command = Command::new(program());
        command.args(["top", "--once", "--interval", "0.2", "--admin", &admins.join(",")]).args(words);
        command
    };
    let head = "flotilla top: cluster local, 3 of 3 nodes asked answer, configuration 1\n";
    let are_ready = |shown: &str| shown.lines().filter(|line| line.contains(" ready ")).count() == 3;
    let shown = until(|| output(&mut top(&[])), |shown| shown.starts_with(head) && are_ready(shown));
    for part in ["NODE", "READ ms 50/99%", "GROUP", "controller", "waited, ms 50/99%: queue "] {
        assert!(shown.contains(part), "no {part}: {shown}");
    }
    assert!(!shown.contains('\x1b'), "it is for no terminal: {shown}");

    let json: serde_json::Value = serde_json::from_str(&output(&mut top(&["--json"]))).unwrap();
    let nodes = json["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3);
    assert!(
        nodes.iter().all(|node| node["rates"]["commands"].is_number() && node["status"]["ready"] == true)
    );

    cluster.nodes.kill(2);
    let told = run(&mut top(&[]));
    assert_eq!(told.status.code(), Some(1));
    assert!(text(&told.stdout).contains("2 of 3 nodes asked answer"), "{}", text(&told.stdout));
    assert!(
        text(&told.stderr).starts_with(&format!("flotilla: {} doesn't answer: ", admins[1])),
        "{}",
        text(&told.stderr)
    );
}
