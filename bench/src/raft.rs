//! `flotilla-bench raft`: agreement without disks, with them, over TCP, in many groups; beside raft-rs and openraft.
//!
//! | module | what |
//! |---|---|
//! | [`node`] | a node whose clients propose, and nothing else |
//! | [`trio`], [`drive`] | three of them in one thread: in memory, and on the real driver |
//! | [`processes`] | three processes over TCP |
//! | [`peers`] | the same loads on raft-rs and openraft |
//! | [`failover`] | how long clients wait when a leader is killed |

mod drive;
mod failover;
mod node;
mod peers;
pub(crate) mod processes;
mod trio;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::error::Result;
use crate::figures::{Figures, Found, number};
use crate::floor::{self, Floors, RoundFloors};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::report::{self, Goal, note};
use node::Plan;
use peers::Peer;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of an entry's payload.
const BYTES: usize = 64;

/// Raft, side by side with raft-rs and openraft
///
/// In memory, three replicas in one thread, with 1, 64 and 1024 entries in flight; the same on disk, each replica with a
/// log of its own; as three processes over TCP, beside the disk's sync and the loopback's round trip; a thousand groups
/// beside one; ten thousand with nothing to do; the time from a leader's SIGKILL to the next write.
#[derive(Clone, Debug, Args)]
pub(crate) struct RaftArgs {
    /// Under 40 s in all, with few kills of a leader
    #[arg(long)]
    quick: bool,
    /// Rounds, each with everything in it; ratios are medians of them [default: 3; 1 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// Kills of a leader [default: 50; 4 with --quick]
    #[arg(long)]
    kills: Option<u16>,
    /// A folder on a real disk, in which a temporary one is made [default: here]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The flotilla program, for the kills [default: beside this one]
    #[arg(long)]
    flotilla: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// In memory
    Core,
    /// On disk, in one process
    Durable,
    /// On disk, three processes
    Tcp,
    /// Many groups
    Groups,
    /// Idle groups
    Idle,
    /// A leader's death
    Failover,
}

/// One load in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LoadResult {
    pub(crate) load: String,
    pub(crate) target: &'static str,
    pub(crate) commits_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of all three nodes; none where it wasn't measured.
    pub(crate) cpu_us_per_commit: Option<f64>,
}

/// Everything that the parts share.
struct Bench<'a> {
    args: &'a RaftArgs,
    folder: &'a Path,
    /// Of one load.
    time: Duration,
    raft_rs: Option<Peer>,
    openraft: Option<Peer>,
    figures: Figures,
    results: Vec<LoadResult>,
    interrupt: &'a Interrupt,
}

