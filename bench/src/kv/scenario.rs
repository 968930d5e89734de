//! The loads: four with names, or one of the user's own.

use std::time::Duration;

use clap::ValueEnum;

use super::args::KvArgs;
use crate::distribution::Distribution;
use crate::workload::{Flavour, Load, Operations};

/// A load with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// SET, 64 clients
    #[value(name = "set_64")]
    Set64,
    /// SET, 64 clients, 16 requests in flight each
    #[value(name = "set_p16_64")]
    SetP16x64,
    /// GET, 64 clients
    #[value(name = "get_64")]
    Get64,
    /// SET, one client
    #[value(name = "set_1")]
    Set1,
}

/// A load and what it is called in results.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) load: Load,
}

/// How a load is asked for, before times and sizes.
struct Shape {
    name: &'static str,
    clients: usize,
    pipeline: usize,
    reads_percent: u8,
    rate: Option<f64>,
}

impl Name {
    /// One request after the other, as NET-11 of the labs has it, is `set_1`.
    fn shape(self) -> Shape {
        let shape = |name, clients, pipeline, reads_percent| Shape {
            name,
            clients,
            pipeline,
            reads_percent,
            rate: None,
        };
        match self {
            Self::Set64 => shape("set_64", 64, 1, 0),
            Self::SetP16x64 => shape("set_p16_64", 64, 16, 0),
            Self::Get64 => shape("get_64", 64, 1, 100),
            Self::Set1 => shape("set_1", 1, 1, 0),
        }
    }
}

/// The loads that `args` ask for.
pub(crate) fn scenarios(args: &KvArgs) -> Vec<Scenario> {
    let shapes = match args.is_custom() {
        true => vec![Shape {
            name: "custom",
            clients: args.clients.unwrap_or(64),
            pipeline: args.pipeline.unwrap_or(1),
            reads_percent: args.reads.unwrap_or(0),
            rate: args.rate,
        }],
        false => Name::value_variants()
            .iter()
            .filter(|name| args.scenarios.is_empty() || args.scenarios.contains(name))
            .map(|name| name.shape())
            .collect(),
    };
    shapes.into_iter().map(|shape| Scenario { name: shape.name, load: load(args, &shape) }).collect()
}

/// Writing every key once, so that every GET finds something.
pub(crate) fn fill(args: &KvArgs) -> Load {
    let shape = Shape { name: "fill", clients: 64, pipeline: 16, reads_percent: 0, rate: None };
    let mut load = load(args, &shape);
    load.operations.fill = true;
    load.operations.distribution = Distribution::Uniform;
    load.threads = 1;
    load.warmup = Duration::ZERO;
    load
}

fn load(args: &KvArgs, shape: &Shape) -> Load {
    let default = |quick: f64, full: f64| Duration::from_secs_f64(if args.quick { quick } else { full });
    Load {
        operations: Operations {
            first_key: 0,
            keys: args.keys.unwrap_or(if args.quick { 10_000 } else { 100_000 }),
            distribution: args.distribution,
            reads_percent: shape.reads_percent,
            flavour: Flavour::Plain,
            value_bytes: args.value_bytes,
            seed: 1,
            fill: false,
        },
        clients: shape.clients,
        pipeline: shape.pipeline,
        rate: shape.rate,
        bursts: None,
        threads: args.threads,
        warmup: args.warmup.unwrap_or_else(|| default(0.15, 1.0)),
        seconds: args.seconds.unwrap_or_else(|| default(0.55, 5.0)),
    }
}
