//! `FLOTILLA.MEMBER`: who has replicas of the groups, and who is to have. An operator's command.
//!
//! It concerns the groups that this core leads, or the one that `GROUP` names: to change all groups of a cluster, send it to every
//! core of every node, until `LIST` shows what was wanted. A change is answered when it is in the log; it is in effect when
//! `LIST` shows it. `flotilla cluster rebalance` and its like do that, by what `STATUS` says ([`crate::placement`]).

use super::{Core, topology};
use crate::group_name;
use crate::placement;
use crate::resp::ReplyWriter;
use flotilla_consensus::{Change, ChangeRefused, Membership, Role, Transition};
use flotilla_runtime::{NodeId, Now, PeerId};
use std::fmt::Write;

const USAGE: &str = "ERR usage: FLOTILLA.MEMBER [GROUP number|CONTROLLER] LIST | STATUS | ADD node ... | PROMOTE node ... | \
                     REMOVE node ... | REPLACE old new | SET node ...; groups count from 0";

/// What is to become of nodes' replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// They get everything, and have no vote yet.
    Add(Vec<NodeId>),
    /// They vote.
    Promote(Vec<NodeId>),
    /// They aren't in their groups any more.
    Remove(Vec<NodeId>),
    /// Those of the first leave, those of the second vote.
    Replace(NodeId, NodeId),
    /// These vote, and the other voters leave. Learners stay.
    Set(Vec<NodeId>),
}

impl MemberChange {
    fn parse(args: &[&[u8]]) -> Option<Self> {
        let node = |arg: &&[u8]| std::str::from_utf8(arg).ok()?.parse().ok().map(NodeId);
        let (what, nodes) = args.split_first()?;
        let nodes: Vec<NodeId> = nodes.iter().map(node).collect::<Option<_>>()?;
        Some(match (&what.to_ascii_uppercase()[..], &nodes[..]) {
            (b"ADD", [_, ..]) => Self::Add(nodes),
            (b"PROMOTE", [_, ..]) => Self::Promote(nodes),
            (b"REMOVE", [_, ..]) => Self::Remove(nodes),
            (b"REPLACE", [old, new]) => Self::Replace(*old, *new),
            (b"SET", [_, ..]) => Self::Set(nodes),
            _ => return None,
        })
    }

    fn steps(self, now: &Membership, peer: impl Fn(NodeId) -> Option<PeerId>) -> Option<Vec<Change>> {
        let each = |nodes: Vec<NodeId>, change: fn(NodeId) -> Change| nodes.into_iter().map(change).collect();
        Some(match self {
            Self::Add(nodes) => {
                nodes.into_iter().map(|node| peer(node).map(Change::AddLearner)).collect::<Option<_>>()?
            }
            Self::Promote(nodes) => each(nodes, Change::Promote),
            Self::Remove(nodes) => each(nodes, Change::Remove),
            Self::Replace(old, new) => vec![Change::Promote(new), Change::Remove(old)],
            Self::Set(nodes) => {
                let voters = numbers(now.configuration.voters.incoming.ids());
                let leave = voters.into_iter().map(NodeId).filter(|node| !nodes.contains(node));
                let leave: Vec<Change> = leave.map(Change::Remove).collect();
                nodes.into_iter().map(Change::Promote).chain(leave).collect()
            }
        })
    }
}

/// What the command asks for.
enum Request {
    List,
    Status,
    Change(MemberChange),
}

/// The group that is named, if one is, and what is asked.
fn parse(args: &[&[u8]]) -> Option<(Option<u32>, Request)> {
    let (group, args) = match args {
        [word, number, rest @ ..] if word.eq_ignore_ascii_case(b"GROUP") => {
            (Some(group_name::parse(number)?), rest)
        }
        _ => (None, args),
    };
    let request = match args {
        [word] if word.eq_ignore_ascii_case(b"LIST") => Request::List,
        [word] if word.eq_ignore_ascii_case(b"STATUS") => Request::Status,
        _ => Request::Change(MemberChange::parse(args)?),
    };
    Some((group, request))
}

fn numbers(ids: &[u64]) -> Vec<u32> {
    ids.iter().map(|id| u32::try_from(*id).expect("the numbers are nodes'")).collect()
}

