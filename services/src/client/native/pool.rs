//! What the calls of a native client share: who leads what, and the connections and sessions that nobody uses at the moment.

use super::super::cluster::range_of;
use super::super::{ClientError, Reply, Security};
use super::link::Link;
use super::within;
use crate::slot::Slot;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Idle connections to one core; more are closed.
const IDLE_MAX: usize = 64;

/// A session, by its number in the cluster.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    /// The last write that was answered.
    pub(super) last: u64,
}

#[derive(Debug, Default)]
struct Shared {
    seeds: Vec<String>,
    next_seed: usize,
    /// Shards of the cluster; 0 if that isn't known yet.
    shards: u16,
    /// First and last slot, and the address of their leader. What single slots have moved to since comes first.
    ranges: Vec<(u16, u16, String)>,
    /// Some of that isn't so any more: whoever calls next asks.
    is_stale: bool,
    links: BTreeMap<String, Vec<Link>>,
    /// By shard.
    sessions: BTreeMap<u16, Vec<Session>>,
}

/// What an error says besides that nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// Who has this address is right.
    There(String),
    /// Somebody else may be, or a later time.
    Later,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Mutex<Shared>,
    patience: Duration,
    security: Security,
}

impl Pool {
    pub(super) fn new(seeds: Vec<String>, patience: Duration, security: Security) -> Self {
        Self { shared: Mutex::new(Shared { seeds, ..Shared::default() }), patience, security }
    }

    /// Held for a few instructions, never across an await.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks who leads what: one node after the other, as long as they say at once that they can't tell.
    pub(super) async fn learn(&self) -> Result<(), ClientError> {
        let nodes = self.shared().seeds.len();
        let mut outcome = self.learn_from_next().await;
        for _ in 1..nodes {
            if !matches!(outcome, Err(ClientError::Io { .. } | ClientError::Protocol { .. })) {
                break;
            }
            outcome = self.learn_from_next().await;
        }
        outcome
    }

    async fn learn_from_next(&self) -> Result<(), ClientError> {
        let address = {
            let mut shared = self.shared();
            shared.is_stale = false;
            let place = shared.next_seed % shared.seeds.len().max(1);
            shared.next_seed += 1;
            shared.seeds.get(place).cloned()
        };
        let address = address.ok_or_else(|| ClientError::Refused("no address was given".to_owned()))?;
        let mut link = self.link(&address).await?;
        let is_known = self.shared().shards > 0;
        if !is_known {
            let reply = within(self.patience, link.call(&[b"CLUSTER", b"INFO"])).await?;
            let shards = shards_of(&reply).ok_or_else(|| ClientError::Protocol {
                address: address.clone(),
                what: format!("CLUSTER INFO was answered with {reply}: is it a Flotilla?"),
            })?;
            self.shared().shards = shards;
        }
        let reply = within(self.patience, link.call(&[b"CLUSTER", b"SLOTS"])).await?;
        let Reply::Array(ranges) = reply else {
            return Err(ClientError::Protocol { address, what: "CLUSTER SLOTS isn't an array".to_owned() });
        };
        let mut shared = self.shared();
        shared.ranges = ranges.iter().filter_map(range_of).collect();
        // Whoever leads something can be asked as well, should the nodes known at first be gone.
        let leaders: Vec<String> = shared.ranges.iter().map(|(.., address)| address.clone()).collect();
        for leader in leaders {
            if !shared.seeds.contains(&leader) {
                shared.seeds.push(leader);
            }
        }
        drop(shared);
        self.put_link(link);
        Ok(())
    }

    pub(super) fn leader_of(&self, slot: Slot) -> Option<String> {
        let shared = self.shared();
        let range = shared.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot.0));
        range.map(|(.., address)| address.clone())
    }

    /// Somebody didn't answer: who leads instead is asked for.
    pub(super) fn distrust(&self, address: &str) {
        let mut shared = self.shared();
        shared.ranges.retain(|(.., leader)| leader != address);
        shared.is_stale = true;
    }

    /// Whether who leads what is to be asked for; the caller does.
    pub(super) fn take_stale(&self) -> bool {
        std::mem::take(&mut self.shared().is_stale)
    }

    /// Whether an error says that nothing was done, and that somebody else or a later time is right; learns from it who.
    pub(super) fn elsewhere(&self, slot: Slot, error: &str) -> Option<Elsewhere> {
        let mut words = error.split(' ');
        let kind = words.next()?;
        let mut shared = self.shared();
        shared.is_stale |= matches!(kind, "MOVED" | "CLUSTERDOWN" | "TRYAGAIN");
        match (kind, words.nth(1)) {
            ("MOVED", Some(address)) => {
                shared.ranges.retain(|(first, last, _)| (*first, *last) != (slot.0, slot.0));
                shared.ranges.insert(0, (slot.0, slot.0, address.to_owned()));
                Some(Elsewhere::There(address.to_owned()))
            }
            ("MOVED" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "MISCONF" | "LOADING", _) => {
                Some(Elsewhere::Later)
            }
            _ => None,
        }
    }

    /// An idle connection, or a new one.
    pub(super) async fn link(&self, address: &str) -> Result<Link, ClientError> {
        let idle = self.shared().links.get_mut(address).and_then(Vec::pop);
        match idle {
            Some(link) => Ok(link),
            None => within(self.patience, Link::open(address, &self.security)).await,
        }
    }

    /// A connection broke: those beside it may be as old.
    pub(super) fn drop_links(&self, address: &str) {
        self.shared().links.remove(address);
    }

    pub(super) fn put_link(&self, link: Link) {
        let mut shared = self.shared();
        let idle = shared.links.entry(link.address.clone()).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(link);
        }
    }

    /// An idle session of the slot's shard.
    pub(super) fn session(&self, slot: Slot) -> Option<Session> {
        let mut shared = self.shared();
        let shard = slot.shard(shared.shards);
        shared.sessions.get_mut(&shard).and_then(Vec::pop)
    }

    pub(super) fn give_back(&self, slot: Slot, session: Session) {
        let mut shared = self.shared();
        let shard = slot.shard(shared.shards);
        shared.sessions.entry(shard).or_default().push(session);
    }
}

fn shards_of(reply: &Reply) -> Option<u16> {
    let Reply::Bulk(text) = reply else { return None };
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    let shards = lines.find_map(|line| line.strip_prefix("flotilla_shards:"))?;
    shards.parse().ok().filter(|shards| *shards > 0)
}
