//! What must be true at every moment. One rule, one function, one sentence when it is broken; the words before the colon
//! name the rule.
//!
//! | rule | what |
//! |---|---|
//! | election safety | one leader a term |
//! | leader completeness | a new leader has every entry that is committed |
//! | counted | what a leader counts a follower for is on that follower's disk |
//! | own term | a leader commits by counting only entries of its own term, and what is before them |
//! | durable commit | what is committed is on the disks of a majority, by what is on the disks |
//! | log matching | an index and a term mean the same bytes everywhere, and the same entry before them |
//! | state machine safety | nobody commits another entry at the same index |
//! | state | replicas that have applied as much hold the same data |
//! | monotonicity, order | terms, commits and applies don't go back, and don't overtake each other |
//! | one vote | a node votes for one candidate a term (`promises.rs`) |
//! | promise | a vote or an acknowledgement is on the sender's disk before it leaves (`promises.rs`) |
//! | reuse | a segment isn't written to again while what is durable needs it (`shadow.rs`) |
//! | recovery | a core that starts knows everything that was durable (`shadow.rs`) |
//! | one change at a time, configurations | a group has one history of configurations, and majorities of consecutive ones meet
//!   (`members.rs`) |
//! | shards | nobody serves a shard that wasn't let go to it (`shards.rs`) |
//! | memory | no log in memory grows beyond what snapshots allow |

mod members;
pub(crate) mod promises;
mod shadow;
mod shards;

use crate::fast_hash::FastHash;
use flotilla_consensus::Role;
use flotilla_consensus::confchange::Configuration;
use flotilla_runtime::NodeId;
use flotilla_services::core::{GroupInspection, Inspection};
use shadow::{Print, Shadow};
use std::collections::{BTreeMap, HashMap};

/// State is compared whenever a replica has applied a multiple of so many entries.
const STATE_EVERY: u64 = 32;

/// What an index and a term mean: the record's checksum, and the entry before it where that is known.
type Meaning = (u32, Option<Print>);

/// What one life of a core has shown of one group so far.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    term: u64,
    is_leader: bool,
    commit: u64,
    applied: u64,
    checked: u64,
    /// The entry that brought its configuration, if that is checked already.
    configured: Option<u64>,
    /// It has lost part of its log.
    is_repairing: bool,
}

/// A core of a node, both from 0, and where it stands among all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Among all cores.
    pub place: usize,
    /// The node, from 1.
    pub node: u32,
    /// The core of the node.
    pub core: u16,
}

/// Everything remembered across cores and lives.
#[derive(Debug, Default)]
pub struct Checks {
    /// Cores of a node.
    cores: usize,
    /// Who led (group, term).
    leaders: BTreeMap<(u32, u64), u32>,
    /// The one history: term and checksum of every committed entry, by group, from index 1.
    committed: BTreeMap<u32, Vec<Option<Print>>>,
    /// What (group, index, term) means: the record's checksum and the entry before it.
    written: HashMap<(u32, u64, u64), Meaning, FastHash>,
    /// State by (group, applied).
    states: HashMap<(u32, u64), (u64, u32), FastHash>,
    seen: BTreeMap<(usize, u32), Seen>,
    /// Configurations by (group, the index that brought them).
    configurations: BTreeMap<(u32, u64), Configuration>,
    shadows: Vec<Shadow>,
    /// In which term and how far a leader has counted a follower: by the leader's place, the group and the follower.
    counted: BTreeMap<(usize, u32, u32), (u64, u64)>,
    /// Of every shard and the configuration that it went with: from which group to which.
    journeys: BTreeMap<(u16, u64), (u32, u32)>,
    /// Who got the vote of (node, group, term).
    votes: BTreeMap<(u32, u32, u64), u32>,
    log_bytes_max: usize,
    /// Entries committed anywhere.
    pub entries: u64,
    /// Terms with a leader.
    pub elections: u64,
}

impl Checks {
    /// For so many cores in all, `cores` a node. A log in memory may grow to `log_bytes_max`.
    pub fn new(all: usize, cores: usize, log_bytes_max: usize) -> Self {
        Self {
            cores,
            shadows: (0..all).map(|_| Shadow::default()).collect(),
            log_bytes_max,
            ..Self::default()
        }
    }

    /// Part of what the core's disk held is gone.
    pub fn rotten(&mut self, seat: Seat) {
        self.shadows[seat.place].is_rotten = true;
    }

    /// The core's disk is another one, which is empty.
    pub fn wiped(&mut self, seat: Seat) {
        self.shadows[seat.place].replace();
    }

