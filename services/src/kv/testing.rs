//! A shard to talk to, for tests.

use super::{Keyspace, Time};
use crate::command::{check, lookup};
use crate::resp::{Protocol, ReplyWriter};

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
