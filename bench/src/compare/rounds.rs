//! `compare kv`: everything is started, filled, and then put under each load in turn, round after round.
//!
//! ```text
//! round 1   cell 1: a c b d   cell 2: d a b c   …   floors
//! round 2   cell 1: b d a c   cell 2: a c d b   …   floors        a, b, c, d: the targets, in an order that is drawn for each cell
//! ```
//!
//! A ratio is taken within a round; most within a cell, too, between turns that are seconds apart.

use std::path::Path;
use std::time::{Duration, Instant};

use super::args::{CompareArgs, Set};
use super::goals;
use super::loads::{self, Planned, Times};
use super::noise::Noise;
use super::result::{Cell, ResultFile, SCHEMA, TargetInfo, compared};
use crate::cpu::CpuUsed;
use crate::error::{BenchError, Result};
use crate::floor::{self, RoundFloors};
use crate::interrupt::Interrupt;
use crate::kv::outcome::Round;
use crate::kv::print::progress;
use crate::machine::Machine;
use crate::recorder::{Latencies, Recorder, latencies};
use crate::report::{command_line, note};
use crate::target::Target;
use crate::target::flotilla::{self, Shape};
use crate::target::peer::{self, Peer};
use crate::target::process::Ports;
use crate::turn::order;
use crate::workload::{Load, LoadSummary};

/// Groups of the second Flotilla cluster, where there is one.
const MANY_GROUPS: u16 = 64;
/// Opening connections, waiting for the last replies, and floors take about so much of a turn.
const BETWEEN: Duration = Duration::from_millis(60);
/// Starting and filling, of a run that is to take so many minutes.
const BEFORE: f64 = 0.1;
/// Of a turn.
const WARMUP_SHARE: f64 = 0.25;

/// A turn that was too short is tried again, so many times as long.
const LONGER: u32 = 4;
/// A turn of so long is long enough for anything.
const TURN_MAX: Duration = Duration::from_secs(5);

/// A cell while it grows.
struct Growing {
    rounds: Vec<Round>,
    latencies: Latencies,
}

/// Runs it.
pub(super) fn run(args: &CompareArgs, interrupt: &Interrupt) -> Result<ResultFile> {
    let from = Instant::now();
    let folder = crate::kv::folder(args.dir.as_deref())?;
    floor::sync(folder.path(), Duration::ZERO, interrupt)?;
    let targets = start(args, folder.path(), interrupt)?;
    let planned = loads::plan(args, times(args, targets.len()));
    for target in &targets {
        for each in &planned {
            if let Some(reason) = loads::cannot(target, &each.load) {
                note(&format!("without {} on {}: {reason}", each.name, target.name));
            }
        }
    }
    for fill in loads::fills(&planned) {
        for target in targets.iter().filter(|target| loads::cannot(target, &fill).is_none()) {
            note(&format!(
                "filling {} with {} keys of {} B",
                target.name, fill.operations.keys, fill.operations.value_bytes
            ));
            target.fill(&fill, interrupt)?;
        }
    }
    let (cells, floors) = rounds(args, &targets, &planned, folder.path(), interrupt)?;
    let subject = targets.first().map_or("", |target| target.name.as_str());
    let mut ratios = goals::of(&cells, &floors);
    ratios.extend(compared(subject, &cells));
    Ok(ResultFile {
        schema: SCHEMA.to_owned(),
        what: "kv".to_owned(),
        command: command_line(),
        unix_seconds: super::unix_seconds(),
        elapsed_seconds: from.elapsed().as_secs_f64(),
        source: super::source(),
        machine: Machine::of(folder.path()),
        targets: targets.iter().map(info).collect(),
        noise: Noise::of(&cells, &floors),
        floors,
        ratios,
        cells,
        unmeasured: Vec::new(),
    })
}

