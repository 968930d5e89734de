//! A shard's data as it was at one moment, read a little at a time while the shard goes on.
//!
//! From [`Keyspace::freeze`] on, whoever changes a key that hasn't been read yet puts its old entry aside first
//! (copy-on-write by key). So a snapshot of any size costs a turn no more than the piece that it reads, and memory only
//! for what changes meanwhile.

use super::key::Key;
use super::keyspace::{Entry, Keys, Keyspace, Value};
use flotilla_runtime::planted::{Bug, planted};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Bytes of an entry before its key, or before its version if it has one.
pub(super) const ENTRY_HEADER_BYTES: usize = 17;
/// No entry of a key: its value is the floor of the versions ([`Keyspace`]), 8 bytes.
pub(super) const TYPE_FLOOR: u8 = 0;
/// A string without a version, which counts as 1.
pub(super) const TYPE_STRING_1: u8 = 1;
/// A string with its version, 8 bytes, before its key.
pub(super) const TYPE_STRING: u8 = 2;
/// No entry of a key: its value is the shard's sessions.
pub(super) const TYPE_SESSIONS: u8 = 3;
/// A key that is there no more, in a copy.
pub(super) const TYPE_GONE: u8 = 4;
/// Entries looked at in one piece, however small they are.
pub(super) const ENTRIES_PER_PIECE_MAX: usize = 2_000;

/// What is left to read of the frozen state.
#[derive(Clone, Debug, Default)]
pub(super) struct Frozen {
    /// The entries that come before all keys.
    head: Vec<u8>,
    /// Bytes of them that have been read.
    head_read: usize,
    /// Keys up to this one have been read.
    passed: Option<Key>,
    /// Bytes of the entry behind it that have been read.
    within: usize,
    /// Keys that have changed since: as they were.
    aside: BTreeMap<Key, Option<Entry>>,
    /// All keys, if the shard was emptied since.
    emptied: Option<Keys>,
}

impl Frozen {
    /// Whether a change of the key must put its entry aside first.
    pub(super) fn needs(&self, key: &[u8]) -> bool {
        self.emptied.is_none()
            && self.passed.as_deref().is_none_or(|passed| key > passed)
            && !self.aside.contains_key(key)
    }

    pub(super) fn put_aside(&mut self, key: &[u8], entry: Option<Entry>) {
        self.aside.insert(key.into(), entry);
    }

    /// All keys go at once: what they were.
    pub(super) fn put_all_aside(&mut self, keys: Keys) {
        self.emptied.get_or_insert(keys);
    }
}

impl Keyspace {
    /// From now on [`Self::read_frozen`] reads the state as it is now.
    pub fn freeze(&mut self) {
        let head = self.head();
        self.watch.frozen = Some(Box::new(Frozen { head, ..Frozen::default() }));
    }

    /// The entries that come before all keys.
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::new();
        if self.floor > 0 {
            put_keyless(TYPE_FLOOR, &self.floor.to_le_bytes(), &mut head);
        }
        let sessions = self.sessions.encode();
        if !sessions.is_empty() && !planted(Bug::SessionsNotInSnapshots) {
            put_keyless(TYPE_SESSIONS, &sessions, &mut head);
        }
        head
    }

    /// Nobody will read the frozen state on.
    pub fn thaw(&mut self) {
        self.watch.frozen = None;
    }

    /// Whether there is a frozen state of which something is left to read.
    pub fn is_frozen(&self) -> bool {
        self.watch.frozen.is_some()
    }

    /// Appends the next piece of the frozen state to `out`, about `bytes_max` bytes of it: a piece may end within an
    /// entry. Returns whether it was the last; then the shard is thawed.
    pub fn read_frozen(&mut self, bytes_max: usize, out: &mut Vec<u8>) -> bool {
        let Some(mut frozen) = self.watch.frozen.take() else { return true };
        let Frozen { head, head_read, passed, within, aside, emptied } = &mut *frozen;
        let end = out.len() + bytes_max;
        let rest_of_head = &head[*head_read..];
        let rest_of_head = &rest_of_head[..rest_of_head.len().min(bytes_max)];
        out.extend_from_slice(rest_of_head);
        *head_read += rest_of_head.len();
        if out.len() >= end {
            self.watch.frozen = Some(frozen);
            return false;
        }
        let source = emptied.as_ref().unwrap_or(&self.keys);
        let after = passed.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = source.range::<[u8], _>((after, Bound::Unbounded)).peekable();
        let mut last: Option<Key> = None;
        let mut last_in_source: Option<&[u8]> = None;
        for _ in 0..ENTRIES_PER_PIECE_MAX {
            let changed = aside.first_key_value();
            let order = match (rest.peek(), changed) {
                (Some((key, _)), Some((other, _))) => key.cmp(&other),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return true,
            };
            let (key, entry) = match (order, changed) {
                (Ordering::Less, _) | (_, None) => rest.peek().map(|(key, entry)| (*key, Some(*entry))),
                (_, Some((key, entry))) => Some((key, entry.as_ref())),
            }
            .expect("one of both is there");
            // A key that wasn't there may stand before the one that has been read in part.
            if let Some(entry) = entry {
                *within += encode(key, entry, *within, end, out);
                if *within < encoded_len(key, entry) {
                    break;
                }
                *within = 0;
            }
            if order != Ordering::Greater {
                last_in_source = rest.next().map(|(key, _)| &**key);
                last = None;
            }
            if order != Ordering::Less {
                last = aside.pop_first().map(|(key, _)| key);
            }
            if out.len() >= end {
                break;
            }
        }
        if let Some(read) = last.or_else(|| last_in_source.map(Into::into)) {
            *passed = Some(read);
        }
        self.watch.frozen = Some(frozen);
        false
    }
}

