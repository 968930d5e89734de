//! Who may do what, and under what cover: real nodes, with the clients that people use.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

#[path = "../common/mod.rs"]
mod common;

#[path = "../admin/http.rs"]
mod http;

mod authorities;
mod doors;
mod nodes;
mod reload;
mod tls;
mod users;
