//! A run's result: one JSON file with everything that `report` needs, and that a reader may want to recompute.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::noise::{CLIENT_CPU_MAX, DRIFT_MAX, Noise};
use super::stats::interval;
use crate::error::{BenchError, Result};
use crate::floor::RoundFloors;
use crate::kv::outcome::{Median, Round};
use crate::machine::Machine;
use crate::recorder::{Latencies, median};
use crate::report::{Goal, number, rate};
use crate::workload::LoadSummary;

/// The version of the file. It changes when a field changes its meaning or goes away.
pub(crate) const SCHEMA: &str = "flotilla-bench/compare/1";

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ResultFile {
    pub(crate) schema: String,
    /// What was compared, as on the command line: `kv`, `wal`…
    pub(crate) what: String,
    /// The command line, to run it again.
    pub(crate) command: String,
    /// Seconds since 1970, when it ended.
    pub(crate) unix_seconds: u64,
    pub(crate) elapsed_seconds: f64,
    /// What `git describe` says of the folder that the program was built in, if it is one of git's.
    pub(crate) source: Option<String>,
    pub(crate) machine: Machine,
    pub(crate) targets: Vec<TargetInfo>,
    /// Of each round.
    pub(crate) floors: Vec<RoundFloors>,
    pub(crate) noise: Noise,
    pub(crate) cells: Vec<Cell>,
    pub(crate) ratios: Vec<Compared>,
    /// Figures with a goal that the machine couldn't tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unmeasured: Vec<Unmeasured>,
}

/// A figure with a goal that wasn't measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unmeasured {
    pub(crate) figure: String,
    pub(crate) goal: String,
    /// What the machine lacks.
    pub(crate) why: String,
}

impl Unmeasured {
    /// For people.
    pub(crate) fn told(&self) -> String {
        format!("{} ({}) isn't measured: {}", self.figure, self.goal, self.why)
    }
}

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TargetInfo {
    pub(crate) name: String,
    pub(crate) version: String,
    /// What a reply to a write promises; of a layer, what was measured.
    pub(crate) durability: String,
    /// Processes.
    pub(crate) processes: usize,
}

impl TargetInfo {
    /// Its name and version, if it has one.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.name, self.version).trim_end().to_owned()
    }
}

/// One load on one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Which part of the run: `grid`, `curves`…
    pub(crate) set: String,
    pub(crate) name: String,
    pub(crate) target: String,
    /// What an operation is.
    #[serde(default)]
    pub(crate) unit: Unit,
    pub(crate) load: LoadSummary,
    /// Of the target's own peak, in an open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peak_share: Option<f64>,
    pub(crate) median: Median,
    pub(crate) rounds: Vec<Round>,
    /// Of all rounds together: quantile and latency in microseconds.
    pub(crate) quantiles: Vec<(f64, f64)>,
}

/// What is counted as one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    #[default]
    #[serde(rename = "op")]
    Operation,
    #[serde(rename = "append")]
    Append,
    #[serde(rename = "commit")]
    Commit,
    #[serde(rename = "message")]
    Message,
    /// Of a job's input.
    #[serde(rename = "MB")]
    Megabyte,
}

impl Unit {
    /// One of it.
    pub(crate) fn one(self) -> &'static str {
        match self {
            Self::Operation => "op",
            Self::Append => "append",
            Self::Commit => "commit",
            Self::Message => "message",
            Self::Megabyte => "MB",
        }
    }

    /// How many, for people: megabytes have no thousands.
    pub(crate) fn rate(self, per_second: f64) -> String {
        match self {
            Self::Megabyte => format!("{per_second:.0}"),
            _ => rate(per_second),
        }
    }

    /// So many of it in a second.
    pub(crate) fn per_second(self) -> &'static str {
        match self {
            Self::Operation => "ops/s",
            Self::Append => "appends/s",
            Self::Commit => "commits/s",
            Self::Message => "messages/s",
            Self::Megabyte => "MB/s",
        }
    }
}

impl Cell {
    /// Of at least one round.
    pub(crate) fn new(
        set: &str,
        name: &str,
        target: &str,
        load: LoadSummary,
        rounds: Vec<Round>,
        latencies: &Latencies,
    ) -> Self {
        Self {
            set: set.to_owned(),
            name: name.to_owned(),
            target: target.to_owned(),
            unit: Unit::Operation,
            load,
            peak_share: None,
            median: Median::of(&rounds),
            rounds,
            quantiles: quantiles(latencies),
        }
    }

    /// For people.
    pub(crate) fn title(&self) -> String {
        format!("{} on {}", self.name, self.target)
    }

