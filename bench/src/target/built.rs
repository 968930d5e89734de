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
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
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
    fn a_program_that_was_not_built_is_named_with_its_script() {
        let error = built("no-such-peer", "none.sh").unwrap_err();
        assert_eq!(error.to_string(), "no no-such-peer found: bench/peers/none.sh builds it");
    }
}
