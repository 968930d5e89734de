//! The simulated world: nodes, links, disks, clients and time, in one thread, from one seed.
//!
//! It drives each node as the real driver does: what is ready goes into `step`, then comes one `flush`. How much is
//! ready is drawn too, so the boundaries of the batches are part of the seed.

mod conversation;
mod faults;
mod members;

use crate::check::Checks;
use crate::clients::Clients;
use crate::disk::{Action, Disk, broken};
use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::trace::Trace;
use flotilla_runtime::{CoreId, Effect, Effects, Event, FileKind, Machine, NodeId, Now, OpId, PeerId};
use flotilla_services::config::{
    Config, Limits, LogSettings, NodeEntry, RaftSettings, Redirect, usual_priority,
};
use flotilla_services::core::{Core, Message};
use std::collections::{BTreeMap, BTreeSet};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// After the healing, everything must be well within this.
const LIVENESS: u64 = 20 * SECOND;
/// How often a core looks at the clock, as in the driver.
const TICK: u64 = 10 * MS;

/// What is going to happen.
#[derive(Debug)]
enum Happening {
    Tick { node: usize, life: u64 },
    Flush { node: usize, life: u64 },
    Frame { from: usize, to: usize, life: u64, epoch: u64, bytes: Vec<u8> },
    Link { of: usize, life: u64, to: usize, up: bool },
    Disk { node: usize, life: u64, number: u64, op: OpId },
    ToNode { node: usize, life: u64, conn: u64, bytes: Vec<u8> },
    GoneAtNode { node: usize, life: u64, conn: u64 },
    ToClient { client: usize, attempt: u64, bytes: Vec<u8> },
    GoneAtClient { client: usize, attempt: u64 },
    Think { client: usize },
    Impatience { client: usize, attempt: u64 },
    Crash { node: Option<usize> },
    Restart { node: usize },
    Partition,
    Mend,
    Reset,
    Pause,
    Full,
    Transfer,
    Change,
    Heal,
    Stop,
}

struct Conn {
    client: usize,
    attempt: u64,
    input: Vec<u8>,
    paused: bool,
    last: u64,
}

struct Node {
    config: Config,
    core: Option<Core>,
    effects: Effects<Message>,
    disk: Disk,
    life: u64,
    flush_due: bool,
    /// For clients, peers, timers and disk.
    paused_until: [u64; 4],
    skew_ms: u64,
    /// Its monotonic clock is fast by the drift in every other of these stretches of time, from somewhere in the first on.
    stretch: u64,
    stretch_offset: u64,
    unfinished: BTreeMap<u64, Action>,
    conns: BTreeMap<u64, Conn>,
    last_conn: u64,
    rng: Rng,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    epoch: u64,
    last: u64,
}

/// What a simulation came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Equal for equal seeds.
    pub trace_hash: u64,
    /// What broke, if anything did.
    pub failure: Option<String>,
    /// Commands answered.
    pub answered: u64,
    /// Entries committed.
    pub committed: u64,
    /// Terms with a leader.
    pub elections: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Disks that lost something.
    pub rots: u64,
    /// Disks that were replaced by empty ones.
    pub wipes: u64,
    /// Changes of groups.
    pub changes: u64,
    /// Histories that couldn't be decided.
    pub undecided: u64,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

/// The whole world.
pub struct World {
    swarm: Swarm,
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    nodes: Vec<Node>,
    links: BTreeMap<(usize, usize), Link>,
    blocked: BTreeSet<(usize, usize)>,
    clients: Clients,
    checks: Checks,
    trace: Trace,
    rng: Rng,
    net_rng: Rng,
    disk_numbers: u64,
    healed: bool,
    stopping: bool,
    crashes: u64,
    /// The node whose disk lost something last, and how often one did.
    rotten: Option<usize>,
    rots: u64,
    wipes: u64,
    changes: u64,
}