    /// Of each round.
    pub(crate) fn throughputs(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.operations_per_second).collect()
    }

    /// Whether throughput was the same at the end of the measured time as at its beginning, in the middle round.
    pub(crate) fn is_steady(&self) -> bool {
        self.median_of(|round| round.drift).is_none_or(|drift| drift.abs() <= DRIFT_MAX)
    }

    /// Whether the load generator had all the CPU time that it can use, in the middle round: the target may do more.
    pub(crate) fn is_generators_limit(&self) -> bool {
        median(self.rounds.iter().map(|round| round.client_cpu_share)) > CLIENT_CPU_MAX
    }

    /// What a reader must know of its numbers; nothing if all is well.
    pub(crate) fn remarks(&self) -> String {
        let mut remarks = Vec::new();
        if !self.is_steady() {
            remarks.push("not steady".to_owned());
        }
        if self.is_generators_limit() {
            remarks.push("the load generator's limit".to_owned());
        }
        let failures: u64 = self.rounds.iter().map(Round::failures).sum();
        let misses: u64 = self.rounds.iter().map(|round| round.misses).sum();
        for (count, what) in [(failures, "failed"), (misses, "found nothing")] {
            if count > 0 {
                remarks.push(format!("{count} {what}"));
            }
        }
        remarks.join("; ")
    }

    /// CPU time of all server processes for an operation, in microseconds.
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        // Seconds for 100 000 operations.
        self.median.server_cpu_s_per_100k.map(|seconds| 10.0 * seconds)
    }

    /// The median of a figure that not every round has.
    pub(crate) fn median_of(&self, figure: fn(&Round) -> Option<f64>) -> Option<f64> {
        let value = median(self.rounds.iter().filter_map(figure));
        value.is_finite().then_some(value)
    }
}

/// The quantiles that are plotted: evenly spaced where they are looked at, from the median to the far tail.
fn quantiles(latencies: &Latencies) -> Vec<(f64, f64)> {
    let nines = (0..=50).map(|step| 1.0 - 10f64.powf(-f64::from(step) / 10.0));
    let (below, above): (Vec<f64>, Vec<f64>) = nines.partition(|quantile| *quantile < 0.5);
    let nines = below.into_iter().chain([0.5]).chain(above);
    // A quantile beyond the last operation would be a guess.
    let count = latencies.len() as f64;
    let known = nines.take_while(|quantile| (1.0 - quantile) * count >= 1.0);
    known.map(|quantile| (quantile, latencies.value_at_quantile(quantile) as f64 / 1e3)).collect()
}

/// Flotilla's figure over another's, taken within each round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Compared {
    /// The load.
    pub(crate) cell: String,
    /// `throughput`, `p50`, `p99`, `server_cpu` for an operation; or the name of a layer's own figure.
    pub(crate) figure: String,
    pub(crate) against: String,
    /// The median of the rounds.
    pub(crate) value: f64,
    /// The interval that holds it with 95 %; with five rounds or fewer, their range: see [`interval`].
    pub(crate) low: f64,
    pub(crate) high: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) holds: Option<bool>,
    pub(crate) rounds: Vec<f64>,
}

impl Compared {
    /// None without a single round that has a number.
    pub(crate) fn new(cell: &str, figure: &str, against: &str, mut rounds: Vec<f64>) -> Option<Self> {
        // A round in which there was nothing to divide by tells nothing, and no file holds such a number.
        rounds.retain(|value| value.is_finite());
        let value = median(rounds.iter().copied());
        let (low, high) = interval(&rounds);
        let (cell, figure, against) = (cell.to_owned(), figure.to_owned(), against.to_owned());
        let made = Self { cell, figure, against, value, low, high, goal: None, holds: None, rounds };
        value.is_finite().then_some(made)
    }

    /// Whether the goal holds, for people: "yes" and "no" when the whole interval says so.
    pub(crate) fn verdict(&self) -> &'static str {
        let Some(holds) = self.holds else { return "-" };
        let goal = self.goal.as_deref().and_then(Goal::parse);
        let is_told =
            goal.is_none_or(|goal| [self.low, self.high].iter().all(|end| goal.holds(*end) == holds));
        match (holds, is_told) {
            (true, true) => "yes",
            (true, false) => "likely",
            (false, false) => "unlikely",
            (false, true) => "no",
        }
    }

    /// The interval for people. One round has none, and with few it is no more than their range.
    pub(crate) fn interval(&self) -> String {
        match self.rounds.len() {
            0 | 1 => "one round".to_owned(),
            few @ 2..=4 => {
                format!("{} to {}, all of {few} rounds", number(self.low), number(self.high))
            }
            _ => format!("{} to {}", number(self.low), number(self.high)),
        }
    }
}

