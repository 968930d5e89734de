//! The same loads on other people's Raft: the programs of `bench/peers/`, each of which prints one JSON object.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::LoadResult;
use super::node::Plan;
use crate::error::{BenchError, Result};
use crate::target::built::{built, printed};

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
        Self::find("raft-rs", "raft-raft-rs", "raft-rs.sh")
    }

    pub(super) fn openraft() -> Result<Self> {
        Self::find("openraft", "raft-openraft", "openraft.sh")
    }

    fn find(target: &'static str, name: &str, script: &str) -> Result<Self> {
        Ok(Self { target, program: built(name, script)? })
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
        let Printed { commits_per_second, p50_us, p99_us, cpu_us_per_commit } =
            printed(command, load, self.target)?;
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