/// Runs one seed.
pub fn simulate(seed: u64, print: bool) -> Outcome {
    run_world(World::new(seed, print, |_| {}))
}

/// Runs one seed, after `change` has had its way with what goes wrong in it.
pub fn simulate_with(seed: u64, change: impl FnOnce(&mut Swarm)) -> Outcome {
    run_world(World::new(seed, false, change))
}

fn run_world(mut world: World) -> Outcome {
    let failure = world.run().err();
    Outcome {
        trace_hash: world.trace.hash(),
        failure,
        answered: world.clients.answered,
        committed: world.checks.entries,
        elections: world.checks.elections,
        crashes: world.crashes,
        rots: world.rots,
        wipes: world.wipes,
        changes: world.changes,
        undecided: world.clients.undecided,
        tail: world.trace.tail(),
    }
}

impl World {
    fn new(seed: u64, print: bool, change: impl FnOnce(&mut Swarm)) -> Self {
        let mut rng = Rng::new(seed);
        let mut swarm = Swarm::draw(&mut rng.fork(1));
        change(&mut swarm);
        let mut node_rng = rng.fork(2);
        let nodes = (0..swarm.nodes).map(|node| Node {
            config: config(&swarm, node),
            core: None,
            effects: Effects::default(),
            disk: Disk::default(),
            life: 0,
            flush_due: false,
            paused_until: [0; 4],
            skew_ms: node_rng.between(0, swarm.skew_ms),
            stretch: node_rng.between(200, 2_000) * MS,
            stretch_offset: node_rng.between(0, 4_000) * MS,
            unfinished: BTreeMap::new(),
            conns: BTreeMap::new(),
            last_conn: 0,
            rng: node_rng.fork(u64::from(node)),
        });
        let nodes: Vec<Node> = nodes.collect();
        let clients = Clients::new(swarm.clients, swarm.keys, nodes.len(), rng.fork(3));
        let mut trace = Trace::new(print);
        trace.line(0, || format!("seed {seed}: {swarm:?}"));
        Self {
            swarm,
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            nodes,
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            clients,
            checks: Checks::default(),
            trace,
            net_rng: rng.fork(4),
            rng,
            disk_numbers: 0,
            healed: false,
            stopping: false,
            crashes: 0,
            rotten: None,
            rots: 0,
            wipes: 0,
            changes: 0,
        }
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((time.max(self.now), self.sequence), happening);
    }

    fn after(&mut self, mean: u64, happening: Happening) {
        let delay = self.rng.around(mean).max(1);
        self.at(self.now + delay, happening);
    }

