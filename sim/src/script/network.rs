//! Links between nodes: cut and mended by the test, lossy if it says so, counted always.

use super::{Happening, MS, Script};
use crate::check::promises::messages;
use crate::rng::Rng;
use flotilla_consensus::Kind;
use flotilla_runtime::Event;
use std::collections::{BTreeMap, BTreeSet};

/// What the network does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// A tenth of a millisecond, in order, nothing lost.
    Fair,
    /// The labs' unreliable network: every frame takes 0 to 26 ms, and a tenth of them are lost, in either direction. So
    /// they overtake each other, which no TCP link does.
    Unreliable,
    /// The same, and two thirds of the answers are 200 to 2200 ms late.
    LongReordering,
}

/// What went over the links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames, whether or not they arrived.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages of each kind in them: (kind, how many).
    pub messages: Vec<(Kind, u64)>,
}

impl Traffic {
    /// Messages of one kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.messages.iter().find(|(of, _)| *of == kind).map_or(0, |(_, count)| *count)
    }

    /// Messages that want an answer: what the labs call RPCs.
    pub fn requests(&self) -> u64 {
        self.messages.iter().filter(|(kind, _)| !is_answer(*kind)).map(|(_, count)| count).sum()
    }

    /// Messages that are one.
    pub fn answers(&self) -> u64 {
        self.messages.iter().filter(|(kind, _)| is_answer(*kind)).map(|(_, count)| count).sum()
    }

    fn count(&mut self, kind: Kind) {
        match self.messages.iter_mut().find(|(of, _)| *of == kind) {
            Some((_, count)) => *count += 1,
            None => self.messages.push((kind, 1)),
        }
    }
}

fn is_answer(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::PreVote
            | Kind::Vote
            | Kind::Append
            | Kind::Heartbeat
            | Kind::Snapshot
            | Kind::Repair
            | Kind::TimeoutNow
            | Kind::ReadIndex
    )
}

fn kinds(frame: &[u8]) -> Vec<Kind> {
    messages(frame).iter().map(|(header, _)| header.kind).collect()
}

/// A frame as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The sender.
    pub from: usize,
    /// The receiver.
    pub to: usize,
    /// The kinds of Raft's messages in it.
    pub kinds: Vec<Kind>,
    bytes: Vec<u8>,
}

impl Sent {
    /// Bytes of snapshots in it.
    pub fn snapshot_bytes(&self) -> usize {
        let parts = messages(&self.bytes).into_iter().filter(|(header, _)| header.kind == Kind::Snapshot);
        parts.map(|(_, bytes)| bytes).sum()
    }
}

/// All links.
#[derive(Debug)]
pub(super) struct Network {
    /// Directions in which nothing arrives.
    cut: BTreeSet<(usize, usize)>,
    /// Nodes that hear nobody and are heard by nobody.
    away: BTreeSet<usize>,
    /// Links that their owner believes to stand.
    up: BTreeSet<(usize, usize)>,
    /// When the last frame of a link arrives that keeps its order.
    last: BTreeMap<(usize, usize), u64>,
    weather: Weather,
    traffic: Traffic,
    /// Copies of everything that is sent, if somebody wants them.
    tape: Option<Vec<Sent>>,
    rng: Rng,
}

impl Network {
    pub(super) fn new(rng: Rng) -> Self {
        let (cut, away, up, last, traffic) = Default::default();
        Self { cut, away, up, last, weather: Weather::Fair, traffic, tape: None, rng }
    }

    fn is_open(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to)) && !self.away.contains(&from) && !self.away.contains(&to)
    }

    /// When a frame that is sent now arrives, if it does.
    fn delay(&mut self, is_answer: bool) -> Option<u64> {
        let rng = &mut self.rng;
        if self.weather == Weather::Fair {
            return Some(MS / 10 + rng.between(0, MS / 20));
        }
        if rng.per_million(100_000) {
            return None;
        }
        let delay = rng.between(0, 26 * MS);
        let is_late = is_answer && self.weather == Weather::LongReordering && rng.between(0, 899) < 600;
        let longest = if is_late { rng.between(0, 2000) } else { 0 };
        Some(delay + if is_late { (200 + rng.between(0, longest)) * MS } else { 0 })
    }
}

