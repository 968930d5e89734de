//! A node in a control group, as a container is one: what its limits do.

use crate::common::{PATIENCE, program, start};
use flotilla_services::hands::{Stopwatch, pause};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

const ROOT: &str = "/sys/fs/cgroup";
/// Of the group's processes together.
const MEMORY_BYTES: u32 = 512 << 20;

/// One CPU, half of its time, and little memory. Gone when it is dropped, after whoever is in it.
struct Container {
    /// Where processes join: a folder for each controller (control groups of the first kind), or one for all.
    groups: Vec<PathBuf>,
    cpu: usize,
    folder: tempfile::TempDir,
}

impl Container {
    /// `None` (said aloud) where this process may make none.
    fn new() -> Option<Self> {
        let mut container = Self { groups: Vec::new(), cpu: 0, folder: tempfile::tempdir().unwrap() };
        let has_first_kind = Path::new(ROOT).join("cpuset/cpuset.cpus").exists();
        let made =
            if has_first_kind { container.of_the_first_kind() } else { container.of_the_second_kind() };
        match made {
            Ok(()) => Some(container),
            Err(error) => {
                eprintln!("skipped: no control group can be made here: {error}");
                None
            }
        }
    }

    /// A group below `parent`, with these settings; the names are files of it.
    fn make(&mut self, parent: &Path, settings: &[(&str, &str)]) -> io::Result<()> {
        let group = parent.join(format!("flotilla-test-{}", std::process::id()));
        fs::create_dir(&group)?;
        self.groups.push(group.clone());
        settings.iter().try_for_each(|(name, value)| fs::write(group.join(name), value))
    }

    fn of_the_first_kind(&mut self) -> io::Result<()> {
        let (root, memory) = (Path::new(ROOT), MEMORY_BYTES.to_string());
        let sets = root.join("cpuset");
        self.cpu = first(&fs::read_to_string(sets.join("cpuset.cpus"))?)?;
        let mems = fs::read_to_string(sets.join("cpuset.mems"))?;
        let cpu = self.cpu.to_string();
        self.make(&sets, &[("cpuset.cpus", &cpu), ("cpuset.mems", mems.trim())])?;
        let quota = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")];
        self.make(&root.join("cpu"), &quota)?;
        self.make(&root.join("memory"), &[("memory.limit_in_bytes", &memory)])
    }

    fn of_the_second_kind(&mut self) -> io::Result<()> {
        let (root, memory) = (Path::new(ROOT), MEMORY_BYTES.to_string());
        fs::write(root.join("cgroup.subtree_control"), "+cpuset +cpu +memory")?;
        self.cpu = first(&fs::read_to_string(root.join("cpuset.cpus.effective"))?)?;
        let cpu = self.cpu.to_string();
        let limits = [("cpuset.cpus", cpu.as_str()), ("cpu.max", "50000 100000"), ("memory.max", &memory)];
        self.make(root, &limits)
    }

    /// A program that joins, and then is `flotilla`.
    fn launcher(&self) -> PathBuf {
        let join = |group: &PathBuf| format!("echo $$ > '{}/cgroup.procs' || exit 1\n", group.display());
        let joins: String = self.groups.iter().map(join).collect();
        let path = self.folder.path().join("launch");
        fs::write(&path, format!("#!/bin/sh\n{joins}exec '{}' \"$@\"\n", program().display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let clock = Stopwatch::start();
        for group in &self.groups {
            // A process that was killed may still be on its way out.
            while fs::remove_dir(group).is_err() && group.exists() && clock.elapsed() < PATIENCE {
                pause(Duration::from_millis(2));
            }
        }
    }
}

/// The first CPU of a list as the kernel writes it.
fn first(list: &str) -> io::Result<usize> {
    let digits: String = list.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| io::Error::other(format!("no CPU in {list:?}")))
}

#[test]
fn a_node_lives_within_a_container_s_limits() {
    let Some(container) = Container::new() else { return };
    let mut cluster = start(|options| (options.nodes, options.program) = (1, container.launcher()));
    let value = "x".repeat(256 << 10);
    for number in 0..100 {
        cluster.set(&format!("k{number}"), &value);
    }
    assert_eq!(cluster.get("k99"), Some(value));
    assert!(cluster.words(1).contains("quota of CPU time is less than the cores can use"));
    for (cpu, is_allowed) in [(container.cpu, true), (container.cpu + 1, false)] {
        cluster.nodes.kill(1);
        let path = cluster.folder.path().join("node-1.toml");
        let text = fs::read_to_string(&path).unwrap();
        let before = text.lines().find(|line| line.starts_with("cpus = ")).unwrap();
        fs::write(&path, text.replace(before, &format!("cpus = [{cpu}]"))).unwrap();
        match cluster.nodes.restart(1) {
            Ok(()) => {
                assert!(is_allowed && cluster.words(1).contains("a core is pinned"));
                assert!(cluster.get("k0").is_some());
            }
            Err(error) => {
                let words = format!("this process may use {}, and not that one", container.cpu);
                assert!(!is_allowed && error.to_string().contains(&words), "{error}");
            }
        }
    }
}
