//! `flotilla demo`: the whole promise in under a minute.
//!
//! Three nodes with real, synced logs; many clients; the leader is killed with
//! SIGKILL under load and restarted; at last the whole cluster is killed and restarted; every acknowledged write must be there each
//! time. While the store serves, a MapReduce job counts the words of a text whose counts are known, and half of the shards move to
//! another group.

use super::demo_shards::Moved;
use super::demo_words::Words;
use super::load::{Client, Shared, key_of, start_client, value_of};
use super::{Failure, interrupted};
use crate::client::{Connection, Reply};
use crate::config::LogSettings;
use crate::hands::{Stopwatch, pause};
use crate::local::{LocalCluster, LocalOptions};
use crate::slot::Slot;
use clap::Args;
use flotilla_runtime::driver::floor;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How many GETs the check keeps in flight.
const CHECK_PIPELINE: usize = 256;

/// Options of `flotilla demo`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Clients, each with a connection of its own.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1000))]
    clients: u64,
    /// Seconds of undisturbed load before the leader is killed.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=30))]
    seconds: u64,
    /// Put the nodes' folders here: the disk that is measured [default: the system's temporary folder].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the report as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What the demo found out.
#[derive(Debug, serde::Serialize)]
struct Report {
    schema: &'static str,
    clients: u64,
    acknowledged_writes: u64,
    throughput_per_s: f64,
    latency_us: [(&'static str, f64); 5],
    sync_us_p50: f64,
    sync_us_p99: f64,
    without_leader_ms: f64,
    cpu_us_per_write: f64,
    words_mb_per_second: f64,
    writes_meanwhile_per_s: f64,
    shards_moved: usize,
    move_seconds: f64,
    moved_mb: f64,
    writes_while_moving_per_s: f64,
    checks: Vec<(String, bool)>,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let stop = interrupted()?;
    let mut builder = tempfile::Builder::new();
    builder.prefix("flotilla-demo-");
    let folder = match &options.dir {
        Some(dir) => builder.tempdir_in(dir),
        None => builder.tempdir(),
    };
    let folder =
        folder.map_err(|error| Failure::Failed(format!("can't make a temporary folder: {error}")))?;
    let mut demo = Demo::begin(options, folder.path().to_owned(), Arc::clone(&stop))?;
    let report = demo.play();
    drop(demo);
    folder.close().map_err(|error| Failure::Failed(format!("can't remove the temporary folder: {error}")))?;
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::Failed("interrupted; nothing was left behind".to_owned()));
    }
    let report = report?;
    print(&report, options.json);
    let failed = report.checks.iter().filter(|(_, held)| !held).count();
    if failed == 0 { Ok(()) } else { Err(Failure::Failed(format!("{failed} of the checks did not hold"))) }
}

struct Demo<'a> {
    options: &'a Options,
    stop: Arc<AtomicBool>,
    folder: PathBuf,
    cluster: LocalCluster,
    shared: Arc<Shared>,
    clock: Stopwatch,
    clients: Vec<Client>,
}

impl<'a> Demo<'a> {
    fn begin(options: &'a Options, folder: PathBuf, stop: Arc<AtomicBool>) -> Result<Self, Failure> {
        say("starting three nodes, each a process with a synced log of its own");
        let program = std::env::current_exe().map_err(Failure::failed)?;
        let log = LogSettings { segment_bytes: 32 << 20, ..LogSettings::default() };
        let cluster = LocalCluster::start(LocalOptions {
            log,
            spare_groups: 1,
            ..LocalOptions::new(program, folder.clone())
        });
        let cluster = cluster.map_err(Failure::failed)?;
        cluster.wait_until_founded(Duration::from_secs(20)).map_err(Failure::failed)?;
        let shared = Arc::default();
        Ok(Self { options, stop, folder, cluster, shared, clock: Stopwatch::start(), clients: Vec::new() })
    }

