//! The `reshard` command: what a shard on its way to another group costs its clients and everybody else's.
//!
//! Three nodes on loopback, two groups. One shard of a given size goes to and fro between them: first while nobody wants anything,
//! which tells how fast it is, then under load. A client of that shard, one of a shard that stays in the same group, and a load
//! on all shards that stay, tell what they see of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use flotilla_services::client::{Cluster, Connection, Reply, Seeds};
use flotilla_services::slot::{Slot, first_slot, key_in};
use serde::Serialize;

use crate::compare::result::TargetInfo;
use crate::error::{BenchError, Result};
use crate::figures::{Figures, Found, Measured};
use crate::floor::{self, Floors, RoundFloors};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::report::{Goal, note, table};
use crate::target::flotilla::{self, Shape};
use crate::target::process::Ports;
use crate::turn::SUBJECT;

/// Shards of the cluster: the default of the nodes' configuration.
const SHARDS: u16 = 64;
/// The shard that moves, and the groups between which it does. It is founded in the first.
const MOVES: u16 = 3;
const GROUPS: [&str; 2] = ["0", "1"];
/// Bytes of a value.
const VALUE_BYTES: usize = 1024;
/// Clients of the shards that stay.
const LOAD: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether a shard has moved: a node answers that as it answers clients.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const LOOK_EVERY_UNDER_LOAD: Duration = Duration::from_millis(5);
/// Between a move under load and the next one: a pause, and how long the load is measured without one.
const REST: Duration = Duration::from_secs(1);
const WITHOUT: Duration = Duration::from_millis(500);

