//! `flotilla-bench kv`: load on key/value stores, side by side.
//!
//! How it stays fair:
//!
//! * Every target gets the same operations in the same order, from the same load generator, on the same disk.
//! * Rounds go over all targets, each round beginning with another, and ratios are taken within a round: what drifts, drifts
//!   for all. The reported value is the median round.
//! * Servers stay up between their turns, idle. What the idle ones use shows as `foreign`.
//! * Closed loops tell throughput; their latencies leave out what a stalled client would have sent. Open loops (`--rate`)
//!   measure every latency from when the request was due, answered or not.
//! * The server's CPU time is that of all its processes, kernel threads for their I/O included.
//!
//! | module | what |
//! |---|---|
//! | [`args`] | the command line |
//! | [`scenario`] | the loads |
//! | [`outcome`] | the numbers of a load on a target |
//! | [`goals`] | ratios and what they should be |
//! | [`mod@print`] | tables |

pub(crate) mod args;
pub(crate) mod goals;
pub(crate) mod outcome;
pub(crate) mod print;
mod scenario;

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tempfile::TempDir;

use crate::engine::slots::SlotMap;
use crate::error::{BenchError, Result};
use crate::floor::{self, RoundFloors};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::recorder::{latencies, write_hgrm};
use crate::report::{self, Observation, Report, SCHEMA, note};
use crate::target::peer::{self, Peer};
use crate::target::process::Ports;
use crate::target::{Driver, Target, flotilla};
use crate::workload::LoadSummary;
use args::KvArgs;
use outcome::{Outcome, Round};
use scenario::Scenario;

/// What `kv` adds to the report.
#[derive(Serialize)]
struct More {
    rounds: u16,
    elapsed_seconds: f64,
    observations: Vec<Observation>,
}

/// Runs the command.
pub(crate) fn run(args: &KvArgs) -> Result<()> {
    args.check()?;
    let from = Instant::now();
    let interrupt = Interrupt::install()?;
    let folder = folder(args.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    // Before anything is started: it also tells whether the folder is fit for it.
    let each = if args.quick { Duration::from_millis(200) } else { Duration::from_secs(1) };
    floor::sync(folder.path(), Duration::ZERO, &interrupt)?;
    if !args.target.is_empty() {
        crate::login::log_in(args.user.as_deref());
    }
    let targets = targets(args, folder.path(), &interrupt)?;
    let scenarios = scenario::scenarios(args);
    if scenarios.iter().any(|scenario| scenario.load.operations.reads_percent > 0) {
        for target in &targets {
            note(&format!("filling {}", target.name));
            target.fill(&scenario::fill(args), &interrupt)?;
        }
    }
    let (outcomes, floors) = rounds(args, &targets, &scenarios, folder.path(), each, &interrupt)?;
    // A run of peers alone has nothing to compare.
    let subject =
        targets.first().filter(|target| target.is_subject).map_or("", |target| target.name.as_str());
    let (ratios, observations) = goals::ratios(subject, &outcomes, &floors);
    if let Some(file) = &args.hgrm {
        write_files(file, &outcomes)?;
    }
    drop(targets);
    let elapsed_seconds = from.elapsed().as_secs_f64();
    if !args.json {
        report::print(&print::text(&outcomes, &floor::summary(&floors), &ratios, &observations))?;
        note(&format!("{elapsed_seconds:.1} s in all"));
        return Ok(());
    }
    report::print_json(&Report {
        schema: SCHEMA,
        command: report::command_line(),
        machine,
        floors: floor::summary(&floors),
        results: outcomes,
        ratios,
        more: More { rounds: args.rounds, elapsed_seconds, observations },
    })
}

/// Where data goes, gone at the end. Its path is absolute, whatever folder a server works in.
pub(crate) fn folder(parent: Option<&Path>) -> Result<TempDir> {
    let parent = parent.unwrap_or_else(|| Path::new("."));
    let doing = || BenchError::io(format!("making a folder in {}", parent.display()));
    let absolute = parent.canonicalize().map_err(doing())?;
    tempfile::Builder::new().prefix("flotilla-bench-").tempdir_in(absolute).map_err(doing())
}

/// Starts or finds everything, Flotilla first.
fn targets(args: &KvArgs, folder: &Path, interrupt: &Interrupt) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    let mut ports = Ports::new();
    if !args.target.is_empty() {
        targets.push(existing(args)?);
    }
    let nodes = args.spawn.unwrap_or(if args.target.is_empty() { 3 } else { 0 });
    // All start at once; etcd's first election takes seconds.
    let starting = peer::start_installed(peers(args), folder, &mut ports, args.etcd_connections)?;
    if nodes > 0 {
        let shape = flotilla::Shape {
            program: args.flotilla.clone(),
            nodes,
            cores: args.cores,
            groups: args.groups,
            workers: 0,
        };
        targets.push(flotilla::start(&shape, folder, &mut ports)?.ready(interrupt)?);
    }
    for each in starting {
        targets.push(each.ready(interrupt)?);
    }
    match targets.is_empty() {
        true => Err(BenchError::Usage("nothing to measure: give --target, --spawn or --peers".to_owned())),
        false => Ok(targets),
    }
}

