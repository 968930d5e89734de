//! `flotilla-bench mesh`: from one core to another, beside a bare ring, an eventfd, glommio's channel and crossbeam's.
//!
//! All of it is measured by one program, `bench/peers/mesh`, a process for each figure and on the same two CPUs, so that this workspace
//! doesn't depend on the peers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;

use crate::compare::result::{TargetInfo, Unit};
use crate::error::{BenchError, Result};
use crate::figures::{Figures, Measured, targets};
use crate::interrupt::Interrupt;
use crate::kv::args::seconds;
use crate::machine::Machine;
use crate::report::{Goal, note};
use crate::target::built::{built, locked, printed};
use crate::target::process::dying_with_us;
use crate::turn::{Load, SUBJECT, Seen, Turns, Way};

/// The cores' mesh, side by side with rings and channels
///
/// One way from core to core, both awake, beside rtrb; to a parked core, beside an eventfd's write and read; messages of 64
/// bytes a second in batches of 64, beside glommio's shared_channel, crossbeam's bounded channel and rtrb.
#[derive(Clone, Debug, Args)]
pub(crate) struct MeshArgs {
    /// A few seconds in all
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds, each with everything in it; ratios are medians of them [default: 5; 2 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: Option<u16>,
    /// Seconds of each of a round's eight measurements [default: 0.5; 0.2 with --quick]
    #[arg(long, value_parser = seconds)]
    pub(crate) seconds: Option<Duration>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a peer's program prints: figures by name.
pub(crate) type Printed = BTreeMap<String, f64>;

/// A target, and what its figure is called.
type Measure = (&'static str, &'static str);

/// Every load, and its targets with the figures that the peers' program measures them by: nanoseconds for one message, or
/// messages a second.
const LOADS: [(&str, &str, &[Measure]); 3] = [
    ("one_way", "awake", &[(SUBJECT, "mesh_one_way_ns"), ("rtrb", "rtrb_one_way_ns")]),
    ("one_way", "parked", &[(SUBJECT, "mesh_parked_one_way_ns"), ("eventfd", "eventfd_one_way_ns")]),
    (
        "throughput",
        "batches",
        &[
            (SUBJECT, "mesh_per_second"),
            ("rtrb", "rtrb_per_second"),
            ("crossbeam", "crossbeam_per_second"),
            ("shared_channel", "shared_channel_per_second"),
        ],
    ),
];

/// Runs the command.
pub(crate) fn run(args: &MeshArgs) -> Result<()> {
    measure(args, &Interrupt::install()?)?.print(args.json)
}

/// All rounds.
pub(crate) fn measure(args: &MeshArgs, interrupt: &Interrupt) -> Result<Measured> {
    let from = Instant::now();
    let here = std::env::current_dir().map_err(BenchError::io("finding this folder"))?;
    let (machine, program) = (Machine::of(&here), built("mesh-peers", "mesh.sh")?);
    let (mut figures, mut turns) = (Figures::default(), Turns::new(interrupt));
    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 5 });
    let seconds = args.seconds.unwrap_or_else(|| Duration::from_millis(if args.quick { 200 } else { 500 }));
    for round in 0..usize::from(rounds) {
        note(&format!("round {}/{rounds}", round + 1));
        turns.begin(round);
        let all = RefCell::new(Printed::new());
        for (set, name, targets) in LOADS {
            let load = Load {
                set,
                name: format!("{set}_{name}"),
                unit: Unit::Message,
                clients: 1,
                bytes: 64,
                warmup: Duration::ZERO,
                seconds,
            };
            let (program, all) = (&program, &all);
            let way = |(target, name): &Measure| {
                let name = *name;
                Way::new(target, move || {
                    let mut command = dying_with_us(program.as_os_str());
                    command.arg(seconds.as_secs_f64().to_string()).arg(name);
                    let value = figure(&printed(command, name, "mesh-peers")?, name)?;
                    all.borrow_mut().insert(name.to_owned(), value);
                    // One after the other: so many in a second.
                    Ok(Seen::timed(if name.ends_with("_ns") { 1e9 / value } else { value }, 1.0))
                })
            };
            turns.each(&load, targets.iter().map(way).collect())?;
        }
        gather(&all.into_inner(), &mut figures)?;
    }
    let cells = turns.cells();
    Ok(Measured { machine, targets: targets(&cells, about), floors: Vec::new(), figures, cells, from })
}

/// What a target is.
fn about(target: &str) -> TargetInfo {
    let lock = |package: &str| locked(include_str!("../peers/mesh/Cargo.lock"), package);
    let (version, what) = match target {
        SUBJECT => (env!("CARGO_PKG_VERSION").to_owned(), "the cores' mesh"),
        "rtrb" => (lock("rtrb"), "a bare ring of one sender and one receiver, which never sleep"),
        "eventfd" => (String::new(), "an eventfd's write and read, and no message"),
        "crossbeam" => (lock("crossbeam-channel"), "its bounded channel"),
        _ => (lock("glommio"), "glommio's bounded channel between executors"),
    };
    TargetInfo { name: target.to_owned(), version, durability: what.to_owned(), processes: 1 }
}

fn gather(printed: &Printed, figures: &mut Figures) -> Result<()> {
    let ratio = |of: &str, over: &str| Ok::<f64, BenchError>(figure(printed, of)? / figure(printed, over)?);
    figures.ratio("one_way_awake_vs_rtrb", ratio("mesh_one_way_ns", "rtrb_one_way_ns")?, Goal::AtMost(1.5));
    figures.ratio(
        "one_way_parked_vs_eventfd",
        ratio("mesh_parked_one_way_ns", "eventfd_one_way_ns")?,
        Goal::AtMost(1.3),
    );
    figures.ratio(
        "throughput_vs_shared_channel",
        ratio("mesh_per_second", "shared_channel_per_second")?,
        Goal::AtLeast(3.0),
    );
    figures.ratio(
        "throughput_vs_crossbeam",
        ratio("mesh_per_second", "crossbeam_per_second")?,
        Goal::AtLeast(1.0),
    );
    for (name, value) in printed {
        figures.observe(name, *value);
    }
    Ok(())
}

/// One of the figures that a peer's program must have printed.
pub(crate) fn figure(printed: &Printed, name: &str) -> Result<f64> {
    printed.get(name).copied().ok_or_else(|| BenchError::Failed {
        scenario: name.to_owned(),
        target: "its program".to_owned(),
        reason: "it printed no such figure: build it again".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_asked_for() {
        let names = [
            "rtrb_one_way_ns",
            "mesh_one_way_ns",
            "eventfd_one_way_ns",
            "mesh_parked_one_way_ns",
            "shared_channel_per_second",
            "crossbeam_per_second",
            "mesh_per_second",
        ];
        let mut all: Printed = names.iter().map(|name| ((*name).to_owned(), 2.0)).collect();
        gather(&all, &mut Figures::default()).unwrap();
        all.remove("mesh_per_second");
        assert!(gather(&all, &mut Figures::default()).is_err());
    }
}
