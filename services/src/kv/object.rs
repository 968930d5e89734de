//! `OBJECT`: what a value is made of.

use super::keyspace::Keyspace;
use super::number;
use crate::command::Rejected;
use crate::resp::ReplyWriter;

/// Redis keeps a string of so many bytes in one piece with its header, and tells so.
const EMBEDDED_BYTES_MAX: usize = 44;

/// Checks a subcommand.
pub(crate) fn check(args: &[&[u8]]) -> Result<(), Rejected> {
    let sub = args[1].to_ascii_uppercase();
    match (&sub[..], args.len()) {
        (b"ENCODING" | b"REFCOUNT" | b"HELP", 3) | (b"HELP", 2) => Ok(()),
        (b"FREQ", 3) => Err(Rejected::new(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
        )),
        (b"IDLETIME", 3) => Err(Rejected::new("ERR the time of the last access is not tracked")),
        (b"ENCODING" | b"REFCOUNT" | b"FREQ" | b"IDLETIME", _) => Err(Rejected(format!(
            "ERR wrong number of arguments for 'object|{}' command",
            String::from_utf8_lossy(&sub).to_lowercase()
        ))),
        _ => Err(Rejected(format!(
            "ERR unknown subcommand '{}'. Try OBJECT HELP.",
            String::from_utf8_lossy(args[1])
        ))),
    }
}

impl Keyspace {
    pub(super) fn describe_object(&self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let Some(entry) = self.get(clock_ms, args[2]) else { return reply.null() };
        if args[1].eq_ignore_ascii_case(b"REFCOUNT") {
            return reply.integer(1);
        }
        let encoding = match entry.value.as_string() {
            Some(bytes) if number::integer(bytes).is_some() => "int",
            Some(bytes) if bytes.len() <= EMBEDDED_BYTES_MAX => "embstr",
            _ => "raw",
        };
        reply.bulk(encoding.as_bytes());
    }
}
