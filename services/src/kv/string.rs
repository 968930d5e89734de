//! Changing a string in place: appending, overwriting, counting.

use super::keyspace::{Keyspace, Value};
use super::number;
use crate::command::{STRING_BYTES_MAX, code};
use crate::resp::ReplyWriter;

/// Redis' words for a value of another type.
pub(super) const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
/// Redis' words.
const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

impl Keyspace {
    /// The string at a key (empty if there is none) and its deadline, or the refusal of another type.
    pub(super) fn string_at(
        &self,
        clock_ms: u64,
        key: &[u8],
    ) -> Result<(Vec<u8>, Option<u64>), &'static str> {
        match self.get(clock_ms, key) {
            None => Ok((Vec::new(), None)),
            Some(entry) => match entry.value.as_string() {
                Some(bytes) => Ok((bytes.clone(), entry.deadline_ms())),
                None => Err(WRONG_TYPE),
            },
        }
    }

    pub(super) fn extend(
        &mut self,
        clock_ms: u64,
        command: u16,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
    ) {
        let key = args[1];
        let (mut bytes, deadline) = match self.string_at(clock_ms, key) {
            Ok(found) => found,
            Err(refusal) => return reply.error(refusal),
        };
        let added = args[args.len() - 1];
        let offset = match command {
            code::APPEND => bytes.len(),
            _ => number::integer(args[2]).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0),
        };
        if offset.saturating_add(added.len()) > STRING_BYTES_MAX {
            return reply.error(TOO_LONG);
        }
        if command == code::APPEND || !added.is_empty() {
            let end = offset + added.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[offset..end].copy_from_slice(added);
            let length = bytes.len();
            self.insert(key, Value::String(bytes), deadline);
            return reply.integer(i64::try_from(length).unwrap_or(i64::MAX));
        }
        reply.integer(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
    }

    /// `INCR` and its like. `None`: the increment itself doesn't fit.
    pub(super) fn add(&mut self, clock_ms: u64, key: &[u8], delta: Option<i64>, reply: &mut ReplyWriter<'_>) {
        let (bytes, deadline) = match self.string_at(clock_ms, key) {
            Ok(found) => found,
            Err(refusal) => return reply.error(refusal),
        };
        let existed = self.get(clock_ms, key).is_some();
        let Some(value) = (if existed { number::integer(&bytes) } else { Some(0) }) else {
            return reply.error("ERR value is not an integer or out of range");
        };
        let Some(sum) = delta.and_then(|delta| value.checked_add(delta)) else {
            return reply.error("ERR increment or decrement would overflow");
        };
        self.insert(key, Value::String(sum.to_string().into_bytes()), deadline);
        reply.integer(sum);
    }

    pub(super) fn add_float(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let key = args[1];
        let (bytes, deadline) = match self.string_at(clock_ms, key) {
            Ok(found) => found,
            Err(refusal) => return reply.error(refusal),
        };
        let existed = self.get(clock_ms, key).is_some();
        let value = if existed { number::float(&bytes) } else { Some(0.0) };
        if value.is_none() {
            return reply.error("ERR value is not a valid float");
        }
        let text = if existed { &bytes[..] } else { b"0" };
        let Some(sum) = number::add_floats(text, args[2]) else {
            return reply.error("ERR increment would produce NaN or Infinity");
        };
        reply.bulk(sum.as_bytes());
        self.insert(key, Value::String(sum.into_bytes()), deadline);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;

    #[test]
    fn nothing_is_written_anywhere_without_an_error() {
        let mut shard = Shard::default();
        let mut set_range =
            |offset: &str, value: &[u8]| shard.execute(&[b"SETRANGE", b"k", offset.as_bytes(), value]);
        let far = ["536870912", "536870913", "9223372036854775807"];
        assert!(far.iter().all(|offset| set_range(offset, b"") == ":0"));
        assert_eq!(set_range("0", b"abc"), ":3");
        assert!(far.iter().all(|offset| set_range(offset, b"") == ":3"));
        let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
        assert!(far.iter().all(|offset| set_range(offset, b"x") == too_long));
        assert_eq!(set_range("-1", b""), "-ERR offset is out of range");
        assert_eq!(set_range("9223372036854775808", b""), "-ERR value is not an integer or out of range");
        assert_eq!(shard.say("get k"), "$3 abc");
    }
}
