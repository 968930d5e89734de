//! Who leads: pre-vote, vote, step down (§5.2, §5.4.1; thesis §6.2, §9.6).

use super::lease::Lease;
use super::thrift::Thrift;
use super::{Context, Deferred, Raft, Role};
use crate::message::{Header, Kind, Message};
use crate::progress::Progress;
use flotilla_runtime::Nanos;
use flotilla_runtime::planted::{Bug, planted};

/// Heartbeats that may pass without an answer to the oldest append before the leader probes again.
const STALLED_HEARTBEATS: u8 = 4;

impl Raft {
    /// Asks everybody whether we could win, keeping our term: a node that was cut off can't disturb the others.
    pub(super) fn ask_for_pre_votes(&mut self, cx: &mut Context<'_>) {
        self.reset_election_deadline(cx.now);
        if self.is_retiring && self.members.len() > 1 {
            return;
        }
        let asked_in_vain = self.role == Role::PreCandidate;
        self.role = Role::PreCandidate;
        self.leader = None;
        self.clear_votes();
        self.votes[self.me] = Some(true);
        let header = Header {
            term: self.term + 1,
            index: self.log.last_index(),
            log_term: self.log.last_term(),
            ..self.header(Kind::PreVote)
        };
        if asked_in_vain {
            // The group may have moved on without us: whoever is in it now knows.
            (0..self.members.len())
                .filter(|place| *place != self.me)
                .for_each(|place| self.send(cx, place, &header));
        } else {
            self.broadcast(cx, &header);
        }
        if self.has_won() {
            self.ask_for_votes(cx, false);
        }
    }

    /// Begins a term of our own; `by_transfer`: because its leader wants us to.
    pub(super) fn ask_for_votes(&mut self, cx: &mut Context<'_>, by_transfer: bool) {
        self.break_promise();
        self.campaigns += 1;
        self.term += 1;
        self.role = Role::Candidate;
        self.leader = None;
        self.vote = Some(self.members[self.me].peer.node);
        self.leaderless_terms += 1;
        self.give_election_time(cx.now);
        self.clear_votes();
        self.record_hard_state(cx);
        self.deferred.push_back((cx.wal.open_lsn(), Deferred::OwnVote { term: self.term }));
        if planted(Bug::OwnVoteEarly) {
            self.votes[self.me] = Some(true);
        }
        let header = Header {
            flag: by_transfer,
            index: self.log.last_index(),
            log_term: self.log.last_term(),
            ..self.header(Kind::Vote)
        };
        self.broadcast(cx, &header);
    }

    /// Our own vote is on our disk: only now may we count it.
    pub(super) fn count_own_vote(&mut self, cx: &mut Context<'_>, term: u64) {
        if self.role == Role::Candidate && self.term == term {
            self.votes[self.me] = Some(true);
            self.become_leader_if_won(cx);
        }
    }

    pub(super) fn on_pre_vote(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        let granted = header.term > self.term
            && !self.is_repairing()
            && (!self.has_live_leader(cx) || planted(Bug::LeaderForgotten))
            && self.log.is_behind_or_equal(header.index, header.log_term);
        let term = if granted { header.term } else { self.term };
        let reply = Header { flag: granted, term, ..self.header(Kind::PreVoteReply) };
        if self.group_of.others.has(from) {
            return self.send(cx, from, &reply);
        }
        // It was away when it left, or when it was told: nothing else will tell it, if what it lacks is forgotten.
        cx.outbox.send_body(self.members[from].peer, &reply, &self.membership_to_tell());
    }

    pub(super) fn on_pre_vote_reply(&mut self, cx: &mut Context<'_>, from: usize, message: &Message<'_>) {
        let header = &message.header;
        if self.role == Role::PreCandidate && self.learn_membership(cx, message.body) && !self.is_voter() {
            return self.step_down(cx);
        }
        if !header.flag && header.term > self.term {
            self.enter_term(cx, header.term);
        } else if self.role == Role::PreCandidate && header.flag && header.term == self.term + 1 {
            self.votes[from] = Some(true);
            if self.has_won() {
                self.ask_for_votes(cx, false);
            }
        }
    }

