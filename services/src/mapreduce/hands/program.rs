//! A program that is one job: what the `main` of somebody's own job calls.

use super::local::{self, LocalOptions};
use super::plan::{Wish, plan};
use crate::mapreduce::coordinator::Settings;
use crate::mapreduce::job::Maker;
use crate::mapreduce::{MrError, Registry};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

/// Started as a worker, the program has this as its only argument.
const WORKER: &str = "--flotilla-worker";
const USAGE: &str =
    "--input PATH… --output DIR [--overwrite] [--workers N] [--reducers R] [--arg NAME=VALUE…]";

/// Runs the job that the command line asks for, with this program as its workers. Exit status: 0 done, 1 failed, 2 usage.
pub fn main(name: &str, maker: Maker) -> ExitCode {
    let mut registry = Registry::default();
    registry.add(name, "this program's job", maker);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == [WORKER] {
        return end(local::work(registry).map(|()| String::new()));
    }
    end(wish(name, &arguments).and_then(|wish| run(wish, &registry)))
}

fn end(done: Result<String, MrError>) -> ExitCode {
    match done {
        Ok(said) => {
            if !said.is_empty() {
                println!("{said}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if matches!(error, MrError::Rejected(_)) { 2 } else { 1 })
        }
    }
}

fn run(wish: Wish, registry: &Registry) -> Result<String, MrError> {
    let options = LocalOptions {
        workers: wish.workers,
        program: std::env::current_exe().map_err(MrError::io("finding", "this program"))?,
        arguments: vec![WORKER.to_owned()],
        settings: Settings::default(),
        replace_workers: true,
    };
    let status = local::run(plan(wish, registry, None)?, &options, &AtomicBool::new(false), |_| {})?;
    match status.why {
        None => Ok(format!("{}: {} records", status.output, status.records_out)),
        Some(why) => {
            Err(MrError::User { what: format!("{} {}: {why}", status.name, status.state), at: None })
        }
    }
}

fn wish(name: &str, arguments: &[String]) -> Result<Wish, MrError> {
    let cpus = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let mut wish = Wish {
        job: name.to_owned(),
        workers: u32::try_from(cpus).unwrap_or(2),
        split_bytes: 16 << 20,
        memory_bytes: 128 << 20,
        attempts_max: 4,
        backups: true,
        ..Wish::default()
    };
    let wrong = |what: String| MrError::Rejected(format!("{what}\nusage: {name} {USAGE}"));
    let mut arguments = arguments.iter();
    while let Some(flag) = arguments.next() {
        if flag == "--overwrite" {
            wish.overwrite = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| wrong(format!("{flag}: its value is missing")))?;
        let number = || value.parse().map_err(|_| wrong(format!("{flag} {value}: not a number")));
        match flag.as_str() {
            "--input" => wish.inputs.push(value.clone()),
            "--output" => wish.output.clone_from(value),
            "--workers" => wish.workers = number()?,
            "--reducers" => wish.reducers = Some(number()?),
            "--arg" => {
                let (name, value) = value.split_once('=').ok_or_else(|| wrong(format!("{flag} {value}")))?;
                wish.args.insert(name.to_owned(), value.to_owned());
            }
            _ => return Err(wrong(format!("{flag}: there is no such flag"))),
        }
    }
    if wish.inputs.is_empty() || wish.output.is_empty() {
        return Err(wrong("--input and --output are needed".to_owned()));
    }
    Ok(wish)
}
