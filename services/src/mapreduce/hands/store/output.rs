//! An attempt's pairs, put aside in the shards where they belong.

use super::{ASIDE_FOR_MS, Store, piece};
use crate::kv::{PUBLISH_MAGIC, next_pair, put_pair};
use crate::mapreduce::job::{Combiner, Done, Emit, InputFormat, Job, Record, Values};
use crate::mapreduce::spec::{JobSpec, KeysOut};
use crate::slot::Slot;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// A piece is written when it has so many bytes: one entry of the log sets all of its pairs.
const PIECE_BYTES: usize = 64 << 10;
/// What all pieces that aren't written yet may hold.
const WAITING_BYTES: usize = 8 << 20;

/// A job whose output is pairs with lengths before them, not text.
pub(crate) struct AsPairs<'a> {
    /// The job.
    pub(crate) job: &'a dyn Job,
    /// Of a job by commands: so many fields of a line are the key.
    pub(crate) key_fields: Option<u32>,
}

impl Job for AsPairs<'_> {
    fn input(&self) -> InputFormat {
        self.job.input()
    }
    fn combiner(&self) -> Combiner {
        self.job.combiner()
    }
    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done {
        self.job.map(record, out)
    }
    fn fold(&self, key: &[u8], into: &mut Vec<u8>, value: &[u8]) {
        self.job.fold(key, into, value);
    }
    fn reduce(&self, key: &[u8], values: &mut dyn Values, out: &mut dyn Emit) -> Done {
        self.job.reduce(key, values, out)
    }
    fn write(&self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let Some(fields) = self.key_fields else { return put_pair(out, key, value) };
        let mut tabs = memchr::memchr_iter(b'\t', key);
        match tabs.nth(fields.max(1) as usize - 1) {
            Some(tab) => put_pair(out, &key[..tab], &key[tab + 1..]),
            None => put_pair(out, key, value),
        }
    }
}

/// Takes pairs and puts them aside.
#[derive(Debug)]
pub(crate) struct Aside<'a> {
    store: &'a Store,
    spec: &'a JobSpec,
    out: &'a KeysOut,
    attempt: &'a str,
    /// By shard, and how many bytes in all.
    waiting: BTreeMap<u16, Vec<u8>>,
    waiting_bytes: usize,
    /// Pieces that were written, or may have been.
    written: BTreeMap<u16, u32>,
}

impl<'a> Aside<'a> {
    pub(crate) fn new(store: &'a Store, spec: &'a JobSpec, out: &'a KeysOut, attempt: &'a str) -> Self {
        let (waiting, written) = (BTreeMap::new(), BTreeMap::new());
        Self { store, spec, out, attempt, waiting, waiting_bytes: 0, written }
    }

    /// Writes what is left: how many pieces there are in which shards.
    pub(crate) fn finish(&mut self) -> io::Result<Vec<(u16, u32)>> {
        while let Some(shard) = self.waiting.keys().next().copied() {
            self.write_piece(shard)?;
        }
        Ok(self.written.iter().map(|(shard, pieces)| (*shard, *pieces)).collect())
    }

    /// Removes what was written: the attempt has failed. What can't be removed goes when the job ends.
    pub(crate) fn give_up(&self) {
        let pieces: Vec<_> = self.written.iter().map(|(shard, pieces)| (*shard, *pieces)).collect();
        let _ = self.store.remove_pieces(self.spec, self.out, self.attempt, &pieces);
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if key.is_empty() {
            return Err(io::Error::other("a pair without a key can't be a key of the store"));
        }
        let key = [self.out.prefix.as_bytes(), key].concat();
        let shard = Slot::of_key(&key).shard(self.out.shards);
        let waiting = self.waiting.entry(shard).or_insert_with(|| PUBLISH_MAGIC.to_vec());
        let before = waiting.len();
        put_pair(waiting, &key, value);
        self.waiting_bytes += waiting.len() - before;
        if waiting.len() >= PIECE_BYTES {
            return self.write_piece(shard);
        }
        if self.waiting_bytes >= WAITING_BYTES {
            let largest = self.waiting.iter().max_by_key(|(_, waiting)| waiting.len());
            if let Some(shard) = largest.map(|(shard, _)| *shard) {
                return self.write_piece(shard);
            }
        }
        Ok(())
    }

    fn write_piece(&mut self, shard: u16) -> io::Result<()> {
        let Some(bytes) = self.waiting.remove(&shard) else { return Ok(()) };
        self.waiting_bytes -= bytes.len() - PUBLISH_MAGIC.len();
        let number = self.written.entry(shard).or_default();
        let name = piece(self.spec, self.attempt, shard, self.out.shards, *number);
        *number += 1;
        let command: [&[u8]; 5] = [b"SET", &name, &bytes, b"PX", ASIDE_FOR_MS];
        self.store.write("putting output aside", &name, &command).map(drop).map_err(io::Error::other)
    }
}

impl Write for Aside<'_> {
    /// Only whole pairs are handed over.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (key, value, behind) =
                next_pair(rest).ok_or_else(|| io::Error::other("output ends within a pair"))?;
            self.put(key, value)?;
            rest = behind;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
