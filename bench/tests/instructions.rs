//! Instructions of the hot paths against the counts that are kept: a regression shows however busy the machine is.

use std::process::Command;

#[test]
fn hot_paths_take_no_more_instructions_than_they_did() {
    let is_there = Command::new("valgrind").arg("--version").output().is_ok_and(|it| it.status.success());
    if !is_there {
        assert!(std::env::var_os("FLOTILLA_REQUIRE_VALGRIND").is_none(), "valgrind is required");
        eprintln!("skipped: valgrind is not installed");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.sh");
    let output = Command::new(script).args(["check", env!("CARGO_BIN_EXE_flotilla-bench")]).output();
    let output = output.expect("the script is there");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}", said.concat());
}
