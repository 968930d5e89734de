//! The simulated world: nodes, links, disks, clients and time, in one thread, from one seed.
//!
//! It drives each core as the real driver does: what is ready goes into `step`, then come one `apply` and one `flush`. How much is
//! ready is drawn too, so the boundaries of the batches are part of the seed. The cores of a node live and die together
//! and talk over a simulated mesh; each has its own disk, clients and links, as in the real node.
//!
//! | file | what |
//! |---|---|
//! | `seat.rs` | one core and what surrounds it: its disk, its connections, its clock |
//! | `turns.rs` | events go in, effects come out and are carried out |
//! | `network.rs` | frames between nodes, and the links that they take |
//! | `conversation.rs` | clients and nodes talking |
//! | `faults.rs` | what goes wrong, and the healing of it |
//! | `death.rs` | crashes, what disks lose, restarts |
//! | `members.rs` | groups that change, disks that are replaced, and who must agree in the end |
//! | `operator.rs` | groups whose replicas are spread over other nodes, by a plan |
//! | `shards.rs` | groups that join and leave, shards that move |
//! | `backups.rs` | somebody who backs up, and what was read |
//! | `ending.rs` | whether all is well at last |

pub(crate) mod backups;
mod conversation;
mod death;
mod ending;
mod faults;
mod members;
mod network;
mod operator;
mod seat;
mod shards;
mod turns;

use crate::check::Checks;
use crate::clients::Clients;
use crate::faults::{Fault, Tally};
use crate::hazards::Hazard;
use crate::rng::Rng;
use crate::run::last_panic;
use crate::swarm::Swarm;
use crate::trace::{Detail, Trace};
use backups::Backups;
use flotilla_consensus::RaftConfig;
use flotilla_runtime::OpId;
use flotilla_services::core::Message;
use network::Link;
use seat::SimCore;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// After the healing, everything must be well within this.
const LIVENESS: u64 = 20 * SECOND;
/// And within this, where a turn applies so few entries that thousands of them take longer than all else.
const LIVENESS_OF_THE_SLOW: u64 = 3 * LIVENESS;
/// How often a core looks at the clock, as in the driver.
const TICK: u64 = 10 * MS;
/// Happenings of a simulation: more are a storm that feeds itself.
const HAPPENINGS_MAX: u64 = 3_000_000;

/// What is going to happen. Cores are numbered through all nodes.
#[derive(Debug)]
enum Happening {
    Tick { at: usize, life: u64 },
    Flush { at: usize, life: u64 },
    Frame { from: usize, to: usize, life: u64, epoch: u64, bytes: Vec<u8> },
    Mesh { from: u16, to: usize, life: u64, message: Message },
    Link { of: usize, life: u64, to: usize, up: bool },
    Disk { at: usize, life: u64, number: u64, op: OpId },
    ToNode { at: usize, life: u64, conn: u64, bytes: Vec<u8> },
    GoneAtNode { at: usize, life: u64, conn: u64 },
    ToClient { client: usize, attempt: u64, bytes: Vec<u8> },
    GoneAtClient { client: usize, attempt: u64 },
    Think { client: usize },
    Impatience { client: usize, attempt: u64 },
    Crash { all: bool },
    Restart { node: usize },
    Partition,
    Mend,
    Clog,
    Reset,
    Pause,
    Full,
    Transfer,
    Change,
    Reshard,
    BackUp,
    Heal,
    Stop,
}

/// One simulation: everything follows from this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What it is run in.
    pub hazard: Option<Hazard>,
    /// Faults that don't happen, though the seed drew them.
    pub without: Vec<Fault>,
    /// Length of the phase in which things go wrong, in milliseconds, if not as drawn.
    pub safety_ms: Option<u64>,
    /// Clients, if not as many as drawn.
    pub clients: Option<usize>,
}

impl Plan {
    /// All that the seed draws.
    pub fn new(seed: u64) -> Self {
        Self { seed, hazard: None, without: Vec::new(), safety_ms: None, clients: None }
    }

