//! Linearizable reads without the log: ReadIndex (thesis §6.4), batched, on leaders and on followers.
//!
//! A leader's read notes the commit index and waits until a majority has answered a heartbeat that left *after* the read
//! came. Rounds are numbered; one is in the air at a time, and everything that arrives meanwhile shares the next. With a
//! lease ([`super::lease`]) no round is needed.
//!
//! A follower's read asks the leader for that index: one numbered question a turn, whatever the number of reads. The
//! answer holds for every read that came before the question left, and says what is committed, so the follower needn't wait
//! for the next heartbeat to serve them. A lost question is asked again with a heartbeat.

use super::{Context, Raft, Refused, Role};
use crate::message::{Header, Kind};
use flotilla_runtime::Nanos;
use flotilla_runtime::planted::{Bug, planted};

/// A linearizable read that waits for its leader's word (§6.4 of the thesis).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadTicket {
    /// On a leader: the read may be served once this read round is confirmed. On a follower: once this question is answered.
    pub round: u64,
    /// ...and this index is applied. On a follower the answer says which; see [`Raft::read_state`].
    pub index: u64,
    /// The last index of the leader's log when the read came. A commit beyond it in `term` confirms the leadership
    /// as well as a round does; and a client that pipelines sees the state before its own later writes.
    pub position: u64,
    /// The leader's term: after a change of it the ticket is void.
    pub term: u64,
    /// A follower's: the leader is asked.
    pub is_forwarded: bool,
}

/// What became of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadState {
    /// Nothing yet.
    Waiting,
    /// The read may be served in any state that holds this index.
    ServeAt(u64),
    /// The leader has changed: the read must begin again, here or elsewhere.
    Void,
}

/// Follower: questions to the leader. Their numbers begin anywhere, so that an answer to a former life of this replica isn't
/// taken for one to this.
#[derive(Debug, Default)]
pub(super) struct Questions {
    wanted: u64,
    sent: u64,
    sent_at: Nanos,
    /// The newest that was answered, and the index.
    answered: (u64, u64),
}

impl Questions {
    pub(super) fn new(nonce: u64) -> Self {
        // Far from the end of the numbers.
        let first = nonce >> 2;
        Self { wanted: first, sent: first, sent_at: 0, answered: (first, 0) }
    }

    /// Readers wait for the leader's answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.answered.0 < self.wanted
    }
}

/// Leader: a follower's question that waits for its round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    from: usize,
    number: u64,
    round: u64,
    index: u64,
}

impl Raft {
    /// A linearizable read arrives at a leader. Its [`ReadTicket::index`] is what must be applied once the round is confirmed.
    ///
    /// # Errors
    /// [`Refused::NotLeader`].
    pub fn read(&mut self, now: Nanos) -> Result<ReadTicket, Refused> {
        if self.role != Role::Leader {
            return Err(Refused::NotLeader(self.leader()));
        }
        Ok(self.read_as_leader(now))
    }

    /// A linearizable read arrives at a follower that knows its leader. What must be applied is not in the ticket: the leader
    /// says it, and [`Self::read_state`] passes it on.
    ///
    /// # Errors
    /// [`Refused::NotLeader`] if no leader is known, or if this replica leads or is being repaired.
    pub fn read_at_follower(&mut self) -> Result<ReadTicket, Refused> {
        if self.role != Role::Follower || self.leader.is_none() || self.is_repairing() {
            return Err(Refused::NotLeader(self.leader()));
        }
        self.questions.wanted = self.questions.sent + 1;
        let (round, index) = (self.questions.wanted, self.commit);
        let position = self.log.last_index();
        Ok(ReadTicket { round, index, position, term: self.term, is_forwarded: true })
    }

    fn read_as_leader(&mut self, now: Nanos) -> ReadTicket {
        // Alone, we are the majority, and need to ask nobody; under a lease, nobody else can be asked.
        let is_certain =
            self.is_quorum(|place| place == self.me) || self.has_lease(now) || planted(Bug::NoReadRound);
        let round = if is_certain { self.round_confirmed } else { self.round_sent + 1 };
        let in_the_air = planted(Bug::ReadRoundInTheAir) && self.round_confirmed < self.round_sent;
        let round = if in_the_air { self.round_sent } else { round };
        self.round_wanted = self.round_wanted.max(round);
        ReadTicket {
            round,
            // Until an entry of our own term is committed we don't know how far the others had come.
            index: self.commit.max(if planted(Bug::ReadBeforeOwnTerm) { 0 } else { self.term_start }),
            position: self.log.last_index(),
            term: self.term,
            is_forwarded: false,
        }
    }

