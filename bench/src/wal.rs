//! `flotilla-bench wal`: the write-ahead log through the real driver, beside the raw recipe, the disk's bandwidth and
//! raft-engine.
//!
//! | module | what |
//! |---|---|
//! | [`appender`] | a machine that appends, and nothing else |
//! | [`drive`] | that machine on the real driver: loads, and starts on logs that it left |
//! | [`peers`] | the same load on raft-engine, and one sync for every append |
//! | [`cpu`] | what building a frame costs without a disk |

pub(crate) mod appender;
mod cpu;
pub(crate) mod drive;
mod peers;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use flotilla_runtime::Nanos;
use flotilla_runtime::driver::floor::{measure_bandwidth, measure_dsync, measure_ring_sync};

use crate::compare::result::{TargetInfo, Unit};
use crate::error::{BenchError, Result};
use crate::figures::{Figures, Measured, targets};
use crate::floor;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::recorder::{Percentiles, latencies};
use crate::report::{Goal, note};
use crate::target::built;
use crate::turn::{self, Job, Load, SUBJECT, Seen, Turns, Way};

/// The write-ahead log, side by side with the disk's own speed and with raft-engine
///
/// One appender whose frame is a block of 4 KiB, against overwriting such a block and syncing it; 64 and 1024 appenders
/// of 256 B, against raft-engine and against a sync for every append; 1024 of 4 KiB, against the disk's bandwidth; opening
/// a log, against reading it; building frames without a disk.
#[derive(Clone, Debug, Args)]
pub(crate) struct WalArgs {
    /// Under 40 s in all
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds, each with everything in it; ratios are medians of them [default: 3; 2 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: Option<u16>,
    /// A folder on a real disk, in which a temporary one is made [default: here]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Group commits in flight at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) commits: u16,
    /// Only the parts whose name contains this: `append_4k`, `appenders_1024_4k`, `recovery`…
    #[arg(long, default_value = "")]
    pub(crate) only: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads or writes at a time when the disk's bandwidth is measured.
const DEPTH: usize = 8;

/// How long things take.
#[derive(Clone, Copy)]
struct Times {
    load: Duration,
    floor: Duration,
    log_bytes: u64,
}

/// Runs the command.
pub(crate) fn run(args: &WalArgs) -> Result<()> {
    measure(args, &Interrupt::install()?)?.print(args.json)
}

/// All rounds.
pub(crate) fn measure(args: &WalArgs, interrupt: &Interrupt) -> Result<Measured> {
    let from = Instant::now();
    let folder = crate::kv::folder(args.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    let times = match args.quick {
        true => Times {
            load: Duration::from_millis(700),
            floor: Duration::from_millis(300),
            log_bytes: 256 << 20,
        },
        false => Times { load: Duration::from_secs(3), floor: Duration::from_secs(1), log_bytes: 1 << 30 },
    };
    let raft_engine = peers::RaftEngine::find();
    if let Err(missing) = &raft_engine {
        note(&format!("without raft-engine: {missing}"));
    }
    let place = Place {
        folder: folder.path(),
        times,
        commits: usize::from(args.commits),
        raft_engine: raft_engine.as_ref().ok(),
    };
    let (figures, turns) = (Figures::default(), Turns::new(interrupt));
    let mut bench = Bench { place, only: &args.only, figures, turns };
    let mut floors = Vec::new();
    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 3 });
    for round in 0..usize::from(rounds) {
        note(&format!("round {}/{rounds}", round + 1));
        floors.push(floor::measure(folder.path(), times.floor, interrupt)?);
        bench.turns.begin(round);
        bench.round()?;
    }
    let Bench { figures, turns, .. } = bench;
    let cells = turns.cells();
    Ok(Measured { machine, targets: targets(&cells, about), floors, figures, cells, from })
}

/// What a target is.
fn about(target: &str) -> TargetInfo {
    let engine = built::locked(include_str!("../peers/raft-engine/Cargo.lock"), "raft-engine");
    let (version, what) = match target {
        SUBJECT => (
            env!("CARGO_PKG_VERSION").to_owned(),
            "a log on one core; an append is done when its frame is synced",
        ),
        "raft-engine" => (
            engine,
            "a thread for 512 appenders, which writes what all of them have as one batch, and syncs it",
        ),
        "raw recipe" => {
            (String::new(), "a block overwritten and synced through io_uring, one after the other")
        }
        "raw, durable by itself" => (
            String::new(),
            "a block overwritten by a call that returns when it is durable, one after the other",
        ),
        "raft-engine, a thread each" => {
            (engine, "a thread for each appender; an append is done when its batch is synced")
        }
        "sync each" => (String::new(), "a block overwritten and synced for each append, one after the other"),
        "parallel syncs" => {
            (String::new(), "the same from 64 threads at once: no log could acknowledge in order so")
        }
        _ => (String::new(), "the disk's bandwidth, before and after"),
    };
    TargetInfo { name: target.to_owned(), version, durability: what.to_owned(), processes: 1 }
}

/// Loads of small entries and what they are compared with: their name, how many appenders, their figures' names.
const SMALL_ENTRIES: [(&str, usize, [&str; 3]); 2] = [
    (
        "appenders_64_256b",
        64,
        [
            "appenders_64_256b_vs_raft_engine",
            "appenders_64_256b_vs_sync_each",
            "appenders_64_256b_vs_parallel_syncs",
        ],
    ),
    (
        "appenders_1024_256b",
        1024,
        [
            "appenders_1024_256b_vs_raft_engine",
            "appenders_1024_256b_vs_sync_each",
            "appenders_1024_256b_vs_parallel_syncs",
        ],
    ),
];

/// Where and how it is measured.
#[derive(Clone, Copy)]
struct Place<'a> {
    folder: &'a Path,
    times: Times,
    commits: usize,
    raft_engine: Option<&'a peers::RaftEngine>,
}

