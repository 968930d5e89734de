//! A layer's loads, each on one target after the other, round after round: what was seen becomes cells of a result file.
//!
//! ```text
//! round 1   load 1: a b c   load 2: a b c   …
//! round 2   load 1: b c a   load 2: b c a   …        a, b, c: the targets, ours among them
//! ```
//!
//! Ours runs as the peers do: as a process of its own, which prints one JSON object ([`Printed`]; the peers' side of it is
//! `bench/peers/printed.rs`), so that memory, CPU time and bytes written are those of the load and of nothing before it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use flotilla_runtime::SplitMix64;
use flotilla_runtime::random::mix;
use serde::{Deserialize, Serialize};

use crate::compare::result::{Cell, Unit};
use crate::cpu::{CpuReading, CpuUsed, Family, peak_bytes};
use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::kv::outcome::Round;
use crate::recorder::{Latencies, Percentiles, latencies};
use crate::report::{self, note};
use crate::target::built::printed;
use crate::target::process::dying_with_us;
use crate::workload::LoadSummary;
use crate::{raft, wal};

/// What ratios are of.
pub(crate) const SUBJECT: &str = "flotilla";

/// What a load is, whoever it is put on.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Loads that belong together.
    pub(crate) set: &'static str,
    pub(crate) name: String,
    /// What an operation is.
    pub(crate) unit: Unit,
    /// So much is under way at once.
    pub(crate) clients: usize,
    /// Of an operation, or of a job's input.
    pub(crate) bytes: usize,
    pub(crate) warmup: Duration,
    pub(crate) seconds: Duration,
}

/// What was seen of one target in one turn.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Of the load's unit, after the warm-up; need not be whole.
    pub(crate) operations: f64,
    pub(crate) seconds: f64,
    /// None where only the whole was timed.
    pub(crate) latencies: Option<Latencies>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) written_bytes: Option<u64>,
    /// At its highest.
    pub(crate) memory_bytes: Option<u64>,
    /// Bytes that were stored: what `written_bytes` is divided by.
    pub(crate) stored_bytes: Option<f64>,
}

impl Seen {
    /// So much in so long a time, and no more is known.
    pub(crate) fn timed(operations: f64, seconds: f64) -> Self {
        let (latencies, cpu_seconds, written_bytes) = (None, None, None);
        let (memory_bytes, stored_bytes) = (None, None);
        Self { operations, seconds, latencies, cpu_seconds, written_bytes, memory_bytes, stored_bytes }
    }

    fn round(&self, foreign_cpu_share: f64, stolen_cpu_share: f64) -> Round {
        let stored = self.stored_bytes.filter(|bytes| *bytes > 0.0);
        let per_byte = |written: u64| stored.map(|stored| written as f64 / stored);
        Round {
            operations: self.operations.round() as u64,
            operations_per_second: self.operations / self.seconds,
            latency_us: self.latencies.as_ref().map(Percentiles::of),
            read_latency_us: None,
            write_latency_us: None,
            errors: BTreeMap::new(),
            misses: 0,
            redirects: 0,
            disconnects: 0,
            server_cpu_s_per_100k: self.cpu_seconds.map(|seconds| seconds * 1e5 / self.operations),
            // Where the load makes itself, in the process that is measured, it isn't apart; elsewhere it isn't told.
            client_cpu_s_per_100k: 0.0,
            client_cpu_share: 0.0,
            foreign_cpu_share,
            stolen_cpu_share,
            drift: None,
            written_per_byte: self.written_bytes.and_then(per_byte),
            memory_bytes: self.memory_bytes,
        }
    }
}

/// A target of a load, and how the load is put on it.
pub(crate) struct Way<'a> {
    pub(crate) target: &'static str,
    run: Box<dyn FnOnce() -> Result<Seen> + 'a>,
}

impl<'a> Way<'a> {
    pub(crate) fn new(target: &'static str, run: impl FnOnce() -> Result<Seen> + 'a) -> Self {
        Self { target, run: Box::new(run) }
    }
}