    fn run(&mut self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            self.at(0, Happening::Restart { node });
        }
        for client in 0..self.clients.list.len() {
            self.at(5 * MS, Happening::Think { client });
        }
        self.schedule_faults();
        let safety = self.swarm.safety;
        self.at(safety, Happening::Heal);
        while let Some(((time, number), happening)) = self.queue.pop_first() {
            self.now = time;
            if let Some(until) = self.paused_until(&happening) {
                // Under its old number: what waits for a paused node keeps its order.
                self.queue.insert((until, number), happening);
                continue;
            }
            if self.now > safety + LIVENESS {
                return Err(format!(
                    "liveness: {} s after the healing, {}",
                    LIVENESS / SECOND,
                    self.what_is_wrong()
                ));
            }
            self.happen(happening)?;
            if self.is_finished() {
                return self.clients.judge();
            }
        }
        Err("the world stood still".to_owned())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Tick { node, life } if self.alive(node, life) => self.tick(node),
            Happening::Flush { node, life } if self.alive(node, life) => return self.flush(node),
            Happening::Frame { from, to, life, epoch, bytes } => {
                let current = self.links.get(&(from, to)).map_or(0, |link| link.epoch);
                if self.alive(to, life) && epoch == current {
                    self.trace.event(self.now, to, 1, u64::from(crc32fast::hash(&bytes)));
                    let from = self.peer(from);
                    self.step(to, Event::Peer { from, frame: &bytes });
                }
            }
            Happening::Link { of, life, to, up } if self.alive(of, life) => {
                let peer = self.peer(to);
                self.trace.line(self.now, || {
                    format!("node {} link to {} {}", of + 1, to + 1, if up { "up" } else { "down" })
                });
                self.step(of, if up { Event::PeerUp { peer } } else { Event::PeerDown { peer } });
            }
            Happening::Disk { node, life, number, op } if self.alive(node, life) => {
                return self.disk_done(node, number, op);
            }
            Happening::ToNode { node, life, conn, bytes } if self.alive(node, life) => {
                self.arrive_at_node(node, conn, &bytes)
            }
            Happening::GoneAtNode { node, life, conn } if self.alive(node, life) => {
                self.gone_at_node(node, conn)
            }
            Happening::ToClient { client, attempt, bytes } => {
                return self.arrive_at_client(client, attempt, &bytes);
            }
            Happening::GoneAtClient { client, attempt } if self.clients.list[client].attempt == attempt => {
                self.leave(client);
            }
            Happening::Think { client } => self.think(client),
            Happening::Impatience { client, attempt } if self.clients.list[client].attempt == attempt => {
                self.leave(client);
            }
            Happening::Restart { node } => return self.restart(node),
            Happening::Heal => self.heal(),
            Happening::Stop => {
                self.stopping = self.clients.list.iter().all(|user| user.served > 0);
                if !self.stopping {
                    self.at(self.now + SECOND / 10, Happening::Stop);
                }
            }
            Happening::Crash { node } => self.crash_fault(node),
            Happening::Partition | Happening::Mend | Happening::Reset | Happening::Pause => {
                self.net_fault(&happening)
            }
            Happening::Full => self.fill_disk(),
            Happening::Transfer => self.transfer_fault(),
            Happening::Change => self.change_members(),
            _ => {}
        }
        Ok(())
    }

    /// A paused node takes nothing until it goes on. Then the kernel hands it clients, peers, timers and disk in any
    /// order: a client can be heard before the peers that elected somebody else.
    fn paused_until(&self, happening: &Happening) -> Option<u64> {
        let (node, source) = match happening {
            Happening::ToNode { node, .. }
            | Happening::GoneAtNode { node, .. }
            | Happening::Flush { node, .. } => (*node, 0),
            Happening::Frame { to: node, .. } | Happening::Link { of: node, .. } => (*node, 1),
            Happening::Tick { node, .. } => (*node, 2),
            Happening::Disk { node, .. } => (*node, 3),
            _ => return None,
        };
        let until = self.nodes[node].paused_until[source];
        (until > self.now).then_some(until)
    }

    fn alive(&self, node: usize, life: u64) -> bool {
        self.nodes[node].core.is_some() && self.nodes[node].life == life
    }

    fn peer(&self, node: usize) -> PeerId {
        PeerId { node: NodeId(self.nodes[node].config.node), core: CoreId(0) }
    }

    fn clock(&self, node: usize) -> Now {
        let unix_ms = 1_700_000_000_000 + self.now / MS + self.nodes[node].skew_ms;
        let Node { stretch, stretch_offset, .. } = self.nodes[node];
        let fast_until =
            |at: u64| at / (2 * stretch) * stretch + (at % (2 * stretch)).saturating_sub(stretch);
        let fast = fast_until(self.now + stretch_offset) - fast_until(stretch_offset);
        let ahead = u128::from(fast) * u128::from(self.swarm.real_drift_ppm) / 1_000_000;
        let ahead = u64::try_from(ahead).expect("a simulation lasts seconds");
        Now { monotonic: self.now + ahead + SECOND, unix_ms }
    }

    fn step(&mut self, node: usize, event: Event<'_, Message>) {
        let now = self.clock(node);
        let this = &mut self.nodes[node];
        let core = this.core.as_mut().expect("only the living are stepped");
        core.step(now, event, &mut this.effects);
        self.flush_soon(node);
    }

    fn flush_soon(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        if !this.flush_due {
            this.flush_due = true;
            let gather = this.rng.between(0, self.swarm.batch);
            let life = this.life;
            self.at(self.now + gather, Happening::Flush { node, life });
        }
    }

    fn tick(&mut self, node: usize) {
        let now = self.clock(node);
        let due =
            self.nodes[node].core.as_ref().and_then(Machine::deadline).is_some_and(|at| at <= now.monotonic);
        if due {
            self.trace.event(self.now, node, 2, 0);
            self.step(node, Event::Tick);
        }
        let jitter = self.nodes[node].rng.between(0, TICK / 2);
        let life = self.nodes[node].life;
        self.at(self.now + TICK / 2 + jitter, Happening::Tick { node, life });
    }

    fn flush(&mut self, node: usize) -> Result<(), String> {
        let now = self.clock(node);
        let this = &mut self.nodes[node];
        this.flush_due = false;
        let core = this.core.as_mut().expect("only the living are flushed");
        core.flush(now, &mut this.effects);
        self.checks.look(node, &core.inspect())?;
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
            Effect::Reply { conn, bytes } => self.reply(node, conn.0, Some(bytes)),
            Effect::Close { conn } => self.reply(node, conn.0, None),
            Effect::Resume { conn } => {
                if let Some(connection) = self.nodes[node].conns.get_mut(&conn.0) {
                    connection.paused = false;
                    self.arrive_at_node(node, conn.0, &[]);
                }
            }
            Effect::Send { to, frame } => self.send(node, to.node.0 as usize - 1, frame),
            Effect::Mesh { .. } => unreachable!("simulated nodes have one core"),
            Effect::Halt { reason } => {
                self.trace.line(self.now, || format!("node {} halts: {reason}", node + 1));
                self.crash(node);
            }
            Effect::Drained => {
                self.trace.line(self.now, || format!("node {} has drained", node + 1));
                self.crash(node);
            }
            disk => {
                if let Effect::Write { offset, block, file, .. } = &disk {
                    let digest = *offset ^ u64::from(crc32fast::hash(block));
                    self.trace.event(self.now, node, 3, digest);
                    let (end, length) = (*offset + block.len() as u64, self.nodes[node].disk.length(*file));
                    if file.kind == FileKind::Segment && length.is_some_and(|length| end > length) {
                        return Err(format!("node {} writes behind the end of {file}", node + 1));
                    }
                }
                let (op, action) = self.nodes[node].disk.begin(disk);
                self.begin_disk(node, op, action);
            }
        }
        Ok(())
    }

    fn begin_disk(&mut self, node: usize, op: OpId, action: Action) {
        self.disk_numbers += 1;
        let number = self.disk_numbers;
        let stall = self.nodes[node].rng.per_million(self.swarm.stalls);
        let mean = if stall { self.swarm.disk * 100 } else { self.swarm.disk };
        let latency = self.nodes[node].rng.around(mean) + 1;
        let life = self.nodes[node].life;
        self.nodes[node].unfinished.insert(number, action);
        self.at(self.now + latency, Happening::Disk { node, life, number, op });
    }

    fn disk_done(&mut self, node: usize, number: u64, op: OpId) -> Result<(), String> {
        let this = &mut self.nodes[node];
        let action = this.unfinished.remove(&number).expect("completes once");
        let durable = match &action {
            Action::Write { file, sync: true, .. } | Action::Sync { file, .. } => Some(*file),
            _ => None,
        };
        let failed = durable.filter(|_| this.rng.per_million(self.swarm.disk_errors));
        self.trace.event(self.now, node, 4, op.0 ^ u64::from(failed.is_some()));
        let result = match failed {
            Some(file) => {
                self.trace.line(self.now, || format!("node {}: a sync fails", node + 1));
                this.disk.lose_pending();
                Err(broken(file))
            }
            None => {
                if let Action::Rename { from, .. } = &action
                    && !this.disk.is_durable(*from)
                {
                    return Err(format!("node {}: {from} is renamed before it is synced", node + 1));
                }
                let result = this.disk.complete(&action);
                if let Err(error) = &result
                    && !matches!(action, Action::NoRoom { .. })
                {
                    return Err(format!("node {} asks its disk for what can't be: {error}", node + 1));
                }
                result
            }
        };
        self.step(node, Event::Disk { op, result });
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let life = self.nodes[to].life;
        if self.blocked.contains(&(from, to)) || self.nodes[to].core.is_none() {
            return;
        }
        // Raft needs no more than datagrams. Commands handed on rely on the link: once and in order, or it breaks.
        let is_raft = bytes.first() == Some(&1);
        if is_raft && self.net_rng.per_million(self.swarm.loss) {
            return;
        }
        let copies = 1 + u64::from(is_raft && self.net_rng.per_million(self.swarm.duplication));
        for _ in 0..copies {
            let delay = self.swarm.delay / 4 + self.net_rng.around(self.swarm.delay) + 1;
            let overtakes = is_raft && self.net_rng.per_million(self.swarm.reordering);
            let link = self.links.entry((from, to)).or_default();
            let mut time = self.now + delay;
            if overtakes {
                time += self.net_rng.around(self.swarm.delay * 4);
            } else {
                time = time.max(link.last + 1);
                link.last = time;
            }
            let epoch = link.epoch;
            self.at(time, Happening::Frame { from, to, life, epoch, bytes: bytes.clone() });
        }
    }

    fn is_finished(&self) -> bool {
        self.stopping
            && self.clients.is_final()
            && self.clients.list.iter().all(|user| user.served > 0)
            && self.members_agree()
    }

    fn what_is_wrong(&self) -> String {
        let unserved = self.clients.list.iter().filter(|user| user.served == 0).count();
        let mut text = format!("{unserved} clients were not served, final: {}", self.clients.is_final());
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(core) = &node.core else {
                text.push_str(&format!("; node {} is down", number + 1));
                continue;
            };
            for group in core.inspect().groups {
                text.push_str(&format!(
                    "; node {} group {}: {:?}{} term {} commit {} applied {} of {} state {:016x} {}",
                    number + 1,
                    group.group,
                    group.role,
                    if group.repairing { " (repairing)" } else { "" },
                    group.term,
                    group.commit,
                    group.applied,
                    group.last_index,
                    group.state_hash(),
                    group.membership().1.configuration
                ));
            }
        }
        text
    }
}

