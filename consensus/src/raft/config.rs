//! How a group behaves.

use super::LeaseConfig;
use flotilla_runtime::Nanos;
use flotilla_runtime::machine::MILLISECOND;

/// Times and bounds of a group. The same on every replica.
#[derive(Clone, Copy, Debug)]
pub struct RaftConfig {
    /// A leader speaks at least this often.
    pub heartbeat: Nanos,
    /// A follower waits for a random time between this and twice this before it asks for votes; a leader that
    /// heard from no majority for this long steps down. Many heartbeats, or a hiccup costs a leader.
    pub election_timeout: Nanos,
    /// Appends in flight to one follower. Deep windows destroy batching on a LAN: what can't be sent yet
    /// gathers into the next, larger, append.
    pub window: usize,
    /// Entries of one append, in bytes (at least one entry goes, whatever its size).
    pub append_bytes_max: usize,
    /// Entries that are proposed and not committed; more are refused with [`Refused::Busy`].
    pub uncommitted_max: u64,
    /// A leader serves reads without a round while it has a lease. `None`: never.
    pub lease: Option<LeaseConfig>,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            heartbeat: 50 * MILLISECOND,
            election_timeout: 400 * MILLISECOND,
            window: 4,
            append_bytes_max: 256 * 1024,
            uncommitted_max: 64 * 1024,
            lease: None,
        }
    }
}
