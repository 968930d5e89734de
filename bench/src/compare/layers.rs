//! The layers by themselves: the log, agreement, moving shards, nodes, MapReduce, the mesh, the runtime, the simulator. What their
//! commands measure, as a result file.

use clap::{Args, Parser};

use super::args::{CompareArgs, What};
use super::noise::Noise;
use super::result::{ResultFile, SCHEMA, compared};
use crate::error::Result;
use crate::figures::Measured;
use crate::interrupt::Interrupt;
use crate::report::command_line;
use crate::turn::SUBJECT;
use crate::{mapreduce, mesh, nodes, raft, reshard, runtime, simulator, wal};

/// A command's own arguments, with nothing but its name given.
fn by_default<T: Args>() -> T {
    #[derive(Parser)]
    struct Bare<T: Args> {
        #[command(flatten)]
        args: T,
    }
    Bare::parse_from(["flotilla-bench"]).args
}

/// Runs the layer's rounds.
pub(super) fn run(args: &CompareArgs, what: What, interrupt: &Interrupt) -> Result<ResultFile> {
    // Two at least: with one, nothing changes places.
    let (quick, rounds) = (args.quick, args.rounds.or_else(|| args.quick.then_some(2)));
    let (dir, flotilla) = (args.dir.clone(), args.flotilla.clone());
    let found = match what {
        What::Wal => wal::measure(&wal::WalArgs { quick, rounds, dir, ..by_default() }, interrupt)?,
        What::Raft => {
            let given = raft::RaftArgs { quick, rounds, dir, flotilla, ..by_default() };
            raft::measure(&given, interrupt)?
        }
        What::MapReduce => {
            let given = mapreduce::MapReduceArgs { quick, rounds, dir, flotilla, ..by_default() };
            mapreduce::measure(&given, interrupt)?
        }
        What::Mesh => mesh::measure(&mesh::MeshArgs { quick, rounds, ..by_default() }, interrupt)?,
        What::Runtime => {
            runtime::measure(&runtime::RuntimeArgs { quick, rounds, dir, ..by_default() }, interrupt)?
        }
        What::Reshard => {
            let mut given = reshard::ReshardArgs { quick, dir, flotilla, ..by_default() };
            given.mib = vec![1, 64, 256];
            reshard::measure(&given, interrupt)?
        }
        What::Nodes => {
            let given = nodes::NodesArgs { quick, rounds, dir, flotilla, ..by_default() };
            nodes::measure(&given, interrupt)?
        }
        What::Simulator => {
            simulator::measure(&simulator::SimulatorArgs { quick, rounds, ..by_default() }, interrupt)?
        }
        What::Kv | What::All => unreachable!("those aren't layers"),
    };
    let Measured { machine, targets, floors, figures, cells, from } = found;
    let (mut ratios, unmeasured) = figures.compared();
    ratios.extend(compared(SUBJECT, &cells));
    Ok(ResultFile {
        schema: SCHEMA.to_owned(),
        what: what.name().to_owned(),
        command: command_line(),
        unix_seconds: super::unix_seconds(),
        elapsed_seconds: from.elapsed().as_secs_f64(),
        source: super::source(),
        machine,
        targets,
        noise: Noise::of(&cells, &floors),
        floors,
        cells,
        ratios,
        unmeasured,
    })
}
