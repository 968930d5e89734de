//! Threads, rings and the kernel: the only crate of Flotilla with async, unsafe, clocks and glommio.
//!
//! | module | what |
//! |---|---|
//! | [`machine`] | the contract between logic and the world: events in, effects out |
//! | [`block`] | aligned, append-only buffers that go to disk and to peers without a copy |

pub mod block;
pub mod machine;

pub use block::{BlockPool, BlockWriter, Slice};
pub use machine::{
    ConnId, CoreBoot, CoreId, DiskError, DiskReply, Effect, Effects, Event, FileId, FileKind, Machine, Nanos,
    NodeId, Now, OpId, PeerId, Taken,
};
