//! A shard's data, copied while the shard goes on being served.
//!
//! From [`Keyspace::begin_copy`] on, [`Keyspace::read_copy`] gives the entries in the order of their keys, each as it is when it is
//! read; whatever changes behind that is noted by its key, and given again when all keys have been passed, until nothing has
//! changed any more. Whoever puts the pieces together in their order ([`super::ShardReader`]) has the shard as it is by then.
//! So a copy needs no memory but for the keys that change meanwhile, and what is left to do at its end, when the shard
//! must stand still, is as little as was written in the last moment ("pre-copy": Clark et al., Live Migration of Virtual Machines,
//! NSDI 2005, §3).

use super::frozen::{self, ENTRIES_PER_PIECE_MAX, TYPE_GONE};
use super::key::Key;
use super::keyspace::{Entry, Keys, Keyspace};
use flotilla_runtime::planted::{Bug, planted};
use std::collections::BTreeSet;
use std::ops::Bound;

/// How far a copy is.
#[derive(Clone, Debug, Default)]
pub(super) struct Copying {
    /// Keys up to this one have been read once.
    passed: Option<Key>,
    /// All have.
    is_through: bool,
    /// Those that have changed since they were read.
    changed: BTreeSet<Key>,
    /// The entry of which some bytes have been read.
    half: Option<Half>,
    /// All keys went at once: the copy is good for nothing.
    is_void: bool,
}

#[derive(Clone, Debug)]
struct Half {
    key: Key,
    /// Bytes of its entry that have been read.
    read: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// The entry is as it was when it was begun.
    Live,
    /// It has changed since: what it was.
    Was(Entry),
    /// The key is there no more.
    Gone,
}

/// What is left of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyLeft {
    /// All keys have been read once.
    pub is_through: bool,
    /// Keys that have changed since.
    pub changed: usize,
}

impl Copying {
    /// A key changes. Whether its entry, as it was, must be put aside.
    pub(super) fn note(&mut self, key: &[u8]) -> bool {
        let is_behind = self.is_through || self.passed.as_deref().is_some_and(|passed| key <= passed);
        if is_behind && !planted(Bug::CopyMissesChanges) && !self.changed.contains(key) {
            self.changed.insert(key.into());
        }
        self.is_halfway(key)
    }

    /// Whether some bytes of this key's entry have been read, and it hasn't changed since.
    pub(super) fn is_halfway(&self, key: &[u8]) -> bool {
        self.half.as_ref().is_some_and(|half| *half.key == *key && matches!(half.what, What::Live))
    }

    pub(super) fn put_aside(&mut self, entry: Entry) {
        if let Some(half) = &mut self.half {
            half.what = What::Was(entry);
        }
    }

    pub(super) fn make_void(&mut self) {
        *self = Self { is_void: true, ..Self::default() };
    }

    /// Reads on until `out` is `end` long. Whether nothing is left.
    fn read(&mut self, keys: &Keys, end: usize, out: &mut Vec<u8>) -> bool {
        if !self.read_half(keys, end, out) {
            return false;
        }
        let mut entries = 0;
        if !self.is_through {
            let after = self.passed.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut passed = None;
            self.is_through = true;
            for (key, entry) in keys.range::<[u8], _>((after, Bound::Unbounded)) {
                if out.len() >= end || entries >= ENTRIES_PER_PIECE_MAX {
                    self.is_through = false;
                    break;
                }
                entries += 1;
                passed = Some(key);
                let read = frozen::encode(key, entry, 0, end, out);
                if read < frozen::encoded_len(key, entry) {
                    self.half = Some(Half { key: key.clone(), read, what: What::Live });
                    self.is_through = false;
                    break;
                }
            }
            self.passed = passed.cloned().or_else(|| self.passed.take());
            if !self.is_through {
                return false;
            }
        }
        while let Some(key) = self.changed.pop_first() {
            if out.len() >= end || entries >= ENTRIES_PER_PIECE_MAX {
                self.changed.insert(key);
                return false;
            }
            entries += 1;
            let what = if keys.contains_key(&key) { What::Live } else { What::Gone };
            self.half = Some(Half { key, read: 0, what });
            if !self.read_half(keys, end, out) {
                return false;
            }
        }
        true
    }

    /// Goes on with the entry that was begun. Whether it is whole.
    fn read_half(&mut self, keys: &Keys, end: usize, out: &mut Vec<u8>) -> bool {
        let Some(half) = &mut self.half else { return true };
        let entry = match &half.what {
            What::Live => keys.get(&half.key),
            What::Was(entry) => Some(entry),
            What::Gone => None,
        };
        let whole = match entry {
            Some(entry) => {
                half.read += frozen::encode(&half.key, entry, half.read, end, out);
                half.read == frozen::encoded_len(&half.key, entry)
            }
            None => {
                let header = frozen::header(half.key.len(), 0, 0, TYPE_GONE);
                half.read += frozen::put_parts(&[&header, &half.key], half.read, end, out);
                half.read == header.len() + half.key.len()
            }
        };
        if whole {
            self.half = None;
        }
        whole
    }
}

