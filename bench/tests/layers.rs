//! A layer's command as a whole: what it measures runs as a process of its own, which tells what it used.

use std::path::Path;
use std::process::Command;

fn run(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_flotilla-bench"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

#[test]
fn a_layers_rounds_become_cells() {
    // Not in /tmp, which may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let arguments = ["wal", "--quick", "--rounds", "2", "--only", "append_4k", "--json"];
    let printed = run(folder.path(), &arguments);
    let cells = printed["results"].as_array().unwrap();
    let targets: Vec<&str> = cells.iter().filter_map(|cell| cell["target"].as_str()).collect();
    assert_eq!(targets, ["flotilla", "raw recipe"]);
    for cell in cells {
        assert_eq!(
            (cell["unit"].as_str(), cell["rounds"].as_array().map(Vec::len)),
            (Some("append"), Some(2))
        );
        assert!(cell["median"]["latency_us"]["p50"].as_f64() > Some(1.0), "{cell}");
        assert!(cell["quantiles"].as_array().is_some_and(|all| all.len() > 10), "{cell}");
    }
    for round in cells[0]["rounds"].as_array().unwrap() {
        // A frame is a block, and a payload nearly is.
        assert!(round["written_per_byte"].as_f64().is_some_and(|it| it > 0.9), "{round}");
        assert!(round["memory_bytes"].as_u64() > Some(1 << 20), "{round}");
        assert!(round["server_cpu_s_per_100k"].as_f64() > Some(0.0), "{round}");
    }
    let names: Vec<&str> =
        printed["ratios"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["append_4k_p50_vs_raw", "append_4k_p99_vs_raw"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}
