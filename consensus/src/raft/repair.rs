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
//! A replica whose log was created anew has lost everything, as far as it can know: its disk may have been wiped. It begins
//! like that, too. In a new group nobody leads, so there is a third way: every other founder (if there is none, everybody it has heard of)
//! said, after it had asked, that it has never voted and has no entry, and nobody said otherwise. Then no former self of this replica
//! can have helped anybody to anything. Whoever became whole
//! in that way campaigns only when it knows that all other founders have, too ([`Founding`]): a leader that is elected sooner leaves
//! one of them behind to be mended by it, and until that is done the group doesn't survive its death. A replica that
//! isn't a voter needs nobody's term: the votes it may have given when it was one are of no use to anybody, since a whole
//! configuration without it was committed since. With a leader's answer comes the configuration in effect. `docs/raft.md`
//! has the argument.
//!
//! Then it logs that it is whole, and once that is durable it is a voter as any other. The answers carry the number that
//! this life of the replica drew, so those to a former life don't count.
//!
//! After Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage" (FAST 2018), simplified: nothing is kept
//! from behind the damage, so nothing has to be told apart.

use super::{Context, Deferred, Raft, Role};
use crate::message::{Header, Kind, Message};
use crate::progress::Progress;
use flotilla_runtime::Nanos;
use flotilla_storage::Damage;
use std::collections::{BTreeMap, BTreeSet};

/// What a damaged replica still has to learn.
#[derive(Debug)]
pub(super) struct Repairing {
    /// Of this life: what the answers are to.
    nonce: u64,
    vote_lost: bool,
    /// The terms that the others have told, by place, and whether they have never voted and have no entry.
    told: BTreeMap<usize, (u64, bool)>,
    /// (Term, index): how far this replica must have the log of that term's leader.
    target: Option<(u64, u64)>,
    /// When and in which term the question was asked last.
    asked: Option<(Nanos, u64)>,
    /// The record that all is well is on its way to disk.
    is_over: bool,
    /// It is, because the group is new.
    is_new: bool,
}

impl Repairing {
    pub(super) fn new(damage: &Damage, nonce: u64) -> Self {
        Self {
            nonce,
            vote_lost: damage.vote_lost,
            told: BTreeMap::new(),
            target: None,
            asked: None,
            is_over: false,
            is_new: false,
        }
    }

    /// Somebody else has this place now.
    pub(super) fn forget(&mut self, place: usize) {
        self.told.remove(&place);
    }
}

/// How far a replica is that answers, or asks: a number in the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// It has voted, or has entries.
    Begun = 0,
    /// Neither; and it isn't whole.
    Blank = 1,
    /// Neither; and it may vote.
    Ready = 2,
}

impl Readiness {
    /// As it stands in a message; a number that we don't know says nothing good.
    fn of(number: u64) -> Self {
        match number {
            1 => Self::Blank,
            2 => Self::Ready,
            _ => Self::Begun,
        }
    }
}

/// A new group's replica that is whole, and waits for the other founders to be.
#[derive(Debug)]
pub(super) struct Founding {
    nonce: u64,
    /// The others that are, or that tell that the group has begun.
    ready: BTreeSet<usize>,
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

impl Asked {
    /// Nothing is left to say to it.
    pub(super) fn is_answered(&self) -> bool {
        self.is_answered
    }
}

impl Raft {
    /// Whether this replica lost part of its log and isn't a voter until it has got it back.
    pub fn is_repairing(&self) -> bool {
        self.repairing.is_some()
    }

    /// Asks everybody: who leads, and what must I have?
    pub(super) fn ask_for_repair(&mut self, cx: &mut Context<'_>) {
        self.reset_election_deadline(cx.now);
        if self.is_left_outside() {
            return;
        }
        let term = self.term;
        let Some(repairing) = &mut self.repairing else { return };
        repairing.asked = Some((cx.now, term));
        let header = Header { aux: repairing.nonce, ..self.header(Kind::Repair) };
        // Whoever leads may not be in the group as we know it.
        for place in (0..self.members.len()).filter(|place| *place != self.me) {
            self.send(cx, place, &header);
        }
    }

    /// A leader has told it that it isn't in the group, and nobody sends it entries: it has nothing to get back. Its questions would
    /// keep the group from resting for as long as its node is a spare one.
    fn is_left_outside(&self) -> bool {
        let is_told = self.repairing.as_ref().is_some_and(|repairing| repairing.target.is_some());
        is_told && self.leader.is_none() && !self.is_in_group()
    }

    /// Tells the other founders that we are ready, and asks whether they are.
    pub(super) fn ask_founders(&mut self, cx: &mut Context<'_>) {
        self.reset_election_deadline(cx.now);
        let Some(founding) = &self.founding else { return };
        let readiness = Readiness::Ready as u64;
        let header =
            Header { flag: true, aux: founding.nonce, commit: readiness, ..self.header(Kind::Repair) };
        self.broadcast(cx, &header);
        self.begin_if_all_are_ready();
    }