/// Options of `flotilla-bench reshard`.
#[derive(Debug, Args)]
pub(crate) struct ReshardArgs {
    /// Sizes of the shard that moves, in MiB
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    pub(crate) mib: Vec<u64>,
    /// How often each moves
    #[arg(long, default_value_t = 10)]
    pub(crate) moves: u32,
    /// Fewer moves
    #[arg(long)]
    pub(crate) quick: bool,
    /// The flotilla program [default: the one beside this]
    #[arg(long)]
    pub(crate) flotilla: Option<PathBuf>,
    /// Put the nodes' folders here: the disk that is measured
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What one size came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MoveResult {
    mib: u64,
    /// Median of the moves while nobody wants anything: from the order to the shard's being served at the other group, and
    /// nothing being left of it.
    seconds: f64,
    mb_per_second: f64,
    /// The same under load.
    loaded_seconds: f64,
    /// The longest that its client waited for a read in each move: the median of the moves, and the most.
    away_ms: [f64; 2],
    /// The same of a client of a shard that stays.
    stays_ms: [f64; 2],
    /// Reads of shards that stay, by the load: before each move, and during it. Medians.
    others_per_second: [f64; 2],
    /// The second over the first, of each move.
    others_ratios: Vec<f64>,
}

/// Runs the command.
pub(crate) fn run(args: &ReshardArgs) -> Result<()> {
    let (found, _) = moves(args, &Interrupt::install()?)?;
    found.print(args.json, |_, results| shown(results))
}

/// All sizes, for a result file. It has no loads that others could be put under: only figures.
pub(crate) fn measure(args: &ReshardArgs, interrupt: &Interrupt) -> Result<Measured> {
    let (Found { machine, figures, from, .. }, floors) = moves(args, interrupt)?;
    let ours = TargetInfo {
        name: SUBJECT.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        durability: "three nodes, two groups".to_owned(),
        processes: 3,
    };
    Ok(Measured { machine, targets: vec![ours], floors: vec![floors], figures, cells: Vec::new(), from })
}

fn moves(args: &ReshardArgs, interrupt: &Interrupt) -> Result<(Found<Floors, MoveResult>, RoundFloors)> {
    let from = Instant::now();
    let folder = crate::kv::folder(args.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    let (mut figures, mut results) = (Figures::default(), Vec::new());
    let measured = floor::measure(folder.path(), Duration::from_millis(500), interrupt)?;
    for mib in &args.mib {
        let moves = if args.quick { args.moves.min(4) } else { args.moves };
        let result = one_size(folder.path(), args.flotilla.as_deref(), *mib, moves, interrupt)?;
        for ratio in &result.others_ratios {
            figures.ratio(&format!("others_{mib}_mib"), *ratio, Goal::AtLeast(0.9));
        }
        figures.ratio(&format!("away_ms_{mib}_mib"), result.away_ms[1], Goal::AtMost(50.0));
        if *mib >= 16 {
            figures.ratio(&format!("mb_per_second_{mib}_mib"), result.mb_per_second, Goal::AtLeast(200.0));
        }
        results.push(result);
    }
    let floors = floor::summary(std::slice::from_ref(&measured));
    Ok((Found { machine, floors, figures, results, from }, measured))
}

fn failed(reason: impl ToString) -> BenchError {
    BenchError::Failed {
        scenario: "reshard".to_owned(),
        target: "flotilla".to_owned(),
        reason: reason.to_string(),
    }
}

fn one_size(
    folder: &Path,
    program: Option<&Path>,
    mib: u64,
    moves: u32,
    interrupt: &Interrupt,
) -> Result<MoveResult> {
    let data = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder for nodes"))?;
    let shape = Shape { program: program.map(Path::to_owned), nodes: 3, cores: 1, groups: 2, workers: 0 };
    let starting = flotilla::start(&shape, data.path(), &mut Ports::new())?;
    let addresses: Vec<String> = starting.addresses()?.iter().map(ToString::to_string).collect();
    let _target = starting.ready(interrupt)?;
    let seeds = || Seeds::from(addresses.clone());
    note(&format!("filling a shard with {mib} MiB"));
    fill(&mut Cluster::new(seeds()), mib, interrupt)?;
    // One that doesn't count, and takes the shard to the second group: the log makes its segments.
    let mut there = 1;
    let mut watch = Watch::new(&addresses)?;
    let mut one_move = |watch: &mut Watch, every: Duration| -> Result<f64> {
        interrupt.check()?;
        let clock = Instant::now();
        move_to(&addresses[0], GROUPS[there])?;
        watch.until_settled(GROUPS[there], every, interrupt)?;
        there = 1 - there;
        Ok(clock.elapsed().as_secs_f64())
    };
    one_move(&mut watch, LOOK_EVERY)?;
    let alone = (0..moves).map(|_| one_move(&mut watch, LOOK_EVERY));
    let mut seconds = alone.collect::<Result<Vec<f64>>>()?;
    let load = Load::start(|| Cluster::new(seeds()));
    let [moving, staying] =
        [MOVES, MOVES + 1].map(|shard| Probe::start(Cluster::new(seeds()), key_of(shard, 0)));
    let (mut loaded, mut away, mut stays) = (Vec::new(), Vec::new(), Vec::new());
    let (mut without, mut meanwhile, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..moves {
        // What the last move left to do is done by then.
        interrupt.sleep_until(Instant::now() + REST)?;
        load.done.store(0, Ordering::Relaxed);
        let clock = Instant::now();
        // Looked at as often as while it moves: that is work for the nodes, too.
        while clock.elapsed() < WITHOUT {
            watch.look()?;
            interrupt.sleep_until(Instant::now() + LOOK_EVERY_UNDER_LOAD)?;
        }
        without.push(load.done.load(Ordering::Relaxed) as f64 / clock.elapsed().as_secs_f64());
        moving.take();
        staying.take();
        load.done.store(0, Ordering::Relaxed);
        let took = one_move(&mut watch, LOOK_EVERY_UNDER_LOAD)?;
        loaded.push(took);
        meanwhile.push(load.done.load(Ordering::Relaxed) as f64 / took);
        ratios.push(meanwhile[meanwhile.len() - 1] / without[without.len() - 1]);
        interrupt.sleep_until(Instant::now() + Duration::from_millis(100))?;
        away.push(moving.take());
        stays.push(staying.take());
    }
    load.end().map_err(failed)?;
    moving.end().map_err(failed)?;
    staying.end().map_err(failed)?;
    let middle = |of: &mut [f64]| {
        of.sort_by(f64::total_cmp);
        [of[of.len() / 2], of[of.len() - 1]]
    };
    let [[seconds, _], [loaded_seconds, _], [others, _], [before, _]] =
        [&mut seconds, &mut loaded, &mut meanwhile, &mut without].map(|of| middle(of));
    Ok(MoveResult {
        mib,
        seconds,
        loaded_seconds,
        mb_per_second: mib as f64 * 1_048_576.0 / 1e6 / seconds,
        away_ms: middle(&mut away),
        stays_ms: middle(&mut stays),
        others_per_second: [before, others],
        others_ratios: ratios,
    })
}

/// A key of a shard: all of a shard's keys share the tag of its first slot.
fn key_of(shard: u16, number: u64) -> Vec<u8> {
    // A tag is found by trying.
    static TAGS: LazyLock<Vec<Vec<u8>>> =
        LazyLock::new(|| (0..SHARDS).map(|shard| key_in(first_slot(shard, SHARDS))).collect());
    [b"{", &TAGS[usize::from(shard)][..], b"}", number.to_string().as_bytes()].concat()
}

/// Fills the shard that moves; every other one gets a key.
fn fill(client: &mut Cluster, mib: u64, interrupt: &Interrupt) -> Result<()> {
    let value = vec![b'v'; VALUE_BYTES];
    for shard in 0..SHARDS {
        let key = key_of(shard, 0);
        client.execute(&key, &[b"SET", &key, &value], PATIENCE).map_err(failed)?;
    }
    let keys = mib * (1 << 20) / VALUE_BYTES as u64;
    let numbers: Vec<u64> = (0..keys).collect();
    let mut batches = numbers.chunks(256).peekable();
    let until = Instant::now() + PATIENCE * 10;
    while batches.peek().is_some() {
        // Leaderships go to the nodes that should have them soon after a start.
        client.refresh().map_err(failed)?;
        let address =
            client.address_of(Slot(first_slot(MOVES, SHARDS))).ok_or_else(|| failed("no leader"))?;
        let mut connection = Connection::open(&address, PATIENCE).map_err(failed)?;
        while let Some(batch) = batches.peek() {
            interrupt.check()?;
            if !set_all(&mut connection, batch, &value)? {
                break;
            }
            batches.next();
        }
        if Instant::now() > until {
            return Err(failed("the shard can't be filled"));
        }
    }
    Ok(())
}

/// Sets these keys of the shard that moves; `false` if the node doesn't lead it (any more).
fn set_all(connection: &mut Connection, numbers: &[u64], value: &[u8]) -> Result<bool> {
    let keys: Vec<Vec<u8>> = numbers.iter().map(|number| key_of(MOVES, *number)).collect();
    let commands: Vec<[&[u8]; 3]> = keys.iter().map(|key| [&b"SET"[..], key, value]).collect();
    connection.send(commands.iter().map(|command| &command[..])).map_err(failed)?;
    let mut is_led = true;
    for _ in numbers {
        match connection.receive().map_err(failed)? {
            Reply::Status(_) => {}
            Reply::Error(error) if is_for_another(&error) => is_led = false,
            other => return Err(failed(format!("SET was answered with {other}"))),
        }
    }
    Ok(is_led)
}

/// Whether an error says that nothing was done, and that another node, or later, is the way.
pub(crate) fn is_for_another(error: &str) -> bool {
    ["MOVED ", "TRYAGAIN ", "CLUSTERDOWN ", "BUSY "].iter().any(|word| error.starts_with(word))
}

fn move_to(address: &str, group: &str) -> Result<()> {
    let mut connection = Connection::open(address, PATIENCE).map_err(failed)?;
    let shard = MOVES.to_string();
    let command: [&[u8]; 4] = [b"FLOTILLA.CLUSTER", b"MOVE", shard.as_bytes(), group.as_bytes()];
    match connection.execute(&command).map_err(failed)? {
        Reply::Integer(_) => Ok(()),
        other => Err(failed(format!("MOVE was answered with {other}"))),
    }
}

/// Looks at what the nodes' groups have.
struct Watch(Vec<Connection>);

impl Watch {
    fn new(addresses: &[String]) -> Result<Self> {
        let open = |address: &String| Connection::open(address, PATIENCE).map_err(failed);
        addresses.iter().map(open).collect::<Result<_>>().map(Self)
    }

    /// The lines of all nodes.
    fn look(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for connection in &mut self.0 {
            let found = connection.execute(&[b"FLOTILLA.CLUSTER", b"STATUS"]).map_err(failed)?;
            if let Reply::Array(found) = found {
                lines.extend(found.iter().map(ToString::to_string));
            }
        }
        Ok(lines)
    }

    /// Waits until the group serves the shard, and nothing is on its way.
    fn until_settled(&mut self, group: &str, every: Duration, interrupt: &Interrupt) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let lines = self.look()?;
            let is_quiet = lines.iter().all(|line| !line.contains('<') && !line.contains('>'));
            let of_group = lines.iter().filter(|line| line.contains(&format!("group {group} ")));
            let serves = of_group.filter_map(|line| line.split("serving ").nth(1)?.split(' ').next());
            if is_quiet && serves.flat_map(|ranges| ranges.split(',')).any(has_it) {
                return Ok(());
            }
            interrupt.sleep_until(Instant::now() + every)?;
        }
        Err(failed("the shard doesn't get there"))
    }
}

/// Whether the shard that moves is in a range, as `0-5` or `7`.
fn has_it(range: &str) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let bounds = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
    bounds.is_some_and(|(first, last)| (first..=last).contains(&MOVES))
}

