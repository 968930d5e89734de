//! `DUMP` and `RESTORE`: a value as Redis' own dump format has it, so that keys can be carried from one to the other.
//!
//! A type byte (0: a string), the string, the version of the format u16, and a CRC-64 (Jones) of all before it. A string is a
//! length in one, two, five or nine bytes and its bytes; Redis may write a small number as a number, and a long string
//! compressed (LZF). All of that is read; plain strings are written.

use super::keyspace::{Keyspace, Value};
use super::number;
use super::string::WRONG_TYPE;
use crate::command::{Rejected, STRING_BYTES_MAX};
use crate::resp::ReplyWriter;

const TYPE_STRING: u8 = 0;
/// That of Redis 7.0; what is newer isn't read.
const VERSION: u16 = 10;
const FOOTER_BYTES: usize = 10;

/// The options of `RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]`.
pub(crate) struct Restore {
    replace: bool,
    is_absolute: bool,
    ttl_ms: u64,
}

/// Checks all but the payload, since a key that is in the way counts more.
pub(crate) fn parse_restore(args: &[&[u8]]) -> Result<Restore, Rejected> {
    let mut restore = Restore { replace: false, is_absolute: false, ttl_ms: 0 };
    let mut place = 4;
    while place < args.len() {
        let value = args.get(place + 1).map(|arg| number::integer(arg));
        match (&args[place].to_ascii_uppercase()[..], value) {
            (b"REPLACE", _) => restore.replace = true,
            (b"ABSTTL", _) => restore.is_absolute = true,
            // Neither is tracked.
            (b"IDLETIME", Some(seconds)) => {
                if seconds.ok_or_else(Rejected::not_an_integer)? < 0 {
                    return Err(Rejected::new("ERR Invalid IDLETIME value, must be >= 0"));
                }
                place += 1;
            }
            (b"FREQ", Some(frequency)) => {
                if !(0..=255).contains(&frequency.ok_or_else(Rejected::not_an_integer)?) {
                    return Err(Rejected::new("ERR Invalid FREQ value, must be >= 0 and <= 255"));
                }
                place += 1;
            }
            _ => return Err(Rejected::syntax()),
        }
        place += 1;
    }
    let ttl = number::integer(args[2]).ok_or_else(Rejected::not_an_integer)?;
    restore.ttl_ms = u64::try_from(ttl).map_err(|_| Rejected::new("ERR Invalid TTL value, must be >= 0"))?;
    Ok(restore)
}

impl Keyspace {
    pub(super) fn dump(&self, clock_ms: u64, key: &[u8], reply: &mut ReplyWriter<'_>) {
        let Some(entry) = self.get(clock_ms, key) else { return reply.null() };
        match entry.value.as_string() {
            Some(bytes) => reply.bulk(&write(bytes)),
            None => reply.error(WRONG_TYPE),
        }
    }

    pub(super) fn restore_dump(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let Ok(restore) = parse_restore(args) else { return reply.error("ERR syntax error") };
        if !restore.replace && self.get(clock_ms, args[1]).is_some() {
            return reply.error("BUSYKEY Target key name already exists.");
        }
        let bytes = match read(args[3]) {
            Ok(bytes) => bytes,
            Err(rejected) => return reply.error(&rejected.to_string()),
        };
        let base = if restore.is_absolute { 0 } else { clock_ms };
        let deadline = (restore.ttl_ms > 0).then(|| restore.ttl_ms.saturating_add(base));
        self.store(clock_ms, args[1], Value::String(bytes), deadline);
        reply.simple("OK");
    }
}