/// The peers that were asked for, each once.
pub(super) fn peers(args: &CompareArgs) -> Vec<Peer> {
    let all =
        [Peer::Etcd, Peer::ZooKeeper, Peer::RedisNone, Peer::RedisEverysec, Peer::Redis, Peer::RedisWait];
    let mut peers = Vec::new();
    for peer in args.peers.clone().unwrap_or_else(|| all.to_vec()) {
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    peers
}

fn info(target: &Target) -> TargetInfo {
    TargetInfo {
        name: target.name.clone(),
        version: target.version.clone(),
        durability: target.durability.clone(),
        processes: target.pids.len(),
    }
}

/// Starts everything, Flotilla first in the list.
fn start(args: &CompareArgs, folder: &Path, interrupt: &Interrupt) -> Result<Vec<Target>> {
    let mut ports = Ports::new();
    let starting = peer::start_installed(peers(args), folder, &mut ports, crate::etcd::CONNECTIONS_MAX)?;
    let mut targets = Vec::new();
    let many = args.has(Set::Groups).then_some(MANY_GROUPS);
    for groups in [Some(1), many].into_iter().flatten() {
        let data = folder.join(format!("flotilla-{groups}"));
        std::fs::create_dir_all(&data).map_err(BenchError::io(format!("making {}", data.display())))?;
        let shape =
            Shape { program: args.flotilla.clone(), nodes: 3, cores: args.cores(), groups, workers: 0 };
        let mut target = flotilla::start(&shape, &data, &mut ports)?.ready(interrupt)?;
        if groups > 1 {
            target.name = format!("flotilla-{groups}-groups");
        }
        targets.push(target);
    }
    for each in starting {
        targets.push(each.ready(interrupt)?);
    }
    Ok(targets)
}

/// How long a turn is: as told, or as the time allows.
fn times(args: &CompareArgs, targets: usize) -> Times {
    let default = |quick: f64, full: f64| Duration::from_secs_f64(if args.quick { quick } else { full });
    if let Some(minutes) = args.minutes {
        let any = Times { warmup: Duration::ZERO, seconds: Duration::from_secs(1) };
        let turns = loads::plan(args, any).len() * targets * usize::from(args.rounds());
        let each = minutes * 60.0 * (1.0 - BEFORE) / turns.max(1) as f64 - BETWEEN.as_secs_f64();
        // Shorter turns measure nothing.
        let each = each.max(0.2);
        let warmup = each * WARMUP_SHARE;
        return Times {
            warmup: Duration::from_secs_f64(warmup),
            seconds: Duration::from_secs_f64(each - warmup),
        };
    }
    Times {
        warmup: args.warmup.unwrap_or_else(|| default(0.1, 0.4)),
        seconds: args.seconds.unwrap_or_else(|| default(0.25, 1.0)),
    }
}

/// Runs `load`, again and for longer while not even all of a closed loop's requests were answered once, and says what was seen at
/// last; or why there is nothing to see. A slow target with thousands of requests under way needs that in a short turn.
fn long_enough(
    load: &mut Load,
    mut run: impl FnMut(&Load) -> Result<(Recorder, CpuUsed)>,
) -> Result<std::result::Result<(Recorder, CpuUsed), String>> {
    let enough = if load.rate.is_some() { 1 } else { (load.clients * load.pipeline) as u64 };
    loop {
        let (recorder, used) = run(load)?;
        let is_last = load.seconds >= TURN_MAX || !recorder.errors.is_empty();
        if recorder.operations() >= enough || is_last && recorder.operations() > 0 {
            return Ok(Ok((recorder, used)));
        }
        if is_last {
            let (seconds, errors) = (load.seconds.as_secs_f64(), &recorder.errors);
            return Ok(Err(format!("no operation succeeded in {seconds:.2} s; errors: {errors:?}")));
        }
        load.warmup *= LONGER;
        load.seconds *= LONGER;
    }
}

fn rounds(
    args: &CompareArgs,
    targets: &[Target],
    planned: &[Planned],
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<(Vec<Cell>, Vec<RoundFloors>)> {
    let new = |_| Growing { rounds: Vec::new(), latencies: latencies() };
    let mut grown: Vec<Growing> = (0..planned.len() * targets.len()).map(new).collect();
    let mut loads: Vec<Option<Load>> = vec![None; grown.len()];
    let floor_time = Duration::from_millis(if args.quick { 200 } else { 500 });
    let mut floors = Vec::new();
    for round in 0..usize::from(args.rounds()) {
        for (row, each) in planned.iter().enumerate() {
            for column in order(round, &each.name, targets.len()) {
                let (target, place) = (&targets[column], row * targets.len() + column);
                if loads::cannot(target, &each.load).is_some() {
                    continue;
                }
                let mut load = each.load.clone();
                load.operations.seed = 1 + round as u64;
                if let Some((share, peak)) = &each.share {
                    let of = planned.iter().position(|it| it.name == *peak).unwrap_or(row);
                    // Of the first round: a rate that changed from round to round would be another load.
                    let peak = grown[of * targets.len() + column].rounds.first();
                    load.rate = peak.map(|round| share * round.operations_per_second);
                }
                let run = |load: &Load| target.run(load, interrupt);
                let (recorder, used) =
                    long_enough(&mut load, run)?.map_err(|reason| target.failed(&each.name, reason))?;
                let result = Round::new(&recorder, used, &load);
                progress(round, args.rounds(), &each.name, &target.name, &result);
                grown[place].latencies += recorder.all();
                grown[place].rounds.push(result);
                loads[place] = Some(load);
            }
        }
        floors.push(floor::measure(folder, floor_time, interrupt)?);
    }
    let mut cells = Vec::new();
    for (place, (growing, load)) in grown.into_iter().zip(loads).enumerate() {
        let (each, target) = (&planned[place / targets.len()], &targets[place % targets.len()]);
        let Some(load) = load else { continue };
        let Growing { rounds, latencies } = growing;
        let summary = LoadSummary::from(&load);
        let cell = Cell::new(each.set.name(), &each.name, &target.name, summary, rounds, &latencies);
        cells.push(Cell { peak_share: each.share.as_ref().map(|(share, _)| *share), ..cell });
    }
    Ok((cells, floors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::args::tests::parsed;

    /// Runs a load of 32 requests at a time whose target answers `answered` of them in the turn's number, and counts turns.
    fn turns(
        answered: impl Fn(u32) -> u64,
        error: Option<&str>,
    ) -> (Load, u32, std::result::Result<u64, String>) {
        let line = "--sets grid --clients 2 --pipeline 16 --value-bytes 8 --warmup 0.05 --seconds 0.2";
        let args = parsed(line);
        let mut load = loads::plan(&args, times(&args, 1)).remove(0).load;
        let mut turns = 0;
        let seen = long_enough(&mut load, |_| {
            turns += 1;
            let mut recorder = Recorder::new();
            for _ in 0..answered(turns) {
                recorder.writes.saturating_record(1);
            }
            error.into_iter().for_each(|code| recorder.failed(code));
            Ok((recorder, CpuUsed::NONE))
        });
        (load, turns, seen.unwrap().map(|(recorder, _)| recorder.operations()))
    }

    #[test]
    fn a_turn_too_short_for_a_slow_target_is_made_longer() {
        let (load, turned, seen) = turns(|turn| 10 * u64::from(turn * turn), None);
        assert_eq!((turned, seen), (2, Ok(40)), "with 10 of 32 requests answered it says little");
        assert_eq!((load.warmup, load.seconds), (Duration::from_millis(200), Duration::from_millis(800)));
    }

    #[test]
    fn a_target_that_is_slow_for_ever_is_measured_as_it_is() {
        assert_eq!(turns(|_| 3, None).2, Ok(3));
    }

    #[test]
    fn a_target_that_refuses_or_answers_nothing_is_said_so() {
        let (_, turned, seen) = turns(|_| 0, Some("BUSY"));
        assert_eq!(
            (turned, seen),
            (1, Err("no operation succeeded in 0.20 s; errors: {\"BUSY\": 1}".to_owned()))
        );
        let (load, turned, seen) = turns(|_| 0, None);
        assert!(load.seconds >= TURN_MAX && turned == 4, "{turned} turns");
        assert!(seen.is_err());
    }
}