/// A client that reads one key, over and over, and knows the longest that it took.
struct Probe {
    over: Arc<AtomicBool>,
    longest_us: Arc<AtomicU64>,
    worker: JoinHandle<std::result::Result<(), String>>,
}

impl Probe {
    fn start(mut client: Cluster, key: Vec<u8>) -> Self {
        let (over, longest_us) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop, longest) = (Arc::clone(&over), Arc::clone(&longest_us));
        let worker = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let clock = Instant::now();
                client.execute(&key, &[b"GET", &key], PATIENCE).map_err(|error| error.to_string())?;
                let took = u64::try_from(clock.elapsed().as_micros()).unwrap_or(u64::MAX);
                longest.fetch_max(took, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(500));
            }
            Ok(())
        });
        Self { over, longest_us, worker }
    }

    /// The longest since this was asked last, in milliseconds.
    fn take(&self) -> f64 {
        self.longest_us.swap(0, Ordering::Relaxed) as f64 / 1e3
    }

    fn end(self) -> std::result::Result<(), String> {
        self.over.store(true, Ordering::Relaxed);
        self.worker.join().map_err(|_| "a probe panicked".to_owned())?
    }
}

/// Clients that read keys of all shards but the one that moves, as fast as they can.
struct Load {
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    workers: Vec<JoinHandle<std::result::Result<(), String>>>,
}

