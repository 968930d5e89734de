//! A world in which nothing goes wrong but what its test says: for scenarios that random runs hit rarely, and for bounds
//! on time, messages and bytes.
//!
//! The nodes are the real machines, driven as in [`crate::world`], under the same checks after every turn. The test cuts
//! links, crashes and restarts nodes, makes the network unreliable, speaks to chosen nodes as a client, waits, and looks.
//! Time is simulated; all that is random (delays, timeouts, what a crash leaves of unsynced writes) comes from the seed.
//!
//! | file | what |
//! |---|---|
//! | `script/network.rs` | links, what gets lost on them, and how much goes over them |
//! | `script/nodes.rs` | the machines and their disks; crashes and restarts |
//! | `script/users.rs` | commands to chosen nodes, and what became of them |
//! | `script/looks.rs` | who leads, who has what |
//! | `script/shards.rs` | several groups on nodes of their own, and a controller |
//!
//! A safety rule that breaks, or an event that doesn't come within its limit, is an error that says what every node was
//! like and what had happened last.

mod looks;
mod network;
mod nodes;
mod shards;
mod users;

pub use network::{Sent, Traffic, Weather};
pub use shards::nodes_of;
pub use users::{Answer, CallId, is_for_another};

use crate::check::Checks;
use crate::rng::Rng;
use crate::trace::{Detail, Trace};
use flotilla_runtime::OpId;
use network::Network;
use nodes::Node;
use std::collections::BTreeMap;
use users::Call;

const MS: u64 = 1_000_000;

/// Nodes of each group of a cluster with a controller.
pub const NODES_OF_A_GROUP: usize = 3;
/// Shards of such a cluster.
pub const SHARDS: u16 = 12;

/// What cluster a script has.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How many nodes, each a voter of the one group; or of the controller's and of one of the groups, see [`Self::sharded`].
    pub nodes: usize,
    /// Groups that serve shards from the beginning.
    pub groups: usize,
    /// Groups that don't; with one or more there is a controller.
    pub spare_groups: usize,
    /// Everything random comes from it.
    pub seed: u64,
    /// A leader speaks at least this often, in milliseconds.
    pub heartbeat_ms: u64,
    /// Followers wait for this to twice this long, in milliseconds.
    pub election_ms: u64,
    /// Bytes of log after which a snapshot is taken.
    pub snapshot_after_bytes: usize,
    /// What a disk operation takes, in microseconds.
    pub disk_us: u64,
    /// Nodes hand commands on to the leader, and don't send their clients there.
    pub forward: bool,
}

impl Setup {
    /// So many nodes with the default timeouts, and no snapshots.
    pub fn new(nodes: usize) -> Self {
        let (seed, heartbeat_ms, election_ms, disk_us) = (1, 50, 400, 100);
        let snapshot_after_bytes = 64 << 20;
        let (groups, spare_groups) = (1, 0);
        Self {
            nodes,
            groups,
            spare_groups,
            seed,
            heartbeat_ms,
            election_ms,
            snapshot_after_bytes,
            disk_us,
            forward: false,
        }
    }

    /// A controller on all nodes, and groups on [`NODES_OF_A_GROUP`] nodes of their own each: so many with shards, so many
    /// without. Nodes hand commands on.
    pub fn sharded(groups: usize, spare_groups: usize) -> Self {
        let nodes = (groups + spare_groups) * NODES_OF_A_GROUP;
        Self { groups, spare_groups, forward: true, ..Self::new(nodes) }
    }

    /// The same from another seed.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same with a snapshot after so many bytes of log, 4096 at least.
    pub fn snapshot_after(self, bytes: usize) -> Self {
        Self { snapshot_after_bytes: bytes, ..self }
    }

    /// How long everybody may need for an election, with one that is split: a follower gives the leader up within two
    /// timeouts, and a second try comes within two more. In milliseconds.
    pub fn elected_within_ms(&self) -> u64 {
        4 * self.election_ms
    }
}

/// What is going to happen.
#[derive(Debug)]
enum Happening {
    Tick { node: usize, life: u64 },
    Flush { node: usize, life: u64 },
    Frame { from: usize, to: usize, lives: (u64, u64), bytes: Vec<u8> },
    Link { of: usize, to: usize, lives: (u64, u64), up: bool },
    Disk { node: usize, life: u64, number: u64, op: OpId },
    Gone { node: usize, life: u64, conn: u64 },
}