    pub(super) fn on_vote(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        // In our own term too: how we came into it says nothing of the leader that we promised to wait for.
        if header.term >= self.term
            && !header.flag
            && self.has_live_leader(cx)
            && !planted(Bug::LeaderForgotten)
        {
            return;
        }
        if header.term > self.term {
            self.enter_term(cx, header.term);
        }
        let candidate = self.members[from].peer.node;
        let granted = header.term == self.term
            && (!self.is_repairing() || planted(Bug::RepairingVotes))
            && self.vote.is_none_or(|vote| vote == candidate || planted(Bug::VotesTwice))
            && self.log.is_behind_or_equal(header.index, header.log_term);
        // With what the candidate's log was like: the candidate that hears of it may be in another life by then.
        let (index, log_term) = if granted { (header.index, header.log_term) } else { (0, 0) };
        let reply = Header { flag: granted, index, log_term, ..self.header(Kind::VoteReply) };
        if !granted {
            self.send(cx, from, &reply);
            return;
        }
        self.vote = Some(candidate);
        self.give_election_time(cx.now);
        if !planted(Bug::VoteNotLogged) {
            self.record_hard_state(cx);
        }
        if planted(Bug::VoteBeforeSync) {
            return self.send(cx, from, &reply);
        }
        self.deferred
            .push_back((cx.wal.open_lsn(), Deferred::Reply { to: self.members[from].peer, header: reply }));
    }

    pub(super) fn on_vote_reply(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        if self.role != Role::Candidate || header.term != self.term {
            return;
        }
        // A vote is for a log. A former life of ours may have asked in this term and crashed before its disk had anything of it: the
        // term, and the end of a log that was longer.
        let is_for_this_log =
            (header.log_term, header.index) <= (self.log.last_term(), self.log.last_index());
        if !header.flag || is_for_this_log {
            self.votes[from] = Some(header.flag);
            self.become_leader_if_won(cx);
        }
    }

    fn become_leader_if_won(&mut self, cx: &mut Context<'_>) {
        if !self.has_won() {
            return;
        }
        self.role = Role::Leader;
        self.leader = Some(self.me);
        self.leaderless_terms = 0;
        let next = self.log.last_index() + 1;
        self.progress = self.members.iter().map(|_| Progress::new(next, cx.now)).collect();
        (self.round_sent, self.round_confirmed, self.round_wanted) = (0, 0, 0);
        self.lease = Lease::default();
        self.thrift = Thrift::default();
        self.is_hemmed_in = false;
        self.preference.begin_again();
        self.term_start = next;
        self.uncommitted_bytes = self.bytes_of(self.commit, next - 1);
        // Only an entry of our own term can be committed by counting (§5.4.2): give ourselves one.
        self.append_own(cx, 0, 0, |_| {});
        self.heartbeat_deadline = cx.now + self.config.heartbeat;
    }

    /// A message of a newer term: whatever we were, we follow.
    pub(super) fn enter_term(&mut self, cx: &mut Context<'_>, term: u64) {
        assert!(term > self.term, "terms never go back");
        self.break_promise();
        self.founding = None;
        self.term = term;
        self.leaderless_terms += 1;
        self.vote = None;
        self.become_follower(cx);
        if planted(Bug::TermNotLogged) {
            self.recorded_term = term;
            return;
        }
        self.record_hard_state(cx);
        self.deferred.push_back((cx.wal.open_lsn(), Deferred::Term(term)));
    }

    fn become_follower(&mut self, cx: &mut Context<'_>) {
        self.role = Role::Follower;
        self.leader = None;
        self.progress.clear();
        self.transfer = None;
        self.asked.clear();
        self.forget_departing();
        self.clear_votes();
        (self.matched, self.acknowledged, self.ack_due) = (0, 0, false);
        self.reset_election_deadline(cx.now);
    }

