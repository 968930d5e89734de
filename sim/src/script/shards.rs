//! Clusters with a controller: groups on nodes of their own, and shards that move between them.
//!
//! Group `g` is on the nodes from `3 g` on ([`nodes_of`]), the controller on all. So a group can be shut down as the labs' tests
//! do, and the others and the controller live on.

use super::users::{Answer, CallId, is_for_another};
use super::{NODES_OF_A_GROUP, SHARDS, Script};
use flotilla_consensus::Role;
use flotilla_services::client::Reply;
use flotilla_services::core::{GroupInspection, ShardStanding};

/// The nodes of a group.
pub fn nodes_of(group: usize) -> std::ops::Range<usize> {
    group * NODES_OF_A_GROUP..(group + 1) * NODES_OF_A_GROUP
}

impl Script {
    /// Every replica of a group that is up.
    fn replicas(&self, group: usize) -> impl Iterator<Item = GroupInspection<'_>> {
        let cores = nodes_of(group).filter_map(|node| self.nodes[node].core.as_ref());
        let of_all = cores.flat_map(|core| core.inspect().groups);
        of_all.filter(move |it| it.group as usize == group)
    }

    /// Whether a node leads a group.
    pub fn leads(&self, node: usize, group: usize) -> bool {
        let core = self.nodes[node].core.as_ref();
        core.is_some_and(|core| {
            core.inspect().groups.iter().any(|it| it.group as usize == group && it.role == Role::Leader)
        })
    }

    /// What the leader of a group says of its shards: none without a leader.
    pub fn shards_of(&self, group: usize) -> Vec<(u16, ShardStanding)> {
        let led = self.replicas(group).filter(|it| it.role == Role::Leader).max_by_key(|it| it.term);
        led.map_or(Vec::new(), |it| it.shards().map(|(shard, _, standing)| (shard, standing)).collect())
    }

    /// The shards that the leader of a group serves.
    pub fn served_by(&self, group: usize) -> Vec<u16> {
        let shards = self.shards_of(group).into_iter();
        shards.filter(|(_, standing)| *standing == ShardStanding::Serving).map(|(shard, _)| shard).collect()
    }

    /// Bytes of keys and values that the replicas of a group hold together.
    pub fn data_bytes_of(&self, group: usize) -> u64 {
        self.replicas(group).map(|it| it.data_bytes()).sum()
    }

    /// The newest configuration that any node knows: its number, and the group of each shard.
    pub fn newest_configuration(&self) -> (u64, Vec<Option<u32>>) {
        let cores = self.nodes.iter().filter_map(|node| node.core.as_ref());
        let groups = cores.flat_map(|core| core.inspect().groups);
        let known = groups.filter_map(|it| it.configuration().map(|it| (it.number, it.shards.clone())));
        known.max_by_key(|(number, _)| *number).unwrap_or_default()
    }

    /// Whether every shard is served where the newest configuration says, and nothing is left of it elsewhere.
    pub fn is_at_home(&self) -> bool {
        let (number, wanted) = self.newest_configuration();
        let mut homes: Vec<Option<u32>> = vec![None; usize::from(SHARDS)];
        for group in 0..self.setup.groups + self.setup.spare_groups {
            for (shard, standing) in self.shards_of(group) {
                let home = &mut homes[usize::from(shard)];
                if standing != ShardStanding::Serving || home.is_some() {
                    return false;
                }
                *home = u32::try_from(group).ok();
            }
        }
        number > 0 && homes == wanted
    }

    /// Waits until every shard is served where the newest configuration says.
    ///
    /// # Errors
    /// They aren't within so many milliseconds, or a rule broke.
    pub fn at_home(&mut self, limit_ms: u64) -> Result<(), String> {
        self.wait(limit_ms, "every shard is where it should be", Self::is_at_home)
    }

    /// Crashes all nodes of a group.
    pub fn crash_group(&mut self, group: usize) {
        nodes_of(group).for_each(|node| self.crash(node));
    }

    /// Restarts all nodes of a group.
    pub fn restart_group(&mut self, group: usize) {
        nodes_of(group).for_each(|node| self.restart(node));
    }

    /// A node that is up and connected, any of them.
    pub fn any(&mut self) -> Option<usize> {
        let connected = self.connected();
        let most = connected.len().checked_sub(1)?;
        let place = self.draw(0, most as u64);
        Some(connected[usize::try_from(place).expect("few nodes")])
    }

    /// Gives a command to any node, if one is up.
    pub fn ask_any(&mut self, args: &[&str]) -> Option<CallId> {
        let node = self.any()?;
        Some(self.ask(node, args))
    }

    /// A clerk that tries until its command is done: only for what may be done twice.
    ///
    /// # Errors
    /// It isn't done within so many milliseconds, or a rule broke.
    pub fn clerk(&mut self, args: &[&str], limit_ms: u64) -> Result<Reply, String> {
        let end = self.now_ms() + limit_ms;
        loop {
            if let Some(call) = self.ask_any(args) {
                let left = end.saturating_sub(self.now_ms()).min(1_500);
                match self.answered(call, left) {
                    Ok(Answer::Reply(reply)) if !matches!(reply, Reply::Error(_)) => return Ok(reply),
                    Ok(Answer::Reply(Reply::Error(error))) if !is_for_another(&error) => {
                        return Err(format!("{args:?}: {error}"));
                    }
                    _ => self.unbroken()?,
                }
            }
            if self.now_ms() >= end {
                return Err(self.story(&format!("not within {limit_ms} ms: {args:?}")));
            }
            self.run_for(20)?;
        }
    }

    /// Changes the configuration: `JOIN 2`, `LEAVE 0 1`, `MOVE 3 1`. Returns its number.
    ///
    /// # Errors
    /// It isn't changed within ten seconds, or a rule broke.
    pub fn change(&mut self, words: &str) -> Result<i64, String> {
        let args: Vec<&str> = std::iter::once("FLOTILLA.CLUSTER").chain(words.split(' ')).collect();
        match self.clerk(&args, 10_000)? {
            Reply::Integer(number) => Ok(number),
            other => Err(format!("{words} was answered with {other}")),
        }
    }
}
