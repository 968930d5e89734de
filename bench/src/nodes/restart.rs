//! A node with many keys is killed and started again: how soon it has all of them, and what each takes in memory. Redis has the
//! same keys, and is started again from its snapshot and from its append-only file.
//!
//! Both are killed with SIGKILL, and their files are taken out of the kernel's memory before they start: everything comes from
//! the disk. The time is that from the start of the process until it says that it has all keys.

use std::path::Path;
use std::time::{Duration, Instant};

use flotilla_services::client::{Connection, Reply};

use super::cluster::{Nodes, fill, forget_files, room};
use super::{Bench, failed};
use crate::cpu::resident_bytes;
use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::report::{Goal, note};
use crate::target::peer::{self, Peer};
use crate::target::process::Ports;
use crate::target::{Driver, Target};

const PART: &str = "restart";
/// Bytes of a value. A key has 16.
const VALUE_BYTES: usize = 32;
/// Of the disk, for each key: the log, a snapshot and the one before it, and as much again in case.
const DISK_BYTES: u64 = 500;
/// What an empty node takes, and what should be left.
const DISK_BYTES_BEFORE: u64 = 1 << 30;
/// From one question whether all keys are there to the next.
const BETWEEN: Duration = Duration::from_millis(1);

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let keys = bench.args.keys.unwrap_or(if bench.args.quick { 1_000_000 } else { 10_000_000 });
    room(bench.folder, keys * DISK_BYTES + DISK_BYTES_BEFORE)?;
    let own = ours(bench, keys)?;
    let snapshot = redis(bench, "rdb", Peer::RedisNone, keys)?;
    redis(bench, "aof", Peer::RedisEverysec, keys)?;
    if let Some([used, resident]) = snapshot {
        bench.figures.observe("redis_bytes_per_key", resident);
        bench.figures.observe("redis_bytes_per_key_by_its_used_memory", used);
        bench.figures.observe("bytes_per_key_over_redis", own / resident);
    }
    Ok(())
}

/// How long anything may take with so many keys: at least as fast as 50 000 of them a second.
fn patience(keys: u64) -> Duration {
    Duration::from_secs(60 + keys / 50_000)
}

/// Our node. Returns what a key takes in its memory.
fn ours(bench: &mut Bench<'_>, keys: u64) -> Result<f64> {
    let mut nodes = Nodes::start(bench, PART, |options| {
        (options.nodes, options.ready_within) = (1, patience(keys));
    })?;
    let before = nodes.resident(1)?;
    note(&format!("filling a node with {keys} keys"));
    fill(&nodes.target(1)?, keys, VALUE_BYTES, bench.interrupt)?;
    let each = |now: u64| now.saturating_sub(before) as f64 / keys as f64;
    let grown = each(nodes.resident(1)?);
    let address = nodes.cluster.address(1);
    // Leaderships are probed by a key of its own.
    let all = count(&address)?.ok_or_else(|| failed(PART, "the node doesn't say how many keys it has"))?;
    if all < keys {
        return Err(failed(PART, format!("{keys} keys were written, and there are {all}")));
    }
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let snapshot = nodes.metric(1, "flotilla_snapshot_last_bytes", "")?;
    let log = nodes.metric(1, "flotilla_raft_log_bytes", "")?;
    for round in 0..bench.rounds() {
        bench.interrupt.check()?;
        nodes.cluster.kill(1);
        forget_files(nodes.folder.path()).map_err(BenchError::io("forgetting a node's files"))?;
        let clock = Instant::now();
        nodes.cluster.restart(1).map_err(|error| failed(PART, error))?;
        until_all(&address, all, keys, bench.interrupt)?;
        let rate = keys as f64 / clock.elapsed().as_secs_f64();
        note(&format!("restart {}: {rate:.0} keys/s", round + 1));
        bench.figures.ratio("restart_keys_per_second_per_core", rate, Goal::AtLeast(1e6));
        bench.figures.observe("bytes_per_key_after_restart", each(nodes.resident(1)?));
    }
    bench.figures.observe("restart_from_snapshot_mib", mib(snapshot));
    bench.figures.observe("restart_from_log_mib", mib(log));
    bench.figures.observe("bytes_per_key", grown);
    Ok(grown)
}