/// Runs the command.
pub(crate) fn run(args: &RaftArgs) -> Result<()> {
    let from = Instant::now();
    let interrupt = Interrupt::install()?;
    let folder = crate::kv::folder(args.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    let found = |peer: Result<Peer>| peer.map_err(|missing| note(&format!("without a peer: {missing}"))).ok();
    let mut bench = Bench {
        args,
        folder: folder.path(),
        time: if args.quick { Duration::from_millis(600) } else { Duration::from_secs(2) },
        raft_rs: found(Peer::raft_rs()),
        openraft: found(Peer::openraft()),
        figures: Figures::default(),
        results: Vec::new(),
        interrupt: &interrupt,
    };
    let mut floors = Vec::new();
    for round in 1..=args.rounds.unwrap_or(if args.quick { 1 } else { 3 }) {
        note(&format!("round {round}"));
        let floor = floor::measure(bench.folder, bench.time / 2, &interrupt)?;
        floors.push(floor);
        bench.round(floor)?;
    }
    if bench.wants(Part::Failover) {
        bench.kills()?;
    }
    let Bench { figures, results, .. } = bench;
    let floors = floor::summary(&floors);
    Found { machine, floors, figures, results, from }.print(args.json, shown)
}

impl Bench<'_> {
    fn wants(&self, part: Part) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&part)
    }

    fn plan(&self, groups: u64, in_flight: usize) -> Plan {
        Plan { groups, in_flight, bytes: BYTES, warmup: self.time / 3, time: self.time }
    }

    fn round(&mut self, floor: RoundFloors) -> Result<()> {
        if self.wants(Part::Core) {
            self.core()?;
        }
        let mut raft_rs_at_64 = None;
        if self.wants(Part::Durable) {
            raft_rs_at_64 = self.durable()?;
        }
        if self.wants(Part::Tcp) {
            self.tcp(floor, raft_rs_at_64)?;
        }
        if self.wants(Part::Groups) {
            self.groups()?;
        }
        if self.wants(Part::Idle) {
            self.interrupt.check()?;
            let settle = Duration::from_secs(2);
            let share = processes::idle_share(self.folder, 10_000, settle, self.time * 2)?;
            self.figures.ratio("idle_10k_groups_core_share", share, Goal::AtMost(0.02));
        }
        Ok(())
    }

    fn core(&mut self) -> Result<()> {
        for in_flight in [1, 64, 1024] {
            self.interrupt.check()?;
            let (load, plan) = (format!("core_{in_flight}"), self.plan(1, in_flight));
            let ours = trio::in_memory(&load, plan)?;
            match in_flight {
                64 => self.figures.ratio(
                    "core_64_single_proposals_per_second",
                    ours.commits_per_second,
                    Goal::AtLeast(1e6),
                ),
                1024 => self.figures.ratio(
                    "core_1024_batched_proposals_per_second",
                    ours.commits_per_second,
                    Goal::AtLeast(5e6),
                ),
                _ => self.figures.observe("core_1_proposals_per_second", ours.commits_per_second),
            }
            for (peer, goal) in [(&self.raft_rs, true), (&self.openraft, false)] {
                let Some(peer) = peer else { continue };
                let theirs = peer.core(&load, plan)?;
                let name = format!("{load}_vs_{}", theirs.target.replace('-', "_"));
                let ratio = ours.commits_per_second / theirs.commits_per_second;
                match goal {
                    true => self.figures.ratio(&name, ratio, Goal::AtLeast(2.0)),
                    false => self.figures.observe(&name, ratio),
                }
                self.results.push(theirs);
            }
            if let Some(peer) = &self.raft_rs {
                let theirs = peer.core_as_bytes(&load, plan)?;
                let ratio = ours.commits_per_second / theirs.commits_per_second;
                self.figures.observe(&format!("{load}_vs_raft_rs_encoded"), ratio);
                self.results.push(theirs);
            }
            self.results.push(ours);
        }
        Ok(())
    }

    /// Returns what raft-rs did with 64 in flight.
    fn durable(&mut self) -> Result<Option<f64>> {
        let mut at_64 = None;
        for in_flight in [1, 64, 256, 1024] {
            self.interrupt.check()?;
            let (load, plan) = (format!("durable_{in_flight}"), self.plan(1, in_flight));
            let (ours, _) = drive::durable(self.folder, &load, plan)?;
            if let Some(peer) = &self.raft_rs {
                let theirs = peer.durable(self.folder, &load, plan)?;
                let ratio = ours.commits_per_second / theirs.commits_per_second;
                let name = format!("{load}_vs_raft_rs");
                if in_flight == 1 {
                    self.figures.observe(&name, ratio);
                } else {
                    self.figures.ratio(&name, ratio, Goal::AtLeast(2.0));
                }
                if let (Some(ours), Some(theirs)) = (ours.cpu_us_per_commit, theirs.cpu_us_per_commit) {
                    let name = format!("{load}_cpu_per_commit_vs_raft_rs");
                    self.figures.ratio(&name, ours / theirs, Goal::AtMost(1.0));
                }
                if in_flight == 64 {
                    at_64 = Some(theirs.commits_per_second);
                }
                self.results.push(theirs);
            }
            self.results.push(ours);
        }
        Ok(at_64)
    }

    fn tcp(&mut self, floor: RoundFloors, raft_rs_at_64: Option<f64>) -> Result<()> {
        self.interrupt.check()?;
        let one = processes::run(self.folder, "tcp_1", self.plan(1, 1))?;
        let RoundFloors { sync, round_trip: trip, replicated } = floor;
        let (p50, p99) = (sync.p50_us + trip.p50_us, sync.p99_us + trip.p99_us);
        // The bare one has a client, which this has not.
        self.figures.observe("tcp_1_p50_vs_bare", one.p50_us / (replicated.p50_us - trip.p50_us));
        self.figures.ratio("tcp_1_p50_vs_sync_and_trip", one.p50_us / p50, Goal::AtMost(1.3));
        self.figures.ratio("tcp_1_p99_vs_sync_and_trip", one.p99_us / p99, Goal::AtMost(1.5));
        self.results.push(one);
        self.interrupt.check()?;
        let ours = processes::run(self.folder, "tcp_64", self.plan(1, 64))?;
        if let Some(theirs) = raft_rs_at_64 {
            let ratio = ours.commits_per_second / theirs;
            self.figures.ratio("tcp_64_vs_raft_rs_in_one_process", ratio, Goal::AtLeast(1.0));
        }
        self.results.push(ours);
        Ok(())
    }

    fn groups(&mut self) -> Result<()> {
        self.interrupt.check()?;
        let (one, syncs_of_one) = drive::durable(self.folder, "groups_1", self.plan(1, 1024))?;
        let (many, syncs_of_many) = drive::durable(self.folder, "groups_1000", self.plan(1000, 1024))?;
        let ratio = many.commits_per_second / one.commits_per_second;
        self.figures.ratio("groups_1000_vs_1", ratio, Goal::AtLeast(0.8));
        self.figures.ratio("groups_1000_vs_1_syncs", syncs_of_many / syncs_of_one, Goal::AtMost(1.2));
        self.results.extend([one, many]);
        Ok(())
    }

    fn kills(&mut self) -> Result<()> {
        let kills = self.args.kills.unwrap_or(if self.args.quick { 4 } else { 50 });
        if self.args.quick {
            note(&format!("{kills} kills of a leader: a p99 takes 50, and no --quick"));
        }
        let program = self.args.flotilla.as_deref();
        let found = failover::measure(self.folder, program, kills, self.interrupt)?;
        let timeouts = found.p99_ms / failover::ELECTION_TIMEOUT_MS;
        self.figures.ratio("failover_p99_election_timeouts", timeouts, Goal::AtMost(2.0));
        self.figures.observe("failover_p50_ms", found.p50_ms);
        self.figures.observe("failover_p99_ms", found.p99_ms);
        Ok(())
    }
}

/// The tables for people.
fn shown(floors: &Floors, results: &[LoadResult]) -> String {
    let rows = results.iter().map(|it| {
        let mut row = vec![it.load.clone(), it.target.to_owned()];
        row.extend([it.commits_per_second, it.p50_us, it.p99_us].map(number));
        row.push(it.cpu_us_per_commit.map_or_else(|| "-".to_owned(), number));
        row
    });
    let Floors { sync_4k_overwrite: sync, tcp_round_trip_64b: trip, bare_replicated_write: bare } = floors;
    format!(
        "floors  4 KiB overwrite + fdatasync: p50 {} us, p99 {} us; loopback round trip: p50 {} us, p99 {} us; \
         bare replicated write: p50 {} us, p99 {} us\n\n{}",
        number(sync.p50_us),
        number(sync.p99_us),
        number(trip.p50_us),
        number(trip.p99_us),
        number(bare.p50_us),
        number(bare.p99_us),
        report::table(
            &["load", "target", "commits/s", "p50 us", "p99 us", "cpu us/commit"],
            &rows.collect::<Vec<_>>()
        )
    )
}
