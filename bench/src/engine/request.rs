//! Requests as bytes.

use crate::resp;
use crate::workload::{KEY_BYTES, Operation, key_into, value};

/// Both requests, with a hole where the key goes.
#[derive(Debug)]
pub(super) struct Templates {
    set: Vec<u8>,
    set_key_at: usize,
    get: Vec<u8>,
    get_key_at: usize,
}

impl Templates {
    /// Requests with values of so many bytes.
    pub(super) fn new(value_bytes: usize) -> Self {
        let (key, value) = ([b'.'; KEY_BYTES], value(value_bytes));
        let (mut set, mut get) = (Vec::new(), Vec::new());
        resp::encode(&mut set, &[b"SET", &key, &value]);
        resp::encode(&mut get, &[b"GET", &key]);
        let at = |template: &[u8]| template.windows(KEY_BYTES).position(|window| window == key).unwrap_or(0);
        Self { set_key_at: at(&set), get_key_at: at(&get), set, get }
    }

    /// Appends the request of `operation`; `key` are its bytes.
    pub(super) fn append(&self, out: &mut Vec<u8>, operation: Operation, key: &[u8; KEY_BYTES]) {
        let (template, at) = match operation.read {
            true => (&self.get, self.get_key_at),
            false => (&self.set, self.set_key_at),
        };
        let from = out.len() + at;
        out.extend_from_slice(template);
        out[from..from + KEY_BYTES].copy_from_slice(key);
    }
}

/// The bytes of key number `key`.
pub(super) fn key_bytes(key: u64) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    key_into(&mut bytes, key);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_carry_their_key() {
        let templates = Templates::new(3);
        let mut out = Vec::new();
        for read in [false, true] {
            templates.append(&mut out, Operation { key: 42, read }, &key_bytes(42));
        }
        let value = String::from_utf8(value(3)).unwrap();
        let wanted = format!(
            "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$3\r\n{value}\r\n\
             *2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}
