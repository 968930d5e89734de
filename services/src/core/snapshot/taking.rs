//! Our own state becomes a file.

use super::{Core, EndMark, RETRY_AFTER, SnapshotFile, Step};
use crate::core::remote::Message;
use crate::migration::MetaV2;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{DiskError, DiskReply, Effect, Effects, FileId, FileKind, Nanos, Now};
use flotilla_storage::snapshot::{PART_HEADER_BYTES, PartHeader, PartKind, encode};

/// While a shard comes or goes, so many times the bytes of entries make a snapshot due: it would hold a part of the shard, and soon be
/// followed by one that holds all of it.
const PATIENCE_WITH_MOVES: u64 = 4;

/// A snapshot file being written from our own state.
pub(super) struct Taking {
    pub(super) number: u64,
    began: Nanos,
    /// What the whole is good for: the index of the first shard's part.
    index: u64,
    term: u64,
    /// The shards that it will hold, ascending: those that the group had at `index`.
    shards: Vec<u16>,
    /// How they stood, those whose turn has come; and what had gone before `index`.
    meta: MetaV2,
    /// What a shard that is arriving has of an entry that isn't whole.
    pending: Vec<u8>,
    /// What comes next: the place of a shard among those, and the piece of it.
    shard: u32,
    piece: u32,
    /// When that shard's turn began: its index and term, and the group's clock.
    shard_state: (u64, u64, u64),
    /// Who was in the group at `index`, and the entry that brought that.
    membership: (u64, Vec<u8>),
    /// The controller's state at `index`.
    controller: Option<Vec<u8>>,
    offset: u64,
    /// An operation is under way; else the next may begin.
    is_busy: bool,
    /// Everything is written.
    is_over: bool,
}

impl Core {
    /// Whether the group should have another snapshot, now or as soon as that can be.
    pub(in crate::core) fn is_snapshot_due(&self, place: usize) -> bool {
        let raft = self.multi.raft(place);
        // Bytes since the newest snapshot, roughly: what it covers may still be here for a follower.
        let covered = self.snapshots.groups[place].newest.map_or(0, |newest| newest.index);
        let entries = raft.log().last_index() - raft.log().snapshot().0;
        let fresh = raft.log().last_index() - covered.max(raft.log().snapshot().0);
        let bytes = raft.log().bytes() as u64 * fresh / entries.max(1);
        let patience = || if self.is_shard_on_its_way(place) { PATIENCE_WITH_MOVES } else { 1 };
        let is_enough = bytes >= self.config.log.snapshot_after_bytes as u64
            && bytes >= patience() * self.enough_for_a_snapshot(place);
        self.groups[place].applied > covered && (is_enough || self.multi.is_pinning(place))
    }

    /// Bytes of entries that make another snapshot due. A large state is written rarely: at most four bytes of it for a byte of log.
    pub(super) fn enough_for_a_snapshot(&self, place: usize) -> u64 {
        let state: u64 = self.groups[place].shards.iter().map(|shard| shard.keys.bytes()).sum();
        (self.config.log.snapshot_after_bytes as u64).max(state / 4)
    }

    pub(super) fn take_if_due(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let group = &self.snapshots.groups[place];
        let busy = group.taking.is_some() || group.receiving.is_some() || group.marked.is_some();
        if busy || now.monotonic < group.not_before || !self.is_snapshot_due(place) {
            return;
        }
        // Every shard shows the same moment, but those that changed since their turn.
        if !self.groups[place].shards.is_plain(self.groups[place].applied) {
            return;
        }
        let number = self.snapshots.number();
        let op = self.snapshots.op_of(place, number, Step::Make);
        out.push(Effect::CreateFile { op, file: FileId { kind: FileKind::Unfinished, number }, bytes: 0 });
        self.snapshots.groups[place].taking = Some(Taking {
            number,
            began: now.monotonic,
            index: 0,
            term: 0,
            shard: 0,
            piece: 0,
            shard_state: (0, 0, 0),
            shards: Vec::new(),
            meta: MetaV2::default(),
            pending: Vec::new(),
            membership: (0, Vec::new()),
            controller: None,
            offset: 0,
            is_busy: true,
            is_over: false,
        });
    }

    /// Gives up the snapshot being taken.
    pub(super) fn give_up_taking(&mut self, place: usize, out: &mut Effects<Message>) {
        let Some(taking) = self.snapshots.groups[place].taking.take() else { return };
        // A shard whose turn hasn't begun may be frozen for somebody else.
        let number = taking.shards.get(taking.shard as usize).filter(|_| taking.piece > 0);
        if let Some(shard) = number.and_then(|number| self.groups[place].shards.get_mut(*number)) {
            shard.keys.thaw();
        }
        if !taking.is_busy {
            self.snapshots.remove(FileKind::Unfinished, taking.number, out);
        }
    }

    /// Whether the snapshot being taken has read a part of a shard, and will read the rest.
    pub(in crate::core) fn is_snapshot_reading(&self, place: usize, number: u16) -> bool {
        let taking = self.snapshots.groups[place].taking.as_ref();
        taking.is_some_and(|taking| {
            taking.piece > 0 && taking.shards.get(taking.shard as usize) == Some(&number)
        })
    }

    /// A shard is deleted: if the snapshot has read a part of it, or somebody else has, there will be no rest.
    pub(in crate::core) fn give_up_taking_of(
        &mut self,
        place: usize,
        number: u16,
        out: &mut Effects<Message>,
    ) {
        self.forget_readings_of(place, Some(number));
        if self.is_snapshot_reading(place, number) {
            self.give_up_taking(place, out);
        }
    }

