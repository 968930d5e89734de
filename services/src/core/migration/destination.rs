//! The leader of the group that a shard comes to.

use super::{Core, Kind, RETRY, Status, StepV2, Word};
use crate::core::group::Group;
use crate::core::remote::Message;
use crate::core::routes::Located;
use flotilla_runtime::{Effects, Nanos, Now};

/// Shards that arrive at a group at a time, from all others.
const ARRIVING_MAX: usize = 8;
/// A pull that brought nothing is said again after so long: a piece may wait for the source's rate limit.
const PULL_AGAIN: Nanos = 4 * RETRY;
/// A shard of which nothing has come, and nothing was heard for so long, isn't expected any more.
const FORGOTTEN_AFTER: Nanos = 20 * RETRY;

/// A shard that is being fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    config: u64,
    from: u32,
    /// What comes next: a copy, and a piece of it. Those before are in the log.
    next: (u64, u32),
    /// The last one's entry.
    index: u64,
    /// What was said to be here for good, and when.
    said: (u64, u32),
    said_at: Nanos,
    heard_at: Nanos,
    /// Something came that couldn't be taken.
    is_missing: bool,
}

impl Pull {
    fn new(now: Now, config: u64, from: u32, has: (u64, u32)) -> Self {
        Self {
            config,
            from,
            next: has,
            index: 0,
            said: has,
            said_at: 0,
            heard_at: now.monotonic,
            is_missing: false,
        }
    }
}

/// What of a shard is here for good: pieces of which copy.
fn has(group: &Group, shard: u16, config: u64, from: u32) -> (u64, u32) {
    match group.shards.get(shard) {
        Some(it) if (it.status, it.config) == (Status::Arriving { from }, config) => (it.copy, it.pieces),
        _ => (0, 0),
    }
}

impl Core {
    /// Says what is here of whatever is arriving.
    pub(super) fn pull_in(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let is_busy = self.is_busy(now);
        let group = &self.groups[place];
        let Some(talk) = self.migration.talks.get_mut(&place) else { return };
        // A former leader has begun it.
        for shard in group.shards.iter() {
            if let Status::Arriving { from } = shard.status {
                let has = (shard.copy, shard.pieces);
                talk.pulls.entry(shard.number).or_insert_with(|| Pull::new(now, shard.config, from, has));
            }
        }
        let (me, mut words) = (group.number, Vec::new());
        talk.pulls.retain(|shard, pull| {
            let word = |kind| Word::new(kind, *shard, pull.config, (me, pull.from));
            if group.shards.has_had(*shard, pull.config) {
                words.push(word(Kind::Have));
                return false;
            }
            let has = has(group, *shard, pull.config, pull.from);
            if has == (0, 0) && now.monotonic >= pull.heard_at + FORGOTTEN_AFTER {
                return false;
            }
            let in_log = group.applied < pull.index;
            if !in_log && has != pull.next {
                // What was put into the log came to nothing.
                (pull.next, pull.is_missing) = (has, true);
            }
            let waited = now.monotonic - pull.said_at.min(now.monotonic);
            let is_stuck = !in_log && waited >= if pull.is_missing { RETRY } else { PULL_AGAIN };
            if has != pull.said || is_stuck || pull.said_at == 0 {
                let again = is_stuck || (pull.is_missing && !in_log);
                let (copy, piece) = has;
                words.push(Word { copy, piece, again, is_busy, ..word(Kind::Pull) });
                (pull.said, pull.said_at) = (has, now.monotonic.max(1));
                pull.is_missing &= !again;
            }
            true
        });
        for word in words {
            self.say(now, &word, out);
        }
    }

