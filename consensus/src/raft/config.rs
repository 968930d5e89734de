//! How a group behaves.

use super::LeaseConfig;
use crate::progress::Window;
use flotilla_runtime::Nanos;
use flotilla_runtime::machine::MILLISECOND;

/// Times and bounds of a group. The same on every replica.
#[derive(Clone, Copy, Debug)]
pub struct RaftConfig {
    /// A leader speaks at least this often.
    pub heartbeat: Nanos,
    /// A follower waits for a random time between this and twice this before it asks for votes (one and a half times, where it is
    /// settled who should lead: [`super::Raft::prefer`]); a leader that heard from no majority for this long steps down. Many
    /// heartbeats, or a hiccup costs a leader.
    pub election_timeout: Nanos,
    /// Appends in flight to one follower. Deep windows destroy batching on a LAN: what can't be sent yet
    /// gathers into the next, larger, append.
    pub window: usize,
    /// The same where answers take long: the window grows with their time, up to this.
    pub window_max: usize,
    /// Bytes of entries in flight to one follower; beyond them no other append leaves.
    pub in_flight_bytes_max: usize,
    /// Entries of one append, in bytes (at least one entry goes, whatever its size).
    pub append_bytes_max: usize,
    /// Entries that are proposed and not committed; more are refused with [`super::Refused::Busy`].
    pub uncommitted_max: u64,
    /// Their bytes: one group's share of what may wait for the core's disk, so that a busy one leaves room for the others. One
    /// entry goes whatever its size.
    pub uncommitted_bytes_max: usize,
    /// The largest entry; it must fit into a segment of the log. Larger ones are refused with [`super::Refused::TooLarge`].
    pub entry_bytes_max: usize,
    /// A follower whose sync the majority doesn't need may let entries wait for one for so long, at most (`thrift.rs`). 0: everybody
    /// syncs at once.
    pub spare_sync_wait: Nanos,
    /// An idle group rests ([`crate::multi`]). Off unless asked for: see there.
    pub rests: bool,
    /// A leader serves reads without a round while it has a lease. `None`: never.
    pub lease: Option<LeaseConfig>,
}

impl RaftConfig {
    /// How often a core tells another that it is alive, on behalf of the groups that rest: half as often as a heartbeat, if that
    /// leaves enough of them in an election timeout.
    pub(crate) fn pulse(&self) -> Nanos {
        (2 * self.heartbeat).min(self.election_timeout / 4).max(1)
    }

    pub(super) fn window(&self) -> Window {
        Window { messages: self.window, messages_max: self.window_max, bytes: self.in_flight_bytes_max }
    }
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            heartbeat: 50 * MILLISECOND,
            election_timeout: 400 * MILLISECOND,
            window: 4,
            window_max: 16,
            in_flight_bytes_max: 8 << 20,
            append_bytes_max: 256 * 1024,
            uncommitted_max: 64 * 1024,
            uncommitted_bytes_max: 8 << 20,
            entry_bytes_max: usize::MAX,
            spare_sync_wait: 0,
            rests: false,
            lease: None,
        }
    }
}
