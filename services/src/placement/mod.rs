//! Which nodes are to have which groups' replicas, and the way from how it is to how it is to be.
//!
//! Pure: what the groups' leaders say goes in, a plan and the next step of one group come out. Whoever carries that out (the command
//! line, the simulator) looks again after every step. Nothing is remembered in between: a plan that was cut off is made anew
//! from what is there by then, and goes on where the other stopped.
//!
//! ```text
//!  Learn the new nodes ─▶ CatchUp ─▶ Transfer, if the leader leaves ─▶ Vote (joint consensus) ─▶ Forget learners ─▶ Done
//!                            ▲                                            │
//!                            └──── none of the old ones stays: one by one ┘
//! ```
//!
//! A group never has fewer voters on its way than before and after.

mod flow;
#[cfg(test)]
mod tests;

use crate::group_name::in_words;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes, by their numbers.
pub type Nodes = BTreeSet<u32>;
/// The nodes that are to have a replica of each group, by its number.
pub type Plan = BTreeMap<u32, Nodes>;

/// A group as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Its number; the controller's is the greatest there is.
    pub number: u32,
    /// Whether it has shards.
    pub serves: bool,
    /// Who leads it.
    pub leader: u32,
    /// Who votes, or will when the change under way is done.
    pub voters: Nodes,
    /// Who gets everything and has no vote.
    pub learners: Nodes,
    /// Learners that could vote at once.
    pub ready: Nodes,
    /// Members that haven't been heard of lately, or have to get back what they lost.
    pub unwell: Nodes,
    /// A change is under way.
    pub is_changing: bool,
    /// In which order the nodes should lead it.
    pub order: Vec<u32>,
    /// Bytes of its keys and values.
    pub bytes: u64,
}

/// The next step of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is left to do.
    Done,
    /// A change is under way: look again.
    Wait,
    /// These nodes get everything, and have no vote yet.
    Learn(Nodes),
    /// These are being sent what they lack: look again.
    CatchUp(Nodes),
    /// One of these, the first that can, takes the leadership.
    Transfer(Vec<u32>),
    /// These are the voters. The others don't vote, nor have a replica; learners stay.
    Vote(Nodes),
    /// These learners aren't needed.
    Forget(Nodes),
}

/// A plan that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// Two replicas of a group on one node would be lost together.
    #[error(
        "{} needs {replicas} nodes, one for each replica, and {nodes} would be left: name more nodes, or fewer replicas (--replicas)",
        in_words(*.group)
    )]
    TooFewNodes {
        /// The first group that can't be placed.
        group: u32,
        /// How many replicas it is to have.
        replicas: usize,
        /// How many nodes there are.
        nodes: usize,
    },
    /// A node can't take another's place in a group where it has one of its own.
    #[error("node {new} already has a replica of {}: `remove {old}` spreads the replicas of node {old} over all the others", in_words(*.group))]
    AlreadyThere {
        /// The first group in which both are.
        group: u32,
        /// Whose replicas go.
        old: u32,
        /// Who should get them.
        new: u32,
    },
}

/// Spreads the groups evenly over `nodes`, with the fewest new replicas: any two nodes have equally many to within one, and equally
/// many of groups with shards. Each group gets `replicas`, or as many as it has voters. Among plans that are equally good, the one
/// that uses learners that are there, and nodes that should rather lead the group.
///
/// # Errors
/// [`PlacementError::TooFewNodes`].
pub fn spread(groups: &[Group], nodes: &Nodes, replicas: Option<usize>) -> Result<Plan, PlacementError> {
    let wanted: Vec<usize> = groups.iter().map(|group| replicas.unwrap_or(group.voters.len())).collect();
    for (group, replicas) in groups.iter().zip(&wanted) {
        if *replicas > nodes.len() {
            let (group, replicas, nodes) = (group.number, *replicas, nodes.len());
            return Err(PlacementError::TooFewNodes { group, replicas, nodes });
        }
    }
    Ok(flow::spread(groups, nodes, &wanted))
}

/// Puts `new` where `old` has a replica, and changes nothing else.
///
/// # Errors
/// [`PlacementError::AlreadyThere`].
pub fn replace(groups: &[Group], old: u32, new: u32) -> Result<Plan, PlacementError> {
    let mut plan = Plan::new();
    for group in groups {
        let mut nodes = group.voters.clone();
        if nodes.remove(&old) && !nodes.insert(new) {
            return Err(PlacementError::AlreadyThere { group: group.number, old, new });
        }
        plan.insert(group.number, nodes);
    }
    Ok(plan)
}

/// Replicas that a plan makes anew in a group.
pub fn moves(group: &Group, target: &Nodes) -> usize {
    target.difference(&group.voters).count()
}

/// What is to be done next in a group so that `target` become its voters, and nobody else has a replica.
///
/// # Panics
/// If `target` is empty.
pub fn next(group: &Group, target: &Nodes) -> Step {
    assert!(!target.is_empty(), "a group has voters");
    let Group { leader, voters, learners, ready, unwell, order, .. } = group;
    if group.is_changing {
        return Step::Wait;
    }
    if voters == target {
        return match learners.is_empty() {
            true => Step::Done,
            false => Step::Forget(learners.clone()),
        };
    }
    let there: Nodes = voters | learners;
    let strangers = target - &there;
    if !strangers.is_empty() {
        return Step::Learn(strangers);
    }
    let late: Nodes = (target & learners).difference(ready).copied().collect();
    if !late.is_empty() {
        return Step::CatchUp(late);
    }
    if target.contains(leader) {
        return Step::Vote(target.clone());
    }
    // A leader that leaves is missed until another is elected: so it goes first.
    let mut heirs: Vec<u32> = target.intersection(voters).copied().collect();
    let rank = |node: &u32| order.iter().position(|other| other == node).unwrap_or(order.len());
    heirs.sort_by_key(|node| (unwell.contains(node), rank(node)));
    let leaves = voters.iter().filter(|node| *node != leader).max_by_key(|node| unwell.contains(node));
    match (heirs.is_empty(), leaves) {
        (false, _) => Step::Transfer(heirs),
        // One of the new takes an old one's place, so that there is somebody to lead.
        (true, Some(leaves)) => {
            let mut between = voters.clone();
            between.remove(leaves);
            between.extend(target.first());
            Step::Vote(between)
        }
        (true, None) => Step::Vote(target.clone()),
    }
}
