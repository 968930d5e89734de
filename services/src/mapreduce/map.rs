//! The map side: the records of a split, one after the other, to the job's function.

use super::job::{Emit, InputFormat, Job, Record};
use super::run::ReadAt;
use super::split::BlockReader;
use super::{MrError, RecordAt};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, PoisonError};

/// Records are mapped in groups of about so many bytes between two looks at memory and time: some 50 us.
const GROUP_BYTES: usize = 16 << 10;

/// Where a task is, so that a panic of the user's code can be told with its record.
#[derive(Debug)]
pub struct Position {
    file: AtomicU32,
    offset: AtomicU64,
    key: Mutex<String>,
}

/// In [`Position::file`]: at no record.
const NOWHERE: u32 = u32::MAX;

impl Default for Position {
    fn default() -> Self {
        Self { file: AtomicU32::new(NOWHERE), offset: AtomicU64::new(0), key: Mutex::default() }
    }
}

impl Position {
    /// The file's number in the job's inputs, and the record's first byte.
    pub fn get(&self) -> Option<(u32, u64)> {
        let file = self.file.load(Relaxed);
        (file != NOWHERE).then(|| (file, self.offset.load(Relaxed)))
    }

    /// Of a job whose input is keys: the one that it is at.
    pub fn key(&self) -> String {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// See [`Self::key`].
    pub fn set_key(&self, key: &str) {
        key.clone_into(&mut self.key.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn set(&self, file: u32, offset: u64) {
        self.file.store(file, Relaxed);
        self.offset.store(offset, Relaxed);
    }
}

/// What one split of a task is mapped with.
#[derive(Debug, Clone, Copy)]
pub struct SplitOf<'a> {
    /// The file's number in the job's inputs.
    pub file: u32,
    /// Its path.
    pub input: &'a str,
    /// Records to leave out.
    pub skip: &'a BTreeSet<RecordAt>,
    /// Where to say where it is.
    pub position: &'a Position,
}

/// Maps the records that `reader` has. `between` is called from time to time with the bytes that were read since, and may
/// empty the collector or stop the work by an error. Returns the number of records.
///
/// # Errors
/// [`MrError::User`], and what `reader` and `between` say.
pub fn map_split<R: ReadAt, E: Emit>(
    job: &dyn Job,
    split: &SplitOf<'_>,
    reader: &mut BlockReader<'_, R>,
    out: &mut E,
    mut between: impl FnMut(&mut E, u64) -> Result<(), MrError>,
) -> Result<u64, MrError> {
    let format = job.input();
    let mut records = 0;
    while let Some((offset, block)) = reader.next_block()? {
        let mut task = Task { job, split, out: &mut *out };
        match format {
            InputFormat::WholeFiles => {
                task.record(block, offset)?;
                records += 1;
                between(out, block.len() as u64)?;
            }
            InputFormat::Blocks => {
                let mut from = 0;
                while from < block.len() {
                    let piece = whole_lines(&block[from..]);
                    Task { job, split, out: &mut *out }.record(piece, offset + from as u64)?;
                    records += 1;
                    from += piece.len();
                    between(out, piece.len() as u64)?;
                }
            }
            InputFormat::Fixed(bytes) => {
                let group = (GROUP_BYTES / bytes.max(1) as usize).max(1) * bytes.max(1) as usize;
                for (number, many) in (0..).zip(block.chunks(group)) {
                    let mut task = Task { job, split, out: &mut *out };
                    for (place, record) in (0..).zip(many.chunks(bytes.max(1) as usize)) {
                        task.record(record, offset + number * group as u64 + place * u64::from(bytes))?;
                        records += 1;
                    }
                    between(out, many.len() as u64)?;
                }
            }
            InputFormat::Lines => {
                let mut from = 0;
                while from < block.len() {
                    let mut task = Task { job, split, out: &mut *out };
                    let begin = from;
                    while from < block.len() && from - begin < GROUP_BYTES {
                        let rest = &block[from..];
                        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                        task.record(&rest[..length], offset + from as u64)?;
                        records += 1;
                        from = (from + length + 1).min(block.len());
                    }
                    between(out, (from - begin) as u64)?;
                }
            }
        }
    }
    split.position.set(NOWHERE, 0);
    Ok(records)
}

/// The first lines, as many whole ones as a group may have; one, if that is longer.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let most = bytes.len().min(GROUP_BYTES);
    if most == bytes.len() {
        return bytes;
    }
    let end = memchr::memrchr(b'\n', &bytes[..most])
        .or_else(|| memchr::memchr(b'\n', &bytes[most..]).map(|at| most + at));
    end.map_or(bytes, |at| &bytes[..=at])
}

struct Task<'a, E> {
    job: &'a dyn Job,
    split: &'a SplitOf<'a>,
    out: &'a mut E,
}

impl<E: Emit> Task<'_, E> {
    #[inline]
    fn record(&mut self, bytes: &[u8], offset: u64) -> Result<(), MrError> {
        let SplitOf { file, input, skip, position } = *self.split;
        position.set(file, offset);
        let at = || RecordAt { input: input.to_owned(), offset };
        if !skip.is_empty() && skip.contains(&at()) {
            self.out.counter("skipped_records", 1);
            return Ok(());
        }
        let done = self.job.map(&Record { bytes, input, offset }, self.out);
        done.map_err(|error| MrError::User { what: error.to_string(), at: Some(at()) })
    }
}