/// In which order `count` targets have their turns: another one for each load and round, and the same whenever it is run again.
pub(crate) fn order(round: usize, load: &str, count: usize) -> Vec<usize> {
    let seed = load.bytes().fold(round as u64, |seed, byte| mix(seed ^ u64::from(byte)));
    let mut random = SplitMix64::new(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for left in (1..count).rev() {
        order.swap(left, random.below(left as u64 + 1) as usize);
    }
    order
}

/// A cell while it grows.
struct Growing {
    load: Load,
    target: &'static str,
    rounds: Vec<Round>,
    latencies: Latencies,
}

/// A run's turns.
pub(crate) struct Turns<'a> {
    interrupt: &'a Interrupt,
    /// From 0.
    round: usize,
    growing: Vec<Growing>,
}

impl<'a> Turns<'a> {
    pub(crate) fn new(interrupt: &'a Interrupt) -> Self {
        Self { interrupt, round: 0, growing: Vec::new() }
    }

    /// An error if it was interrupted.
    pub(crate) fn check(&self) -> Result<()> {
        self.interrupt.check()
    }

    /// Another round begins.
    pub(crate) fn begin(&mut self, round: usize) {
        self.round = round;
    }

    /// Puts `load` on each target, in an order that is drawn for each load and round; the rounds, by target.
    pub(crate) fn each(&mut self, load: &Load, ways: Vec<Way<'_>>) -> Result<BTreeMap<&'static str, Round>> {
        let mut found = BTreeMap::new();
        // Cells are in the order in which the targets are named, whoever is first.
        for way in &ways {
            self.place(load, way.target);
        }
        let order = order(self.round, &load.name, ways.len());
        let mut ways: Vec<Option<Way<'_>>> = ways.into_iter().map(Some).collect();
        for Way { target, run } in order.into_iter().filter_map(|place| ways[place].take()) {
            found.insert(target, self.one(load, target, run)?);
        }
        Ok(found)
    }

    /// Puts `load` on one target, and keeps what was seen.
    pub(crate) fn one(
        &mut self,
        load: &Load,
        target: &'static str,
        run: impl FnOnce() -> Result<Seen>,
    ) -> Result<Round> {
        self.interrupt.check()?;
        let (begun, before, family) = (Instant::now(), CpuReading::take(&[]), Family::take());
        let seen = run();
        // Ctrl-C ends the child as well: it is why it failed.
        self.interrupt.check()?;
        let seen = seen?;
        let (used, children) = (CpuReading::take(&[]).since(&before), Family::take().since(&family));
        let all = begun.elapsed().as_secs_f64()
            * std::thread::available_parallelism().map_or(1.0, |it| it.get() as f64);
        let foreign = (used.foreign - children.seconds).max(0.0);
        let round = seen.round(foreign / all, used.stolen / all);
        note(&format!(
            "  {:<22}  {target:<18}  {:>9} {}",
            load.name,
            load.unit.rate(round.operations_per_second),
            load.unit.per_second()
        ));
        let place = self.place(load, target);
        self.growing[place].rounds.push(round.clone());
        if let Some(latencies) = &seen.latencies {
            self.growing[place].latencies += latencies;
        }
        Ok(round)
    }

    fn place(&mut self, load: &Load, target: &'static str) -> usize {
        let known = |it: &Growing| it.load.name == load.name && it.target == target;
        self.growing.iter().position(known).unwrap_or_else(|| {
            let (load, rounds, latencies) = (load.clone(), Vec::new(), latencies());
            self.growing.push(Growing { load, target, rounds, latencies });
            self.growing.len() - 1
        })
    }

    /// What became of it.
    pub(crate) fn cells(self) -> Vec<Cell> {
        let had = self.growing.into_iter().filter(|it| !it.rounds.is_empty());
        let cell = |Growing { load, target, rounds, latencies }| {
            let Load { set, name, unit, clients, bytes, warmup, seconds } = load;
            let summary = LoadSummary::without_keys(clients, bytes, warmup, seconds);
            let cell = Cell::new(set, &name, target, summary, rounds, &latencies);
            Cell { unit, ..cell }
        };
        had.map(cell).collect()
    }
}

/// What a process that is a turn prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Printed {
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    /// Each in nanoseconds, and how often it was seen; empty where nobody looked.
    #[serde(default)]
    latencies_ns: Vec<(u64, u64)>,
    cpu_seconds: Option<f64>,
    written_bytes: Option<u64>,
    peak_memory_bytes: Option<u64>,
    /// Syncs of all logs a second, where they were counted.
    #[serde(default)]
    pub(crate) syncs_per_second: Option<f64>,
}

