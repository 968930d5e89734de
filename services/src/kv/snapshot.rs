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
    /// Takes the next piece. Only an entry that two pieces share is put together first.
    ///
    /// # Errors
    /// [`SnapshotError`]; what came before it is in.
    pub fn read(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        let mut rest = piece;
        while !self.pending.is_empty() && !rest.is_empty() {
            let length = self.entry_len(&self.pending)?.unwrap_or(ENTRY_HEADER_BYTES);
            let missing = (length - self.pending.len()).min(rest.len());
            self.pending.extend_from_slice(&rest[..missing]);
            rest = &rest[missing..];
            if self.entry_len(&self.pending)? == Some(self.pending.len()) {
                let mut entry = std::mem::take(&mut self.pending);
                self.take(&entry)?;
                entry.clear();
                self.pending = entry;
            }
        }
        while let Some(length) = self.entry_len(rest)?.filter(|length| *length <= rest.len()) {
            self.take(&rest[..length])?;
            rest = &rest[length..];
        }
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    /// Bytes of the entry that begins with these, if they tell.
    fn entry_len(&self, bytes: &[u8]) -> Result<Option<usize>, SnapshotError> {
        let Some((header, _)) = bytes.split_first_chunk() else { return Ok(None) };
        let Header { kind, key, value, .. } = Header::of(header);
        let version = match kind {
            TYPE_FLOOR | TYPE_SESSIONS | TYPE_STRING_1 | TYPE_GONE => 0,
            TYPE_STRING => size_of::<u64>(),
            _ => return Err(SnapshotError(self.keys.len())),
        };
        Ok(Some(ENTRY_HEADER_BYTES + version + key + value))
    }

    /// An entry that is whole.
    fn take(&mut self, entry: &[u8]) -> Result<(), SnapshotError> {
        let senseless = SnapshotError(self.keys.len());
        let (header, rest) = entry.split_first_chunk().ok_or(senseless)?;
        let Header { kind, key, deadline_ms, .. } = Header::of(header);
        let (version, rest) = match kind {
            TYPE_STRING => rest.split_first_chunk().ok_or(senseless)?,
            _ => (&1_u64.to_le_bytes(), rest),
        };
        let (key, value) = rest.split_at_checked(key).ok_or(senseless)?;
        match kind {
            TYPE_FLOOR => {
                let floor = value.try_into().map_err(|_| senseless)?;
                self.keys.set_floor(u64::from_le_bytes(floor));
            }
            TYPE_SESSIONS => self.keys.sessions = Sessions::decode(value).ok_or(senseless)?,
            TYPE_GONE => drop(self.keys.remove(0, key)),
            _ => {
                let deadline_ms = (deadline_ms != 0).then_some(deadline_ms);
                self.keys.restore(
                    key,
                    Value::String(value.to_vec()),
                    deadline_ms,
                    u64::from_le_bytes(*version),
                );
            }
        }
        Ok(())
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

/// What stands before an entry.
struct Header {
    kind: u8,
    /// Bytes of the key, and of the value.
    key: usize,
    value: usize,
    deadline_ms: u64,
}

impl Header {
    fn of(bytes: &[u8; ENTRY_HEADER_BYTES]) -> Self {
        let length = |i: usize| {
            u32::from_le_bytes(bytes[i..i + 4].try_into().expect("four bytes of seventeen")) as usize
        };
        let deadline_ms = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes of seventeen"));
        Self { kind: bytes[16], key: length(0), value: length(4), deadline_ms }
    }
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
