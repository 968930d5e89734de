//! The command line of `flotilla-bench kv`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::scenario::Name;
use crate::distribution::Distribution;
use crate::error::{BenchError, Result};
use crate::etcd;
use crate::target::peer::Peer;

/// Load on a Flotilla cluster, side by side with the systems people use today
///
/// Without a load of its own (--clients, --pipeline, --rate, --reads) it runs four named ones: SET with 64 clients, SET
/// with 64 clients and a pipeline of 16, GET with 64 clients, SET with one client; on a cluster it starts itself, and on
/// etcd and Redis if they are installed.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  flotilla-bench kv --quick
  flotilla-bench kv --quick --spawn 0 --peers etcd,redis            the peers alone
  flotilla-bench kv --target 10.0.0.1:7101 --clients 64 --reads 50 --distribution zipfian --seconds 30
  flotilla-bench kv --target 10.0.0.1:7101 --clients 64 --rate 20000 --hgrm open.hgrm")]
pub(crate) struct KvArgs {
    /// A cluster that runs already: any of its addresses; or a single Redis
    #[arg(long, value_name = "ADDR[,ADDR…]", value_delimiter = ',', help_heading = "What is measured")]
    pub(crate) target: Vec<String>,
    /// Don't ask the target for a cluster
    #[arg(long, requires = "target", help_heading = "What is measured")]
    pub(crate) plain: bool,
    /// The user to be; the password is taken from FLOTILLA_PASSWORD
    #[arg(long, value_name = "NAME", requires = "target", help_heading = "What is measured")]
    pub(crate) user: Option<String>,
    /// Processes of the target on this machine, to count their CPU time
    #[arg(long, value_name = "PID[,PID…]", value_delimiter = ',', requires = "target")]
    #[arg(help_heading = "What is measured")]
    pub(crate) pids: Vec<u32>,
    /// Start a local Flotilla cluster of so many nodes; 0 for none [default: 3 without --target]
    #[arg(long, value_name = "NODES", conflicts_with = "target", value_parser = value_parser!(u16).range(..=9))]
    #[arg(help_heading = "What is measured")]
    pub(crate) spawn: Option<u16>,
    /// The flotilla program [default: the one beside this program]
    #[arg(long, value_name = "PATH", conflicts_with = "target", help_heading = "What is measured")]
    pub(crate) flotilla: Option<PathBuf>,
    /// Cores of each node that is started
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=64))]
    #[arg(help_heading = "What is measured")]
    pub(crate) cores: u16,
    /// Raft groups of a cluster that is started
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..))]
    #[arg(help_heading = "What is measured")]
    pub(crate) groups: u16,
    /// Systems to compare with [default: etcd,redis with the named loads and no --target]
    #[arg(long, value_name = "PEER[,PEER…]", value_delimiter = ',', help_heading = "What is measured")]
    pub(crate) peers: Option<Vec<Peer>>,
    /// Connections of a load on etcd, at most; clients beyond share them
    #[arg(long, default_value_t = etcd::CONNECTIONS_MAX, value_parser = at_least_one)]
    #[arg(help_heading = "What is measured")]
    pub(crate) etcd_connections: usize,
    /// Where servers keep their data: a folder on a real disk, in which a temporary one is made [default: here]
    #[arg(long, help_heading = "What is measured")]
    pub(crate) dir: Option<PathBuf>,

    /// Clients, each with a connection to every leader
    #[arg(short = 'c', long, value_parser = at_least_one, help_heading = "Load")]
    pub(crate) clients: Option<usize>,
    /// Requests each client keeps in flight
    #[arg(short = 'P', long, value_parser = at_least_one, help_heading = "Load")]
    pub(crate) pipeline: Option<usize>,
    /// Open loop: so many requests a second on a fixed schedule, latency measured from when each was due
    #[arg(long, value_name = "PER_SECOND", help_heading = "Load")]
    pub(crate) rate: Option<f64>,
    /// Percent of GETs; the others are SETs
    #[arg(long, value_name = "PERCENT", value_parser = value_parser!(u8).range(..=100), help_heading = "Load")]
    pub(crate) reads: Option<u8>,
    /// Only these of the named loads
    #[arg(long, value_name = "NAME[,NAME…]", value_delimiter = ',', help_heading = "Load")]
    #[arg(conflicts_with_all = ["clients", "pipeline", "rate", "reads"])]
    pub(crate) scenarios: Vec<Name>,
    /// How many keys there are [default: 100000; 10000 with --quick]
    #[arg(long, value_parser = value_parser!(u64).range(1..=1_000_000_000_000), help_heading = "Load")]
    pub(crate) keys: Option<u64>,
    /// How often each key is asked for: uniform, zipfian or zipfian:THETA
    #[arg(long, default_value = "uniform", help_heading = "Load")]
    pub(crate) distribution: Distribution,
    /// Bytes of a value
    #[arg(long, default_value_t = 64, help_heading = "Load")]
    pub(crate) value_bytes: usize,
    /// Event loops of the load generator
    #[arg(long, default_value_t = 1, value_parser = at_least_one, help_heading = "Load")]
    pub(crate) threads: usize,

    /// Everything in under 40 seconds
    #[arg(long, help_heading = "Measuring")]
    pub(crate) quick: bool,
    /// How long each load is measured, in each round [default: 5; 0.55 with --quick]
    #[arg(long, value_parser = seconds, help_heading = "Measuring")]
    pub(crate) seconds: Option<Duration>,
    /// How long each load runs before it is measured [default: 1; 0.15 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Measuring")]
    pub(crate) warmup: Option<Duration>,
    /// Rounds over all targets: what drifts, drifts for all of them
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u16).range(1..=1000))]
    #[arg(help_heading = "Measuring")]
    pub(crate) rounds: u16,

    /// One JSON object instead of tables
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Write latencies as HdrHistogram percentiles; with several results, each gets its name into the file's
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) hgrm: Option<PathBuf>,
}

impl KvArgs {
    /// A load of the user's own, instead of the named ones.
    pub(crate) fn is_custom(&self) -> bool {
        self.clients.is_some() || self.pipeline.is_some() || self.rate.is_some() || self.reads.is_some()
    }

    /// What clap can't see.
    pub(crate) fn check(&self) -> Result<()> {
        let usage = |text: &str| Err(BenchError::Usage(text.to_owned()));
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e8)) {
            return usage("--rate is a number of requests a second, above 0");
        }
        if self.seconds.is_some_and(|seconds| seconds.is_zero()) {
            return usage("--seconds is above 0");
        }
        if self.value_bytes > 64 << 20 {
            return usage("--value-bytes is at most 64 MiB");
        }
        let clients = self.clients.unwrap_or(64);
        if self.threads > clients || (!self.is_custom() && self.threads > 1 && self.has_single()) {
            return usage("--threads: there are fewer clients than that (set_1 has one)");
        }
        if clients.saturating_mul(self.pipeline.unwrap_or(1)) > 1 << 20 {
            return usage("--clients times --pipeline is at most 1048576");
        }
        if self.plain && self.target.len() > 1 {
            return usage("--plain takes one --target: there is no way to tell which key is where");
        }
        Ok(())
    }

    fn has_single(&self) -> bool {
        self.scenarios.is_empty() || self.scenarios.contains(&Name::Set1)
    }
}

pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err("not a number".to_owned()),
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match (0.0..=86_400.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("between 0 and 86400".to_owned()),
    }
}
