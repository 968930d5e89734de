//! The simulated world and its checkers: the real machines under simulated time, network, disks and crashes.
//!
//! | module | what |
//! |---|---|
//! | [`world`] | nodes, links, disks, clients and time, from one seed |
//! | [`scenes`] | scripts that lead to where a planted bug shows |
//! | [`script`] | a world in which nothing goes wrong but what its test says |
//! | [`swarm`] | what goes wrong in a seed, and how much of it |
//! | [`disk`] | what is durable, and what a crash may do to the rest |
//! | [`clients`] | users that remember what they saw |
//! | [`mod@check`] | what must be true at every moment |
//! | [`linear`] | whether a history is linearizable |
//! | [`faults`] | the kinds of faults: names, counts, switches |
//! | [`hazards`] | circumstances that seeds seldom draw together |
//! | [`prove`] | bugs planted on purpose, and whether they are found |
//! | [`mod@run`] | many seeds on all cores |
//! | [`shrink`] | the smallest plan that still fails |
//! | [`faultfs`] | a file system with faults, for what runs on the real driver |

#![forbid(unsafe_code)]

pub mod check;
pub mod clients;
pub mod disk;
mod fast_hash;
pub mod faultfs;
pub mod faults;
pub mod hazards;
pub mod linear;
pub mod prove;
pub mod rng;
pub mod run;
pub mod scenes;
pub mod script;
pub mod shrink;
pub mod swarm;
pub mod trace;
pub mod world;