impl Printed {
    /// What was counted in the load's time, and what this and other processes used meanwhile.
    pub(crate) fn new(
        operations: u64,
        seconds: f64,
        latencies: Option<&Latencies>,
        used: CpuUsed,
        pids: &[u32],
    ) -> Self {
        let latencies_ns = latencies.into_iter().flat_map(|all| {
            all.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
        });
        let (cpu_seconds, written_bytes, peak_memory_bytes, syncs_per_second) = (None, None, None, None);
        let latencies_ns = latencies_ns.collect();
        let printed = Self {
            operations,
            seconds,
            latencies_ns,
            cpu_seconds,
            written_bytes,
            peak_memory_bytes,
            syncs_per_second,
        };
        printed.with_usage(used, pids)
    }

    /// With what these processes used meanwhile, and their memory at its highest.
    pub(crate) fn with_usage(self, used: CpuUsed, pids: &[u32]) -> Self {
        let peaks = pids.iter().map(|pid| peak_bytes(*pid));
        let peak_memory_bytes = if pids.is_empty() { None } else { peaks.sum() };
        Self { cpu_seconds: used.servers, written_bytes: used.written, peak_memory_bytes, ..self }
    }

    /// Operations of so many bytes each; none where nothing is kept.
    pub(crate) fn seen(self, bytes: Option<usize>) -> Seen {
        let mut all = latencies();
        for (value, count) in &self.latencies_ns {
            all.saturating_record_n(*value, *count);
        }
        Seen {
            operations: self.operations as f64,
            seconds: self.seconds,
            latencies: (!all.is_empty()).then_some(all),
            cpu_seconds: self.cpu_seconds,
            written_bytes: self.written_bytes.filter(|_| bytes.is_some()),
            memory_bytes: self.peak_memory_bytes,
            stored_bytes: bytes.map(|bytes| self.operations as f64 * bytes as f64),
        }
    }
}

/// A turn of ours.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Appends to a log in the folder.
    Wal(wal::drive::Load),
    /// Three replicas in one thread, without disks.
    RaftInMemory(raft::node::Plan),
    /// Three replicas on one core, with a log each in the folder.
    RaftDurable(raft::node::Plan),
}

/// A turn of ours: started by `wal` and `raft`, and not to be run by hand
#[derive(Clone, Debug, Args)]
pub(crate) struct TurnArgs {
    /// What to do, as JSON
    job: String,
    /// A folder for its logs
    folder: PathBuf,
}

/// Does what it is told, and prints what was seen.
pub(crate) fn run(args: &TurnArgs) -> Result<()> {
    let job: Job = serde_json::from_str(&args.job)
        .map_err(|error| BenchError::Usage(format!("{}: {error}", args.job)))?;
    report::print_json(&match job {
        Job::Wal(load) => wal::drive::run(&args.folder, &load)?,
        Job::RaftInMemory(plan) => raft::trio::in_memory(plan)?,
        Job::RaftDurable(plan) => raft::drive::durable(&args.folder, plan)?,
    })
}

