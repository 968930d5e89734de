//! Who leads, and who has what.

use super::Script;
use flotilla_consensus::{Kind, Role};
use flotilla_services::core::GroupInspection;
use flotilla_storage::RecordHeader;

impl Script {
    /// A look at the group's replica on a node that runs.
    pub fn group(&self, node: usize) -> Option<GroupInspection<'_>> {
        let core = self.nodes[node].core.as_ref()?;
        core.inspect().groups.into_iter().next()
    }

    /// Shards that are being read on a node for a backup, 0 if it is down.
    pub fn readings(&self, node: usize) -> usize {
        self.nodes[node].core.as_ref().map_or(0, flotilla_services::core::Core::readings)
    }

    /// What a node is in the group.
    pub fn role(&self, node: usize) -> Option<Role> {
        self.group(node).map(|group| group.role)
    }

    /// A node's term, 0 if it is down.
    pub fn term(&self, node: usize) -> u64 {
        self.group(node).map_or(0, |group| group.term)
    }

    /// The last index that a node knows committed, 0 if it is down.
    pub fn commit(&self, node: usize) -> u64 {
        self.group(node).map_or(0, |group| group.commit)
    }

    /// The last index that a node has applied, 0 if it is down.
    pub fn applied(&self, node: usize) -> u64 {
        self.group(node).map_or(0, |group| group.applied)
    }

    /// The index and term of a node's last entry, in order; zeros if it is down or has none.
    pub fn last_entry(&self, node: usize) -> (u64, u64) {
        let Some(group) = self.group(node) else { return (0, 0) };
        let term = group.entry(group.last_index).map_or(0, |(term, _)| term);
        (group.last_index, term)
    }

    /// Bytes of the log that a node keeps in memory and can't yet give back on its disk.
    pub fn log_bytes(&self, node: usize) -> usize {
        let Some(group) = self.group(node) else { return 0 };
        let indices = group.first_index..=group.last_index;
        indices.filter_map(|index| group.entry(index)).map(|(_, record)| record.len()).sum()
    }

    /// The payloads of a node's entries in memory that carry one, with their indices and terms.
    pub fn entries(&self, node: usize) -> Vec<(u64, u64, Vec<u8>)> {
        let Some(group) = self.group(node) else { return Vec::new() };
        let entry = |index| {
            let (term, record) = group.entry(index)?;
            let (_, payload) = RecordHeader::decode(record).ok()?;
            (!payload.is_empty()).then(|| (index, term, payload.to_vec()))
        };
        (group.first_index..=group.last_index).filter_map(entry).collect()
    }

    /// The connected node that leads in the highest term of all connected ones.
    pub fn leader(&self) -> Option<usize> {
        let connected = self.connected();
        let term = connected.iter().map(|node| self.term(*node)).max()?;
        connected.into_iter().find(|node| self.role(*node) == Some(Role::Leader) && self.term(*node) == term)
    }

    /// Waits until the connected have a leader that a majority of the cluster follows; returns it.
    ///
    /// # Errors
    /// There is none within so many milliseconds, or a rule broke.
    pub fn elected(&mut self, limit_ms: u64) -> Result<usize, String> {
        let led = |script: &Self| {
            let leader = script.leader()?;
            let id = script.group(leader)?.leader;
            let connected = script.connected();
            let follows = |node: &&usize| {
                script.group(**node).is_some_and(|it| it.leader == id && it.term == script.term(leader))
            };
            let followers = connected.iter().filter(follows).count();
            (followers * 2 > script.nodes.len()).then_some(leader)
        };
        self.wait(limit_ms, "a leader that a majority follows", |script| led(script).is_some())?;
        Ok(led(self).expect("waited for"))
    }

    /// How many running nodes have applied the entry of this index and term.
    pub fn having(&self, index: u64, term: u64) -> usize {
        let has = |node: &usize| {
            let group = self.group(*node);
            group.is_some_and(|group| {
                group.applied >= index && group.entry(index).is_none_or(|(of, _)| of == term)
            })
        };
        (0..self.nodes.len()).filter(has).count()
    }

    /// Whether all nodes run and have applied the same, as far as anybody has a log.
    pub fn is_converged(&self) -> bool {
        let looks = (0..self.nodes.len()).map(|node| {
            let group = self.group(node)?;
            Some((group.applied, group.commit, group.last_index, group.state_hash()))
        });
        let looks: Vec<_> = looks.collect();
        looks.iter().all(|look| look.is_some() && *look == looks[0])
            && looks[0].is_some_and(|(applied, _, last, _)| applied == last)
    }

    /// Waits until all nodes have applied the same, see [`Self::is_converged`].
    ///
    /// # Errors
    /// They haven't within so many milliseconds, or a rule broke.
    pub fn converged(&mut self, limit_ms: u64) -> Result<(), String> {
        self.wait(limit_ms, "all nodes have applied the same", Self::is_converged)
    }

    /// Snapshot parts sent since [`Self::take_traffic`].
    pub fn snapshot_parts(&self) -> u64 {
        self.traffic().of(Kind::Snapshot)
    }

    pub(super) fn state(&self) -> String {
        let mut text = String::new();
        for node in 0..self.nodes.len() {
            let Some(group) = self.group(node) else {
                text.push_str(&format!("\n  node {} is down", node + 1));
                continue;
            };
            text.push_str(&format!(
                "\n  node {}{}: {:?} of term {}, follows {:?}, entries {} to {}, durable {}, commit {}, applied {}, \
                 state {:016x}",
                node + 1,
                if self.is_connected(node) { "" } else { " (away)" },
                group.role,
                group.term,
                group.leader.map(|leader| leader.0),
                group.first_index,
                group.last_index,
                group.durable(),
                group.commit,
                group.applied,
                group.state_hash()
            ));
        }
        text
    }
}