    fn play(&mut self) -> Result<Report, Failure> {
        let syncs = floor::measure_sync(&self.folder, |samples| samples < 300).map_err(Failure::failed)?;
        self.start_clients();
        self.watch(1, "warming up")?;
        let (throughput, cpu_us) = self.measure()?;
        let words = self.count_words()?;
        let (moved, writes_while_moving) = self.move_shards()?;
        let without_leader_ms = self.kill_the_leader()?;
        let (acknowledged, latencies) = self.stop_clients()?;
        let total = acknowledged.iter().sum();
        let mut checks = vec![("no client saw an error".to_owned(), self.shared.errors().is_empty())];
        checks.push(("every word was counted while the store served".to_owned(), words.is_right));
        checks.push(("half of the shards moved under load".to_owned(), moved.shards * 2 == moved.of));
        for error in self.shared.errors().iter().take(3) {
            say(&format!("a client failed: {error}"));
        }
        say(&format!("reading back {total} acknowledged writes"));
        checks.push(self.check(&acknowledged, "every acknowledged write survived the leader's death")?);
        say("killing all three nodes with SIGKILL, and starting them again");
        for node in 1..=3 {
            self.cluster.kill(node);
        }
        for node in 1..=3 {
            self.cluster.restart(node).map_err(Failure::failed)?;
        }
        self.cluster.wait_for_leaders(Duration::from_secs(20)).map_err(Failure::failed)?;
        checks.push(self.check(&acknowledged, "every acknowledged write survived the death of all nodes")?);
        let percentile = |p: f64| latencies.value_at_quantile(p) as f64 / 1e3;
        let mut sorted = syncs;
        sorted.sort_unstable();
        let sync = |q: f64| sorted[((sorted.len() - 1) as f64 * q) as usize] as f64 / 1e3;
        Ok(Report {
            schema: "flotilla-demo-2",
            clients: self.options.clients,
            acknowledged_writes: total,
            throughput_per_s: throughput,
            latency_us: [
                ("p50", percentile(0.5)),
                ("p90", percentile(0.9)),
                ("p99", percentile(0.99)),
                ("p99.9", percentile(0.999)),
                ("max", latencies.max() as f64 / 1e3),
            ],
            sync_us_p50: sync(0.5),
            sync_us_p99: sync(0.99),
            without_leader_ms,
            cpu_us_per_write: cpu_us,
            words_mb_per_second: words.bytes as f64 / 1e6 / words.seconds,
            writes_meanwhile_per_s: words.writes as f64 / words.seconds,
            shards_moved: moved.shards,
            move_seconds: moved.seconds,
            moved_mb: moved.bytes as f64 / 1e6,
            writes_while_moving_per_s: writes_while_moving as f64 / moved.seconds,
            checks,
        })
    }

    fn start_clients(&mut self) {
        say(&format!("{} clients write, one command at a time each", self.options.clients));
        for id in 0..self.options.clients {
            let client = start_client(id, self.cluster.client(), Arc::clone(&self.shared), self.clock);
            self.clients.push(client);
        }
    }

    /// Lets the load run, with a line of progress a second.
    fn watch(&self, seconds: u64, what: &str) -> Result<(), Failure> {
        for second in 1..=seconds {
            let (before, clock) = (self.acknowledged(), Stopwatch::start());
            while clock.elapsed() < Duration::from_secs(1) {
                self.check_interrupt()?;
                pause(Duration::from_millis(20));
            }
            let rate = (self.acknowledged() - before) as f64 / clock.elapsed().as_secs_f64();
            say(&format!(
                "{what} {second}/{seconds} s: {rate:.0} writes/s, {} acknowledged",
                self.acknowledged()
            ));
        }
        Ok(())
    }

