//! Requests as bytes.

use std::io::Write;

use crate::resp;
use crate::workload::{Flavour, KEY_BYTES, Operation, key_into, value};

/// The requests, with a hole where the key goes.
#[derive(Debug)]
pub(super) struct Templates {
    set: Vec<u8>,
    set_key_at: usize,
    get: Vec<u8>,
    get_key_at: usize,
    wait: Vec<u8>,
}

impl Templates {
    /// Requests with values of so many bytes.
    ///
    /// A scan is Flotilla's `FLOTILLA.RANGE`; `replicas` are those that `WAIT` waits for.
    pub(super) fn new(value_bytes: usize, replicas: usize) -> Self {
        let (key, value) = ([b'.'; KEY_BYTES], value(value_bytes));
        let (mut set, mut get, mut wait) = (Vec::new(), Vec::new(), Vec::new());
        resp::encode(&mut set, &[b"SET", &key, &value]);
        resp::encode(&mut get, &[b"GET", &key]);
        resp::encode(&mut wait, &[b"WAIT", replicas.to_string().as_bytes(), WAIT_MAX_MS]);
        let at = |template: &[u8]| template.windows(KEY_BYTES).position(|window| window == key).unwrap_or(0);
        let (set_key_at, get_key_at) = (at(&set), at(&get));
        Self { set_key_at, get_key_at, set, get, wait }
    }

    /// Appends the request of `operation`; `key` are its bytes.
    pub(super) fn append(&self, out: &mut Vec<u8>, ask: Ask, operation: Operation, key: &[u8; KEY_BYTES]) {
        let (template, at) = match ask {
            Ask::Get => (&self.get, self.get_key_at),
            Ask::Set => (&self.set, self.set_key_at),
            Ask::Scan => return append_scan(out, operation, key),
        };
        let from = out.len() + at;
        out.extend_from_slice(template);
        out[from..from + KEY_BYTES].copy_from_slice(key);
    }

    /// Appends the question whether the replicas have what was written so far.
    pub(super) fn append_wait(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.wait);
    }
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A key's value.
    Get,
    /// A value for a key.
    Set,
    /// Several keys in order, with their values.
    Scan,
}

impl Ask {
    /// The request of an operation, or its first: `fetched` when that has been answered.
    pub(crate) fn of(operation: Operation, flavour: Flavour, fetched: bool) -> Self {
        match (operation.read, flavour) {
            (true, Flavour::Scan) => Self::Scan,
            (true, _) => Self::Get,
            (false, Flavour::ReadModifyWrite) if !fetched => Self::Get,
            (false, _) => Self::Set,
        }
    }
}

/// Its limit has no leading zeros, or it would be no number to Flotilla: no template has room for it.
fn append_scan(out: &mut Vec<u8>, operation: Operation, key: &[u8; KEY_BYTES]) {
    let limit = Flavour::scan_limit(operation.key);
    out.extend_from_slice(b"*6\r\n$14\r\nFLOTILLA.RANGE\r\n$17\r\n[");
    out.extend_from_slice(key);
    out.extend_from_slice(b"\r\n$1\r\n+\r\n$5\r\nLIMIT\r\n");
    let written = write!(out, "${}\r\n{limit}\r\n$10\r\nWITHVALUES\r\n", 1 + limit.ilog10());
    written.expect("writing to memory works");
}

/// How long `WAIT` waits: longer than a load lasts, since giving up is an error.
const WAIT_MAX_MS: &[u8] = b"30000";

/// The bytes of key number `key`.
pub(crate) fn key_bytes(key: u64) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    key_into(&mut bytes, key);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_carry_their_key() {
        let templates = Templates::new(3, 2);
        let mut out = Vec::new();
        for read in [false, true] {
            let operation = Operation { key: 42, read };
            let ask = Ask::of(operation, Flavour::Plain, false);
            templates.append(&mut out, ask, operation, &key_bytes(42));
        }
        let value = String::from_utf8(value(3)).unwrap();
        let wanted = format!(
            "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$3\r\n{value}\r\n\
             *2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn a_scan_has_its_limit_and_a_wait_its_replicas() {
        let (templates, mut out) = (Templates::new(3, 2), Vec::new());
        let operation = Operation { key: 42, read: true };
        templates.append(&mut out, Ask::of(operation, Flavour::Scan, false), operation, &key_bytes(42));
        templates.append_wait(&mut out);
        let limit = Flavour::scan_limit(42).to_string();
        let wanted = format!(
            "*6\r\n$14\r\nFLOTILLA.RANGE\r\n$17\r\n[key:000000000042\r\n$1\r\n+\r\n$5\r\nLIMIT\r\n${}\r\n{limit}\r\n\
             $10\r\nWITHVALUES\r\n*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$5\r\n30000\r\n",
            limit.len()
        );
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn a_modification_reads_before_it_writes() {
        let (write, modify) = (Operation { key: 1, read: false }, Flavour::ReadModifyWrite);
        assert_eq!([Ask::of(write, modify, false), Ask::of(write, modify, true)], [Ask::Get, Ask::Set]);
    }
}
