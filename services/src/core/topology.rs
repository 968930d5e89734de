//! Who leads what, as clients are told.
//!
//! Where the shards are is [`super::routes`]; here is what follows from the nodes' files: every node has a replica of every group,
//! group `g` lives on core `g mod cores`, the controller on core 0, and a cluster is founded with its shards dealt out evenly. A
//! replica on a node that isn't among its group's founders stays empty until the group takes it in ([`super::member`]).

use super::Core;
use super::remote::Message;
use crate::config::Config;
pub(crate) use crate::group_name::CONTROLLER;
use crate::slot::Slot;
use crate::topology::{Member as TopologyMember, Range, Topology, member_id};
use flotilla_consensus::raft::Member;
use flotilla_consensus::{GroupId, Membership};
use flotilla_runtime::{CoreId, Effect, Effects, NodeId, PeerId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What Raft calls a group: the controller is 0, and the others follow.
pub(crate) fn id_of(number: u32) -> GroupId {
    GroupId(if number == CONTROLLER { 0 } else { u64::from(number) + 1 })
}

/// The number of a group of this cluster.
pub(crate) fn number_of(id: GroupId) -> u32 {
    match id.0 {
        0 => CONTROLLER,
        id => u32::try_from(id - 1).expect("groups are few"),
    }
}

/// Every group of the cluster, in the order of what Raft calls them.
fn all_groups(config: &Config) -> impl Iterator<Item = u32> + use<> {
    config.controller.then_some(CONTROLLER).into_iter().chain(0..config.groups_total())
}

/// The core of `node` on which group `number` lives.
pub(crate) fn core_of(cores: u16, number: u32) -> CoreId {
    if number == CONTROLLER {
        return CoreId(0);
    }
    CoreId(u16::try_from(number % u32::from(cores)).expect("less than the number of cores"))
}

/// The groups with a replica on `core` of this node, with the voters that they are founded with.
pub(crate) fn groups_of(config: &Config, core: CoreId) -> Vec<(GroupId, Vec<Member>)> {
    let here = all_groups(config).filter(|number| core_of(config.me().cores, *number) == core);
    let members = |number: u32| {
        let peer = |node: &crate::config::NodeEntry| PeerId {
            node: NodeId(node.id),
            core: core_of(node.cores, number),
        };
        let founders = config.nodes.iter().filter(|node| config.founds(node, number));
        founders.map(|node| Member { peer: peer(node) }).collect()
    };
    here.map(|number| (id_of(number), members(number))).collect()
}

/// In which order the nodes should lead a group: by their priority; among equals the groups take turns, the controller before the
/// first, so that the leaderships are spread evenly, and go back to where they were when nodes have been away.
pub(crate) fn preference(config: &Config, group: GroupId) -> Vec<NodeId> {
    let turns = turns(config, group);
    turns.into_iter().flat_map(|(nodes, _)| nodes).map(NodeId).collect()
}

/// The same among the members of the group. Where it is the turn of a node that isn't one, the groups take turns among those that
/// are: or whoever comes next in the order would lead all of that node's groups.
pub(crate) fn preference_among(config: &Config, group: GroupId, members: &Membership) -> Vec<NodeId> {
    let mut order = Vec::new();
    for (mut nodes, turn) in turns(config, group) {
        let is_first_in = nodes.first().is_some_and(|node| members.peers.contains_key(&u64::from(*node)));
        nodes.retain(|node| members.peers.contains_key(&u64::from(*node)));
        if !is_first_in && !nodes.is_empty() {
            nodes.sort_unstable();
            let turn = turn % nodes.len() as u64;
            nodes.rotate_left(usize::try_from(turn).expect("less than the number of nodes"));
        }
        order.extend(nodes.into_iter().map(NodeId));
    }
    order
}

/// The nodes of each priority, the highest first, beginning with the one whose turn it is in this group; and the number of the turn.
fn turns(config: &Config, group: GroupId) -> Vec<(Vec<u32>, u64)> {
    let mut nodes: Vec<_> = config.nodes.iter().map(|node| (Reverse(node.priority), node.id)).collect();
    nodes.sort_unstable();
    let of_equals = nodes.chunk_by(|one, other| one.0 == other.0).map(|equals| {
        let mut equals: Vec<u32> = equals.iter().map(|(_, id)| *id).collect();
        let turn = (group.0 + equals.len() as u64 - 1) % equals.len() as u64;
        equals.rotate_left(usize::try_from(turn).expect("less than the number of nodes"));
        (equals, turn)
    });
    of_equals.collect()
}

/// Every group hears of the nodes that it may take in one day.
pub(crate) fn introduce_everybody(config: &Config, multi: &mut flotilla_consensus::Multi) {
    for place in 0..multi.len() {
        let number = number_of(multi.raft(place).group());
        for node in config.nodes.iter().filter(|node| node.id != config.node) {
            multi.introduce(place, PeerId { node: NodeId(node.id), core: core_of(node.cores, number) });
        }
    }
}

/// The first and last shard that a group is founded with: contiguous, and equal to within one.
pub(crate) fn shards_of(config: &Config, number: u32) -> (u16, u16) {
    let bound = |number: u32| {
        let shard = u64::from(number) * u64::from(config.shards) / u64::from(config.groups);
        u16::try_from(shard).expect("at most the number of shards")
    };
    (bound(number), bound(number + 1) - 1)
}

/// The group that a shard is founded in.
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
    controller: (u64, Option<NodeId>),
    /// Groups whose leader has told us so, since this node isn't a member: with the term.
    announced: BTreeMap<u32, u64>,
    /// How often any of it has changed.
    pub(super) changes: u64,
}

