//! Nodes that have no part in a group hear from its leader who leads it and what it serves, and from the controller's what is
//! newest: so that they send clients the right way, and lead groups of their own by the newest configuration.

use super::{Core, Kind, Word};
use crate::controller::Configuration;
use crate::core::channel;
use crate::core::remote::Message;
use crate::core::routes::Located;
use crate::core::topology::{CONTROLLER, core_of};
use flotilla_runtime::machine::MILLISECOND;
use flotilla_runtime::{Effects, Nanos, NodeId, Now, PeerId};

/// How often they are told.
const INTERVAL: Nanos = 250 * MILLISECOND;

impl Core {
    /// Leader: tells the nodes outside, if there are any and it is time.
    pub(super) fn announce(&mut self, now: Now, place: usize) {
        let (raft, group) = (self.multi.raft(place), &mut self.groups[place]);
        let (number, at) = (group.number, group.announce_at);
        let members = &raft.membership().1.peers;
        if now.monotonic < at {
            // Whoever is outside must hear of it in time, even if nothing else happens.
            if self.config.nodes.iter().any(|node| !members.contains_key(&u64::from(node.id))) {
                self.migration.again(at);
            }
            return;
        }
        group.announce_at = now.monotonic + INTERVAL;
        let outside = |node: &&crate::config::NodeEntry| !members.contains_key(&u64::from(node.id));
        let outside: Vec<PeerId> = self
            .config
            .nodes
            .iter()
            .filter(outside)
            .map(|node| PeerId { node: NodeId(node.id), core: core_of(node.cores, number) })
            .collect();
        if outside.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        match &group.controller {
            Some(controller) => bytes = controller.newest().encode(),
            None => {
                for shard in group.shards.serving() {
                    bytes.extend_from_slice(&shard.number.to_le_bytes());
                    bytes.extend_from_slice(&shard.config.to_le_bytes());
                }
            }
        }
        let word = Word { bytes: &bytes, ..Word::new(Kind::Announce, 0, raft.term(), (number, number)) };
        for peer in outside.into_iter().filter(|peer| self.remote.is_up(*peer)) {
            let frame = self.migration.outgoing.entry(peer).or_insert_with(|| vec![channel::MIGRATION]);
            word.encode(frame);
        }
        self.migration.again(now.monotonic + INTERVAL);
    }

    /// The leader of a group says so.
    pub(super) fn hear_announcement(&mut self, from: NodeId, word: &Word<'_>, out: &mut Effects<Message>) {
        if !self.config.nodes.iter().any(|node| node.id == from.0) {
            return;
        }
        let (number, term) = (word.from, word.config);
        self.leaders.hear_announced((number, term), from, self.id, &self.config, out);
        if number == CONTROLLER {
            let newest = Configuration::decode(word.bytes);
            let newest = newest.filter(|it| it.shards.len() == usize::from(self.config.shards));
            if let Some(newest) = newest.filter(|it| it.number > self.configuration.number) {
                self.heard_configuration(newest);
                self.is_configuration_news = true;
            }
            return;
        }
        for shard in word.bytes.chunks_exact(10).filter(|_| number < self.config.groups_total()) {
            let config = u64::from_le_bytes(shard[2..].try_into().expect("eight bytes of ten"));
            let shard = u16::from_le_bytes([shard[0], shard[1]]);
            self.routes.learn(Located { shard, config, group: number });
        }
    }
}
