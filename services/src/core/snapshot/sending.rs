//! A snapshot file goes to a follower, a piece at a time: the next one when it has the last on its disk.
//!
//! The follower's answers say how far it has come, so a broken link or a pause costs nothing that it has.

use super::{Core, SnapshotFile, Step};
use crate::core::remote::Message;
use flotilla_consensus::{Header, Kind, Role};
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::{DiskError, DiskReply, Effect, Effects, FileId, FileKind, Nanos, NodeId, Now, PeerId};

/// A piece that isn't answered for so long is sent again.
const PATIENCE: Nanos = SECOND / 2;
/// A follower that takes nothing for so long begins anew, with the newest snapshot: it mustn't pin the log.
const GIVEN_UP_AFTER: Nanos = 30 * SECOND;

/// A snapshot on its way to a follower.
pub(super) struct Sending {
    pub(super) file: SnapshotFile,
    /// The follower has the bytes up to here.
    offset: u64,
    /// The next ones are being read, or were sent then.
    state: State,
    /// When it last came further.
    moved_at: Nanos,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Due,
    Reading,
    SentAt(Nanos),
}

impl Sending {
    /// Its file must stay.
    fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading)
    }
}

impl Core {
    /// Leader: sends what is due to the followers that need a snapshot.
    pub(super) fn serve_followers(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let raft = self.multi.raft(place);
        let group = &mut self.snapshots.groups[place];
        let Some(newest) = group.newest.filter(|_| raft.role() == Role::Leader) else {
            return group.sending.retain(|_, sending| sending.is_reading());
        };
        let wanting: Vec<NodeId> = raft.wanting_snapshot().collect();
        let now = now.monotonic;
        group.sending.retain(|node, sending| {
            let moves = now < sending.moved_at.saturating_add(GIVEN_UP_AFTER);
            sending.is_reading() || (wanting.contains(node) && moves)
        });
        for node in wanting {
            let begin = || Sending { file: newest, offset: 0, state: State::Due, moved_at: now };
            let sending = self.snapshots.groups[place].sending.entry(node).or_insert_with(begin);
            match sending.state {
                State::SentAt(at) if now >= at + PATIENCE => {
                    if sending.offset >= sending.file.bytes {
                        // It has all of it, and yet needs it.
                        sending.offset = 0;
                    }
                    self.read_next(now, place, node, out);
                }
                State::Due => self.read_next(now, place, node, out),
                _ => {}
            }
        }
    }

    fn read_next(&mut self, now: Nanos, place: usize, to: NodeId, out: &mut Effects<Message>) {
        let rate = self.config.log.snapshot_bytes_per_second;
        let piece = self.config.log.snapshot_piece_bytes;
        if !self.snapshots.may_move(now, piece, rate) {
            return;
        }
        let Some(sending) = self.snapshots.groups[place].sending.get_mut(&to) else { return };
        sending.state = State::Reading;
        let (number, offset) = (sending.file.number, sending.offset);
        let bytes = (sending.file.bytes - offset).min(piece as u64);
        let op = self.snapshots.op_of(place, number, Step::Read(to));
        let file = FileId { kind: FileKind::Snapshot, number };
        out.push(Effect::Read { op, file, offset, bytes: u32::try_from(bytes).expect("a piece is small") });
    }

    /// The next bytes for a follower were read.
    pub(super) fn bytes_read(
        &mut self,
        now: Now,
        place: usize,
        to: NodeId,
        number: u64,
        result: Result<DiskReply, DiskError>,
        out: &mut Effects<Message>,
    ) {
        let sending = self.snapshots.groups[place].sending.get_mut(&to);
        let Some(sending) = sending.filter(|sending| sending.file.number == number) else { return };
        let bytes = match result {
            Ok(DiskReply::Read(bytes)) => bytes,
            Ok(DiskReply::Done) => unreachable!("a read brings bytes"),
            Err(error) => {
                // It is tried again after a while; if the file is damaged, another snapshot takes its place.
                tracing::warn!(%error, "a snapshot can't be sent");
                sending.state = State::SentAt(now.monotonic);
                return;
            }
        };
        sending.state = State::SentAt(now.monotonic);
        if self.multi.raft(place).role() != Role::Leader {
            return;
        }
        let SnapshotFile { index, term, bytes: length, .. } = sending.file;
        let offset = sending.offset;
        let id = self.multi.raft(place).group();
        let header = Header {
            index,
            log_term: term,
            commit: offset,
            aux: length,
            ..Header::new(Kind::Snapshot, id, 0)
        };
        self.multi.send_snapshot_part(now.monotonic, place, to, &header, &bytes);
        self.serve_followers(now, place, out);
    }

    /// A follower says how far it has come.
    pub(super) fn bytes_were_taken(
        &mut self,
        now: Now,
        place: usize,
        from: NodeId,
        header: &Header,
        out: &mut Effects<Message>,
    ) {
        let Some(sending) = self.snapshots.groups[place].sending.get_mut(&from) else { return };
        let fits = sending.file.index == header.index && header.aux <= sending.file.bytes;
        if !fits || sending.is_reading() {
            return;
        }
        if header.aux != sending.offset {
            (sending.offset, sending.moved_at) = (header.aux, now.monotonic);
        }
        if sending.offset < sending.file.bytes {
            sending.state = State::Due;
            self.serve_followers(now, place, out);
        }
    }

    /// The link to a peer broke or stands again: what was on its way is sent again.
    pub(in crate::core) fn snapshot_link_changed(&mut self, peer: PeerId) {
        for group in &mut self.snapshots.groups {
            if let Some(sending) = group.sending.get_mut(&peer.node)
                && let State::SentAt(_) = sending.state
            {
                sending.state = State::SentAt(0);
            }
        }
    }
}
