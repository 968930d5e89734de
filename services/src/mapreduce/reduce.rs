//! The reduce side: segments of one partition as one stream of keys, each with its values.

use super::job::{Combiner, Done, Emit, Job, Values};
use super::run::{Merge, ReadAt, SegmentReader};
use super::{MrError, varint};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The output is handed to its writer in pieces of this size.
const OUTPUT_BYTES: usize = 1 << 20;

/// Writes what a reducer emits as its job says, and checksums it.
#[derive(Debug)]
pub struct Output<'a, W> {
    job: JobRef<'a>,
    out: W,
    buffer: Vec<u8>,
    bytes: u64,
    records: u64,
    crc: crc32fast::Hasher,
    failed: Option<io::Error>,
    counters: BTreeMap<String, u64>,
}

struct JobRef<'a>(&'a dyn Job);

impl std::fmt::Debug for JobRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file.
    pub bytes: u64,
    /// CRC-32 of the file.
    pub crc: u32,
    /// Pairs in it.
    pub records: u64,
    /// The job's counters.
    pub counters: BTreeMap<String, u64>,
}

impl<'a, W: Write> Output<'a, W> {
    /// An empty output.
    pub fn new(job: &'a dyn Job, out: W) -> Self {
        Self {
            job: JobRef(job),
            out,
            buffer: Vec::with_capacity(OUTPUT_BYTES + 4096),
            bytes: 0,
            records: 0,
            crc: crc32fast::Hasher::new(),
            failed: None,
            counters: BTreeMap::new(),
        }
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.flush_if_full();
    }

    /// What went wrong with the writer, once.
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// The writer, which doesn't get what it hasn't got by now.
    pub fn give_up(self) -> W {
        self.out
    }

    /// Hands everything to the writer.
    ///
    /// # Errors
    /// As the writer, at any time since the beginning.
    pub fn finish(mut self) -> io::Result<(W, Written)> {
        self.flush();
        match self.failed {
            Some(error) => Err(error),
            None => {
                self.out.flush()?;
                let (bytes, crc, records) = (self.bytes, self.crc.finalize(), self.records);
                Ok((self.out, Written { bytes, crc, records, counters: self.counters }))
            }
        }
    }

    #[inline]
    fn flush_if_full(&mut self) {
        if self.buffer.len() >= OUTPUT_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.crc.update(&self.buffer);
        self.bytes += self.buffer.len() as u64;
        if self.failed.is_none() {
            self.failed = self.out.write_all(&self.buffer).err();
        }
        self.buffer.clear();
    }
}

impl<W: Write> Emit for Output<'_, W> {
    #[inline]
    fn emit(&mut self, key: &[u8], value: &[u8]) {
        self.job.0.write(key, value, &mut self.buffer);
        self.records += 1;
        self.flush_if_full();
    }

    fn counter(&mut self, name: &str, n: u64) {
        *self.counters.entry(name.to_owned()).or_default() += n;
    }
}

/// Reduces one partition.
///
/// # Errors
/// [`MrError::Damaged`] and [`MrError::Io`] of the segments, [`MrError::User`] of the job; what the output's writer says is
/// left in `out`. `progress` is told pairs as they are read and stops the work by answering `false`.
pub fn reduce<R: ReadAt, W: Write>(
    job: &dyn Job,
    sources: Vec<SegmentReader<R>>,
    out: &mut Output<'_, W>,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<(), MrError> {
    let mut group = Group {
        merge: Merge::new(sources)?,
        key: Vec::new(),
        prefix: 0,
        pending: false,
        failed: None,
        read: 0,
    };
    let combiner = job.combiner();
    let mut told = 0;
    while group.begin()? {
        let key = std::mem::take(&mut group.key);
        let done = reduce_key(job, combiner, &key, &mut group, out);
        group.key = key;
        if let Some(error) = group.failed.take() {
            return Err(error);
        }
        done.map_err(|error| MrError::User { what: error.to_string(), at: None })?;
        if group.read - told >= 4096 {
            if !progress(group.read - told) {
                return Err(MrError::Rejected("the attempt was told to stop".to_owned()));
            }
            told = group.read;
        }
        if out.failed.is_some() {
            return Ok(());
        }
    }
    progress(group.read - told);
    Ok(())
}

fn reduce_key<R: ReadAt, W: Write>(
    job: &dyn Job,
    combiner: Combiner,
    key: &[u8],
    group: &mut Group<R>,
    out: &mut Output<'_, W>,
) -> Done {
    match combiner {
        Combiner::None => {
            let mut values = Streamed { group, key };
            let done = job.reduce(key, &mut values, out);
            // Whatever the job didn't look at.
            while values.next().is_some() {}
            done
        }
        Combiner::Sum => {
            let (mut sum, mut values) = (0_u64, Streamed { group, key });
            while let Some(n) = values.next_count() {
                sum = sum.saturating_add(n);
            }
            let mut value = Vec::with_capacity(10);
            varint::put(&mut value, sum);
            job.reduce(key, &mut One(Some(&value)), out)
        }
        Combiner::Distinct => {
            let (mut set, mut values) = (Vec::new(), Streamed { group, key });
            while let Some(value) = values.next() {
                set.push(value.to_vec());
            }
            set.sort_unstable();
            set.dedup();
            job.reduce(key, &mut Many { values: &set, at: 0 }, out)
        }
        Combiner::Fold => {
            let mut values = Streamed { group, key };
            let mut folded = values.next().unwrap_or_default().to_vec();
            while let Some(value) = values.next() {
                job.fold(key, &mut folded, value);
            }
            job.reduce(key, &mut One(Some(&folded)), out)
        }
    }
}

/// Where the merge is within the values of a key.
struct Group<R> {
    merge: Merge<R>,
    key: Vec<u8>,
    prefix: u64,
    /// Whether the value that the merge is at has been handed out.
    pending: bool,
    failed: Option<MrError>,
    read: u64,
}

impl<R: ReadAt> Group<R> {
    /// Goes to the next key, whose values are then streamed.
    fn begin(&mut self) -> Result<bool, MrError> {
        if std::mem::take(&mut self.pending) {
            self.merge.advance()?;
        }
        let Some(least) = self.merge.least() else { return Ok(false) };
        self.prefix = least.prefix();
        self.key.clear();
        self.key.extend_from_slice(least.key());
        Ok(true)
    }
}

struct Streamed<'a, R> {
    group: &'a mut Group<R>,
    key: &'a [u8],
}

impl<R: ReadAt> Values for Streamed<'_, R> {
    #[inline]
    fn next(&mut self) -> Option<&[u8]> {
        let group = &mut *self.group;
        if group.failed.is_some() {
            return None;
        }
        if std::mem::take(&mut group.pending)
            && let Err(error) = group.merge.advance()
        {
            group.failed = Some(error);
            return None;
        }
        let least = group.merge.least()?;
        if least.prefix() != group.prefix || least.key() != self.key {
            return None;
        }
        group.pending = true;
        group.read += 1;
        Some(least.value())
    }
}

struct One<'a>(Option<&'a [u8]>);

impl Values for One<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        self.0.take()
    }
}

struct Many<'a> {
    values: &'a [Vec<u8>],
    at: usize,
}

impl Values for Many<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        self.at += 1;
        self.values.get(self.at - 1).map(Vec::as_slice)
    }
}