impl Keyspace {
    /// The shard is copied from now on, from its first key; another copy that was under way is given up.
    pub fn begin_copy(&mut self) {
        self.watch.copying = Some(Box::default());
    }

    /// Nobody reads the copy on.
    pub fn end_copy(&mut self) {
        self.watch.copying = None;
    }

    /// What is left to read of the copy; `None` if there is none, or it is good for nothing since all keys went at once.
    pub fn copy_left(&self) -> Option<CopyLeft> {
        let copying = self.watch.copying.as_ref().filter(|copying| !copying.is_void)?;
        let halves = usize::from(copying.half.is_some());
        Some(CopyLeft { is_through: copying.is_through, changed: copying.changed.len() + halves })
    }

    /// Appends the next piece of the copy to `out`, about `bytes_max` bytes: a piece may end within an entry. Whether nothing is
    /// left, for now.
    pub fn read_copy(&mut self, bytes_max: usize, out: &mut Vec<u8>) -> bool {
        let end = out.len() + bytes_max;
        let copying = self.watch.copying.as_mut();
        copying.is_none_or(|copying| copying.read(&self.keys, end, out))
    }

    /// What ends a copy, when nothing is left of it and the shard stands still: all that isn't of any key.
    pub fn end_of_copy(&self) -> Vec<u8> {
        let mut end = Vec::new();
        frozen::put_keyless(frozen::TYPE_FLOOR, &self.floor.to_le_bytes(), &mut end);
        let sessions = self.sessions.encode();
        if !sessions.is_empty() {
            frozen::put_keyless(frozen::TYPE_SESSIONS, &sessions, &mut end);
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::testing::{Change, change, change_keys};
    use crate::kv::{ShardReader, Value};
    use proptest::prelude::*;

    fn copy(keys: &mut Keyspace, piece: usize, mut between: impl FnMut(&mut Keyspace)) -> Option<Keyspace> {
        let mut reader = ShardReader::default();
        keys.begin_copy();
        loop {
            keys.copy_left()?;
            let mut out = Vec::new();
            let is_all = keys.read_copy(piece, &mut out);
            assert!(out.len() <= piece, "a piece is as long as it may be");
            reader.read(&out).unwrap();
            if is_all {
                reader.read(&keys.end_of_copy()).unwrap();
                return Some(reader.finish().unwrap());
            }
            between(keys);
        }
    }

    proptest! {
        #[test]
        fn a_copy_of_what_changes_meanwhile_is_what_it_has_become(
            first in prop::collection::vec(change(), 0..60),
            meanwhile in prop::collection::vec(change(), 0..60),
            piece in 1_usize..2000,
        ) {
            let mut keys = Keyspace::default();
            first.iter().for_each(|change| change_keys(&mut keys, change));
            let mut meanwhile = meanwhile.iter();
            let mut emptied = false;
            let found = copy(&mut keys, piece, |keys| meanwhile.by_ref().take(2).for_each(|it| {
                emptied |= matches!(it, Change::Empty);
                change_keys(keys, it);
            }));
            let Some(found) = found else {
                prop_assert!(emptied, "nothing else voids it");
                return Ok(());
            };
            prop_assert_eq!(found.state_hash(), keys.state_hash());
            prop_assert_eq!((found.len(), found.bytes()), (keys.len(), keys.bytes()));
            prop_assert_eq!(found.next_deadline(), keys.next_deadline());
        }
    }

    #[test]
    fn a_value_that_changes_while_half_of_it_is_read_is_given_as_it_was_and_then_as_it_is() {
        let mut keys = Keyspace::default();
        keys.insert(b"large", Value::String(vec![1; 10_000]), None);
        let mut changes = 0;
        let found = copy(&mut keys, 1000, |keys| {
            changes += 1;
            if changes == 3 {
                keys.insert(b"large", Value::String(b"small".to_vec()), None);
            }
        });
        let found = found.unwrap();
        assert!(changes >= 10, "what was begun was ended: {changes}");
        assert_eq!(found.get(0, b"large"), keys.get(0, b"large"));
    }

    #[test]
    fn what_was_removed_behind_the_copy_isn_t_there_at_its_end() {
        let mut keys = Keyspace::default();
        for key in [b"a", b"b", b"c"] {
            keys.insert(key, Value::String(vec![b'x'; 900]), None);
        }
        let mut is_first = true;
        let found = copy(&mut keys, 1000, |keys| {
            if std::mem::take(&mut is_first) {
                keys.remove(0, b"a");
            }
        });
        assert_eq!(found.unwrap().len(), 2);
    }
}
