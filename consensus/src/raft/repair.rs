//! A replica that lost part of its log, and how it becomes a voter again.
//!
//! What its disk still has is its state of an earlier moment. Since then it may have acknowledged entries and promised
//! votes; others rely on them. So until it has made up for that, it takes entries, but neither votes nor campaigns, and
//! nobody counts its acknowledgements or its confirmation of reads. It is mended when
//!
//! 1. a leader that a majority *without this replica* confirmed after it had asked has told it how long its log was then,
//!    and this replica's log agrees with its leader's that far and is durable: with that it has every entry that could
//!    ever be committed by its former acknowledgements (a leader of a later term was elected after the question, when
//!    this replica didn't vote, so its voters and that majority meet in somebody else);
//! 2. if a vote may be lost: every other member has told its term. Whoever holds such a vote was a candidate, so it is
//!    in that vote's term or in a later one: the replica goes to the highest of them, and counts its vote there as given.
//!
//! Then it logs that it is whole, and once that is durable it is a voter as any other. The answers carry the number that
//! this life of the replica drew, so those to a former life don't count.
//!
//! After Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage" (FAST 2018), simplified: nothing is kept
//! from behind the damage, so nothing has to be told apart.

use super::{Context, Deferred, Raft, Role};
use crate::message::{Header, Kind};
use crate::progress::Progress;
use flotilla_runtime::Nanos;
use flotilla_storage::Damage;

/// What a damaged replica still has to learn.
#[derive(Debug)]
pub(super) struct Repairing {
    /// Of this life: what the answers are to.
    nonce: u64,
    vote_lost: bool,
    /// The terms that the members have told.
    terms: Vec<Option<u64>>,
    /// (Term, index): how far this replica must have the log of that term's leader.
    target: Option<(u64, u64)>,
    /// When and in which term the question was asked last.
    asked: Option<(Nanos, u64)>,
    /// The record that all is well is on its way to disk.
    is_over: bool,
}

impl Repairing {
    pub(super) fn new(damage: &Damage, members: usize, nonce: u64) -> Self {
        Self {
            nonce,
            vote_lost: damage.vote_lost,
            terms: vec![None; members],
            target: None,
            asked: None,
            is_over: false,
        }
    }
}

/// What a leader knows of a replica that asked for repair.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The number of the question.
    nonce: u64,
    /// How long our log was then.
    index: u64,
    /// When this read round is confirmed, we led when it asked.
    round: u64,
    is_answered: bool,
}

impl Raft {
    /// Whether this replica lost part of its log and isn't a voter until it has got it back.
    pub fn is_repairing(&self) -> bool {
        self.repairing.is_some()
    }

    /// Asks everybody: who leads, and what must I have?
    pub(super) fn ask_for_repair(&mut self, cx: &mut Context<'_>) {
        self.reset_election_deadline(cx.now);
        let term = self.term;
        let Some(repairing) = &mut self.repairing else { return };
        repairing.asked = Some((cx.now, term));
        let header = Header { aux: repairing.nonce, ..self.header(Kind::Repair) };
        self.broadcast(cx, &header);
    }

    /// A member asks. Everybody tells its term; a leader tells what is needed as soon as it is sure that it leads.
    pub(super) fn on_repair(&mut self, cx: &mut Context<'_>, from: usize, header: &Header) {
        if self.role != Role::Leader {
            let reply = Header { aux: header.aux, ..self.header(Kind::RepairReply) };
            return self.send(cx, from, &reply);
        }
        let last = self.log.last_index();
        let progress = &mut self.progress[from];
        match &mut progress.asked {
            Some(asked) if asked.nonce == header.aux => asked.is_answered = false,
            _ => {
                // What it acknowledged before doesn't say any more what it has.
                *progress = Progress::new(last + 1, cx.now);
                self.round_wanted = self.round_sent + 1;
                let round = self.round_wanted;
                progress.asked = Some(Asked { nonce: header.aux, index: last, round, is_answered: false });
                progress.counts = false;
            }
        }
    }

    /// Leader: answers those whose question was followed by a confirmed round.
    pub(super) fn answer_repairs(&mut self, cx: &mut Context<'_>) {
        for place in 0..self.progress.len() {
            let Some(asked) = &mut self.progress[place].asked else { continue };
            if asked.is_answered || asked.round > self.round_confirmed {
                continue;
            }
            asked.is_answered = true;
            let (nonce, index) = (asked.nonce, asked.index);
            let reply = Header { flag: true, aux: nonce, index, ..self.header(Kind::RepairReply) };
            self.send(cx, place, &reply);
        }
    }

    pub(super) fn on_repair_reply(&mut self, from: usize, header: &Header) {
        let Some(repairing) = &mut self.repairing else { return };
        if header.aux != repairing.nonce {
            return;
        }
        repairing.terms[from] = repairing.terms[from].max(Some(header.term));
        if header.flag && header.term == self.term {
            repairing.target = Some((header.term, header.index));
        }
    }

    /// Leader: a replica that isn't whole has entries up to here. That paces what is sent, and counts for nothing else.
    pub(super) fn on_repair_ack(&mut self, cx: &Context<'_>, from: usize, header: &Header) {
        if self.role != Role::Leader {
            return;
        }
        let index = header.index.min(self.log.last_index());
        let progress = &mut self.progress[from];
        progress.counts = false;
        progress.heard = cx.now;
        progress.acknowledged(index, cx.now);
    }

    /// Logs that this replica is whole, if it is.
    pub(super) fn finish_repair(&mut self, cx: &mut Context<'_>) {
        let agreed = self.durable.min(self.matched);
        let (me, term, patience) = (self.me, self.term, self.config.election_timeout);
        let Some(repairing) = &mut self.repairing else { return };
        let has_log = repairing.target.is_some_and(|(of, index)| of == term && index <= agreed);
        let told = repairing.terms.iter().enumerate().all(|(place, told)| place == me || told.is_some());
        if repairing.is_over {
            return;
        }
        if !has_log || (repairing.vote_lost && !told) {
            // Another leader has another answer, and answers get lost.
            if repairing.asked.is_none_or(|(at, of)| of != term || cx.now >= at + patience) {
                self.ask_for_repair(cx);
            }
            return;
        }
        repairing.is_over = true;
        if repairing.vote_lost {
            let highest = repairing.terms.iter().copied().flatten().max().unwrap_or(0);
            if highest > self.term {
                self.enter_term(cx, highest);
            }
            self.vote = Some(self.members[self.me].peer.node);
            self.record_hard_state(cx);
        }
        let (header, payload) = Damage::record(None, self.group.0, &[]);
        cx.wal.append(&header, &payload);
        self.deferred.push_back((cx.wal.open_lsn(), Deferred::Repaired));
    }

    /// It is on our disk that this replica is whole.
    pub(super) fn repaired(&mut self) {
        self.repairing = None;
        (self.acknowledged, self.ack_due) = (0, self.matched > 0);
    }
}
