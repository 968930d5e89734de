//! `flotilla-bench compare`: Flotilla beside its peers, and a result file of it.
//!
//! | module | what |
//! |---|---|
//! | [`args`] | the command line |
//! | [`loads`] | what `compare kv` puts on every target |
//! | [`rounds`] | targets up, rounds over everything, cells |
//! | [`setup`] | peers installed by `bench/peers/*.sh` |
//! | [`layers`] | `wal`, `raft` and `mapreduce`, wrapped |
//! | [`noise`] | whether the machine was quiet enough |
//! | [`stats`] | intervals |
//! | [`result`] | the file |
//!
//! The method, and why, is in `docs/benchmarking.md`.

pub(crate) mod args;
mod layers;
mod loads;
pub(crate) mod noise;
pub(crate) mod result;
mod rounds;
mod setup;
pub(crate) mod stats;

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::report::{self, note, number, rate, table, time};
use args::{CompareArgs, What};
use result::{Cell, ResultFile};

/// Runs the command.
pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    args.check()?;
    let interrupt = Interrupt::install()?;
    let whats = match args.what {
        What::All => vec![What::Kv, What::Wal, What::Raft, What::MapReduce],
        what => vec![what],
    };
    for what in whats {
        if !args.no_install {
            setup::install(args, what);
        }
        if args.strict {
            noise::check_idle()?;
        }
        let result = match what {
            What::Kv => rounds::run(args, &interrupt)?,
            _ => layers::run(args, what, &interrupt)?,
        };
        let marks = result.noise.marks.join("; ");
        if args.strict && !marks.is_empty() {
            return Err(BenchError::Noisy(format!("{marks}; no result was written")));
        }
        let path = result.write(&args.out)?;
        match args.json {
            true => report::print_json(&result)?,
            false => report::print(&text(&result))?,
        }
        note(&format!(
            "{:.0} s; wrote {}; `flotilla-bench report {}` makes a page of it",
            result.elapsed_seconds,
            path.display(),
            args.out.display()
        ));
    }
    Ok(())
}

/// Everything for a terminal.
fn text(result: &ResultFile) -> String {
    let mut text = String::new();
    if !result.cells.is_empty() {
        let head =
            ["load", "target", "ops/s", "p50", "p99", "p99.9", "cpu/op", "memory", "written/byte", "errors"];
        let rows: Vec<Vec<String>> = result.cells.iter().map(row).collect();
        text.push_str(&format!("\n{}\n", table(&head, &rows)));
        for target in &result.targets {
            text.push_str(&format!("{} {}: {}\n", target.name, target.version, target.durability));
        }
    }
    // The file has the others too.
    let told = result.ratios.iter().filter(|it| it.cell.is_empty() || it.figure == "throughput");
    let ratios = told.map(|it| {
        vec![
            match it.against.as_str() {
                "" => it.figure.clone(),
                against => format!("{} {} vs {against}", it.cell, it.figure),
            },
            number(it.value),
            it.interval(),
            it.goal.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let rows: Vec<Vec<String>> = ratios.collect();
    text.push_str(&format!("\n{}", table(&["ratio", "value", "interval", "goal"], &rows)));
    for cell in &result.cells {
        let remarks = cell.remarks();
        if !remarks.is_empty() {
            text.push_str(&format!("with care: {}: {remarks}\n", cell.title()));
        }
    }
    for mark in &result.noise.marks {
        text.push_str(&format!("NOISY: {mark}\n"));
    }
    text
}

fn row(cell: &Cell) -> Vec<String> {
    let unknown = || "?".to_owned();
    let latency = &cell.median.latency_us;
    let failures: u64 = cell.rounds.iter().map(crate::kv::outcome::Round::failures).sum();
    vec![
        cell.name.clone(),
        cell.target.clone(),
        rate(cell.median.operations_per_second),
        time(latency.p50),
        time(latency.p99),
        time(latency.p99_9),
        cell.cpu_us().map_or_else(unknown, time),
        cell.median_of(|round| round.memory_bytes.map(|bytes| bytes as f64))
            .map_or_else(unknown, |bytes| format!("{:.0} MiB", bytes / f64::from(1 << 20))),
        cell.median_of(|round| round.written_per_byte).map_or_else(|| "-".to_owned(), number),
        failures.to_string(),
    ]
}

/// Now.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What git calls the state of the sources beside this program, if there are any.
fn source() -> Option<String> {
    let own = std::env::current_exe().ok()?;
    let folder: &Path = own.parent()?;
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["describe", "--always", "--dirty", "--tags"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
