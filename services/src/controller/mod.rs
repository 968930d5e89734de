//! The controller's state: the numbered history of configurations, and how one follows from another. Pure.
//!
//! A **configuration** says which group serves which shard, and which groups there are. Each [`Change`] that changes
//! anything makes the next one; none is ever changed, so whoever knows a number knows the whole, and a stale one is told
//! by its number. All replicas of the controller group apply the same changes in the same order, and
//! [`rebalance`](rebalance::rebalance) has no other input than the configuration before: so all have the same history.
//!
//! | file | what |
//! |---|---|
//! | `configuration.rs` | one configuration |
//! | `rebalance.rs` | loads even, fewest shards moved |
//! | `history.rs` | all configurations since the first, as the differences between them |
//! | `archive.rs` | frozen bytes: entries of the log, the state in a snapshot |
//!
//! This module never asks what a group has done about a configuration: that is each group's own affair, in its own log
//! (`services/src/core/migration`).

pub mod archive;
mod configuration;
mod history;
pub mod rebalance;

pub use configuration::{Configuration, GroupEntry};
pub use history::History;

use std::collections::{BTreeMap, BTreeSet};

/// No load is a multiple of a larger one.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// What an operator wants changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The first configuration of a cluster, as its nodes' files say.
    Found(Configuration),
    /// These groups serve shards from now on, or with another weight or on other nodes.
    Join(BTreeMap<u32, GroupEntry>),
    /// These don't any more.
    Leave(BTreeSet<u32>),
    /// This shard goes to that group, whatever the loads. The next join or leave evens them again.
    Move {
        /// Which shard.
        shard: u16,
        /// To which group.
        to: u32,
    },
}

/// Why a change was not made. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// A cluster is founded once.
    #[error("the cluster has its first configuration already")]
    Founded,
    /// The nodes' files differ.
    #[error("the first configuration has {found} shards, and this node's file says {expected}")]
    OtherShards {
        /// In the configuration.
        found: usize,
        /// Here.
        expected: usize,
    },
    /// Nothing but the founding can be first.
    #[error("the cluster has no configuration yet: its controller is being founded, try again")]
    NotFounded,
    /// A weight that makes no sense.
    #[error("group {group} can't have weight {weight}: 1 to {WEIGHT_MAX}")]
    BadWeight {
        /// Whose.
        group: u32,
        /// Which.
        weight: u32,
    },
    /// A shard that isn't there.
    #[error("there is no shard {shard}: the cluster has {shards}, counted from 0")]
    NoSuchShard {
        /// Which.
        shard: u16,
        /// How many there are.
        shards: usize,
    },
    /// A group that serves nothing and hasn't joined.
    #[error("group {group} isn't in the configuration: let it join first")]
    NoSuchGroup {
        /// Which.
        group: u32,
    },
}

/// The state that the controller's log makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    history: History,
}

impl Controller {
    /// Before anything: configuration 0, in which nobody serves any of so many shards.
    pub fn new(shards: u16) -> Self {
        Self { history: History::new(Configuration::empty(shards)) }
    }

    /// The newest configuration.
    pub fn newest(&self) -> &Configuration {
        self.history.newest()
    }

    /// The configuration of this number, if there has been one.
    pub fn query(&self, number: u64) -> Option<Configuration> {
        self.history.query(number)
    }

    /// Makes the next configuration; returns the number of the one that is newest then. A change that changes nothing, as
    /// one that is asked for again because its answer was lost, makes none.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn apply(&mut self, change: &Change) -> Result<u64, Rejected> {
        let before = self.newest();
        let is_founded = before.number > 0;
        let next = match change {
            Change::Found(_) if is_founded => return Err(Rejected::Founded),
            Change::Found(first) if first.shards.len() != before.shards.len() => {
                return Err(Rejected::OtherShards {
                    found: first.shards.len(),
                    expected: before.shards.len(),
                });
            }
            Change::Found(first) => Configuration { number: before.number, ..first.clone() },
            _ if !is_founded => return Err(Rejected::NotFounded),
            Change::Join(groups) => before.join(groups)?,
            Change::Leave(groups) => before.leave(groups),
            Change::Move { shard, to } => before.with_shard_at(*shard, *to)?,
        };
        if next == *before {
            return Ok(before.number);
        }
        let number = before.number + 1;
        self.history.push(Configuration { number, ..next });
        Ok(number)
    }
}

#[cfg(test)]
mod tests;
