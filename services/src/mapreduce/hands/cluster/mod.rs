//! Jobs of a cluster: the coordinator's facts live in the replicated store, so no process is needed to remember them.
//!
//! | module | what |
//! |---|---|
//! | [`log`] | the log of facts, as keys of one slot: appending is `SET NX` at the next place |
//! | [`lead`] | a process that coordinates, for as long as nobody else does |
//! | [`find`] | the way from workers and clients to whoever coordinates |
//!
//! Every place of the log is written once. A coordinator begins by writing its term at the next place; one that was deposed
//! without noticing finds that place taken when it appends, and stops. So the order of the log, which is that of a Raft
//! group's own log, decides everything, and the lease that says whom to ask is only a hint.

pub mod find;
pub mod lead;
pub mod log;
