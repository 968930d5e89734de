//! The keys in a shard's bytes, as they come: [`crate::kv::Keyspace::read_frozen`] writes them.
//!
//! A value is shown whole if it is short, and in the pieces in which it comes if it is long. So nothing that is longer than a key
//! and [`LONG_VALUE_BYTES`] is ever held.

use crate::slot::Slot;

/// A value of more bytes is shown in parts.
pub const LONG_VALUE_BYTES: usize = 256 << 10;
const HEADER_BYTES: usize = 17;
const VERSION_BYTES: usize = 8;
const FLOOR: u8 = 0;
const STRING_1: u8 = 1;
const STRING: u8 = 2;
const SESSIONS: u8 = 3;

/// Bytes that are no shard's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntriesError {
    /// An entry of a kind that this version doesn't know.
    #[error("after {keys} keys there is an entry of type {kind}, which this version doesn't know")]
    Unknown {
        /// Keys before it.
        keys: u64,
        /// Its type.
        kind: u8,
    },
    /// An entry of no key, with other lengths than such an entry has.
    #[error("after {keys} keys there is an entry that makes no sense")]
    Malformed {
        /// Keys before it.
        keys: u64,
    },
    /// A key that can't be where it is.
    #[error("after {keys} keys there is one that {what}")]
    Misplaced {
        /// Keys before it.
        keys: u64,
        /// Why not.
        what: &'static str,
    },
    /// The bytes end within an entry.
    #[error("the entry after {keys} keys is cut off")]
    CutOff {
        /// Keys before it.
        keys: u64,
    },
}

/// What is known of a key before its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its version.
    pub version: u64,
    /// Milliseconds since 1970 from which on it is absent, 0 for never.
    pub deadline_ms: u64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A key and its value.
    Whole(Head<'a>, &'a [u8]),
    /// A key whose value of so many bytes follows in parts.
    Long(Head<'a>, u64),
    /// A part of that value: behind how many bytes it comes, and its bytes.
    Part(u64, &'a [u8]),
}

/// What a shard's bytes amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// No version of a key is higher, nor was that of one that is gone.
    pub version_max: u64,
}

/// An entry of which only the beginning is here, and needn't be kept.
#[derive(Clone, Copy, Debug)]
struct Long {
    done: u64,
    left: u64,
    /// Nobody is to see it.
    is_hidden: bool,
}

/// Reads a shard's bytes in pieces of any length.
#[derive(Debug)]
pub struct Entries {
    shard: u16,
    shards: u16,
    pending: Vec<u8>,
    long: Option<Long>,
    last_key: Option<Vec<u8>>,
    totals: Totals,
}

impl Entries {
    /// Of that shard, of so many.
    pub fn new(shard: u16, shards: u16) -> Self {
        let (pending, totals) = (Vec::new(), Totals::default());
        Self { shard, shards, pending, long: None, last_key: None, totals }
    }

    /// Takes the next piece, and shows what it completes.
    ///
    /// # Errors
    /// [`EntriesError`], or that of `each`; then there is no going on.
    pub fn read<E: From<EntriesError>>(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let pending = std::mem::take(&mut self.pending);
        let joined = if pending.is_empty() { None } else { Some([&pending[..], piece].concat()) };
        let mut rest = joined.as_deref().unwrap_or(piece);
        while !rest.is_empty() {
            let Some(after) = self.one(rest, &mut each)? else { break };
            rest = after;
        }
        self.pending = rest.to_vec();
        Ok(())
    }

    /// What the bytes amounted to, once all are in.
    ///
    /// # Errors
    /// [`EntriesError::CutOff`].
    pub fn finish(self) -> Result<Totals, EntriesError> {
        let is_whole = self.pending.is_empty() && self.long.is_none();
        if is_whole { Ok(self.totals) } else { Err(EntriesError::CutOff { keys: self.totals.keys }) }
    }

