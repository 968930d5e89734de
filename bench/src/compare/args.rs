//! The command line of `flotilla-bench compare`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};

use crate::error::{BenchError, Result};
use crate::kv::args::{at_least_one, seconds};
use crate::target::peer::Peer;

/// Flotilla beside the systems people use today: the same work, in one run, with intervals
///
/// Installs the peers if need be, starts everything, puts the same loads on each in turn, round after round, and writes one
/// JSON file with all that was seen: `flotilla-bench report` makes a page of it. docs/benchmarking.md has the method.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  flotilla-bench compare kv --quick
  flotilla-bench compare kv --minutes 10 --out results
  flotilla-bench compare kv --sets ycsb,mixes --peers etcd,redis
  flotilla-bench compare all --strict --out results
  flotilla-bench report results")]
pub(crate) struct CompareArgs {
    /// What is compared
    #[arg(value_enum, default_value_t = What::Kv)]
    pub(crate) what: What,
    /// Where the result goes: a folder, made if need be
    #[arg(long, value_name = "DIR", default_value = "bench-results", help_heading = "Output")]
    pub(crate) out: PathBuf,
    /// Refuse to measure on a noisy machine, and to write a noisy result, instead of marking it
    #[arg(long, help_heading = "Output")]
    pub(crate) strict: bool,
    /// Print the result file instead of tables
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Systems to compare with [default: all but naive]
    #[arg(long, value_name = "PEER[,PEER…]", value_delimiter = ',', help_heading = "What is measured")]
    pub(crate) peers: Option<Vec<Peer>>,
    /// Don't install peers that are missing; measure without them
    #[arg(long, help_heading = "What is measured")]
    pub(crate) no_install: bool,
    /// The flotilla program [default: the one beside this program]
    #[arg(long, value_name = "PATH", help_heading = "What is measured")]
    pub(crate) flotilla: Option<PathBuf>,
    /// Cores of each of Flotilla's nodes [default: 1]
    #[arg(long, value_parser = value_parser!(u16).range(1..=64), help_heading = "What is measured")]
    pub(crate) cores: Option<u16>,
    /// Where servers keep their data: a folder on a real disk, in which a temporary one is made [default: here]
    #[arg(long, help_heading = "What is measured")]
    pub(crate) dir: Option<PathBuf>,

    /// Which loads on key/value stores [default: grid,curves]
    #[arg(long, value_name = "SET[,SET…]", value_delimiter = ',', value_enum, help_heading = "Loads")]
    pub(crate) sets: Option<Vec<Set>>,
    /// Of the grid: numbers of clients [default: 1,16,64,256; 1,64 with --quick]
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', value_parser = at_least_one)]
    #[arg(help_heading = "Loads")]
    pub(crate) clients: Option<Vec<usize>>,
    /// Of the grid: requests that each client keeps in flight [default: 1,16]
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', value_parser = at_least_one)]
    #[arg(help_heading = "Loads")]
    pub(crate) pipeline: Option<Vec<usize>>,
    /// Of the grid: bytes of a value [default: 64,1024; 64 with --quick]
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', value_parser = at_least_one)]
    #[arg(help_heading = "Loads")]
    pub(crate) value_bytes: Option<Vec<usize>>,
    /// How many keys there are [default: 100000; 10000 with --quick]
    #[arg(long, value_parser = value_parser!(u64).range(1..=1_000_000_000), help_heading = "Loads")]
    pub(crate) keys: Option<u64>,

    /// Everything in about a minute: two rounds of short turns, for a first look
    #[arg(long, help_heading = "Measuring")]
    pub(crate) quick: bool,
    /// Spend about so many minutes: sets how long each load on key/value stores runs
    #[arg(long, conflicts_with_all = ["quick", "seconds", "warmup"], help_heading = "Measuring")]
    pub(crate) minutes: Option<f64>,
    /// How long each load is measured, in each round [default: 1; 0.25 with --quick]
    #[arg(long, value_parser = seconds, help_heading = "Measuring")]
    pub(crate) seconds: Option<Duration>,
    /// How long each load runs before it is measured [default: 0.4; 0.1 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Measuring")]
    pub(crate) warmup: Option<Duration>,
    /// Rounds over everything: what drifts, drifts for all [default: 5, of mapreduce, nodes, raft, runtime, simulator and wal 3; 2 with --quick]
    #[arg(long, value_parser = value_parser!(u16).range(1..=1000), help_heading = "Measuring")]
    pub(crate) rounds: Option<u16>,
}

/// What can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Key/value stores: etcd, ZooKeeper, and Redis in its modes of durability
    Kv,
    /// The write-ahead log: raft-engine, the disk itself
    Wal,
    /// Agreement: raft-rs, openraft
    Raft,
    /// A shard on its way to another group: what its clients and the others see of it
    Reshard,
    /// What nodes promise to those who operate them: restarts, memory, a second core; Redis
    Nodes,
    /// Whole MapReduce jobs: GNU tools, ripgrep, DuckDB, PySpark
    #[value(name = "mapreduce")]
    MapReduce,
    /// From core to core: rtrb, an eventfd, crossbeam's and glommio's channels
    Mesh,
    /// A core as an echo server: tokio, monoio
    Runtime,
    /// The simulator: how much of a cluster's life a second of CPU time shows
    Simulator,
    /// One after the other
    All,
}

