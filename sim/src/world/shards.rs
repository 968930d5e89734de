//! Groups join and leave, shards are moved by hand, while everything else goes wrong.

use super::{Happening, World};
use crate::faults::Fault;
use flotilla_consensus::Role;
use flotilla_services::core::ShardStanding;
use std::collections::BTreeSet;

impl World {
    /// An operator at the controller's leader changes who serves what.
    pub(super) fn reshard(&mut self) {
        if self.healed {
            return;
        }
        self.after(self.swarm.reshards, Happening::Reshard);
        let leads = |groups: &[flotilla_services::core::GroupInspection<'_>]| {
            groups.iter().any(|group| group.configuration().is_some() && group.role == Role::Leader)
        };
        let leaders: Vec<usize> = (0..self.cores.len())
            .filter(|at| self.cores[*at].core.as_ref().is_some_and(|core| leads(&core.inspect().groups)))
            .collect();
        let Some(most) = leaders.len().checked_sub(1) else { return };
        let at = leaders[usize::try_from(self.rng.between(0, most as u64)).expect("few")];
        let groups = u64::from(self.swarm.groups + self.swarm.spare_groups);
        let words = match self.rng.between(0, 2) {
            0 => {
                let joining: BTreeSet<u64> =
                    (0..=self.rng.between(0, 1)).map(|_| self.rng.between(0, groups - 1)).collect();
                let weight = self.rng.between(1, 3);
                let named = joining.iter().map(|group| format!("{group}:{weight}"));
                std::iter::once("JOIN".to_owned()).chain(named).collect()
            }
            1 => vec!["LEAVE".to_owned(), self.rng.between(0, groups - 1).to_string()],
            _ => {
                let (shard, to) = (self.rng.between(0, 15), self.rng.between(0, groups - 1));
                vec!["MOVE".to_owned(), shard.to_string(), to.to_string()]
            }
        };
        let args: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let this = &mut self.cores[at];
        let now = this.clock(self.now);
        let answer = this.core.as_mut().expect("it leads").change_cluster(now, &args);
        if answer.is_ok() {
            self.tally.note(Fault::Reshard);
        }
        self.trace.line(self.now, || format!("{}: {words:?} is {answer:?}", self.cores[at]));
        self.flush_soon(at);
    }

    /// Whether every shard is served where the newest configuration says, and nothing is left of it anywhere else.
    pub(super) fn shards_are_home(&self) -> bool {
        self.shards_astray().is_empty()
    }

    /// What isn't so, in words.
    pub(super) fn shards_astray(&self) -> Vec<String> {
        if self.swarm.reshards == 0 && self.swarm.spare_groups == 0 {
            return Vec::new();
        }
        let living: Vec<_> = self.cores.iter().filter_map(|this| this.core.as_ref()).collect();
        let groups: Vec<_> = living.iter().flat_map(|core| core.inspect().groups).collect();
        let newest = groups.iter().filter_map(|group| group.configuration()).max_by_key(|it| it.number);
        let Some(newest) = newest.filter(|newest| newest.number > 0) else {
            return vec!["nobody has a configuration".to_owned()];
        };
        // Of every group, what its leader shows; that its replicas agree is seen elsewhere.
        let led = groups.iter().filter(|group| group.role == Role::Leader);
        let (mut homes, mut astray) = (vec![None; newest.shards.len()], Vec::new());
        for group in led {
            for (shard, config, standing) in group.shards() {
                let home = &mut homes[usize::from(shard)];
                if standing != ShardStanding::Serving || home.is_some() {
                    astray.push(format!("{shard} in group {} is {standing:?} since {config}", group.group));
                } else {
                    *home = Some(group.group);
                }
            }
        }
        let wrong = homes.iter().zip(&newest.shards).enumerate().filter(|(_, (is, should))| is != should);
        astray.extend(wrong.map(|(shard, (is, should))| {
            format!("{shard} is served by {is:?}, and configuration {} says {should:?}", newest.number)
        }));
        astray
    }
}
