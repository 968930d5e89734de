//! The admin port of real nodes.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

#[path = "../common/mod.rs"]
mod common;

mod endpoints;
mod exposition;
mod http;
mod jobs;
mod metrics;
mod page;
mod slowlog;
mod top;
mod watchdog;
