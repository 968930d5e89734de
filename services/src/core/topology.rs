//! Who leads what, as clients are told.
//!
//! Until the controller decides placement (a later room), it follows from the configuration: every node has a
//! replica of every group, group `g` lives on core `g mod cores`, and the shards are dealt out evenly. A replica on a node
//! that `joins` stays empty until its group takes it in ([`super::member`]).

use super::Core;
use super::remote::Message;
use crate::config::Config;
use crate::slot::Slot;
use crate::topology::{Member as TopologyMember, Range, Topology, member_id};
use flotilla_consensus::GroupId;
use flotilla_consensus::raft::Member;
use flotilla_runtime::{CoreId, Effect, Effects, NodeId, PeerId};
use std::cmp::Reverse;

/// The core of `node` on which group `number` lives.
pub(crate) fn core_of(cores: u16, number: u32) -> CoreId {
    CoreId(u16::try_from(number % u32::from(cores)).expect("less than the number of cores"))
}

/// The groups with a replica on `core` of this node, with the voters that they are founded with.
pub(crate) fn groups_of(config: &Config, core: CoreId) -> Vec<(GroupId, Vec<Member>)> {
    let here = (0..config.groups).filter(|number| core_of(config.me().cores, *number) == core);
    let members = |number: u32| {
        let peer = |node: &crate::config::NodeEntry| PeerId {
            node: NodeId(node.id),
            core: core_of(node.cores, number),
        };
        let founders = config.nodes.iter().filter(|node| !node.joins);
        founders.map(|node| Member { peer: peer(node) }).collect()
    };
    here.map(|number| (GroupId(u64::from(number) + 1), members(number))).collect()
}

/// In which order the nodes should lead a group: by their priority; among equals the groups take turns, so that the
/// leaderships are spread evenly, and go back to where they were when nodes have been away.
pub(crate) fn preference(config: &Config, group: GroupId) -> Vec<NodeId> {
    let mut nodes: Vec<_> = config.nodes.iter().map(|node| (Reverse(node.priority), node.id)).collect();
    nodes.sort_unstable();
    for equals in nodes.chunk_by_mut(|one, other| one.0 == other.0) {
        let turn = (group.0 - 1) % equals.len() as u64;
        equals.rotate_left(usize::try_from(turn).expect("less than the number of nodes"));
    }
    nodes.into_iter().map(|(_, id)| NodeId(id)).collect()
}

/// Every group hears of the nodes that it may take in one day.
pub(crate) fn introduce_everybody(config: &Config, multi: &mut flotilla_consensus::Multi) {
    for place in 0..multi.len() {
        let number = u32::try_from(multi.raft(place).group().0 - 1).expect("groups are few");
        for node in config.nodes.iter().filter(|node| node.id != config.node) {
            multi.introduce(place, PeerId { node: NodeId(node.id), core: core_of(node.cores, number) });
        }
    }
}

/// The first and last shard of a group: contiguous, and equal to within one.
pub(crate) fn shards_of(config: &Config, number: u32) -> (u16, u16) {
    let bound = |number: u32| {
        let shard = u64::from(number) * u64::from(config.shards) / u64::from(config.groups);
        u16::try_from(shard).expect("at most the number of shards")
    };
    (bound(number), bound(number + 1) - 1)
}

/// The group of a shard.
pub(crate) fn group_of(config: &Config, shard: u16) -> u32 {
    let guess = u64::from(shard) * u64::from(config.groups) / u64::from(config.shards);
    let guess = u32::try_from(guess).expect("less than the number of groups");
    // The two divisions round differently: the shard is in the guessed group or the next.
    if shards_of(config, guess).1 < shard { guess + 1 } else { guess }
}

/// What this core knows of every group's leader.
#[derive(Debug)]
pub(crate) struct Leaders {
    known: Vec<(u64, Option<NodeId>)>,
}

impl Leaders {
    pub(super) fn new(groups: u32) -> Self {
        Self { known: vec![(0, None); groups as usize] }
    }

    pub(super) fn of(&self, number: u32) -> Option<NodeId> {
        self.known[number as usize].1
    }

