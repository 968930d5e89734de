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
mod drive;
mod peers;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use flotilla_runtime::driver::floor::{measure_bandwidth, measure_ring_sync};
use serde::Serialize;

use crate::error::{BenchError, Result};
use crate::figures::{Figures, Found, number};
use crate::floor::{self, Floor, Floors};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::recorder::latencies;
use crate::report::{self, Goal, note};

/// The write-ahead log, side by side with the disk's own speed and with raft-engine
///
/// One appender whose frame is a block of 4 KiB, against overwriting such a block and syncing it; 64 and 1024 appenders
/// of 256 B, against raft-engine and against a sync for every append; 1024 of 4 KiB, against the disk's bandwidth; opening
/// a log, against reading it; building frames without a disk.
#[derive(Clone, Debug, Args)]
pub(crate) struct WalArgs {
    /// Under 40 s in all
    #[arg(long)]
    quick: bool,
    /// Rounds, each with everything in it; ratios are medians of them [default: 3; 2 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// A folder on a real disk, in which a temporary one is made [default: here]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Group commits in flight at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    commits: u16,
    /// Only the parts whose name contains this: `append_4k`, `appenders_1024_4k`, `recovery`…
    #[arg(long, default_value = "")]
    only: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Reads or writes at a time when the disk's bandwidth is measured.
const DEPTH: usize = 8;

/// One load in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LoadResult {
    pub(crate) load: &'static str,
    pub(crate) target: &'static str,
    pub(crate) appends_per_second: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// How long things take.
#[derive(Clone, Copy)]
struct Times {
    load: Duration,
    floor: Duration,
    log_bytes: u64,
}

/// Runs the command.
pub(crate) fn run(args: &WalArgs) -> Result<()> {
    let from = Instant::now();
    let interrupt = Interrupt::install()?;
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
    let mut bench = Bench {
        folder: folder.path(),
        times,
        commits: usize::from(args.commits),
        raft_engine: raft_engine.as_ref().ok(),
        only: &args.only,
        interrupt: &interrupt,
        figures: Figures::default(),
        results: Vec::new(),
    };
    let mut floors = Vec::new();
    for round in 1..=args.rounds.unwrap_or(if args.quick { 2 } else { 3 }) {
        note(&format!("round {round}"));
        floors.push(floor::measure(folder.path(), times.floor, &interrupt)?);
        bench.round()?;
    }
    let Bench { figures, results, .. } = bench;
    let floors = floor::summary(&floors);
    Found { machine, floors, figures, results, from }.print(args.json, shown)
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

/// A run and what it has brought so far.
struct Bench<'a> {
    folder: &'a Path,
    times: Times,
    commits: usize,
    raft_engine: Option<&'a peers::RaftEngine>,
    only: &'a str,
    interrupt: &'a Interrupt,
    figures: Figures,
    results: Vec<LoadResult>,
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
        self.interrupt.check()?;
        Ok(name.contains(self.only))
    }

    fn load(&self, name: &'static str, appenders: usize, bytes: usize) -> Result<LoadResult> {
        let (commits, time) = (self.commits, self.times.load);
        drive::run(self.folder, &drive::Load { name, appenders, bytes, groups: 1, commits, time })
    }

    fn disk_error(&self, error: &std::io::Error) -> BenchError {
        BenchError::Disk { path: self.folder.to_owned(), reason: error.to_string() }
    }

    fn lone_append(&mut self) -> Result<()> {
        // A frame of one block: what is left of it beside the headers.
        let one = self.load("append_4k", 1, appender::ONE_BLOCK)?;
        let raw = raw_recipe(self.folder, self.times.floor).map_err(|error| self.disk_error(&error))?;
        self.figures.ratio("append_4k_p50_vs_raw", one.p50_us / raw.p50_us, Goal::AtMost(1.15));
        self.figures.ratio("append_4k_p99_vs_raw", one.p99_us / raw.p99_us, Goal::AtMost(1.5));
        self.results.push(one);
        Ok(())
    }

