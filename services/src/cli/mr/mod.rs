//! `flotilla mr`: MapReduce jobs.

mod progress;
mod run;

use super::Failure;
use crate::mapreduce::hands::{labs, local};
use crate::mapreduce::{MrError, Registry};
use clap::Subcommand;

/// Subcommands of `flotilla mr`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a job, and wait for its end.
    Run(Box<run::Options>),
    /// The jobs that this program knows.
    Jobs,
    /// A worker process, as `run` starts it.
    #[command(hide = true)]
    Worker,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Run(options) => run::run(options),
        Command::Jobs => {
            for (name, what) in registry().names().filter(|(name, _)| !name.starts_with("lab-")) {
                println!("{name:<10} {what}");
            }
            Ok(())
        }
        Command::Worker => local::work(registry()).map_err(Failure::failed),
    }
}

/// The jobs of this program.
fn registry() -> Registry {
    let mut registry = Registry::built_in();
    labs::register(&mut registry);
    registry
}

/// A job that can't be as it was asked for was asked for wrongly.
fn failure(error: MrError) -> Failure {
    match error {
        MrError::Rejected(what) => Failure::Usage(what),
        other => Failure::failed(other),
    }
}
