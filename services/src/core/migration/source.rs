//! The leader of the group that a shard leaves.

use super::{Core, Kind, LEAVE, Migration, RETRY, Status, StepV2, Talk, Word};
use crate::core::remote::Message;
use crate::core::shards::Shard;
use flotilla_runtime::{Effects, Nanos, Now};
use std::collections::VecDeque;

/// Shards under way to one group at a time.
const UNDER_WAY_MAX: usize = 2;
/// Pieces of a shard on their way, until the destination has them for good.
const PIECES_ON_THE_WAY: usize = 12;
/// Pieces of a shard that are made in one go: everybody else waits meanwhile.
const PIECES_PER_TURN: usize = 2;
/// A piece is so much shorter than what is logged and sent at once: with what stands around it, it still fits.
const AROUND_A_PIECE: usize = 1024;
/// A shard is frozen when no more keys have changed behind its copy than pieces of so many bytes hold one each: about as many as
/// one piece holds.
const BYTES_PER_KEY: usize = 512;
/// And it is frozen however many have, if so many rounds didn't make them fewer.
const ROUNDS_MAX: u32 = 8;
/// A copy of which the destination has said nothing for so long is given up: keys that change behind it cost memory.
const GIVEN_UP_AFTER: Nanos = 40 * RETRY;
/// A destination that has said nothing for so long is asked whether it is there.
const SILENCE: Nanos = 4 * RETRY;

/// A shard that goes, and how far its leader has come with it.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    to: u32,
    config: u64,
    /// It was offered.
    is_offered: bool,
    /// When something was said or heard of it last.
    said_at: Nanos,
    heard_at: Nanos,
    /// The destination is there.
    is_ready: bool,
    /// And serves clients, too.
    is_busy: bool,
    copy: Option<Copying>,
    /// How often it lacked, one time after the other, what it had had.
    lost: u32,
    /// The kind of the last step that is in the log, applied or not.
    proposed: Option<u8>,
}

impl Leaving {
    /// The group that it is being copied to.
    pub(super) fn copies_to(&self) -> Option<u32> {
        self.copy.as_ref().map(|_| self.to)
    }
}

/// A copy of a shard that is being made.
#[derive(Debug, Default)]
struct Copying {
    /// Grows from copy to copy of a shard, whoever leads.
    id: u64,
    /// Pieces that the destination has for good.
    has: u32,
    /// Those behind, as they were made.
    pieces: VecDeque<Made>,
    /// All keys were passed: pieces that are left to make in this round.
    left_in_round: usize,
    /// Keys that had changed when it began.
    changed_at_round: usize,
    /// Rounds that began with no fewer than the one before.
    rounds: u32,
    /// What is of no key, to the end of the copy.
    ending: Option<Vec<u8>>,
    /// The last piece is made.
    is_over: bool,
}

#[derive(Debug)]
struct Made {
    clock_ms: u64,
    is_last: bool,
    bytes: Vec<u8>,
}

impl Copying {
    /// All keys were passed: whether the shard can be frozen, as far as what has changed since is concerned.
    fn is_near_its_end(&self, changed: usize, piece_bytes: usize) -> bool {
        changed <= piece_bytes / BYTES_PER_KEY || self.rounds >= ROUNDS_MAX
    }

    /// Whether another piece of what has changed is made before that. A round is a window of pieces, and ends when the destination
    /// has them.
    fn may_go_on(&mut self, changed: usize, piece_bytes: usize) -> bool {
        if self.is_near_its_end(changed, piece_bytes) {
            return false;
        }
        if self.left_in_round == 0 && self.pieces.is_empty() {
            self.left_in_round = PIECES_ON_THE_WAY;
            let before = std::mem::replace(&mut self.changed_at_round, changed);
            self.rounds += u32::from(before > 0 && changed >= before - before / 10);
        }
        self.left_in_round > 0 && self.rounds < ROUNDS_MAX
    }
}

impl Leaving {
    fn new(to: u32, config: u64) -> Self {
        Self { to, config, ..Self::default() }
    }
}

