//! Scripts of disk effects, and who carries them out: the simulated disk, or the real driver on a folder.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as it does")]

use Do::*;
use flotilla_runtime::driver::{CoreOptions, NodeHandle, NodeOptions, SyncMode, run};
use flotilla_runtime::{
    BlockPool, CoreBoot, DiskError, DiskReply, Effect, Effects, Event, FileId, FileKind, Machine, Nanos,
    NodeId, Now, OpId,
};
use flotilla_sim::disk::Disk;
use flotilla_sim::faults::Tally;
use flotilla_sim::rng::Rng;
use flotilla_sim::swarm::Loses;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

const BLOCK_BYTES: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(60);

/// One of a script's own files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Segment,
    Snapshot,
    Other,
    Unfinished,
}

/// One effect. Places and sizes are in blocks; content has a letter a block (`.` is zeros, `x*300` three hundred).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Do {
    Create(Of, u64),
    Write(Of, u64, &'static str),
    /// A write with a sync of its own.
    Durably(Of, u64, &'static str),
    Sync(Of),
    Read(Of, u64, u32),
    Rename(Of, Of),
    Remove(Of),
}

/// Effects that leave together, each with what comes of it: `done`, `reads ab.` (`?` is any block), or the error.
pub(crate) type Turn = &'static [(Do, &'static str)];

/// Turns, one after the other; then the power fails, the core starts again, and there may be more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) life: &'static [Turn],
    pub(crate) next_life: &'static [Turn],
}

impl Of {
    /// Scripts don't meet: each has its own numbers.
    pub(crate) fn of(self, script: usize) -> FileId {
        let number = script as u64 * 16 + 1;
        match self {
            Self::Segment => FileId::segment(number),
            Self::Snapshot => FileId { kind: FileKind::Snapshot, number },
            Self::Other => FileId { kind: FileKind::Snapshot, number: number + 1 },
            Self::Unfinished => FileId { kind: FileKind::Unfinished, number },
        }
    }
}

impl Do {
    fn effect(self, script: usize, op: OpId, pool: &BlockPool) -> Effect<()> {
        let write = |of: Of, place: u64, content: &str, sync: bool| {
            let block = pool.copy_of(&bytes(content));
            Effect::Write { op, file: of.of(script), offset: at(place), block, sync }
        };
        match self {
            Create(of, blocks) => Effect::CreateFile { op, file: of.of(script), bytes: at(blocks) },
            Write(of, place, content) => write(of, place, content, false),
            Durably(of, place, content) => write(of, place, content, true),
            Sync(of) => Effect::Sync { op, file: of.of(script) },
            Read(of, place, blocks) => {
                let bytes = blocks * u32::try_from(BLOCK_BYTES).unwrap();
                Effect::Read { op, file: of.of(script), offset: at(place), bytes }
            }
            Rename(from, to) => Effect::RenameFile { op, from: from.of(script), to: to.of(script) },
            Remove(of) => Effect::RemoveFile { op, file: of.of(script) },
        }
    }

    fn place(self) -> u64 {
        match self {
            Write(_, place, _) | Durably(_, place, _) | Read(_, place, _) => at(place),
            _ => 0,
        }
    }

    fn file(self, script: usize) -> FileId {
        match self {
            Create(of, _) | Write(of, ..) | Durably(of, ..) | Sync(of) | Read(of, ..) => of.of(script),
            Rename(of, _) | Remove(of) => of.of(script),
        }
    }
}

fn at(blocks: u64) -> u64 {
    blocks * BLOCK_BYTES as u64
}

fn letters(content: &str) -> String {
    match content.split_once('*') {
        Some((letter, times)) => letter.repeat(times.parse().unwrap()),
        None => content.to_owned(),
    }
}

fn bytes(content: &str) -> Vec<u8> {
    let fill = |letter: char| if letter == '.' { 0 } else { u8::try_from(letter).unwrap() };
    letters(content).chars().flat_map(|letter| [fill(letter); BLOCK_BYTES]).collect()
}

