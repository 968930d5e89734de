//! The loop that gives a [`Machine`](crate::Machine) its hands: one glommio executor a core.
//!
//! ```text
//!   sockets ─┐                              ┌─▶ send() on sockets, at once
//!   peers   ─┤  step, step, step … │ flush ─┼─▶ writes, on a ring of their own
//!   disk    ─┤  (every ready task)          └─▶ mesh
//!   mesh    ─┘
//! ```
//!
//! Each source is a task that calls [`Machine::step`](crate::Machine::step). The core's loop waits for all of their sockets at once, lets
//! every task run that has something, and then flushes: a turn takes in all that is there, and answers once. That is
//! the whole batching. The loop never lets glommio wait for sockets, which takes it many system calls; it gives glommio
//! its passes while that has something to do.
//!
//! | file | what |
//! |---|---|
//! | `core_loop.rs` | the state of a core, the turn, the effects |
//! | `clients.rs` | client connections |
//! | `admin.rs` | questions of whoever operates the node, over HTTP |
//! | `peers.rs` | links from and to other nodes |
//! | `greeting.rs` | how they begin, and in which version |
//! | `disk.rs` | the files of a core's folder |
//! | `write_ring.rs` | writes and syncs, through an io_uring of our own |
//! | `boot.rs` | reading them all before the machine is built |
//! | `tasks.rs`, `stalls.rs` | everything that runs on a core: named, counted, and told of when it holds the core |
//! | `timers.rs`, `clock.rs` | the time of a core |
//! | `settling.rs` | when glommio gets its passes |
//! | `busy_poll.rs` | whether it looks before it sleeps |
//! | `poller.rs` | what a core waits for: its sockets in one epoll set |
//! | `outlet.rs` | a socket that is written to without waiting |
//! | `wire.rs` | a connection, plain or under TLS |
//! | `complaints.rs` | warnings that others can provoke |
//! | `placement.rs` | on which CPUs the cores run, and whether they can |
//! | `guardian.rs` | the cure for glommio's lost wake-ups |
//! | `pulse.rs` | whether all cores turn |
//! | `memory.rs` | what the allocator is told |
//! | `fd.rs` | the few conversions of descriptors that the standard library calls unsafe |
//! | `floor.rs` | what the disk can do by itself, for comparison |
//!
//! No borrow of a cell is held across an await or a `spawn_local` (which polls the new task at once).

mod admin;
mod boot;
mod busy_poll;
mod clients;
mod clock;
mod complaints;
mod core_loop;
mod disk;
mod fd;
pub mod floor;
mod greeting;
mod guardian;
mod memory;
mod outlet;
mod peers;
mod placement;
mod poller;
mod pulse;
mod quota;
mod removal;
mod settling;
mod stalls;
mod start;
mod tasks;
mod timers;
mod wire;
mod write_ring;

pub use greeting::Versions;
pub use pulse::Pulse;
pub use quota::cpu_quota;
pub use start::{NodeHandle, Reload, run};
pub use wire::{ClientTls, PeerTls, TlsOptions};

use crate::machine::{NodeId, PeerId};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

/// How writes become durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// Plain writes, then one fdatasync.
    #[default]
    Fdatasync,
    /// The files are opened with O_DSYNC.
    Dsync,
}

/// On which CPUs the cores run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Wherever the kernel puts them.
    #[default]
    Floating,
    /// Core `n` on the n-th of these.
    Pinned(Vec<usize>),
}

/// Bounds on what others can make a core hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client connections of a core.
    pub connections_max: usize,
    /// Bytes of one client that the machine hasn't consumed.
    pub client_input_bytes_max: usize,
    /// Replies that one client hasn't read.
    pub client_output_bytes_max: usize,
    /// Frames that one peer hasn't read; more are dropped.
    pub peer_output_bytes_max: usize,
    /// One frame from a peer.
    pub peer_frame_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            client_input_bytes_max: 64 << 20,
            client_output_bytes_max: 64 << 20,
            peer_output_bytes_max: 128 << 20,
            peer_frame_bytes_max: 256 << 20,
        }
    }
}

/// One core's share of the world. The listeners are bound by the caller, so that a port in use is an early error.
#[derive(Debug)]
pub struct CoreOptions {
    /// Where clients connect.
    pub clients: TcpListener,
    /// Where peers connect.
    pub peers: TcpListener,
    /// Its files.
    pub folder: PathBuf,
}

/// The far end of a link.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress {
    /// Who it is.
    pub peer: PeerId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A node.
#[derive(Debug)]
pub struct NodeOptions {
    /// Its number.
    pub node: NodeId,
    /// Its cluster: links to another one are refused.
    pub cluster: u64,
    /// Drawn when its folder was made.
    pub incarnation: u64,
    /// Its cores.
    pub cores: Vec<CoreOptions>,
    /// Where operators ask, over HTTP; its first core answers.
    pub admin: Option<TcpListener>,
    /// All cores of all other nodes.
    pub peers: Vec<PeerAddress>,
    /// Where the cores run.
    pub placement: Placement,
    /// Bounds.
    pub limits: Limits,
    /// How writes become durable.
    pub sync: SyncMode,
    /// Under what cover it speaks.
    pub tls: TlsOptions,
    /// The machines' randomness.
    pub seed: u64,
    /// Memory registered with io_uring, for each core.
    pub io_memory_bytes: usize,
    /// Versions of the nodes' protocol that it speaks.
    pub versions: Versions,
    /// How long a busy core looks for what comes next before it sleeps; zero: it sleeps at once.
    pub busy_poll: Duration,
    /// The process ends with the node: what its drained cores hold in memory is left to the kernel, which is done with it sooner.
    pub ends_process: bool,
}

impl NodeOptions {
    /// A node without cores and peers yet.
    pub fn new(node: NodeId, cluster: u64, incarnation: u64) -> Self {
        Self {
            node,
            cluster,
            incarnation,
            cores: Vec::new(),
            admin: None,
            peers: Vec::new(),
            placement: Placement::default(),
            limits: Limits::default(),
            sync: SyncMode::default(),
            tls: TlsOptions::default(),
            seed: 0,
            io_memory_bytes: 2 << 20,
            versions: Versions::SPOKEN,
            busy_poll: Duration::ZERO,
            ends_process: false,
        }
    }
}

/// Why a node ended otherwise than asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A machine gave up.
    #[error("{0}")]
    Halted(String),
    /// A core couldn't start.
    #[error("core {core} can't start: {reason}")]
    NotStarted {
        /// Which one.
        core: u16,
        /// Why.
        reason: String,
    },
    /// A core's thread ended: a bug.
    #[error("core {core} died; see its panic message above")]
    Died {
        /// Which one.
        core: u16,
    },
    /// A CPU that isn't there.
    #[error(
        "can't run core {core} on CPU {cpu}: {reason}; `cpus` must name a CPU of its own for each core, among those that this process may use"
    )]
    Placement {
        /// Which core.
        core: u16,
        /// Which CPU.
        cpu: usize,
        /// What is wrong with that.
        reason: String,
    },
}
