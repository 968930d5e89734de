//! `flotilla dev`: a local cluster that stays up.

use super::progress::{self, Progress};
use super::{Failure, interrupted};
use crate::client::Security;
use crate::config::{MapReduceSettings, Redirect};
use crate::hands::{Stopwatch, pause, spawn};
use crate::local::{LocalCluster, LocalOptions};
use clap::Args;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often it is looked whether shards move.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Options of `flotilla dev`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Nodes, each a process of its own.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: u32,
    /// Cores of each node.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    cores: u16,
    /// Raft groups of the cluster [default: one a core].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    groups: Option<u32>,
    /// Further groups, which have no shard until `flotilla cluster join` lets them.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=64))]
    spare_groups: u32,
    /// Keep the data in this folder [default: a temporary one, removed at the end].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The first node's client port; the others follow.
    #[arg(long, default_value_t = 7000)]
    port: u16,
    /// Let every node serve every key, for clients that know no cluster.
    #[arg(long)]
    forward: bool,
    /// MapReduce tasks that each node works on at once, in the CPU time that nobody else wants (`flotilla mr run --addr`).
    #[arg(long, default_value_t = 0, value_name = "TASKS", value_parser = clap::value_parser!(u32).range(0..=1024))]
    workers: u32,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let stop = interrupted()?;
    let temporary = tempfile::Builder::new().prefix("flotilla-dev-").tempdir().map_err(Failure::failed)?;
    let folder = options.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let mut cluster = LocalCluster::start(LocalOptions {
        nodes: options.nodes,
        cores: options.cores,
        groups: options.groups.unwrap_or_else(|| u32::from(options.cores)),
        spare_groups: options.spare_groups,
        port: options.port,
        redirect: if options.forward { Redirect::Forward } else { Redirect::Moved },
        mapreduce: MapReduceSettings { workers: options.workers, ..MapReduceSettings::default() },
        ..LocalOptions::new(program, folder.clone())
    })
    .map_err(Failure::failed)?;
    cluster.wait_until_founded(Duration::from_secs(20)).map_err(Failure::failed)?;
    println!("{} nodes serve; data in {}", options.nodes, folder.display());
    for address in cluster.addresses() {
        println!("  redis-cli -c -p {}", address.rsplit(':').next().unwrap_or_default());
    }
    for node in 1..=options.nodes {
        println!("  http://{}/   status of node {node}; /metrics", cluster.admin(node));
    }
    if options.workers > 0 {
        println!(
            "  flotilla mr run --addr {} …   jobs for {} workers a node",
            cluster.address(1),
            options.workers
        );
    }
    println!("Ctrl-C stops them.");
    let (address, over) = (cluster.address(1), std::sync::Arc::clone(&stop));
    // Nobody waits for it: a cluster that is being stopped may keep it waiting.
    spawn(move || watch(&address, &over));
    while !stop.load(Ordering::Relaxed) {
        for node in 1..=options.nodes {
            if !cluster.is_running(node) {
                let log = folder.join(format!("node-{node}.log"));
                let words = std::fs::read_to_string(&log).unwrap_or_default();
                let last = words.lines().last().unwrap_or("none").to_owned();
                return Err(Failure::Failed(format!("node {node} ended; its last words: {last}")));
            }
        }
        pause(Duration::from_millis(100));
    }
    for node in 1..=options.nodes {
        cluster.stop(node, Duration::from_secs(5));
    }
    Ok(())
}

/// Says how far shards are on their way, and when all are where a new configuration says.
fn watch(address: &str, over: &AtomicBool) {
    // A cluster is founded with the first.
    let mut settled = 1;
    let mut under_way: Option<(Progress, Stopwatch)> = None;
    while !over.load(Ordering::Relaxed) {
        pause(LOOK_EVERY);
        // Somebody is being elected, perhaps.
        let Ok(seen) = progress::look(address, &Security::default()) else { continue };
        if seen.configuration <= settled {
            continue;
        }
        if seen.is_complete() {
            println!("configuration {}: {}", seen.configuration, seen.summary());
            (settled, under_way) = (seen.configuration, None);
        } else {
            let (first, clock) = under_way.get_or_insert_with(|| (seen.clone(), Stopwatch::start()));
            println!("  {}", seen.line(first, clock.elapsed()));
        }
    }
}
