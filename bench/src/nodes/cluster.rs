//! Local clusters: starting them, asking them, putting loads on them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use flotilla_services::local::{LocalCluster, LocalOptions};
use tempfile::TempDir;

use super::{Bench, PATIENCE, failed};
use crate::cpu::resident_bytes;
use crate::distribution::Distribution;
use crate::engine::slots::SlotMap;
use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::report::note;
use crate::target::{Driver, Target, flotilla};
use crate::turn::SUBJECT;
use crate::workload::{Flavour, Load, Operations};

/// What asks in the fill.
const FILL_CLIENTS: usize = 64;
const FILL_PIPELINE: usize = 16;
/// Keys that are filled at once: whoever waits hears from it.
const FILL_KEYS: u64 = 1_000_000;

/// How often something is tried that others on the machine disturb.
const DISTURBED_MAX: u32 = 10;

/// A cluster and its folder, both gone with this value.
pub(super) struct Nodes {
    // Dropped first: nobody writes into a folder that is being removed.
    pub(super) cluster: LocalCluster,
    pub(super) folder: TempDir,
    part: &'static str,
}

impl Nodes {
    /// Starts a cluster, as its usual options are after `change`, and waits until it can do without any of its nodes.
    ///
    /// The nodes die with the thread that starts them: this is called on the main thread.
    pub(super) fn start(
        bench: &Bench<'_>,
        part: &'static str,
        change: impl FnOnce(&mut LocalOptions),
    ) -> Result<Self> {
        let program = flotilla::program(bench.args.flotilla.as_deref())?;
        let folder =
            tempfile::tempdir_in(bench.folder).map_err(BenchError::io("making a folder for nodes"))?;
        let mut options = LocalOptions::new(program, folder.path().to_owned());
        change(&mut options);
        let cluster = LocalCluster::start(options).map_err(|error| failed(part, error))?;
        cluster.wait_until_founded(PATIENCE).map_err(|error| failed(part, error))?;
        Ok(Self { cluster, folder, part })
    }

    /// What loads are put on.
    pub(super) fn target(&self, nodes: u32) -> Result<Target> {
        let map = SlotMap::discover(&self.cluster.addresses(), false)?;
        map.probe().map_err(|reason| failed(self.part, reason))?;
        Ok(Target {
            name: SUBJECT.to_owned(),
            is_subject: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            durability: String::new(),
            pids: (1..=nodes).filter_map(|node| self.cluster.pid(node)).collect(),
            driver: Driver::Resp(map),
            processes: Vec::new(),
        })
    }

    /// Resident memory of a node, in bytes.
    pub(super) fn resident(&self, node: u32) -> Result<u64> {
        let pid = self.cluster.pid(node).and_then(resident_bytes);
        pid.ok_or_else(|| failed(self.part, format!("node {node} has no memory: it has ended")))
    }

