//! The keys of one shard, in order, with their expiry.

use super::key::Key;
use super::load::next_version;
use super::session::Sessions;
use super::watch::Watch;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::num::NonZeroU64;
use std::ops::Bound;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// Bytes.
    String(Vec<u8>),
}

impl Value {
    /// Its bytes, if it is a string.
    pub fn as_string(&self) -> Option<&Vec<u8>> {
        let Self::String(bytes) = self;
        Some(bytes)
    }

    /// As `TYPE` names it.
    pub fn type_name(&self) -> &'static str {
        let Self::String(_) = self;
        "string"
    }
}

/// A value, when it ends, and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the key holds.
    pub value: Value,
    /// Milliseconds since 1970 from which on the key is absent.
    deadline: Option<NonZeroU64>,
    /// Grows with every change of the key, and doesn't begin anew when the key is removed and made again.
    pub version: u64,
}

impl Entry {
    /// `deadline_ms` is 0 for none.
    pub(super) fn new(value: Value, deadline_ms: u64, version: u64) -> Self {
        Self { value, deadline: NonZeroU64::new(deadline_ms), version }
    }

    /// Milliseconds since 1970 from which on the key is absent.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline.map(NonZeroU64::get)
    }

    fn is_live(&self, clock_ms: u64) -> bool {
        self.deadline.is_none_or(|deadline| deadline.get() > clock_ms)
    }
}

/// Keys in order.
pub(super) type Keys = BTreeMap<Key, Entry>;

/// When keys end, the first first.
pub(super) type Ends = BTreeSet<(u64, Box<[u8]>)>;

/// The data of one shard.
#[derive(Clone, Debug, Default)]
pub struct Keyspace {
    pub(super) keys: Keys,
    deadlines: Ends,
    bytes: u64,
    /// No version of a key that is gone was higher: a key that is made begins above.
    pub(super) floor: u64,
    /// No version of any key was higher, but for what was staged for a restore.
    pub(super) version_max: u64,
    /// Who must not be served twice.
    pub(super) sessions: Sessions,
    /// Who reads it while it changes.
    pub(super) watch: Watch,
}

impl Keyspace {
    /// Keys, those included whose time has come and that haven't been removed yet.
    pub fn len(&self) -> u64 {
        self.keys.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The entry of a key that isn't over.
    pub fn get(&self, clock_ms: u64, key: &[u8]) -> Option<&Entry> {
        self.find(key).filter(|entry| entry.is_live(clock_ms))
    }

    /// The entry of a key, be it over or not.
    fn find(&self, key: &[u8]) -> Option<&Entry> {
        // Two short keys are compared faster than their bytes.
        Key::short(key).map_or_else(|| self.keys.get(key), |short| self.keys.get(&short))
    }

    /// Whether there is a key, be it over or not.
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// The keys that aren't over, in order, those after `after`.
    pub fn keys_after<'a>(
        &'a self,
        clock_ms: u64,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.entries_after(clock_ms, after).map(|(key, _)| key)
    }