impl Load {
    fn start(client: impl Fn() -> Cluster) -> Self {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let worker = |number: usize| {
            let (mut client, stop, count) = (client(), Arc::clone(&over), Arc::clone(&done));
            std::thread::spawn(move || {
                for turn in number.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let shard = u16::try_from(turn % usize::from(SHARDS)).unwrap_or(0);
                    let key = key_of(if shard == MOVES { shard + 1 } else { shard }, 0);
                    client.execute(&key, &[b"GET", &key], PATIENCE).map_err(|error| error.to_string())?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let workers = (0..LOAD).map(worker).collect();
        Self { over, done, workers }
    }

    fn end(self) -> std::result::Result<(), String> {
        self.over.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.join().map_err(|_| "a client panicked".to_owned())??;
        }
        Ok(())
    }
}

fn shown(results: &[MoveResult]) -> String {
    let row = |it: &MoveResult| {
        let [away, away_most] = it.away_ms;
        let [stays, stays_most] = it.stays_ms;
        let [before, meanwhile] = it.others_per_second;
        vec![
            format!("{} MiB", it.mib),
            format!("{:.3} s", it.seconds),
            format!("{:.0} MB/s", it.mb_per_second),
            format!("{:.3} s", it.loaded_seconds),
            format!("{away:.1} / {away_most:.1} ms"),
            format!("{stays:.1} / {stays_most:.1} ms"),
            format!("{before:.0} → {meanwhile:.0}"),
        ]
    };
    let head = [
        "shard",
        "move",
        "speed",
        "under load",
        "its client waits",
        "another's client waits",
        "others' reads/s",
    ];
    table(&head, &results.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_s_keys_are_in_it_and_ranges_are_understood() {
        for shard in 0..SHARDS {
            assert_eq!(Slot::of_key(&key_of(shard, 7)).shard(SHARDS), shard);
        }
        assert!(has_it("0-5") && has_it("3") && !has_it("4-9") && !has_it(""));
    }
}
