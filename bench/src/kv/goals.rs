//! The ratios, with their goals, and those that are only good to know. What `compare kv` measures too has the same goal there.

use super::outcome::{Outcome, Round};
use crate::floor::RoundFloors;
use crate::report::{Goal, Observation, Ratio};

/// Throughput over etcd's, at 64 clients: of SET; of SET with 16 pipelined, over etcd without; of GET.
pub(crate) const SET_OVER_ETCD: f64 = 5.0;
pub(crate) const SET_PIPELINED_OVER_ETCD: f64 = 15.0;
pub(crate) const GET_OVER_ETCD: f64 = 5.0;
/// One client's SET over the disk's sync, medians.
pub(crate) const SET_P50_OVER_SYNC: f64 = 2.5;

/// What is compared.
#[derive(Clone, Copy)]
enum Figure {
    Throughput,
    P50,
    ServerCpu,
}

/// What it is compared with.
#[derive(Clone, Copy)]
enum Against {
    /// A peer, at a load.
    Peer(&'static str, &'static str),
    /// The median latency of the disk's sync.
    Sync,
    /// The median latency of a replicated write that nothing else is done for.
    BareReplicatedWrite,
}

struct Rule {
    name: &'static str,
    scenario: &'static str,
    figure: Figure,
    against: Against,
    goal: Option<Goal>,
}

const fn rule(
    name: &'static str,
    scenario: &'static str,
    figure: Figure,
    against: Against,
    goal: Option<Goal>,
) -> Rule {
    Rule { name, scenario, figure, against, goal }
}

const RULES: &[Rule] = {
    use Against::{BareReplicatedWrite, Peer, Sync};
    use Figure::{P50, ServerCpu, Throughput};
    use Goal::{AtLeast, AtMost};
    &[
        rule("set_64_vs_etcd", "set_64", Throughput, Peer("etcd", "set_64"), Some(AtLeast(SET_OVER_ETCD))),
        rule(
            "set_p16_64_vs_etcd_unpipelined",
            "set_p16_64",
            Throughput,
            Peer("etcd", "set_64"),
            Some(AtLeast(SET_PIPELINED_OVER_ETCD)),
        ),
        rule("get_64_vs_etcd", "get_64", Throughput, Peer("etcd", "get_64"), Some(AtLeast(GET_OVER_ETCD))),
        rule("set_1_p50_vs_sync_p50", "set_1", P50, Sync, Some(AtMost(SET_P50_OVER_SYNC))),
        rule("set_1_p50_vs_bare_replicated_write", "set_1", P50, BareReplicatedWrite, None),
        rule("set_p16_64_vs_etcd_multiplexed", "set_p16_64", Throughput, Peer("etcd", "set_p16_64"), None),
        rule("set_1_p50_vs_etcd", "set_1", P50, Peer("etcd", "set_1"), None),
        rule("set_64_server_cpu_vs_etcd", "set_64", ServerCpu, Peer("etcd", "set_64"), None),
        rule("get_64_server_cpu_vs_etcd", "get_64", ServerCpu, Peer("etcd", "get_64"), None),
        rule("set_64_vs_zookeeper", "set_64", Throughput, Peer("zookeeper", "set_64"), None),
        rule("set_p16_64_vs_zookeeper", "set_p16_64", Throughput, Peer("zookeeper", "set_p16_64"), None),
        // A member answers reads by itself: what it costs not to.
        rule("get_64_vs_zookeeper", "get_64", Throughput, Peer("zookeeper", "get_64"), None),
        rule("set_1_p50_vs_zookeeper", "set_1", P50, Peer("zookeeper", "set_1"), None),
        rule("set_64_vs_redis", "set_64", Throughput, Peer("redis", "set_64"), None),
        rule("set_p16_64_vs_redis", "set_p16_64", Throughput, Peer("redis", "set_p16_64"), None),
        rule("get_64_vs_redis", "get_64", Throughput, Peer("redis", "get_64"), None),
        rule("set_1_p50_vs_redis", "set_1", P50, Peer("redis", "set_1"), None),
    ]
};

impl Figure {
    fn of(self, round: &Round) -> f64 {
        match self {
            Self::Throughput => round.operations_per_second,
            Self::P50 => round.latency(|it| it.p50),
            Self::ServerCpu => round.server_cpu_s_per_100k.unwrap_or(f64::NAN),
        }
    }
}

/// The ratios of `subject` in `outcomes`; `floors` are those of each round.
pub(crate) fn ratios(
    subject: &str,
    outcomes: &[Outcome],
    floors: &[RoundFloors],
) -> (Vec<Ratio>, Vec<Observation>) {
    let rounds = |target: &str, scenario: &str, figure: Figure| -> Vec<f64> {
        let outcome = outcomes.iter().find(|it| it.target == target && it.scenario == scenario);
        outcome.map_or_else(Vec::new, |it| it.rounds.iter().map(|round| figure.of(round)).collect())
    };
    let (mut ratios, mut observations) = (Vec::new(), Vec::new());
    for rule in RULES {
        let over = rounds(subject, rule.scenario, rule.figure);
        let under = match rule.against {
            Against::Peer(peer, scenario) => rounds(peer, scenario, rule.figure),
            Against::Sync => floors.iter().map(|round| round.sync.p50_us).collect(),
            Against::BareReplicatedWrite => floors.iter().map(|round| round.replicated.p50_us).collect(),
        };
        let each = over.iter().zip(&under).map(|(over, under)| over / under).collect();
        match rule.goal {
            Some(goal) => ratios.extend(Ratio::new(rule.name, each, goal)),
            None => observations.extend(Observation::new(rule.name, each)),
        }
    }
    (ratios, observations)
}
