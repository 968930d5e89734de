//! Agreement: one Raft group, then the many of a core.
//!
//! | module | what |
//! |---|---|
//! | [`raft`] | one group: elections, replication, commitment, reads (Ongaro's thesis, chapters 3, 6, 9) |
//! | [`log`] | the group's entries in memory: whole records, shared with the frames that went to disk |
//! | [`progress`] | what a leader knows of one follower: probe or replicate, window |
//! | [`quorum`] | the arithmetic of majorities, of one set of voters and of two at once |
//! | [`confchange`] | who votes and who learns, and how that changes: pure |
//! | [`membership`] | a configuration with its addresses, as bytes |
//! | [`message`] | what replicas say to each other, byte by byte |
//! | [`multi`] | the groups of a core over one write-ahead log: one frame, one message per peer per turn |
//!
//! **The persistence contract.** Nothing that another node may rely on leaves before it is durable here: a
//! vote is granted, and an entry acknowledged, only when the write-ahead log says that the frame holding its
//! record is on disk; a leader counts itself the same way. What binds nobody (vote requests, appends,
//! heartbeats) leaves at once, so that a leader's disk works while its followers' do.
//!
//! Nothing here reads a clock, draws from a shared source of randomness or touches a file.

#![forbid(unsafe_code)]

pub mod confchange;
pub mod log;
pub mod membership;
pub mod message;
pub mod multi;
pub mod progress;
pub mod quorum;
pub mod raft;

pub use membership::Membership;
pub use message::{GroupId, Header, Kind, WireError};
pub use multi::{Multi, MultiConfig, Replica, SnapshotMail, has_left};
pub use raft::{
    Change, ChangeRefused, Proposal, Raft, RaftConfig, ReadState, ReadTicket, Refused, Role, TransferError,
    Transition,
};
