//! Shards on their way between groups: what the two leaders do so that the two logs get the entries that `shards.rs` draws.
//!
//! ```text
//!    leader of the source                             leader of the destination
//!      Ask ───────────────────────────────────────────▶
//!      ◀─────────────────────────────────────────────── Pull: I am there
//!      a large shard is copied while it is served:
//!      Piece Piece … ─────────────────────────────────▶ into the log, several at a time
//!      ◀─────────────────────────────────────────────── Pull: I have those before this one
//!      little is left:
//!      Leave into the log; from here on the shard is frozen
//!      Offer, Piece (what is left, the last) ─────────▶ into the log; applied: served
//!      ◀─────────────────────────────────────────────── Have
//!      Delete into the log
//! ```
//!
//! **All that matters is in the logs.** What is kept here is only what was said last and when, so that it can be said again: a
//! leader that restarts, or another one, looks at its shards and goes on. Every message may be lost, doubled or late. Of the copy
//! of a shard nothing is in the source's log, so another leader begins another copy; the shard is served meanwhile.
//!
//! **A shard isn't frozen before its destination has nearly all of it**: a group without a leader blocks nobody but itself.
//! Few shards are under way to a group at a time, and of each no more pieces than [`source`] says; the destination puts into
//! its log what comes in order and says what it has for good. That, and the rate limit, is the back-pressure. Neither side
//! holds more than those pieces beyond the shard itself.
//!
//! **Commands for a shard that is coming wait at its destination**, in their order, and are executed when it is there. So do those
//! for a shard that is about to go, at its source, for the time of a commit: see [`departing`].

mod announce;
mod departing;
mod destination;
mod pace;
mod source;
mod waiting;
mod wire;

use super::remote::Message;
use super::routes::Located;
use super::shards::{Piece, Status, Taken};
use super::topology::{CONTROLLER, Way, id_of};
use super::{Core, channel};
use crate::kv::Keyspace;
use crate::migration::{ArchivedStepV2, DELETE, GIVE_UP, LEAVE, PIECE, SCHEMA_STEP_V2, StepV2};
pub(super) use departing::Departing;
use destination::Pull;
use flotilla_consensus::{Refused, Role};
use flotilla_runtime::machine::MILLISECOND;
use flotilla_runtime::{Effect, Effects, Nanos, NodeId, Now, PeerId};
use pace::Pace;
use source::Leaving;
use std::collections::{BTreeMap, VecDeque};
pub(super) use waiting::Awaited;
use wire::{Kind, Word};

/// What wasn't answered for so long is said again.
const RETRY: Nanos = 50 * MILLISECOND;

/// What a leader has said about its shards. Nothing of it need survive.
#[derive(Debug, Default)]
struct Talk {
    /// In which term; another one begins anew.
    term: u64,
    /// Copies that were begun in it.
    copies: u32,
    leaving: BTreeMap<u16, Leaving>,
    pulls: BTreeMap<u16, Pull>,
}

/// The migrations of a core.
#[derive(Debug, Default)]
pub(crate) struct Migration {
    /// By the place of the group.
    talks: BTreeMap<usize, Talk>,
    /// For groups of this same core.
    inbox: VecDeque<Vec<u8>>,
    outgoing: BTreeMap<PeerId, Vec<u8>>,
    /// Something has changed that every group must look at.
    is_woken: bool,
    /// When what was said is said again.
    again_at: Option<Nanos>,
    pace: Pace,
}

impl Migration {
    /// Every group looks at its shards in this turn.
    pub(super) fn wake(&mut self) {
        self.is_woken = true;
    }

    /// The group that a shard of the one at `place`, which is served still, is being copied to.
    pub(super) fn copies_to(&self, place: usize, shard: u16) -> Option<u32> {
        self.talks.get(&place)?.leaving.get(&shard)?.copies_to()
    }

    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.again_at
    }

    fn again(&mut self, at: Nanos) {
        self.again_at = Some(self.again_at.map_or(at, |before| before.min(at)));
    }
}

impl Core {
    /// Whether a shard of the group at `place` comes, or is being copied to where it goes.
    pub(super) fn is_shard_on_its_way(&self, place: usize) -> bool {
        let goes = |talk: &Talk| talk.leaving.values().any(|it| it.copies_to().is_some());
        self.groups[place].shards.iter().any(|shard| matches!(shard.status, Status::Arriving { .. }))
            || self.migration.talks.get(&place).is_some_and(goes)
    }

