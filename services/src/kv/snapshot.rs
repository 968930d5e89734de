//! A shard's data from its bytes, a piece at a time. Writing them is `frozen.rs`.
//!
//! An entry: key length u32, value length u32, deadline u64 (0: none), type u8, of a type 2 the version u64, then key and
//! value, in key order. Type 2 is a string; type 1 one without a version; type 0 no key, but the floor of the versions;
//! type 3 no key, but the sessions; type 4, in a copy only (`copying.rs`), a key that is there no more. All little-endian. Checksums are the container's business.

use super::frozen::{ENTRY_HEADER_BYTES, TYPE_FLOOR, TYPE_GONE, TYPE_SESSIONS, TYPE_STRING, TYPE_STRING_1};
use super::keyspace::{Keyspace, Value};
use super::session::Sessions;

/// Bytes that are no part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a snapshot of a shard makes no sense after {0} keys")]
pub struct SnapshotError(u64);

/// Builds a shard's data from pieces of any length.
#[derive(Debug, Default)]
pub struct ShardReader {
    keys: Keyspace,
    /// The beginning of an entry that isn't here whole.
    pending: Vec<u8>,
}

impl ShardReader {
    /// Takes the next piece.
    ///
    /// # Errors
    /// [`SnapshotError`]; what came before it is in.
    pub fn read(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        self.pending.extend_from_slice(piece);
        let mut at = 0;
        while let Some(found) = self.entry(at)? {
            let (key, value) = (&self.pending[found.key], &self.pending[found.value]);
            match found.kind {
                TYPE_FLOOR => {
                    let floor = value.try_into().map_err(|_| SnapshotError(self.keys.len()))?;
                    self.keys.set_floor(u64::from_le_bytes(floor));
                }
                TYPE_SESSIONS => {
                    let sessions = Sessions::decode(value);
                    self.keys.sessions = sessions.ok_or_else(|| SnapshotError(self.keys.len()))?;
                }
                TYPE_GONE => drop(self.keys.remove(0, key)),
                _ => self.keys.restore(
                    key,
                    Value::String(value.to_vec()),
                    (found.deadline_ms != 0).then_some(found.deadline_ms),
                    found.version,
                ),
            }
            at += found.bytes;
        }
        self.pending.drain(..at);
        Ok(())
    }

    /// Where the parts of the entry at `at` are, if it is whole.
    fn entry(&self, at: usize) -> Result<Option<Found>, SnapshotError> {
        let bytes = &self.pending[at..];
        let Some((header, rest)) = bytes.split_first_chunk::<ENTRY_HEADER_BYTES>() else { return Ok(None) };
        let kind = header[16];
        let mut begin = at + ENTRY_HEADER_BYTES;
        let version = match kind {
            TYPE_FLOOR | TYPE_SESSIONS | TYPE_STRING_1 | TYPE_GONE => 1,
            TYPE_STRING => {
                let Some((version, _)) = rest.split_first_chunk() else { return Ok(None) };
                begin += version.len();
                u64::from_le_bytes(*version)
            }
            _ => return Err(SnapshotError(self.keys.len())),
        };
        let length = |i: usize| {
            u32::from_le_bytes(header[i..i + 4].try_into().expect("four bytes of seventeen")) as usize
        };
        let deadline_ms = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes of seventeen"));
        let key = begin..begin + length(0);
        let value = key.end..key.end + length(4);
        if self.pending.len() < value.end {
            return Ok(None);
        }
        Ok(Some(Found { bytes: value.end - at, kind, version, deadline_ms, key, value }))
    }

    /// Goes on where another reader stopped, see [`Self::into_parts`].
    pub fn resume(keys: Keyspace, pending: Vec<u8>) -> Self {
        Self { keys, pending }
    }

    /// What has come: whole entries, and the beginning of the next one.
    pub fn into_parts(self) -> (Keyspace, Vec<u8>) {
        (self.keys, self.pending)
    }

    /// The data, once all pieces are in.
    ///
    /// # Errors
    /// [`SnapshotError`] if the last entry is cut off.
    pub fn finish(self) -> Result<Keyspace, SnapshotError> {
        if self.pending.is_empty() { Ok(self.keys) } else { Err(SnapshotError(self.keys.len())) }
    }
}

/// An entry that is here whole.
struct Found {
    bytes: usize,
    kind: u8,
    version: u64,
    deadline_ms: u64,
    key: std::ops::Range<usize>,
    value: std::ops::Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(pieces: Vec<Vec<u8>>) {
            let mut reader = ShardReader::default();
            let _ = pieces.iter().try_for_each(|piece| reader.read(piece));
            let _ = reader.finish();
        }
    }
}
