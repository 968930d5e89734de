//! Where the numbers were taken: whoever compares them with others needs this beside them.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The machine, as far as it matters to a benchmark. Nothing that names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) virtualized: bool,
    /// Of the folder with the data.
    pub(crate) filesystem: String,
    pub(crate) device: String,
    /// The load generator runs on the servers' CPUs.
    pub(crate) load_shares_cpus: bool,
}

impl Machine {
    /// This one, with the data in `folder`.
    pub(crate) fn of(folder: &Path) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let field = |text: &str, name: &str| -> Option<String> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory_kib =
            field(&meminfo, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let (device, filesystem) = mount_of(&mounts, folder).unwrap_or_default();
        let uname = rustix::system::uname();
        Self {
            cpu: field(&cpuinfo, "model name")
                .unwrap_or_else(|| uname.machine().to_string_lossy().into_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_kib.unwrap_or(0) / 1024,
            kernel: uname.release().to_string_lossy().into_owned(),
            virtualized: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|it| it == "hypervisor")),
            filesystem,
            device,
            load_shares_cpus: true,
        }
    }
}

/// The device and the file system of the longest mount point above `folder`.
fn mount_of(mounts: &str, folder: &Path) -> Option<(String, String)> {
    let rows = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?, words.next()?))
    });
    rows.filter(|(_, point, _)| folder.starts_with(point))
        .max_by_key(|(_, point, _)| point.len())
        .map(|(device, _, filesystem)| (device.to_owned(), filesystem.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_wins() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/data xfs rw 0 0\n";
        let of = |folder: &str| mount_of(mounts, Path::new(folder)).unwrap();
        assert_eq!(of("/tmp/data/x"), ("/dev/b".into(), "xfs".into()));
        assert_eq!(of("/tmp/database"), ("tmpfs".into(), "tmpfs".into()));
        assert_eq!(of("/home"), ("/dev/a".into(), "ext4".into()));
    }
}
