//! Whole clusters in simulated time: seeds that were worth keeping, and what a script or a hazard must come to.
//!
//! One program, so that it is linked once.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

mod backups;
mod forwarding;
mod growing;
mod leases;
mod overload;
mod redirects;
mod seeds;
