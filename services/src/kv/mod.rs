//! The data of one shard, and what commands do to it.
//!
//! Deterministic: a command's effect depends on the data, on its arguments and on the group's logical clock (the
//! time that the leader logged), never on the replica's own clock. A key whose time has come by that clock is
//! absent, whether or not it has been removed yet.

mod apply;
mod bitfield;
mod bits;
mod copying;
mod dump;
mod expiry;
mod frozen;
mod grave;
mod key;
mod keyspace;
mod lcs;
mod load;
pub mod number;
mod object;
mod publish;
mod range;
mod read;
mod rename;
mod session;
mod set;
mod snapshot;
mod string;
#[cfg(test)]
mod testing;
mod transaction;
mod version;
mod walk;
mod watch;

pub(crate) use bitfield::parse as parse_bit_field;
pub(crate) use bits::{
    parse_bit, parse_combination as parse_bit_combination, parse_offset as parse_bit_offset,
    parse_set as parse_set_bit,
};
pub use copying::CopyLeft;
pub(crate) use dump::parse_restore;
pub use expiry::Expiry;
pub(crate) use expiry::check_change as check_expire;
pub use grave::Grave;
pub use keyspace::{Entry, Keyspace, Value};
pub(crate) use lcs::parse as parse_lcs;
pub(crate) use load::parse as parse_load;
pub(crate) use object::check as check_object;
pub use publish::{PUBLISH_MAGIC, next_pair, put_pair};
pub use range::{RangeOptions, read_range};
pub(crate) use rename::parse_copy;
pub(crate) use session::Once;
pub use session::{SESSION_BYTES, SESSION_BYTES_MAX, SESSIONS_MAX};
pub use set::SetOptions;
pub use snapshot::{ShardReader, SnapshotError};
pub(crate) use transaction::{Transaction, TransactionBuilder};
pub(crate) use version::parse_cas;
pub(crate) use walk::Walk;

/// The time for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// The group's: what is over by it is absent.
    pub clock_ms: u64,
    /// The node's own. Nothing depends on it but how long a key is said to have left.
    pub now_ms: u64,
}
