//! The machines and their disks: stepped as the real driver does, crashed and restarted by the test.

use super::{Happening, MS, Script, Setup};
use crate::check::Seat;
use crate::disk::{Action, Disk};
use crate::faults::Tally;
use crate::rng::Rng;
use crate::swarm::Loses;
use flotilla_runtime::{
    BlockPool, CoreBoot, CoreId, Effect, Effects, Event, Machine, NodeId, Now, OpId, PeerId, Vitals,
};
use flotilla_services::config::Config;
use flotilla_services::core::{Core, Message};
use std::collections::BTreeMap;

/// How often a core looks at the clock, as in the driver.
const TICK: u64 = 5 * MS;
/// The most that a turn gathers before it is flushed.
const BATCH: u64 = MS / 50;

pub(super) struct Node {
    config: Config,
    pub(super) core: Option<Core>,
    effects: Effects<Message>,
    disk: Disk,
    pub(super) life: u64,
    flush_due: bool,
    unfinished: BTreeMap<u64, Action>,
    /// What its calendar differs by, in milliseconds.
    skew_ms: i64,
    /// The call that each connection is for.
    pub(super) conns: BTreeMap<u64, usize>,
    pub(super) last_conn: u64,
    rng: Rng,
}

impl Node {
    pub(super) fn new(setup: &Setup, node: usize, rng: Rng) -> Self {
        Self {
            config: config(setup, node),
            core: None,
            effects: Effects::default(),
            disk: Disk::default(),
            life: 0,
            flush_due: false,
            unfinished: BTreeMap::new(),
            skew_ms: 0,
            conns: BTreeMap::new(),
            last_conn: 0,
            rng,
        }
    }
}

/// What a node's file would say.
fn config(setup: &Setup, node: usize) -> Config {
    let entry = |node: usize| {
        let (id, port) = (node + 1, 7001 + node);
        let peer_port = port + 10_000;
        format!("[[nodes]]\nid = {id}\nhost = \"sim\"\nport = {port}\npeer_port = {peer_port}\n")
    };
    let Setup {
        heartbeat_ms, election_ms, snapshot_after_bytes, nodes, forward, groups, spare_groups, ..
    } = setup;
    let redirect = if *forward { "forward" } else { "moved" };
    let is_sharded = *spare_groups > 0;
    let shards = if is_sharded { super::SHARDS } else { 4 };
    let placement = |group: usize| {
        let nodes: Vec<usize> = super::shards::nodes_of(group).map(|node| node + 1).collect();
        format!("[[placement]]\ngroup = {group}\nnodes = {nodes:?}\n")
    };
    let placements =
        if is_sharded { (0..groups + spare_groups).map(placement).collect() } else { String::new() };
    let text = format!(
        "cluster = \"script\"\nnode = {}\ndata = \"/simulated\"\nshards = {shards}\ncontroller = {is_sharded}\n\
         groups = {groups}\nspare_groups = {spare_groups}\nredirect = \"{redirect}\"\n\
         [limits]\nvalue_bytes_max = 400000\n\
         [log]\nsegment_bytes = 1048576\nsnapshot_after_bytes = {snapshot_after_bytes}\nsnapshot_piece_bytes = 8192\n\
         migration_piece_bytes = 400\n\
         [raft]\nheartbeat_ms = {heartbeat_ms}\nelection_timeout_ms = {election_ms}\n{placements}{}",
        node + 1,
        (0..*nodes).map(entry).collect::<String>()
    );
    toml::from_str(&text).expect("every key is one of the configuration's")
}

/// Where a node's one core stands.
fn seat(node: usize) -> Seat {
    Seat { place: node, node: u32::try_from(node).expect("few nodes") + 1, core: 0 }
}

