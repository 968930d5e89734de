//! The keys of one shard, in order, with their expiry.

use super::expiry::Expiry;
use super::frozen::Frozen;
use crate::command::by_code;
use crate::resp::ReplyWriter;
use std::collections::{BTreeMap, BTreeSet};

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

/// A value, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the key holds.
    pub value: Value,
    /// Milliseconds since 1970 from which on the key is absent.
    pub deadline_ms: Option<u64>,
}

impl Entry {
    fn is_live(&self, clock_ms: u64) -> bool {
        self.deadline_ms.is_none_or(|deadline| deadline > clock_ms)
    }
}

/// The data of one shard.
#[derive(Clone, Debug, Default)]
pub struct Keyspace {
    pub(super) keys: BTreeMap<Box<[u8]>, Entry>,
    deadlines: BTreeSet<(u64, Box<[u8]>)>,
    bytes: u64,
    /// A former state that is being read.
    pub(super) frozen: Option<Box<Frozen>>,
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
        self.keys.get(key).filter(|entry| entry.is_live(clock_ms))
    }

    /// The keys that aren't over, in order, those after `after`.
    pub fn keys_after<'a>(
        &'a self,
        clock_ms: u64,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let from = match after {
            Some(key) => std::ops::Bound::Excluded(key),
            None => std::ops::Bound::Unbounded,
        };
        let range = self.keys.range::<[u8], _>((from, std::ops::Bound::Unbounded));
        range.filter(move |(_, entry)| entry.is_live(clock_ms)).map(|(key, _)| &**key)
    }

    /// Sets a key.
    pub(super) fn insert(&mut self, key: &[u8], value: Value, deadline_ms: Option<u64>) {
        if let Some(entry) = self.keys.get_mut(key) {
            let (old, new) = (size(&entry.value), size(&value));
            self.bytes = self.bytes - old + new;
            let former = std::mem::replace(entry, Entry { value, deadline_ms });
            self.move_deadline(key, former.deadline_ms, deadline_ms);
            if let Some(frozen) = self.frozen.as_mut().filter(|frozen| frozen.needs(key)) {
                frozen.put_aside(key, Some(former));
            }
            return;
        }
        if let Some(frozen) = self.frozen.as_mut().filter(|frozen| frozen.needs(key)) {
            frozen.put_aside(key, None);
        }
        self.bytes += key.len() as u64 + size(&value);
        self.move_deadline(key, None, deadline_ms);
        self.keys.insert(key.into(), Entry { value, deadline_ms });
    }

    /// Changes when a key ends.
    pub(super) fn set_deadline(&mut self, key: &[u8], deadline_ms: Option<u64>) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        if let Some(frozen) = self.frozen.as_mut().filter(|frozen| frozen.needs(key)) {
            frozen.put_aside(key, Some(entry.clone()));
        }
        let former = std::mem::replace(&mut entry.deadline_ms, deadline_ms);
        self.move_deadline(key, former, deadline_ms);
    }

    fn move_deadline(&mut self, key: &[u8], from: Option<u64>, to: Option<u64>) {
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.deadlines.remove(&(from, key.into()));
        }
        if let Some(to) = to {
            self.deadlines.insert((to, key.into()));
        }
    }

    /// Removes a key; returns its entry if it wasn't over.
    pub(super) fn remove(&mut self, clock_ms: u64, key: &[u8]) -> Option<Entry> {
        let entry = self.keys.remove(key)?;
        if let Some(frozen) = self.frozen.as_mut().filter(|frozen| frozen.needs(key)) {
            frozen.put_aside(key, Some(entry.clone()));
        }
        self.bytes -= key.len() as u64 + size(&entry.value);
        self.move_deadline(key, entry.deadline_ms, None);
        entry.is_live(clock_ms).then_some(entry)
    }

    pub(super) fn clear(&mut self) {
        self.empty();
    }

    /// Gives up to `most` entries of data that nobody needs back to the memory; returns whether that was all.
    pub fn bury(&mut self, most: usize) -> bool {
        for _ in 0..most {
            if self.deadlines.pop_first().is_none() && self.keys.pop_first().is_none() {
                return true;
            }
        }
        false
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
            let entry = self.keys.remove(&key).expect("every deadline has its key");
            self.bytes -= key.len() as u64 + size(&entry.value);
            if let Some(frozen) = self.frozen.as_mut().filter(|frozen| frozen.needs(&key)) {
                frozen.put_aside(&key, Some(entry));
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
            .filter_map(|key| self.keys.get(key))
            .filter_map(|entry| entry.deadline_ms)
            .any(|deadline| clock_ms < deadline && deadline <= now_ms)
    }

    /// Applies a write from the log. `args` were checked before they were logged.
    pub fn write(&mut self, clock_ms: u64, code: u16, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let spec = by_code(code).expect("codes are frozen: every logged command is in the table");
        match spec.name {
            "set" => self.set(clock_ms, args, reply),
            "setnx" | "setex" | "psetex" | "getset" | "mset" | "msetnx" | "getdel" | "getex" => {
                self.set_otherwise(clock_ms, spec.name, args, reply);
            }
            "append" | "setrange" => self.extend(clock_ms, spec.name, args, reply),
            "incr" => self.add(clock_ms, args[1], Some(1), reply),
            "decr" => self.add(clock_ms, args[1], Some(-1), reply),
            "incrby" => self.add(clock_ms, args[1], super::number::integer(args[2]), reply),
            "decrby" => {
                let delta = super::number::integer(args[2]).and_then(i64::checked_neg);
                self.add(clock_ms, args[1], delta, reply);
            }
            "incrbyfloat" => self.add_float(clock_ms, args, reply),
            "del" | "unlink" => {
                let removed = args[1..].iter().filter(|key| self.remove(clock_ms, key).is_some()).count();
                reply.integer(i64::try_from(removed).unwrap_or(i64::MAX));
            }
            "expire" | "pexpire" | "expireat" | "pexpireat" => {
                Expiry::change(self, clock_ms, spec.name, args, reply)
            }
            "persist" => {
                let had = self.get(clock_ms, args[1]).is_some_and(|entry| entry.deadline_ms.is_some());
                if had {
                    self.set_deadline(args[1], None);
                }
                reply.integer(i64::from(had));
            }
            "flushall" | "flushdb" => {
                self.clear();
                reply.simple("OK");
            }
            other => unreachable!("{other} is no write"),
        }
    }

    /// A number that is equal on replicas with equal data.
    pub fn state_hash(&self) -> u64 {
        let mut hasher = crc32fast::Hasher::new();
        let mut mixed = self.len();
        for (key, entry) in &self.keys {
            hasher.reset();
            hasher.update(key);
            hasher.update(&entry.deadline_ms.unwrap_or(0).to_le_bytes());
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
