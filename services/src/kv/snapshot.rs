//! A shard's data from its bytes, a piece at a time. Writing them is `frozen.rs`.
//!
//! An entry: key length u32, value length u32, deadline u64 (0: none), type u8, of a type 2 the version u64, then key and
//! value, in key order. Type 2 is a string; type 1 one without a version; type 0 no key, but the floor of the versions;
//! type 3 no key, but the sessions; type 4, in a copy only (`copying.rs`), a key that is there no more. All little-endian. Checksums are the container's business.

use super::frozen::{ENTRY_HEADER_BYTES, TYPE_FLOOR, TYPE_GONE, TYPE_SESSIONS, TYPE_STRING, TYPE_STRING_1};
use super::key::Key;
use super::keyspace::{Entry, Keyspace, Value};
use super::session::Sessions;

/// Entries that are gathered to become a tree at once: 64 B each, besides what they point to.
const GATHERED_MAX: usize = 1 << 20;

/// Bytes that are no part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a snapshot of a shard makes no sense after {0} keys")]
pub struct SnapshotError(u64);

/// Builds a shard's data from pieces of any length.
#[derive(Debug, Default)]
pub struct ShardReader {
    keys: Keyspace,
    /// Nobody waits meanwhile, so the first entries are gathered...
    at_once: bool,
    /// ...as long as they come in order: a tree that is made of them at once leaves no room in its nodes, and one that
    /// grows at its end leaves them half empty.
    gathered: Vec<(Key, Entry)>,
    /// The beginning of an entry that isn't here whole.
    pending: Vec<u8>,
}

impl ShardReader {
    /// One that may keep its caller waiting, and makes denser data of a shard that is read from its begin.
    pub fn at_once() -> Self {
        Self { at_once: true, ..Self::default() }
    }

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
            _ => return Err(self.senseless()),
        };
        Ok(Some(ENTRY_HEADER_BYTES + version + key + value))
    }

    /// An entry that is whole.
    fn take(&mut self, entry: &[u8]) -> Result<(), SnapshotError> {
        let senseless = self.senseless();
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
            TYPE_GONE => {
                self.settle();
                drop(self.keys.remove(0, key));
            }
            _ => {
                let value = Value::String(value.to_vec());
                self.put(key, Entry::new(value, deadline_ms, u64::from_le_bytes(*version)));
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &[u8], entry: Entry) {
        let is_behind = self.gathered.last().is_none_or(|(last, _)| **last < *key);
        if !is_behind || self.gathered.len() == GATHERED_MAX {
            self.settle();
        }
        if self.at_once && self.keys.is_empty() {
            self.gathered.push((Key::from(key), entry));
        } else {
            self.keys.restore(key, entry);
        }
    }

    /// What was gathered becomes a tree.
    fn settle(&mut self) {
        self.keys.fill(std::mem::take(&mut self.gathered));
    }

    fn senseless(&self) -> SnapshotError {
        SnapshotError(self.keys.len() + self.gathered.len() as u64)
    }

    /// Goes on where another reader stopped, see [`Self::into_parts`].
    pub fn resume(keys: Keyspace, pending: Vec<u8>) -> Self {
        Self { keys, pending, ..Self::default() }
    }

    /// What has come: whole entries, and the beginning of the next one.
    pub fn into_parts(mut self) -> (Keyspace, Vec<u8>) {
        self.settle();
        (self.keys, self.pending)
    }

    /// The data, once all pieces are in.
    ///
    /// # Errors
    /// [`SnapshotError`] if the last entry is cut off.
    pub fn finish(mut self) -> Result<Keyspace, SnapshotError> {
        self.settle();
        if self.pending.is_empty() { Ok(self.keys) } else { Err(self.senseless()) }
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
    use crate::kv::testing::{change, change_keys};

    proptest::proptest! {
        #[test]
        fn what_is_read_at_once_is_the_same(
            changes in proptest::collection::vec(change(), 0..60),
            more in proptest::collection::vec(change(), 0..9),
        ) {
            let mut keys = Keyspace::default();
            changes.iter().for_each(|change| change_keys(&mut keys, change));
            let mut readers = [ShardReader::default(), ShardReader::at_once()];
            // The second time there are keys before.
            for _ in 0..2 {
                let mut bytes = Vec::new();
                keys.freeze();
                assert!(keys.read_frozen(1 << 20, &mut bytes));
                readers.iter_mut().for_each(|reader| reader.read(&bytes).unwrap());
                more.iter().for_each(|change| change_keys(&mut keys, change));
            }
            let [one, other] = readers.map(|reader| reader.finish().unwrap());
            assert_eq!((one.state_hash(), one.bytes(), one.len()), (other.state_hash(), other.bytes(), other.len()));
            assert_eq!((one.next_deadline(), one.version_max), (other.next_deadline(), other.version_max));
        }

        #[test]
        fn garbage_never_panics(pieces: Vec<Vec<u8>>) {
            let mut reader = ShardReader::default();
            let _ = pieces.iter().try_for_each(|piece| reader.read(piece));
            let _ = reader.finish();
        }
    }
}
