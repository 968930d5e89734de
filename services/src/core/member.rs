//! `FLOTILLA.MEMBER`: who has replicas of the groups, and who is to have. An operator's command, one node at a time.
//!
//! It concerns the groups that this core leads: to change all groups of a cluster, send it to every core of every node, until
//! `LIST` shows what was wanted. A change is answered when it is in the log; it is in effect when `LIST` shows it.

use super::{Core, topology};
use crate::resp::ReplyWriter;
use flotilla_consensus::{Change, ChangeRefused, Role, Transition};
use flotilla_runtime::{NodeId, Now, PeerId};

const USAGE: &str =
    "ERR usage: FLOTILLA.MEMBER LIST | ADD node | PROMOTE node | REMOVE node | REPLACE old new";

/// What is to become of a node's replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// They get everything, and have no vote yet.
    Add(NodeId),
    /// They vote.
    Promote(NodeId),
    /// They aren't in their groups any more.
    Remove(NodeId),
    /// Those of the first leave, those of the second vote.
    Replace(NodeId, NodeId),
}

impl MemberChange {
    fn parse(args: &[&[u8]]) -> Option<Self> {
        let node = |arg: &[u8]| std::str::from_utf8(arg).ok()?.parse().ok().map(NodeId);
        let (what, nodes) = args.split_first()?;
        Some(match (&what.to_ascii_uppercase()[..], nodes) {
            (b"ADD", [it]) => Self::Add(node(it)?),
            (b"PROMOTE", [it]) => Self::Promote(node(it)?),
            (b"REMOVE", [it]) => Self::Remove(node(it)?),
            (b"REPLACE", [old, new]) => Self::Replace(node(old)?, node(new)?),
            _ => return None,
        })
    }

    fn steps(self, peer: impl Fn(NodeId) -> Option<PeerId>) -> Option<Vec<Change>> {
        Some(match self {
            Self::Add(node) => vec![Change::AddLearner(peer(node)?)],
            Self::Promote(node) => vec![Change::Promote(node)],
            Self::Remove(node) => vec![Change::Remove(node)],
            Self::Replace(old, new) => vec![Change::Promote(new), Change::Remove(old)],
        })
    }
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
        let steps = change.steps(peer).ok_or_else(unknown)?;
        let proposed = self.multi.change(now.monotonic, place, &steps, Transition::Auto);
        proposed.map(|proposal| proposal.index).map_err(|refused| refused.to_string())
    }

    /// Answers the command.
    pub(super) fn member_command(&mut self, now: Now, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let is_list = args[1..].len() == 1 && args[1].eq_ignore_ascii_case(b"LIST");
        let change = MemberChange::parse(&args[1..]);
        if !is_list && change.is_none() {
            return reply.error(USAGE);
        }
        let mut lines = Vec::new();
        for place in 0..self.groups.len() {
            let name = topology::name_of(self.groups[place].number);
            match change {
                None => lines.push(format!("{name}: {}", self.members_in_words(place))),
                Some(change) if self.multi.raft(place).role() == Role::Leader => {
                    let answer = match self.change_group(now, place, change) {
                        Ok(index) => format!("entry {index}"),
                        Err(words) if words == ChangeRefused::Nothing.to_string() => "done".to_owned(),
                        Err(words) => format!("refused: {words}"),
                    };
                    lines.push(format!("{name}: {answer}"));
                }
                Some(_) => {}
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
}