/// What came of an effect, in the words of the scripts. An error must name its file and place.
fn outcome(effect: Do, script: usize, result: Result<DiskReply, DiskError>) -> String {
    match result {
        Ok(DiskReply::Done) => "done".to_owned(),
        Ok(DiskReply::Read(found)) => {
            let letter = |block: &[u8]| match block {
                [0, rest @ ..] if rest.iter().all(|byte| *byte == 0) => '.',
                [first, rest @ ..] if block.len() == BLOCK_BYTES && rest.iter().all(|byte| byte == first) => {
                    char::from(*first)
                }
                _ => '#',
            };
            format!("reads {}", found.chunks(BLOCK_BYTES).map(letter).collect::<String>())
        }
        Err(DiskError { operation, file, offset, errno, reason }) => {
            let name = effect.file(script).to_string();
            assert!(file.ends_with(&format!("/{name}")), "an error of {name} names {file}");
            assert_eq!(offset, effect.place(), "an error of {effect:?} names another place");
            format!("{operation} fails: {reason} ({errno})")
        }
    }
}

fn judge(on: &str, script: &Script, turn: Turn, outcomes: &[String]) {
    for ((effect, expected), found) in turn.iter().zip(outcomes) {
        let expected = match expected.split_once(' ') {
            Some(("reads", content)) => format!("reads {}", letters(content)),
            _ => (*expected).to_owned(),
        };
        let same = expected.len() == found.len()
            && expected
                .chars()
                .zip(found.chars())
                .all(|(expected, found)| expected == '?' || expected == found);
        assert!(same, "{on}, {}: {effect:?} gives {found:?} instead of {expected:?}", script.name);
    }
}

/// Which files a core finds at its start, and how long they are.
pub(crate) type Found = BTreeMap<String, usize>;

fn found(files: &[(FileId, flotilla_runtime::Slice)]) -> Found {
    files.iter().map(|(file, content)| (file.to_string(), content.len())).collect()
}

/// Carries the scripts out on a simulated disk; what a turn asks for ends in any order. Returns what the second life
/// found.
pub(crate) fn on_simulated_disk(scripts: &[Script], seed: u64) -> Found {
    let mut rng = Rng::new(seed);
    let mut disk = Disk::default();
    let pool = BlockPool::new();
    let on = format!("simulated disk, seed {seed}");
    let mut found_then = Found::new();
    for life in [|script: &Script| script.life, |script: &Script| script.next_life] {
        found_then = found(&disk.boot());
        for (number, script) in scripts.iter().enumerate() {
            for turn in life(script) {
                let begin = |(effect, _): &(Do, _)| disk.begin(effect.effect(number, OpId(0), &pool)).1;
                let actions: Vec<_> = turn.iter().map(begin).collect();
                let mut left: Vec<usize> = (0..turn.len()).collect();
                let mut outcomes = vec![String::new(); turn.len()];
                while !left.is_empty() {
                    let any = rng.between(0, left.len() as u64 - 1);
                    let place = left.swap_remove(usize::try_from(any).unwrap());
                    outcomes[place] = outcome(turn[place].0, number, disk.complete(&actions[place]));
                }
                judge(&on, script, turn, &outcomes);
            }
        }
        let loses = Loses { any: true, earlier: true, sectors: true, blocks: true };
        disk.crash(&[], loses, &mut rng, &mut Tally::default());
    }
    found_then
}

/// Carries the scripts out with the real driver, in this folder; `lose_power` comes between the two lives. Returns what
/// the second one found.
pub(crate) fn on_driver(
    scripts: &'static [Script],
    folder: &Path,
    sync: SyncMode,
    lose_power: impl FnOnce(),
) -> Found {
    let on = format!("{}, {sync:?}", folder.display());
    one_life(&on, scripts, |script| script.life, folder, sync);
    lose_power();
    one_life(&on, scripts, |script| script.next_life, folder, sync)
}