impl Place<'_> {
    fn load(&self, set: &'static str, name: &str, unit: Unit, appenders: usize, bytes: usize) -> Load {
        let (name, seconds) = (name.to_owned(), self.times.load);
        Load { set, name, unit, clients: appenders, bytes, warmup: seconds / 3, seconds }
    }

    /// The load on our log.
    fn ours(&self, load: &Load) -> Result<Seen> {
        let (commits, time) = (self.commits, load.seconds);
        let job =
            Job::Wal(drive::Load { appenders: load.clients, bytes: load.bytes, groups: 1, commits, time });
        Ok(turn::ours(job, &load.name, self.folder)?.seen(Some(load.bytes)))
    }

    fn disk_error(&self, error: &std::io::Error) -> BenchError {
        BenchError::Disk { path: self.folder.to_owned(), reason: error.to_string() }
    }

    /// The disk's bandwidth, writing and reading, over and over for some time.
    fn bandwidth(&self, bytes: u64) -> Result<(f64, f64)> {
        let measured = measure_bandwidth(self.folder, bytes, DEPTH, self.times.floor);
        measured.map_err(|error| self.disk_error(&error))
    }
}

/// A run and what it has brought so far.
struct Bench<'a> {
    place: Place<'a>,
    only: &'a str,
    figures: Figures,
    turns: Turns<'a>,
}

