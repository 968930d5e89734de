//! Real processes and real sockets: what a node does for its clients, and what they see of its end.
//!
//! One program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

mod bad_input;
mod clients;
#[path = "../common/mod.rs"]
mod common;
mod container;
mod crashes;
mod dev;
mod differential;
mod doctor;
mod golden;
mod growing;
mod handover;
#[path = "../admin/http.rs"]
mod http;
mod limits;
mod links;
mod members;
mod resharding;
mod sessions;
mod transactions;
mod versions;
mod wal_tools;