    /// Shows what is at the front; what is behind that, or `None` if more bytes are needed first.
    fn one<'a, E: From<EntriesError>>(
        &mut self,
        bytes: &'a [u8],
        each: &mut impl FnMut(Found<'_>) -> Result<(), E>,
    ) -> Result<Option<&'a [u8]>, E> {
        if let Some(long) = &mut self.long {
            let taken = usize::try_from(long.left).unwrap_or(usize::MAX).min(bytes.len());
            let (part, rest) = bytes.split_at(taken);
            if !long.is_hidden {
                each(Found::Part(long.done, part))?;
            }
            (long.done, long.left) = (long.done + taken as u64, long.left - taken as u64);
            if long.left == 0 {
                self.long = None;
            }
            return Ok(Some(rest));
        }
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes of 17"));
        let (key_bytes, value_bytes) = (word(0) as usize, word(4) as usize);
        let deadline_ms = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes of 17"));
        let lengths_fit = match header[16] {
            FLOOR => (key_bytes, value_bytes) == (0, VERSION_BYTES),
            SESSIONS => key_bytes == 0,
            _ => true,
        };
        if !lengths_fit {
            return Err(EntriesError::Malformed { keys: self.totals.keys }.into());
        }
        let (version, rest) = match header[16] {
            FLOOR => {
                let Some((floor, rest)) = rest.split_first_chunk() else { return Ok(None) };
                self.totals.version_max = self.totals.version_max.max(u64::from_le_bytes(*floor));
                return Ok(Some(rest));
            }
            SESSIONS => {
                let left = value_bytes as u64;
                self.long = (left > 0).then_some(Long { done: 0, left, is_hidden: true });
                return Ok(Some(rest));
            }
            STRING_1 => (1, rest),
            STRING => {
                let Some((version, rest)) = rest.split_first_chunk::<VERSION_BYTES>() else {
                    return Ok(None);
                };
                (u64::from_le_bytes(*version), rest)
            }
            kind => return Err(EntriesError::Unknown { keys: self.totals.keys, kind }.into()),
        };
        let Some((key, rest)) = rest.split_at_checked(key_bytes) else { return Ok(None) };
        let head = Head { key, version, deadline_ms };
        if value_bytes > LONG_VALUE_BYTES {
            self.count(&head, value_bytes)?;
            each(Found::Long(head, value_bytes as u64))?;
            self.long = Some(Long { done: 0, left: value_bytes as u64, is_hidden: false });
            return Ok(Some(rest));
        }
        let Some((value, rest)) = rest.split_at_checked(value_bytes) else { return Ok(None) };
        self.count(&head, value_bytes)?;
        each(Found::Whole(head, value))?;
        Ok(Some(rest))
    }

    fn count(&mut self, head: &Head<'_>, value_bytes: usize) -> Result<(), EntriesError> {
        let keys = self.totals.keys;
        if Slot::of_key(head.key).shard(self.shards) != self.shard {
            return Err(EntriesError::Misplaced { keys, what: "is of another shard" });
        }
        if self.last_key.as_deref().is_some_and(|last| last >= head.key) {
            return Err(EntriesError::Misplaced { keys, what: "isn't behind the one before it" });
        }
        let last = self.last_key.get_or_insert_default();
        last.clear();
        last.extend_from_slice(head.key);
        self.totals.keys += 1;
        self.totals.bytes += (head.key.len() + value_bytes) as u64;
        self.totals.version_max = self.totals.version_max.max(head.version);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::lookup;
    use crate::kv::Keyspace;
    use crate::resp::ReplyWriter;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Shown = BTreeMap<Vec<u8>, (Vec<u8>, u64, u64)>;

    fn write(keys: &mut Keyspace, args: &[&[u8]]) {
        keys.write(1, lookup(args[0]).unwrap().code, args, &mut ReplyWriter::discard());
    }

    fn bytes_of(keys: &mut Keyspace) -> Vec<u8> {
        let mut bytes = Vec::new();
        keys.freeze();
        while !keys.read_frozen(1 << 20, &mut bytes) {}
        bytes
    }

    /// What is shown when the bytes come in pieces of that length.
    fn shown(bytes: &[u8], piece: usize) -> Result<(Shown, Totals), EntriesError> {
        let (mut entries, mut all) = (Entries::new(0, 1), Shown::new());
        let mut long: Vec<u8> = Vec::new();
        for piece in bytes.chunks(piece) {
            entries.read(piece, |found| -> Result<(), EntriesError> {
                match found {
                    Found::Whole(it, value) => {
                        all.insert(it.key.to_vec(), (value.to_vec(), it.version, it.deadline_ms));
                    }
                    Found::Long(it, _) => {
                        all.insert(it.key.to_vec(), (Vec::new(), it.version, it.deadline_ms));
                        long = it.key.to_vec();
                    }
                    Found::Part(behind, bytes) => {
                        let value = &mut all.get_mut(&long).unwrap().0;
                        assert_eq!(value.len() as u64, behind);
                        value.extend_from_slice(bytes);
                    }
                }
                Ok(())
            })?;
        }
        entries.finish().map(|totals| (all, totals))
    }

    proptest! {
        #[test]
        fn what_a_shard_writes_is_read_in_pieces_of_any_length(
            keys in prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..30), 0_usize..400, 0..30),
            long in proptest::option::of(LONG_VALUE_BYTES - 2..LONG_VALUE_BYTES + 3),
            piece in 1_usize..3000,
        ) {
            let mut shard = Keyspace::default();
            write(&mut shard, &[b"FLOTILLA.SESSION", b"k"]);
            write(&mut shard, &[b"SET", b"gone", b"v"]);
            write(&mut shard, &[b"DEL", b"gone"]);
            let mut expected = Shown::new();
            let lengths = keys.into_iter().chain(long.map(|length| (b"long".to_vec(), length)));
            for (key, length) in lengths {
                let value = vec![key[0]; length];
                write(&mut shard, &[b"SET", &key, &value, b"PXAT", b"99"]);
                expected.insert(key, (value, 2, 99));
            }
            let (found, totals) = shown(&bytes_of(&mut shard), piece).unwrap();
            prop_assert_eq!(totals.keys, expected.len() as u64);
            prop_assert_eq!((totals.bytes, totals.version_max), (shard.bytes(), 1 + u64::from(totals.keys > 0)));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, piece in 1_usize..40) {
            let _ = shown(&bytes, piece);
        }
    }

    #[test]
    fn what_can_t_be_is_refused() {
        let mut shard = Keyspace::default();
        write(&mut shard, &[b"SET", b"a", b"v"]);
        let bytes = bytes_of(&mut shard);
        assert_eq!(shown(&bytes[..bytes.len() - 1], 9), Err(EntriesError::CutOff { keys: 0 }));
        let twice = [&bytes[..], &bytes].concat();
        assert!(matches!(shown(&twice, 9), Err(EntriesError::Misplaced { keys: 1, .. })));
        let mut other = bytes.clone();
        other[16] = 9;
        assert_eq!(shown(&other, 9), Err(EntriesError::Unknown { keys: 0, kind: 9 }));
        let elsewhere = Entries::new(0, 16384).read(&bytes, |_| Ok::<(), EntriesError>(()));
        assert!(matches!(elsewhere, Err(EntriesError::Misplaced { what: "is of another shard", .. })));
    }
}