fn config(swarm: &Swarm, node: u32) -> Config {
    let entry = |id: u32| {
        let port = 7000 + u16::try_from(id).expect("few nodes");
        NodeEntry {
            id,
            host: "sim".to_owned(),
            port,
            peer_port: port + 10_000,
            cores: 1,
            priority: usual_priority(),
            joins: id > swarm.founders,
        }
    };
    Config {
        cluster: "sim".to_owned(),
        node: node + 1,
        data: "/simulated".into(),
        groups: swarm.groups,
        shards: 16,
        redirect: if swarm.forward { Redirect::Forward } else { Redirect::Moved },
        cpus: Vec::new(),
        limits: Limits { value_bytes_max: 100_000, ..Limits::default() },
        log: LogSettings {
            segment_bytes: 1 << 20,
            commits_in_flight: swarm.commits_in_flight,
            snapshot_after_bytes: swarm.snapshot_bytes,
            snapshot_piece_bytes: swarm.snapshot_piece,
            ..LogSettings::default()
        },
        raft: RaftSettings {
            heartbeat_ms: swarm.heartbeat_ms,
            election_timeout_ms: swarm.election_ms,
            lease_reads: swarm.leases,
            clock_drift_max_ppm: swarm.drift_ppm,
        },
        nodes: (1..=swarm.nodes).map(entry).collect(),
    }
}
