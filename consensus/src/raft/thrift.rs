//! Who of the followers syncs at once.
//!
//! A commit takes the disks of a majority; the syncs of the others only take the time of disks and processors. So the leader waits for
//! as few followers as make a majority with it, and an append tells the others for how long its entries may wait for a sync: they
//! write many at a time, or whenever their log is synced for somebody else. That is the "thrifty" of Moraru et al.
//! (EPaxos, SOSP 2013, §6), except that everybody gets everything: what is spared is the sync, and when one of the few is
//! slow, the others' syncs come soon enough by themselves.
//!
//! Nothing rests on it. A follower acknowledges what is durable, as ever; who is asked to be quick is only a guess at who will
//! be. Now and then all are, and whoever proves to be much faster takes another's place.

use super::places::Places;
use super::{Context, Raft};
use crate::message::{Header, Kind};
use crate::progress::{Mode, Progress};
use crate::quorum::majority;
use flotilla_runtime::Nanos;

/// Of so many rounds of appends one asks everybody to be quick.
const RACE_EVERY: u32 = 32;
/// The others wait for so many times as long as the quick ones take to answer.
const PATIENCE: Nanos = 8;
/// Who leaves an append unanswered for so many times as long isn't quick any more.
const OVERDUE: Nanos = 4 * PATIENCE;

/// Leader: whose syncs make the majority.
#[derive(Debug, Default)]
pub(super) struct Thrift {
    quick: Places,
    /// For how long the others' entries of this round may wait; 0: not at all.
    patience: Nanos,
    rounds: u32,
}

impl Raft {
    /// Leader: a round of appends begins.
    pub(super) fn choose_quick(&mut self, now: Nanos) {
        self.thrift.patience = 0;
        let most = self.config.spare_sync_wait;
        if most == 0 || self.transfer.is_some() || !self.has_steady_members() {
            return;
        }
        let few = majority(self.group_of.voters.incoming.len()) - 1;
        let is_race = self.thrift.rounds.is_multiple_of(RACE_EVERY);
        self.thrift.rounds = self.thrift.rounds.wrapping_add(1);
        let well = |place: &usize| is_well(&self.progress[*place], now);
        let quick = self.thrift.quick;
        if is_race || quick.iter().count() != few || !quick.iter().all(|place| well(&place)) {
            let mut chosen = Places::default();
            for _ in 0..few {
                let left = self.group_of.others.iter().filter(|place| !chosen.has(*place));
                // Who is quick stays so, unless another is so by a quarter.
                let takes = |place: &usize| {
                    let takes = self.progress[*place].answered_within();
                    if quick.has(*place) { takes - takes / 4 } else { takes }
                };
                let Some(next) = left.filter(well).min_by_key(takes) else { return };
                chosen.insert(next);
            }
            self.thrift.quick = chosen;
        }
        let slowest = self.thrift.quick.iter().map(|place| self.progress[place].answered_within()).max();
        if !is_race {
            self.thrift.patience = slowest.map_or(0, |takes| (takes * PATIENCE).min(most));
        }
    }

    /// For how long the entries of an append to the member at `place` may wait for a sync.
    pub(super) fn patience_with(&self, place: usize) -> Nanos {
        let Progress { mode, counts, .. } = self.progress[place];
        let is_spare = mode == Mode::Replicate && counts && !self.thrift.quick.has(place);
        if is_spare { self.thrift.patience } else { 0 }
    }

    /// Leader: what the member at `place` was told may wait is waited for now.
    pub(super) fn hurry(&mut self, cx: &mut Context<'_>, place: usize) {
        let index = self.progress[place].next - 1;
        if self.progress[place].hurry()
            && let Some(log_term) = self.log.term(index)
        {
            let header = Header { index, log_term, commit: self.commit, ..self.header(Kind::Append) };
            self.send(cx, place, &header);
        }
    }
}

/// Whether a follower answers, and in what time is known.
fn is_well(progress: &Progress, now: Nanos) -> bool {
    let takes = progress.answered_within();
    let is_overdue = progress.waits_since().is_some_and(|sent| sent + OVERDUE * takes < now);
    progress.mode == Mode::Replicate && progress.counts && progress.is_reachable && takes > 0 && !is_overdue
}
