//! A simulated disk: what is durable, and what a crash may do to the rest.
//!
//! It gives the results that the real driver gives, errors included: `sim/tests/disks/disk_effects.rs` holds both to one table.

use crate::faults::{Fault, Tally};
use crate::rng::Rng;
use crate::swarm::{Loses, Rots};
use flotilla_runtime::block::BLOCK_BYTES;
use flotilla_runtime::{BlockPool, DiskError, DiskReply, Effect, FileId, FileKind, OpId, Slice};
use rustix::io::Errno;
use std::collections::BTreeMap;

/// What a disk tears at.
const SECTOR_BYTES: usize = 512;

/// Something that was asked of the disk and isn't durable yet.
#[derive(Clone, Debug)]
struct Pending {
    number: u64,
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

impl File {
    fn length(&self) -> usize {
        let ends = self.pending.iter().map(|write| write.offset + write.bytes.len());
        ends.fold(self.durable.len(), usize::max)
    }
}

/// What completes an operation.
#[derive(Clone, Debug)]
pub enum Action {
    /// A write; with `sync` it is durable then, and so is every write of the file that completed before.
    Write {
        /// The file.
        file: FileId,
        /// The write's number.
        number: u64,
        /// Whether it syncs.
        sync: bool,
    },
    /// Every write up to this number is durable.
    Sync {
        /// The file.
        file: FileId,
        /// The last write covered.
        upto: u64,
    },
    /// What is there, durable or not.
    Read {
        /// The file.
        file: FileId,
        /// Where from.
        offset: u64,
        /// How much, if it is there.
        bytes: u32,
    },
    /// A file of zeros.
    Create {
        /// The file.
        file: FileId,
        /// Its size.
        bytes: usize,
    },
    /// A new name.
    Rename {
        /// The old one.
        from: FileId,
        /// The new one.
        to: FileId,
    },
    /// It is gone.
    Remove {
        /// The file.
        file: FileId,
    },
    /// The file isn't there to be opened.
    NotThere {
        /// The file.
        file: FileId,
        /// Where in it the operation would have been.
        offset: u64,
    },
    /// The disk is full.
    NoRoom {
        /// For what.
        operation: &'static str,
        /// The file.
        file: FileId,
        /// Where in it.
        offset: u64,
    },
}

/// One core's folder.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<FileId, File>,
    last_write: u64,
    completed: BTreeMap<FileId, Vec<u64>>,
    hardened: Vec<(FileId, usize, Vec<u8>)>,
    /// Nothing that needs more room can be done.
    pub is_full: bool,
}

impl Disk {
    /// Begins a disk effect. What is written is pending from now on.
    ///
    /// # Panics
    /// If the effect isn't the disk's.
    pub fn begin<M: std::fmt::Debug>(&mut self, effect: Effect<M>) -> (OpId, Action) {
        let usable = |file: FileId, offset: u64, action: Action| match self.files.contains_key(&file) {
            true => action,
            false => Action::NotThere { file, offset },
        };
        match effect {
            Effect::Write { op, file, offset, block, sync } => {
                (op, self.begin_write(file, offset, &block, sync))
            }
            Effect::Sync { op, file } => (op, usable(file, 0, Action::Sync { file, upto: self.last_write })),
            Effect::Read { op, file, offset, bytes } => {
                (op, usable(file, offset, Action::Read { file, offset, bytes }))
            }
            Effect::CreateFile { op, file, bytes } if self.is_full && bytes > 0 => {
                (op, Action::NoRoom { operation: "create", file, offset: 0 })
            }
            Effect::CreateFile { op, file, bytes } => {
                let bytes = usize::try_from(bytes).expect("simulated files are small");
                (op, Action::Create { file, bytes })
            }
            Effect::RenameFile { op, from, to } => (op, Action::Rename { from, to }),
            Effect::RemoveFile { op, file } => (op, Action::Remove { file }),
            other => unreachable!("{other:?} isn't the disk's"),
        }
    }

    fn begin_write(&mut self, file: FileId, offset: u64, block: &Slice, sync: bool) -> Action {
        let Some(entry) = self.files.get_mut(&file) else { return Action::NotThere { file, offset } };
        let offset = usize::try_from(offset).expect("simulated files are small");
        if self.is_full && offset + block.len() > entry.length() {
            return Action::NoRoom { operation: "write", file, offset: offset as u64 };
        }
        self.last_write += 1;
        let number = self.last_write;
        entry.pending.push(Pending { number, offset, bytes: block.to_vec() });
        Action::Write { file, number, sync }
    }

    /// The length of a file, if it is there.
    pub fn length(&self, file: FileId) -> Option<u64> {
        self.files.get(&file).map(|file| file.length() as u64)
    }

    /// The first block of a file, as far as it is durable.
    pub fn first_block(&self, file: FileId) -> &[u8] {
        self.files.get(&file).map_or(&[], |file| &file.durable[..BLOCK_BYTES.min(file.durable.len())])
    }

