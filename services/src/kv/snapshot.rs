//! A shard's data as bytes, in key order, a part at a time.
//!
//! An entry: key length u32, value length u32, deadline u64 (0: none), type u8 (1: string), then key and value. All
//! little-endian. Checksums are the container's business.

use super::keyspace::{Keyspace, Value};
use std::ops::Bound;

const ENTRY_HEADER_BYTES: usize = 17;
const TYPE_STRING: u8 = 1;

/// Bytes that are no part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a snapshot of a shard makes no sense at byte {0}")]
pub struct SnapshotError(usize);

impl Keyspace {
    /// Appends the entries after the key `after` to `out`, until it has grown by `bytes_max`. Returns the last key
    /// appended if there are more.
    pub fn encode_from(&self, after: Option<&[u8]>, bytes_max: usize, out: &mut Vec<u8>) -> Option<Vec<u8>> {
        let end = out.len().saturating_add(bytes_max);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, entry) in self.keys.range::<[u8], _>((from, Bound::Unbounded)) {
            let Value::String(bytes) = &entry.value;
            for length in [key.len(), bytes.len()] {
                out.extend_from_slice(
                    &u32::try_from(length).expect("keys and values are at most 512 MiB").to_le_bytes(),
                );
            }
            out.extend_from_slice(&entry.deadline_ms.unwrap_or(0).to_le_bytes());
            out.push(TYPE_STRING);
            out.extend_from_slice(key);
            out.extend_from_slice(bytes);
            if out.len() >= end {
                return Some(key.to_vec());
            }
        }
        None
    }

    /// Adds the entries of a part.
    ///
    /// # Errors
    /// [`SnapshotError`]; the entries before it are in.
    pub fn decode_into(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let mut at = 0;
        while at < bytes.len() {
            let error = SnapshotError(at);
            let (header, rest) = bytes[at..].split_at_checked(ENTRY_HEADER_BYTES).ok_or(error)?;
            let length = |i: usize| {
                u32::from_le_bytes(header[i..i + 4].try_into().expect("four bytes of seventeen")) as usize
            };
            let deadline = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes of seventeen"));
            let (key, rest) = rest.split_at_checked(length(0)).ok_or(error)?;
            let (value, _) = rest.split_at_checked(length(4)).ok_or(error)?;
            if header[16] != TYPE_STRING {
                return Err(error);
            }
            self.insert(key, Value::String(value.to_vec()), (deadline != 0).then_some(deadline));
            at += ENTRY_HEADER_BYTES + key.len() + value.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyspace_survives_in_parts() {
        let mut keys = Keyspace::default();
        for number in 0..100_u64 {
            let deadline = (number % 3 == 0).then_some(number + 1);
            keys.insert(format!("key{number}").as_bytes(), Value::String(vec![7; number as usize]), deadline);
        }
        let (mut copy, mut after, mut parts) = (Keyspace::default(), None, 0);
        loop {
            let mut part = Vec::new();
            after = keys.encode_from(after.as_deref(), 500, &mut part);
            copy.decode_into(&part).unwrap();
            parts += 1;
            if after.is_none() {
                break;
            }
        }
        assert!(parts > 5);
        assert_eq!(
            (copy.state_hash(), copy.bytes(), copy.next_deadline()),
            (keys.state_hash(), keys.bytes(), Some(1))
        );
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Keyspace::default().decode_into(&bytes);
        }
    }
}
