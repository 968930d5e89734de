//! The whole contract between logic and the world.
//!
//! A core is one deterministic machine: the driver (or the simulator) hands it events, it appends
//! effects. It never blocks, reads no clock, draws no randomness of its own and touches no file, so
//! the same construction and the same sequence of `(now, event)` give the same effects, bit for bit.
//!
//! The driver drains what is ready into [`Machine::step`], then calls [`Machine::apply`] and [`Machine::flush`] once:
//! **`flush` is group commit made visible.** Whatever arrived while the disk was busy is gathered by
//! the machine and leaves together.

use crate::block::{BlockPool, Slice};
pub use crate::mesh::CoreId;
use crate::vitals::Vitals;
use std::any::Any;
use std::fmt;
use std::rc::Rc;

/// Nanoseconds on a monotonic clock that starts anywhere.
pub type Nanos = u64;

/// One microsecond in [`Nanos`].
pub const MICROSECOND: Nanos = 1_000;
/// One millisecond in [`Nanos`].
pub const MILLISECOND: Nanos = 1_000_000;
/// One second in [`Nanos`].
pub const SECOND: Nanos = 1_000_000_000;

/// The instant at which an event is handled, on both clocks a machine may need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timeouts: never goes back, means nothing across processes.
    pub monotonic: Nanos,
    /// Milliseconds since 1970, for what users see (expiry). May jump; a machine must not rely on its order.
    pub unix_ms: u64,
}

/// A node: one process on one machine. Numbered by the operator, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// The far end of a peer link: one core of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    /// The other node.
    pub node: NodeId,
    /// Its core.
    pub core: CoreId,
}

/// A client connection of this core. Never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A question of whoever operates the node, numbered by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub u64);

/// A disk operation, numbered by the machine that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// What a file of a core's folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A segment of the write-ahead log: `segment-<number>.log`.
    Segment,
    /// A finished snapshot: `snapshot-<number>.snap`.
    Snapshot,
    /// A snapshot being written, invisible to recovery: `snapshot-<number>.tmp`.
    Unfinished,
}

/// A file of a core's folder. The number is written as 16 hex digits in the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// What it is for.
    pub kind: FileKind,
    /// Which one.
    pub number: u64,
}

impl FileId {
    /// A log segment's file.
    pub fn segment(number: u64) -> Self {
        Self { kind: FileKind::Segment, number }
    }
}

impl fmt::Display for FileId {
    /// The file's name inside the core's folder.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FileKind::Segment => write!(f, "segment-{:016x}.log", self.number),
            FileKind::Snapshot => write!(f, "snapshot-{:016x}.snap", self.number),
            FileKind::Unfinished => write!(f, "snapshot-{:016x}.tmp", self.number),
        }
    }
}

impl std::str::FromStr for FileId {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let (kind, digits) = if let Some(rest) = name.strip_prefix("segment-") {
            (FileKind::Segment, rest.strip_suffix(".log").ok_or(())?)
        } else if let Some(rest) = name.strip_prefix("snapshot-") {
            match (rest.strip_suffix(".snap"), rest.strip_suffix(".tmp")) {
                (Some(digits), _) => (FileKind::Snapshot, digits),
                (None, Some(digits)) => (FileKind::Unfinished, digits),
                (None, None) => return Err(()),
            }
        } else {
            return Err(());
        };
        if digits.len() != 16 {
            return Err(());
        }
        let number = u64::from_str_radix(digits, 16).map_err(|_| ())?;
        Ok(Self { kind, number })
    }
}

/// What the machine did with the bytes of an [`Event::Client`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes consumed from the front; the rest is offered again, with more behind it, when more arrives.
    pub bytes: usize,
    /// Set by a machine that has enough of this connection for now: the driver stops reading from it until
    /// [`Effect::Resume`], and then offers the rest again at once.
    pub pause: bool,
}

/// What a finished disk operation brought.
#[derive(Debug, Clone)]
pub enum DiskReply {
    /// A write, a sync, a create, a rename or a removal is done.
    Done,
    /// The bytes of a read; shorter than asked only at the end of the file.
    Read(Slice),
}