impl Script {
    /// Whether the node runs.
    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].core.is_some()
    }

    /// The power goes: what wasn't synced is kept, lost or torn, and the node is down until it is restarted.
    pub fn crash(&mut self, node: usize) {
        if !self.is_up(node) {
            return;
        }
        self.note(|| format!("node {} crashes", node + 1));
        let this = &mut self.nodes[node];
        this.core = None;
        this.effects = Effects::default();
        let unfinished: Vec<Action> = std::mem::take(&mut this.unfinished).into_values().collect();
        let loses = Loses { any: true, earlier: true, sectors: true, blocks: true };
        this.disk.crash(&unfinished, loses, &mut this.rng, &mut Tally::default());
        self.drop_links(node);
        self.lose_calls(node);
    }

    /// Starts a node from what its disk has. A running one is left alone.
    pub fn restart(&mut self, node: usize) {
        if self.is_up(node) {
            return;
        }
        let now = self.clock(node);
        let this = &mut self.nodes[node];
        this.life += 1;
        let boot = CoreBoot {
            core: CoreId(0),
            files: this.disk.boot(),
            pool: BlockPool::new(),
            seed: this.rng.next_u64(),
            now,
            vitals: Vitals::new(),
        };
        let life = this.life;
        match Core::build(&this.config, boot) {
            Ok(core) => {
                self.trace.line(self.now, || format!("node {} starts: {}", node + 1, core.recovered()));
                if let Err(what) = self.checks.started(seat(node), &core.inspect()) {
                    self.broken = Some(what);
                    return;
                }
                this.core = Some(core);
            }
            Err(error) => {
                self.broken = Some(format!("node {} refuses to start: {error}", node + 1));
                return;
            }
        }
        this.flush_due = false;
        self.at(self.now, Happening::Tick { node, life });
        self.step(node, Event::Tick);
        self.raise_links();
    }

    /// Asks a node to stop: it finishes what it can, then it is down.
    pub fn shut_down(&mut self, node: usize) {
        if self.is_up(node) {
            self.note(|| format!("node {} is asked to stop", node + 1));
            self.step(node, Event::Shutdown);
        }
    }

    pub(super) fn peer(&self, node: usize) -> PeerId {
        PeerId { node: NodeId(self.nodes[node].config.node), core: CoreId(0) }
    }

    /// Sets a node's calendar so far ahead of the others' (behind, if negative).
    pub fn set_calendar(&mut self, node: usize, ahead_ms: i64) {
        self.nodes[node].skew_ms = ahead_ms;
    }

    fn clock(&self, node: usize) -> Now {
        let unix_ms = (1_700_000_000_000 + self.now / MS).saturating_add_signed(self.nodes[node].skew_ms);
        Now { monotonic: self.now + 1000 * MS, unix_ms }
    }

    pub(super) fn step(&mut self, node: usize, event: Event<'_, Message>) {
        let now = self.clock(node);
        let this = &mut self.nodes[node];
        let core = this.core.as_mut().expect("only the living are stepped");
        core.step(now, event, &mut this.effects);
        if !this.flush_due {
            this.flush_due = true;
            let (gather, life) = (this.rng.between(0, BATCH), this.life);
            self.at(self.now + gather, Happening::Flush { node, life });
        }
    }

    pub(super) fn tick(&mut self, node: usize) {
        let now = self.clock(node);
        let deadline = self.nodes[node].core.as_ref().and_then(Machine::deadline);
        if deadline.is_some_and(|at| at <= now.monotonic) {
            self.step(node, Event::Tick);
        }
        let life = self.nodes[node].life;
        let next = TICK / 2 + self.nodes[node].rng.between(0, TICK / 2);
        self.at(self.now + next, Happening::Tick { node, life });
    }

    pub(super) fn flush(&mut self, node: usize) -> Result<(), String> {
        let now = self.clock(node);
        let this = &mut self.nodes[node];
        this.flush_due = false;
        let core = this.core.as_mut().expect("only the living are flushed");
        core.apply(now, &mut this.effects);
        core.flush(now, &mut this.effects);
        self.checks.look(seat(node), &core.inspect())?;
        let effects: Vec<Effect<Message>> = this.effects.drain().collect();
        for effect in effects {
            if self.nodes[node].core.is_none() {
                break;
            }
            self.carry_out(node, effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, node: usize, effect: Effect<Message>) -> Result<(), String> {
        match effect {
            Effect::Reply { conn, bytes } => return self.replied(node, conn.0, &bytes),
            Effect::Close { conn } => self.closed(node, conn.0),
            Effect::Resume { .. } => {}
            Effect::Send { to, frame } => {
                self.checks.sent(seat(node), to.node.0, &frame)?;
                self.send(node, to.node.0 as usize - 1, frame);
            }
            Effect::Mesh { .. } => unreachable!("these nodes have one core"),
            Effect::Halt { reason } => return Err(format!("node {} halts: {reason}", node + 1)),
            Effect::Drained => {
                self.note(|| format!("node {} has finished", node + 1));
                self.crash(node);
            }
            disk => {
                let (op, action) = self.nodes[node].disk.begin(disk);
                self.begin_disk(node, op, action);
            }
        }
        Ok(())
    }

    fn begin_disk(&mut self, node: usize, op: OpId, action: Action) {
        self.disk_numbers += 1;
        let number = self.disk_numbers;
        let mean = self.setup.disk_us * MS / 1000;
        let this = &mut self.nodes[node];
        let latency = mean / 2 + this.rng.between(0, mean) + 1;
        this.unfinished.insert(number, action);
        let life = this.life;
        self.at(self.now + latency, Happening::Disk { node, life, number, op });
    }

    pub(super) fn disk_done(&mut self, node: usize, number: u64, op: OpId) -> Result<(), String> {
        let this = &mut self.nodes[node];
        let action = this.unfinished.remove(&number).expect("completes once");
        let result = this.disk.complete(&action);
        for (_, offset, bytes) in this.disk.take_hardened() {
            self.checks.hardened(seat(node), offset, &bytes)?;
        }
        if let Err(error) = &result {
            return Err(format!("node {} asks its disk for what can't be: {error}", node + 1));
        }
        self.step(node, Event::Disk { op, result });
        Ok(())
    }
}