    fn small_entries(
        &mut self,
        name: &'static str,
        appenders: usize,
        figures: [&'static str; 3],
    ) -> Result<()> {
        let [vs_engine, vs_sync, vs_parallel] = figures;
        let ours = self.load(name, appenders, 256)?;
        let speed = ours.appends_per_second;
        let each = peers::sync_each(self.folder, name, appenders, true, self.times.load / 2)?;
        let parallel = peers::sync_each(self.folder, name, appenders, false, self.times.load / 2)?;
        self.figures.ratio(vs_sync, speed / each.appends_per_second, Goal::AtLeast(10.0));
        self.figures.observe(vs_parallel, speed / parallel.appends_per_second);
        if let Some(engine) = self.raft_engine {
            let theirs = engine.run(self.folder, name, appenders, 256, self.times.load)?;
            self.figures.ratio(vs_engine, speed / theirs.appends_per_second, Goal::AtLeast(2.0));
            self.results.push(theirs);
        }
        self.results.extend([ours, each, parallel]);
        Ok(())
    }

    /// The disk's bandwidth, writing and reading, over and over for some time.
    fn bandwidth(&self, bytes: u64) -> Result<(f64, f64)> {
        let measured = measure_bandwidth(self.folder, bytes, DEPTH, self.times.floor);
        measured.map_err(|error| self.disk_error(&error))
    }

    fn large_entries(&mut self) -> Result<()> {
        // The disk before and behind the load: a shared one doesn't stay as it is.
        let (before, _) = self.bandwidth(self.times.log_bytes)?;
        let ours = self.load("appenders_1024_4k", 1024, 4096)?;
        let (behind, _) = self.bandwidth(self.times.log_bytes)?;
        let written = f64::midpoint(before, behind);
        self.figures.ratio(
            "appenders_1024_4k_vs_bandwidth",
            ours.bytes_per_second / written,
            Goal::AtLeast(0.8),
        );
        self.figures.observe("disk_write_mib_per_second", written / f64::from(1 << 20));
        self.results.push(ours);
        Ok(())
    }

    fn recovery(&mut self, name: &'static str, groups: u64, goal: Goal) -> Result<()> {
        let (_, before) = self.bandwidth(self.times.log_bytes)?;
        let opened = drive::recovery(self.folder, groups, self.times.log_bytes)?;
        let (_, behind) = self.bandwidth(self.times.log_bytes)?;
        let read = f64::midpoint(before, behind);
        let speed = opened.file_bytes as f64 / opened.seconds;
        match goal {
            Goal::AtLeast(_) => self.figures.ratio(name, speed / read, goal),
            Goal::AtMost(_) => self.figures.ratio(name, read / speed, goal),
        }
        self.figures.observe("disk_read_mib_per_second", read / f64::from(1 << 20));
        Ok(())
    }
}

/// A block overwritten and synced through io_uring, as a core does it.
fn raw_recipe(folder: &Path, lasting: Duration) -> std::io::Result<Floor> {
    let mut seen = latencies();
    for time in measure_ring_sync(folder, 4096, lasting)? {
        seen.saturating_record(time);
    }
    Ok(floor::percentiles(&seen))
}

/// The tables for people.
fn shown(floors: &Floors, results: &[LoadResult]) -> String {
    let rows = results.iter().map(|it| {
        let mut row = vec![it.load.to_owned(), it.target.to_owned()];
        let mib = it.bytes_per_second / f64::from(1 << 20);
        row.extend([it.appends_per_second, mib, it.p50_us, it.p99_us].map(number));
        row
    });
    format!(
        "floor  4 KiB overwrite + fdatasync, plain system calls: p50 {} us, p99 {} us\n\n{}",
        number(floors.sync_4k_overwrite.p50_us),
        number(floors.sync_4k_overwrite.p99_us),
        report::table(
            &["load", "target", "appends/s", "MiB/s", "p50 us", "p99 us"],
            &rows.collect::<Vec<_>>()
        )
    )
}