    /// The leader of our term spoke.
    pub(super) fn follow(&mut self, cx: &mut Context<'_>, leader: usize) {
        assert!(self.role != Role::Leader, "two leaders in term {} of group {}", self.term, self.group.0);
        if self.role != Role::Follower || self.leader != Some(leader) {
            self.become_follower(cx);
            self.leader = Some(leader);
        }
        self.leader_heard = Some(cx.now);
        self.leaderless_terms = 0;
        self.reset_election_deadline(cx.now);
    }

    /// A heartbeat is due: a leader that no majority has answered for an election timeout isn't one any more. Whoever lost part of
    /// its log is no part of a majority: with it alone nothing can be committed, and clients are to hear that.
    pub(super) fn lead_on(&mut self, cx: &mut Context<'_>) {
        let since = cx.now.saturating_sub(self.config.election_timeout);
        let is_there = |progress: &Progress| progress.counts && progress.last_heard() >= since;
        if !self.is_quorum(|place| place == self.me || is_there(&self.progress[place])) {
            return self.step_down(cx);
        }
        self.heartbeat_deadline = cx.now + self.config.heartbeat;
        if self.config.lease.is_some() {
            // A round of its own: its answers are counted from this sending.
            self.round_sent += 1;
            self.note_round_sent(cx.now);
        }
        for place in self.receivers() {
            self.progress[place].note_heartbeat(STALLED_HEARTBEATS);
            self.send_heartbeat(cx, place);
        }
        self.bid_farewell();
        self.look_for_room();
        self.look_after_leadership(cx);
        self.offer_rest(cx);
    }

    /// Leads no more, and knows of nobody who does.
    pub(super) fn step_down(&mut self, cx: &mut Context<'_>) {
        self.break_promise();
        self.leader_heard = None;
        self.become_follower(cx);
    }

    /// The sender is behind: tell it, so that it steps down or catches up.
    pub(super) fn answer_the_past(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        let kind = match header.kind {
            Kind::Append | Kind::Heartbeat | Kind::Rest => Kind::HeartbeatReply,
            _ => return,
        };
        let reply = self.header(kind);
        self.send(cx, from, &reply);
    }

    /// Whether we lead, or heard from a leader so lately that nobody should start an election: that leader may count on it
    /// ([`super::lease`]), whatever has happened to our term since.
    fn has_live_leader(&self, cx: &Context<'_>) -> bool {
        self.role == Role::Leader
            || self.leader_heard.is_some_and(|heard| cx.now < heard + self.config.election_timeout)
    }

    pub(super) fn reset_election_deadline(&mut self, now: Nanos) {
        self.wait_for_election(now, self.config.election_timeout);
    }

    /// An election is on: gives it time. Votes wait for disks, and one that is slower than the timeout would be overtaken by the next
    /// term for ever; so each term in a row that had no leader gets twice the time of the one before, up to eight times.
    fn give_election_time(&mut self, now: Nanos) {
        let doublings = self.leaderless_terms.saturating_sub(1).min(3);
        self.wait_for_election(now, self.config.election_timeout << doublings);
    }

    fn wait_for_election(&mut self, now: Nanos, timeout: Nanos) {
        let (rank, ranks) = self.rank(self.me);
        let (share, begin) = if ranks == 1 {
            (timeout, 0)
        } else {
            // Who should lead comes first, and each has a time of its own: that makes split votes rare, so half the range is enough.
            // The first share is nobody's: others heard the leader a little later, and don't vote before they have waited as long.
            let share = timeout / 2 / (ranks as u64 + 1);
            (share, (rank as u64 + 1) * share)
        };
        self.election_deadline = now + timeout + begin + self.rng.below(share.max(1));
    }

    fn clear_votes(&mut self) {
        self.votes.iter_mut().for_each(|vote| *vote = None);
    }

    fn has_won(&self) -> bool {
        self.is_quorum(|place| self.votes[place] == Some(true))
    }

    pub(super) fn broadcast(&self, cx: &mut Context<'_>, header: &Header) {
        for place in self.group_of.others {
            self.send(cx, place, header);
        }
    }
}