    pub(super) fn taking_went_on(
        &mut self,
        now: Now,
        place: usize,
        step: Step,
        result: Result<DiskReply, DiskError>,
        out: &mut Effects<Message>,
    ) {
        let taking = self.snapshots.groups[place].taking.as_mut().expect("seen by the caller");
        taking.is_busy = false;
        if let Err(error) = result {
            // Without a snapshot nothing is lost; the log stays, and another try follows.
            tracing::warn!(%error, "a snapshot was given up");
            taking.is_busy = true;
            let number = taking.number;
            self.give_up_taking(place, out);
            self.discard(number, step, out);
            self.snapshots.groups[place].not_before = now.monotonic + RETRY_AFTER;
            self.tally.snapshots.given_up += 1;
            return;
        }
        let Taking { number, began, index, term, offset: bytes, is_over, .. } = *taking;
        match step {
            Step::Rename => {
                self.snapshots.groups[place].taking = None;
                let tally = &mut self.tally.snapshots;
                (tally.taken, tally.bytes) = (tally.taken + 1, tally.bytes + bytes);
                (tally.last_bytes, tally.last_nanos) = (bytes, now.monotonic.saturating_sub(began));
                self.mark(place, SnapshotFile { number, index, term, bytes });
            }
            _ if is_over => {
                taking.is_busy = true;
                self.rename(place, number, out);
            }
            _ => self.continue_taking(now, place, out),
        }
    }

    /// Writes the next piece, or the end mark, if nothing is under way and the rate limit allows.
    pub(super) fn continue_taking(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let Some(taking) = &self.snapshots.groups[place].taking else { return };
        let is_busy = taking.is_busy;
        if is_busy || self.begun_next(place).is_some_and(|shard| self.waits_for_reading(place, shard)) {
            return;
        }
        let rate = self.config.log.snapshot_bytes_per_second;
        if !self.snapshots.may_move(now.monotonic, self.config.log.snapshot_piece_bytes, rate) {
            return;
        }
        let (header, payload) = self.next_part(place);
        let block = encode(&self.pool, &header, &payload);
        let taking = self.snapshots.groups[place].taking.as_mut().expect("seen above");
        let (number, offset) = (taking.number, taking.offset);
        taking.offset += block.len() as u64;
        taking.is_busy = true;
        taking.is_over = header.kind == PartKind::End;
        (taking.shard, taking.piece) = match header.kind {
            PartKind::Piece => (header.shard, header.piece + 1),
            _ => (header.shard + 1, 0),
        };
        // The end mark's write makes all of them durable.
        let sync = taking.is_over && !planted(Bug::RenamedBeforeSync);
        let op = self.snapshots.op_of(place, number, Step::Make);
        let file = FileId { kind: FileKind::Unfinished, number };
        out.push(Effect::Write { op, file, offset, block, sync });
    }

    /// The shard whose turn begins with the next part.
    fn begun_next(&self, place: usize) -> Option<u16> {
        let taking = self.snapshots.groups[place].taking.as_ref().filter(|taking| taking.piece == 0)?;
        match taking.shard {
            // It isn't known yet which there are.
            0 => self.groups[place].shards.iter().next().map(|shard| shard.number),
            turn => taking.shards.get(turn as usize).copied(),
        }
    }

    fn next_part(&mut self, place: usize) -> (PartHeader, Vec<u8>) {
        let raft = self.multi.raft(place);
        let group = &mut self.groups[place];
        let taking = self.snapshots.groups[place].taking.as_mut().expect("seen by the caller");
        let is_first = (taking.shard, taking.piece) == (0, 0);
        if is_first {
            taking.shards = group.shards.iter().map(|shard| shard.number).collect();
            taking.meta.fences = group.shards.fences();
            taking.controller = group.controller.as_ref().map(|controller| controller.encode());
        }
        let shards = u32::try_from(taking.shards.len()).expect("shards are few");
        if is_first || (taking.piece == 0 && taking.shard < shards) {
            let mut index = group.applied;
            if planted(Bug::SnapshotLabelledOld) && raft.log().term(index - 1).is_some() {
                index -= 1;
            }
            let term = raft.log().term(index).unwrap_or(taking.term);
            taking.shard_state = (index, term, group.clock_ms);
        }
        if is_first {
            (taking.index, taking.term) = (taking.shard_state.0, taking.shard_state.1);
            let (since, membership) = raft.membership_at(taking.index);
            taking.membership = (since, membership.encode());
        }
        let mut payload = Vec::new();
        let mut kind = PartKind::End;
        if let Some(number) = taking.shards.get(taking.shard as usize).copied() {
            if taking.piece == 0 {
                taking.meta.held.push(group.shards.meta_of(number));
                // It may have gone and come back since the first shard's turn.
                if let Some(fence) = group.shards.fence_of(number) {
                    taking.meta.fences.retain(|it| it.shard != number);
                    taking.meta.fences.push(fence);
                }
                taking.pending.clear();
                if let Some(shard) = group.shards.get_mut(number) {
                    taking.pending.clone_from(&shard.pending);
                    shard.keys.freeze();
                }
            }
            let most = self.config.log.snapshot_piece_bytes - PART_HEADER_BYTES;
            let is_last = match group.shards.get_mut(number) {
                Some(shard) => shard.keys.read_frozen(most, &mut payload),
                // It has gone since the snapshot was begun.
                None => true,
            };
            if is_last {
                payload.append(&mut taking.pending);
            }
            kind = if is_last { PartKind::LastPiece } else { PartKind::Piece };
        } else {
            let (since, membership) = &taking.membership;
            payload = EndMark::encode(*since, membership, &taking.meta, taking.controller.as_deref());
        }
        let (index, term, clock) = taking.shard_state;
        let id = raft.group().0;
        let (shard, piece) = (taking.shard, taking.piece);
        (PartHeader { kind, group: id, shard, shards, piece, index, term, clock }, payload)
    }
}