    /// A replica here knows its leader: remember, and tell the other cores of this node if it is news.
    pub(super) fn learn(
        &mut self,
        number: u32,
        term: u64,
        leader: Option<NodeId>,
        me: CoreId,
        config: &Config,
        out: &mut Effects<Message>,
    ) {
        if self.known[number as usize] == (term, leader) {
            return;
        }
        self.known[number as usize] = (term, leader);
        for core in (0..config.me().cores).map(CoreId).filter(|core| *core != me) {
            out.push(Effect::Mesh { to: core, message: Message::Leader { group: number, term, leader } });
        }
    }

    /// Another core of this node told us.
    pub(super) fn heard(&mut self, number: u32, term: u64, leader: Option<NodeId>) {
        if let Some(known) = self.known.get_mut(number as usize) {
            *known = (term, leader);
        }
    }
}

impl Core {
    /// Where a slot is served, for a client that asked here: straight from the configuration, since clients ask often.
    pub(super) fn leader_of(&self, slot: Slot) -> String {
        let config = &self.config;
        let number = group_of(config, slot.shard(config.shards));
        let leader = self.leaders.of(number);
        let leader = leader.and_then(|leader| config.nodes.iter().find(|node| node.id == leader.0));
        let Some(node) = leader else { return "CLUSTERDOWN Hash slot not served".to_owned() };
        let core = core_of(node.cores, number);
        if (node.id, core) == (config.node, self.id) {
            return "TRYAGAIN the leader of this slot's group has only just been elected".to_owned();
        }
        format!("MOVED {} {}:{}", slot.0, node.host, node.port + core.0)
    }

    /// The cluster as `CLUSTER SLOTS` and its like show it.
    pub(super) fn topology(&self) -> Topology {
        let config = &self.config;
        let mut members = Vec::new();
        for node in &config.nodes {
            for core in 0..node.cores {
                members.push(TopologyMember {
                    id: member_id(&config.cluster, node.id, core),
                    node: node.id,
                    core,
                    host: node.host.clone(),
                    port: node.port + core,
                    peer_port: node.peer_port + core,
                });
            }
        }
        let place = |node: u32, core: CoreId| {
            members.iter().position(|member| member.node == node && member.core == core.0)
        };
        let ranges = (0..config.groups).map(|number| {
            let (first, last) = shards_of(config, number);
            let leader = self.leaders.of(number);
            let replica = |node: &crate::config::NodeEntry| place(node.id, core_of(node.cores, number));
            let leading = leader
                .and_then(|leader| config.nodes.iter().find(|node| node.id == leader.0).and_then(replica));
            Range {
                first_slot: crate::slot::first_slot(first, config.shards),
                last_slot: crate::slot::last_slot(last, config.shards),
                leader: leading,
                replicas: config.nodes.iter().filter_map(replica).filter(|at| Some(*at) != leading).collect(),
            }
        });
        let ranges = ranges.collect();
        let me = place(config.node, self.id).expect("this core is in the configuration");
        let epoch = (0..config.groups).map(|number| self.leaders.known[number as usize].0).max().unwrap_or(0);
        Topology { members, ranges, me, epoch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_take_turns_among_the_nodes_of_the_highest_priority() {
        let node = |id, priority| {
            format!("[[nodes]]\nid={id}\nhost='h'\nport=1\npeer_port=2\npriority={priority}\n")
        };
        let nodes = [node(3, 100), node(1, 100), node(2, 50), node(4, 100)].concat();
        let config: Config = toml::from_str(&format!("cluster='c'\nnode=1\ndata='/d'\n{nodes}")).unwrap();
        let order = |group| preference(&config, GroupId(group)).iter().map(|node| node.0).collect::<Vec<_>>();
        assert_eq!([1, 2, 3, 4].map(order), [[1, 3, 4, 2], [3, 4, 1, 2], [4, 1, 3, 2], [1, 3, 4, 2]]);
    }

    #[test]
    fn every_shard_has_the_group_that_claims_it() {
        for (groups, shards) in [(1, 64), (3, 64), (7, 64), (5, 16384), (1024, 16384), (3, 3)] {
            let text = format!(
                "cluster='c'\nnode=1\ndata='/d'\ngroups={groups}\nshards={shards}\n[[nodes]]\nid=1\nhost='h'\nport=1\npeer_port=2\n"
            );
            let config: Config = toml::from_str(&text).unwrap();
            for number in 0..groups {
                let (first, last) = shards_of(&config, number);
                assert!(
                    (first..=last).all(|shard| group_of(&config, shard) == number),
                    "{groups} {shards} {number}"
                );
            }
        }
    }
}