    fn check_interrupt(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) { Err(Failure::Failed(String::new())) } else { Ok(()) }
    }

    fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// The undisturbed phase: writes per second, and the nodes' CPU time per write in microseconds.
    fn measure(&self) -> Result<(f64, f64), Failure> {
        let (before, cpu, clock) = (self.acknowledged(), self.cluster.cpu_seconds(), Stopwatch::start());
        self.shared.recording.store(true, Ordering::Relaxed);
        self.watch(self.options.seconds, "measuring")?;
        self.shared.recording.store(false, Ordering::Relaxed);
        let writes = (self.acknowledged() - before) as f64;
        let cpu_us = (self.cluster.cpu_seconds() - cpu) * 1e6 / writes.max(1.0);
        Ok((writes / clock.elapsed().as_secs_f64(), cpu_us))
    }

    /// A MapReduce job over a text made here, while the clients write.
    fn count_words(&self) -> Result<Words, Failure> {
        say("counting the words of a text with a MapReduce job, while the store serves");
        let words = super::demo_words::count(&self.folder.join("words"), &self.stop, || self.acknowledged())?;
        say(&format!(
            "{:.0} MB counted in {:.2} s; {} writes were acknowledged meanwhile",
            words.bytes as f64 / 1e6,
            words.seconds,
            words.writes
        ));
        Ok(words)
    }

    /// Lets a second group join under load; what moved, and the writes meanwhile.
    fn move_shards(&self) -> Result<(Moved, u64), Failure> {
        say("a second group joins under load: half of the shards move to it");
        let before = self.acknowledged();
        let moved = super::demo_shards::join(&self.cluster.address(1), |line| {
            self.check_interrupt()?;
            say(line);
            Ok(())
        })?;
        let writes = self.acknowledged() - before;
        say(&format!(
            "{} of {} shards moved in {:.2} s, {:.1} MB; {writes} writes were acknowledged meanwhile",
            moved.shards,
            moved.of,
            moved.seconds,
            moved.bytes as f64 / 1e6
        ));
        Ok((moved, writes))
    }

    /// SIGKILL for the leader under load; returns the milliseconds in which nothing was acknowledged.
    fn kill_the_leader(&mut self) -> Result<f64, Failure> {
        let mut client = self.cluster.client();
        client.refresh().map_err(Failure::failed)?;
        let address = client.address_of(Slot(0)).ok_or_else(|| Failure::failed("no leader is known"))?;
        let leader = self.cluster.node_at(&address).ok_or_else(|| Failure::failed("an unknown leader"))?;
        say(&format!("killing the leader, node {leader}, with SIGKILL under load"));
        self.shared.longest_gap_us.store(0, Ordering::Relaxed);
        let before = self.acknowledged();
        self.cluster.kill(leader);
        let clock = Stopwatch::start();
        // The successor serves when writes that began after the kill come back: well past what was in flight.
        while self.acknowledged() < before + 2 * self.options.clients + 100 {
            self.check_interrupt()?;
            if clock.elapsed() > Duration::from_secs(15) {
                return Err(Failure::failed("no write was acknowledged within 15 s of the leader's death"));
            }
            pause(Duration::from_millis(1));
        }
        let gap_ms = self.shared.longest_gap_us.load(Ordering::Relaxed) as f64 / 1e3;
        say(&format!("a successor took over; {gap_ms:.0} ms passed without an acknowledgement"));
        self.watch(1, "two nodes left")?;
        say(&format!("restarting node {leader}"));
        self.cluster.restart(leader).map_err(Failure::failed)?;
        self.watch(2, "three nodes again")?;
        Ok(gap_ms)
    }

    fn stop_clients(&mut self) -> Result<(Vec<u64>, Histogram<u64>), Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut latencies = Histogram::new(3).map_err(Failure::failed)?;
        let mut acknowledged = Vec::new();
        for client in self.clients.drain(..) {
            let (count, seen) = client.join().map_err(|_| Failure::failed("a client thread panicked"))?;
            acknowledged.push(count);
            latencies.add(seen).map_err(Failure::failed)?;
        }
        Ok((acknowledged, latencies))
    }

    /// Reads every acknowledged key from whoever leads its group and compares.
    fn check(&self, acknowledged: &[u64], what: &str) -> Result<(String, bool), Failure> {
        let mut cluster = self.cluster.client();
        // Any read that is answered shows that the leaders are known; then there is nothing that would move.
        for slot in [Slot(0), Slot(crate::slot::SLOTS - 1)] {
            let key = crate::slot::key_in(slot.0);
            cluster.execute(&key, &[b"GET", &key], Duration::from_secs(15)).map_err(Failure::failed)?;
        }
        cluster.refresh().map_err(Failure::failed)?;
        let mut connections: BTreeMap<String, Connection> = BTreeMap::new();
        let mut wrong = 0_u64;
        for (client, count) in (0_u64..).zip(acknowledged) {
            let numbers: Vec<u64> = (0..*count).collect();
            for batch in numbers.chunks(CHECK_PIPELINE) {
                self.check_interrupt()?;
                let mut of_each: BTreeMap<String, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
                for number in batch {
                    let key = key_of(client, *number);
                    let address = cluster.address_of(Slot::of_key(&key));
                    let address = address.ok_or_else(|| Failure::failed("a key's leader isn't known"))?;
                    of_each.entry(address).or_default().push((*number, key));
                }
                for (address, keys) in &of_each {
                    if !connections.contains_key(address) {
                        let opened = Connection::open(address, Duration::from_secs(15));
                        connections.insert(address.clone(), opened.map_err(Failure::failed)?);
                    }
                    let connection = connections.get_mut(address).expect("just made");
                    let commands: Vec<[&[u8]; 2]> = keys.iter().map(|(_, key)| [&b"GET"[..], key]).collect();
                    connection.send(commands.iter().map(|command| &command[..])).map_err(Failure::failed)?;
                    for (number, _) in keys {
                        let reply = connection.receive().map_err(Failure::failed)?;
                        wrong += u64::from(reply != Reply::Bulk(value_of(client, *number)));
                    }
                }
            }
        }
        let held = wrong == 0;
        Ok((if held { what.to_owned() } else { format!("{what} ({wrong} are missing or wrong)") }, held))
    }
}