/// A cluster, and the test's hold on it. Nodes are counted from 0.
pub struct Script {
    setup: Setup,
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    nodes: Vec<Node>,
    network: Network,
    calls: Vec<Call>,
    checks: Checks,
    trace: Trace,
    rng: Rng,
    disk_numbers: u64,
    /// The first rule that broke. From then on nothing happens.
    broken: Option<String>,
}

impl Script {
    /// A cluster whose nodes have just started for the first time.
    pub fn new(setup: Setup) -> Self {
        let mut rng = Rng::new(setup.seed);
        let nodes = (0..setup.nodes).map(|node| Node::new(&setup, node, rng.fork(node as u64)));
        let mut script = Self {
            nodes: nodes.collect(),
            network: Network::new(rng.fork(100)),
            setup,
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            calls: Vec::new(),
            checks: Checks::new(setup.nodes, 1, usize::MAX),
            trace: Trace::new(Detail::Faults),
            rng,
            disk_numbers: 0,
            broken: None,
        };
        for node in 0..setup.nodes {
            script.restart(node);
        }
        script
    }

    /// How it was set up.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Simulated milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        self.now / MS
    }

    /// A number from `low` to `high`, both included, from the seed: for what a test leaves to chance.
    pub fn draw(&mut self, low: u64, high: u64) -> u64 {
        self.rng.between(low, high)
    }

    /// True so many times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.draw(0, 99) < percent
    }

    /// Terms that had a leader.
    pub fn elections(&self) -> u64 {
        self.checks.elections
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// The rule that broke meanwhile.
    pub fn run_for(&mut self, milliseconds: u64) -> Result<(), String> {
        let end = self.now + milliseconds * MS;
        while self.queue.first_key_value().is_some_and(|((time, _), _)| *time <= end) {
            self.turn()?;
        }
        self.now = end;
        self.unbroken()
    }

    /// Lets time pass until something is so.
    ///
    /// # Errors
    /// It isn't within so many milliseconds, or a rule broke.
    pub fn wait(&mut self, limit_ms: u64, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), String> {
        let end = self.now + limit_ms * MS;
        loop {
            self.unbroken()?;
            if is_so(self) {
                return Ok(());
            }
            let next = self.queue.first_key_value().map(|((time, _), _)| *time);
            if next.is_none_or(|time| time > end) {
                return Err(self.story(&format!("not within {limit_ms} ms: {what}")));
            }
            self.turn()?;
        }
    }

    fn unbroken(&self) -> Result<(), String> {
        self.broken.as_ref().map_or(Ok(()), |what| Err(self.story(what)))
    }

    /// What is wrong, what every node is like, what happened last.
    fn story(&self, what: &str) -> String {
        let tail = self.trace.tail();
        let tail = tail[tail.len().saturating_sub(40)..].join("\n");
        format!("{what}\n{tail}\nat {} ms{} (seed {})", self.now_ms(), self.state(), self.setup.seed)
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((time.max(self.now), self.sequence), happening);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace.line(self.now, text);
    }

    fn turn(&mut self) -> Result<(), String> {
        self.unbroken()?;
        let Some(((time, _), happening)) = self.queue.pop_first() else { return Ok(()) };
        self.now = time;
        if let Err(what) = self.happen(happening) {
            self.broken = Some(what);
        }
        self.unbroken()
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Tick { node, life } if self.lives(node, life) => self.tick(node),
            Happening::Flush { node, life } if self.lives(node, life) => return self.flush(node),
            // From somebody who has died meanwhile it may come, but not from a former life.
            Happening::Frame { from, to, lives, bytes }
                if self.nodes[from].life == lives.0 && self.lives(to, lives.1) =>
            {
                self.arrive(from, to, &bytes);
            }
            // It comes up only to somebody who lives.
            Happening::Link { of, to, lives, up }
                if self.lives(of, lives.0) && (!up || self.lives(to, lives.1)) =>
            {
                self.link_changed(of, to, up);
            }
            Happening::Disk { node, life, number, op } if self.lives(node, life) => {
                return self.disk_done(node, number, op);
            }
            Happening::Gone { node, life, conn } if self.lives(node, life) => self.gone(node, conn),
            _ => {}
        }
        Ok(())
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].core.is_some() && self.nodes[node].life == life
    }
}