    /// An entry about a shard is applied.
    pub(super) fn apply_step(
        &mut self,
        place: usize,
        index: u64,
        step: &ArchivedStepV2<'_>,
        out: &mut Effects<Message>,
    ) {
        let (shard, config, peer) = (step.shard.to_native(), step.config.to_native(), step.group.to_native());
        let group = &mut self.groups[place];
        let me = group.number;
        match step.kind {
            LEAVE => {
                group.departing.applied(shard, index);
                if group.shards.leave(index, shard, config, peer) {
                    self.routes.learn(Located { shard, config, group: peer });
                }
            }
            PIECE => {
                // Whatever becomes of the piece: a snapshot that has it must lead to the same clock.
                group.clock_ms = group.clock_ms.max(step.clock_ms.to_native());
                let piece = Piece {
                    shard,
                    config,
                    from: peer,
                    copy: step.copy.to_native(),
                    piece: step.piece.to_native(),
                    is_last: step.is_last != 0,
                    bytes: &step.bytes,
                };
                match group.shards.take_piece(index, &piece) {
                    Taken::Some { is_whole, former } => {
                        group.moved_bytes += piece.bytes.len() as u64;
                        if is_whole {
                            group.moved_in += 1;
                            self.routes.learn(Located { shard, config, group: me });
                        }
                        self.put_away(place, shard, former, out);
                    }
                    Taken::Bad(keys) => {
                        tracing::error!(
                            shard,
                            from = peer,
                            "a shard that arrives makes no sense: begun again"
                        );
                        self.put_away(place, shard, Some(keys), out);
                    }
                    Taken::Not => {}
                }
            }
            DELETE => {
                let keys = group.shards.delete(index, shard, config);
                self.put_away(place, shard, keys, out);
            }
            GIVE_UP => {
                let keys = group.shards.give_up(index, shard, config, peer);
                self.put_away(place, shard, keys, out);
            }
            kind => unreachable!("a step of kind {kind} was refused when it was read"),
        }
        self.groups[place].is_in_motion = true;
    }

    /// Data of a shard that nobody needs any more, and no snapshot can go on reading.
    fn put_away(&mut self, place: usize, shard: u16, keys: Option<Keyspace>, out: &mut Effects<Message>) {
        if let Some(keys) = keys {
            self.give_up_taking_of(place, shard, out);
            self.graveyard.put(keys);
        }
    }

    /// Looks after the shards of a group: called whenever something happened to it.
    pub(super) fn settle_migration(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let raft = self.multi.raft(place);
        let (term, leads) = (raft.term(), raft.role() == Role::Leader);
        if leads {
            self.announce(now, place);
        }
        let group = &mut self.groups[place];
        if group.number == CONTROLLER {
            return self.found_controller(now, place);
        }
        if !leads {
            group.is_in_motion = true;
            self.end_talk(place);
            return self.release_all(now, place, out);
        }
        let is_new = self.migration.talks.get(&place).is_none_or(|talk| talk.term != term);
        if !is_new && !group.is_in_motion {
            return;
        }
        if is_new {
            self.end_talk(place);
            self.migration.talks.insert(place, Talk { term, ..Talk::default() });
        }
        self.look_at_shards(now, place, out);
    }

    /// Nothing that was said matters any more.
    fn end_talk(&mut self, place: usize) {
        let Some(talk) = self.migration.talks.remove(&place) else { return };
        for shard in talk.leaving.into_keys() {
            self.end_copy(place, shard);
        }
    }

    /// Leader: says and does what is due about every shard.
    fn look_at_shards(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        self.release_arrived(now, place, out);
        self.push_out(now, place, out);
        self.pull_in(now, place, out);
        let group = &self.groups[place];
        let configuration = &self.configuration;
        let is_home = |shard: &super::shards::Shard| {
            let owner = configuration.group_of(shard.number);
            let is_mine = owner.is_none_or(|owner| owner == group.number);
            shard.is_serving() && (is_mine || shard.config >= configuration.number)
        };
        // A pull that was lost has left no trace in the shards yet.
        let pulls = self.migration.talks.get(&place).is_some_and(|talk| !talk.pulls.is_empty());
        let is_settled = !pulls && group.shards.iter().all(is_home) && group.early.is_empty();
        self.groups[place].is_in_motion = !is_settled;
        if !is_settled {
            self.migration.again(now.monotonic + RETRY);
        }
    }

