//! The data of one shard, and what commands do to it.
//!
//! Deterministic: a command's effect depends on the data, on its arguments and on the group's logical clock (the
//! time that the leader logged), never on the replica's own clock. A key whose time has come by that clock is
//! absent, whether or not it has been removed yet.

mod expiry;
mod frozen;
mod keyspace;
pub mod number;
mod read;
mod set;
mod snapshot;
mod string;

pub use expiry::Expiry;
pub use keyspace::{Entry, Keyspace, Value};
pub use set::SetOptions;
pub use snapshot::{ShardReader, SnapshotError};