    /// The entries that aren't over, in order, those after `after`.
    pub fn entries_after<'a>(
        &'a self,
        clock_ms: u64,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Entry)> + use<'a> {
        self.range(clock_ms, after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
    }

    /// The first and the last key.
    pub fn ends(&self) -> Option<(&[u8], &[u8])> {
        let (first, last) = (self.keys.first_key_value()?, self.keys.last_key_value()?);
        Some((first.0, last.0))
    }

    /// The version of a key that isn't over, 0 for none.
    pub(super) fn version(&self, clock_ms: u64, key: &[u8]) -> u64 {
        self.get(clock_ms, key).map_or(0, |entry| entry.version)
    }

    /// Sets a key.
    pub(super) fn insert(&mut self, key: &[u8], value: Value, deadline_ms: Option<u64>) {
        let deadline = deadline_ms.and_then(NonZeroU64::new);
        let bytes = size(&value);
        let (former, version) = match self.keys.entry(Key::from(key)) {
            btree_map::Entry::Occupied(mut place) => {
                let version = next_version(place.get().version, self.floor);
                (Some(place.insert(Entry { value, deadline, version })), version)
            }
            btree_map::Entry::Vacant(place) => {
                let version = self.floor + 1;
                place.insert(Entry { value, deadline, version });
                (None, version)
            }
        };
        let before = former.as_ref().map_or(0, |former| key.len() as u64 + size(&former.value));
        self.bytes = self.bytes - before + key.len() as u64 + bytes;
        self.version_max = self.version_max.max(version);
        self.move_deadline(key, former.as_ref().and_then(|former| former.deadline), deadline);
        if self.watch.note(key) {
            self.watch.put_aside(key, former);
        }
    }

    /// A key as a snapshot has it.
    pub(super) fn restore(&mut self, key: &[u8], entry: Entry) {
        // Mostly they come in order.
        let is_behind = self.keys.last_key_value().is_none_or(|(last, _)| **last < *key);
        if !is_behind && self.has(key) {
            self.remove(0, key);
        }
        if self.watch.note(key) {
            self.watch.put_aside(key, None);
        }
        self.count(key, &entry);
        self.keys.insert(key.into(), entry);
    }

    /// All keys of a keyspace without any, in order.
    pub(super) fn fill(&mut self, entries: Vec<(Key, Entry)>) {
        if entries.is_empty() {
            return;
        }
        assert!(self.keys.is_empty(), "what is there would be lost");
        entries.iter().for_each(|(key, entry)| self.count(key, entry));
        self.keys = entries.into_iter().collect();
    }

    /// A key that wasn't there comes.
    fn count(&mut self, key: &[u8], entry: &Entry) {
        self.bytes += key.len() as u64 + size(&entry.value);
        self.version_max = self.version_max.max(entry.version);
        self.move_deadline(key, None, entry.deadline);
    }

    /// Changes when a key ends.
    pub(super) fn set_deadline(&mut self, key: &[u8], deadline_ms: Option<u64>) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        if self.watch.note(key) {
            self.watch.put_aside(key, Some(entry.clone()));
        }
        entry.version = next_version(entry.version, self.floor);
        self.version_max = self.version_max.max(entry.version);
        let deadline = deadline_ms.and_then(NonZeroU64::new);
        let former = std::mem::replace(&mut entry.deadline, deadline);
        self.move_deadline(key, former, deadline);
    }

    fn move_deadline(&mut self, key: &[u8], from: Option<NonZeroU64>, to: Option<NonZeroU64>) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.deadlines.remove(&(from.get(), key.into()));
        }
        if let Some(to) = to {
            self.deadlines.insert((to.get(), key.into()));
        }
    }

    /// Removes a key; returns its entry if it wasn't over.
    pub(super) fn remove(&mut self, clock_ms: u64, key: &[u8]) -> Option<Entry> {
        let entry = self.keys.remove(key)?;
        if self.watch.note(key) {
            self.watch.put_aside(key, Some(entry.clone()));
        }
        self.bytes -= key.len() as u64 + size(&entry.value);
        self.floor = self.floor.max(entry.version);
        self.move_deadline(key, entry.deadline, None);
        entry.is_live(clock_ms).then_some(entry)
    }

    /// All keys go; what is frozen stays as it was.
    pub(super) fn clear(&mut self) {
        // Of what was staged (`load.rs`) nobody compares versions, and a replica that has read a snapshot doesn't know them.
        let version_max = match self.is_in_an_era() {
            true => self.keys.values().map(|entry| entry.version).fold(self.floor, u64::max),
            false => self.version_max,
        };
        let sessions = std::mem::take(&mut self.sessions);
        self.empty();
        (self.floor, self.version_max, self.sessions) = (version_max, version_max, sessions);
    }

    /// From a snapshot: no version of a key that is gone was higher.
    pub(super) fn set_floor(&mut self, floor: u64) {
        self.floor = floor;
        self.version_max = self.version_max.max(floor);
    }

    /// The entries from a place on, in order, without those that are over.
    pub(super) fn range<'a>(
        &'a self,
        clock_ms: u64,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Entry)> + use<'a> {
        let range = self.keys.range::<[u8], _>((from, to));
        range.filter(move |(_, entry)| entry.is_live(clock_ms)).map(|(key, entry)| (&**key, entry))
    }

    /// The keys and their ends, for [`super::Grave`].
    pub(super) fn into_trees(self) -> (Keys, Ends) {
        (self.keys, self.deadlines)
    }

    /// The earliest end of any key.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Removes up to `most` keys whose time has come; returns how many.
    pub fn expire(&mut self, clock_ms: u64, most: usize) -> usize {
        let mut removed = 0;
        while removed < most && self.next_deadline().is_some_and(|deadline| deadline <= clock_ms) {
            let (_, key) = self.deadlines.pop_first().expect("there is a next deadline");
            let entry = self.keys.remove(&*key).expect("every deadline has its key");
            self.bytes -= key.len() as u64 + size(&entry.value);
            self.floor = self.floor.max(entry.version);
            if self.watch.note(&key) {
                self.watch.put_aside(&key, Some(entry));
            }
            removed += 1;
        }
        removed
    }

    /// Whether a read at `now_ms` would find a key over that isn't by the group's clock: then the time must be
    /// logged first, or another replica could find it alive again later.
    pub fn read_decides_expiry(
        &self,
        clock_ms: u64,
        now_ms: u64,
        spec: &crate::command::Spec,
        args: &[&[u8]],
    ) -> bool {
        if self.deadlines.is_empty() {
            return false;
        }
        spec.keys(args)
            .filter_map(|key| self.find(key))
            .filter_map(Entry::deadline_ms)
            .any(|deadline| clock_ms < deadline && deadline <= now_ms)
    }

    /// A number that is equal on replicas with equal data.
    pub fn state_hash(&self) -> u64 {
        let mut hasher = crc32fast::Hasher::new();
        let mut mixed = self.len() ^ self.floor.rotate_left(32) ^ self.sessions.hash();
        for (key, entry) in &self.keys {
            hasher.reset();
            hasher.update(key);
            hasher.update(&entry.deadline_ms().unwrap_or(0).to_le_bytes());
            hasher.update(&entry.version.to_le_bytes());
            let Value::String(bytes) = &entry.value;
            hasher.update(bytes);
            let hash = u64::from(hasher.clone().finalize());
            mixed = (mixed ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
        mixed
    }
}

/// Bytes of a value.
fn size(value: &Value) -> u64 {
    let Value::String(bytes) = value;
    bytes.len() as u64
}
