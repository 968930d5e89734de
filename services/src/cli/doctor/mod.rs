//! `flotilla doctor`: is this host ready for a node?
//!
//! Looks, and changes nothing unless `--apply` is given; then it writes what is safe for everybody on the host: settings of the running
//! kernel, each printed as it is made. They are gone with the next start of the machine.

mod check;
mod cpus;
mod disk;
mod host;
mod peers;

use super::Failure;
use crate::config::{Config, Limits, LogSettings, Overrides, RaftSettings, Sync};
use check::{Check, Kernel, Verdict};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// Options of `flotilla doctor`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The node's configuration: its folder, CPUs, limits and peers are looked at.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the data is to be [default: that of the configuration, or the current folder].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Measure the disk for so many seconds.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Change what is safe to change (needs root); it lasts until the machine is started again.
    #[arg(long)]
    apply: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    super::words::seconds(text, 0.1..=600.0)
}

/// What the node wants of its host.
#[derive(Clone, Debug)]
struct Needs {
    data: PathBuf,
    cores: u16,
    /// Empty: any.
    cpus: Vec<usize>,
    /// Of clients, for each core.
    connections: usize,
    segment_bytes: u64,
    sync: Sync,
    election_timeout: Duration,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            data: PathBuf::from("."),
            cores: 1,
            cpus: Vec::new(),
            connections: Limits::default().connections_max,
            segment_bytes: LogSettings::default().segment_bytes,
            sync: Sync::default(),
            election_timeout: Duration::from_millis(RaftSettings::default().election_timeout_ms),
        }
    }
}

impl Needs {
    fn of(config: &Config) -> Self {
        Self {
            data: config.data.clone(),
            cores: config.me().cores,
            cpus: config.cpus.clone(),
            connections: config.limits.connections_max,
            segment_bytes: config.log.segment_bytes,
            sync: config.log.sync,
            election_timeout: Duration::from_millis(config.raft.election_timeout_ms),
        }
    }
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let config = match &options.config {
        Some(path) => {
            let overrides = Overrides::gather(std::env::vars_os(), &[]);
            let config = overrides.and_then(|overrides| Config::load(path, &overrides));
            Some(config.map_err(|error| Failure::Usage(error.to_string()))?)
        }
        None => None,
    };
    let mut needs = config.as_ref().map_or_else(Needs::default, Needs::of);
    if let Some(dir) = &options.dir {
        needs.data.clone_from(dir);
    }
    let look = || {
        let kernel = Kernel::at("/");
        let mut checks = host::checks(&kernel, &needs);
        checks.extend(cpus::checks(&kernel, &needs));
        checks.extend(disk::checks(&kernel, &needs, Duration::from_secs_f64(options.seconds / 2.0)));
        checks.extend(config.iter().flat_map(peers::checks));
        checks
    };
    let mut checks = look();
    let mut changes = Vec::new();
    if options.apply {
        changes = checks.iter().flat_map(apply).collect();
        if !changes.is_empty() {
            checks = look();
        }
    }
    if options.json {
        println!("{}", serde_json::json!({ "schema": 1, "checks": checks, "changes": changes }));
    } else {
        changes.iter().for_each(|change| println!("{change}"));
        checks.iter().for_each(print);
        println!("{}", summary(&checks));
    }
    match checks.iter().filter(|check| check.verdict == Verdict::Fail).count() {
        0 => Ok(()),
        failed => {
            Err(Failure::Failed(format!("this host isn't ready: {failed} of {} checks fail", checks.len())))
        }
    }
}

/// Makes the changes that mend it; returns what was done, a line each.
fn apply(check: &Check) -> Vec<String> {
    let written = check.settings.iter().map(|setting| {
        let (name, path, value) = (check.name, setting.path.display(), &setting.value);
        match std::fs::write(&setting.path, value) {
            Ok(()) => format!("changed: {name}: {path} is {value}"),
            Err(error) => format!("not changed: {name}: {path}: {error}"),
        }
    });
    written.collect()
}

fn print(check: &Check) {
    println!("{:<5} {:<12} {}", check.verdict, check.name, check.found);
    if let Some(why) = check.why {
        println!("{:18} {why}", "");
    }
    if let Some(cure) = &check.cure {
        println!("{:18} → {cure}", "");
    }
}

fn summary(checks: &[Check]) -> String {
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let mended = checks.iter().filter(|check| !check.settings.is_empty()).count();
    let hint = match mended {
        0 => String::new(),
        some => format!("; {some} can be mended now by --apply"),
    };
    format!(
        "{} ok, {} warn, {} fail, {} not shown here{hint}",
        count(Verdict::Ok),
        count(Verdict::Warn),
        count(Verdict::Fail),
        count(Verdict::Skipped)
    )
}

#[cfg(test)]
mod testing {
    use super::check::Kernel;

    /// A kernel that shows these files.
    pub(super) fn kernel_of(files: &[(&str, &str)]) -> (tempfile::TempDir, Kernel) {
        let folder = tempfile::tempdir().unwrap();
        let kernel = Kernel::at(folder.path());
        for (path, content) in files {
            let path = kernel.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        (folder, kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_made_where_they_can_be_and_told_where_not() {
        let (_keep, kernel) = testing::kernel_of(&[("/proc/sys/a", "0")]);
        let check = Check::warn("a", "0", "why")
            .setting("1", [kernel.path("/proc/sys/a"), kernel.path("/no/such/folder/b")]);
        let changes = apply(&check);
        assert!(
            changes[0].starts_with("changed: a: ") && changes[1].starts_with("not changed: a: "),
            "{changes:?}"
        );
        assert_eq!(kernel.read("/proc/sys/a").as_deref(), Some("1"));
        assert!(apply(&Check::ok("b", "fine")).is_empty());
    }

    #[test]
    fn the_summary_counts() {
        let checks = [
            Check::ok("a", ""),
            Check::warn("b", "", "").setting("1", ["/x".into()]),
            Check::skipped("c", ""),
        ];
        assert_eq!(
            summary(&checks),
            "1 ok, 1 warn, 0 fail, 1 not shown here; 1 can be mended now by --apply"
        );
    }
}