    /// What it draws.
    pub fn swarm(&self) -> Swarm {
        let mut swarm = Swarm::draw(&mut Rng::new(self.seed).fork(1));
        self.hazard.iter().for_each(|hazard| hazard.change(&mut swarm));
        self.without.iter().for_each(|fault| fault.switch_off(&mut swarm));
        swarm.safety = self.safety_ms.map_or(swarm.safety, |safety_ms| safety_ms * MS);
        swarm.clients = self.clients.unwrap_or(swarm.clients);
        swarm
    }
}

/// What a simulation came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Equal for equal plans.
    pub trace_hash: u64,
    /// What broke, if anything did: the rule, a colon, and how.
    pub failure: Option<String>,
    /// Commands answered.
    pub answered: u64,
    /// Entries committed.
    pub committed: u64,
    /// Terms with a leader.
    pub elections: u64,
    /// Histories that couldn't be decided.
    pub undecided: u64,
    /// How often every group came to have its replicas where an operator's plan wanted them.
    pub spreads: u64,
    /// Shards that were read whole for a backup, and readings that had to be begun again.
    pub readings: (u64, u64),
    /// How often what went wrong.
    pub tally: Tally,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

impl Outcome {
    /// The rule that is broken.
    pub fn rule(&self) -> Option<&str> {
        self.failure.as_deref().map(|failure| failure.split(':').next().unwrap_or(failure))
    }
}

/// The whole world.
pub struct World {
    swarm: Swarm,
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    cores: Vec<SimCore>,
    links: Vec<Link>,
    blocked: BTreeSet<(usize, usize)>,
    clients: Clients,
    checks: Checks,
    trace: Trace,
    tally: Tally,
    rng: Rng,
    net_rng: Rng,
    disk_numbers: u64,
    healed: bool,
    stopping: bool,
    /// The node whose disk is slow, if one is.
    slow: usize,
    /// The nodes that an operator wants the groups spread over.
    goal: BTreeSet<u32>,
    spreads: u64,
    backups: Backups,
}

/// Runs one plan. A panic anywhere in it is a failure like others.
pub fn simulate(plan: &Plan, detail: Detail) -> Outcome {
    run_world(World::new(plan, plan.swarm(), detail))
}

/// Runs one seed, after `change` has had its way with what goes wrong in it.
pub fn simulate_with(seed: u64, change: impl FnOnce(&mut Swarm)) -> Outcome {
    let plan = Plan::new(seed);
    let mut swarm = plan.swarm();
    change(&mut swarm);
    run_world(World::new(&plan, swarm, Detail::Faults))
}

fn run_world(mut world: World) -> Outcome {
    let failure = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = last_panic().or_else(|| panic.downcast_ref::<String>().cloned());
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("assertion: {}", text.unwrap_or_default()))
        }
    };
    Outcome {
        trace_hash: world.trace.hash(),
        failure,
        answered: world.clients.answered,
        committed: world.checks.entries,
        elections: world.checks.elections,
        undecided: world.clients.undecided,
        spreads: world.spreads,
        readings: (world.backups.whole, world.backups.lost),
        tally: world.tally.clone(),
        tail: world.trace.tail(),
    }
}