    /// Waits until each core of each node leads its share of the groups, from the start or again.
    pub(super) fn wait_for_even_leaders(&self, shape: Even, interrupt: &Interrupt) -> Result<()> {
        let Even { nodes, cores, groups } = shape;
        let share = f64::from(groups) / f64::from(nodes * u32::from(cores));
        let is_even = || -> Result<bool> {
            for (node, core) in (1..=nodes).flat_map(|node| (0..cores).map(move |core| (node, core))) {
                let labels = format!("core=\"{core}\",role=\"leader\"");
                // The controller is a group more, which somebody leads.
                if self.metric(node, "flotilla_raft_groups", &labels)? < share {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let until = Instant::now() + PATIENCE;
        while !is_even()? {
            if Instant::now() > until {
                return Err(failed(self.part, "the groups' leaders aren't spread over the cores"));
            }
            interrupt.sleep_until(Instant::now() + Duration::from_millis(50))?;
        }
        Ok(())
    }

    /// Does `what` again until no leader has changed meanwhile: with elections it would be something else that is measured.
    pub(super) fn undisturbed<T>(
        &self,
        shape: Even,
        interrupt: &Interrupt,
        mut what: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let changes = || -> Result<f64> {
            (1..=shape.nodes).map(|node| self.metric(node, "flotilla_raft_leader_changes_total", "")).sum()
        };
        for _ in 0..DISTURBED_MAX {
            self.wait_for_even_leaders(shape, interrupt)?;
            let before = changes()?;
            let seen = what()?;
            if changes()? == before {
                return Ok(seen);
            }
            note("once more: leaders have changed meanwhile");
        }
        let reason =
            format!("leaders changed by themselves, {DISTURBED_MAX} times in a row: the machine is too busy");
        Err(failed(self.part, reason))
    }

    /// The sum of a metric over the cores of a node, of those series whose labels contain `label`.
    pub(super) fn metric(&self, node: u32, name: &str, label: &str) -> Result<f64> {
        let page = page(self.cluster.admin(node)).map_err(BenchError::io("asking a node for its metrics"))?;
        sum(&page, name, label).ok_or_else(|| failed(self.part, format!("node {node} has no metric {name}")))
    }
}

/// What is led evenly.
#[derive(Clone, Copy)]
pub(super) struct Even {
    pub(super) nodes: u32,
    /// Of each node.
    pub(super) cores: u16,
    pub(super) groups: u32,
}

fn page(admin: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

fn sum(page: &str, name: &str, label: &str) -> Option<f64> {
    let rest = page.lines().filter_map(|line| line.strip_prefix(name));
    let series = rest.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
    let values: Vec<f64> = series.filter_map(|rest| rest.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// SETs and GETs of `keys` keys, `clients` at a time.
pub(super) fn load(keys: u64, value_bytes: usize, clients: usize) -> Load {
    let operations = Operations {
        first_key: 0,
        keys,
        distribution: Distribution::Uniform,
        reads_percent: 0,
        flavour: Flavour::Plain,
        value_bytes,
        seed: 1,
        fill: false,
    };
    Load {
        operations,
        clients,
        pipeline: 1,
        rate: None,
        bursts: None,
        threads: 1,
        warmup: Duration::ZERO,
        seconds: Duration::from_secs(1),
    }
}

/// Writes every key once.
pub(super) fn fill(target: &Target, keys: u64, value_bytes: usize, interrupt: &Interrupt) -> Result<()> {
    let clock = Instant::now();
    for first in (0..keys).step_by(FILL_KEYS as usize) {
        let mut fill = load(FILL_KEYS.min(keys - first), value_bytes, FILL_CLIENTS);
        fill.pipeline = FILL_PIPELINE;
        (fill.operations.first_key, fill.operations.fill) = (first, true);
        target.fill(&fill, interrupt)?;
        let done = first + fill.operations.keys;
        if clock.elapsed() > Duration::from_secs(10) && done < keys {
            note(&format!("{}: {done} of {keys} keys", target.name));
        }
    }
    Ok(())
}

/// An error unless the disk of `folder` has so much room.
pub(super) fn room(folder: &Path, bytes: u64) -> Result<()> {
    let doing = || BenchError::io(format!("asking for the room in {}", folder.display()));
    let free = rustix::fs::statvfs(folder).map_err(|error| doing()(error.into()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    let mib = |bytes: u64| bytes >> 20;
    if free < bytes {
        return Err(BenchError::Usage(format!(
            "{} has {} MiB of room, and {} are needed: give --dir another disk, or fewer --keys to `flotilla-bench nodes`",
            folder.display(),
            mib(free),
            mib(bytes)
        )));
    }
    Ok(())
}

/// Takes a folder's files out of the kernel's memory, so that whoever opens them next reads the disk.
pub(super) fn forget_files(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            forget_files(&entry.path())?;
        } else if kind.is_file() {
            let file = std::fs::File::open(entry.path())?;
            // What isn't on the disk yet can't be forgotten.
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_cores_and_told_apart() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# TYPE a_total counter\na_total{core=\"0\"} 3\na_total{core=\"1\"} 4\n\
                    a_total_other{core=\"0\"} 9\nb{core=\"0\",role=\"leader\"} 2\nb{core=\"0\",role=\"follower\"} 5\nc 1.5\n";
        assert_eq!(sum(page, "a_total", ""), Some(7.0));
        assert_eq!(sum(page, "a_total", "core=\"1\""), Some(4.0));
        assert_eq!(sum(page, "b", "role=\"leader\""), Some(2.0));
        assert_eq!((sum(page, "c", ""), sum(page, "d", "")), (Some(1.5), None));
    }

    #[test]
    fn a_disk_without_room_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(room(folder.path(), 1).is_ok());
        let error = room(folder.path(), u64::MAX).unwrap_err().to_string();
        assert!(error.contains("MiB of room") && error.contains("--keys"), "{error}");
    }

    #[test]
    fn files_are_forgotten_and_stay_whole() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("in/file"), b"kept").unwrap();
        forget_files(folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("in/file")).unwrap(), b"kept");
    }
}
