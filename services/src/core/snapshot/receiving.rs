//! The leader's snapshot file becomes ours, and its state ours.
//!
//! Its bytes are written as they come and put together to a state aside. Only when all of them are durable, and the log
//! says so, does that state take the place of ours: at every moment a restart finds the one or the other.

use super::{Core, RETRY_AFTER, Restoring, SnapshotFile, Step};
use crate::core::group::founded_shards;
use crate::core::remote::Message;
use flotilla_consensus::SnapshotMail;
use flotilla_runtime::block::BLOCK_BYTES;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{DiskError, DiskReply, Effect, Effects, FileId, FileKind, NodeId, Now};
use flotilla_storage::snapshot::SnapshotReader;

/// A snapshot on its way from the leader.
pub(super) struct Receiving {
    pub(super) number: u64,
    from: NodeId,
    /// What it will be good for.
    index: u64,
    term: u64,
    /// Its length in bytes, and how many of them are on our disk.
    bytes: u64,
    offset: u64,
    /// Bytes that are being written.
    writing: u64,
    /// The file exists, and nothing is under way.
    is_idle: bool,
    reader: SnapshotReader,
    restoring: Restoring,
}

impl Core {
    /// Bytes of a snapshot came from the leader.
    pub(super) fn bytes_came(&mut self, now: Now, mail: SnapshotMail, out: &mut Effects<Message>) {
        let SnapshotMail { place, from, header, body } = mail;
        if header.index <= self.multi.raft(place).commit() && !planted(Bug::OlderSnapshotInstalled) {
            self.multi.needs_no_snapshot(now.monotonic, place);
            return self.give_up_receiving(place, out);
        }
        let (offset, bytes) = (header.commit, header.aux);
        let same = |receiving: &Receiving| {
            (receiving.from, receiving.index, receiving.bytes) == (from, header.index, bytes)
        };
        let is_too_soon = now.monotonic < self.snapshots.groups[place].not_before;
        match self.snapshots.groups[place].receiving.as_mut() {
            Some(receiving) if same(receiving) => {
                if !receiving.is_idle {
                    // An answer follows when what is under way has ended.
                    return;
                }
                if offset == receiving.offset && offset < bytes {
                    return self.take_bytes(place, &body, out);
                }
                let (index, offset) = (receiving.index, receiving.offset);
                self.multi.answer_snapshot_part(now.monotonic, place, from, index, offset);
            }
            _ if offset > 0 => self.multi.answer_snapshot_part(now.monotonic, place, from, header.index, 0),
            _ if is_too_soon => {
                // It is sent again.
            }
            _ => {
                self.give_up_receiving(place, out);
                self.give_up_taking(place, out);
                self.begin_receiving(place, from, (header.index, header.log_term), bytes, out);
            }
        }
    }

    fn begin_receiving(
        &mut self,
        place: usize,
        from: NodeId,
        (index, term): (u64, u64),
        bytes: u64,
        out: &mut Effects<Message>,
    ) {
        let founded = founded_shards(&self.config, self.groups[place].number);
        let number = self.snapshots.number();
        let file = FileId { kind: FileKind::Unfinished, number };
        let op = self.snapshots.op_of(place, number, Step::Make);
        out.push(Effect::CreateFile { op, file, bytes: 0 });
        self.snapshots.groups[place].receiving = Some(Receiving {
            number,
            from,
            index,
            term,
            bytes,
            offset: 0,
            writing: 0,
            is_idle: false,
            reader: SnapshotReader::new(file),
            restoring: Restoring::new(founded, false),
        });
    }

    /// What comes no more isn't waited for: while it is, no snapshot of our own is taken, and the log only grows. Its leader
    /// leads no more, or the log has caught up by itself.
    pub(super) fn give_up_what_comes_no_more(&mut self, place: usize, out: &mut Effects<Message>) {
        let raft = self.multi.raft(place);
        let Some(receiving) = &self.snapshots.groups[place].receiving else { return };
        let has_caught_up = receiving.index <= raft.commit() && !planted(Bug::OlderSnapshotInstalled);
        if has_caught_up || raft.leader().is_some_and(|leader| leader != receiving.from) {
            self.give_up_receiving(place, out);
        }
    }

    fn give_up_receiving(&mut self, place: usize, out: &mut Effects<Message>) {
        let Some(receiving) = self.snapshots.groups[place].receiving.take() else { return };
        if receiving.is_idle {
            self.snapshots.remove(FileKind::Unfinished, receiving.number, out);
        }
        receiving.restoring.into_keys().for_each(|keys| self.graveyard.put(keys));
    }