fn write(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    out.push(TYPE_STRING);
    let length = u32::try_from(bytes.len()).expect("a string is at most 512 MiB");
    match length {
        0..64 => out.push(length.to_le_bytes()[0]),
        64..16384 => {
            let [_, _, high, low] = length.to_be_bytes();
            out.extend_from_slice(&[0x40 | high, low]);
        }
        _ => {
            out.push(0x80);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
    out.extend_from_slice(&VERSION.to_le_bytes());
    let sum = crc64(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// The string in a payload.
fn read(payload: &[u8]) -> Result<Vec<u8>, Rejected> {
    let damaged = || Rejected::new("ERR DUMP payload version or checksum are wrong");
    let end = payload.len().checked_sub(FOOTER_BYTES).ok_or_else(damaged)?;
    let (body, footer) = payload.split_at(end);
    let version = u16::from_le_bytes([footer[0], footer[1]]);
    let sum = u64::from_le_bytes(footer[2..].try_into().expect("eight bytes of ten"));
    // A sum of 0: whoever wrote it had sums turned off.
    if version > VERSION || (sum != 0 && crc64(&payload[..end + 2]) != sum) {
        return Err(damaged());
    }
    let bad = || Rejected::new("ERR Bad data format");
    let (kind, body) = body.split_first().ok_or_else(bad)?;
    if *kind != TYPE_STRING {
        return Err(bad());
    }
    let (bytes, rest) = string(body).ok_or_else(bad)?;
    if rest.is_empty() { Ok(bytes) } else { Err(bad()) }
}

enum Length {
    Bytes(usize),
    /// A number, or compressed bytes.
    Special(u8),
}

fn length(bytes: &[u8]) -> Option<(Length, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let number = |number: u64| usize::try_from(number).ok().map(Length::Bytes);
    Some(match (first >> 6, first & 0x3f) {
        (0, short) => (Length::Bytes(usize::from(short)), rest),
        (1, high) => (Length::Bytes(usize::from(high) << 8 | usize::from(*rest.first()?)), &rest[1..]),
        (2, 0) => {
            let (word, rest) = rest.split_first_chunk()?;
            (number(u64::from(u32::from_be_bytes(*word)))?, rest)
        }
        (2, 1) => {
            let (word, rest) = rest.split_first_chunk()?;
            (number(u64::from_be_bytes(*word))?, rest)
        }
        (3, special) => (Length::Special(special), rest),
        _ => return None,
    })
}

fn string(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let text = |number: i32| number.to_string().into_bytes();
    match length(bytes)? {
        (Length::Bytes(count), rest) => {
            let (bytes, rest) = rest.split_at_checked(count)?;
            Some((bytes.to_vec(), rest))
        }
        (Length::Special(0), rest) => {
            rest.split_first_chunk().map(|(it, rest)| (text(i8::from_le_bytes(*it).into()), rest))
        }
        (Length::Special(1), rest) => {
            rest.split_first_chunk().map(|(it, rest)| (text(i16::from_le_bytes(*it).into()), rest))
        }
        (Length::Special(2), rest) => {
            rest.split_first_chunk().map(|(it, rest)| (text(i32::from_le_bytes(*it)), rest))
        }
        (Length::Special(3), rest) => {
            let (Length::Bytes(packed), rest) = length(rest)? else { return None };
            let (Length::Bytes(whole), rest) = length(rest)? else { return None };
            let (packed, rest) = rest.split_at_checked(packed)?;
            Some((unpack(packed, whole)?, rest))
        }
        _ => None,
    }
}

/// LZF: a byte below 32 begins so many and one more bytes as they are; any other a copy of what came earlier, its three
/// highest bits the length less 2 (7: more follows), the rest and the next byte how far back, less 1.
fn unpack(mut packed: &[u8], whole: usize) -> Option<Vec<u8>> {
    // What can't come out of so few bytes isn't made room for.
    if whole > STRING_BYTES_MAX || whole / 264 > packed.len() {
        return None;
    }
    let mut out = Vec::with_capacity(whole);
    while let Some((control, rest)) = packed.split_first() {
        let control = usize::from(*control);
        if control < 32 {
            let (bytes, rest) = rest.split_at_checked(control + 1)?;
            out.extend_from_slice(bytes);
            packed = rest;
        } else {
            let (mut count, mut rest) = (control >> 5, rest);
            if count == 7 {
                count += usize::from(*rest.first()?);
                rest = &rest[1..];
            }
            let back = ((control & 0x1f) << 8 | usize::from(*rest.first()?)) + 1;
            packed = &rest[1..];
            let from = out.len().checked_sub(back)?;
            // A copy may reach into what it writes.
            for place in from..from + count + 2 {
                out.push(out[place]);
            }
        }
        if out.len() > whole {
            return None;
        }
    }
    (out.len() == whole).then_some(out)
}

const CRC64: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x95ac_9329_ac4b_c9b5 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc: u64, byte| CRC64[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn payloads_of_redis_are_read() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        // DUMP of Redis 7.0: "10" (a number), and 100 times "a" (compressed).
        assert_eq!(read(b"\x00\xc0\n\n\x00n\x9fWE\x0e\xaec\xbb").unwrap(), b"10");
        let packed = b"\x00\xc3\t@d\x01aa\xe0W\x00\x01aa\n\x00\xe8\xa3\xb5\x07\xb0m\xf2q";
        assert_eq!(read(packed).unwrap(), [b'a'; 100]);
    }

    #[test]
    fn a_sum_of_0_isn_t_compared_and_any_other_is() {
        let mut payload = write(b"value");
        let sum = payload.len() - 8;
        payload[sum..].fill(0);
        assert_eq!(read(&payload).unwrap(), b"value");
        payload[sum] = 1;
        assert!(read(&payload).unwrap_err().to_string().contains("checksum"));
    }

    fn footer(body: &[u8]) -> Vec<u8> {
        let versioned = [body, &VERSION.to_le_bytes()].concat();
        [&VERSION.to_le_bytes()[..], &crc64(&versioned).to_le_bytes()].concat()
    }

    #[test]
    fn a_key_is_carried_over() {
        let mut shard = Shard::default();
        shard.say("set a value px 1000");
        let payload = write(b"value");
        let restore = |shard: &mut Shard, line: &str| {
            let mut args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            args.insert(3, &payload);
            shard.execute(&args)
        };
        assert_eq!(restore(&mut shard, "restore a 0"), "-BUSYKEY Target key name already exists.");
        assert_eq!(restore(&mut shard, "restore a 0 replace"), "+OK");
        assert_eq!(shard.say("pttl a"), ":-1");
        assert_eq!(restore(&mut shard, "restore b 500"), "+OK");
        assert_eq!((shard.say("pttl b"), shard.say("get b")), (":500".to_owned(), "$5 value".to_owned()));
        assert_eq!(restore(&mut shard, "restore c 1 absttl"), "+OK");
        assert_eq!(shard.say("exists c"), ":0");
        assert_eq!(restore(&mut shard, "restore c -1"), "-ERR Invalid TTL value, must be >= 0");
        assert_eq!(shard.say("restore c 0 nonsense"), "-ERR DUMP payload version or checksum are wrong");
        assert_eq!(shard.say("dump none"), "$-1");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(length in prop_oneof![0_usize..200, 16_000_usize..17_000], byte: u8) {
            let bytes = vec![byte; length];
            prop_assert_eq!(read(&write(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn garbage_never_panics(body: Vec<u8>) {
            let _ = read(&body);
            let _ = read(&[&body[..], &footer(&body)].concat());
            let _ = read(&[&[0, 0xc3][..], &body, &footer(&[&[0, 0xc3][..], &body].concat())].concat());
        }
    }
}
