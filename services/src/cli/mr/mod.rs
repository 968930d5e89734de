//! `flotilla mr`: MapReduce jobs.

mod access;
mod cluster;
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
    /// How jobs of a cluster are going.
    Status(cluster::StatusOptions),
    /// The jobs of a cluster, a line each.
    List(cluster::ListOptions),
    /// What the failed attempts of a cluster's job said.
    Logs(cluster::LogsOptions),
    /// Stop a job of a cluster.
    Cancel(cluster::CancelOptions),
    /// Work for the jobs of a cluster, and coordinate them when nobody else does.
    Worker(cluster::WorkerOptions),
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
        Command::Status(options) => cluster::status(options),
        Command::List(options) => cluster::list(options),
        Command::Logs(options) => cluster::logs(options),
        Command::Cancel(options) => cluster::cancel(options),
        Command::Worker(options) => match options.is_local() {
            true => local::work(registry()).map_err(Failure::failed),
            false => cluster::worker(options),
        },
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
