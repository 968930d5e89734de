//! `flotilla-bench mesh`: from one core to another, beside a bare ring, an eventfd, glommio's channel and crossbeam's.
//!
//! All of it is measured by one program, `bench/peers/mesh`, in one process and on the same two CPUs, so that this workspace
//! doesn't depend on the peers.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;

use crate::error::{BenchError, Result};
use crate::figures::{Figures, Found};
use crate::interrupt::Interrupt;
use crate::kv::args::seconds;
use crate::machine::Machine;
use crate::report::{Goal, note};
use crate::target::built::{built, printed};

/// The cores' mesh, side by side with rings and channels
///
/// One way from core to core, both awake, beside rtrb; to a parked core, beside an eventfd's write and read; messages of 64
/// bytes a second in batches of 64, beside glommio's shared_channel, crossbeam's bounded channel and rtrb.
#[derive(Clone, Debug, Args)]
pub(crate) struct MeshArgs {
    /// Rounds, each with everything in it; ratios are medians of them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds of each of a round's eight measurements
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    seconds: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What a peer's program prints: figures by name.
pub(crate) type Printed = BTreeMap<String, f64>;

/// Runs the command.
pub(crate) fn run(args: &MeshArgs) -> Result<()> {
    let from = Instant::now();
    let interrupt = Interrupt::install()?;
    let here = std::env::current_dir().map_err(BenchError::io("finding this folder"))?;
    let (machine, program) = (Machine::of(&here), built("mesh-peers", "mesh.sh")?);
    let mut figures = Figures::default();
    for round in 1..=args.rounds {
        interrupt.check()?;
        note(&format!("round {round}"));
        let mut command = Command::new(&program);
        command.arg(args.seconds.as_secs_f64().to_string());
        gather(&printed(command, "figures", "mesh")?, &mut figures)?;
    }
    Found { machine, floors: (), figures, results: Vec::<()>::new(), from }
        .print(args.json, |(), _| "the mesh, and what it is compared with".to_owned())
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