impl Core {
    /// Proposes a change of one group, by its place; returns the entry's index.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn change_group(&mut self, now: Now, place: usize, change: MemberChange) -> Result<u64, String> {
        let number = self.groups[place].number;
        let nodes = &self.config.nodes;
        let peer = |node: NodeId| {
            let entry = nodes.iter().find(|entry| entry.id == node.0)?;
            Some(PeerId { node, core: topology::core_of(entry.cores, number) })
        };
        let unknown = || "the node is in nobody's configuration: list it under [[nodes]] first".to_owned();
        let steps = change.steps(self.multi.raft(place).membership().1, peer).ok_or_else(unknown)?;
        let proposed = self.multi.change(now.monotonic, place, &steps, Transition::Auto);
        proposed.map(|proposal| proposal.index).map_err(|refused| refused.to_string())
    }

    /// Other members, another order in which they should lead.
    pub(super) fn settle_members(&mut self, now: Now, place: usize) {
        let raft = self.multi.raft(place);
        let (at, members) = raft.membership();
        if std::mem::replace(&mut self.groups[place].members_at, at) != at {
            let order = topology::preference_among(&self.config, raft.group(), members);
            self.multi.prefer(now.monotonic, place, order);
        }
    }

    /// A group that this core leads, as a plan of who is to have its replicas needs it. `None` if it leads it not.
    pub fn standing(&self, now: Now, place: usize) -> Option<placement::Group> {
        let (raft, group) = (self.multi.raft(place), &self.groups[place]);
        if raft.role() != Role::Leader {
            return None;
        }
        let configuration = &raft.membership().1.configuration;
        let nodes = |ids: &[u64]| -> placement::Nodes { numbers(ids).into_iter().collect() };
        let (voters, learners) =
            (nodes(configuration.voters.incoming.ids()), nodes(configuration.learners.ids()));
        let caught_up = |node: &&u32| raft.has_caught_up(NodeId(**node));
        let is_unwell = |node: &&u32| !raft.is_well(now.monotonic, NodeId(**node));
        Some(placement::Group {
            number: group.number,
            serves: group.shards.iter().next().is_some(),
            leader: self.config.node,
            ready: learners.iter().filter(caught_up).copied().collect(),
            unwell: voters.iter().chain(&learners).filter(is_unwell).copied().collect(),
            voters,
            learners,
            is_changing: configuration.voters.is_joint() || raft.pending_change().is_some(),
            order: topology::preference(&self.config, raft.group()).iter().map(|node| node.0).collect(),
            bytes: group.shards.iter().map(|shard| shard.keys.bytes()).sum(),
        })
    }

    /// Answers the command.
    pub(super) fn member_command(&mut self, now: Now, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let Some((group, request)) = parse(&args[1..]) else { return reply.error(USAGE) };
        let places =
            (0..self.groups.len()).filter(|place| group.is_none_or(|it| self.groups[*place].number == it));
        let places: Vec<usize> = places.collect();
        let mut lines = Vec::new();
        if matches!(request, Request::Status) {
            let (groups, controller) = (self.config.groups_total(), u8::from(self.config.controller));
            let (node, core) = (self.config.node, self.id.0);
            lines.push(format!("node {node} core {core} groups {groups} controller {controller}"));
            lines.extend(self.config.nodes.iter().map(|node| {
                format!("listed {} at {}:{} cores {}", node.id, node.host, node.port, node.cores)
            }));
        }
        for place in places {
            let name = group_name::name_of(self.groups[place].number);
            match &request {
                Request::List => lines.push(format!("{name}: {}", self.members_in_words(place))),
                Request::Status => lines.extend(self.standing_in_words(now, place)),
                Request::Change(change) if self.multi.raft(place).role() == Role::Leader => {
                    let answer = match self.change_group(now, place, change.clone()) {
                        Ok(index) => format!("entry {index}"),
                        Err(words) if words == ChangeRefused::Nothing.to_string() => "done".to_owned(),
                        Err(words) => format!("refused: {words}"),
                    };
                    lines.push(format!("{name}: {answer}"));
                }
                Request::Change(_) => {}
            }
        }
        reply.array(lines.len());
        lines.iter().for_each(|line| reply.bulk(line.as_bytes()));
    }

    fn members_in_words(&self, place: usize) -> String {
        let raft = self.multi.raft(place);
        let leader = raft.leader().map_or_else(|| "nobody".to_owned(), |node| format!("node {}", node.0));
        let pending = raft.pending_change().map_or_else(String::new, |at| format!(", entry {at} changes it"));
        format!("{}, led by {leader}{pending}", raft.membership().1.configuration)
    }

    /// For programs: words in pairs, a name and what goes with it.
    fn standing_in_words(&self, now: Now, place: usize) -> Option<String> {
        let group = self.standing(now, place)?;
        let list =
            |nodes: &mut dyn Iterator<Item = &u32>| nodes.map(u32::to_string).collect::<Vec<_>>().join(",");
        let raft = self.multi.raft(place);
        let behind = |node: &u32| {
            let matched = raft.matched(NodeId(*node)).map_or(0, |(matched, _)| matched);
            format!("{node}:{}", raft.log().last_index().saturating_sub(matched))
        };
        let behind: Vec<String> = group.learners.iter().map(behind).collect();
        let number = group_name::word_of(group.number);
        let (serves, changing) = (u8::from(group.serves), u8::from(group.is_changing));
        let (term, bytes) = (raft.term(), group.bytes);
        let mut line =
            format!("group {number} term {term} serves {serves} changing {changing} bytes {bytes}");
        for (name, nodes) in [
            ("voters", &group.voters),
            ("learners", &group.learners),
            ("ready", &group.ready),
            ("unwell", &group.unwell),
        ] {
            let _ = write!(line, " {name} {}", list(&mut nodes.iter()));
        }
        let _ = write!(line, " order {} behind {}", list(&mut group.order.iter()), behind.join(","));
        Some(line)
    }
}
