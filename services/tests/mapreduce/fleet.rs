//! A cluster whose workers do jobs.

use crate::common::{TestCluster, program, start};
use crate::rig::{Rig, wait_until};
use flotilla_services::client::{Security, Seeds};
use flotilla_services::local::LocalOptions;
use flotilla_services::mapreduce::hands::cluster::log::{Announcement, FactLog};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Three nodes, and workers in processes of their own.
pub(crate) struct Fleet {
    pub(crate) cluster: TestCluster,
    pub(crate) workers: Vec<Child>,
    /// How the store is spoken to.
    pub(crate) security: Security,
}

impl Fleet {
    pub(crate) fn start(workers: usize) -> Self {
        Self::start_with(workers, |_| {})
    }

    pub(crate) fn start_with(workers: usize, change: impl FnOnce(&mut LocalOptions)) -> Self {
        let mut security = Security::default();
        let cluster = start(|options| {
            change(options);
            security = options.security.clone();
        });
        let mut fleet = Self { cluster, workers: Vec::new(), security };
        for _ in 0..workers {
            fleet.start_worker("runs");
        }
        fleet
    }

    /// `folder`: where it keeps what is between map and reduce.
    pub(crate) fn start_worker(&mut self, folder: &str) {
        let worker = self.worker(folder).spawn().unwrap();
        self.workers.push(worker);
    }

    /// One with further flags; what it says is in a file.
    pub(crate) fn start_worker_with(&mut self, folder: &str, flags: &[String]) -> PathBuf {
        let log = self.cluster.folder.path().join(format!("{folder}.log"));
        let said = fs::File::create(&log).unwrap();
        let worker = self.worker(folder).args(flags).stderr(said).spawn().unwrap();
        self.workers.push(worker);
        log
    }

    /// The program that is a worker.
    pub(crate) fn worker(&self, folder: &str) -> Command {
        let mut command = Command::new(program());
        // Other tests run at the same time, and would leave little to those who give way.
        command
            .args(["mr", "worker", "--class", "normal", "--folder"])
            .arg(self.cluster.folder.path().join(folder));
        for address in self.cluster.nodes.addresses() {
            command.args(["--addr", &address]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.cluster.folder.path().join("runs")
    }

    /// Whether there is a file that begins so in the folder of a worker.
    pub(crate) fn has_file(&self, folder: &str, prefix: &str) -> bool {
        let jobs = fs::read_dir(self.cluster.folder.path().join(folder)).into_iter().flatten();
        let files = jobs.filter_map(|job| fs::read_dir(job.ok()?.path()).ok()).flatten();
        files.filter_map(Result::ok).any(|file| file.file_name().to_string_lossy().starts_with(prefix))
    }

    pub(crate) fn address(&self, node: u32) -> String {
        self.cluster.nodes.address(node)
    }

    /// A folder with inputs and outputs that knows where the workers' files are.
    pub(crate) fn rig(&self) -> Rig {
        Rig { runs: Some(self.runs()), ..Rig::new() }
    }

    pub(crate) fn log(&self) -> FactLog {
        let (addresses, security) = (self.cluster.nodes.addresses(), self.security.clone());
        FactLog::new(Seeds { addresses, security }, "a test")
    }

    /// Who coordinates.
    pub(crate) fn coordinator(&self) -> Announcement {
        let mut found = None;
        wait_until("a coordinator", || {
            found = self.log().announced().unwrap();
            found.is_some()
        });
        found.unwrap()
    }

    /// `flotilla mr …` at a node: whether it went well, and what it said.
    pub(crate) fn mr(&self, words: &[&str]) -> (bool, String) {
        let output =
            Command::new(program()).arg("mr").args(words).args(["--addr", &self.address(2)]).output();
        let output = output.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}
