//! Where every shard is: one table look-up between a key and its group.
//!
//! It follows the shards themselves, not the controller: a shard is with the group that serves it until that group's log says
//! that it goes, and from then on with the group that it goes to. Replicas of this node tell all cores what their logs say, and
//! each word carries the number of the configuration that it follows, so that the newest wins however late another comes.

use super::Core;
use super::remote::Message;
use super::shards::Status;
use crate::config::Config;
use flotilla_runtime::{CoreId, Effect, Effects};

/// A shard is with this group since that configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// Which.
    pub shard: u16,
    /// The number of the configuration.
    pub config: u64,
    /// The group's number from 0.
    pub group: u32,
}

/// Where the shards are, as far as this core knows.
#[derive(Debug)]
pub(crate) struct Routes {
    groups: Box<[u32]>,
    since: Box<[u64]>,
    /// What the other cores of this node haven't been told yet.
    news: Vec<Located>,
    /// How often any shard was found to be elsewhere.
    pub(super) changes: u64,
}

impl Routes {
    /// As a cluster is founded: configuration 1.
    pub(super) fn new(config: &Config) -> Self {
        let groups = (0..config.shards).map(|shard| super::topology::group_of(config, shard));
        Self {
            groups: groups.collect(),
            since: vec![1; usize::from(config.shards)].into_boxed_slice(),
            news: Vec::new(),
            changes: 0,
        }
    }

    /// The group of a shard.
    pub(super) fn of(&self, shard: u16) -> u32 {
        self.groups[usize::from(shard)]
    }

    /// All of them, by shard.
    pub(super) fn all(&self) -> &[u32] {
        &self.groups
    }

    /// The newest configuration that any shard has followed.
    pub(super) fn newest(&self) -> u64 {
        self.since.iter().copied().max().unwrap_or(0)
    }

    /// Somebody says where a shard is; returns whether that is news.
    pub(super) fn heard(&mut self, it: Located) -> bool {
        let place = usize::from(it.shard);
        let is_news = self.since.get(place).is_some_and(|since| *since < it.config);
        if is_news {
            (self.since[place], self.groups[place]) = (it.config, it.group);
            self.changes += 1;
        }
        is_news
    }

    /// A replica here says so.
    pub(super) fn learn(&mut self, it: Located) {
        if self.heard(it) {
            self.news.push(it);
        }
    }
}

impl Core {
    /// Takes note of where the shards of a group are, as its replica here has just been restored with them.
    pub(super) fn learn_routes(&mut self, place: usize) {
        let group = &self.groups[place];
        for (shard, config, group) in group.shards.gone() {
            self.routes.learn(Located { shard, config, group });
        }
        for shard in group.shards.iter() {
            let at = match shard.status {
                Status::Serving => group.number,
                Status::Leaving { to } => to,
                // Its source may be serving it still.
                Status::Arriving { .. } => continue,
            };
            self.routes.learn(Located { shard: shard.number, config: shard.config, group: at });
        }
    }

    /// Tells the other cores of this node.
    pub(super) fn spread_routes(&mut self, out: &mut Effects<Message>) {
        if self.routes.news.is_empty() {
            return;
        }
        let news = std::mem::take(&mut self.routes.news);
        for core in (0..self.config.me().cores).map(CoreId).filter(|core| *core != self.id) {
            out.push(Effect::Mesh { to: core, message: Message::Located(news.clone()) });
        }
    }
}
