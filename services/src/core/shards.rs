//! The shards that one group's replica holds, and how each stands: pure, and changed by the group's log only.
//!
//! A shard is a token. It is in one group's hands from the founding on, and goes from hand to hand by entries of the two
//! logs concerned, each of which names the configuration that it follows. The numbers only grow along a shard's way.
//!
//! ```text
//!            source's log                                    destination's log
//!   Serving                                                  (not held)
//!      │  copied while it is served, if it is large            │ Piece(n), the first
//!      │ ═════════════════════════════════════════════════════▶▼
//!      │                                                    Arriving ──┐ Piece(n)
//!      ▼                                                       │ ◀─────┘
//!   Leave(n, to) ──▶ Leaving                                   │
//!                       │  frozen; what is left of the copy    │ Piece(n), the last
//!                       │ ════════════════════════════════════▶▼
//!    Delete(n) ◀────────│◀─────────── "I have it" ────────── Serving
//!   (not held, fenced up to n)
//! ```
//!
//! A copy is its source's leader's: another leader begins another one, with a higher number, and its first piece takes the place
//! of whatever had come. One that will never be ended, for the shard goes elsewhere or nowhere, is given up by an entry of the
//! destination's log, `GiveUp(n)`.
//!
//! So at most one group serves a shard, whatever anybody believes about configurations: the destination begins to only when the
//! source's log says that it has stopped, and the source never begins again but by a later arrival. What comes late, of a
//! configuration that was dealt with, is known by its number: [`Shards::has_had`].

use crate::kv::{Keyspace, ShardReader};
use crate::migration::{HeldV2, MetaV2};
use std::collections::BTreeMap;

/// In a snapshot: a shard that isn't here any more.
const GONE: u8 = 0;

/// How a shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Reads and writes are executed.
    Serving,
    /// Frozen: on its way to that group.
    Leaving { to: u32 },
    /// Some of it is here; more comes from that group.
    Arriving { from: u32 },
}

/// One shard in this group's hands.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) number: u16,
    pub(crate) status: Status,
    /// The configuration with which it came to its status.
    pub(crate) config: u64,
    pub(crate) keys: Keyspace,
    /// Arriving: the beginning of an entry that isn't here whole.
    pub(crate) pending: Vec<u8>,
    /// Arriving: which copy of it, and how many pieces of that are here.
    pub(crate) copy: u64,
    pub(crate) pieces: u32,
    /// What a restored snapshot's part of it already holds: entries up to there are not applied to it again, nor do they
    /// change how it stands.
    pub(crate) restored: u64,
}

impl Shard {
    fn new(number: u16, status: Status, config: u64) -> Self {
        let (keys, pending) = Default::default();
        Self { number, status, config, keys, pending, copy: 0, pieces: 0, restored: 0 }
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.status == Status::Serving
    }
}

/// All shards in this group's hands.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    /// By number, ascending.
    held: Vec<Shard>,
    /// Shards that have been here and were deleted: the configuration with which they went, and where to.
    fences: BTreeMap<u16, (u64, u32)>,
    /// Shards that a restored snapshot names and that were gone by their turn: what happened to them up to there isn't done again.
    gone_at: BTreeMap<u16, u64>,
    /// The newest part of a restored snapshot: until everything up to there is applied, some shards are ahead of others.
    restored: u64,
}

