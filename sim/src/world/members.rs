//! The group changes while everything else goes wrong: replicas are taken in, get votes, leave; disks are replaced by empty
//! ones.

use super::{Happening, World};
use crate::disk::Disk;
use crate::faults::Fault;
use flotilla_consensus::{Membership, Role};
use flotilla_runtime::NodeId;
use flotilla_services::core::{GroupInspection, MemberChange};

/// A group keeps so many voters: with fewer, the loss of one disk is the loss of everything.
const VOTERS_MIN: usize = 3;

impl World {
    /// Somebody who leads a group is asked to change it.
    pub(super) fn change_members(&mut self) {
        if self.healed {
            return;
        }
        self.after(self.swarm.changes, Happening::Change);
        let mut leaders = Vec::new();
        for (at, this) in self.cores.iter().enumerate() {
            let Some(core) = &this.core else { continue };
            let groups = core.inspect().groups;
            let led = groups.iter().enumerate().filter(|(_, group)| group.role == Role::Leader);
            leaders.extend(led.map(|(place, group)| (at, place, group.membership().1.clone())));
        }
        if leaders.is_empty() {
            return;
        }
        let which = self.rng.between(0, leaders.len() as u64 - 1);
        let (at, place, membership) = leaders.swap_remove(usize::try_from(which).expect("few"));
        let Some(change) = self.some_change(&membership) else { return };
        let this = &mut self.cores[at];
        let now = this.clock(self.now);
        let answer = this.core.as_mut().expect("it leads").change_group(now, place, change.clone());
        if answer.is_ok() {
            self.tally.note(Fault::Change);
        }
        self.trace.line(self.now, || format!("{} group {place}: {change:?} is {answer:?}", self.cores[at]));
        self.flush_soon(at);
    }

    fn some_change(&mut self, membership: &Membership) -> Option<MemberChange> {
        let configuration = &membership.configuration;
        let mut pick = |ids: Vec<u64>| {
            let most = (ids.len() as u64).checked_sub(1)?;
            let id = ids[usize::try_from(self.rng.between(0, most)).expect("few")];
            Some(NodeId(u32::try_from(id).expect("few")))
        };
        let voters = configuration.voters.incoming.ids().to_vec();
        let learners = configuration.learners.ids().to_vec();
        let outside = (1..=self.swarm.nodes as u64).filter(|id| !configuration.contains(*id));
        let (voter, learner, stranger) = (pick(voters.clone()), pick(learners), pick(outside.collect()));
        let may_shrink = voters.len() > VOTERS_MIN;
        match self.rng.between(0, 5) {
            0 => voter.filter(|_| may_shrink).map(|node| MemberChange::Remove(vec![node])),
            1 => voter.filter(|_| may_shrink).map(|node| MemberChange::Add(vec![node])),
            2 => learner.map(|node| MemberChange::Remove(vec![node])),
            3 => learner.map(|node| MemberChange::Promote(vec![node])),
            4 => Some(MemberChange::Replace(voter?, learner?)),
            _ => stranger.map(|node| MemberChange::Add(vec![node])),
        }
    }

    /// The disks of a node that crashes are replaced by empty ones.
    pub(super) fn wipe(&mut self, node: usize) {
        let (chance, first) = (self.swarm.wipes, self.of_node(node).start);
        if !self.cores[first].rng.per_million(chance) || !self.may_lose(node) {
            return;
        }
        for at in self.of_node(node) {
            let this = &mut self.cores[at];
            let is_full = this.disk.is_full;
            this.disk = Disk::default();
            this.disk.is_full = is_full;
            self.checks.wiped(this.seat);
        }
        self.tally.note(Fault::Wipe);
        self.trace.line(self.now, || format!("the disks of node {} are replaced by empty ones", node + 1));
    }

    /// Whether what a node has on its disk may be lost: everybody else who decides is alive and has all of its own, and they
    /// are a majority. What more have lost, nobody can give back.
    pub(super) fn may_lose(&self, node: usize) -> bool {
        let id = node as u64 + 1;
        let living: Vec<_> = self.cores.iter().filter_map(|this| this.core.as_ref()).collect();
        let groups = living.iter().flat_map(|core| core.inspect().groups);
        let mut memberships = groups.map(|group| group.membership().1.clone()).peekable();
        if memberships.peek().is_none() {
            return false;
        }
        memberships.all(|membership| {
            let voters = &membership.configuration.voters;
            let few =
                |set: &flotilla_consensus::quorum::MajorityConfig| set.contains(id) && set.len() < VOTERS_MIN;
            let others = voters.ids();
            let mut others = others.ids().iter().filter(|other| **other != id);
            let place = |id: u64| usize::try_from(id - 1).expect("few nodes");
            !few(&voters.incoming)
                && !few(&voters.outgoing)
                && others.all(|other| self.is_whole(place(*other)))
        })
    }

    /// Whether every group is settled, and all its members show the same.
    pub(super) fn members_agree(&self) -> bool {
        (0..self.swarm.cores).all(|core| self.groups_agree(core))
    }

    /// The same for the groups that live on one core of every node.
    fn groups_agree(&self, core: usize) -> bool {
        let on_core = self.cores.iter().skip(core).step_by(self.swarm.cores);
        let inspections: Vec<_> =
            on_core.map(|this| this.core.as_ref().map(|core| core.inspect().groups)).collect();
        let Some(Some(first)) = inspections.first() else { return false };
        let group = |node: usize, place: usize| inspections.get(node)?.as_ref()?.get(place);
        let shown = |it: &GroupInspection<'_>| (it.applied, it.commit, it.state_hash(), it.repairing);
        (0..first.len()).all(|place| {
            let all = (0..inspections.len()).filter_map(|node| group(node, place));
            let leader = all.filter(|it| it.role == Role::Leader).max_by_key(|it| it.term);
            let Some(leader) = leader else { return false };
            let membership = leader.membership().1;
            let mut members = membership.peers.keys().map(|id| usize::try_from(*id - 1).expect("few nodes"));
            let is_settled = !membership.configuration.voters.is_joint() && leader.changes().is_empty();
            is_settled
                && !leader.repairing
                && members.all(|node| group(node, place).is_some_and(|it| shown(it) == shown(leader)))
        })
    }
}