    /// Whether a loss of power would take nothing of a file.
    pub fn is_durable(&self, file: FileId) -> bool {
        self.files.get(&file).is_none_or(|file| file.pending.is_empty())
    }

    /// An operation ends, and well, unless it asked for what can't be.
    ///
    /// # Errors
    /// What the real driver gives.
    pub fn complete(&mut self, action: &Action) -> Result<DiskReply, DiskError> {
        match action {
            Action::Write { file, number, sync: false } => {
                self.completed.entry(*file).or_default().push(*number);
            }
            // A segment's write is durable by itself, and nothing else is.
            Action::Write { file, number, sync: true } if file.kind == FileKind::Segment => {
                self.harden(*file, |pending| pending.number == *number);
            }
            Action::Write { file, number, sync: true } => {
                let mut covered = self.completed.remove(file).unwrap_or_default();
                covered.push(*number);
                self.harden(*file, |pending| covered.contains(&pending.number));
            }
            Action::Sync { file, upto } => {
                self.completed.remove(file);
                self.harden(*file, |pending| pending.number <= *upto);
            }
            Action::Read { file, offset, bytes } => return self.read(*file, *offset, *bytes),
            Action::Create { file, bytes } => {
                if self.files.contains_key(file) {
                    return Err(error("create", *file, 0, Errno::EXIST));
                }
                self.files.insert(*file, File { durable: vec![0; *bytes], pending: Vec::new() });
            }
            Action::Rename { from, to } => {
                let file = self.files.remove(from).ok_or_else(|| error("rename", *from, 0, Errno::NOENT))?;
                self.files.insert(*to, file);
                self.completed.remove(to);
                if let Some(completed) = self.completed.remove(from) {
                    self.completed.insert(*to, completed);
                }
            }
            Action::Remove { file } => {
                self.files.remove(file);
                self.completed.remove(file);
            }
            Action::NotThere { file, offset } => return Err(error("open", *file, *offset, Errno::NOENT)),
            Action::NoRoom { operation, file, offset } => {
                return Err(error(operation, *file, *offset, Errno::NOSPC));
            }
        }
        Ok(DiskReply::Done)
    }

    fn read(&self, file: FileId, offset: u64, bytes: u32) -> Result<DiskReply, DiskError> {
        let found = self.files.get(&file).ok_or_else(|| error("open", file, offset, Errno::NOENT))?;
        let written;
        let content = match found.pending.is_empty() {
            true => &found.durable,
            false => {
                let mut content = found.durable.clone();
                found.pending.iter().for_each(|write| put(&mut content, write.offset, &write.bytes));
                written = content;
                &written
            }
        };
        let start = usize::try_from(offset).map_or(content.len(), |offset| offset.min(content.len()));
        let end = content.len().min(start + bytes as usize);
        let block = BlockPool::new().copy_of(&content[start..end]);
        Ok(DiskReply::Read(block.subslice(0, end - start)))
    }

    fn harden(&mut self, file: FileId, covers: impl Fn(&Pending) -> bool) {
        let Some(entry) = self.files.get_mut(&file) else { return };
        let (done, left): (Vec<_>, Vec<_>) = entry.pending.drain(..).partition(covers);
        entry.pending = left;
        for write in done {
            put(&mut entry.durable, write.offset, &write.bytes);
            if file.kind == FileKind::Segment {
                self.hardened.push((file, write.offset, write.bytes));
            }
        }
    }

    /// A sync of a file failed: what was pending in it is lost, as on ext4.
    pub fn lose_pending(&mut self, of: FileId) {
        if let Some(file) = self.files.get_mut(&of) {
            file.pending.clear();
        }
        self.completed.remove(&of);
    }

    /// The power goes: files being made may be there, renames and removals done; every write that wasn't synced is kept,
    /// dropped or torn, each for itself or, where `loses` says so, the last ones only.
    pub fn crash(&mut self, unfinished: &[Action], loses: Loses, rng: &mut Rng, tally: &mut Tally) {
        for action in unfinished {
            let happened = rng.between(0, 1) == 0;
            match action {
                Action::Create { file, bytes } if happened => {
                    // Half made: any length, all zeros.
                    let blocks = rng.between(0, *bytes as u64 / 4096);
                    let durable = vec![0; usize::try_from(blocks).expect("files are small") * 4096];
                    self.files.entry(*file).or_insert(File { durable, pending: Vec::new() });
                }
                Action::Rename { .. } | Action::Remove { .. } if happened => {
                    // What can't be done isn't.
                    let _ = self.complete(action);
                }
                _ => {}
            }
        }
        for file in self.files.values_mut() {
            let first_to_suffer = match loses.earlier {
                true => 0,
                false => rng.between(0, file.pending.len() as u64),
            };
            let mut is_one_lost = false;
            for (place, write) in file.pending.drain(..).enumerate() {
                let may_suffer = place as u64 >= first_to_suffer;
                let fate = if may_suffer { fate(loses, write.bytes.len(), rng) } else { None };
                let unit = match fate {
                    None => {
                        put(&mut file.durable, write.offset, &write.bytes);
                        if std::mem::take(&mut is_one_lost) {
                            tally.note(Fault::LostEarlier);
                        }
                        continue;
                    }
                    Some(Fault::TornSector) => SECTOR_BYTES,
                    Some(Fault::TornBlock) => BLOCK_BYTES,
                    _ => write.bytes.len(),
                };
                let fate = fate.unwrap_or(Fault::LostWrite);
                tally.note(fate);
                if fate == Fault::LostWrite {
                    is_one_lost = true;
                    continue;
                }
                for (place, part) in write.bytes.chunks(unit).enumerate() {
                    if rng.between(0, 1) == 0 {
                        put(&mut file.durable, write.offset + place * unit, part);
                    }
                }
            }
        }
        self.completed.clear();
        self.hardened.clear();
    }

