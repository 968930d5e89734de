//! `flotilla-bench raft`: agreement without disks, with them, over TCP, in many groups; beside raft-rs and openraft.
//!
//! | module | what |
//! |---|---|
//! | [`node`] | a node whose clients propose, and nothing else |
//! | [`trio`], [`drive`] | three of them in one thread: in memory, and on the real driver |
//! | [`processes`] | three processes over TCP |
//! | [`peers`] | the same loads on raft-rs and openraft |
//! | [`failover`] | how long clients wait when a leader is killed |

pub(crate) mod drive;
mod failover;
pub(crate) mod node;
mod peers;
pub(crate) mod processes;
pub(crate) mod trio;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::compare::result::{TargetInfo, Unit};
use crate::error::Result;
use crate::figures::{Figures, Measured, targets};
use crate::floor::{self, RoundFloors};
use crate::interrupt::Interrupt;
use crate::kv::outcome::Round;
use crate::machine::Machine;
use crate::report::{Goal, note};
use crate::target::built::locked;
use crate::turn::{self, Job, Load, SUBJECT, Seen, Turns, Way};
use node::Plan;
use peers::Peer;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// raft-rs that doesn't wait for its disk in its turn.
const RAFT_RS_ASYNC: &str = "raft-rs, async";
/// Of an entry's payload.
const BYTES: usize = 64;
/// Kills of a leader that a p99 takes; with fewer its goal is neither held nor missed.
const KILLS_OF_A_P99: u16 = 50;

/// Raft, side by side with raft-rs and openraft
///
/// In memory, three replicas in one thread, with 1, 64 and 1024 entries in flight; the same on disk, each replica with a
/// log of its own; as three processes over TCP, beside the disk's sync and the loopback's round trip; a thousand groups
/// beside one; ten thousand with nothing to do; the time from a leader's SIGKILL to the next write.
#[derive(Clone, Debug, Args)]
pub(crate) struct RaftArgs {
    /// Under 40 s in all, with few kills of a leader
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds, each with everything in it; ratios are medians of them [default: 3; 1 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: Option<u16>,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Part>,
    /// Kills of a leader [default: 50; 4 with --quick]
    #[arg(long)]
    pub(crate) kills: Option<u16>,
    /// A folder on a real disk, in which a temporary one is made [default: here]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// The flotilla program, for the kills [default: beside this one]
    #[arg(long)]
    pub(crate) flotilla: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
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

/// Everything that the parts share.
struct Bench<'a> {
    args: &'a RaftArgs,
    place: Place<'a>,
    figures: Figures,
    turns: Turns<'a>,
    interrupt: &'a Interrupt,
}

/// Where and how it is measured.
#[derive(Clone, Copy)]
struct Place<'a> {
    folder: &'a Path,
    /// Of one load.
    time: Duration,
    raft_rs: Option<&'a Peer>,
    openraft: Option<&'a Peer>,
}

/// Runs the command.
pub(crate) fn run(args: &RaftArgs) -> Result<()> {
    measure(args, &Interrupt::install()?)?.print(args.json)
}

/// All rounds.
pub(crate) fn measure(args: &RaftArgs, interrupt: &Interrupt) -> Result<Measured> {
    let from = Instant::now();
    let folder = crate::kv::folder(args.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    let found = |peer: Result<Peer>| peer.map_err(|missing| note(&format!("without a peer: {missing}"))).ok();
    let (raft_rs, openraft) = (found(Peer::raft_rs()), found(Peer::openraft()));
    let place = Place {
        folder: folder.path(),
        time: if args.quick { Duration::from_millis(600) } else { Duration::from_secs(2) },
        raft_rs: raft_rs.as_ref(),
        openraft: openraft.as_ref(),
    };
    let (figures, turns) = (Figures::default(), Turns::new(interrupt));
    let mut bench = Bench { args, place, figures, turns, interrupt };
    let mut floors = Vec::new();
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 3 });
    for round in 0..usize::from(rounds) {
        note(&format!("round {}/{rounds}", round + 1));
        let floor = floor::measure(place.folder, place.time / 2, interrupt)?;
        floors.push(floor);
        bench.turns.begin(round);
        bench.round(floor)?;
    }
    if bench.wants(Part::Failover) {
        bench.kills()?;
    }
    let Bench { figures, turns, .. } = bench;
    let cells = turns.cells();
    Ok(Measured { machine, targets: targets(&cells, about), floors, figures, cells, from })
}

