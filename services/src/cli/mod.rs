//! The `flotilla` command.
//!
//! Exit status: 0 done, 1 failed, 2 usage (a wrong flag, a configuration that can't be). Every error is one line
//! on standard error: what, where, what to do.

mod backup;
mod cluster;
mod demo;
mod demo_shards;
mod demo_words;
mod dev;
mod doctor;
mod exec;
mod generate;
mod load;
mod logging;
mod login;
mod mr;
mod progress;
mod reload;
mod serve;
mod systemd;
mod top;
mod wal;
mod words;
mod workers;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A sharded, linearizable, durable key/value store: one thread per core on io_uring, many Raft groups over one
/// log per core, spoken to in the Redis protocol.
#[derive(Debug, Parser)]
#[command(name = "flotilla", version, arg_required_else_help = true)]
struct Flotilla {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Three nodes in a temporary folder: load, kill the leader, restart it, check every acknowledged write.
    Demo(demo::Options),
    /// A local cluster that stays up until Ctrl-C, each node a process of its own.
    Dev(dev::Options),
    /// Run one node.
    Serve(serve::Options),
    /// Send one command, for machines without redis-cli.
    Exec(exec::Options),
    /// What nodes do, in a terminal, from their admin ports.
    Top(top::Options),
    /// Tell a running cluster something.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Write a whole cluster to a folder, consistent shard by shard, while it serves.
    Backup(backup::BackupOptions),
    /// Load a backup into a cluster, with any number of groups and shards.
    Restore(backup::RestoreOptions),
    /// Is this host ready for a node: kernel, limits, CPUs, disk, network; and what mends it.
    Doctor(doctor::Options),
    /// MapReduce jobs.
    #[command(subcommand)]
    Mr(mr::Command),
    /// Look into a write-ahead log.
    #[command(subcommand)]
    Wal(wal::Command),
    /// Print completions for a shell, or write man pages.
    #[command(subcommand)]
    Generate(generate::Command),
}

/// How a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was used wrongly: exit status 2.
    Usage(String),
    /// It was used rightly and failed: exit status 1.
    Failed(String),
}

impl Failure {
    fn failed(error: impl ToString) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let done = match Flotilla::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Dev(options) => dev::run(&options),
        Command::Serve(options) => serve::run(&options),
        Command::Exec(options) => exec::run(&options),
        Command::Top(options) => top::run(&options),
        Command::Cluster(command) => cluster::run(&command),
        Command::Backup(options) => backup::run(&options),
        Command::Restore(options) => backup::restore(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Mr(command) => mr::run(&command),
        Command::Wal(command) => wal::run(&command),
        Command::Generate(command) => generate::run(&command),
    };
    let (status, message) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => (1, message),
        Err(Failure::Usage(message)) => (2, message),
    };
    if !message.is_empty() {
        eprintln!("flotilla: {message}");
    }
    ExitCode::from(status)
}

/// This process is killed when the thread that started it ends.
fn die_with_parent() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| Failure::Failed(format!("can't tie this process to its parent: {error}")))
}

/// A flag that Ctrl-C and SIGTERM set.
pub(crate) fn interrupted() -> Result<std::sync::Arc<std::sync::atomic::AtomicBool>, Failure> {
    let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second time it kills: a tool that hangs must be stoppable.
        signal_hook::flag::register_conditional_shutdown(signal, 130, std::sync::Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, std::sync::Arc::clone(&flag)))
            .map_err(|error| Failure::Failed(format!("can't listen for signals: {error}")))?;
    }
    Ok(flag)
}