    /// The leader of the source says something.
    pub(super) fn destination_hears(
        &mut self,
        now: Now,
        place: usize,
        word: &Word<'_>,
        out: &mut Effects<Message>,
    ) {
        let is_busy = self.is_busy(now);
        let group = &mut self.groups[place];
        let (shard, config, from) = (word.shard, word.config, word.from);
        let (me, applied) = (group.number, group.applied);
        group.is_in_motion = true;
        if group.shards.has_had(shard, config) {
            return self.say(now, &Word::new(Kind::Have, shard, config, (me, from)), out);
        }
        let has = has(group, shard, config, from);
        let held = group.shards.get(shard).map(|it| (it.status, it.config));
        let is_free = held.is_none_or(|it| match it {
            (Status::Arriving { from: other }, since) => since < config || (other, since) == (from, config),
            // It has been here before, and hasn't been deleted yet.
            (Status::Serving | Status::Leaving { .. }, _) => false,
        });
        if let (Kind::Offer, Some((Status::Arriving { from, .. }, config)), false) =
            (word.kind, held, is_free)
        {
            // Another leader had begun to send it, from elsewhere or with a later configuration. It is frozen where this comes
            // from, so nothing more will come of that. Refused: it is offered again.
            let _ = self.propose_step(now, place, &StepV2::give_up(shard, config, from));
        }
        let is_room = self.multi.wal().no_room_for(0).is_none();
        let Some(talk) = self.migration.talks.get_mut(&place) else { return };
        let others = talk.pulls.keys().filter(|other| **other != shard).count();
        let known = talk.pulls.get_mut(&shard).filter(|pull| (pull.config, pull.from) == (config, from));
        let is_known = known.is_some();
        let is_waiting = known.as_ref().is_some_and(|pull| applied >= pull.index);
        match word.kind {
            Kind::Ask | Kind::Offer => {
                if word.kind == Kind::Offer {
                    // Its source's log says so, and this node's replica of that may hear of it much later: until then clients
                    // would be sent to and fro.
                    self.routes.learn(Located { shard, config, group: me });
                }
                let may_come = word.kind == Kind::Offer || (is_free && is_room && others < ARRIVING_MAX);
                match known {
                    Some(pull) => pull.heard_at = now.monotonic,
                    None if may_come => {
                        talk.pulls.insert(shard, Pull::new(now, config, from, has));
                    }
                    None => {}
                }
                if word.kind == Kind::Ask && (may_come || is_known) {
                    let (copy, piece) = has;
                    let pull = Word::new(Kind::Pull, shard, config, (me, from));
                    self.say(now, &Word { copy, piece, again: is_waiting, is_busy, ..pull }, out);
                    if let Some(pull) = self.pull_of(place, shard) {
                        (pull.said, pull.said_at) = (has, now.monotonic.max(1));
                    }
                }
                self.pull_in(now, place, out);
                self.migration.again(now.monotonic + RETRY);
            }
            Kind::Piece if is_known => self.piece_came(now, place, word),
            // Said of what is here, and not of what another leader has begun since.
            Kind::Never if is_known && has.0 == word.copy => {
                if has == (0, 0) {
                    talk.pulls.remove(&shard);
                    return;
                }
                // Refused: it is said again.
                let _ = self.propose_step(now, place, &StepV2::give_up(shard, config, from));
            }
            _ => {}
        }
    }

    fn pull_of(&mut self, place: usize, shard: u16) -> Option<&mut Pull> {
        self.migration.talks.get_mut(&place)?.pulls.get_mut(&shard)
    }

    /// A piece goes into the log if it is the next, or the first of a newer copy.
    fn piece_came(&mut self, now: Now, place: usize, word: &Word<'_>) {
        let came = (word.copy, word.piece);
        let Some(pull) = self.pull_of(place, word.shard) else { return };
        pull.heard_at = now.monotonic;
        let is_newer = word.piece == 0 && word.copy > pull.next.0;
        if came != pull.next && !is_newer {
            // One that is in the log already does no harm.
            pull.is_missing |= came > pull.next;
            return;
        }
        let step = StepV2 {
            kind: super::PIECE,
            is_last: u8::from(word.is_last),
            clock_ms: word.clock_ms,
            copy: word.copy,
            piece: word.piece,
            bytes: word.bytes,
            ..StepV2::leave(word.shard, word.config, word.from)
        };
        let is_in_log = self.propose_step(now, place, &step).is_ok();
        let index = self.multi.raft(place).log().last_index();
        let Some(pull) = self.pull_of(place, word.shard) else { return };
        if is_in_log {
            (pull.next, pull.index) = ((word.copy, word.piece + 1), index);
        } else {
            pull.is_missing = true;
        }
    }
}
