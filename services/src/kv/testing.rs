//! A shard to talk to, for tests.

use super::{Keyspace, Time, Value};
use crate::command::{canonical, check, lookup};
use crate::resp::{Protocol, ReplyWriter};
use proptest::prelude::*;

/// A shard whose time stands still unless told otherwise.
pub(super) struct Shard {
    pub(super) keys: Keyspace,
    clock_ms: u64,
}

impl Default for Shard {
    fn default() -> Self {
        Self { keys: Keyspace::default(), clock_ms: 1_700_000_000_000 }
    }
}

impl Shard {
    /// Executes a line; the reply's lines, separated by spaces.
    pub(super) fn say(&mut self, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.execute(&args)
    }

    pub(super) fn execute(&mut self, args: &[&[u8]]) -> String {
        let spec = lookup(args[0]).unwrap();
        let otherwise = canonical(spec, args);
        let args = otherwise.as_deref().unwrap_or(args);
        if let Err(rejected) = check(spec, args) {
            return format!("-{rejected}");
        }
        if spec.is_write() {
            return self.write(spec.code, args);
        }
        let mut out = Vec::new();
        let time = Time { clock_ms: self.clock_ms, now_ms: self.clock_ms };
        self.keys.read(time, spec, args, &mut ReplyWriter::new(&mut out, Protocol::Resp2));
        shown(&out)
    }

    pub(super) fn write(&mut self, code: u16, args: &[&[u8]]) -> String {
        let mut out = Vec::new();
        self.keys.write(self.clock_ms, code, args, &mut ReplyWriter::new(&mut out, Protocol::Resp2));
        shown(&out)
    }

    pub(super) fn advance(&mut self, by_ms: u64) {
        self.clock_ms += by_ms;
    }

    pub(super) fn version(&self, key: &str) -> u64 {
        self.keys.version(self.clock_ms, key.as_bytes())
    }
}

fn shown(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply).replace("\r\n", " ");
    text.strip_suffix(' ').unwrap_or(&text).to_owned()
}

/// What happens to a shard of few keys.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Set(u8, u16, Option<u64>),
    Deadline(u8, Option<u64>),
    Remove(u8),
    Expire,
    Empty,
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let deadline = proptest::option::of(1_u64..50);
    prop_oneof![
        8 => (any::<u8>(), 0_u16..900, deadline.clone()).prop_map(|(key, bytes, at)| Change::Set(key, bytes, at)),
        2 => (any::<u8>(), deadline).prop_map(|(key, at)| Change::Deadline(key, at)),
        4 => any::<u8>().prop_map(Change::Remove),
        1 => Just(Change::Expire),
        1 => Just(Change::Empty),
    ]
}

pub(super) fn change_keys(keys: &mut Keyspace, change: &Change) {
    match change {
        Change::Set(key, bytes, at) => {
            keys.insert(&[*key], Value::String(vec![*key; usize::from(*bytes)]), *at);
        }
        Change::Deadline(key, at) => keys.set_deadline(&[*key], *at),
        Change::Remove(key) => drop(keys.remove(0, &[*key])),
        Change::Expire => drop(keys.expire(25, 3)),
        Change::Empty => keys.clear(),
    }
}