    fn note_founder(&mut self, from: usize, readiness: Readiness) {
        if let Some(founding) = &mut self.founding
            && readiness != Readiness::Blank
        {
            founding.ready.insert(from);
        }
        self.begin_if_all_are_ready();
    }

    fn begin_if_all_are_ready(&mut self) {
        if let Some(founding) = &self.founding
            && self.group_of.others.iter().all(|place| founding.ready.contains(&place))
        {
            self.founding = None;
        }
    }

    fn readiness(&self) -> Readiness {
        match (self.is_pristine(), self.is_repairing()) {
            (false, _) => Readiness::Begun,
            (true, true) => Readiness::Blank,
            (true, false) => Readiness::Ready,
        }
    }

    /// It has never voted, campaigned or taken an entry.
    fn is_pristine(&self) -> bool {
        self.term == 0 && self.log.last_index() == 0
    }

    /// Leader: what the former self of a replica acknowledged on a disk that was wiped since, and what comes late. Anybody else
    /// can take what comes: votes stay given.
    pub(super) fn is_of_a_former_self(&mut self, from: usize, incarnation: u64, kind: Kind) -> bool {
        let answers = matches!(
            kind,
            Kind::AppendReply
                | Kind::HeartbeatReply
                | Kind::SnapshotReply
                | Kind::RepairAck
                | Kind::RestReply
        );
        match self.progress.get_mut(from) {
            Some(progress) if answers => *progress.incarnation.get_or_insert(incarnation) != incarnation,
            _ => false,
        }
    }

    /// A member asks. Everybody tells its term; a leader tells what is needed as soon as it is sure that it leads.
    pub(super) fn on_repair(&mut self, cx: &mut Context<'_>, from: usize, incarnation: u64, header: &Header) {
        let is_founder = header.flag;
        if is_founder {
            self.note_founder(from, Readiness::of(header.commit));
        }
        if is_founder || self.role != Role::Leader {
            let readiness = self.readiness() as u64;
            let reply = Header { aux: header.aux, commit: readiness, ..self.header(Kind::RepairReply) };
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
                progress.asked =
                    Some(Box::new(Asked { nonce: header.aux, index: last, round, is_answered: false }));
                progress.counts = false;
                progress.incarnation = Some(incarnation);
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
            cx.outbox.send_body(self.members[place].peer, &reply, &self.membership_to_tell());
        }
    }

    pub(super) fn on_repair_reply(&mut self, cx: &mut Context<'_>, from: usize, message: &Message<'_>) {
        let header = &message.header;
        let readiness = Readiness::of(header.commit);
        if self.founding.as_ref().is_some_and(|founding| founding.nonce == header.aux) {
            self.note_founder(from, readiness);
        }
        let Some(repairing) = &mut self.repairing else { return };
        if header.aux != repairing.nonce {
            return;
        }
        let told = repairing.told.entry(from).or_insert((0, true));
        *told = (told.0.max(header.term), told.1 && readiness != Readiness::Begun);
        if !header.flag || header.term != self.term {
            return;
        }
        let target = (header.term, header.index);
        if self.learn_membership(cx, message.body)
            && let Some(repairing) = &mut self.repairing
        {
            repairing.target = Some(target);
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
        let (term, patience) = (self.term, self.config.election_timeout);
        let (is_voter, is_pristine, others) = (self.is_voter(), self.is_pristine(), self.group_of.others);
        let Some(repairing) = &mut self.repairing else { return };
        let has_log = repairing.target.is_some_and(|(of, index)| of == term && index <= agreed);
        let told = |place| repairing.told.get(&place);
        let has_terms = !repairing.vote_lost || !is_voter || others.iter().all(|place| told(place).is_some());
        // Whoever founded the group alone, as far as it can know, asks all whom it has heard of: the group may have grown since, and
        // this replica's disk may have been wiped. Whoever says that the group has begun is believed, founder or not.
        let asked_all = match others.is_empty() {
            true => (0..self.members.len()).all(|place| place == self.me || told(place).is_some()),
            false => others.iter().all(|place| told(place).is_some()),
        };
        let is_new = is_voter && is_pristine && asked_all && repairing.told.values().all(|it| it.1);
        if repairing.is_over {
            return;
        }
        if !(is_new || has_log && has_terms) {
            // Another leader has another answer, and answers get lost.
            if repairing.asked.is_none_or(|(at, of)| of != term || cx.now >= at + patience) {
                self.ask_for_repair(cx);
            }
            return;
        }
        (repairing.is_over, repairing.is_new) = (true, is_new);
        if repairing.vote_lost && !is_new {
            let highest = repairing.told.values().map(|told| told.0).max().unwrap_or(0);
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
    pub(super) fn repaired(&mut self, cx: &mut Context<'_>) {
        let was_new = self.repairing.take().filter(|repairing| repairing.is_new);
        (self.acknowledged, self.ack_due) = (0, self.matched > 0);
        if let Some(nonce) = was_new.map(|repairing| repairing.nonce)
            && self.is_pristine()
        {
            self.founding = Some(Box::new(Founding { nonce, ready: BTreeSet::new() }));
            self.ask_founders(cx);
        }
    }
}
