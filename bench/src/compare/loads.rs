//! The loads of `compare kv`: every cell of its grid, and the named workloads.

use std::time::Duration;

use super::args::{CompareArgs, Set};
use crate::distribution::Distribution;
use crate::target::{Driver, Target};
use crate::workload::{Bursts, Flavour, Load, Operations};
use crate::zookeeper;

/// Event loops of the load generator: one, as the machines this runs on are small. Where that is its limit, the result says so.
const THREADS: usize = 1;
/// Clients of the curves and of the named workloads.
pub(crate) const CLIENTS: usize = 64;
/// Values of one size have keys of their own: more than there can be of a size, and inserted while it runs.
const KEYS_APART: u64 = 10_000_000_000;
/// Values larger than this have fewer keys, so that all of them together fit a small machine's memory several times.
const STORED_BYTES_MAX: u64 = 64 << 20;
/// What an open loop asks for, as parts of a system's own peak.
const FRACTIONS: [f64; 8] = [0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.9, 0.95];
const QUICK_FRACTIONS: [f64; 3] = [0.25, 0.5, 0.8];

/// A load that is put on every target.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) set: Set,
    pub(crate) name: String,
    pub(crate) load: Load,
    /// Open loop: its rate is this part of what the target did in the load of this name.
    pub(crate) share: Option<(f64, String)>,
}

/// How long a turn is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) warmup: Duration,
    pub(crate) seconds: Duration,
}

/// Of everything that `args` ask for, in the order in which it is run.
pub(crate) fn plan(args: &CompareArgs, times: Times) -> Vec<Planned> {
    let maker = Maker { args, times };
    let mut all = Vec::new();
    if args.has(Set::Grid) || args.has(Set::Groups) {
        maker.grid(&mut all);
    }
    if args.has(Set::Ycsb) {
        maker.ycsb(&mut all);
    }
    if args.has(Set::Mixes) {
        maker.mixes(&mut all);
    }
    if args.has(Set::Curves) {
        maker.curves(&mut all);
    }
    if args.has(Set::Bursts) {
        maker.bursts(&mut all);
    }
    let mut sizes = Vec::new();
    for each in &mut all {
        let operations = &mut each.load.operations;
        let place = sizes.iter().position(|size| *size == operations.value_bytes);
        let place = place.unwrap_or_else(|| {
            sizes.push(operations.value_bytes);
            sizes.len() - 1
        });
        operations.first_key = place as u64 * KEYS_APART;
    }
    all
}

/// The fills that these loads need, each once: every key exists before anything is measured.
pub(crate) fn fills(planned: &[Planned]) -> Vec<Load> {
    let mut fills: Vec<Load> = Vec::new();
    for each in planned {
        let of = |load: &Load| (load.operations.first_key, load.operations.keys, load.operations.value_bytes);
        if fills.iter().any(|fill| of(fill) == of(&each.load)) {
            continue;
        }
        let mut fill = each.load.clone();
        fill.operations.fill = true;
        fill.operations.distribution = Distribution::Uniform;
        fill.operations.flavour = Flavour::Plain;
        // Large values in large pipelines would only queue.
        let pipeline = if fill.operations.value_bytes > 16 * 1024 { 1 } else { 16 };
        fills.push(Load {
            clients: CLIENTS,
            pipeline,
            rate: None,
            bursts: None,
            warmup: Duration::ZERO,
            ..fill
        });
    }
    fills
}

/// Whether `target` can't do it, and why.
///
/// Redis has no order of keys to scan by, and ZooKeeper tells the names of all znodes or of none.
pub(crate) fn cannot(target: &Target, load: &Load) -> Option<&'static str> {
    let (ordered, value_bytes_max) = match &target.driver {
        Driver::Etcd(_) => (true, usize::MAX),
        Driver::ZooKeeper(_) => (false, zookeeper::VALUE_BYTES_MAX),
        Driver::Resp(map) => (!map.plain, usize::MAX),
    };
    if load.operations.value_bytes > value_bytes_max {
        return Some("it isn't made for values of that size");
    }
    (!ordered && load.operations.flavour == Flavour::Scan).then_some("it has no scans")
}

struct Maker<'a> {
    args: &'a CompareArgs,
    times: Times,
}

/// What differs from a plain SET of 64 clients.
struct Shape {
    clients: usize,
    pipeline: usize,
    value_bytes: usize,
    reads_percent: u8,
    distribution: Distribution,
    flavour: Flavour,
}

const SET: Shape = Shape {
    clients: CLIENTS,
    pipeline: 1,
    value_bytes: 64,
    reads_percent: 0,
    distribution: Distribution::Uniform,
    flavour: Flavour::Plain,
};