/// What a target is.
fn about(target: &str) -> TargetInfo {
    let lock = include_str!("../peers/raft-rs/Cargo.lock");
    let raft_rs = || format!("{} over raft-engine {}", locked(lock, "raft"), locked(lock, "raft-engine"));
    let openraft = || locked(include_str!("../peers/openraft/Cargo.lock"), "openraft");
    let own = || env!("CARGO_PKG_VERSION").to_owned();
    let (version, processes, what) = match target {
        SUBJECT => (
            own(),
            1,
            "three replicas that speak in bytes: in one thread, on one core with a log each, or as three processes over TCP",
        ),
        "flotilla-1000-groups" => {
            (own(), 1, "the same number of entries in flight, spread over a thousand groups")
        }
        "raft-rs" => (
            raft_rs(),
            1,
            "three replicas whose messages are handed on as they are; durable: a thread and a log each, over channels",
        ),
        RAFT_RS_ASYNC => (raft_rs(), 1, "the same, whose disk is another thread's: its asynchronous ready"),
        "raft-rs, encoded" => (raft_rs(), 1, "messages and entries as bytes, as ours are"),
        _ => (openraft(), 1, "three replicas and their clients as tasks in one thread, in memory"),
    };
    TargetInfo { name: target.to_owned(), version, durability: what.to_owned(), processes }
}

impl Place<'_> {
    fn load(&self, set: &'static str, name: String, in_flight: usize) -> Load {
        let seconds = self.time;
        Load { set, name, unit: Unit::Commit, clients: in_flight, bytes: BYTES, warmup: seconds / 3, seconds }
    }

    fn plan(&self, groups: u64, in_flight: usize) -> Plan {
        Plan { groups, in_flight, bytes: BYTES, warmup: self.time / 3, time: self.time }
    }
}

/// Our throughput over another's, if that was measured.
fn over(found: &BTreeMap<&'static str, Round>, other: &str) -> Option<f64> {
    Some(found[SUBJECT].operations_per_second / found.get(other)?.operations_per_second)
}

