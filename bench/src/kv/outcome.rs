//! The numbers of each load on each target: every round, and the median round.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cpu::CpuUsed;
use crate::recorder::{Latencies, Percentiles, Recorder, median};
use crate::workload::{Load, LoadSummary};

/// One round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) operations: u64,
    pub(crate) operations_per_second: f64,
    pub(crate) latency_us: Percentiles,
    /// Only where the load mixes both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_latency_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) write_latency_us: Option<Percentiles>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) misses: u64,
    pub(crate) redirects: u64,
    pub(crate) disconnects: u64,
    /// User and system seconds of all server processes for 100 000 operations.
    pub(crate) server_cpu_s_per_100k: Option<f64>,
    pub(crate) client_cpu_s_per_100k: f64,
    /// Of one CPU.
    pub(crate) client_cpu_share: f64,
    /// Of the whole machine: what neither the target nor the load generator used.
    pub(crate) foreign_cpu_share: f64,
}

impl Round {
    /// Boils down what was recorded.
    ///
    /// An open loop that was asked for more than the server can do is answered later than the load lasted: its rate is
    /// over the time the answers took. CPU time is only counted while the load lasts, and so are the replies that it
    /// is divided by.
    pub(crate) fn new(recorder: &Recorder, used: CpuUsed, load: &Load) -> Self {
        let all = recorder.all();
        let (operations, seconds) = (recorder.operations(), load.seconds.as_secs_f64());
        let answered = recorder.last_reply_ns as f64 / 1e9 - load.warmup.as_secs_f64();
        let mixed = !recorder.reads.is_empty() && !recorder.writes.is_empty();
        let per_100k = |cpu: f64| cpu * 1e5 / recorder.replies_in_window as f64;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        Self {
            operations,
            operations_per_second: operations as f64 / answered.max(seconds),
            latency_us: Percentiles::of(&all),
            read_latency_us: mixed.then(|| Percentiles::of(&recorder.reads)),
            write_latency_us: mixed.then(|| Percentiles::of(&recorder.writes)),
            errors: recorder.errors.clone(),
            misses: recorder.misses,
            redirects: recorder.redirects,
            disconnects: recorder.disconnects,
            server_cpu_s_per_100k: used.servers.map(per_100k),
            client_cpu_s_per_100k: per_100k(used.client),
            client_cpu_share: used.client / seconds,
            foreign_cpu_share: used.foreign / seconds / cpus,
        }
    }

    /// Operations that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// The median over rounds, field by field.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Median {
    pub(crate) operations_per_second: f64,
    pub(crate) latency_us: Percentiles,
    pub(crate) server_cpu_s_per_100k: Option<f64>,
    pub(crate) client_cpu_s_per_100k: f64,
    pub(crate) foreign_cpu_share: f64,
}

/// One load on one target.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) durability: String,
    pub(crate) load: LoadSummary,
    /// None before the first round.
    pub(crate) median: Option<Median>,
    pub(crate) rounds: Vec<Round>,
    /// The latencies of all rounds.
    #[serde(skip)]
    pub(crate) latencies: Latencies,
}

impl Outcome {
    /// Adds a round.
    pub(crate) fn push(&mut self, recorder: &Recorder, round: Round) {
        self.latencies += recorder.all();
        self.rounds.push(round);
        let rounds = &self.rounds;
        let latencies: Vec<Percentiles> = rounds.iter().map(|round| round.latency_us).collect();
        let servers: Option<Vec<f64>> = rounds.iter().map(|round| round.server_cpu_s_per_100k).collect();
        self.median = Some(Median {
            operations_per_second: median(rounds.iter().map(|round| round.operations_per_second)),
            latency_us: Percentiles::median(&latencies),
            server_cpu_s_per_100k: servers.map(median),
            client_cpu_s_per_100k: median(rounds.iter().map(|round| round.client_cpu_s_per_100k)),
            foreign_cpu_share: median(rounds.iter().map(|round| round.foreign_cpu_share)),
        });
    }
}
