//! `wal`, `raft` and `mapreduce`: those commands' own rounds, and around them what a result file has: floors before and after,
//! noise, intervals.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::args::{CompareArgs, What};
use super::noise::Noise;
use super::result::{Compared, ResultFile, SCHEMA};
use crate::error::{BenchError, Result};
use crate::floor;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::report::command_line;

/// Runs the command by itself, so that its peers and its memory are those of a fresh process.
pub(super) fn run(args: &CompareArgs, what: What, interrupt: &Interrupt) -> Result<ResultFile> {
    let (from, name) = (Instant::now(), name(what));
    let folder = crate::kv::folder(args.dir.as_deref())?;
    let each = Duration::from_millis(if args.quick { 200 } else { 1000 });
    let mut floors = vec![floor::measure(folder.path(), each, interrupt)?];
    let own = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
    let mut command = Command::new(own);
    command.args([name, "--json", "--dir"]).arg(folder.path());
    if args.quick {
        command.arg("--quick");
    }
    if let Some(rounds) = args.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    if let Some(flotilla) = args.flotilla.as_ref().filter(|_| what != What::Wal) {
        command.arg("--flotilla").arg(flotilla);
    }
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(BenchError::io(format!("running flotilla-bench {name}")))?;
    interrupt.check()?;
    let failed = |reason: String| BenchError::Failed {
        scenario: "compare".to_owned(),
        target: name.to_owned(),
        reason,
    };
    if !output.status.success() {
        return Err(failed(format!("it ended with {}", output.status)));
    }
    let detail: Value = serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    floors.push(floor::measure(folder.path(), each, interrupt)?);
    Ok(ResultFile {
        schema: SCHEMA.to_owned(),
        what: name.to_owned(),
        command: command_line(),
        unix_seconds: super::unix_seconds(),
        elapsed_seconds: from.elapsed().as_secs_f64(),
        source: super::source(),
        machine: Machine::of(folder.path()),
        targets: Vec::new(),
        noise: Noise::of(&[], &floors),
        floors,
        cells: Vec::new(),
        ratios: ratios(&detail),
        detail,
    })
}

/// As on the command line and in the file's name.
fn name(what: What) -> &'static str {
    match what {
        What::Wal => "wal",
        What::Raft => "raft",
        What::MapReduce => "mapreduce",
        What::Kv | What::All => "kv",
    }
}

/// The figures with a goal and those without, with intervals.
fn ratios(detail: &Value) -> Vec<Compared> {
    let list = |name: &str| detail[name].as_array().cloned().unwrap_or_default();
    let figure = |it: &Value| {
        let rounds = it["rounds"]
            .as_array()
            .map_or_else(Vec::new, |rounds| rounds.iter().filter_map(Value::as_f64).collect());
        let compared = Compared::new("", it["name"].as_str().unwrap_or_default(), "", rounds)?;
        let goal = it["goal"].as_str().map(str::to_owned);
        Some(Compared { goal, holds: it["holds"].as_bool(), ..compared })
    };
    list("ratios").iter().chain(&list("observations")).filter_map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_get_intervals_and_keep_their_goals() {
        let detail = serde_json::json!({
            "ratios": [{ "name": "a", "value": 2.0, "goal": ">= 1", "holds": true, "rounds": [1.0, 2.0, 3.0] }],
            "observations": [{ "name": "b", "value": 5.0, "rounds": [5.0] }, { "name": "c", "rounds": [] }],
        });
        let all = ratios(&detail);
        assert_eq!(all.len(), 2, "without rounds there is nothing to tell");
        assert_eq!((all[0].figure.as_str(), all[0].low, all[0].high), ("a", 1.0, 3.0));
        assert_eq!((all[0].goal.as_deref(), all[0].holds, all[1].holds), (Some(">= 1"), Some(true), None));
    }
}