    /// What a core finds when it starts: unfinished files are removed, as by the driver.
    pub fn boot(&mut self) -> Vec<(FileId, Slice)> {
        self.files.retain(|file, _| file.kind != FileKind::Unfinished);
        let pool = BlockPool::new();
        self.files.iter().map(|(file, content)| (*file, pool.copy_of(&content.durable))).collect()
    }

    /// Something that was durable can't be read any more. Returns what happened to it, if there was anything.
    pub fn rot(&mut self, rots: Rots, rng: &mut Rng) -> Option<Fault> {
        let kinds = [
            (rots.bit_flip, Fault::BitFlip),
            (rots.lost_block, Fault::LostBlock),
            (rots.garbage, Fault::Garbage),
            (rots.misdirected, Fault::Misdirected),
        ];
        let kinds: Vec<Fault> = kinds.into_iter().filter(|(on, _)| *on).map(|(_, kind)| kind).collect();
        let used = |file: &File| file.durable.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let mut candidates: Vec<_> = self.files.values_mut().filter(|file| used(file) > 0).collect();
        if candidates.is_empty() || kinds.is_empty() {
            return None;
        }
        let mut below = |count: usize| {
            usize::try_from(rng.between(0, count as u64 - 1)).expect("simulated files are small")
        };
        let kind = kinds[below(kinds.len())];
        let chosen = below(candidates.len());
        let file = &mut candidates[chosen];
        let end = used(file);
        let at = below(end + 1);
        let block = at / BLOCK_BYTES * BLOCK_BYTES;
        match kind {
            Fault::BitFlip => file.durable[at] ^= 1 << below(8),
            Fault::LostBlock => file.durable[block..block + BLOCK_BYTES].fill(0),
            Fault::Misdirected => {
                let other = below(file.durable.len() / BLOCK_BYTES) * BLOCK_BYTES;
                if other == block {
                    return None;
                }
                file.durable.copy_within(block..block + BLOCK_BYTES, other);
                file.durable[block..block + BLOCK_BYTES].fill(0);
            }
            _ => {
                let end = (block + (1 + below(4)) * BLOCK_BYTES).min(file.durable.len());
                file.durable[block..end].fill(0x5a);
            }
        }
        Some(kind)
    }

    /// The writes to segments that have become durable since this was last asked for: the file, where in it, what.
    pub fn take_hardened(&mut self) -> Vec<(FileId, usize, Vec<u8>)> {
        std::mem::take(&mut self.hardened)
    }

    /// The files that there are.
    pub fn files(&self) -> impl Iterator<Item = FileId> + '_ {
        self.files.keys().copied()
    }
}

/// What becomes of a write that wasn't synced; `None`: it is whole.
fn fate(loses: Loses, bytes: usize, rng: &mut Rng) -> Option<Fault> {
    let fates = [
        (true, None),
        (loses.any, Some(Fault::LostWrite)),
        (loses.sectors, Some(Fault::TornSector)),
        (loses.blocks && bytes > BLOCK_BYTES, Some(Fault::TornBlock)),
        // Writes of several blocks are rare enough.
        (loses.blocks && bytes > BLOCK_BYTES, Some(Fault::TornBlock)),
    ];
    let possible = fates.iter().filter(|(on, _)| *on).count() as u64;
    let chosen = usize::try_from(rng.between(0, possible - 1)).expect("few");
    fates.into_iter().filter(|(on, _)| *on).nth(chosen).and_then(|(_, fate)| fate)
}

fn put(durable: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if bytes.is_empty() {
        return;
    }
    if durable.len() < end {
        durable.resize(end, 0);
    }
    durable[offset..end].copy_from_slice(bytes);
}

fn error(operation: &'static str, file: FileId, offset: u64, errno: Errno) -> DiskError {
    let errno = errno.raw_os_error();
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let reason = text.split(" (os error").next().unwrap_or_default().to_owned();
    DiskError { operation, file: format!("/simulated/{file}"), offset, errno, reason }
}

/// The error of an operation on this file that fails.
pub fn broken(operation: &'static str, file: FileId) -> DiskError {
    error(operation, file, 0, Errno::IO)
}
