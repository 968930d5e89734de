//! `flotilla-sim`: many seeds, or one again.

use clap::{Parser, Subcommand};
use flotilla_sim::world::{Outcome, simulate};
use std::process::ExitCode;

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
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Run one seed again.
    Replay {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// Print everything that happens.
        #[arg(long)]
        trace: bool,
    },
    /// Run one node, as `flotilla serve` does: what the tests of this crate start.
    #[command(hide = true, disable_help_flag = true)]
    Serve {
        /// For `flotilla serve`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _options: Vec<String>,
    },
}

fn main() -> ExitCode {
    match Options::parse().command {
        Command::Run { seeds, start, json } => run(start, seeds, json),
        Command::Replay { seed, trace } => {
            let outcome = simulate(seed, trace);
            if outcome.failure.is_some() {
                report(seed, &outcome);
                return ExitCode::FAILURE;
            }
            println!("seed {seed} holds: {} commands, trace {:016x}", outcome.answered, outcome.trace_hash);
            ExitCode::SUCCESS
        }
        Command::Serve { .. } => flotilla_services::cli::main(),
    }
}

fn run(start: u64, seeds: u64, json: bool) -> ExitCode {
    let started = std::time::Instant::now();
    let (mut answered, mut committed, mut elections, mut crashes, mut rots, mut undecided) =
        (0, 0, 0, 0, 0, 0);
    let (mut wipes, mut changes) = (0, 0);
    for seed in start..start + seeds {
        let outcome = simulate(seed, false);
        if outcome.failure.is_some() {
            report(seed, &outcome);
            return ExitCode::FAILURE;
        }
        if seed < start + 10 {
            let again = simulate(seed, false);
            if again.trace_hash != outcome.trace_hash {
                eprintln!(
                    "seed {seed} isn't deterministic: {:016x} and {:016x}",
                    outcome.trace_hash, again.trace_hash
                );
                return ExitCode::FAILURE;
            }
        }
        answered += outcome.answered;
        committed += outcome.committed;
        elections += outcome.elections;
        crashes += outcome.crashes;
        rots += outcome.rots;
        wipes += outcome.wipes;
        changes += outcome.changes;
        undecided += outcome.undecided;
    }
    let seconds = started.elapsed().as_secs_f64();
    let per_minute = seeds as f64 * 60.0 / seconds;
    if json {
        let found = serde_json::json!({
            "schema": "flotilla-sim-1", "seeds": seeds, "start": start, "answered": answered, "committed": committed,
            "elections": elections, "crashes": crashes, "rots": rots, "wipes": wipes, "changes": changes, "undecided": undecided, "seconds": seconds,
        });
        println!("{found}");
    } else {
        println!(
            "{seeds} seeds hold: {answered} commands answered, {committed} entries committed, {elections} elections, \
             {crashes} crashes, {rots} rotten disks, {wipes} wiped ones, {changes} changes of members, {undecided} histories undecided; {seconds:.1} s, {per_minute:.0} seeds a minute"
        );
    }
    ExitCode::SUCCESS
}

fn report(seed: u64, outcome: &Outcome) {
    for line in &outcome.tail {
        eprintln!("{line}");
    }
    eprintln!("\nseed {seed} fails: {}", outcome.failure.as_deref().unwrap_or("it doesn't"));
    eprintln!("replay it: cargo run --release --bin flotilla-sim -- replay --seed {seed} --trace");
}