/// A disk operation that failed. The machine decides what follows; the driver never retries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} of {file} at offset {offset} failed: {reason} (os error {errno})")]
pub struct DiskError {
    /// `write`, `sync`, `read`, `create`, `rename` or `remove`; `open` where the file isn't there.
    pub operation: &'static str,
    /// The file's path as the operator knows it.
    pub file: String,
    /// Byte offset, 0 where there is none.
    pub offset: u64,
    /// The operating system's error number, 0 for a short read or write.
    pub errno: i32,
    /// The same in words, without the number.
    pub reason: String,
}

/// What happens to a core. `M` is the message that cores of one node exchange.
#[derive(Debug)]
pub enum Event<'a, M> {
    /// A deadline that the machine named has passed (or the driver just felt like it).
    Tick,
    /// A client connected.
    Opened {
        /// Its connection, as long as it lasts.
        conn: ConnId,
        /// It is on this machine: it came over the loopback interface.
        is_local: bool,
    },
    /// Bytes of a client: all that was read and not consumed yet.
    Client {
        /// From whom.
        conn: ConnId,
        /// Everything unconsumed so far, in order.
        bytes: &'a [u8],
        /// The machine's answer: how much of it was consumed.
        taken: &'a mut Taken,
    },
    /// A client is gone, or was cut off. Nothing may be replied to it any more.
    Closed {
        /// Which one.
        conn: ConnId,
    },
    /// The link *to* a peer stands: what is sent from now on has a chance of arriving.
    PeerUp {
        /// The far end.
        peer: PeerId,
    },
    /// The link *to* a peer broke: an unknown suffix of what was sent is lost.
    PeerDown {
        /// The far end.
        peer: PeerId,
    },
    /// One whole frame from a peer, its checksum verified.
    Peer {
        /// Who sent it.
        from: PeerId,
        /// The bytes of its [`Effect::Send`].
        frame: &'a [u8],
    },
    /// A message from another core of this node. In order per sender, never lost.
    Mesh {
        /// The sender.
        from: CoreId,
        /// The message.
        message: M,
    },
    /// A disk operation is over.
    Disk {
        /// The number that the machine gave it.
        op: OpId,
        /// How it went.
        result: Result<DiskReply, DiskError>,
    },
    /// An operator asks, over HTTP. [`Effect::Answer`] follows, sooner or later.
    Asked {
        /// The driver's number for it.
        question: QuestionId,
        /// What for: the path of a GET, without what follows a question mark.
        path: &'a str,
    },
    /// Settings have changed while the node runs: what they are now, as the machine's builder and whoever reloads agree.
    Reloaded {
        /// All of them.
        settings: &'a (dyn Any + Send + Sync),
    },
    /// The node is asked to stop: take nothing new, finish what was begun.
    Shutdown,
}