impl What {
    /// In the order in which they are measured, and told.
    pub(crate) const EACH: [Self; 9] = [
        Self::Kv,
        Self::Wal,
        Self::Raft,
        Self::Reshard,
        Self::Nodes,
        Self::MapReduce,
        Self::Mesh,
        Self::Runtime,
        Self::Simulator,
    ];

    /// As on the command line and in a file's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::Wal => "wal",
            Self::Raft => "raft",
            Self::MapReduce => "mapreduce",
            Self::Mesh => "mesh",
            Self::Runtime => "runtime",
            Self::Reshard => "reshard",
            Self::Nodes => "nodes",
            Self::Simulator => "simulator",
            Self::All => "all",
        }
    }
}

/// Loads that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Set {
    /// SET and GET, by clients, pipeline and bytes of a value
    Grid,
    /// Open loops at fractions of each system's own peak
    Curves,
    /// YCSB's core workloads A to F
    Ycsb,
    /// As memtier_benchmark has them; hot keys; large values
    Mixes,
    /// Writes that arrive in bursts
    Bursts,
    /// The grid; it and all other loads that are asked for also on a Flotilla cluster of 64 groups
    Groups,
}

impl Set {
    /// As in a result file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grid => "grid",
            Self::Curves => "curves",
            Self::Ycsb => "ycsb",
            Self::Mixes => "mixes",
            Self::Bursts => "bursts",
            Self::Groups => "groups",
        }
    }
}

impl CompareArgs {
    /// What clap can't see.
    pub(crate) fn check(&self) -> Result<()> {
        let usage = |text: &str| Err(BenchError::Usage(text.to_owned()));
        let is_layer = !matches!(self.what, What::Kv | What::All);
        if let Some(option) = self.of_kv_alone().filter(|_| is_layer) {
            let name = self.what.name();
            let rounds = if self.what == What::Reshard { "" } else { " and --rounds" };
            return usage(&format!(
                "{option} is for kv, {name} doesn't heed it; here there are --quick{rounds}"
            ));
        }
        if self.what == What::Reshard && self.rounds.is_some() {
            return usage("--rounds isn't for reshard, which has moves: --quick makes them fewer");
        }
        if self.minutes.is_some_and(|minutes| !(minutes > 0.0 && minutes <= 10_000.0)) {
            return usage("--minutes is a number above 0");
        }
        if self.seconds.is_some_and(|seconds| seconds.is_zero()) {
            return usage("--seconds is above 0");
        }
        let most = |numbers: &Option<Vec<usize>>| numbers.iter().flatten().copied().max().unwrap_or(1);
        if most(&self.clients).saturating_mul(most(&self.pipeline)) > 1 << 20 {
            return usage("--clients times --pipeline is at most 1048576");
        }
        if most(&self.value_bytes) > 1 << 20 {
            return usage("--value-bytes is at most 1048576: etcd takes no more than 1.5 MiB");
        }
        Ok(())
    }

    /// The first option that was given and that only key/value stores heed.
    fn of_kv_alone(&self) -> Option<&'static str> {
        let given = [
            ("--peers", self.peers.is_some()),
            ("--cores", self.cores.is_some()),
            ("--sets", self.sets.is_some()),
            ("--clients", self.clients.is_some()),
            ("--pipeline", self.pipeline.is_some()),
            ("--value-bytes", self.value_bytes.is_some()),
            ("--keys", self.keys.is_some()),
            ("--minutes", self.minutes.is_some()),
            ("--seconds", self.seconds.is_some()),
            ("--warmup", self.warmup.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
    }

    /// Whether `set` was asked for.
    pub(crate) fn has(&self, set: Set) -> bool {
        self.sets.as_deref().unwrap_or(&[Set::Grid, Set::Curves]).contains(&set)
    }

    /// Cores of each of Flotilla's nodes.
    pub(crate) fn cores(&self) -> u16 {
        self.cores.unwrap_or(1)
    }

    /// Rounds over everything.
    pub(crate) fn rounds(&self) -> u16 {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: CompareArgs,
    }

    /// What a line says, whether it makes sense or not.
    pub(in crate::compare) fn parsed(line: &str) -> CompareArgs {
        let words = std::iter::once("compare").chain(line.split_whitespace());
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args
    }

    #[test]
    fn options_are_refused_where_nothing_would_heed_them() {
        let check = |line: &str| parsed(line).check();
        for option in [
            "--peers etcd",
            "--cores 1",
            "--sets grid",
            "--clients 1",
            "--pipeline 1",
            "--value-bytes 1",
            "--keys 1",
            "--minutes 1",
            "--seconds 1",
            "--warmup 1",
        ] {
            let name = option.split(' ').next().unwrap();
            for what in What::EACH[1..].iter().map(|what| what.name()) {
                let error = check(&format!("{what} {option}")).unwrap_err();
                assert!(matches!(error, BenchError::Usage(_)), "{what} {option}: {error}");
                let said = format!("{name} is for kv, {what} doesn't heed it");
                assert!(error.to_string().starts_with(&said), "{what} {option}: {error}");
            }
            assert!(check(&format!("kv {option}")).is_ok() && check(&format!("all {option}")).is_ok());
        }
        assert!(
            check("reshard --rounds 2").is_err()
                && check("wal --rounds 2").is_ok()
                && check("raft --quick").is_ok()
        );
    }
}
