//! The simulated world and its checkers: the real machines under simulated time, network, disks and crashes.
//!
//! | module | what |
//! |---|---|
//! | [`world`] | nodes, links, disks, clients and time, from one seed |
//! | [`script`] | a world in which nothing goes wrong but what its test says |
//! | [`swarm`] | what goes wrong in a seed, and how much of it |
//! | [`disk`] | what is durable, and what a crash may do to the rest |
//! | [`clients`] | users that remember what they saw |
//! | [`mod@check`] | what must be true at every moment |
//! | [`linear`] | whether a history is linearizable |
//! | [`faultfs`] | a file system with faults, for what runs on the real driver |

#![forbid(unsafe_code)]

pub mod check;
pub mod clients;
pub mod disk;
pub mod faultfs;
pub mod linear;
pub mod rng;
pub mod script;
pub mod swarm;
pub mod trace;
pub mod world;