fn peers(args: &KvArgs) -> Vec<Peer> {
    let default = match args.target.is_empty() && !args.is_custom() {
        true => vec![Peer::Etcd, Peer::Redis],
        false => Vec::new(),
    };
    let mut peers = args.peers.clone().unwrap_or(default);
    let mut seen = Vec::new();
    peers.retain(|peer| {
        !seen.contains(peer) && {
            seen.push(*peer);
            true
        }
    });
    peers.retain(|peer| {
        let fits = args.value_bytes <= peer.value_bytes_max();
        if !fits {
            note(&format!("without {}: its values have at most {} B", peer.name(), peer.value_bytes_max()));
        }
        fits
    });
    peers
}

fn existing(args: &KvArgs) -> Result<Target> {
    let map = SlotMap::discover(&args.target, args.plain)?;
    map.probe().map_err(|reason| BenchError::Unreachable { address: args.target[0].clone(), reason })?;
    if map.plain && args.target.len() > 1 {
        return Err(BenchError::Usage(format!("{} is no cluster: give one address", args.target[0])));
    }
    Ok(Target {
        name: "target".to_owned(),
        is_subject: true,
        version: String::new(),
        durability: "as its operator configured it".to_owned(),
        pids: args.pids.clone(),
        driver: Driver::Resp(map),
        processes: Vec::new(),
    })
}

fn rounds(
    args: &KvArgs,
    targets: &[Target],
    scenarios: &[Scenario],
    folder: &Path,
    each_floor: Duration,
    interrupt: &Interrupt,
) -> Result<(Vec<Outcome>, Vec<RoundFloors>)> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for scenario in scenarios {
        outcomes.extend(targets.iter().map(|target| Outcome {
            scenario: scenario.name,
            target: target.name.clone(),
            version: target.version.clone(),
            durability: target.durability.clone(),
            load: LoadSummary::from(&scenario.load),
            median: None,
            rounds: Vec::new(),
            latencies: latencies(),
        }));
    }
    let mut floors = Vec::new();
    for round in 0..usize::from(args.rounds) {
        for (row, scenario) in scenarios.iter().enumerate() {
            for turn in 0..targets.len() {
                let column = (turn + round) % targets.len();
                let target = &targets[column];
                let mut load = scenario.load.clone();
                load.operations.seed = 1 + round as u64;
                let (recorder, used) = target.run(&load, interrupt)?;
                if recorder.operations() == 0 {
                    let reason = format!("no operation succeeded; errors: {:?}", recorder.errors);
                    return Err(target.failed(scenario.name, reason));
                }
                let result = Round::new(&recorder, used, &load);
                print::progress(round, args.rounds, scenario.name, &target.name, &result);
                outcomes[row * targets.len() + column].push(&recorder, result);
            }
        }
        // Right after the load with one client, which is compared with it.
        floors.push(floor::measure(folder, each_floor, interrupt)?);
    }
    Ok((outcomes, floors))
}

/// `FILE`, or `FILE` with the load's and the target's names before its extension.
fn write_files(file: &Path, outcomes: &[Outcome]) -> Result<()> {
    for outcome in outcomes {
        let path = match outcomes.len() {
            1 => file.to_owned(),
            _ => {
                let stem = file.file_stem().unwrap_or_default().to_string_lossy();
                let extension = file.extension().map_or_else(|| "hgrm".into(), |it| it.to_string_lossy());
                file.with_file_name(format!("{stem}.{}.{}.{extension}", outcome.scenario, outcome.target))
            }
        };
        let doing = || BenchError::io(format!("writing {}", path.display()));
        let mut out = BufWriter::new(File::create(&path).map_err(doing())?);
        write_hgrm(&outcome.latencies, &mut out).map_err(doing())?;
        std::io::Write::flush(&mut out).map_err(doing())?;
    }
    Ok(())
}