impl Shards {
    /// As a cluster is founded: these are served since configuration 1.
    pub(crate) fn founded(numbers: impl Iterator<Item = u16>) -> Self {
        let held = numbers.map(|number| Shard::new(number, Status::Serving, 1));
        Self { held: held.collect(), ..Self::default() }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Shard> {
        self.held.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Shard> {
        self.held.iter_mut()
    }

    pub(crate) fn serving(&self) -> impl Iterator<Item = &Shard> {
        self.held.iter().filter(|shard| shard.is_serving())
    }

    fn place(&self, number: u16) -> Result<usize, usize> {
        // Mostly they are numbered without gaps: then it is where it would be.
        let guess = usize::from(number.wrapping_sub(self.held.first().map_or(0, |first| first.number)));
        match self.held.get(guess) {
            Some(shard) if shard.number == number => Ok(guess),
            _ => self.held.binary_search_by_key(&number, |shard| shard.number),
        }
    }

    pub(crate) fn get(&self, number: u16) -> Option<&Shard> {
        self.place(number).ok().map(|place| &self.held[place])
    }

    pub(crate) fn get_mut(&mut self, number: u16) -> Option<&mut Shard> {
        self.place(number).ok().map(|place| &mut self.held[place])
    }

    /// Whether a shard that comes with this configuration has been here already: now served, or gone on.
    pub(crate) fn has_had(&self, number: u16, config: u64) -> bool {
        let here = self
            .get(number)
            .is_some_and(|shard| !matches!(shard.status, Status::Arriving { .. }) && config <= shard.config);
        here || self.fences.get(&number).is_some_and(|(fence, _)| config <= *fence)
    }

    /// Whether every shard is as it was after the entry at `applied`.
    pub(crate) fn is_plain(&self, applied: u64) -> bool {
        self.restored <= applied
    }

    /// The shard stops being served here, and goes. `false`: there is nothing to stop. `index` is the entry's.
    pub(crate) fn leave(&mut self, index: u64, number: u16, config: u64, to: u32) -> bool {
        let is_here =
            |shard: &&mut Shard| shard.is_serving() && shard.config < config && shard.restored < index;
        let Some(shard) = self.get_mut(number).filter(is_here) else { return false };
        (shard.status, shard.config) = (Status::Leaving { to }, config);
        true
    }

    /// A piece of a shard has come. `index` is its entry's.
    pub(crate) fn take_piece(&mut self, index: u64, piece: &Piece<'_>) -> Taken {
        let Piece { shard: number, config, from, copy, piece: nth, is_last, bytes } = *piece;
        if self.has_had(number, config) {
            return Taken::Not;
        }
        let mut former = None;
        let place = match self.place(number) {
            Ok(place) => {
                let shard = &self.held[place];
                let is_later = match shard.status {
                    Status::Arriving { from: source } if source == from => {
                        (config, copy) > (shard.config, shard.copy)
                    }
                    Status::Arriving { .. } => config > shard.config,
                    _ => false,
                };
                let begins = nth == 0 && is_later;
                let goes_on = (shard.status, shard.config, shard.copy, shard.pieces)
                    == (Status::Arriving { from }, config, copy, nth);
                if index <= shard.restored || !(begins || goes_on) {
                    return Taken::Not;
                }
                if begins {
                    let begun = Shard::new(number, Status::Arriving { from }, config);
                    former = Some(std::mem::replace(&mut self.held[place], begun).keys);
                }
                place
            }
            // Only its first piece begins it, unless that has come to nothing already.
            Err(_) if nth > 0 || self.gone_at.get(&number).is_some_and(|at| index <= *at) => {
                return Taken::Not;
            }
            Err(place) => {
                self.held.insert(place, Shard::new(number, Status::Arriving { from }, config));
                place
            }
        };
        let shard = &mut self.held[place];
        (shard.copy, shard.pieces) = (copy, nth + 1);
        let mut reader =
            ShardReader::resume(std::mem::take(&mut shard.keys), std::mem::take(&mut shard.pending));
        let is_good = reader.read(bytes).is_ok();
        (shard.keys, shard.pending) = reader.into_parts();
        if !is_good || (is_last && !shard.pending.is_empty()) {
            // Its source has sent what isn't a shard: begin again.
            let shard = self.held.remove(place);
            return Taken::Bad(shard.keys);
        }
        if is_last {
            shard.status = Status::Serving;
        }
        Taken::Some { is_whole: is_last, former }
    }

    /// What has come of a shard is given up, unless it is whole: what that was.
    pub(crate) fn give_up(&mut self, index: u64, number: u16, config: u64, from: u32) -> Option<Keyspace> {
        let place = self.place(number).ok()?;
        let shard = &self.held[place];
        let is_it = (shard.status, shard.config) == (Status::Arriving { from }, config);
        (is_it && index > shard.restored).then(|| self.held.remove(place).keys)
    }

    /// The shard is safe where it went: what is left of it here, if it is here.
    pub(crate) fn delete(&mut self, index: u64, number: u16, config: u64) -> Option<Keyspace> {
        let place = self.place(number).ok()?;
        let shard = &self.held[place];
        let is_it = matches!(shard.status, Status::Leaving { .. }) && shard.config == config;
        if !is_it || index <= shard.restored {
            return None;
        }
        let shard = self.held.remove(place);
        if let Status::Leaving { to } = shard.status {
            self.fences.insert(number, (config, to));
        }
        Some(shard.keys)
    }

    /// A shard that is here and has been here before: how it went, for a snapshot.
    pub(crate) fn fence_of(&self, number: u16) -> Option<HeldV2> {
        let (config, peer) = self.get(number).and_then(|_| self.fences.get(&number)).copied()?;
        Some(gone(number, config, peer))
    }

    /// How one shard stands, for a snapshot: the data aside.
    pub(crate) fn meta_of(&self, number: u16) -> HeldV2 {
        let Some(shard) = self.get(number) else {
            let (config, peer) = self.fences.get(&number).copied().unwrap_or_default();
            return gone(number, config, peer);
        };
        let (status, peer) = match shard.status {
            Status::Serving => (1, 0),
            Status::Leaving { to } => (2, to),
            Status::Arriving { from } => (3, from),
        };
        let (config, copy, pieces) = (shard.config, shard.copy, shard.pieces);
        HeldV2 { shard: number, status, peer, config, copy, pieces }
    }

    /// The shards that have been here: each with the configuration with which it went, and where to.
    pub(crate) fn gone(&self) -> impl Iterator<Item = (u16, u64, u32)> + '_ {
        self.fences.iter().map(|(shard, (config, to))| (*shard, *config, *to))
    }

    /// The same, for a snapshot.
    pub(crate) fn fences(&self) -> Vec<HeldV2> {
        self.gone().map(|(shard, config, peer)| gone(shard, config, peer)).collect()
    }

    /// Puts it together again. `parts` are the shards' data, in the order of `meta.held`; each shard stands as it did at its
    /// part's index. `None` if that can't be.
    pub(crate) fn restore(meta: &MetaV2, parts: Vec<Part>) -> Option<Self> {
        if meta.held.len() != parts.len() || !meta.held.is_sorted_by(|one, next| one.shard < next.shard) {
            return None;
        }
        let mut shards = Self::default();
        for it in &meta.fences {
            shards.fences.insert(it.shard, (it.config, it.peer));
        }
        for (it, part) in meta.held.iter().zip(parts) {
            let Part { keys, pending, index } = part;
            shards.restored = shards.restored.max(index);
            if it.status == GONE {
                shards.gone_at.insert(it.shard, index);
            }
            let status = match it.status {
                // Given up, and never here whole.
                GONE if it.config == 0 => continue,
                GONE => {
                    shards.fences.insert(it.shard, (it.config, it.peer));
                    continue;
                }
                1 => Status::Serving,
                2 => Status::Leaving { to: it.peer },
                3 => Status::Arriving { from: it.peer },
                _ => return None,
            };
            let HeldV2 { shard: number, config, copy, pieces, .. } = *it;
            shards.held.push(Shard { number, status, config, keys, pending, copy, pieces, restored: index });
        }
        Some(shards)
    }

    /// Takes all data out.
    pub(crate) fn into_keys(self) -> impl Iterator<Item = Keyspace> {
        self.held.into_iter().map(|shard| shard.keys)
    }

    /// Equal on replicas with equal data.
    pub(crate) fn state_hash(&self, seed: u64) -> u64 {
        let mut mixed = seed;
        let mut mix = |value: u64| {
            mixed = mixed.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ value;
        };
        for shard in &self.held {
            let status = match shard.status {
                Status::Serving => 0,
                Status::Leaving { to } => 1 << 33 | u64::from(to),
                Status::Arriving { from } => 1 << 34 | u64::from(from),
            };
            mix(u64::from(shard.number) << 40 ^ status);
            mix(shard.config);
            mix(shard.copy << 32 ^ u64::from(shard.pieces));
            mix(shard.keys.state_hash());
            mix(u64::from(crc32fast::hash(&shard.pending)));
        }
        for (shard, config, _) in self.gone() {
            mix(u64::from(shard) << 40 ^ config);
        }
        mixed
    }
}

/// In a snapshot: a shard that went with this configuration.
fn gone(shard: u16, config: u64, peer: u32) -> HeldV2 {
    HeldV2 { shard, status: GONE, peer, config, copy: 0, pieces: 0 }
}

/// A piece of a shard, as an entry brings it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) shard: u16,
    pub(crate) config: u64,
    pub(crate) from: u32,
    pub(crate) copy: u64,
    /// Which of the copy, from 0.
    pub(crate) piece: u32,
    pub(crate) is_last: bool,
    pub(crate) bytes: &'a [u8],
}

