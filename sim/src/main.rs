//! `flotilla-sim`: many seeds, one again, or the tester tested.

use clap::{Args, Parser, Subcommand};
use flotilla_sim::faults::Fault;
use flotilla_sim::hazards::Hazard;
use flotilla_sim::run::{Failed, Totals, processors, quiet_panics, run};
use flotilla_sim::shrink::shrink;
use flotilla_sim::trace::Detail;
use flotilla_sim::world::{Plan, simulate};
use std::process::ExitCode;

/// The simulator asks for much memory in small pieces, as a node does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// With fewer seeds, a fault that never happens says nothing.
const SEEDS_FOR_EVERY_FAULT: u64 = 1000;

/// Simulates whole clusters under faults, each from one number.
#[derive(Debug, Parser)]
#[command(name = "flotilla-sim", version, arg_required_else_help = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many seeds; the first ten of them twice, to see that a seed determines everything.
    Run {
        /// How many.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 0)]
        start: u64,
        /// What to run them in, if not as they are drawn.
        #[arg(long)]
        hazard: Option<Hazard>,
        /// Threads; as many as there are processors if not given.
        #[arg(long)]
        jobs: Option<usize>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Run one seed again.
    Replay(Replay),
    /// Plant bugs, one at a time, and see that each is found. Needs a build with debug assertions.
    Prove {
        /// Threads; as many as there are processors if not given.
        #[arg(long)]
        jobs: Option<usize>,
        /// Only the bugs with this in their name.
        #[arg(long)]
        only: Option<String>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Run one node, as `flotilla serve` does: what the tests of this crate start.
    #[command(hide = true, disable_help_flag = true)]
    Serve {
        /// For `flotilla serve`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _options: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Replay {
    /// Which.
    #[arg(long)]
    seed: u64,
    /// What to run it in, if not as it is drawn.
    #[arg(long)]
    hazard: Option<Hazard>,
    /// Faults to leave out, by name.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Fault>,
    /// Milliseconds in which things go wrong, if not as drawn.
    #[arg(long)]
    safety_ms: Option<u64>,
    /// Clients, if not as many as drawn.
    #[arg(long)]
    clients: Option<usize>,
    /// Plant this bug. Needs a build with debug assertions.
    #[arg(long)]
    bug: Option<String>,
    /// Print everything that happens.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    match Options::parse().command {
        Command::Run { seeds, start, hazard, jobs, json } => {
            quiet_panics();
            match run(start, seeds, hazard, jobs.unwrap_or_else(processors)) {
                Ok(totals) => print_totals(&totals, (start, hazard), json),
                Err(failed) => report(&failed),
            }
        }
        Command::Replay(replay) => again(replay),
        Command::Prove { jobs, only, json } => prove(jobs, only.as_deref(), json),
        Command::Serve { .. } => flotilla_services::cli::main(),
    }
}

fn print_totals(totals: &Totals, (start, hazard): (u64, Option<Hazard>), json: bool) -> ExitCode {
    if json {
        let faults: serde_json::Map<String, serde_json::Value> =
            Fault::ALL.iter().map(|fault| (fault.to_string(), totals.tally.of(*fault).into())).collect();
        let found = serde_json::json!({
            "schema": "flotilla-sim-2", "seeds": totals.seeds, "start": start, "hazard": hazard.map(Hazard::name), "answered": totals.answered,
            "committed": totals.committed, "elections": totals.elections, "undecided": totals.undecided,
            "seconds": totals.seconds, "cpu_seconds": totals.cpu_seconds,
            "commands_per_cpu_second": totals.commands_per_cpu_second(), "faults": faults,
        });
        println!("{found}");
    } else {
        println!("{}", totals.summary());
        let counts = Fault::ALL.iter().map(|fault| format!("{fault} {}", totals.tally.of(*fault)));
        println!("faults: {}", counts.collect::<Vec<_>>().join(", "));
    }
    let never = totals.tally.never();
    // A hazard may rule some out.
    if hazard.is_none() && totals.seeds >= SEEDS_FOR_EVERY_FAULT && !never.is_empty() {
        eprintln!(
            "in {} seeds these never happened: {never:?}; what is never tried isn't tested",
            totals.seeds
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Makes the failing plan smaller, runs it once more with every event on record, and says how to do so.
fn report(failed: &Failed) -> ExitCode {
    let Failed { plan, what } = failed;
    eprintln!("seed {} fails: {what}\n\nlooking for a smaller plan that fails…", plan.seed);
    let (smallest, what) = shrink(plan).unwrap_or_else(|| (plan.clone(), what.clone()));
    let outcome = simulate(&smallest, Detail::Everything);
    eprintln!("the last of what happened in it:\n");
    outcome.tail.iter().for_each(|line| eprintln!("{line}"));
    let swarm = smallest.swarm();
    let left: Vec<&str> =
        Fault::ALL.iter().filter(|fault| fault.is_on(&swarm)).map(|fault| fault.name()).collect();
    eprintln!("\nit fails: {what}");
    eprintln!("with {} nodes, {} clients and these faults: {}", swarm.nodes, swarm.clients, left.join(", "));
    eprintln!("replay the seed:      {}", command(plan));
    eprintln!("the smallest plan:    {}", command(&smallest));
    ExitCode::FAILURE
}

fn command(plan: &Plan) -> String {
    let mut line =
        format!("cargo run --profile sim --bin flotilla-sim -- replay --seed {} --trace", plan.seed);
    if let Some(hazard) = plan.hazard {
        line.push_str(&format!(" --hazard {hazard}"));
    }
    if !plan.without.is_empty() {
        let names: Vec<&str> = plan.without.iter().map(|fault| fault.name()).collect();
        line.push_str(&format!(" --without {}", names.join(",")));
    }
    if let Some(safety_ms) = plan.safety_ms {
        line.push_str(&format!(" --safety-ms {safety_ms}"));
    }
    if let Some(clients) = plan.clients {
        line.push_str(&format!(" --clients {clients}"));
    }
    line
}

fn again(replay: Replay) -> ExitCode {
    let Replay { seed, hazard, without, safety_ms, clients, bug, trace } = replay;
    if let Some(bug) = bug
        && let Err(what) = plant(&bug)
    {
        eprintln!("{what}");
        return ExitCode::from(2);
    }
    quiet_panics();
    let plan = Plan { seed, hazard, without, safety_ms, clients };
    let outcome = simulate(&plan, if trace { Detail::Printed } else { Detail::Faults });
    if let Some(what) = outcome.failure {
        if trace {
            println!("\nseed {seed} fails: {what}");
            return ExitCode::FAILURE;
        }
        return report(&Failed { plan, what });
    }
    println!("seed {seed} holds: {} commands, trace {:016x}", outcome.answered, outcome.trace_hash);
    ExitCode::SUCCESS
}

#[cfg(debug_assertions)]
fn plant(name: &str) -> Result<(), String> {
    use flotilla_runtime::planted::Bug;
    let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
    let bug = bug.ok_or_else(|| format!("there is no bug {name}; `prove` lists them"))?;
    flotilla_runtime::planted::plant(Some(*bug));
    Ok(())
}

#[cfg(debug_assertions)]
fn prove(jobs: Option<usize>, only: Option<&str>, json: bool) -> ExitCode {
    use flotilla_runtime::planted::Bug;
    use flotilla_sim::prove::{HEAD, NOT_YET, SEEDS_MAX};

    quiet_panics();
    let named = |bug: &Bug| match only {
        Some(part) => format!("{bug:?}").contains(part),
        None => !NOT_YET.contains(bug),
    };
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(named).collect();
    let jobs = jobs.unwrap_or_else(processors);
    if !json {
        println!("{HEAD}");
    }
    let show = |proof: &flotilla_sim::prove::Proof| {
        if !json {
            println!("{}", proof.row());
        }
    };
    let proofs = flotilla_sim::prove::prove(&bugs, jobs, show);
    if json {
        let rows = proofs.iter().map(|proof| {
            let seed = proof.found.as_ref().map(|(seed, _)| *seed);
            let hazard = flotilla_sim::prove::circumstances(proof.bug);
            serde_json::json!({
                "bug": format!("{:?}", proof.bug), "seed": seed, "tried": proof.tried, "hazard": hazard, "rule": proof.rule(),
            })
        });
        let rows: Vec<serde_json::Value> = rows.collect();
        println!(
            "{}",
            serde_json::json!({ "schema": "flotilla-sim-prove-3", "seeds_max": SEEDS_MAX, "bugs": rows })
        );
    }
    let seeds: u64 = proofs.iter().map(|proof| proof.tried).sum();
    let missed: Vec<_> = proofs.iter().filter(|proof| !proof.holds()).collect();
    for proof in &missed {
        match (&proof.found, &proof.control) {
            (Some((seed, _)), Some(what)) => {
                eprintln!("{:?}: seed {seed} doesn't hold without it either: {what}", proof.bug);
            }
            _ => eprintln!("{:?} wasn't found within {SEEDS_MAX} seeds", proof.bug),
        }
    }
    eprintln!(
        "{} of {} bugs found, each within {SEEDS_MAX} seeds, {seeds} in all; the seeds that found them hold without",
        proofs.len() - missed.len(),
        proofs.len()
    );
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(not(debug_assertions))]
const NO_BUGS: &str =
    "no bug can be planted in this build: cargo run --profile sim --bin flotilla-sim -- prove";

#[cfg(not(debug_assertions))]
fn plant(_name: &str) -> Result<(), String> {
    Err(NO_BUGS.to_owned())
}

#[cfg(not(debug_assertions))]
fn prove(_jobs: Option<usize>, _only: Option<&str>, _json: bool) -> ExitCode {
    eprintln!("{NO_BUGS}");
    ExitCode::from(2)
}
