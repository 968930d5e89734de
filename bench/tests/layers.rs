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
    assert_eq!(targets, ["flotilla", "raw recipe", "raw, durable by itself"]);
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

/// What a command says that ends with an error: one line.
fn refused(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_flotilla-bench"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(std::fs::read_dir(folder).expect("the folder is there").count(), 0, "nothing is left behind");
    (output.status.code(), said.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn what_nodes_can_t_be_measured_with_is_told_in_a_line() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (status, said) =
        refused(folder.path(), &["nodes", "--only", "sessions", "--flotilla", "/no/flotilla"]);
    assert_eq!((status, said.as_str()), (Some(1), "flotilla-bench: no /no/flotilla found (from --flotilla)"));
    let (status, said) = refused(folder.path(), &["compare", "nodes", "--keys", "5", "--no-install"]);
    assert!(status == Some(2) && said.contains("--keys is for kv, nodes doesn't heed it"), "{said}");
}

/// With the program that the workspace's tests have built beside this one.
#[test]
fn nodes_are_restarted_and_sessions_weighed() {
    let bench = Path::new(env!("CARGO_BIN_EXE_flotilla-bench"));
    if !bench.with_file_name("flotilla").is_file() {
        assert!(std::env::var_os("FLOTILLA_REQUIRE_NODES").is_none(), "test the whole workspace");
        println!("skipped: no flotilla beside {}", bench.display());
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let arguments = ["nodes", "--only", "restart,sessions", "--keys", "3000", "--sessions", "1000"];
    let printed = run(folder.path(), &[&arguments[..], &["--quick", "--rounds", "1", "--json"]].concat());
    let value = |list: &str, name: &str| {
        let all = printed[list].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).and_then(|it| it["value"].as_f64())
    };
    assert!(value("ratios", "restart_keys_per_second_per_core") > Some(1.0), "{printed}");
    // With so few, memory tells little: only that it was read.
    assert!(value("ratios", "session_bytes_of_an_idle_client").is_some(), "{printed}");
    assert!(value("observations", "bytes_per_key") > Some(0.0), "{printed}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}