    /// Once a turn: news for all groups, and what groups of this core say to each other.
    pub(super) fn migrate(&mut self, now: Now, out: &mut Effects<Message>) {
        if std::mem::take(&mut self.migration.is_woken) {
            for place in 0..self.groups.len() {
                self.groups[place].is_in_motion = true;
                self.settle_migration(now, place, out);
            }
        }
        // What answers what was said in this turn is heard in the next one.
        for frame in std::mem::take(&mut self.migration.inbox) {
            self.migration_frame(now, self.config.node_id(), &frame, out);
        }
        for (to, frame) in std::mem::take(&mut self.migration.outgoing) {
            out.push(Effect::Send { to, frame });
        }
    }

    /// Time has passed: what wasn't answered is said again.
    pub(super) fn tick_migration(&mut self, now: Now, out: &mut Effects<Message>) {
        if self.migration.again_at.is_none_or(|at| at > now.monotonic) {
            return;
        }
        self.migration.again_at = None;
        for place in 0..self.groups.len() {
            self.settle_migration(now, place, out);
        }
    }

    /// Says something to whoever leads a group, if that is known and there is a way.
    fn say(&mut self, now: Now, word: &Word<'_>, out: &mut Effects<Message>) {
        let encoded = || {
            let mut bytes = Vec::with_capacity(word.len());
            word.encode(&mut bytes);
            bytes
        };
        match self.way_to(word.to) {
            Some(Way::Here) => {
                self.migration.inbox.push_back(encoded());
                self.migration.again(now.monotonic);
            }
            Some(Way::Core(core)) => {
                out.push(Effect::Mesh { to: core, message: Message::Migration(encoded()) });
            }
            Some(Way::Peer(peer)) if self.remote.is_up(peer) => {
                let frame = self.migration.outgoing.entry(peer).or_insert_with(|| vec![channel::MIGRATION]);
                frame.reserve(word.len());
                word.encode(frame);
                if word.kind == Kind::Piece {
                    // One to a frame: what is short and urgent needn't wait behind several.
                    let frame = self.migration.outgoing.remove(&peer).expect("it was put there");
                    out.push(Effect::Send { to: peer, frame });
                }
            }
            _ => {}
        }
    }

    /// Words from another leader; anything malformed ends the frame with a warning.
    pub(super) fn migration_frame(
        &mut self,
        now: Now,
        from: NodeId,
        mut frame: &[u8],
        out: &mut Effects<Message>,
    ) {
        while let Some((word, rest)) = Word::decode(frame) {
            frame = rest;
            if word.kind == Kind::Announce {
                self.hear_announcement(from, &word, out);
                self.release_rerouted(now, out);
                continue;
            }
            let place = self.multi.place_of(id_of(word.to)).filter(|_| word.to != CONTROLLER);
            let leads = |place: &usize| self.multi.raft(*place).role() == Role::Leader;
            let Some(place) = place.filter(leads) else { continue };
            if word.shard >= self.config.shards || word.from >= self.config.groups_total() {
                continue;
            }
            let term = self.multi.raft(place).term();
            self.migration.talks.entry(place).or_insert_with(|| Talk { term, ..Talk::default() });
            match word.kind {
                Kind::Pull | Kind::Have => self.source_hears(now, place, &word, out),
                _ => self.destination_hears(now, place, &word, out),
            }
        }
        if !frame.is_empty() {
            tracing::warn!("a malformed frame about a shard was dropped");
        }
    }

    /// Whether this core serves clients, beside the shards that move.
    fn is_busy(&mut self, now: Now) -> bool {
        self.migration.pace.look(now.monotonic, self.connections.commands_total)
    }

    fn propose_step(&mut self, now: Now, place: usize, step: &StepV2<'_>) -> Result<(), Refused> {
        let bytes_max = step.archive_bytes_max();
        let proposed = self.multi.propose(now.monotonic, place, SCHEMA_STEP_V2, bytes_max, |writer| {
            step.write(writer);
        });
        proposed.map(|_| ())
    }
}