impl Leaders {
    pub(super) fn new(groups: u32) -> Self {
        let known = vec![(0, None); groups as usize];
        Self { known, controller: (0, None), announced: BTreeMap::new(), changes: 0 }
    }

    /// Who leads a group; a group that isn't in this node's file has nobody.
    pub(super) fn of(&self, number: u32) -> Option<NodeId> {
        match number {
            CONTROLLER => self.controller.1,
            _ => self.known.get(number as usize)?.1,
        }
    }

    fn place(&mut self, number: u32) -> Option<&mut (u64, Option<NodeId>)> {
        match number {
            CONTROLLER => Some(&mut self.controller),
            _ => self.known.get_mut(number as usize),
        }
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
        if leader.is_none() && self.announced.get(&number).is_some_and(|announced| *announced >= term) {
            return;
        }
        let Some(known) = self.place(number) else { return };
        if *known == (term, leader) {
            return;
        }
        *known = (term, leader);
        self.changes += 1;
        self.announced.remove(&number);
        for core in (0..config.me().cores).map(CoreId).filter(|core| *core != me) {
            out.push(Effect::Mesh { to: core, message: Message::Leader { group: number, term, leader } });
        }
    }

    /// The leader of a group that this node has no part in says so.
    pub(super) fn hear_announced(
        &mut self,
        (number, term): (u32, u64),
        leader: NodeId,
        me: CoreId,
        config: &Config,
        out: &mut Effects<Message>,
    ) {
        let Some(known) = self.place(number).copied() else { return };
        if term > known.0 || (term == known.0 && known.1.is_none()) {
            self.learn(number, term, Some(leader), me, config, out);
            self.announced.insert(number, term);
        }
    }

    /// Another core of this node told us.
    pub(super) fn heard(&mut self, number: u32, term: u64, leader: Option<NodeId>) {
        if let Some(known) = self.place(number) {
            *known = (term, leader);
            self.changes += 1;
        }
    }
}

/// Where a group is led, as seen from a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// On this core.
    Here,
    /// On another core of this node.
    Core(CoreId),
    /// On a core of another node.
    Peer(PeerId),
}

impl Core {
    /// Where a group is led. `None` if nobody is known to lead it, or only a node that isn't in this one's file.
    pub(super) fn way_to(&self, number: u32) -> Option<Way> {
        let leader = self.leaders.of(number)?;
        let entry = self.config.nodes.iter().find(|entry| entry.id == leader.0)?;
        let core = core_of(entry.cores, number);
        Some(match leader == self.config.node_id() {
            true if core == self.id => Way::Here,
            true => Way::Core(core),
            false => Way::Peer(PeerId { node: leader, core }),
        })
    }

    /// Grows whenever a command may have to go another way than one before it: another leader, or another group.
    pub(super) fn ways_changed(&self) -> u64 {
        self.leaders.changes + self.routes.changes
    }

    /// Where a slot is served, for a client that asked here.
    pub(super) fn leader_of(&self, slot: Slot) -> String {
        let config = &self.config;
        let number = self.routes.of(slot.shard(config.shards));
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
        let routes = (0_u16..).zip(self.routes.all().iter().copied()).collect::<Vec<_>>();
        let in_a_row = routes.chunk_by(|one, next| one.1 == next.1);
        let ranges = in_a_row.map(|row| {
            let (first, last, number) = (row[0].0, row[row.len() - 1].0, row[0].1);
            let leader = self.leaders.of(number);
            let replica = |node: &crate::config::NodeEntry| place(node.id, core_of(node.cores, number));
            let leading = leader
                .and_then(|leader| config.nodes.iter().find(|node| node.id == leader.0).and_then(replica));
            // Of a group that this core is no member of it isn't known who is.
            let hosted = self.multi.place_of(id_of(number));
            let members = hosted.map(|hosted| &self.multi.raft(hosted).membership().1.peers);
            let members = members.filter(|members| members.contains_key(&u64::from(config.node)));
            let has_replica =
                |node: u32| members.is_none_or(|members| members.contains_key(&u64::from(node)));
            let with_replicas = config.nodes.iter().filter(|node| has_replica(node.id));
            Range {
                first_slot: crate::slot::first_slot(first, config.shards),
                last_slot: crate::slot::last_slot(last, config.shards),
                leader: leading,
                replicas: with_replicas.filter_map(replica).filter(|at| Some(*at) != leading).collect(),
            }
        });
        let ranges = ranges.collect();
        let me = place(config.node, self.id).expect("this core is in the configuration");
        let epoch =
            self.leaders.known.iter().map(|(term, _)| *term).max().unwrap_or(0) + self.routes.newest();
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
        assert_eq!(order(0), [4, 1, 3, 2], "the controller's turn is before the first group's");
    }

    #[test]
    fn groups_on_some_of_the_nodes_take_turns_among_those() {
        let node = |id| format!("[[nodes]]\nid={id}\nhost='h'\nport=1\npeer_port=2\n");
        let nodes: String = (1..=6).map(node).collect();
        let config: Config = toml::from_str(&format!("cluster='c'\nnode=1\ndata='/d'\n{nodes}")).unwrap();
        let peer = |node| PeerId { node: NodeId(node), core: CoreId(0) };
        for members in [[1, 2, 3], [4, 5, 6], [1, 3, 5], [2, 3, 4]] {
            let members = Membership::of_voters(members.map(peer));
            let mut leaders = BTreeMap::new();
            for group in 0..6 {
                let order = preference_among(&config, GroupId(group), &members);
                assert_eq!(order.len(), 3, "{order:?}");
                *leaders.entry(order[0].0).or_insert(0) += 1;
            }
            assert_eq!(leaders.values().copied().collect::<Vec<_>>(), [2, 2, 2], "{members:?}: {leaders:?}");
        }
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