/// What became of a piece.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Nothing: it isn't the next one.
    Not,
    /// It is in.
    Some {
        /// It was the last: the shard is served.
        is_whole: bool,
        /// It was the first of another copy: what had come before.
        former: Option<Keyspace>,
    },
    /// It made no sense; what had come before it.
    Bad(Keyspace),
}

/// A shard's data from a snapshot.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) keys: Keyspace,
    pub(crate) pending: Vec<u8>,
    pub(crate) index: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(config: u64, (copy, piece): (u64, u32), is_last: bool, bytes: &'static [u8]) -> Piece<'static> {
        Piece { shard: 5, config, from: 1, copy, piece, is_last, bytes }
    }

    const WHOLE: fn(Taken) -> bool = |taken| matches!(taken, Taken::Some { is_whole: true, .. });
    const SOME: fn(Taken) -> bool = |taken| matches!(taken, Taken::Some { is_whole: false, .. });
    const NOT: fn(Taken) -> bool = |taken| matches!(taken, Taken::Not);

    #[test]
    fn a_shard_goes_and_comes_back_and_nothing_late_disturbs_it() {
        let mut shards = Shards::founded(4..8);
        assert!(!shards.leave(6, 5, 1, 2), "it came with that configuration");
        assert!(shards.leave(6, 5, 2, 2) && !shards.leave(7, 5, 3, 3), "it goes once");
        assert!(shards.get(5).is_some_and(|shard| !shard.is_serving()));
        assert!(shards.delete(8, 5, 3).is_none(), "of another journey");
        assert!(shards.delete(8, 5, 2).is_some() && shards.get(5).is_none());
        assert!(NOT(shards.take_piece(9, &piece(2, (1, 0), true, b""))), "fenced");
        assert!(shards.leave(9, 6, 2, 2));
        let back = Piece { shard: 6, ..piece(4, (1, 0), true, b"") };
        assert!(NOT(shards.take_piece(10, &back)), "it comes back before it was deleted");
        assert!(WHOLE(shards.take_piece(10, &piece(4, (1, 0), true, b""))));
        assert!(shards.has_had(5, 4) && shards.get(5).is_some_and(Shard::is_serving));
        assert!(NOT(shards.take_piece(11, &piece(4, (1, 0), true, b""))), "delivered twice");
        assert!(NOT(shards.take_piece(12, &piece(4, (2, 0), true, b""))), "another copy, too late");
        assert!(shards.give_up(13, 5, 4, 1).is_none(), "it is whole");
        assert!(shards.iter().map(|shard| shard.number).eq(4..8));
    }

    #[test]
    fn a_later_copy_takes_the_place_of_an_earlier_one_and_never_the_other_way_round() {
        let mut shards = Shards::default();
        assert!(SOME(shards.take_piece(1, &piece(2, (7, 0), false, b""))));
        assert!(NOT(shards.take_piece(2, &piece(2, (7, 0), false, b""))), "twice");
        assert!(NOT(shards.take_piece(3, &piece(2, (7, 2), false, b""))), "one is missing");
        assert!(SOME(shards.take_piece(4, &piece(2, (7, 1), false, b""))));
        assert!(NOT(shards.take_piece(5, &piece(2, (8, 1), false, b""))), "not from its beginning");
        assert!(SOME(shards.take_piece(6, &piece(2, (8, 0), false, b""))));
        assert!(NOT(shards.take_piece(7, &piece(2, (7, 2), true, b""))), "of the former copy");
        let other = Piece { from: 3, ..piece(2, (9, 0), true, b"") };
        assert!(NOT(shards.take_piece(8, &other)), "from elsewhere, while it isn't given up");
        assert!(shards.give_up(9, 5, 2, 3).is_none() && shards.give_up(9, 5, 2, 1).is_some());
        assert!(WHOLE(shards.take_piece(10, &other)));
    }

    #[test]
    fn a_later_configuration_begins_again() {
        let mut shards = Shards::default();
        assert!(SOME(shards.take_piece(1, &piece(2, (7, 0), false, b""))));
        let other = Piece { from: 3, ..piece(4, (1, 0), true, b"") };
        assert!(WHOLE(shards.take_piece(2, &other)));
        assert!(NOT(shards.take_piece(3, &piece(2, (7, 1), true, b""))));
    }

    #[test]
    fn garbage_instead_of_a_shard_begins_it_again() {
        let mut shards = Shards::default();
        assert!(NOT(shards.take_piece(1, &piece(2, (1, 1), true, b""))), "not the first");
        assert!(matches!(shards.take_piece(2, &piece(2, (1, 0), false, &[0xff; 40])), Taken::Bad(_)));
        assert!(shards.get(5).is_none() && !shards.has_had(5, 2));
    }

    #[test]
    fn what_had_come_to_nothing_by_its_turn_in_a_snapshot_isn_t_begun_again() {
        let meta = MetaV2 { held: vec![gone(5, 0, 0)], fences: Vec::new() };
        let part = Part { keys: Keyspace::default(), pending: Vec::new(), index: 8 };
        let mut shards = Shards::restore(&meta, vec![part]).unwrap();
        assert!(NOT(shards.take_piece(8, &piece(2, (1, 0), true, b""))));
        assert!(WHOLE(shards.take_piece(9, &piece(2, (1, 0), true, b""))));
    }

    #[test]
    fn how_it_stands_survives_a_snapshot() {
        let mut shards = Shards::founded(0..4);
        shards.leave(1, 1, 3, 7);
        shards.leave(2, 2, 3, 7);
        shards.delete(3, 2, 3);
        shards.take_piece(8, &piece(6, (1, 0), false, &[3, 0, 0]));
        let numbers: Vec<u16> = shards.iter().map(|shard| shard.number).collect();
        let held = numbers.iter().map(|number| shards.meta_of(*number)).collect();
        let meta = MetaV2 { held, fences: shards.fences() };
        let meta = MetaV2::decode(&meta.encode()).unwrap();
        let hash = shards.state_hash(0);
        let part =
            |shard: &Shard| Part { keys: shard.keys.clone(), pending: shard.pending.clone(), index: 8 };
        let parts = shards.iter().map(part).collect();
        let mut again = Shards::restore(&meta, parts).unwrap();
        assert_eq!((again.state_hash(0), again.has_had(2, 3)), (hash, true));
        assert!(!again.leave(8, 0, 9, 1) && again.leave(9, 0, 9, 1), "what the part holds isn't done again");
        assert!(!again.is_plain(7) && again.is_plain(8));
    }
}