/// What an operator is told. Its text is made elsewhere than on the core, which has better things to do.
pub struct Answer {
    /// HTTP's: 200, 404, 503.
    pub status: u16,
    /// What kind of text it is, as HTTP calls it.
    pub content_type: &'static str,
    /// Makes the text.
    pub render: Box<dyn FnOnce() -> Vec<u8> + Send>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What a machine wants done. Effects are carried out in the order given, but complete in any order.
#[derive(Debug)]
pub enum Effect<M> {
    /// Bytes for a client, after all earlier ones.
    Reply {
        /// To whom.
        conn: ConnId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close a client's connection once everything replied so far is written. [`Event::Closed`] follows.
    Close {
        /// Which one.
        conn: ConnId,
    },
    /// Take up reading again after [`Taken::pause`].
    Resume {
        /// From whom.
        conn: ConnId,
    },
    /// One frame for a peer: arrives whole, once, in order, or not at all.
    Send {
        /// The far end.
        to: PeerId,
        /// Its bytes, without any framing; the driver adds length and checksum.
        frame: Vec<u8>,
    },
    /// A message for another core of this node.
    Mesh {
        /// The receiver.
        to: CoreId,
        /// The message.
        message: M,
    },
    /// Write `block` at `offset`. With `sync`, `Done` means that it is durable, and so is (but in a segment, whose
    /// owner knows which of its writes stand alone) every write to this file that was *completed* before; without, only
    /// that a later sync will make it so.
    Write {
        /// The machine's number for it.
        op: OpId,
        /// An existing file.
        file: FileId,
        /// A multiple of 4 KiB.
        offset: u64,
        /// A whole block, see [`crate::block`]; its length is a multiple of 4 KiB.
        block: Slice,
        /// Whether `Done` must mean durable.
        sync: bool,
    },
    /// Make every write to `file` whose effect was given before this one durable.
    Sync {
        /// The machine's number for it.
        op: OpId,
        /// An existing file.
        file: FileId,
    },
    /// Read `bytes` bytes at `offset`.
    Read {
        /// The machine's number for it.
        op: OpId,
        /// An existing file.
        file: FileId,
        /// A multiple of 4 KiB.
        offset: u64,
        /// A multiple of 4 KiB.
        bytes: u32,
    },
    /// Create `file`, written with `bytes` zeros (a multiple of 4 KiB, may be 0), synced together with its
    /// folder's entry, in the background. An existing file of that name is an error.
    CreateFile {
        /// The machine's number for it.
        op: OpId,
        /// The new file.
        file: FileId,
        /// Its size.
        bytes: u64,
    },
    /// Rename, replacing `to` if it exists, and sync the folder.
    RenameFile {
        /// The machine's number for it.
        op: OpId,
        /// The old name.
        from: FileId,
        /// The new name.
        to: FileId,
    },
    /// Remove `file`. A missing file is no error.
    RemoveFile {
        /// The machine's number for it.
        op: OpId,
        /// The file to remove.
        file: FileId,
    },
    /// The answer to an operator's question. One to a question that nobody waits for any more is dropped.
    Answer {
        /// Which.
        question: QuestionId,
        /// What.
        answer: Answer,
    },
    /// Stop the process now, with exit status 1 and this reason as its last words. Nothing further is carried out.
    Halt {
        /// What happened, where, what to do.
        reason: String,
    },
    /// The drain that [`Event::Shutdown`] asked for is finished: the process may end, with exit status 0.
    Drained,
}

/// The effects of one batch, in order. Reused by the driver, so that steady work allocates nothing here.
#[derive(Debug)]
pub struct Effects<M> {
    list: Vec<Effect<M>>,
}

impl<M> Default for Effects<M> {
    fn default() -> Self {
        Self { list: Vec::new() }
    }
}

impl<M> Effects<M> {
    /// Appends one effect.
    pub fn push(&mut self, effect: Effect<M>) {
        self.list.push(effect);
    }

    /// Takes out everything, in order, keeping the memory.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect<M>> + '_ {
        self.list.drain(..)
    }

    /// How many of the effects that wait are writes.
    pub(crate) fn writes(&self) -> usize {
        self.list.iter().filter(|effect| matches!(effect, Effect::Write { .. })).count()
    }

    /// How many effects wait.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// What a machine is built from when its core starts: the survivors of its last life.
#[derive(Debug)]
pub struct CoreBoot {
    /// Which core of the node.
    pub core: CoreId,
    /// Every file of the core's folder with its whole content (length a multiple of 4 KiB), by name.
    pub files: Vec<(FileId, Slice)>,
    /// Where the machine gets the blocks that it writes.
    pub pool: BlockPool,
    /// The machine's only source of randomness.
    pub seed: u64,
    /// The instant of its birth.
    pub now: Now,
    /// What the driver of the same core counts.
    pub vitals: Rc<Vitals>,
}

/// A deterministic state machine: all the logic of one core.
pub trait Machine {
    /// What cores of one node say to each other.
    type Message: Send + 'static;

    /// Consumes one event at `now`, appends what the world must do. Never blocks.
    fn step(&mut self, now: Now, event: Event<'_, Self::Message>, out: &mut Effects<Self::Message>);

    /// Called once after a batch of events, before [`Self::flush`]: what has become sure is carried out. The two are apart so that whoever
    /// calls them can tell how long each took.
    fn apply(&mut self, _now: Now, _out: &mut Effects<Self::Message>) {}

    /// Called once after a batch of events: here frames are cut and messages to peers are sent.
    fn flush(&mut self, now: Now, out: &mut Effects<Self::Message>);

    /// The next instant at which a [`Event::Tick`] is due, on the monotonic clock.
    fn deadline(&self) -> Option<Nanos>;
}