    /// Writes the bytes that come next, and puts together what they hold.
    fn take_bytes(&mut self, place: usize, body: &[u8], out: &mut Effects<Message>) {
        let group = self.multi.raft(place).group().0;
        let receiving = self.snapshots.groups[place].receiving.as_mut().expect("seen by the caller");
        let restoring = &mut receiving.restoring;
        let read = receiving.reader.read(body, |header, payload| {
            if header.group != group {
                return Err(format!("it is of group {}", header.group));
            }
            restoring.part(header, payload)
        });
        let upto = receiving.offset + body.len() as u64;
        let is_last = upto == receiving.bytes;
        let whole = receiving.reader.is_whole()
            && (restoring.index, restoring.term) == (receiving.index, receiving.term);
        let fits = !body.is_empty() && body.len().is_multiple_of(BLOCK_BYTES) && is_last == whole;
        if read.is_err() || !fits || upto > receiving.bytes {
            let error =
                read.err().map_or_else(|| "it isn't what was announced".to_owned(), |it| it.to_string());
            tracing::warn!(from = receiving.from.0, error, "a snapshot makes no sense and was dropped");
            return self.give_up_receiving(place, out);
        }
        let (number, offset) = (receiving.number, receiving.offset);
        (receiving.writing, receiving.is_idle) = (body.len() as u64, false);
        let op = self.snapshots.op_of(place, number, Step::Make);
        let file = FileId { kind: FileKind::Unfinished, number };
        out.push(Effect::Write { op, file, offset, block: self.pool.copy_of(body), sync: is_last });
    }

    pub(super) fn receiving_went_on(
        &mut self,
        now: Now,
        place: usize,
        step: Step,
        result: Result<DiskReply, DiskError>,
        out: &mut Effects<Message>,
    ) {
        let receiving = self.snapshots.groups[place].receiving.as_mut().expect("seen by the caller");
        receiving.is_idle = true;
        if let Err(error) = result {
            tracing::warn!(%error, "a snapshot from the leader was given up");
            receiving.is_idle = false;
            let number = receiving.number;
            self.give_up_receiving(place, out);
            self.discard(number, step, out);
            self.snapshots.groups[place].not_before = now.monotonic + RETRY_AFTER;
            return;
        }
        if let Step::Rename = step {
            return self.install(now, place, out);
        }
        receiving.offset += std::mem::take(&mut receiving.writing);
        let (number, from, index, offset) =
            (receiving.number, receiving.from, receiving.index, receiving.offset);
        self.multi.answer_snapshot_part(now.monotonic, place, from, index, offset);
        let receiving = self.snapshots.groups[place].receiving.as_mut().expect("seen above");
        if offset == receiving.bytes {
            receiving.is_idle = false;
            self.rename(place, number, out);
        }
    }

    /// The file is durable and has its name: its state becomes ours.
    fn install(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let receiving = self.snapshots.groups[place].receiving.take().expect("seen by the caller");
        let Receiving { number, from, index, term, bytes, restoring, .. } = receiving;
        let mut replaced: Vec<_> = Vec::new();
        if index <= self.multi.raft(place).commit() && !planted(Bug::OlderSnapshotInstalled) {
            // The log caught up by itself meanwhile.
            self.snapshots.remove(FileKind::Snapshot, number, out);
            self.multi.needs_no_snapshot(now.monotonic, place);
            replaced.extend(restoring.into_keys());
        } else {
            if let Some((since, membership)) = restoring.membership.clone() {
                self.multi.take_membership(now.monotonic, place, since, membership);
            }
            let lsn = self.mark(place, SnapshotFile { number, index, term, bytes });
            self.multi.install_snapshot(now.monotonic, place, index, term, lsn);
            self.forget_readings_of(place, None);
            let restored = restoring.finish().expect("the end mark is in, or the file wouldn't be whole");
            replaced.extend(self.groups[place].restore(restored, index));
            self.learn_routes(place);
            self.learn_from_controller(place);
            for origin in self.groups[place].undecided_upto(index) {
                self.abandon(origin, out);
            }
            tracing::info!(
                group = self.groups[place].number,
                index,
                bytes,
                from = from.0,
                "a snapshot was installed"
            );
        }
        replaced.into_iter().for_each(|keys| self.graveyard.put(keys));
    }
}