impl Bench<'_> {
    fn wants(&self, part: Part) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&part)
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
            let share = processes::idle_share(self.place.folder, 10_000, settle, self.place.time * 2)?;
            self.figures.ratio("idle_10k_groups_core_share", share, Goal::AtMost(0.02));
        }
        Ok(())
    }

    fn core(&mut self) -> Result<()> {
        for in_flight in [1, 64, 1024] {
            let own = self.place;
            let load = own.load("core", format!("core_{in_flight}"), in_flight);
            let plan = own.plan(1, in_flight);
            let ours = || Ok(turn::ours(Job::RaftInMemory(plan), &load.name, own.folder)?.seen(None));
            let mut ways = vec![Way::new(SUBJECT, ours)];
            ways.extend(own.raft_rs.map(|peer| Way::new("raft-rs", || peer.core(&load, false))));
            ways.extend(own.openraft.map(|peer| Way::new("openraft", || peer.core(&load, false))));
            ways.extend(own.raft_rs.map(|peer| Way::new("raft-rs, encoded", || peer.core(&load, true))));
            let found = self.turns.each(&load, ways)?;
            let speed = found[SUBJECT].operations_per_second;
            match in_flight {
                64 => {
                    self.figures.ratio("core_64_single_proposals_per_second", speed, Goal::AtLeast(1e6));
                }
                1024 => {
                    self.figures.ratio("core_1024_batched_proposals_per_second", speed, Goal::AtLeast(5e6));
                }
                _ => self.figures.observe("core_1_proposals_per_second", speed),
            }
            if let Some(ratio) = over(&found, "raft-rs") {
                self.figures.ratio(&format!("{}_vs_raft_rs", load.name), ratio, Goal::AtLeast(2.0));
            }
            for (other, name) in [("openraft", "openraft"), ("raft-rs, encoded", "raft_rs_encoded")] {
                if let Some(ratio) = over(&found, other) {
                    self.figures.observe(&format!("{}_vs_{name}", load.name), ratio);
                }
            }
        }
        Ok(())
    }

    /// Returns what raft-rs did with 64 in flight.
    fn durable(&mut self) -> Result<Option<f64>> {
        let mut at_64 = None;
        for in_flight in [1, 64, 256, 1024] {
            let own = self.place;
            let load = own.load("durable", format!("durable_{in_flight}"), in_flight);
            let plan = own.plan(1, in_flight);
            let ours = || Ok(turn::ours(Job::RaftDurable(plan), &load.name, own.folder)?.seen(Some(BYTES)));
            let mut ways = vec![Way::new(SUBJECT, ours)];
            for (target, is_async) in [("raft-rs", false), (RAFT_RS_ASYNC, true)] {
                let load = &load;
                ways.extend(
                    own.raft_rs
                        .map(|peer| Way::new(target, move || peer.durable(own.folder, load, is_async))),
                );
            }
            let found = self.turns.each(&load, ways)?;
            let both =
                ["raft-rs", RAFT_RS_ASYNC].into_iter().filter_map(|peer| Some((peer, found.get(peer)?)));
            let faster = |one: &(&str, &Round), other: &(&str, &Round)| {
                one.1.operations_per_second.total_cmp(&other.1.operations_per_second)
            };
            let Some((peer, theirs)) = both.max_by(faster) else { continue };
            if let Some(ratio) = over(&found, peer) {
                let name = format!("{}_vs_raft_rs", load.name);
                match in_flight {
                    1 => self.figures.observe(&name, ratio),
                    _ => self.figures.ratio(&name, ratio, Goal::AtLeast(2.0)),
                }
            }
            if let (Some(ours), Some(theirs)) =
                (found[SUBJECT].server_cpu_s_per_100k, theirs.server_cpu_s_per_100k)
            {
                let name = format!("{}_cpu_per_commit_vs_raft_rs", load.name);
                self.figures.ratio(&name, ours / theirs, Goal::AtMost(1.0));
            }
            if in_flight == 64 {
                at_64 = Some(theirs.operations_per_second);
            }
        }
        Ok(at_64)
    }

    fn tcp(&mut self, floor: RoundFloors, raft_rs_at_64: Option<f64>) -> Result<()> {
        let own = self.place;
        let mut run = |in_flight: usize| {
            let load = own.load("tcp", format!("tcp_{in_flight}"), in_flight);
            self.turns.one(&load, SUBJECT, || {
                Ok(processes::run(own.folder, &load.name, own.plan(1, in_flight))?.seen(Some(BYTES)))
            })
        };
        let (one, ours) = (run(1)?, run(64)?);
        let RoundFloors { sync, round_trip: trip, replicated } = floor;
        let (p50, p99) = (sync.p50_us + trip.p50_us, sync.p99_us + trip.p99_us);
        let (one_p50, one_p99) = (one.latency(|it| it.p50), one.latency(|it| it.p99));
        // The bare one has a client, which this has not.
        self.figures.observe("tcp_1_p50_vs_bare", one_p50 / (replicated.p50_us - trip.p50_us));
        self.figures.ratio("tcp_1_p50_vs_sync_and_trip", one_p50 / p50, Goal::AtMost(1.3));
        self.figures.ratio("tcp_1_p99_vs_sync_and_trip", one_p99 / p99, Goal::AtMost(1.5));
        if let Some(theirs) = raft_rs_at_64 {
            let ratio = ours.operations_per_second / theirs;
            self.figures.ratio("tcp_64_vs_raft_rs_in_one_process", ratio, Goal::AtLeast(1.0));
        }
        Ok(())
    }

    /// A thousand groups beside one: with so little in flight that each entry is a batch of its own in its group, and with as much as
    /// keeps each group as busy as 64 clients do.
    fn groups(&mut self) -> Result<()> {
        for (name, in_flight) in [("groups", 1024), ("groups_full", 64_000)] {
            let own = self.place;
            let load = own.load("groups", name.to_owned(), in_flight);
            let syncs = [Cell::new(f64::NAN), Cell::new(f64::NAN)];
            let run = |groups: u64, syncs: &Cell<f64>| -> Result<Seen> {
                let plan = own.plan(groups, in_flight);
                let found = turn::ours(Job::RaftDurable(plan), &load.name, own.folder)?;
                syncs.set(found.syncs_per_second.unwrap_or(f64::NAN));
                Ok(found.seen(Some(BYTES)))
            };
            let (one, many) = (|| run(1, &syncs[0]), || run(1000, &syncs[1]));
            let ways = vec![Way::new(SUBJECT, one), Way::new("flotilla-1000-groups", many)];
            let found = self.turns.each(&load, ways)?;
            let ratio =
                found["flotilla-1000-groups"].operations_per_second / found[SUBJECT].operations_per_second;
            self.figures.ratio(&format!("{name}_1000_vs_1"), ratio, Goal::AtLeast(0.8));
            let [one, many] = syncs.map(Cell::into_inner);
            self.figures.ratio(&format!("{name}_1000_vs_1_syncs"), many / one, Goal::AtMost(1.2));
        }
        Ok(())
    }

    fn kills(&mut self) -> Result<()> {
        let kills = self.args.kills.unwrap_or(if self.args.quick { 4 } else { KILLS_OF_A_P99 });
        let program = self.args.flotilla.as_deref();
        let found = failover::measure(self.place.folder, program, kills, self.interrupt)?;
        let timeouts = found.p99_ms / failover::ELECTION_TIMEOUT_MS;
        let (figure, goal) = ("failover_p99_election_timeouts", Goal::AtMost(2.0));
        if kills >= KILLS_OF_A_P99 {
            self.figures.ratio(figure, timeouts, goal);
            self.figures.observe("failover_p99_ms", found.p99_ms);
        } else {
            self.figures.unmeasured(
                figure,
                goal,
                &format!("a p99 takes {KILLS_OF_A_P99} kills, not {kills}"),
            );
        }
        self.figures.observe("failover_p50_ms", found.p50_ms);
        Ok(())
    }
}
