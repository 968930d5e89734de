//! The numbers of each load on each target: every round, and the median round.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cpu::CpuUsed;
use crate::recorder::{Latencies, Percentiles, Recorder, median};
use crate::workload::{KEY_BYTES, Load, LoadSummary};

/// One round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) operations: u64,
    pub(crate) operations_per_second: f64,
    /// None where only the whole was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<Percentiles>,
    /// Only where the load mixes both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) read_latency_us: Option<Percentiles>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    /// Of the whole machine: what the hypervisor gave to others.
    pub(crate) stolen_cpu_share: f64,
    /// How much more was answered in the second half than in the first, of all that was: 0 is a steady state. None where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drift: Option<f64>,
    /// Bytes that all server processes had written to disks, for each byte of keys and values that clients wrote.
    pub(crate) written_per_byte: Option<f64>,
    /// Memory that all server processes hold afterwards.
    pub(crate) memory_bytes: Option<u64>,
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
        // Not divided by nothing: an open loop's replies can all be late.
        let per_100k = |cpu: f64| cpu * 1e5 / recorder.replies_in_window.max(1) as f64;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        // Counted as the CPU time is: while the load lasts.
        let writes =
            recorder.writes.len() as f64 / all.len().max(1) as f64 * recorder.replies_in_window as f64;
        let stored = writes * (KEY_BYTES + load.operations.value_bytes) as f64;
        Self {
            operations,
            operations_per_second: operations as f64 / answered.max(seconds),
            latency_us: Some(Percentiles::of(&all)),
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
            stolen_cpu_share: used.stolen / seconds / cpus,
            drift: Some(recorder.drift()),
            written_per_byte: used.written.filter(|_| writes >= 1.0).map(|bytes| bytes as f64 / stored),
            memory_bytes: used.resident,
        }
    }

    /// A percentile in microseconds, or not a number where there is none.
    pub(crate) fn latency(&self, which: fn(&Percentiles) -> f64) -> f64 {
        self.latency_us.as_ref().map_or(f64::NAN, which)
    }

    /// CPU time of all server processes for an operation, in microseconds.
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        // Seconds for 100 000 operations.
        self.server_cpu_s_per_100k.map(|seconds| 10.0 * seconds)
    }

    /// Operations that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// The median over rounds, field by field.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Median {
    pub(crate) operations_per_second: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) latency_us: Option<Percentiles>,
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
        self.median = Some(Median::of(&self.rounds));
    }
}

impl Median {
    /// Of at least one round.
    pub(crate) fn of(rounds: &[Round]) -> Self {
        let latencies: Option<Vec<Percentiles>> = rounds.iter().map(|round| round.latency_us).collect();
        let servers: Option<Vec<f64>> = rounds.iter().map(|round| round.server_cpu_s_per_100k).collect();
        Self {
            operations_per_second: median(rounds.iter().map(|round| round.operations_per_second)),
            latency_us: latencies.map(|all| Percentiles::median(&all)),
            server_cpu_s_per_100k: servers.map(median),
            client_cpu_s_per_100k: median(rounds.iter().map(|round| round.client_cpu_s_per_100k)),
            foreign_cpu_share: median(rounds.iter().map(|round| round.foreign_cpu_share)),
        }
    }

    /// A percentile in microseconds, or not a number where there is none.
    pub(crate) fn latency(&self, which: fn(&Percentiles) -> f64) -> f64 {
        self.latency_us.as_ref().map_or(f64::NAN, which)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::Value;

    use super::*;
    use crate::distribution::Distribution;
    use crate::floor::{Floor, RoundFloors, summary};
    use crate::kv::goals;
    use crate::machine::Machine;
    use crate::recorder::latencies;
    use crate::report::{Report, SCHEMA};
    use crate::workload::{Flavour, Operations, Phases};

    fn load() -> Load {
        let operations = Operations {
            first_key: 0,
            keys: 10,
            distribution: Distribution::Uniform,
            reads_percent: 0,
            flavour: Flavour::Plain,
            value_bytes: 64,
            seed: 1,
            fill: false,
        };
        let (warmup, seconds) = (Duration::from_secs(1), Duration::from_secs(2));
        Load { operations, clients: 1, pipeline: 1, rate: None, bursts: None, threads: 1, warmup, seconds }
    }

    /// Two rounds of `operations` SETs of 300 us.
    fn outcome(scenario: &'static str, target: &str, operations: u64) -> Outcome {
        let load = load();
        let mut outcome = Outcome {
            scenario,
            target: target.to_owned(),
            version: "1".to_owned(),
            durability: "none".to_owned(),
            load: LoadSummary::from(&load),
            median: None,
            rounds: Vec::new(),
            latencies: latencies(),
        };
        let phases = Phases {
            start: Instant::now(),
            measure_ns: 1_000_000_000,
            end_ns: 3_000_000_000,
            give_up_ns: 4_000_000_000,
        };
        for _ in 0..2 {
            let mut recorder = Recorder::new();
            for _ in 0..operations {
                recorder.done(&phases, false, false, 2_000_000_000, 2_000_300_000);
            }
            let used =
                CpuUsed { servers: Some(0.5), client: 0.1, written: Some(operations * 160), ..CpuUsed::NONE };
            outcome.push(&recorder, Round::new(&recorder, used, &load));
        }
        outcome
    }

    #[test]
    fn a_report_has_the_schema_that_scripts_read() {
        let outcomes = vec![
            outcome("set_64", "flotilla", 6_000),
            outcome("set_64", "etcd", 1_000),
            outcome("set_1", "flotilla", 100),
        ];
        let floor = Floor { p50_us: 100.0, p99_us: 200.0 };
        let round = RoundFloors { sync: floor, round_trip: floor, replicated: floor };
        let floors = summary(&[round, round]);
        let (ratios, observations) = goals::ratios("flotilla", &outcomes, &[round, round]);
        let report = Report {
            schema: SCHEMA,
            command: "flotilla-bench kv".to_owned(),
            machine: Machine::of(std::path::Path::new("/")),
            floors,
            results: outcomes,
            ratios,
            more: serde_json::json!({ "observations": observations }),
        };
        let json: Value = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        for key in ["schema", "command", "machine", "floors", "results", "ratios", "observations"] {
            assert!(!json[key].is_null(), "{key}");
        }
        let ratio = |name: &str| {
            let ratios = json["ratios"].as_array().unwrap();
            ratios.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
        };
        assert_eq!(json["ratios"].as_array().unwrap().len(), 2, "what wasn't run has no ratio");
        assert_eq!(ratio("set_64_vs_etcd")["value"], 6.0);
        assert_eq!(ratio("set_64_vs_etcd")["goal"], ">= 5");
        assert_eq!(ratio("set_64_vs_etcd")["holds"], true);
        assert_eq!(ratio("set_1_p50_vs_sync_p50")["holds"], false);
        let result = &json["results"][0];
        for key in ["scenario", "target", "version", "durability", "load", "median", "rounds"] {
            assert!(!result[key].is_null(), "{key}");
        }
        let median = &result["median"];
        assert_eq!(median["operations_per_second"], 3_000.0);
        assert_eq!(result["rounds"][0]["written_per_byte"], 2.0);
        assert!((median["server_cpu_s_per_100k"].as_f64().unwrap() - 0.5 * 1e5 / 6_000.0).abs() < 1e-6);
        for key in ["p50", "p90", "p99", "p99_9", "p99_99", "max", "mean"] {
            let value = median["latency_us"][key].as_f64().unwrap();
            assert!((299.0..302.0).contains(&value), "{key}: {value}");
        }
    }
}
