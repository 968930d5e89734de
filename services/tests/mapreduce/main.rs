//! MapReduce jobs as people run them: the real program, worker processes, files. Acceptance rows MR-01 to MR-10, hazards
//! H-1 to H-5, and what else can go wrong.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

#[path = "../security/authorities.rs"]
mod authorities;
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod fleet;
mod jobs;
mod labs;
mod machines;
mod nodes;
mod rig;
mod store;
mod streaming;
mod tls;