/// Has `job` done by a process of its own, which dies with this one, in a folder of its own below `folder`.
pub(crate) fn ours(job: Job, load: &str, folder: &Path) -> Result<Printed> {
    let logs = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder for logs"))?;
    let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let text = serde_json::to_string(&job).map_err(|error| BenchError::Usage(error.to_string()))?;
    let mut command = dying_with_us(own.as_os_str());
    command.args([OsStr::new("turn"), text.as_ref(), logs.path().as_os_str()]);
    printed(command, load, SUBJECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str) -> Load {
        Load {
            set: "part",
            name: name.to_owned(),
            unit: Unit::Append,
            clients: 64,
            bytes: 256,
            warmup: Duration::ZERO,
            seconds: Duration::from_secs(1),
        }
    }

    #[test]
    fn everybody_has_a_turn_in_an_order_that_is_drawn_and_cells_stay_in_order() {
        let interrupt = Interrupt::default();
        let (mut turns, order) = (Turns::new(&interrupt), std::cell::RefCell::new(Vec::new()));
        for round in 0..4 {
            turns.begin(round);
            let way = |target: &'static str| {
                let order = &order;
                Way::new(target, move || {
                    order.borrow_mut().push(target);
                    Ok(Seen::timed(100.0 * (1 + round) as f64, 2.0))
                })
            };
            let found = turns.each(&load("one"), ["a", "b", "c"].map(way).into()).unwrap();
            assert_eq!(found["b"].operations_per_second, 50.0 * (1 + round) as f64);
        }
        let rounds: Vec<String> = order.into_inner().chunks(3).map(<[&str]>::concat).collect();
        assert_eq!(rounds, ["abc", "bca", "acb", "acb"]);
        let cells = turns.cells();
        assert_eq!(cells.iter().map(|cell| cell.target.as_str()).collect::<String>(), "abc");
        assert_eq!(cells[1].throughputs(), [50.0, 100.0, 150.0, 200.0]);
        assert_eq!((cells[0].load.clients, cells[0].unit), (64, Unit::Append));
        assert!(
            cells[0].is_steady() && cells[0].quantiles.is_empty() && cells[0].median.latency_us.is_none()
        );
    }

    #[test]
    fn everybody_comes_behind_everybody_else_about_as_often() {
        let mut behind = BTreeMap::new();
        for round in 0..600 {
            let order = order(round, "set_c1_p1_64b", 4);
            assert_eq!(order.iter().copied().collect::<std::collections::BTreeSet<_>>().len(), 4);
            order.windows(2).for_each(|pair| *behind.entry((pair[0], pair[1])).or_insert(0) += 1);
        }
        // 600 rounds with three pairs each, and twelve pairs.
        assert!(behind.len() == 12 && behind.values().all(|count| (110..190).contains(count)), "{behind:?}");
        assert_eq!(order(3, "one", 7), order(3, "one", 7));
        assert_ne!(order(3, "one", 7), order(3, "another", 7));
        assert!(order(3, "one", 0).is_empty());
    }

    #[test]
    fn what_a_process_prints_becomes_a_round() {
        let text = r#"{"operations": 1000, "seconds": 0.5, "latencies_ns": [[1000, 990], [50000, 10]],
            "cpu_seconds": 0.25, "written_bytes": 512000, "peak_memory_bytes": 4096}"#;
        let printed: Printed = serde_json::from_str(text).unwrap();
        let round = printed.clone().seen(Some(256)).round(0.0, 0.0);
        assert_eq!((round.operations, round.operations_per_second), (1000, 2000.0));
        assert_eq!((round.server_cpu_s_per_100k, round.written_per_byte), (Some(25.0), Some(2.0)));
        assert_eq!(round.memory_bytes, Some(4096));
        assert!((round.latency(|it| it.p50) - 1.0).abs() < 0.01 && round.latency(|it| it.max) > 49.0);
        let kept_nothing = printed.seen(None).round(0.0, 0.0);
        assert_eq!(kept_nothing.written_per_byte, None, "what isn't kept isn't stored");
        let bare: Printed = serde_json::from_str(r#"{"operations": 1, "seconds": 1.0}"#).unwrap();
        let round = bare.seen(Some(1)).round(0.0, 0.0);
        assert_eq!((round.server_cpu_s_per_100k, round.latency_us.is_none()), (None, true));
    }

    #[test]
    fn histograms_survive_being_printed() {
        let mut all = latencies();
        (1..=1000).for_each(|us| all.saturating_record(us * 1000));
        let printed = Printed::new(1000, 1.0, Some(&all), CpuUsed::NONE, &[]);
        let text = serde_json::to_string(&printed).unwrap();
        let read: Printed = serde_json::from_str(&text).unwrap();
        assert_eq!(read.seen(None).latencies.unwrap(), all);
    }
}