    /// A core begins a new life: what it shows may be older than before, but not older than its disk.
    ///
    /// # Errors
    /// The rule that is broken, in words.
    pub fn started(&mut self, seat: Seat, inspection: &Inspection<'_>) -> Result<(), String> {
        self.seen.retain(|(place, _), _| *place != seat.place);
        let configurations = &self.configurations;
        self.shadows[seat.place].started((&name(seat), seat.node), inspection, |group| {
            let (index, membership) = group.membership();
            let known = configurations.get(&(group.group, index));
            let is_known = known.is_some_and(|known| *known == membership.configuration);
            (is_known && !membership.peers.contains_key(&u64::from(seat.node))).then_some(index)
        })
    }

    /// A write to a segment has become durable.
    ///
    /// # Errors
    /// The rule that is broken, in words.
    pub fn hardened(&mut self, seat: Seat, offset: usize, bytes: &[u8]) -> Result<(), String> {
        for (group, index, (term, crc), before) in self.shadows[seat.place].hardened(offset, bytes) {
            let known = self.written.entry((group, index, term)).or_insert((crc, before));
            let agrees = known.1.is_none() || before.is_none() || known.1 == before;
            if known.0 != crc || !agrees {
                return Err(format!(
                    "log matching: {} has written {crc:08x} behind {before:?} at index {index} of term {term} in group \
                     {group}, others {:08x} behind {:?}",
                    name(seat),
                    known.0,
                    known.1
                ));
            }
            known.1 = known.1.or(before);
        }
        Ok(())
    }

    /// Looks at a core after a turn.
    ///
    /// # Errors
    /// The rule that is broken, in words.
    pub fn look(&mut self, seat: Seat, inspection: &Inspection<'_>) -> Result<(), String> {
        for group in &inspection.groups {
            let before = self.seen.get(&(seat.place, group.group)).copied().unwrap_or_default();
            let configured = self.members(seat, group, before)?;
            if group.role == Role::Leader && !(before.is_leader && before.term == group.term) {
                self.elected(seat, group)?;
            }
            order(seat, group, before)?;
            own_term(seat, group, before)?;
            self.counted(seat, group)?;
            let checked = self.commits(seat, group, before)?;
            self.state(seat, group, before)?;
            if group.applied != before.applied {
                self.shards(seat, group)?;
            }
            if group.log_bytes() > self.log_bytes_max {
                return Err(format!("memory: {} keeps {} bytes of log", name(seat), group.log_bytes()));
            }
            let seen = Seen {
                term: group.term,
                is_leader: group.role == Role::Leader,
                commit: group.commit,
                applied: group.applied,
                checked,
                configured,
                is_repairing: group.repairing,
            };
            self.seen.insert((seat.place, group.group), seen);
        }
        Ok(())
    }

    /// A segment is about to be written to from its beginning; `first` is its first block as it is now.
    ///
    /// # Errors
    /// The rule that is broken, in words.
    pub fn reuses(&self, seat: Seat, first: &[u8]) -> Result<(), String> {
        self.shadows[seat.place].gives(first).map_err(|what| format!("reuse: {} {what}", name(seat)))
    }

    /// Whoever has gone on to a newer term may have replaced what it acknowledged, and its word is on its way all the same.
    fn counted(&mut self, seat: Seat, group: &GroupInspection<'_>) -> Result<(), String> {
        if group.role != Role::Leader {
            return Ok(());
        }
        let (number, term) = (group.group, group.term);
        for node in group.membership().1.peers.keys().map(|id| u32::try_from(*id).expect("few nodes")) {
            let Some((index, true)) = group.matched(NodeId(node)).filter(|_| node != seat.node) else {
                continue;
            };
            let before = self.counted.insert((seat.place, number, node), (term, index));
            let place = (node as usize - 1) * self.cores + usize::from(seat.core);
            let shadow = &self.shadows[place];
            let has_gone_on = shadow.group(number).is_some_and(|kept| kept.term > term);
            if before == Some((term, index)) || has_gone_on || shadow.is_rotten {
                continue;
            }
            let Some((of, record)) = group.entry(index) else { continue };
            if !shadow.held(number, index, (of, crc32fast::hash(record))) {
                return Err(format!(
                    "counted: {} counts node {node} for entry {index} of term {of} in group {number}, which isn't on its disk",
                    name(seat)
                ));
            }
        }
        Ok(())
    }

    fn elected(&mut self, seat: Seat, group: &GroupInspection<'_>) -> Result<(), String> {
        let (number, term) = (group.group, group.term);
        let leader = self.leaders.entry((number, term)).or_insert_with(|| {
            self.elections += 1;
            seat.node
        });
        if *leader != seat.node {
            return Err(format!("election safety: nodes {leader} and {} both lead term {term}", seat.node));
        }
        if !self.is_quorum(group, |node| self.has_vote_of(seat, node, number, term)) {
            let voters = &group.membership().1.configuration;
            return Err(format!("promise: {} leads term {term} of {voters} without their votes", name(seat)));
        }
        if self.has_vote_of(seat, seat.node, number, term) {
            self.votes_for(seat, number, term, seat.node)?;
        }
        let history = self.committed.get(&number).map_or(&[][..], Vec::as_slice);
        for index in group.first_index..=history.len() as u64 {
            let committed = history[usize::try_from(index - 1).expect("histories are short")];
            let Some((of, _)) = committed.filter(|(of, _)| *of < term) else { continue };
            if group.entry(index).is_none_or(|(found, _)| found != of) {
                return Err(format!(
                    "leader completeness: {} leads term {term} of group {number} without entry {index} of term {of}, \
                     which is committed",
                    name(seat)
                ));
            }
        }
        Ok(())
    }

