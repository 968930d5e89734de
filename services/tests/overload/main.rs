//! A node that is asked for more than it can do, or by more clients than it likes: it says so, and goes on.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod load;
mod narrow;
mod probe;
mod writes;

use common::TestCluster;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Each of these tests measures how long something takes: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static MEASURING: Mutex<()> = Mutex::new(());
    MEASURING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process of a node.
fn process(cluster: &TestCluster, node: u32) -> u32 {
    let config = cluster.nodes.config(node).to_str().unwrap().to_owned();
    let of_node = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        common::text(&line).contains(&config).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    };
    std::fs::read_dir("/proc").unwrap().flatten().find_map(of_node).unwrap()
}

/// Memory of a process that is in use, in KiB: now, and the most that ever was.
fn memory_kib(pid: u32) -> (usize, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (line("VmRSS:"), line("VmHWM:"))
}

/// Descriptors that a process has open.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
