//! Commands that only look.

use super::keyspace::Keyspace;
use super::number;
use super::set::WRONG_TYPE;
use crate::command::Spec;
use crate::resp::ReplyWriter;

impl Keyspace {
    /// Executes a read in the state at hand. `args` were checked before.
    pub fn read(&self, clock_ms: u64, spec: &Spec, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        match spec.name {
            "get" => match self.get(clock_ms, args[1]) {
                None => reply.null(),
                Some(entry) => match entry.value.as_string() {
                    Some(bytes) => reply.bulk(bytes),
                    None => reply.error(WRONG_TYPE),
                },
            },
            "mget" => {
                reply.array(args.len() - 1);
                for key in &args[1..] {
                    match self.get(clock_ms, key).and_then(|entry| entry.value.as_string()) {
                        Some(bytes) => reply.bulk(bytes),
                        None => reply.null(),
                    }
                }
            }
            "exists" | "touch" => {
                let found = args[1..].iter().filter(|key| self.get(clock_ms, key).is_some()).count();
                reply.integer(i64::try_from(found).unwrap_or(i64::MAX));
            }
            "strlen" | "getrange" | "substr" => self.read_string(clock_ms, spec, args, reply),
            "type" => {
                reply.simple(self.get(clock_ms, args[1]).map_or("none", |entry| entry.value.type_name()))
            }
            "ttl" | "pttl" | "expiretime" | "pexpiretime" => {
                self.read_expiry(clock_ms, spec.name, args[1], reply)
            }
            other => unreachable!("{other} is no read with a key"),
        }
    }

    fn read_string(&self, clock_ms: u64, spec: &Spec, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let bytes = match self.get(clock_ms, args[1]).map(|entry| entry.value.as_string()) {
            None => &[][..],
            Some(Some(bytes)) => bytes,
            Some(None) => return reply.error(WRONG_TYPE),
        };
        if spec.name == "strlen" {
            return reply.integer(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
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

    fn read_expiry(&self, clock_ms: u64, command: &str, key: &[u8], reply: &mut ReplyWriter<'_>) {
        let deadline = match self.get(clock_ms, key).map(|entry| entry.deadline_ms) {
            None => return reply.integer(-2),
            Some(None) => return reply.integer(-1),
            Some(Some(deadline)) => deadline,
        };
        let left = deadline.saturating_sub(clock_ms);
        let shown = match command {
            "ttl" => (left + 500) / 1000,
            "pttl" => left,
            "expiretime" => deadline / 1000,
            _ => deadline,
        };
        reply.integer(i64::try_from(shown).unwrap_or(i64::MAX));
    }
}
