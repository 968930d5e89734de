//! `flotilla doctor` on the machine that runs the tests.

use std::process::{Command, Output};

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flotilla")).arg("doctor").args(arguments).output().unwrap()
}

#[test]
fn every_line_has_a_verdict_and_whatever_isn_t_right_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let output = doctor(&["--json", "--seconds", "0.2", "--dir", dir]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["verdict"] == "fail").count();
    assert_eq!(output.status.code(), Some(i32::from(failed > 0)), "{report}");
    for check in checks {
        let is_told = check["why"].is_string();
        let expected = ["warn", "fail"].contains(&check["verdict"].as_str().unwrap());
        assert_eq!(is_told, expected, "{check}");
    }
    let find =
        |name: &str| checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(find("io_uring")["verdict"], "ok", "the other tests run nodes here");
    assert!(find("sync")["found"].as_str().unwrap().contains("p99"));
    assert!(report["changes"].as_array().unwrap().is_empty(), "it only looks");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "and leaves nothing behind");
}

#[test]
fn memory_is_no_place_for_data() {
    if !std::path::Path::new("/dev/shm").is_dir() {
        eprintln!("skipped: no /dev/shm here");
        return;
    }
    let output = doctor(&["--seconds", "0.1", "--dir", "/dev/shm"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL  file-system  tmpfs"), "{text}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("flotilla: this host isn't ready: ") && error.lines().count() == 1, "{error}");
}

#[test]
fn a_configuration_s_cpus_and_peers_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    let config = "cluster = \"x\"\nnode = 1\ndata = \"DATA\"\ncpus = [4000]\n\
        [[nodes]]\nid = 1\nhost = \"127.0.0.1\"\nport = 7000\npeer_port = 8000\n\
        [[nodes]]\nid = 2\nhost = \"127.0.0.1\"\nport = 1\npeer_port = 2\n";
    std::fs::write(&file, config.replace("DATA", folder.path().join("data").to_str().unwrap())).unwrap();
    let output = doctor(&["--seconds", "0.1", "--config", file.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("FAIL  cpus         [4000] of `cpus` aren't among"), "{text}");
    assert!(text.contains("warn  peer         node 2 at 127.0.0.1:2: "), "{text}");
    let output = doctor(&["--config", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(doctor(&["--seconds", "0"]).status.code(), Some(2));
}