impl Drop for Demo<'_> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn say(line: &str) {
    eprintln!("  {line}");
}

fn print(report: &Report, json: bool) {
    let mut out = std::io::stdout().lock();
    if json {
        let _ = writeln!(out, "{}", serde_json::to_string(report).expect("plain data"));
        return;
    }
    let mut lines = vec![
        (
            "durable writes, 3 nodes".to_owned(),
            format!("{:.0}/s ({} clients, 64 B)", report.throughput_per_s, report.clients),
        ),
        ("write latency".to_owned(), {
            let each = report.latency_us.iter().map(|(name, us)| format!("{name} {:.2}", us / 1e3));
            format!("{} ms", each.collect::<Vec<_>>().join("  "))
        }),
        (
            "this disk's own sync".to_owned(),
            format!("p50 {:.3}  p99 {:.3} ms", report.sync_us_p50 / 1e3, report.sync_us_p99 / 1e3),
        ),
        ("without a leader".to_owned(), format!("{:.0} ms", report.without_leader_ms)),
        ("CPU of all nodes".to_owned(), format!("{:.1} us per write", report.cpu_us_per_write)),
        ("acknowledged writes".to_owned(), report.acknowledged_writes.to_string()),
        (
            "words counted meanwhile".to_owned(),
            format!(
                "{:.0} MB/s, with {:.0} writes/s at the same time",
                report.words_mb_per_second, report.writes_meanwhile_per_s
            ),
        ),
    ];
    lines.push((
        "shards moved meanwhile".to_owned(),
        format!(
            "{} in {:.2} s ({:.1} MB), with {:.0} writes/s at the same time",
            report.shards_moved, report.move_seconds, report.moved_mb, report.writes_while_moving_per_s
        ),
    ));
    for (what, held) in &report.checks {
        lines.push((if *held { "held" } else { "FAILED" }.to_owned(), what.clone()));
    }
    let _ = writeln!(out);
    for (name, value) in lines {
        let _ = writeln!(out, "  {name:<24} {value}");
    }
}
