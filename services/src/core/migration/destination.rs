//! The leader of the group that a shard comes to.

use super::{Core, Kind, RETRY, Status, StepV1, Word};
use crate::core::remote::Message;
use crate::core::routes::Located;
use flotilla_runtime::{Effects, Nanos, Now};

/// Shards that arrive at a group at a time, from all others.
const ARRIVING_MAX: usize = 8;
/// A pull that brought nothing is sent again after so long: a piece may wait for the source's rate limit.
const PULL_AGAIN: Nanos = 4 * RETRY;

/// A shard that is being fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    config: u64,
    from: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next piece is to be asked for.
    Due,
    /// It was asked for then.
    Asked(Nanos),
    /// It is in the log as this entry, not applied yet.
    Proposed(u64),
}

impl Core {
    /// Asks for the next piece of whatever is arriving.
    pub(super) fn pull_in(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let group = &self.groups[place];
        let Some(talk) = self.migration.talks.get_mut(&place) else { return };
        // A former leader has begun it.
        for shard in group.shards.iter() {
            if let Status::Arriving { from } = shard.status {
                let begin = Pull { config: shard.config, from, state: State::Due };
                talk.pulls.entry(shard.number).or_insert(begin);
            }
        }
        let mut arrived: Vec<(u16, Pull)> = Vec::new();
        let mut due: Vec<u16> = Vec::new();
        talk.pulls.retain(|shard, pull| {
            if group.shards.has_had(*shard, pull.config) {
                arrived.push((*shard, *pull));
                return false;
            }
            match pull.state {
                State::Due => due.push(*shard),
                State::Asked(at) if now.monotonic >= at + PULL_AGAIN => due.push(*shard),
                // Applied, and more is to come.
                State::Proposed(index) if group.applied >= index => due.push(*shard),
                _ => {}
            }
            true
        });
        let me = group.number;
        for (shard, pull) in arrived {
            self.say(now, &Word::new(Kind::Have, shard, pull.config, (me, pull.from)), out);
        }
        for shard in due {
            self.pull(now, place, shard, out);
        }
    }

    fn pull(&mut self, now: Now, place: usize, shard: u16, out: &mut Effects<Message>) {
        let Some(talk) = self.migration.talks.get_mut(&place) else { return };
        let Some(pull) = talk.pulls.get_mut(&shard) else { return };
        pull.state = State::Asked(now.monotonic);
        let (config, from) = (pull.config, pull.from);
        let group = &self.groups[place];
        let (after, within) = match group.shards.get(shard) {
            Some(it) => it.cursor(),
            None => (None, 0),
        };
        let after = after.map(<[u8]>::to_vec);
        let within = u32::try_from(within).expect("an entry is at most 512 MiB");
        let word = Word::new(Kind::Pull, shard, config, (group.number, from));
        self.say(now, &Word { after: after.as_deref(), within, ..word }, out);
    }

    /// The leader of the source says something.
    pub(super) fn destination_hears(
        &mut self,
        now: Now,
        place: usize,
        word: &Word<'_>,
        out: &mut Effects<Message>,
    ) {
        let group = &self.groups[place];
        let has_had = group.shards.has_had(word.shard, word.config);
        let is_room = self.multi.wal().no_room_for(0).is_none();
        let Some(talk) = self.migration.talks.get_mut(&place) else { return };
        match word.kind {
            _ if has_had => self.answer_word(now, word, Kind::Have, out),
            Kind::Ask if talk.pulls.len() < ARRIVING_MAX && is_room => {
                self.answer_word(now, word, Kind::Ready, out);
            }
            Kind::Offer => {
                // Its source's log says so, and this node's replica of that may hear of it much later: until then clients would
                // be sent to and fro.
                self.routes.learn(Located { shard: word.shard, config: word.config, group: word.to });
                let is_known = talk.pulls.get(&word.shard).is_some_and(|pull| pull.config == word.config);
                if !is_known {
                    let pull = Pull { config: word.config, from: word.from, state: State::Due };
                    talk.pulls.insert(word.shard, pull);
                    self.groups[place].is_in_motion = true;
                    self.pull(now, place, word.shard, out);
                    self.migration.again(now.monotonic + RETRY);
                }
            }
            Kind::Piece => self.piece_came(now, place, word),
            _ => {}
        }
    }

    fn piece_came(&mut self, now: Now, place: usize, word: &Word<'_>) {
        let talk = self.migration.talks.get(&place);
        let Some(pull) = talk.and_then(|talk| talk.pulls.get(&word.shard)).copied() else { return };
        let cursor =
            self.groups[place].shards.get(word.shard).map_or((None, 0), super::super::shards::Shard::cursor);
        let is_next = cursor == (word.after, word.within as usize);
        let is_it = (pull.config, pull.from) == (word.config, word.from);
        if !is_it || !is_next || !matches!(pull.state, State::Asked(_)) {
            return;
        }
        let after = word.after.unwrap_or_default();
        let step = StepV1 {
            kind: super::PIECE,
            is_last: u8::from(word.is_last),
            clock_ms: word.clock_ms,
            within: word.within,
            has_after: u8::from(word.after.is_some()),
            after,
            bytes: word.bytes,
            ..StepV1::leave(word.shard, word.config, word.from)
        };
        // Refused: it is asked for again.
        if self.propose_step(now, place, &step).is_ok() {
            let index = self.multi.raft(place).log().last_index();
            let talk = self.migration.talks.get_mut(&place).expect("seen above");
            if let Some(pull) = talk.pulls.get_mut(&word.shard) {
                pull.state = State::Proposed(index);
            }
        }
    }
}