impl Core {
    /// Asks for, copies, offers and goes on offering what leaves.
    pub(super) fn push_out(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        self.note_leaving(place);
        let group = &self.groups[place];
        let me = group.number;
        let Some(talk) = self.migration.talks.get_mut(&place) else { return };
        let (mut due, mut under_way, mut given_up) = (Vec::new(), Vec::new(), Vec::new());
        for (shard, it) in &mut talk.leaving {
            let is_frozen = group.shards.get(*shard).is_some_and(|shard| !shard.is_serving());
            if !is_frozen && it.copy.is_some() && now.monotonic >= it.heard_at + GIVEN_UP_AFTER {
                (it.copy, it.is_ready) = (None, false);
                given_up.push(*shard);
            }
            let is_silent = !it.is_ready || now.monotonic >= it.heard_at + SILENCE;
            // From here on clients are sent to the destination: it hears of it no later than they do.
            let is_news = is_frozen && !std::mem::replace(&mut it.is_offered, is_frozen);
            let is_due = is_news || it.said_at == 0 || now.monotonic >= it.said_at + RETRY;
            if is_due && (is_frozen || is_silent) {
                it.said_at = now.monotonic.max(1);
                let kind = if is_frozen { Kind::Offer } else { Kind::Ask };
                due.push(Word::new(kind, *shard, it.config, (me, it.to)));
            }
            if is_frozen || it.is_ready {
                under_way.push((*shard, is_frozen));
            }
        }
        for word in due {
            self.say(now, &word, out);
        }
        for shard in given_up {
            self.end_copy(place, shard);
        }
        // Those that clients wait for come first.
        under_way.sort_by_key(|(_, is_frozen)| !is_frozen);
        for (shard, is_frozen) in under_way {
            if is_frozen {
                self.copy_on(now, place, shard, out);
            } else {
                self.go_on_serving(now, place, shard, out);
            }
        }
    }

    /// What is to leave, by the shards and by the configuration.
    fn note_leaving(&mut self, place: usize) {
        let Some(talk) = self.migration.talks.get_mut(&place) else { return };
        let group = &self.groups[place];
        let configuration = &self.configuration;
        // What has begun with an older configuration goes on, as long as the newest agrees.
        let goes = |shard: u16, it: &Leaving| match group.shards.get(shard).map(|it| (it.status, it.config)) {
            Some((Status::Leaving { to }, config)) => (to, config) == (it.to, it.config),
            Some((Status::Serving, config)) => {
                configuration.group_of(shard) == Some(it.to) && config < it.config
            }
            _ => false,
        };
        let stays: Vec<u16> =
            talk.leaving.extract_if(.., |shard, it| !goes(*shard, it)).map(|(shard, _)| shard).collect();
        for shard in group.shards.iter() {
            let (to, config) = match shard.status {
                Status::Leaving { to } => (to, shard.config),
                Status::Serving if configuration.number > shard.config => {
                    match configuration.group_of(shard.number) {
                        Some(owner) if owner != group.number => (owner, configuration.number),
                        _ => continue,
                    }
                }
                _ => continue,
            };
            let others = talk.leaving.iter().filter(|(other, it)| **other != shard.number && it.to == to);
            if shard.is_serving() && others.count() >= UNDER_WAY_MAX {
                continue;
            }
            talk.leaving.entry(shard.number).or_insert_with(|| Leaving::new(to, config));
        }
        for shard in stays {
            self.end_copy(place, shard);
        }
    }

    /// A shard that is served, and for which the destination is there: it is copied if it is large, and frozen when little is left
    /// to do.
    fn go_on_serving(&mut self, now: Now, place: usize, shard: u16, out: &mut Effects<Message>) {
        let piece_bytes = self.config.log.migration_piece_bytes;
        let is_small = |it: &Shard| it.keys.bytes() + 32 * it.keys.len() < piece_bytes as u64 / 2;
        let is_small = self.groups[place].shards.get(shard).is_some_and(is_small);
        let Some(leaving) = self.leaving(place, shard) else { return };
        if leaving.proposed == Some(LEAVE) {
            return;
        }
        if leaving.copy.is_none() && is_small {
            // All of it is as little as would be left of it.
            return self.stop_serving(now, place, shard);
        }
        self.copy_on(now, place, shard, out);
        let left = self.groups[place].shards.get(shard).and_then(|shard| shard.keys.copy_left());
        let copy = self.leaving(place, shard).and_then(|leaving| leaving.copy.as_ref());
        if let (Some(left), Some(copy)) = (left, copy)
            && left.is_through
            && copy.pieces.is_empty()
            && copy.is_near_its_end(left.changed, piece_bytes)
        {
            self.stop_serving(now, place, shard);
        }
    }

    fn leaving(&mut self, place: usize, shard: u16) -> Option<&mut Leaving> {
        self.migration.talks.get_mut(&place)?.leaving.get_mut(&shard)
    }