fn one_life(
    on: &str,
    scripts: &'static [Script],
    life: fn(&Script) -> &'static [Turn],
    folder: &Path,
    sync: SyncMode,
) -> Found {
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = NodeOptions::new(NodeId(1), 7, 1);
    options.sync = sync;
    std::fs::create_dir_all(folder).unwrap();
    options.cores =
        vec![CoreOptions { clients: listener(), peers: listener(), folder: folder.to_path_buf() }];
    let (tell, heard) = mpsc::channel();
    let turns: Vec<(usize, Turn)> = scripts
        .iter()
        .enumerate()
        .flat_map(|(number, script)| life(script).iter().map(move |turn| (number, *turn)))
        .collect();
    let asked = turns.clone();
    let build = move |boot: CoreBoot| {
        tell.send(Heard::Found(found(&boot.files))).unwrap();
        Ok(Actor {
            turns: asked.clone(),
            pool: boot.pool,
            waiting: BTreeMap::new(),
            outcomes: Vec::new(),
            tell: tell.clone(),
            has_begun: false,
        })
    };
    let node = flotilla_services::hands::spawn(move || run(options, build, NodeHandle::new(), || {}));
    let hear = |from: &str| {
        heard.recv_timeout(PATIENCE).map_err(|_| format!("{on}, {from}: the node says nothing any more"))
    };
    let hear_all = || {
        let Heard::Found(files) = hear("start")? else { return Err("it starts first".to_owned()) };
        for (number, turn) in turns {
            let Heard::Outcomes(outcomes) = hear(scripts[number].name)? else {
                return Err("it starts once".to_owned());
            };
            judge(on, &scripts[number], turn, &outcomes);
        }
        Ok(files)
    };
    match hear_all() {
        Ok(files) => {
            node.join().unwrap().unwrap();
            files
        }
        Err(error) if node.is_finished() => panic!("{error}: {:?}", node.join()),
        Err(error) => panic!("{error}"),
    }
}

enum Heard {
    Found(Found),
    Outcomes(Vec<String>),
}

/// A machine that does nothing but its turns, and then ends.
struct Actor {
    turns: Vec<(usize, Turn)>,
    pool: BlockPool,
    /// Operations of the turn, and their places in it.
    waiting: BTreeMap<u64, usize>,
    outcomes: Vec<String>,
    tell: mpsc::Sender<Heard>,
    has_begun: bool,
}

impl Actor {
    fn begin_turn(&mut self, out: &mut Effects<()>) {
        let Some((script, turn)) = self.turns.first().copied() else { return out.push(Effect::Drained) };
        self.outcomes = vec![String::new(); turn.len()];
        for (place, (effect, _)) in turn.iter().enumerate() {
            self.waiting.insert(place as u64, place);
            out.push(effect.effect(script, OpId(place as u64), &self.pool));
        }
    }
}

impl Machine for Actor {
    type Message = ();

    fn step(&mut self, _: Now, event: Event<'_, ()>, out: &mut Effects<()>) {
        match event {
            Event::Tick if !self.has_begun => {
                self.has_begun = true;
                self.begin_turn(out);
            }
            Event::Disk { op, result } => {
                let place = self.waiting.remove(&op.0).unwrap();
                let (script, turn) = self.turns[0];
                self.outcomes[place] = outcome(turn[place].0, script, result);
                if self.waiting.is_empty() {
                    self.turns.remove(0);
                    // Nobody listens: the test has failed already.
                    let _ = self.tell.send(Heard::Outcomes(std::mem::take(&mut self.outcomes)));
                    self.begin_turn(out);
                }
            }
            _ => {}
        }
    }

    fn flush(&mut self, _: Now, _: &mut Effects<()>) {}

    fn deadline(&self) -> Option<Nanos> {
        None
    }
}