impl Script {
    /// Nothing that `from` sends arrives at `to`. Nobody is told: what is sent is lost in silence.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.note(|| format!("cut: {} to {}", from + 1, to + 1));
        self.network.cut.insert((from, to));
    }

    /// Undoes [`Self::cut`].
    pub fn mend(&mut self, from: usize, to: usize) {
        self.note(|| format!("mended: {} to {}", from + 1, to + 1));
        self.network.cut.remove(&(from, to));
        self.raise_links();
    }

    /// Cuts everything between these nodes and all others.
    pub fn partition(&mut self, side: &[usize]) {
        self.note(|| format!("partition: {side:?} and the rest, from 0"));
        self.network.cut.clear();
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if side.contains(&from) != side.contains(&to) {
                    self.network.cut.insert((from, to));
                }
            }
        }
        self.raise_links();
    }

    /// No link is cut, and no node away.
    pub fn heal(&mut self) {
        self.note(|| "all links are mended".to_owned());
        self.network.cut.clear();
        self.network.away.clear();
        self.raise_links();
    }

    /// The node hears nobody and is heard by nobody. Nobody is told.
    pub fn disconnect(&mut self, node: usize) {
        self.note(|| format!("node {} is away", node + 1));
        self.network.away.insert(node);
    }

    /// Undoes [`Self::disconnect`].
    pub fn connect(&mut self, node: usize) {
        self.note(|| format!("node {} is back", node + 1));
        self.network.away.remove(&node);
        self.raise_links();
    }

    /// Whether the node runs and isn't away.
    pub fn is_connected(&self, node: usize) -> bool {
        self.is_up(node) && !self.network.away.contains(&node)
    }

    /// The nodes that run and aren't away.
    pub fn connected(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.is_connected(*node)).collect()
    }

    /// Changes what the network does by itself.
    pub fn weather(&mut self, weather: Weather) {
        self.note(|| format!("{weather:?} weather"));
        self.network.weather = weather;
    }

    /// What was sent since this was asked last.
    pub fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.network.traffic)
    }

    /// What was sent since [`Self::take_traffic`].
    pub fn traffic(&self) -> &Traffic {
        &self.network.traffic
    }

    /// Keeps copies of all that is sent from now on, for [`Self::take_tape`].
    pub fn record(&mut self) {
        self.network.tape = Some(Vec::new());
    }

    /// What was sent since [`Self::record`]; that is over.
    pub fn take_tape(&mut self) -> Vec<Sent> {
        self.network.tape.take().unwrap_or_default()
    }

    /// A frame of former days arrives, once more or at last, if its receiver runs.
    pub fn deliver_late(&mut self, sent: &Sent) {
        if self.is_up(sent.to) {
            let from = self.peer(sent.from);
            self.step(sent.to, Event::Peer { from, frame: &sent.bytes });
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let kinds = kinds(&bytes);
        let network = &mut self.network;
        network.traffic.frames += 1;
        network.traffic.bytes += bytes.len() as u64;
        kinds.iter().for_each(|kind| network.traffic.count(*kind));
        if let Some(tape) = &mut network.tape {
            tape.push(Sent { from, to, kinds: kinds.clone(), bytes: bytes.clone() });
        }
        if !network.is_open(from, to) || !network.up.contains(&(from, to)) {
            return;
        }
        let Some(delay) = network.delay(kinds.iter().any(|kind| is_answer(*kind))) else { return };
        let mut time = self.now + delay;
        if network.weather == Weather::Fair {
            let last = network.last.entry((from, to)).or_default();
            time = time.max(*last + 1);
            *last = time;
        }
        let lives = (self.nodes[from].life, self.nodes[to].life);
        self.at(time, Happening::Frame { from, to, lives, bytes });
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, frame: &[u8]) {
        if self.network.is_open(from, to) {
            let from = self.peer(from);
            self.step(to, Event::Peer { from, frame });
        }
    }

    /// Links between running nodes that don't stand and could.
    pub(super) fn raise_links(&mut self) {
        for of in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                let both = of != to && self.is_up(of) && self.is_up(to);
                let open = self.network.is_open(of, to) && self.network.is_open(to, of);
                if both && open && self.network.up.insert((of, to)) {
                    let delay = self.network.rng.between(MS / 10, 50 * MS);
                    let lives = (self.nodes[of].life, self.nodes[to].life);
                    self.at(self.now + delay, Happening::Link { of, to, lives, up: true });
                }
            }
        }
    }

    /// The node is dead: its links are down, and the others hear of it.
    pub(super) fn drop_links(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.network.up.remove(&(node, other));
            if self.network.up.remove(&(other, node)) {
                let lives = (self.nodes[other].life, self.nodes[node].life);
                self.at(self.now + 1, Happening::Link { of: other, to: node, lives, up: false });
            }
        }
    }

    pub(super) fn link_changed(&mut self, of: usize, to: usize, up: bool) {
        let peer = self.peer(to);
        self.step(of, if up { Event::PeerUp { peer } } else { Event::PeerDown { peer } });
    }
}
