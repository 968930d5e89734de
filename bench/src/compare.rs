//! `flotilla-bench compare`: Flotilla beside its peers, and a result file of it.
//!
//! | module | what |
//! |---|---|
//! | [`args`] | the command line |
//! | [`loads`] | what `compare kv` puts on every target |
//! | [`goals`] | what the figures of key/value stores should be |
//! | [`rounds`] | targets up, rounds over everything, cells |
//! | [`setup`] | peers installed by `bench/peers/*.sh` |
//! | [`layers`] | the other layers, by themselves |
//! | [`noise`] | whether the machine was quiet enough |
//! | [`stats`] | intervals |
//! | [`result`] | the file |
//!
//! The method, and why, is in `docs/benchmarking.md`.

pub(crate) mod args;
mod goals;
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
use crate::figures::cells_table;
use crate::interrupt::Interrupt;
use crate::report::{self, note, number, table};
use args::{CompareArgs, What};
use result::{Compared, ResultFile};

/// Runs the command.
pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    args.check()?;
    let interrupt = Interrupt::install()?;
    let whats = match args.what {
        What::All => What::EACH.to_vec(),
        what => vec![what],
    };
    let mut failed = Vec::new();
    for what in whats {
        match one(args, what, &interrupt) {
            // Of everything, what can't be measured here is told and left out.
            Err(BenchError::Missing { program, hint }) if args.what == What::All => {
                note(&format!("without {}: no {program} found{hint}", what.name()));
            }
            // The others' hour isn't lost with it.
            Err(error) if args.what == What::All && !matches!(error, BenchError::Interrupted) => {
                note(&format!("{}: {error}", what.name()));
                failed.push(what.name());
            }
            done => done?,
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(BenchError::Partly(failed.join(", "))),
    }
}

/// Compares one thing, and writes its file.
fn one(args: &CompareArgs, what: What, interrupt: &Interrupt) -> Result<()> {
    if !args.no_install {
        setup::install(args, what);
    }
    if args.strict {
        noise::check_idle()?;
    }
    let result = match what {
        What::Kv => rounds::run(args, interrupt)?,
        _ => layers::run(args, what, interrupt)?,
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
    Ok(())
}

/// Everything for a terminal.
fn text(result: &ResultFile) -> String {
    let mut text = String::new();
    if !result.cells.is_empty() {
        text.push_str(&format!("\n{}\n", cells_table(&result.cells)));
        for target in &result.targets {
            text.push_str(&format!("{}: {}\n", target.title(), target.durability));
        }
    }
    // The file has the others too.
    let is_told = |it: &&Compared| it.cell.is_empty() || result.what == "kv" && it.figure == "throughput";
    let told = result.ratios.iter().filter(is_told);
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
    for it in &result.unmeasured {
        text.push_str(&format!("{}\n", it.told()));
    }
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
