//! What leaves a node binds it: votes and acknowledgements must be on its disk before they go.

use super::{Checks, Seat, name};
use flotilla_consensus::message::{Header, decode};
use flotilla_consensus::{Kind, Role};
use flotilla_services::core::Inspection;

/// The first byte of a frame with Raft's messages (`docs/protocol.md`).
const RAFT_CHANNEL: u8 = 1;

/// What comes before the messages: the channel, and the incarnation of the sender's log.
const PREFIX_BYTES: usize = 1 + 8;

/// Whether a peer frame is Raft's.
pub(crate) fn is_rafts(frame: &[u8]) -> bool {
    frame.first() == Some(&RAFT_CHANNEL)
}

/// The messages of a peer frame, if they are Raft's.
pub(crate) fn messages(frame: &[u8]) -> Vec<(Header, usize)> {
    let mut found = Vec::new();
    if !is_rafts(frame) {
        return found;
    }
    let mut at = PREFIX_BYTES;
    while let Ok((message, next)) = decode(frame, at) {
        found.push((message.header, message.body.len()));
        at = next;
    }
    found
}

impl Checks {
    /// A frame leaves a core for a node.
    ///
    /// # Errors
    /// The promise that isn't kept.
    pub fn sent(&mut self, seat: Seat, to: u32, frame: &[u8]) -> Result<(), String> {
        for (header, _) in messages(frame) {
            let group = super::shadow::group_number(header.group.0);
            let kept = self.shadows[seat.place].group(group);
            let (term, index) = (header.term, header.index);
            let is_repairing = self.seen.get(&(seat.place, group)).is_some_and(|seen| seen.is_repairing);
            match header.kind {
                Kind::VoteReply | Kind::PreVoteReply if header.flag && is_repairing => {
                    return Err(format!("promise: {} has lost part of group {group}, and votes", name(seat)));
                }
                Kind::AppendReply if !header.flag && is_repairing => {
                    return Err(format!(
                        "promise: {} has lost part of group {group}, and acknowledges as if it hadn't",
                        name(seat)
                    ));
                }
                Kind::VoteReply if header.flag => {
                    if kept.is_none_or(|kept| (kept.term, kept.vote) != (term, Some(to))) {
                        let what = kept.map(|kept| (kept.term, kept.vote));
                        return Err(format!(
                            "promise: {} votes for node {to} in term {term} of group {group} with {what:?} on its disk",
                            name(seat)
                        ));
                    }
                    self.votes_for(seat, group, term, to)?;
                }
                Kind::AppendReply | Kind::HeartbeatReply | Kind::RepairAck if !header.flag => {
                    let last = kept.map_or(0, super::shadow::Kept::last);
                    if index > last {
                        return Err(format!(
                            "promise: {} acknowledges entry {index} of group {group} with {last} entries on its disk",
                            name(seat)
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A candidate's own vote binds it once it is on its disk, not when it asks for the others'.
    pub(super) fn votes_for(
        &mut self,
        seat: Seat,
        group: u32,
        term: u64,
        candidate: u32,
    ) -> Result<(), String> {
        let vote = *self.votes.entry((seat.node, group, term)).or_insert(candidate);
        if vote == candidate {
            return Ok(());
        }
        Err(format!(
            "one vote: {} votes for nodes {vote} and {candidate} in term {term} of group {group}",
            name(seat)
        ))
    }
}

/// How a core stands, for people: of each group its role, term, and how far it has come.
pub(crate) fn standing(inspection: &Inspection<'_>) -> String {
    let groups = inspection.groups.iter().map(|group| {
        let role = match group.role {
            Role::Leader => "leads",
            Role::Follower if group.repairing => "repairs",
            Role::Follower => "follows",
            Role::PreCandidate => "would stand",
            Role::Candidate => "stands",
        };
        format!(
            "[{}: {role} term {} last {} commit {} applied {}]",
            group.group, group.term, group.last_index, group.commit, group.applied
        )
    });
    groups.collect::<Vec<_>>().join(" ")
}