impl World {
    fn new(plan: &Plan, swarm: Swarm, detail: Detail) -> Self {
        let mut rng = Rng::new(plan.seed);
        rng.fork(1);
        let mut node_rng = rng.fork(2);
        let mut cores = Vec::new();
        for node in 0..swarm.nodes {
            let skew_ms = node_rng.between(0, swarm.skew_ms);
            let drift_ppm = i64::try_from(node_rng.between(0, 2 * swarm.drift_ppm)).expect("small")
                - i64::try_from(swarm.drift_ppm).expect("small");
            for core in 0..swarm.cores {
                let place = cores.len();
                let rng = node_rng.fork(place as u64);
                cores.push(SimCore::new(&swarm, (place, node, core), skew_ms, drift_ppm, rng));
            }
        }
        let slow = usize::try_from(node_rng.between(0, swarm.nodes as u64 - 1)).expect("few");
        let clients = Clients::new(&swarm, cores.len(), rng.fork(3));
        let mut trace = Trace::new(detail);
        trace.line(0, || format!("{plan:?}: {swarm:?}"));
        let mut tally = Tally::default();
        for (fault, is_on) in [(Fault::Skew, swarm.skew_ms > 0), (Fault::Drift, swarm.drift_ppm > 0)] {
            if is_on {
                tally.note(fault);
            }
        }
        // What a snapshot may wait for, the leader keeps, and what it can't commit; nothing keeps more.
        let log_bytes_max =
            16 * swarm.snapshot_bytes + (4 << 20) + RaftConfig::default().uncommitted_bytes_max;
        Self {
            checks: Checks::new(cores.len(), swarm.cores, log_bytes_max),
            links: vec![Link::default(); cores.len() * cores.len()],
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            blocked: BTreeSet::new(),
            clients,
            trace,
            tally,
            net_rng: rng.fork(4),
            rng,
            disk_numbers: 0,
            healed: false,
            stopping: false,
            slow,
            goal: BTreeSet::new(),
            spreads: 0,
            backups: Backups::new(plan.seed),
            cores,
            swarm,
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
        for node in 0..self.swarm.nodes {
            self.at(0, Happening::Restart { node });
        }
        for client in 0..self.clients.list.len() {
            self.at(5 * MS, Happening::Think { client });
        }
        self.schedule_faults();
        let safety = self.swarm.safety;
        self.at(safety, Happening::Heal);
        let mut look_at = safety + LIVENESS;
        while let Some(((time, number), happening)) = self.queue.pop_first() {
            self.now = time;
            if let Some(until) = self.paused_until(&happening) {
                // Under its old number: what waits for a paused node keeps its order.
                self.queue.insert((until, number), happening);
                continue;
            }
            let mut is_late = false;
            if self.now > look_at {
                is_late = self.now > safety + LIVENESS_OF_THE_SLOW || !self.is_applying();
                look_at = self.now + SECOND;
            }
            if is_late || self.sequence > HAPPENINGS_MAX {
                let after = self.now.saturating_sub(safety) / SECOND;
                return Err(format!("liveness: {after} s after the healing, {}", self.what_is_wrong()));
            }
            self.happen(happening)?;
            if self.is_finished() {
                return self.clients.judge();
            }
        }
        Err("liveness: the world stood still".to_owned())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Tick { at, life } if self.alive(at, life) => self.tick(at),
            Happening::Flush { at, life } if self.alive(at, life) => return self.flush(at),
            Happening::Frame { from, to, life, epoch, bytes } => self.arrive(from, to, life, epoch, &bytes),
            Happening::Mesh { from, to, life, message } if self.alive(to, life) => {
                self.mesh_message(from, to, message)
            }
            Happening::Link { of, life, to, up } if self.alive(of, life) => self.link_changed(of, to, up),
            Happening::Disk { at, life, number, op } if self.alive(at, life) => {
                return self.disk_done(at, number, op);
            }
            Happening::ToNode { at, life, conn, bytes } if self.alive(at, life) => {
                self.arrive_at_node(at, conn, &bytes)
            }
            Happening::GoneAtNode { at, life, conn } if self.alive(at, life) => self.gone_at_node(at, conn),
            Happening::ToClient { client, attempt, bytes } => {
                return self.arrive_at_client(client, attempt, &bytes);
            }
            Happening::GoneAtClient { client, attempt } if self.clients.list[client].attempt == attempt => {
                self.leave(client);
            }
            Happening::Think { client } => self.think(client),
            Happening::Impatience { client, attempt } if self.clients.list[client].attempt == attempt => {
                return self.impatient(client);
            }
            Happening::Restart { node } => return self.restart(node),
            Happening::BackUp => return self.back_up(),
            Happening::Heal => self.heal(),
            Happening::Stop => {
                self.stopping = self.clients.list.iter().all(|user| user.served > 0);
                if !self.stopping {
                    self.at(self.now + SECOND / 10, Happening::Stop);
                }
            }
            fault if !self.healed => self.fault(&fault),
            _ => {}
        }
        Ok(())
    }

    fn alive(&self, at: usize, life: u64) -> bool {
        self.cores[at].core.is_some() && self.cores[at].life == life
    }

    /// The cores of a node, by their numbers.
    fn of_node(&self, node: usize) -> std::ops::Range<usize> {
        node * self.swarm.cores..(node + 1) * self.swarm.cores
    }

    fn node_lives(&self, node: usize) -> bool {
        self.cores[node * self.swarm.cores].core.is_some()
    }
}