impl Bench<'_> {
    /// Every part once.
    fn round(&mut self) -> Result<()> {
        if self.begins("append_4k")? {
            self.lone_append()?;
        }
        for (name, appenders, figures) in SMALL_ENTRIES {
            if self.begins(name)? {
                self.small_entries(name, appenders, figures)?;
            }
        }
        if self.begins("appenders_1024_4k")? {
            self.large_entries()?;
        }
        for (name, groups, goal) in [
            ("recovery_vs_bandwidth", 1, Goal::AtLeast(0.8)),
            ("recovery_10k_groups_vs_read", 10_000, Goal::AtMost(1.2)),
        ] {
            if self.begins(name)? {
                self.recovery(name, groups, goal)?;
            }
        }
        if self.begins("frame_build_256b_ns")? {
            self.figures.ratio("frame_build_256b_ns", cpu::frame_build_ns(256), Goal::AtMost(150.0));
        }
        Ok(())
    }

    /// Whether this part is wanted.
    fn begins(&self, name: &str) -> Result<bool> {
        self.turns.check()?;
        Ok(name.contains(self.only))
    }

    fn lone_append(&mut self) -> Result<()> {
        // A frame of one block: what is left of it beside the headers.
        let load = self.place.load("one", "append_4k", Unit::Append, 1, appender::ONE_BLOCK);
        let own = self.place;
        let raw = |recipe: Recipe| raw_recipe(recipe(own.folder, own.times.floor), own);
        let ways = vec![
            Way::new(SUBJECT, || own.ours(&load)),
            Way::new("raw recipe", || raw(|folder, time| measure_ring_sync(folder, 4096, time))),
            Way::new("raw, durable by itself", || raw(durable_by_itself)),
        ];
        let found = self.turns.each(&load, ways)?;
        // The faster of the two recipes.
        let ratio = |of: fn(&Percentiles) -> f64| {
            let raw = ["raw recipe", "raw, durable by itself"].map(|recipe| found[recipe].latency(of));
            found[SUBJECT].latency(of) / raw[0].min(raw[1])
        };
        self.figures.ratio("append_4k_p50_vs_raw", ratio(|it| it.p50), Goal::AtMost(1.15));
        self.figures.ratio("append_4k_p99_vs_raw", ratio(|it| it.p99), Goal::AtMost(1.5));
        Ok(())
    }

    fn small_entries(&mut self, name: &str, appenders: usize, figures: [&'static str; 3]) -> Result<()> {
        let load = self.place.load("small entries", name, Unit::Append, appenders, 256);
        let own = self.place;
        let syncs = |in_order| peers::sync_each(own.folder, appenders, in_order, own.times.load / 2);
        let mut ways = vec![
            Way::new(SUBJECT, || own.ours(&load)),
            Way::new("sync each", || syncs(true)),
            Way::new("parallel syncs", || syncs(false)),
        ];
        for (target, is_batched) in [("raft-engine", true), ("raft-engine, a thread each", false)] {
            let engine = own.raft_engine;
            let load = &load;
            ways.extend(
                engine.map(|engine| Way::new(target, move || engine.run(own.folder, load, is_batched))),
            );
        }
        let found = self.turns.each(&load, ways)?;
        let over = |other: &str| {
            let other = found.get(other)?;
            Some(found[SUBJECT].operations_per_second / other.operations_per_second)
        };
        let [vs_engine, vs_sync, vs_parallel] = figures;
        for (name, other, goal) in
            [(vs_sync, "sync each", Goal::AtLeast(10.0)), (vs_engine, "raft-engine", Goal::AtLeast(2.0))]
        {
            if let Some(ratio) = over(other) {
                self.figures.ratio(name, ratio, goal);
            }
        }
        if let Some(ratio) = over("parallel syncs") {
            self.figures.observe(vs_parallel, ratio);
        }
        if let Some(ratio) = over("raft-engine, a thread each") {
            self.figures.observe(&format!("{vs_engine}_a_thread_each"), ratio);
        }
        Ok(())
    }

    fn large_entries(&mut self) -> Result<()> {
        let load = self.place.load("large entries", "appenders_1024_4k", Unit::Append, 1024, 4096);
        // The disk before and behind the load: a shared one doesn't stay as it is.
        let own = self.place;
        let (before, _) = own.bandwidth(own.times.log_bytes)?;
        let ours = self.turns.one(&load, SUBJECT, || own.ours(&load))?;
        let (behind, _) = own.bandwidth(own.times.log_bytes)?;
        let written = f64::midpoint(before, behind);
        self.turns.one(&load, "the disk", || Ok(Seen::timed(written / load.bytes as f64, 1.0)))?;
        let ratio = ours.operations_per_second * load.bytes as f64 / written;
        self.figures.ratio("appenders_1024_4k_vs_bandwidth", ratio, Goal::AtLeast(0.8));
        self.figures.observe("disk_write_mib_per_second", written / f64::from(1 << 20));
        Ok(())
    }

    fn recovery(&mut self, name: &'static str, groups: u64, goal: Goal) -> Result<()> {
        let load = Load {
            warmup: Duration::ZERO,
            seconds: Duration::ZERO,
            ..self.place.load("recovery", name.split("_vs").next().unwrap_or(name), Unit::Megabyte, 1, 1000)
        };
        let own = self.place;
        let (_, before) = own.bandwidth(own.times.log_bytes)?;
        let opened = self.turns.one(&load, SUBJECT, || {
            let opened = drive::recovery(own.folder, groups, own.times.log_bytes)?;
            Ok(Seen::timed(opened.file_bytes as f64 / 1e6, opened.seconds))
        })?;
        let (_, behind) = own.bandwidth(own.times.log_bytes)?;
        let (speed, read) = (1e6 * opened.operations_per_second, f64::midpoint(before, behind));
        self.turns.one(&load, "the disk", || Ok(Seen::timed(read / 1e6, 1.0)))?;
        match goal {
            Goal::AtLeast(_) => self.figures.ratio(name, speed / read, goal),
            Goal::AtMost(_) => self.figures.ratio(name, read / speed, goal),
        }
        self.figures.observe("disk_read_mib_per_second", read / f64::from(1 << 20));
        Ok(())
    }
}

/// Makes blocks durable for so long, one after the other: the time of each.
type Recipe = fn(&Path, Duration) -> std::io::Result<Vec<Nanos>>;

/// A block overwritten with a plain call that returns when it is durable, as a core does with a lone frame.
fn durable_by_itself(folder: &Path, lasting: Duration) -> std::io::Result<Vec<Nanos>> {
    // Only from here on: first every block of the file is made, durably, which takes a busy disk as long as that.
    let mut begun = None;
    measure_dsync(folder, |_| begun.get_or_insert_with(Instant::now).elapsed() < lasting)
}

/// What the disk took for blocks without a log.
fn raw_recipe(times: std::io::Result<Vec<Nanos>>, place: Place<'_>) -> Result<Seen> {
    let mut seen = latencies();
    for time in times.map_err(|error| place.disk_error(&error))? {
        seen.saturating_record(time);
    }
    // One after the other: together they are the time.
    let seconds = seen.mean() * seen.len() as f64 / 1e9;
    Ok(Seen { latencies: Some(seen.clone()), ..Seen::timed(seen.len() as f64, seconds) })
}