impl Maker<'_> {
    fn planned(&self, set: Set, name: String, shape: &Shape) -> Planned {
        let value_bytes = shape.value_bytes as u64;
        let wanted = self.args.keys.unwrap_or(if self.args.quick { 10_000 } else { 100_000 });
        let keys = wanted.min((STORED_BYTES_MAX / value_bytes).max(1));
        let operations = Operations {
            first_key: 0,
            keys,
            distribution: shape.distribution,
            reads_percent: shape.reads_percent,
            flavour: shape.flavour,
            value_bytes: shape.value_bytes,
            seed: 1,
            fill: false,
        };
        let Times { warmup, seconds } = self.times;
        let (clients, pipeline) = (shape.clients, shape.pipeline);
        let load = Load {
            operations,
            clients,
            pipeline,
            rate: None,
            bursts: None,
            threads: THREADS,
            warmup,
            seconds,
        };
        Planned { set, name, load, share: None }
    }

    fn grid(&self, all: &mut Vec<Planned>) {
        let or = |given: &Option<Vec<usize>>, quick: &[usize], full: &[usize]| {
            given.clone().unwrap_or_else(|| if self.args.quick { quick } else { full }.to_vec())
        };
        let clients = or(&self.args.clients, &[1, 64], &[1, 16, 64, 256]);
        let pipelines = or(&self.args.pipeline, &[1, 16], &[1, 16]);
        for value_bytes in or(&self.args.value_bytes, &[64], &[64, 1024]) {
            for (verb, reads_percent) in [("set", 0), ("get", 100)] {
                for &pipeline in &pipelines {
                    for &clients in &clients {
                        // One client with a pipeline is a batch job: worth a look, not a minute.
                        if self.args.quick && pipeline > 1 && clients == 1 {
                            continue;
                        }
                        let name = format!("{verb}_c{clients}_p{pipeline}_{value_bytes}b");
                        let shape = Shape { clients, pipeline, value_bytes, reads_percent, ..SET };
                        all.push(self.planned(Set::Grid, name, &shape));
                    }
                }
            }
        }
    }

    /// The peak first, and then fractions of it.
    fn curves(&self, all: &mut Vec<Planned>) {
        let fractions = if self.args.quick { &QUICK_FRACTIONS[..] } else { &FRACTIONS };
        for (verb, reads_percent) in [("set", 0), ("get", 100)] {
            let shape = Shape { reads_percent, ..SET };
            let peak = format!("{verb}_peak");
            all.push(self.planned(Set::Curves, peak.clone(), &shape));
            for fraction in fractions {
                let name = format!("{verb}_at_{:.0}", 100.0 * fraction);
                let planned = self.planned(Set::Curves, name, &shape);
                all.push(Planned { share: Some((*fraction, peak.clone())), ..planned });
            }
        }
    }

    /// As in YCSB's own files, but for its records: values of 64 B instead of ten fields of 100 B.
    fn ycsb(&self, all: &mut Vec<Planned>) {
        let zipfian = Distribution::Zipfian { theta: 0.99 };
        for (name, reads_percent, distribution, flavour) in [
            ("ycsb_a", 50, zipfian, Flavour::Plain),
            ("ycsb_b", 95, zipfian, Flavour::Plain),
            ("ycsb_c", 100, zipfian, Flavour::Plain),
            ("ycsb_d", 95, Distribution::Latest, Flavour::Insert),
            ("ycsb_e", 95, zipfian, Flavour::Scan),
            ("ycsb_f", 50, zipfian, Flavour::ReadModifyWrite),
        ] {
            let shape = Shape { reads_percent, distribution, flavour, ..SET };
            all.push(self.planned(Set::Ycsb, name.to_owned(), &shape));
        }
    }

    fn mixes(&self, all: &mut Vec<Planned>) {
        let zipfian = Distribution::Zipfian { theta: 0.99 };
        for (name, shape) in [
            // memtier_benchmark's defaults: one SET to ten GETs, 32 bytes; and with its Gaussian pattern and a pipeline.
            ("memtier", Shape { reads_percent: 91, value_bytes: 32, ..SET }),
            (
                "memtier_gaussian_p16",
                Shape {
                    reads_percent: 91,
                    value_bytes: 32,
                    pipeline: 16,
                    distribution: Distribution::Gaussian,
                    ..SET
                },
            ),
            ("hot_keys_set", Shape { distribution: zipfian, ..SET }),
            ("hot_keys_get", Shape { distribution: zipfian, reads_percent: 100, ..SET }),
            ("large_set_64k", Shape { value_bytes: 64 << 10, clients: 16, ..SET }),
            ("large_get_64k", Shape { value_bytes: 64 << 10, clients: 16, reads_percent: 100, ..SET }),
            ("large_set_1m", Shape { value_bytes: 1 << 20, clients: 4, ..SET }),
            ("large_get_1m", Shape { value_bytes: 1 << 20, clients: 4, reads_percent: 100, ..SET }),
        ] {
            all.push(self.planned(Set::Mixes, name.to_owned(), &shape));
        }
    }

    /// A quarter of the peak on average, all of it in a tenth of the time: two and a half times the peak while it lasts.
    fn bursts(&self, all: &mut Vec<Planned>) {
        let peak = "burst_peak".to_owned();
        all.push(self.planned(Set::Bursts, peak.clone(), &SET));
        let mut burst = self.planned(Set::Bursts, "bursts_at_25".to_owned(), &SET);
        // Several bursts in the shortest turn, and as many in either half of it: another number would never look steady.
        burst.load.bursts = Some(Bursts { period: self.times.seconds / 4, duty: 0.1 });
        all.push(Planned { share: Some((0.25, peak)), ..burst });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::args::tests::parsed;
    use crate::etcd::EtcdCluster;
    use crate::recorder::Recorder;
    use crate::workload::{Phases, Schedule};

    fn planned(line: &str) -> Vec<Planned> {
        let args = parsed(line);
        args.check().unwrap();
        plan(&args, Times { warmup: Duration::ZERO, seconds: Duration::from_secs(1) })
    }

    #[test]
    fn the_grid_has_every_combination_once() {
        let mut names: Vec<String> = planned("--sets grid").into_iter().map(|it| it.name).collect();
        assert_eq!(names.len(), 2 * 4 * 2 * 2);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 32);
        assert!(names.contains(&"get_c256_p16_1024b".to_owned()));
        assert_eq!(planned("--sets grid --clients 3 --pipeline 2 --value-bytes 5").len(), 2);
    }

    #[test]
    fn keys_of_another_size_lie_elsewhere_and_everything_is_filled_once() {
        let all = planned("--sets grid,curves,ycsb,mixes,bursts");
        let fills = fills(&all);
        let mut ranges: Vec<_> =
            fills.iter().map(|fill| (fill.operations.first_key, fill.operations.keys)).collect();
        ranges.sort_unstable();
        assert_eq!(ranges.len(), 5, "32 B, 64 B, 1 KiB, 64 KiB, 1 MiB");
        assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{ranges:?}");
        let stored = |fill: &Load| fill.operations.keys * fill.operations.value_bytes as u64;
        assert!(fills.iter().all(|fill| stored(fill) <= 110 << 20 && fill.operations.fill));
        assert!(ranges[4].0 + 2 * ranges[4].1 < 1_000_000_000_000, "twelve digits are enough");
    }

    #[test]
    fn bursts_are_a_steady_state_wherever_the_measured_time_begins() {
        let all = planned("--sets bursts");
        let load = &all.iter().find(|it| it.name == "bursts_at_25").unwrap().load;
        let schedule = Schedule::new(10_000.0, 0, 1).in_bursts(load.bursts);
        for warmup_ms in [0, 20, 60, 110, 400] {
            let warmup = Duration::from_millis(warmup_ms);
            let phases = Phases::of(&Load { warmup, ..load.clone() }, Duration::ZERO);
            let mut recorder = Recorder::new();
            let arrivals = (0..).map(|index| schedule.arrival_ns(index));
            for at in arrivals.take_while(|at| *at < phases.end_ns) {
                recorder.done(&phases, true, false, at, at);
            }
            assert!(recorder.drift().abs() < 0.01, "{} after {warmup_ms} ms", recorder.drift());
        }
    }

    #[test]
    fn what_a_target_cannot_do_is_told() {
        let of = |driver: Driver| Target {
            name: String::new(),
            is_subject: false,
            version: String::new(),
            durability: String::new(),
            pids: Vec::new(),
            driver,
            processes: Vec::new(),
        };
        let members = vec!["127.0.0.1:1".parse().unwrap()];
        let zookeeper = of(Driver::ZooKeeper(zookeeper::Ensemble { members, version: String::new() }));
        let all = planned("--sets grid,curves,ycsb,mixes,bursts");
        let without: Vec<&str> = all
            .iter()
            .filter(|it| cannot(&zookeeper, &it.load).is_some())
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(without, ["ycsb_e", "large_set_1m", "large_get_1m"]);
        let refused = fills(&all).iter().filter(|fill| cannot(&zookeeper, fill).is_some()).count();
        assert_eq!(refused, 1, "nor is it filled with what it can't do");
        let etcd = EtcdCluster { leader: String::new(), version: String::new(), connections_max: 1 };
        let etcd = of(Driver::Etcd(etcd));
        assert!(all.iter().all(|it| cannot(&etcd, &it.load).is_none()));
    }

    #[test]
    fn a_curve_follows_its_peak() {
        let all = planned("--sets curves");
        for (place, each) in all.iter().enumerate() {
            if let Some((share, peak)) = &each.share {
                let of = all.iter().position(|it| it.name == *peak).unwrap();
                assert!(of < place && *share < 1.0, "{}", each.name);
            }
        }
    }
}