/// Redis. Returns the bytes that a key takes, as it says itself and resident; none if it isn't installed.
fn redis(bench: &mut Bench<'_>, mode: &str, peer: Peer, keys: u64) -> Result<Option<[f64; 2]>> {
    let folder = tempfile::tempdir_in(bench.folder).map_err(BenchError::io("making a folder for Redis"))?;
    let Some(mut target) = start(peer, folder.path(), bench.interrupt)? else { return Ok(None) };
    bench.redis = Some(target.version.clone());
    let failed = |reason: String| target_failed(peer, reason);
    let before = memory(&target, peer)?;
    note(&format!("filling {} with {keys} keys", peer.name()));
    fill(&target, keys, VALUE_BYTES, bench.interrupt)?;
    let after = memory(&target, peer)?;
    let bytes = [0, 1].map(|place: usize| after[place].saturating_sub(before[place]) as f64 / keys as f64);
    if mode == "rdb" {
        match ask(&address(&target, peer)?, &[b"SAVE"], patience(keys)).map_err(failed)? {
            Reply::Status(_) => {}
            other => return Err(failed(format!("SAVE was answered with {other}"))),
        }
    }
    for _ in 0..bench.rounds() {
        bench.interrupt.check()?;
        drop(target);
        forget_files(folder.path()).map_err(BenchError::io("forgetting Redis' files"))?;
        let clock = Instant::now();
        target = start(peer, folder.path(), bench.interrupt)?
            .ok_or_else(|| failed("it is no longer installed".to_owned()))?;
        until_all(&address(&target, peer)?, keys, keys, bench.interrupt)?;
        let rate = keys as f64 / clock.elapsed().as_secs_f64();
        bench.figures.observe(&format!("redis_restart_from_{mode}_keys_per_second"), rate);
    }
    Ok(Some(bytes))
}

fn target_failed(peer: Peer, reason: String) -> BenchError {
    BenchError::Failed { scenario: PART.to_owned(), target: peer.name().to_owned(), reason }
}

/// Starts it on what is in `folder`; who isn't installed is told, and left out. It may still be loading.
fn start(peer: Peer, folder: &Path, interrupt: &Interrupt) -> Result<Option<Target>> {
    let mut starting = peer::start_installed(vec![peer], folder, &mut Ports::new(), 1)?;
    starting.pop().map(|starting| starting.ready(interrupt)).transpose()
}

fn address(target: &Target, peer: Peer) -> Result<String> {
    match &target.driver {
        Driver::Resp(map) => Ok(map.route().nodes[0].to_string()),
        _ => Err(target_failed(peer, "it doesn't speak RESP".to_owned())),
    }
}

/// Bytes: what Redis says that it uses, and what is resident.
fn memory(target: &Target, peer: Peer) -> Result<[u64; 2]> {
    let failed = |reason: String| target_failed(peer, reason);
    let said = ask(&address(target, peer)?, &[b"INFO", b"memory"], patience(0)).map_err(failed)?;
    let text = match &said {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.to_string(),
    };
    let used = text.lines().find_map(|line| line.trim().strip_prefix("used_memory:")?.parse().ok());
    let used = used.ok_or_else(|| failed(format!("INFO memory has no used_memory: {text}")))?;
    let resident = target.pids.first().copied().and_then(resident_bytes);
    Ok([used, resident.ok_or_else(|| failed("its process has ended".to_owned()))?])
}

fn ask(address: &str, command: &[&[u8]], patience: Duration) -> Result<Reply, String> {
    let mut connection = Connection::open(address, patience).map_err(|error| error.to_string())?;
    connection.execute(command).map_err(|error| error.to_string())
}

/// How many keys there are; none while it is loading.
fn count(address: &str) -> Result<Option<u64>> {
    match ask(address, &[b"DBSIZE"], patience(0)) {
        Ok(Reply::Integer(keys)) => Ok(u64::try_from(keys).ok()),
        Ok(_) => Ok(None),
        Err(reason) => Err(BenchError::Unreachable { address: address.to_owned(), reason }),
    }
}

/// Waits until all keys are there.
fn until_all(address: &str, all: u64, keys: u64, interrupt: &Interrupt) -> Result<()> {
    let until = Instant::now() + patience(keys);
    loop {
        let there = count(address)?;
        if there == Some(all) {
            return Ok(());
        }
        if Instant::now() > until {
            let there = there.map_or_else(|| "no answer".to_owned(), |there| there.to_string());
            let reason = format!("{there} of {all} keys are back after {} s", patience(keys).as_secs());
            return Err(BenchError::Unreachable { address: address.to_owned(), reason });
        }
        interrupt.sleep_until(Instant::now() + BETWEEN)?;
    }
}