    /// Whether a vote for a leader is, or was, on disk: its own is there, or doesn't count; the others' were when they left.
    fn has_vote_of(&self, seat: Seat, node: u32, group: u32, term: u64) -> bool {
        if node != seat.node {
            return self.votes.get(&(node, group, term)) == Some(&seat.node);
        }
        let own = self.shadows[seat.place].group(group);
        own.is_some_and(|kept| (kept.term, kept.vote) == (term, Some(seat.node)))
    }

    fn commits(&mut self, seat: Seat, group: &GroupInspection<'_>, before: Seen) -> Result<u64, String> {
        let number = group.group;
        let from = before.checked.max(group.first_index - 1) + 1;
        for index in from..=group.commit {
            let Some((term, record)) = group.entry(index) else {
                return Err(format!("order: {} lacks its committed entry {index}", name(seat)));
            };
            let found = (term, crc32fast::hash(record));
            let history = self.committed.entry(number).or_default();
            let place = usize::try_from(index - 1).expect("histories are short");
            if history.len() <= place {
                history.resize(place + 1, None);
            }
            match history[place] {
                Some(known) if known != found => {
                    return Err(format!(
                        "state machine safety: {} has committed {found:x?} at index {index} of group {number}, others \
                         {known:x?}",
                        name(seat)
                    ));
                }
                Some(_) => {}
                None => {
                    history[place] = Some(found);
                    self.entries += 1;
                    self.durable_commit(seat, group, index, found)?;
                }
            }
        }
        Ok(before.checked.max(group.commit))
    }

    /// The entry is seen committed for the first time: a majority has it on disk.
    fn durable_commit(
        &self,
        seat: Seat,
        group: &GroupInspection<'_>,
        index: u64,
        print: Print,
    ) -> Result<(), String> {
        let number = group.group;
        let holds = |node: u32| {
            let place = (node as usize - 1) * self.cores + usize::from(seat.core);
            self.shadows[place].held(number, index, print)
        };
        if self.is_quorum(group, holds) {
            return Ok(());
        }
        let nodes = u32::try_from(self.shadows.len() / self.cores).expect("few nodes");
        let holding: Vec<u32> = (1..=nodes).filter(|node| holds(*node)).collect();
        Err(format!(
            "durable commit: {} has committed entry {index} of term {} in group {number} of {}, which is on the disks of \
             nodes {holding:?}",
            name(seat),
            print.0,
            group.membership().1.configuration
        ))
    }

    fn state(&mut self, seat: Seat, group: &GroupInspection<'_>, before: Seen) -> Result<(), String> {
        if group.applied == before.applied || !group.applied.is_multiple_of(STATE_EVERY) || !group.is_plain()
        {
            return Ok(());
        }
        let hash = group.state_hash();
        let known = self.states.entry((group.group, group.applied)).or_insert((hash, seat.node));
        if known.0 == hash {
            return Ok(());
        }
        Err(format!(
            "state: after {} entries of group {} {} holds {hash:016x}, and node {} held {:016x}",
            group.applied,
            group.group,
            name(seat),
            known.1,
            known.0
        ))
    }
}

fn order(seat: Seat, group: &GroupInspection<'_>, seen: Seen) -> Result<(), String> {
    if group.term < seen.term || group.commit < seen.commit || group.applied < seen.applied {
        return Err(format!("monotonicity: {} went back from {seen:?} in group {}", name(seat), group.group));
    }
    if group.applied > group.commit || group.commit > group.last_index {
        return Err(format!("order: {} applied or committed what it doesn't have", name(seat)));
    }
    Ok(())
}

/// §5.4.2 of the Raft paper.
fn own_term(seat: Seat, group: &GroupInspection<'_>, seen: Seen) -> Result<(), String> {
    let leads_on = group.role == Role::Leader && seen.is_leader && seen.term == group.term;
    if !leads_on || group.commit == seen.commit {
        return Ok(());
    }
    match group.entry(group.commit) {
        Some((term, _)) if term != group.term => Err(format!(
            "own term: {} leads term {} and has committed up to entry {} of term {term}",
            name(seat),
            group.term,
            group.commit
        )),
        _ => Ok(()),
    }
}

fn name(seat: Seat) -> String {
    match seat.core {
        0 => format!("node {}", seat.node),
        core => format!("node {} core {core}", seat.node),
    }
}