    /// The destination has nearly all of it: the shard stops being served.
    fn stop_serving(&mut self, now: Now, place: usize, shard: u16) {
        let Some(leaving) = self.leaving(place, shard) else { return };
        let (to, config) = (leaving.to, leaving.config);
        self.propose_once(now, place, &StepV2::leave(shard, config, to));
    }

    /// Makes and sends more of a shard's copy.
    fn copy_on(&mut self, now: Now, place: usize, shard: u16, out: &mut Effects<Message>) {
        let is_busy = self.is_busy(now);
        let log = &self.config.log;
        let (piece_bytes, [at_most, under_load]) = (log.migration_piece_bytes, log.migration_rates());
        let group = &mut self.groups[place];
        let (me, clock_ms) = (group.number, group.clock_ms);
        let Migration { talks, pace, again_at, .. } = &mut self.migration;
        let Some(talk) = talks.get_mut(&place) else { return };
        let Some(held) = group.shards.get_mut(shard) else { return };
        let is_frozen = !held.is_serving();
        let Talk { term, copies, leaving, .. } = talk;
        let Some(Leaving { to, config, copy, is_busy: is_busy_there, .. }) = leaving.get_mut(&shard) else {
            return;
        };
        if copy.is_none() || held.keys.copy_left().is_none() {
            // The first one, or what there is is good for nothing.
            held.keys.begin_copy();
            *copies += 1;
            *copy = Some(Copying { id: *term << 32 | u64::from(*copies), ..Copying::default() });
        }
        let copy = copy.as_mut().expect("it has just been made");
        let mut words = Vec::new();
        while !copy.is_over && copy.pieces.len() < PIECES_ON_THE_WAY {
            let left = held.keys.copy_left().expect("it has just been begun");
            // What changes all the time isn't sent all the time.
            if !is_frozen && left.is_through && !copy.may_go_on(left.changed, piece_bytes) {
                break;
            }
            if words.len() == PIECES_PER_TURN || now.monotonic < pace.next_at(is_frozen) {
                let next = pace.next_at(is_frozen).max(now.monotonic);
                *again_at = Some(again_at.map_or(next, |before| before.min(next)));
                break;
            }
            let most = piece_bytes - AROUND_A_PIECE.min(piece_bytes / 4);
            let mut bytes = Vec::with_capacity(most);
            let is_all = held.keys.read_copy(most, &mut bytes);
            copy.left_in_round = if is_all { 0 } else { copy.left_in_round.saturating_sub(1) };
            if is_all && is_frozen {
                let ending = copy.ending.get_or_insert_with(|| held.keys.end_of_copy());
                let room = most.saturating_sub(bytes.len()).min(ending.len());
                bytes.extend(ending.drain(..room));
                copy.is_over = ending.is_empty();
            }
            // Its own clients wait if it is frozen, and for ever if it changes faster than it is copied.
            let is_slow = (is_busy || *is_busy_there) && !is_frozen && copy.rounds == 0;
            pace.made(now.monotonic, bytes.len(), if is_slow { under_load } else { at_most }, is_frozen);
            words.push(copy.pieces.len());
            copy.pieces.push_back(Made { clock_ms, is_last: copy.is_over, bytes });
        }
        let ends = (me, *to, *config);
        self.send_pieces(now, place, (shard, ends), &words, out);
    }

    /// Sends the pieces at these places among those that the destination may not have.
    fn send_pieces(
        &mut self,
        now: Now,
        place: usize,
        (shard, (me, to, config)): (u16, (u32, u32, u64)),
        places: &[usize],
        out: &mut Effects<Message>,
    ) {
        for at in places {
            let mut word = Word::new(Kind::Piece, shard, config, (me, to));
            // It is put back at once: saying it needs the whole core.
            let Some(copy) = self.leaving(place, shard).and_then(|it| it.copy.as_mut()) else { return };
            let Some(made) = copy.pieces.get_mut(*at) else { return };
            let bytes = std::mem::take(&mut made.bytes);
            word.copy = copy.id;
            word.piece = copy.has + u32::try_from(*at).expect("pieces on their way are few");
            (word.clock_ms, word.is_last) = (made.clock_ms, made.is_last);
            self.say(now, &Word { bytes: &bytes, ..word }, out);
            let copy = self.leaving(place, shard).and_then(|it| it.copy.as_mut()).expect("it was there");
            copy.pieces[*at].bytes = bytes;
        }
    }

