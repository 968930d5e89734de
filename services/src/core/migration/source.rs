//! The leader of the group that a shard leaves.

use super::{Core, Kind, LEAVE, RETRY, Status, StepV1, Word};
use crate::core::remote::Message;
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::{Effects, Nanos, Now};
use flotilla_storage::snapshot::PART_HEADER_BYTES;

/// Shards under way to one group at a time.
const UNDER_WAY_MAX: usize = 2;
/// Pulls that wait for the rate limit; who isn't among them asks again.
const HELD_UP_MAX: usize = 64;

/// What was said last about a shard that leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    to: u32,
    config: u64,
    /// What was said, and when.
    said: Kind,
    said_at: Nanos,
    /// The kind of the last step that is in the log, applied or not.
    proposed: Option<u8>,
}

impl Core {
    /// Asks for, offers and goes on offering what leaves.
    pub(super) fn push_out(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let me = self.groups[place].number;
        let mut due: Vec<Word<'static>> = Vec::new();
        let Some(talk) = self.migration.talks.get_mut(&place) else { return };
        let group = &self.groups[place];
        let newest = self.configuration.number;
        let configuration = &self.configuration;
        talk.leaving.retain(|shard, it| match group.shards.get(*shard).map(|shard| shard.status) {
            Some(Status::Leaving { to }) => to == it.to,
            Some(Status::Serving) => configuration.group_of(*shard) == Some(it.to) && it.config == newest,
            _ => false,
        });
        for shard in group.shards.iter() {
            let (to, config, kind) = match shard.status {
                Status::Leaving { to } => (to, shard.config, Kind::Offer),
                Status::Serving if newest > shard.config => match self.configuration.group_of(shard.number) {
                    Some(owner) if owner != me => (owner, newest, Kind::Ask),
                    _ => continue,
                },
                _ => continue,
            };
            let under_way = talk.leaving.iter().filter(|(other, it)| **other != shard.number && it.to == to);
            if kind == Kind::Ask && under_way.count() >= UNDER_WAY_MAX {
                continue;
            }
            let new = Leaving { to, config, said: kind, said_at: 0, proposed: None };
            let said = talk.leaving.entry(shard.number).or_insert(new);
            if (said.to, said.config) != (to, config) {
                *said = new;
            }
            if said.said != kind {
                // It is frozen now: its clients wait for nothing else.
                (said.said, said.said_at) = (kind, 0);
            }
            if said.said_at == 0 || now.monotonic >= said.said_at + RETRY {
                said.said_at = now.monotonic.max(1);
                due.push(Word::new(kind, shard.number, config, (me, to)));
            }
        }
        for word in due {
            self.say(now, &word, out);
        }
    }

    /// The leader of the destination says something.
    pub(super) fn source_hears(
        &mut self,
        now: Now,
        place: usize,
        word: &Word<'_>,
        out: &mut Effects<Message>,
    ) {
        let group = &self.groups[place];
        let Some(shard) = group.shards.get(word.shard) else { return };
        let (status, config) = (shard.status, shard.config);
        let is_leaving = status == (Status::Leaving { to: word.from }) && config == word.config;
        match word.kind {
            Kind::Ready if status == Status::Serving && config < word.config => {
                self.stop_serving(now, place, word)
            }
            Kind::Pull if is_leaving => self.send_piece(now, place, word, out),
            Kind::Have if is_leaving => {
                let step = StepV1::delete(word.shard, word.config, word.from);
                self.propose_once(now, place, word, &step);
            }
            _ => {}
        }
    }

    /// The destination is there, and the configuration still says so: the shard stops being served.
    fn stop_serving(&mut self, now: Now, place: usize, word: &Word<'_>) {
        let is_current = self.configuration.number == word.config
            && self.configuration.group_of(word.shard) == Some(word.from);
        if is_current {
            let step = StepV1::leave(word.shard, word.config, word.from);
            self.propose_once(now, place, word, &step);
        }
    }

    /// Proposes the step, unless it is in the log already. It may have been lost with a log that was cut off; by then somebody
    /// else leads. Twice does no harm.
    fn propose_once(&mut self, now: Now, place: usize, word: &Word<'_>, step: &StepV1<'_>) {
        let talk = self.migration.talks.get_mut(&place).expect("made by the caller");
        let new = Leaving { to: word.from, config: word.config, said: Kind::Ask, said_at: 0, proposed: None };
        let said = talk.leaving.entry(word.shard).or_insert(new);
        if said.proposed == Some(step.kind) {
            return;
        }
        said.proposed = Some(step.kind);
        if self.propose_step(now, place, step).is_ok() {
            if step.kind == LEAVE {
                self.departs(place, word.shard);
            }
        } else {
            let talk = self.migration.talks.get_mut(&place).expect("seen above");
            if let Some(said) = talk.leaving.get_mut(&word.shard) {
                said.proposed = None;
            }
        }
    }

    /// The destination wants the next piece.
    fn send_piece(&mut self, now: Now, place: usize, word: &Word<'_>, out: &mut Effects<Message>) {
        let (piece_bytes, rate) =
            (self.config.log.snapshot_piece_bytes, self.config.log.migration_bytes_per_second);
        if now.monotonic < self.migration.next_piece_at {
            if self.migration.held_up.len() < HELD_UP_MAX {
                let mut held_up = Vec::new();
                word.encode(&mut held_up);
                self.migration.held_up.push_back(held_up);
                self.migration.again(self.migration.next_piece_at);
            }
            return;
        }
        let group = &self.groups[place];
        let Some(shard) = group.shards.get(word.shard) else { return };
        let mut bytes = Vec::new();
        let most = piece_bytes - PART_HEADER_BYTES;
        let is_last = shard.keys.read_from(word.after, word.within as usize, most, &mut bytes);
        let takes = (bytes.len() as u64 * SECOND).checked_div(rate).unwrap_or(0);
        self.migration.next_piece_at = now.monotonic + takes;
        let answer = Word {
            clock_ms: group.clock_ms,
            is_last,
            after: word.after,
            within: word.within,
            bytes: &bytes,
            ..Word::new(Kind::Piece, word.shard, word.config, (word.to, word.from))
        };
        self.say(now, &answer, out);
    }
}
