//! Programs that scripts of `bench/peers` build: where they are, and what they print.

use std::path::PathBuf;
use std::process::Command;

use serde::de::DeserializeOwned;

use crate::error::{BenchError, Result};

/// What a script has put at `path` below `target/`: beside the programs of this workspace, wherever those are.
pub(crate) fn beside(path: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let mut places = own.ancestors().map(|folder| folder.join(path));
    places.find(|place| place.exists())
}

/// The program `name`, which the script `script` of `bench/peers` builds.
///
/// # Errors
/// [`BenchError::Missing`], with what to do about it.
pub(crate) fn built(name: &str, script: &str) -> Result<PathBuf> {
    let found = beside(&format!("peers/release/{name}"));
    found.ok_or_else(|| BenchError::Missing {
        program: name.to_owned(),
        hint: format!(": bench/peers/{script} builds it"),
    })
}

/// The version of `package` in the text of a Cargo.lock: what the script builds. Empty if it isn't there.
pub(crate) fn locked(lock: &str, package: &str) -> String {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1).and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    version.unwrap_or_default().to_owned()
}

/// Runs a program to its end: the JSON object that it prints.
///
/// # Errors
/// [`BenchError::Failed`], with the program's own words where it has any.
pub(crate) fn printed<T: DeserializeOwned>(mut command: Command, scenario: &str, target: &str) -> Result<T> {
    let output = command.output().map_err(BenchError::io(format!("running {target}")))?;
    let failed = |reason: String| BenchError::Failed {
        scenario: scenario.to_owned(),
        target: target.to_owned(),
        reason,
    };
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(if words.is_empty() {
            format!("it ended with {}", output.status)
        } else {
            words
        }));
    }
    let hint = "; if it was built from older sources, its script of bench/peers builds it anew";
    serde_json::from_slice(&output.stdout).map_err(|error| failed(format!("{error}{hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Result<Vec<u32>> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        printed(command, "load", "peer")
    }

    #[test]
    fn what_a_program_prints_is_read_and_what_it_complains_of_is_told() {
        assert_eq!(run("echo '[1, 2]'").unwrap(), [1, 2]);
        assert_eq!(run("echo no disk >&2; exit 3").unwrap_err().to_string(), "load on peer: no disk");
        assert!(run("exit 3").unwrap_err().to_string().contains("exit status: 3"));
        assert!(run("echo nothing").unwrap_err().to_string().contains("load on peer: expected"));
    }

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = "[[package]]\nname = \"raft\"\nversion = \"0.7.0\"\n\n[[package]]\nname = \"raft-engine\"\nversion = \"0.4.2\"\n";
        assert_eq!((locked(lock, "raft"), locked(lock, "raft-engine")), ("0.7.0".into(), "0.4.2".into()));
        assert_eq!(locked(lock, "other"), "");
        for (lock, package) in [
            (include_str!("../../peers/raft-engine/Cargo.lock"), "raft-engine"),
            (include_str!("../../peers/raft-rs/Cargo.lock"), "raft"),
            (include_str!("../../peers/openraft/Cargo.lock"), "openraft"),
        ] {
            assert!(locked(lock, package).starts_with("0."), "{package}");
        }
    }

    #[test]
    fn a_program_that_was_not_built_is_named_with_its_script() {
        let error = built("no-such-peer", "none.sh").unwrap_err();
        assert_eq!(error.to_string(), "no no-such-peer found: bench/peers/none.sh builds it");
    }
}
