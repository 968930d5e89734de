//! The `nodes` command: what operators of nodes are promised, on local clusters.
//!
//! | module | what |
//! |---|---|
//! | [`restart`] | how soon all keys are back when a node is started again, and what a key takes in memory; beside Redis |
//! | [`sessions`] | what an idle client's session takes in memory |
//! | [`idle`] | what a node takes that nobody asks for anything |
//! | [`rolling`] | what clients see of a rolling restart |
//! | [`cores`] | what a second core of each node brings, and what goes from core to core for it |
//! | [`cluster`] | starting clusters, and asking them |
//! | [`pin`], [`perf`] | which CPUs they run on; counting instructions, where the machine lets one |

mod cluster;
mod cores;
mod idle;
mod perf;
mod pin;
mod restart;
mod rolling;
mod sessions;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum, value_parser};

use crate::compare::result::TargetInfo;
use crate::error::{BenchError, Result};
use crate::figures::{Figures, Measured};
use crate::floor;
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::report::note;
use crate::turn::SUBJECT;

/// Longer than anything here takes, but for what depends on how many keys there are.
const PATIENCE: Duration = Duration::from_secs(60);

/// What nodes promise to those who operate them
///
/// One node with many keys is killed and started again, beside Redis with the same keys; idle clients' sessions are weighed on a
/// cluster of three; three idle nodes' CPU time is taken; three nodes are restarted one after the other under load; nodes of two
/// cores are put beside nodes of one.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodesArgs {
    /// About a minute: fewer keys, fewer sessions, shorter loads
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often nodes are restarted, and loads repeated [default: 3; 2 with --quick]
    #[arg(long, value_parser = value_parser!(u16).range(1..=1000))]
    pub(crate) rounds: Option<u16>,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) only: Vec<Part>,
    /// Keys that a restarted node has [default: 10000000; 1000000 with --quick]
    #[arg(long, value_parser = value_parser!(u64).range(1_000..=1_000_000_000))]
    pub(crate) keys: Option<u64>,
    /// Sessions of idle clients [default: 400000; 100000 with --quick]
    #[arg(long, value_parser = value_parser!(u32).range(1_000..=1_000_000))]
    pub(crate) sessions: Option<u32>,
    /// A folder on a real disk, in which a temporary one is made [default: here]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// The flotilla program [default: the one beside this]
    #[arg(long)]
    pub(crate) flotilla: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Keys that are back after a restart, and their memory
    Restart,
    /// Idle clients' sessions
    Sessions,
    /// The CPU time of idle nodes
    Idle,
    /// A rolling restart under load
    Rolling,
    /// Two cores beside one
    Cores,
}

/// Everything that the parts share.
struct Bench<'a> {
    args: &'a NodesArgs,
    folder: &'a Path,
    figures: Figures,
    interrupt: &'a Interrupt,
    /// Of Redis, once it was measured.
    redis: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &NodesArgs) -> Result<()> {
    measure(args, &Interrupt::install()?)?.print(args.json)
}

/// All parts, for a result file. There are no loads that others could be put under: only figures.
pub(crate) fn measure(args: &NodesArgs, interrupt: &Interrupt) -> Result<Measured> {
    // Ctrl-C reaches the nodes as well, and whatever waits for one then is told that it has gone.
    parts(args, interrupt).map_err(|error| if interrupt.is_set() { BenchError::Interrupted } else { error })
}

fn parts(args: &NodesArgs, interrupt: &Interrupt) -> Result<Measured> {
    let from = Instant::now();
    let folder = crate::kv::folder(args.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    let floors = floor::measure(folder.path(), Duration::from_millis(500), interrupt)?;
    let mut bench =
        Bench { args, folder: folder.path(), figures: Figures::default(), interrupt, redis: None };
    type Measure = fn(&mut Bench<'_>) -> Result<()>;
    let each: [(Part, &str, Measure); 5] = [
        (Part::Restart, "a node with many keys is killed and started again", restart::measure),
        (Part::Sessions, "sessions of idle clients", sessions::measure),
        (Part::Idle, "nodes that nobody asks for anything", idle::measure),
        (Part::Rolling, "three nodes are restarted one after the other", rolling::measure),
        (Part::Cores, "nodes of two cores", cores::measure),
    ];
    for (part, what, measure) in each {
        if args.only.is_empty() || args.only.contains(&part) {
            interrupt.check()?;
            note(what);
            measure(&mut bench)?;
        }
    }
    let Bench { figures, redis, .. } = bench;
    let mut targets = vec![TargetInfo {
        name: SUBJECT.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        durability:
            "three nodes of one core, but for the restart with many keys (one node) and two cores beside one"
                .to_owned(),
        processes: 3,
    }];
    targets.extend(redis.map(|version| TargetInfo {
        name: "redis".to_owned(),
        version,
        durability: "the restart with many keys: one server, from its snapshot (RDB) and from its append-only file (AOF)"
            .to_owned(),
        processes: 1,
    }));
    Ok(Measured { machine, targets, floors: vec![floors], figures, cells: Vec::new(), from })
}

impl Bench<'_> {
    /// How often everything is repeated.
    fn rounds(&self) -> u16 {
        self.args.rounds.unwrap_or(if self.args.quick { 2 } else { 3 })
    }

    /// What is measured for so long, or for less where it is quick.
    fn seconds(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.args.quick { seconds / 3.0 } else { seconds })
    }
}

/// A part can't be measured, or its numbers mean nothing.
fn failed(part: &str, reason: impl ToString) -> BenchError {
    BenchError::Failed { scenario: part.to_owned(), target: SUBJECT.to_owned(), reason: reason.to_string() }
}
