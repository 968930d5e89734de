//! Threads, rings and the kernel: the only crate of Flotilla with async, unsafe, clocks and glommio.
//!
//! | module | what |
//! |---|---|
//! | [`machine`] | the contract between logic and the world: events in, effects out |
//! | [`block`] | aligned, append-only buffers that go to disk and to peers without a copy |
//! | [`driver`] | the loop that gives a machine its hands, on glommio |
//! | [`tls`] | certificates and keys, from files to what connections are made with |
//! | [`random`] | the one seeded generator |
//! | [`vitals`] | what a core counts about itself, for whoever operates it |
//! | [`planted`] | bugs on purpose, in builds of the simulator that test the tester |
//! | [`mod@mesh`] | how the cores of one node talk |
//! | `ring` | what the mesh is woven of: one producer, one consumer, no lock |
//! | `doorbell` | wakes who sleeps, costs who is awake nothing |
//! | `control` | what else the threads of a node share: words to all cores, and where each core is |
//! | `sync` | the primitives of those four: real ones, or loom's |
//! | [`wheel`] | timers: armed and cancelled in a few instructions |

#[cfg_attr(loom, allow(dead_code, reason = "its only user is the driver, which loom doesn't see"))]
mod control;
mod doorbell;
pub mod mesh;
mod ring;
mod sync;
#[cfg(test)]
mod testing;

// All that two cores can touch is above. What follows loom neither sees nor builds, nor what it needs of others.
#[cfg(not(loom))]
pub mod block;
#[cfg(not(loom))]
pub mod driver;
#[cfg(not(loom))]
pub mod machine;
#[cfg(not(loom))]
pub mod planted;
#[cfg(not(loom))]
pub mod random;
#[cfg(not(loom))]
pub mod tls;
#[cfg(not(loom))]
pub mod vitals;
#[cfg(not(loom))]
pub mod wheel;

#[cfg(not(loom))]
pub use block::{BlockPool, BlockWriter, Slice};
#[cfg(not(loom))]
pub use machine::{
    Answer, ConnId, CoreBoot, DiskError, DiskReply, Effect, Effects, Event, FileId, FileKind, Machine, Nanos,
    NodeId, Now, OpId, PeerId, QuestionId, Taken,
};
pub use mesh::{CoreId, Endpoint, SendError, mesh};
#[cfg(not(loom))]
pub use random::SplitMix64;
#[cfg(not(loom))]
pub use vitals::{Histogram, Vitals};
