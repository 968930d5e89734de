//! Groups of replicas, message by message.
//!
//! One program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

mod bounds;
mod cluster;
mod datadriven;
mod etcd_cases;
mod hazards;
mod leadership;
mod members;
mod reads;
mod repair;
mod resting;
mod scenarios;
mod thrift;
mod wire;
