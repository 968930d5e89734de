//! The same loads on other people's Raft: the programs of `bench/peers/`, each of which prints one JSON object.

use std::path::{Path, PathBuf};

use crate::error::{BenchError, Result};
use crate::target::built::{built, printed};
use crate::target::process::dying_with_us;
use crate::turn::{Load, Printed, Seen};

/// A peer's program, built by its script.
pub(super) struct Peer {
    target: &'static str,
    program: PathBuf,
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

    /// In memory, three replicas in one thread; perhaps with messages and entries encoded, as all of ours are.
    pub(super) fn core(&self, load: &Load, as_bytes: bool) -> Result<Seen> {
        Ok(self.run(load, if as_bytes { "core-bytes" } else { "core" }, None)?.seen(None))
    }

    /// With a log each, in one process.
    pub(super) fn durable(&self, folder: &Path, load: &Load, is_async: bool) -> Result<Seen> {
        let logs = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder for logs"))?;
        Ok(self
            .run(load, if is_async { "durable" } else { "durable-in-turn" }, Some(logs.path()))?
            .seen(Some(load.bytes)))
    }

    fn run(&self, load: &Load, mode: &str, folder: Option<&Path>) -> Result<Printed> {
        let mut command = dying_with_us(self.program.as_os_str());
        command.args([mode, &load.clients.to_string(), &load.bytes.to_string()]);
        command.arg(load.seconds.as_secs_f64().to_string()).args(folder);
        printed(command, &load.name, self.target)
    }
}