/// All ratios of `subject` to the others, in closed loops: an open loop's throughput is what was asked for.
pub(crate) fn compared(subject: &str, cells: &[Cell]) -> Vec<Compared> {
    type Figure = (&'static str, fn(&Round) -> f64);
    let figures: [Figure; 4] = [
        ("throughput", |round| round.operations_per_second),
        ("p50", |round| round.latency(|it| it.p50)),
        ("p99", |round| round.latency(|it| it.p99)),
        ("server_cpu", |round| round.server_cpu_s_per_100k.unwrap_or(f64::NAN)),
    ];
    let closed = |cell: &&Cell| cell.load.rate.is_none();
    let mut all = Vec::new();
    for own in cells.iter().filter(closed).filter(|cell| cell.target == subject) {
        for other in cells.iter().filter(|cell| cell.name == own.name && cell.target != subject) {
            for (name, figure) in figures {
                let each =
                    own.rounds.iter().zip(&other.rounds).map(|(own, other)| figure(own) / figure(other));
                all.extend(Compared::new(&own.name, name, &other.target, each.collect()));
            }
        }
    }
    all
}

impl ResultFile {
    /// Writes it into `folder`, which is made if need be; the file's path.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).map_err(BenchError::io(format!("making {}", folder.display())))?;
        let path = folder.join(format!("{}-{}.json", self.what, self.unix_seconds));
        let doing = || BenchError::io(format!("writing {}", path.display()));
        let text =
            serde_json::to_string_pretty(self).map_err(|error| doing()(std::io::Error::other(error)))?;
        fs::write(&path, text + "\n").map_err(doing())?;
        Ok(path)
    }

    /// The sets of loads that were run, in their order.
    pub(crate) fn sets(&self) -> Vec<&str> {
        let mut sets: Vec<&str> = self.cells.iter().map(|cell| cell.set.as_str()).collect();
        sets.dedup();
        sets
    }

    /// All results in `folder`, oldest first.
    ///
    /// # Errors
    /// A folder that can't be read or holds none; a file that says it is a result and isn't.
    pub(crate) fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let doing = || BenchError::io(format!("reading {}", folder.display()));
        let mut results = Vec::new();
        for entry in fs::read_dir(folder).map_err(doing())? {
            let path = entry.map_err(doing())?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                results.push(Self::read(&path)?);
            }
        }
        results.sort_by(|one: &Self, other| {
            (one.unix_seconds, &one.what).cmp(&(other.unix_seconds, &other.what))
        });
        match results.is_empty() {
            true => Err(BenchError::Usage(format!(
                "{} has no results: `flotilla-bench compare kv --out {}` makes some",
                folder.display(),
                folder.display()
            ))),
            false => Ok(results),
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(BenchError::io(format!("reading {}", path.display())))?;
        let wrong = |reason: String| {
            let doing = format!("reading {}", path.display());
            BenchError::Io { doing, source: std::io::Error::new(std::io::ErrorKind::InvalidData, reason) }
        };
        let value: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if value["schema"] != SCHEMA {
            return Err(wrong(format!("its schema is {}, not \"{SCHEMA}\"", value["schema"])));
        }
        serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::recorder::{Percentiles, latencies};

    /// A cell with a round for each throughput, its latencies as of 64 clients.
    pub(crate) fn cell(name: &str, target: &str, throughputs: &[f64]) -> Cell {
        let round = |per_second: &f64| {
            let us = 64e6 / per_second;
            let latency_us = Percentiles {
                p50: us,
                p90: 2.0 * us,
                p99: 3.0 * us,
                p99_9: 4.0 * us,
                p99_99: 5.0 * us,
                max: 6.0 * us,
                mean: us,
            };
            Round {
                operations: *per_second as u64,
                operations_per_second: *per_second,
                latency_us: Some(latency_us),
                read_latency_us: None,
                write_latency_us: None,
                errors: BTreeMap::new(),
                misses: 0,
                redirects: 0,
                disconnects: 0,
                server_cpu_s_per_100k: Some(1e5 / per_second),
                client_cpu_s_per_100k: 1.0,
                client_cpu_share: 0.5,
                foreign_cpu_share: 0.01,
                stolen_cpu_share: 0.0,
                drift: Some(0.0),
                written_per_byte: Some(3.0),
                memory_bytes: Some(50 << 20),
            }
        };
        let rounds: Vec<Round> = throughputs.iter().map(round).collect();
        let mut seen = latencies();
        (1..=10_000).for_each(|us| seen.saturating_record(us * 1000));
        let load = serde_json::json!({
            "loop_kind": "closed", "clients": 64, "pipeline": 1, "threads": 1, "keys": 100, "distribution": "uniform",
            "reads_percent": 0, "value_bytes": 64, "warmup_seconds": 1.0, "seconds": 1.0,
        });
        Cell::new("grid", name, target, serde_json::from_value(load).unwrap(), rounds, &seen)
    }

    /// A result with these cells.
    pub(crate) fn result(cells: Vec<Cell>) -> ResultFile {
        let mut names: Vec<String> = cells.iter().map(|cell| cell.target.clone()).collect();
        names.dedup();
        let target = |name: String| TargetInfo {
            name,
            version: "1.0".to_owned(),
            durability: "as told".to_owned(),
            processes: 3,
        };
        ResultFile {
            schema: SCHEMA.to_owned(),
            what: "kv".to_owned(),
            command: "flotilla-bench compare kv".to_owned(),
            unix_seconds: 1_800_000_000,
            elapsed_seconds: 1.0,
            source: None,
            machine: Machine::of(Path::new("/")),
            targets: names.into_iter().map(target).collect(),
            floors: Vec::new(),
            noise: Noise::of(&cells, &[]),
            ratios: compared("flotilla", &cells),
            cells,
            unmeasured: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let cells = vec![
            cell("set_1", "flotilla", &[200.0, 300.0, 800.0]),
            cell("set_1", "etcd", &[100.0, 100.0, 200.0]),
            cell("get_1", "etcd", &[100.0]),
        ];
        let ratios = compared("flotilla", &cells);
        let of = |figure: &str| ratios.iter().find(|it| it.figure == figure).unwrap();
        assert_eq!(ratios.len(), 4, "what only one of them ran isn't compared");
        assert_eq!((of("throughput").value, of("throughput").rounds.clone()), (3.0, vec![2.0, 3.0, 4.0]));
        assert_eq!(of("throughput").interval(), "2.00 to 4.00, all of 3 rounds");
        let of_rounds = |count| Compared { rounds: vec![3.0; count], ..of("throughput").clone() };
        assert_eq!(of_rounds(1).interval(), "one round", "which says nothing of the next");
        assert_eq!(of_rounds(5).interval(), "2.00 to 4.00");
        assert_eq!((of("throughput").low, of("throughput").high), (2.0, 4.0));
        assert!((of("server_cpu").value - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_cell_says_what_is_wrong_with_it() {
        let mut made = cell("set_1", "flotilla", &[100.0, 110.0, 120.0]);
        assert_eq!(made.remarks(), "");
        made.rounds[0].client_cpu_share = 1.0;
        assert_eq!(made.remarks(), "", "one round of three");
        for round in &mut made.rounds {
            (round.client_cpu_share, round.drift, round.misses) = (0.95, Some(0.2), 1);
        }
        made.rounds[1].errors.insert("BUSY".to_owned(), 4);
        assert_eq!(made.remarks(), "not steady; the load generator's limit; 4 failed; 3 found nothing");
    }

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut other = cell("set_1", "etcd", &[50.0, 55.0, 60.0]);
        other.rounds[1].operations_per_second = 0.0;
        let written = result(vec![cell("set_1", "flotilla", &[100.0, 110.0, 120.0]), other]);
        assert_eq!(written.ratios[0].rounds, [2.0, 2.0], "nothing to divide by in the second round");
        let path = written.write(&folder.path().join("new")).unwrap();
        let read = ResultFile::read_all(path.parent().unwrap()).unwrap();
        // Through text and back, as floating point is.
        let text = serde_json::to_string(&written).unwrap();
        let wanted: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&read[0]).unwrap(), wanted);
        // Those of older programs have no units, and count operations.
        fs::write(&path, text.replace("\"unit\":\"op\",", "")).unwrap();
        let older = ResultFile::read_all(path.parent().unwrap()).unwrap();
        assert!(
            !fs::read_to_string(&path).unwrap().contains("unit\"")
                && older[0].cells[0].unit == Unit::Operation
        );
    }

    #[test]
    fn what_is_no_result_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(ResultFile::read_all(folder.path()).unwrap_err().to_string().contains("has no results"));
        for (text, reason) in [("{", "EOF"), (r#"{"schema": "other"}"#, "its schema is \"other\"")] {
            fs::write(folder.path().join("x.json"), text).unwrap();
            let error = ResultFile::read_all(folder.path()).unwrap_err();
            let BenchError::Io { doing, source } = &error else { panic!("{error}") };
            assert!(doing.contains("x.json") && source.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn quantiles_end_where_operations_do() {
        let mut seen = latencies();
        (1..=100).for_each(|us| seen.saturating_record(us * 1000));
        let last = *quantiles(&seen).last().unwrap();
        assert!((last.0 - 0.99).abs() < 1e-6, "{last:?}: a hundred operations know no p99.9");
    }
}
