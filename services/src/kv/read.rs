//! Commands that only look.

use super::keyspace::{Entry, Keyspace};
use super::{Time, number};
use crate::command::{Spec, code};
use crate::resp::ReplyWriter;

impl Keyspace {
    pub(super) fn read_value(&self, clock_ms: u64, key: &[u8], reply: &mut ReplyWriter<'_>) {
        match self.bytes_at(clock_ms, key) {
            Ok(Some(bytes)) => reply.bulk(bytes),
            Ok(None) => reply.null(),
            Err(refusal) => reply.error(refusal),
        }
    }

    pub(super) fn read_values(&self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        reply.array(args.len() - 1);
        for key in &args[1..] {
            match self.bytes_at(clock_ms, key) {
                Ok(Some(bytes)) => reply.bulk(bytes),
                _ => reply.null(),
            }
        }
    }

    pub(super) fn read_string(
        &self,
        clock_ms: u64,
        spec: &Spec,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
    ) {
        let bytes = match self.bytes_at(clock_ms, args[1]) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(refusal) => return reply.error(refusal),
        };
        if spec.code == code::STRLEN {
            return reply.length_of(bytes.len());
        }
        let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let (Some(start), Some(end)) = (number::integer(args[2]), number::integer(args[3])) else {
            return reply.error("ERR value is not an integer or out of range");
        };
        if start < 0 && end < 0 && start > end {
            return reply.bulk(b"");
        }
        let from_end = |place: i64| if place < 0 { place.saturating_add(length).max(0) } else { place };
        let (start, end) = (from_end(start), from_end(end).min(length - 1));
        match (usize::try_from(start), usize::try_from(end)) {
            (Ok(start), Ok(end)) if start <= end => reply.bulk(&bytes[start..=end]),
            _ => reply.bulk(b""),
        }
    }

    pub(super) fn read_expiry(&self, time: Time, command: u16, key: &[u8], reply: &mut ReplyWriter<'_>) {
        let deadline = match self.get(time.clock_ms, key).map(Entry::deadline_ms) {
            None => return reply.integer(-2),
            Some(None) => return reply.integer(-1),
            Some(Some(deadline)) => deadline,
        };
        let left = deadline.saturating_sub(time.now_ms.max(time.clock_ms));
        reply.unsigned(match command {
            code::TTL => (left + 500) / 1000,
            code::PTTL => left,
            code::EXPIRETIME => (deadline + 500) / 1000,
            _ => deadline,
        });
    }
}
