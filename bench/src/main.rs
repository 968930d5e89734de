//! Latency and throughput of Flotilla, side by side with the systems people use today.
//!
//! | module | what |
//! |---|---|
//! | [`compare`] | the `compare` command: all of the below beside the peers, as result files |
//! | [`publish`] | the `report` command: a page and tables of result files |
//! | [`kv`] | the `kv` command: loads, rounds, ratios |
//! | [`wal`] | the `wal` command: the log beside the disk and raft-engine |
//! | [`raft`] | the `raft` command: agreement beside raft-rs and openraft, many groups, a leader's death |
//! | [`mapreduce`] | the `mapreduce` command: whole jobs beside GNU tools, DuckDB, PySpark |
//! | [`mesh`] | the `mesh` command: from core to core, beside rings and channels |
//! | [`runtime`] | the `runtime` command: a core beside tokio and monoio |
//! | [`reshard`] | the `reshard` command: a shard that moves between groups, and what its clients see |
//! | [`nodes`] | the `nodes` command: what nodes promise to those who operate them: restarts, memory, a second core |
//! | [`simulator`] | the `simulator` command: how much of a cluster's life a second of CPU time shows |
//! | [`soak`] | the `soak` command: a long load while nodes are killed and stopped, with every read checked |
//! | [`engine`], [`zookeeper`], [`etcd`] | the load generator: RESP and ZooKeeper's protocol over epoll, gRPC over HTTP/2 |
//! | [`target`] | what is measured: processes started here, or running already |
//! | [`workload`], [`distribution`] | which operations, when |
//! | [`turn`] | one load of a layer on one target, as a process of its own |
//! | [`recorder`], [`cpu`] | what happened, and what it cost |
//! | [`hot`], [`instructions`] | the hot paths by themselves, for Criterion and callgrind |
//! | [`floor`], [`machine`] | what the machine can do at best, and which it is |
//! | [`figures`], [`report`], [`error`] | what is told in the end |
//!
//! The load generator shares no code with the servers it measures but the hash from a key to its slot, and the random numbers.
#![forbid(unsafe_code)]

mod compare;
mod cpu;
mod distribution;
mod engine;
mod error;
mod etcd;
mod figures;
mod floor;
mod hot;
mod instructions;
mod interrupt;
mod kv;
mod login;
mod machine;
mod mapreduce;
mod mesh;
mod nodes;
mod publish;
mod raft;
mod recorder;
mod report;
mod reshard;
mod resp;
mod runtime;
mod simulator;
mod soak;
mod target;
mod timer;
mod turn;
mod wal;
mod workload;
mod zookeeper;

/// As in a node: what is measured here of its parts is measured with its allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Latency and throughput of Flotilla, side by side with the systems people use today
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Kv(Box<kv::args::KvArgs>),
    Wal(wal::WalArgs),
    Raft(raft::RaftArgs),
    #[command(name = "mapreduce")]
    MapReduce(mapreduce::MapReduceArgs),
    Compare(Box<compare::args::CompareArgs>),
    Report(publish::ReportArgs),
    Soak(soak::SoakArgs),
    Mesh(mesh::MeshArgs),
    Runtime(runtime::RuntimeArgs),
    /// What a shard on its way to another group costs
    Reshard(reshard::ReshardArgs),
    Nodes(nodes::NodesArgs),
    Simulator(simulator::SimulatorArgs),
    /// Each hot path once, for bench/instructions.sh
    #[command(hide = true)]
    Instructions,
    #[command(hide = true)]
    Turn(turn::TurnArgs),
    #[command(hide = true)]
    RaftNode(raft::processes::NodeArgs),
    #[command(hide = true)]
    EchoServer(runtime::EchoArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Kv(args) => kv::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Report(args) => publish::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Wal(args) => wal::run(&args),
        Command::Raft(args) => raft::run(&args),
        Command::MapReduce(args) => mapreduce::run(&args),
        Command::Reshard(args) => reshard::run(&args),
        Command::Nodes(args) => nodes::run(&args),
        Command::Simulator(args) => simulator::run(&args),
        Command::Instructions => instructions::run(),
        Command::Mesh(args) => mesh::run(&args),
        Command::Runtime(args) => runtime::run(&args),
        Command::EchoServer(args) => runtime::serve(&args),
        Command::Turn(args) => turn::run(&args),
        Command::RaftNode(args) => raft::processes::node(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::note(&format!("flotilla-bench: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        for wrong in
            [&["kv", "--clients", "0"][..], &["kv", "--reads", "101"], &["kv", "--distribution", "zipf"]]
        {
            let words = std::iter::once("flotilla-bench").chain(wrong.iter().copied());
            assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