/// Bytes of an entry.
pub(super) fn encoded_len(key: &[u8], entry: &Entry) -> usize {
    let Value::String(bytes) = &entry.value;
    ENTRY_HEADER_BYTES + size_of::<u64>() + key.len() + bytes.len()
}

/// Before an entry's key, or before its version if it has one.
pub(super) fn header(key: usize, value: usize, deadline_ms: u64, kind: u8) -> [u8; ENTRY_HEADER_BYTES] {
    let mut header = [0; ENTRY_HEADER_BYTES];
    for (place, length) in [key, value].into_iter().enumerate() {
        let length = u32::try_from(length).expect("keys and values are at most 512 MiB");
        header[place * 4..place * 4 + 4].copy_from_slice(&length.to_le_bytes());
    }
    header[8..16].copy_from_slice(&deadline_ms.to_le_bytes());
    header[16] = kind;
    header
}

/// Appends an entry that is of no key.
pub(super) fn put_keyless(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&header(0, value.len(), 0, kind));
    out.extend_from_slice(value);
}

/// Appends the bytes of an entry from `from` on until `out` is `end` long; returns how many.
pub(super) fn encode(key: &[u8], entry: &Entry, from: usize, end: usize, out: &mut Vec<u8>) -> usize {
    let Value::String(bytes) = &entry.value;
    let header = header(key.len(), bytes.len(), entry.deadline_ms().unwrap_or(0), TYPE_STRING);
    put_parts(&[&header, &entry.version.to_le_bytes(), key, bytes], from, end, out)
}

/// Appends the bytes of these, one after the other, from `from` on until `out` is `end` long; returns how many.
pub(super) fn put_parts(parts: &[&[u8]], from: usize, end: usize, out: &mut Vec<u8>) -> usize {
    let before = out.len();
    let mut skip = from;
    for part in parts {
        let left = part.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(part.len());
        let room = end.saturating_sub(out.len());
        out.extend_from_slice(&left[..left.len().min(room)]);
    }
    out.len() - before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::ShardReader;
    use crate::kv::testing::{change, change_keys};
    use proptest::prelude::*;

    fn read(keys: &mut Keyspace, piece: usize, mut between: impl FnMut(&mut Keyspace)) -> Keyspace {
        let mut reader = ShardReader::default();
        loop {
            let mut out = Vec::new();
            let last = keys.read_frozen(piece, &mut out);
            assert!(out.len() <= piece, "a piece is as long as it may be");
            reader.read(&out).unwrap();
            if last {
                return reader.finish().unwrap();
            }
            between(keys);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_the_state_when_it_was_frozen(
            first in prop::collection::vec(change(), 0..60),
            meanwhile in prop::collection::vec(change(), 0..60),
            piece in 1_usize..2000,
        ) {
            let mut keys = Keyspace::default();
            first.iter().for_each(|change| change_keys(&mut keys, change));
            let expected = keys.clone();
            keys.freeze();
            let mut meanwhile = meanwhile.iter();
            let found = read(&mut keys, piece, |keys| meanwhile.by_ref().take(2).for_each(|it| change_keys(keys, it)));
            prop_assert_eq!(found.state_hash(), expected.state_hash());
            prop_assert_eq!((found.len(), found.bytes()), (expected.len(), expected.bytes()));
            prop_assert_eq!(found.next_deadline(), expected.next_deadline());
        }
    }

    #[test]
    fn a_value_larger_than_a_piece_is_cut() {
        let mut keys = Keyspace::default();
        keys.insert(b"large", Value::String((0..100_000_u32).map(|byte| byte as u8).collect()), Some(9));
        keys.insert(b"small", Value::String(b"x".to_vec()), None);
        keys.freeze();
        // It changes while half of it is read.
        let mut changes = 0;
        let found = read(&mut keys, 1000, |keys| {
            changes += 1;
            keys.insert(b"large", Value::String(vec![changes]), None);
        });
        assert!(changes >= 100);
        assert_eq!(found.get(0, b"large").unwrap().value.as_string().unwrap().len(), 100_000);
        assert_eq!(found.get(0, b"large").unwrap().deadline_ms(), Some(9));
    }
}
