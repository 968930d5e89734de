//! The `simulator` command: how much of a cluster's life a second of a processor's time shows. The seeds are run by `flotilla-sim`, as
//! anybody would run them, in a process of its own.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, value_parser};
use serde::Deserialize;

use crate::compare::result::TargetInfo;
use crate::error::{BenchError, Result};
use crate::figures::{Figures, Measured};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::report::{Goal, note};
use crate::target::built::beside;
use crate::target::process::dying_with_us;
use crate::turn::SUBJECT;

const SCENARIO: &str = "simulator";
/// Commands of simulated clients in a second of processor time.
const COMMANDS: Goal = Goal::AtLeast(50_000.0);

/// The simulator: commands of simulated clients in a second of processor time
///
/// Every round is other seeds, each a cluster under faults whose histories are checked.
#[derive(Clone, Debug, Args)]
pub(crate) struct SimulatorArgs {
    /// A tenth of the seeds
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often [default: 3; 2 with --quick]
    #[arg(long, value_parser = value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: Option<u16>,
    /// Seeds of a round [default: 500; 50 with --quick]
    #[arg(long, value_parser = value_parser!(u64).range(1..=1_000_000))]
    pub(crate) seeds: Option<u64>,
    /// The flotilla-sim program [default: the one beside this]
    #[arg(long)]
    pub(crate) flotilla_sim: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `flotilla-sim run --json` says.
#[derive(Debug, Deserialize)]
struct Said {
    seeds: u64,
    answered: u64,
    elections: u64,
    seconds: f64,
    commands_per_cpu_second: f64,
}

/// Runs the command.
pub(crate) fn run(args: &SimulatorArgs) -> Result<()> {
    measure(args, &Interrupt::install()?)?.print(args.json)
}

/// All rounds, for a result file.
pub(crate) fn measure(args: &SimulatorArgs, interrupt: &Interrupt) -> Result<Measured> {
    let from = Instant::now();
    let program = args.flotilla_sim.clone().or_else(|| beside("flotilla-sim"));
    let program = program.ok_or_else(|| BenchError::Missing {
        program: "flotilla-sim".to_owned(),
        hint: " beside this program: cargo build --release --bin flotilla-sim, or name it by --flotilla-sim"
            .to_owned(),
    })?;
    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 3 });
    let seeds = args.seeds.unwrap_or(if args.quick { 50 } else { 500 });
    let mut figures = Figures::default();
    for round in 0..u64::from(rounds) {
        interrupt.check()?;
        note(&format!("{seeds} seeds from {} on", round * seeds));
        let said = simulate(&program, round * seeds, seeds);
        // Ctrl-C reaches it, too.
        interrupt.check()?;
        let said = said?;
        figures.ratio("simulator_commands_per_cpu_second", said.commands_per_cpu_second, COMMANDS);
        figures.observe("simulator_seeds_per_minute", said.seeds as f64 * 60.0 / said.seconds);
        figures.observe("simulator_commands_per_seed", said.answered as f64 / said.seeds as f64);
        figures.observe("simulator_elections_per_seed", said.elections as f64 / said.seeds as f64);
    }
    let targets = vec![TargetInfo {
        name: SUBJECT.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        durability: "simulated disks, networks and clocks under faults; histories are checked".to_owned(),
        processes: 1,
    }];
    let here = std::env::current_dir().map_err(BenchError::io("finding the working folder"))?;
    let machine = Machine::of(&here);
    Ok(Measured { machine, targets, floors: Vec::new(), figures, cells: Vec::new(), from })
}

fn simulate(program: &Path, start: u64, seeds: u64) -> Result<Said> {
    let (start, seeds) = (start.to_string(), seeds.to_string());
    let mut command = dying_with_us(program.as_os_str());
    let ended = command.args(["run", "--json", "--start", &start, "--seeds", &seeds]).output();
    let ended = ended.map_err(BenchError::io(format!("starting {}", program.display())))?;
    if !ended.status.success() {
        let said = [ended.stdout, ended.stderr].concat();
        return Err(failed(String::from_utf8_lossy(&said).trim()));
    }
    serde_json::from_slice(&ended.stdout)
        .map_err(|error| failed(format!("flotilla-sim said what isn't understood: {error}")))
}

fn failed(reason: impl ToString) -> BenchError {
    BenchError::Failed {
        scenario: SCENARIO.to_owned(),
        target: SUBJECT.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_simulator_says_is_understood_and_what_fails_is_told() {
        let said = r#"{"seeds": 4, "start": 0, "answered": 800, "committed": 500, "elections": 8, "seconds": 2.0, "cpu_seconds": 4.0,
            "commands_per_cpu_second": 200.0, "faults": {"loss": 3}}"#;
        let folder = tempfile::tempdir().unwrap();
        let fake = |text: &str| {
            let path = folder.path().join("flotilla-sim");
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        let args = |program| SimulatorArgs {
            quick: true,
            rounds: None,
            seeds: None,
            flotilla_sim: Some(program),
            json: false,
        };
        let interrupt = Interrupt::default();
        let found = measure(&args(fake(&format!("cat <<END\n{said}\nEND"))), &interrupt).unwrap();
        let (compared, unmeasured) = found.figures.compared();
        let of = |name: &str| compared.iter().find(|it| it.figure.contains(name)).map(|it| it.value);
        assert_eq!(
            (of("commands_per_cpu_second"), of("seeds_per_minute"), unmeasured.len()),
            (Some(200.0), Some(120.0), 0)
        );
        for (says, told) in [("echo seed 7 fails; exit 1", "seed 7 fails"), ("echo '{}'", "isn't understood")]
        {
            let error = measure(&args(fake(says)), &interrupt).err().unwrap().to_string();
            assert!(error.contains(told), "{error}");
        }
        assert!(
            measure(&args(folder.path().join("none")), &interrupt)
                .err()
                .unwrap()
                .to_string()
                .contains("none")
        );
    }
}
