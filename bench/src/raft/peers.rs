//! The same loads on other people's Raft: the programs of `bench/peers/`, each of which prints one JSON object.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::LoadResult;
use super::node::Plan;
use crate::error::{BenchError, Result};

/// A peer's program, built by its script.
pub(super) struct Peer {
    target: &'static str,
    program: PathBuf,
}

/// What it prints.
#[derive(Debug, Deserialize)]
struct Printed {
    commits_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us_per_commit: f64,
}

impl Peer {
    pub(super) fn raft_rs() -> Result<Self> {
        Self::find("raft-rs", "raft-raft-rs", ": bench/peers/raft-rs.sh builds it")
    }

    pub(super) fn openraft() -> Result<Self> {
        Self::find("openraft", "raft-openraft", ": bench/peers/openraft.sh builds it")
    }

    /// Where the script puts it: beside the programs of this workspace.
    fn find(target: &'static str, name: &str, hint: &str) -> Result<Self> {
        let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
        let mut places = own.ancestors().map(|folder| folder.join("peers/release").join(name));
        let program = places.find(|place| place.exists());
        program
            .map(|program| Self { target, program })
            .ok_or_else(|| BenchError::Missing { program: name.to_owned(), hint: hint.to_owned() })
    }

    /// In memory, three replicas in one thread.
    pub(super) fn core(&self, load: &str, plan: Plan) -> Result<LoadResult> {
        self.run(load, "core", plan, None)
    }

    /// The same with messages and entries encoded, as all of ours are.
    pub(super) fn core_as_bytes(&self, load: &str, plan: Plan) -> Result<LoadResult> {
        let found = self.run(load, "core-bytes", plan, None)?;
        Ok(LoadResult { target: "raft-rs, encoded", ..found })
    }

    /// With a log each, in one process.
    pub(super) fn durable(&self, folder: &Path, load: &str, plan: Plan) -> Result<LoadResult> {
        let logs = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder for logs"))?;
        self.run(load, "durable", plan, Some(logs.path()))
    }

    fn run(&self, load: &str, mode: &str, plan: Plan, folder: Option<&Path>) -> Result<LoadResult> {
        let mut command = Command::new(&self.program);
        command.args([mode, &plan.in_flight.to_string(), &plan.bytes.to_string()]);
        command.arg(plan.time.as_secs_f64().to_string()).args(folder);
        let output = command.output().map_err(BenchError::io(format!("running {}", self.target)))?;
        let failed = |reason: String| BenchError::Failed {
            scenario: load.to_owned(),
            target: self.target.to_owned(),
            reason,
        };
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let printed: Printed =
            serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
        let Printed { commits_per_second, p50_us, p99_us, cpu_us_per_commit } = printed;
        Ok(LoadResult {
            load: load.to_owned(),
            target: self.target,
            commits_per_second,
            p50_us,
            p99_us,
            cpu_us_per_commit: Some(cpu_us_per_commit),
        })
    }
}
