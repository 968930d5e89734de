//! A shard's data from its bytes, a piece at a time. Writing them is `frozen.rs`.
//!
//! An entry: key length u32, value length u32, deadline u64 (0: none), type u8 (1: string), then key and value, in key
//! order. All little-endian. Checksums are the container's business.

use super::frozen::{ENTRY_HEADER_BYTES, TYPE_STRING};
use super::keyspace::{Keyspace, Value};

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
        while let Some((used, key, value, deadline_ms)) = self.entry(at)? {
            let (key, value) = (&self.pending[key], &self.pending[value]);
            self.keys.insert(key, Value::String(value.to_vec()), deadline_ms);
            at += used;
        }
        self.pending.drain(..at);
        Ok(())
    }

    /// Where the parts of the entry at `at` are, if it is whole: its length, key, value and deadline.
    #[expect(clippy::type_complexity, reason = "used once, right above")]
    fn entry(
        &self,
        at: usize,
    ) -> Result<Option<(usize, std::ops::Range<usize>, std::ops::Range<usize>, Option<u64>)>, SnapshotError>
    {
        let bytes = &self.pending[at..];
        let Some(header) = bytes.get(..ENTRY_HEADER_BYTES) else { return Ok(None) };
        if header[16] != TYPE_STRING {
            return Err(SnapshotError(self.keys.len()));
        }
        let length = |i: usize| {
            u32::from_le_bytes(header[i..i + 4].try_into().expect("four bytes of seventeen")) as usize
        };
        let deadline = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes of seventeen"));
        let key = at + ENTRY_HEADER_BYTES..at + ENTRY_HEADER_BYTES + length(0);
        let value = key.end..key.end + length(4);
        if self.pending.len() < value.end {
            return Ok(None);
        }
        Ok(Some((value.end - at, key, value, (deadline != 0).then_some(deadline))))
    }

    /// The data, once all pieces are in.
    ///
    /// # Errors
    /// [`SnapshotError`] if the last entry is cut off.
    pub fn finish(self) -> Result<Keyspace, SnapshotError> {
        if self.pending.is_empty() { Ok(self.keys) } else { Err(SnapshotError(self.keys.len())) }
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