    /// Nobody reads a shard's copy on.
    pub(super) fn end_copy(&mut self, place: usize, shard: u16) {
        if let Some(shard) = self.groups[place].shards.get_mut(shard) {
            shard.keys.end_copy();
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
        let (to, config) = (word.from, word.config);
        let standing = self.groups[place].shards.get(word.shard).map(|shard| (shard.status, shard.config));
        match word.kind {
            Kind::Have if standing == Some((Status::Leaving { to }, config)) => {
                self.propose_once(now, place, &StepV2::delete(word.shard, config, to));
            }
            Kind::Pull => {
                self.note_leaving(place);
                self.catch_up_with(place, word);
                let goes = self.leaving(place, word.shard).map(|it| (it.to, it.config));
                if goes == Some((to, config)) {
                    return self.pulled(now, place, word, out);
                }
                // The next time that it goes it goes with the newest configuration. If it isn't here, it has been and has gone.
                let is_served = matches!(standing, Some((Status::Serving, _)));
                let is_never = !is_served || self.configuration.number > config;
                if is_never {
                    let me = self.groups[place].number;
                    let never = Word::new(Kind::Never, word.shard, config, (me, to));
                    self.say(now, &Word { copy: word.copy, ..never }, out);
                }
            }
            _ => {}
        }
    }

    /// An earlier leader had begun to send a shard with a later configuration than this one has: it is sent with the newest.
    fn catch_up_with(&mut self, place: usize, word: &Word<'_>) {
        let newest = self.configuration.number;
        let is_served = self.groups[place].shards.get(word.shard).is_some_and(Shard::is_serving);
        let Some(leaving) = self.leaving(place, word.shard).filter(|_| is_served) else { return };
        let is_behind = leaving.to == word.from && leaving.config < word.config && word.config <= newest;
        if is_behind && leaving.proposed.is_none() {
            *leaving = Leaving::new(word.from, newest);
            self.end_copy(place, word.shard);
        }
    }

    /// The destination is there, and says what it has.
    fn pulled(&mut self, now: Now, place: usize, word: &Word<'_>, out: &mut Effects<Message>) {
        let Some(leaving) = self.leaving(place, word.shard) else { return };
        (leaving.is_ready, leaving.is_busy, leaving.heard_at) = (true, word.is_busy, now.monotonic);
        let ends = (word.to, leaving.to, leaving.config);
        if let Some(copy) = &mut leaving.copy {
            if copy.id == word.copy {
                while copy.has < word.piece && copy.pieces.pop_front().is_some() {
                    copy.has += 1;
                }
            }
            // Of another copy it has something, of this one nothing.
            let is_of_use = if copy.id == word.copy { copy.has == word.piece } else { copy.has == 0 };
            leaving.lost = if is_of_use { 0 } else { leaving.lost + u32::from(word.again) };
            if leaving.lost > 1 {
                // It isn't one that came late: what it had is gone, and is made anew.
                (leaving.copy, leaving.lost) = (None, 0);
            } else if word.again && is_of_use {
                let all: Vec<usize> = (0..copy.pieces.len()).collect();
                self.send_pieces(now, place, (word.shard, ends), &all, out);
            }
        }
        self.groups[place].is_in_motion = true;
        self.push_out(now, place, out);
    }

    /// Proposes the step, unless it is in the log already. It may have been lost with a log that was cut off; by then somebody
    /// else leads. Twice does no harm.
    fn propose_once(&mut self, now: Now, place: usize, step: &StepV2<'_>) {
        let Some(leaving) = self.leaving(place, step.shard) else { return };
        if leaving.proposed == Some(step.kind) {
            return;
        }
        if self.propose_step(now, place, step).is_ok() {
            if let Some(leaving) = self.leaving(place, step.shard) {
                leaving.proposed = Some(step.kind);
            }
            if step.kind == LEAVE {
                self.departs(place, step.shard);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_faster_than_it_is_sent_is_frozen_after_some_rounds() {
        let mut copy = Copying::default();
        assert!(!copy.may_go_on(512, 512 * BYTES_PER_KEY), "little is left");
        let mut pieces = 0;
        while copy.may_go_on(100_000, 256 << 10) && pieces < 1_000 {
            // The destination has each at once.
            copy.left_in_round -= 1;
            pieces += 1;
        }
        assert_eq!((copy.rounds, pieces), (ROUNDS_MAX, ROUNDS_MAX as usize * PIECES_ON_THE_WAY));
    }

    #[test]
    fn rounds_go_on_as_long_as_less_is_left_in_each() {
        let mut copy = Copying::default();
        let mut changed = 1_000_000;
        while changed > 600 {
            assert!(copy.may_go_on(changed, 256 << 10), "{changed} after {} rounds", copy.rounds);
            (copy.left_in_round, changed) = (0, changed * 4 / 5);
        }
    }
}