    /// What became of a ticket of this replica's.
    pub fn read_state(&self, ticket: &ReadTicket) -> ReadState {
        let is_leader = self.role == Role::Leader;
        let follows = self.role == Role::Follower && self.leader.is_some();
        let (answered, index) = self.questions.answered;
        match ticket.is_forwarded {
            _ if ticket.term != self.term => ReadState::Void,
            false if is_leader && ticket.round <= self.round_confirmed => ReadState::ServeAt(ticket.index),
            false if is_leader => ReadState::Waiting,
            true if follows && ticket.round <= answered => ReadState::ServeAt(index),
            true if follows => ReadState::Waiting,
            _ => ReadState::Void,
        }
    }

    /// Leader: every read of a round up to this one is confirmed.
    pub fn confirmed_round(&self) -> u64 {
        self.round_confirmed
    }

    pub(super) fn start_read_round(&mut self, cx: &mut Context<'_>) {
        let in_the_air = self.round_confirmed < self.round_sent;
        if self.round_wanted <= self.round_sent || in_the_air {
            return;
        }
        self.round_sent = self.round_wanted;
        self.note_round_sent(cx.now);
        for place in self.group_of.others {
            self.send_heartbeat(cx, place);
        }
        self.confirm_reads();
    }

    pub(super) fn confirm_reads(&mut self) {
        self.progress[self.me].read_round = self.round_sent;
        let confirmed = self.reached(|place| self.progress[place].read_round);
        // Another configuration may have confirmed less: what was confirmed stays so.
        self.round_confirmed = self.round_confirmed.max(confirmed);
        self.extend_lease();
    }

    /// Follower, end of the turn: one question for all reads that came in it.
    pub(super) fn ask_for_read_index(&mut self, cx: &mut Context<'_>) {
        let Some(leader) = self.leader else { return };
        if self.questions.wanted > self.questions.sent {
            self.questions.sent = self.questions.wanted;
            self.ask(cx, leader);
        }
    }

    fn ask(&mut self, cx: &mut Context<'_>, leader: usize) {
        self.questions.sent_at = cx.now;
        let header = Header { aux: self.questions.sent, ..self.header(Kind::ReadIndex) };
        self.send(cx, leader, &header);
    }

    /// Follower: the leader speaks; a question that it hasn't answered for a heartbeat's time may be lost.
    pub(super) fn ask_again(&mut self, cx: &mut Context<'_>, leader: usize) {
        let Questions { sent, sent_at, answered, .. } = self.questions;
        if answered.0 < sent && cx.now >= sent_at + self.config.heartbeat {
            self.ask(cx, leader);
        }
    }

    /// Leader: a follower has readers. Questions that share a round are one: the newest, with the newest index.
    pub(super) fn on_read_index(&mut self, cx: &Context<'_>, from: usize, header: &Header) {
        if self.role != Role::Leader {
            return;
        }
        self.progress[from].heard = cx.now;
        let ReadTicket { round, index, .. } = self.read_as_leader(cx.now);
        self.asked.retain(|other| (other.from, other.round) != (from, round));
        self.asked.push(Question { from, number: header.aux, round, index });
    }

    /// Leader, end of the turn: answers the questions whose round is confirmed.
    pub(super) fn answer_read_indexes(&mut self, cx: &mut Context<'_>) {
        let confirmed = self.round_confirmed;
        let due: Vec<Question> = self.asked.extract_if(.., |question| question.round <= confirmed).collect();
        for Question { from, number, index, .. } in due {
            let commit = self.commit;
            let reply = Header { index, commit, aux: number, ..self.header(Kind::ReadIndexReply) };
            self.send(cx, from, &reply);
        }
    }

    pub(super) fn on_read_index_reply(&mut self, from: usize, header: &Header) {
        let Questions { sent, answered, .. } = self.questions;
        if self.leader == Some(from) && header.aux > answered.0 && header.aux <= sent {
            self.questions.answered = (header.aux, header.index);
            self.commit = self.commit.max(header.commit.min(self.matched));
        }
    }
}
