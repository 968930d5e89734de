//! What must be true at every moment. One rule, one function, one sentence when it is broken.

use flotilla_consensus::Role;
use flotilla_consensus::confchange::Configuration;
use flotilla_consensus::quorum::VoteResult;
use flotilla_services::core::{GroupInspection, Inspection};
use std::collections::BTreeMap;

/// What one life of a node has shown of one group so far.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    term: u64,
    commit: u64,
    applied: u64,
    checked: u64,
}

/// Everything remembered across nodes and lives.
#[derive(Debug, Default)]
pub struct Checks {
    /// Who led (group, term).
    leaders: BTreeMap<(u32, u64), usize>,
    /// The one history: term and checksum of every committed entry, by (group, index).
    committed: BTreeMap<(u32, u64), (u64, u32)>,
    seen: BTreeMap<(usize, u32), Seen>,
    /// Configurations by (group, the index that brought them).
    configurations: BTreeMap<(u32, u64), Configuration>,
    /// Entries committed anywhere.
    pub entries: u64,
    /// Terms with a leader.
    pub elections: u64,
}

impl Checks {
    /// A node begins a new life: what it shows may be older than before.
    pub fn forget(&mut self, node: usize) {
        self.seen.retain(|(of, _), _| *of != node);
    }

    /// Looks at a node after a turn.
    ///
    /// # Errors
    /// The rule that is broken, in words.
    pub fn look(&mut self, node: usize, inspection: &Inspection<'_>) -> Result<(), String> {
        for group in &inspection.groups {
            if group.role == Role::Leader {
                let leader = self.leaders.entry((group.group, group.term)).or_insert_with(|| {
                    self.elections += 1;
                    node
                });
                if *leader != node {
                    let (other, term) = (*leader + 1, group.term);
                    return Err(format!(
                        "election safety: nodes {other} and {} both lead term {term}",
                        node + 1
                    ));
                }
            }
            let seen = self.seen.entry((node, group.group)).or_default();
            if group.term < seen.term || group.commit < seen.commit || group.applied < seen.applied {
                return Err(format!(
                    "monotonicity: node {} went back from {seen:?} in group {}",
                    node + 1,
                    group.group
                ));
            }
            if group.applied > group.commit || group.commit > group.last_index {
                return Err(format!("order: node {} applied or committed what it doesn't have", node + 1));
            }
            if group.changes().iter().filter(|index| **index > group.commit).count() > 1 {
                return Err(format!("one change at a time: node {} has {:?}", node + 1, group.changes()));
            }
            (seen.term, seen.commit, seen.applied) = (group.term, group.commit, group.applied);
            let from = seen.checked.max(group.first_index - 1) + 1;
            seen.checked = seen.checked.max(group.commit);
            for index in from..=group.commit {
                let Some((term, record)) = group.entry(index) else {
                    return Err(format!("node {} lacks its committed entry {index}", node + 1));
                };
                let found = (term, crc32fast::hash(record));
                let known = self.committed.entry((group.group, index)).or_insert_with(|| {
                    self.entries += 1;
                    found
                });
                if *known != found {
                    return Err(format!(
                        "state machine safety: node {} has committed (term {}, {:08x}) at index {index} of group {}, \
                         others (term {}, {:08x})",
                        node + 1,
                        found.0,
                        found.1,
                        group.group,
                        known.0,
                        known.1
                    ));
                }
            }
        }
        for group in &inspection.groups {
            self.look_at_members(node, group)?;
        }
        Ok(())
    }

    /// All have the same configurations, and majorities of consecutive ones meet.
    fn look_at_members(&mut self, node: usize, group: &GroupInspection<'_>) -> Result<(), String> {
        let (index, membership) = group.membership();
        if group.repairing {
            // It may have assumed the founders'.
            return Ok(());
        }
        let key = (group.group, index);
        match self.configurations.get(&key) {
            Some(known) if *known == membership.configuration => return Ok(()),
            Some(known) => {
                return Err(format!(
                    "configurations: node {} has {} from {index}, others {known}",
                    node + 1,
                    membership.configuration
                ));
            }
            None => self.configurations.insert(key, membership.configuration.clone()),
        };
        let of_group = |range| self.configurations.range(range).map(|(_, configuration)| configuration);
        let of_group: Vec<_> = of_group((group.group, 0)..=(group.group, u64::MAX)).collect();
        for pair in of_group.windows(2) {
            if (0..1_u32 << 10).any(|votes| wins(pair[0], votes) && wins(pair[1], !votes)) {
                return Err(format!("configurations: {} and {} can both decide", pair[0], pair[1]));
            }
        }
        Ok(())
    }
}

fn wins(configuration: &Configuration, votes: u32) -> bool {
    configuration.voters.vote_result(|id| Some(votes >> id & 1 == 1)) == VoteResult::Won
}
