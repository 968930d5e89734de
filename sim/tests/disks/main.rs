//! Disks, the simulated one and real ones: what they do, and what a node makes of bad ones.
//!
//! One program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

mod disk_effects;
mod effects;
mod faulty_disks;
mod rig;
