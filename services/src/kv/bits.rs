//! Strings as rows of bits, the highest of the first byte first.

use super::keyspace::{Keyspace, Value};
use super::number;
use super::string::WRONG_TYPE;
use crate::command::{Rejected, STRING_BYTES_MAX};
use crate::resp::ReplyWriter;

/// The place of a bit, as an argument.
pub(crate) fn parse_offset(arg: &[u8]) -> Result<u64, Rejected> {
    let offset = number::integer(arg).and_then(|offset| u64::try_from(offset).ok());
    offset
        .filter(|offset| offset / 8 < STRING_BYTES_MAX as u64)
        .ok_or_else(|| Rejected::new("ERR bit offset is not an integer or out of range"))
}

/// The arguments of `SETBIT`: where, and what.
pub(crate) fn parse_set(args: &[&[u8]]) -> Result<(u64, bool), Rejected> {
    let offset = parse_offset(args[2])?;
    match args[3] {
        b"0" => Ok((offset, false)),
        b"1" => Ok((offset, true)),
        _ => Err(Rejected::new("ERR bit is not an integer or out of range")),
    }
}

/// A part of a string, as `BITCOUNT` and `BITPOS` take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    start: i64,
    end: Option<i64>,
    in_bits: bool,
}

impl Part {
    const WHOLE: Self = Self { start: 0, end: None, in_bits: false };

    /// `[start [end [BYTE|BIT]]]`, from `place` on.
    fn parse(args: &[&[u8]], place: usize) -> Result<Self, Rejected> {
        let number = |place: usize| {
            let arg = args.get(place);
            arg.map(|arg| number::integer(arg).ok_or_else(Rejected::not_an_integer)).transpose()
        };
        let in_bits = match args.get(place + 2).map(|unit| unit.to_ascii_uppercase()).as_deref() {
            None | Some(b"BYTE") => false,
            Some(b"BIT") => true,
            _ => return Err(Rejected::syntax()),
        };
        if args.len() > place + 3 {
            return Err(Rejected::syntax());
        }
        Ok(Self { start: number(place)?.unwrap_or(0), end: number(place + 1)?, in_bits })
    }

    /// The first and the last bit of it that a string of so many bytes has.
    fn of(self, bytes: usize) -> Option<(u64, u64)> {
        let length = i64::try_from(bytes).ok()?.checked_mul(if self.in_bits { 8 } else { 1 })?;
        let from_end = |place: i64| if place < 0 { place.saturating_add(length).max(0) } else { place };
        let end = self.end.unwrap_or(-1);
        if self.start < 0 && end < 0 && self.start > end {
            return None;
        }
        let (start, end) = (from_end(self.start), from_end(end).min(length - 1));
        if start > end {
            return None;
        }
        let (start, end) = (u64::try_from(start).ok()?, u64::try_from(end).ok()?);
        Some(if self.in_bits { (start, end) } else { (start * 8, end * 8 + 7) })
    }
}

/// The arguments of `BITCOUNT`.
fn parse_count(args: &[&[u8]]) -> Result<Part, Rejected> {
    match args.len() {
        2 => Ok(Part::WHOLE),
        3 => Err(Rejected::syntax()),
        _ => Part::parse(args, 2),
    }
}

/// What `BITPOS` looks for.
pub(crate) fn parse_bit(arg: &[u8]) -> Result<bool, Rejected> {
    match number::integer(arg).ok_or_else(Rejected::not_an_integer)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Rejected::new("ERR The bit argument must be 1 or 0.")),
    }
}

/// What `BITOP` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combination {
    And,
    Or,
    Xor,
    Not,
}

/// The arguments of `BITOP`.
pub(crate) fn parse_combination(args: &[&[u8]]) -> Result<Combination, Rejected> {
    match &args[1].to_ascii_uppercase()[..] {
        b"AND" => Ok(Combination::And),
        b"OR" => Ok(Combination::Or),
        b"XOR" => Ok(Combination::Xor),
        b"NOT" if args.len() == 4 => Ok(Combination::Not),
        b"NOT" => Err(Rejected::new("ERR BITOP NOT must be called with a single source key.")),
        _ => Err(Rejected::syntax()),
    }
}

fn bit_at(bytes: &[u8], place: u64) -> bool {
    let byte = usize::try_from(place / 8).ok().and_then(|byte| bytes.get(byte)).copied().unwrap_or(0);
    byte >> (7 - place % 8) & 1 == 1
}

/// The byte, with those bits that lie outside of the part set to `outside`.
fn masked(bytes: &[u8], byte: usize, (first, last): (u64, u64), outside: bool) -> u8 {
    let mut inside = 0xff_u8;
    if byte as u64 == first / 8 {
        inside &= 0xff >> (first % 8);
    }
    if byte as u64 == last / 8 {
        inside &= 0xff << (7 - last % 8);
    }
    if outside { bytes[byte] | !inside } else { bytes[byte] & inside }
}

fn bytes_of((first, last): (u64, u64)) -> std::ops::RangeInclusive<usize> {
    let byte = |bit: u64| usize::try_from(bit / 8).expect("a string fits into memory");
    byte(first)..=byte(last)
}

impl Keyspace {
    pub(super) fn set_bit(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let Ok((place, bit)) = parse_set(args) else { return reply.error("ERR syntax error") };
        let (mut bytes, deadline) = match self.string_at(clock_ms, args[1]) {
            Ok(found) => found,
            Err(refusal) => return reply.error(refusal),
        };
        reply.integer(i64::from(bit_at(&bytes, place)));
        let byte = usize::try_from(place / 8).expect("a string fits into memory");
        if bytes.len() <= byte {
            bytes.resize(byte + 1, 0);
        }
        let mask = 0x80 >> (place % 8);
        bytes[byte] = if bit { bytes[byte] | mask } else { bytes[byte] & !mask };
        self.insert(args[1], Value::String(bytes), deadline);
    }

    pub(super) fn read_bit(&self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        match (self.bytes_at(clock_ms, args[1]), parse_offset(args[2])) {
            (Ok(bytes), Ok(place)) => reply.integer(i64::from(bit_at(bytes.unwrap_or_default(), place))),
            (Err(refusal), _) => reply.error(refusal),
            (_, Err(rejected)) => reply.error(&rejected.to_string()),
        }
    }

    pub(super) fn count_bits(&self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let bytes = match self.bytes_at(clock_ms, args[1]) {
            Ok(Some(bytes)) => bytes,
            // As in Redis 7.0 nobody looks at the rest then.
            Ok(None) => return reply.integer(0),
            Err(refusal) => return reply.error(refusal),
        };
        let part = match parse_count(args) {
            Ok(part) => part.of(bytes.len()),
            Err(rejected) => return reply.error(&rejected.to_string()),
        };
        let Some(part) = part else { return reply.integer(0) };
        let mut inner = bytes_of(part);
        // The ends may be cut within a byte; everything between is counted in whole words.
        let (first, last) = (*inner.start(), *inner.end());
        let mut count = u64::from(masked(bytes, first, part, false).count_ones());
        if last > first {
            count += u64::from(masked(bytes, last, part, false).count_ones());
            inner = first + 1..=last - 1;
            let mut words = bytes[*inner.start()..last].chunks_exact(8);
            for word in words.by_ref() {
                let word = u64::from_le_bytes(word.try_into().expect("chunks of eight"));
                count += u64::from(word.count_ones());
            }
            count += words.remainder().iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
        }
        reply.unsigned(count);
    }

    pub(super) fn find_bit(&self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let bytes = match self.bytes_at(clock_ms, args[1]) {
            Ok(bytes) => bytes,
            Err(refusal) => return reply.error(refusal),
        };
        let Ok(bit) = parse_bit(args[2]) else { return reply.error("ERR syntax error") };
        // A key that isn't there is an endless row of zeros, whichever part of it is asked for.
        let Some(bytes) = bytes else { return reply.integer(if bit { -1 } else { 0 }) };
        let part = match Part::parse(args, 3) {
            Ok(part) => part,
            Err(rejected) => return reply.error(&rejected.to_string()),
        };
        let Some(range) = part.of(bytes.len()) else { return reply.integer(-1) };
        let nothing = if bit { 0 } else { 0xff };
        let found = bytes_of(range).find(|byte| masked(bytes, *byte, range, !bit) != nothing);
        match found {
            Some(byte) => {
                let wanted = masked(bytes, byte, range, !bit) ^ nothing;
                reply.unsigned(byte as u64 * 8 + u64::from(wanted.leading_zeros()));
            }
            // Behind its end a string has zeros, unless the end was given.
            None if !bit && part.end.is_none() => reply.unsigned(bytes.len() as u64 * 8),
            None => reply.integer(-1),
        }
    }

    pub(super) fn combine_bits(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let Ok(combination) = parse_combination(args) else { return reply.error("ERR syntax error") };
        let mut sources = Vec::new();
        for key in &args[3..] {
            match self.bytes_at(clock_ms, key) {
                Ok(bytes) => sources.push(bytes.unwrap_or_default()),
                Err(refusal) => return reply.error(refusal),
            }
        }
        let length = sources.iter().map(|bytes| bytes.len()).max().unwrap_or(0);
        let mut result = sources[0].to_vec();
        result.resize(length, 0);
        for source in &sources[1..] {
            let padding = if combination == Combination::And { length - source.len() } else { 0 };
            let bytes = source.iter().copied().chain(std::iter::repeat_n(0, padding));
            for (byte, other) in result.iter_mut().zip(bytes) {
                match combination {
                    Combination::And => *byte &= other,
                    Combination::Or => *byte |= other,
                    Combination::Xor | Combination::Not => *byte ^= other,
                }
            }
        }
        if combination == Combination::Not {
            result.iter_mut().for_each(|byte| *byte = !*byte);
        }
        match length {
            0 => drop(self.remove(clock_ms, args[2])),
            _ => self.insert(args[2], Value::String(result), None),
        }
        reply.length_of(length);
    }

    /// The string at a key, if there is one; or the refusal of another type.
    pub(super) fn bytes_at(&self, clock_ms: u64, key: &[u8]) -> Result<Option<&[u8]>, &'static str> {
        let Some(entry) = self.get(clock_ms, key) else { return Ok(None) };
        entry.value.as_string().map(|bytes| Some(&bytes[..])).ok_or(WRONG_TYPE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;
    use proptest::prelude::*;

    #[test]
    fn bits_are_counted_from_the_highest() {
        let mut shard = Shard::default();
        assert_eq!(shard.say("setbit k 7 1"), ":0");
        assert_eq!(shard.say("setbit k 9 1"), ":0");
        assert_eq!(shard.say("bitcount k"), ":2");
        assert_eq!(shard.say("getbit k 9"), ":1");
        assert_eq!(shard.say("getbit k 100"), ":0");
        assert_eq!(shard.say("bitpos k 1"), ":7");
        assert_eq!(shard.say("bitpos k 1 8 -1 bit"), ":9");
        assert_eq!(shard.say("bitpos none 0"), ":0");
        assert_eq!(shard.say("bitpos none 1"), ":-1");
        assert_eq!(shard.say("setbit k 4294967296 1"), "-ERR bit offset is not an integer or out of range");
        assert_eq!(shard.say("bitcount k 1"), "-ERR syntax error");
        assert_eq!(shard.say("bitcount k 1 x"), "-ERR value is not an integer or out of range");
        assert_eq!(shard.say("bitcount none 1"), ":0");
        assert_eq!(shard.say("bitpos k 1 0 1 nibble"), "-ERR syntax error");
        assert_eq!(shard.say("bitpos none 1 0 1 nibble"), ":-1");
        assert_eq!(shard.say("bitop not d a b"), "-ERR BITOP NOT must be called with a single source key.");
        assert_eq!(shard.say("bitop xor d k none"), ":2");
        assert_eq!(shard.say("bitop and d none"), ":0");
        assert_eq!(shard.say("exists d"), ":0");
    }

    proptest! {
        #[test]
        fn counting_and_finding_agree_with_looking_at_each(
            bytes in prop::collection::vec(any::<u8>(), 1..40),
            start in -350_i64..350,
            end in -350_i64..350,
            in_bits: bool,
            bit: bool,
        ) {
            let mut shard = Shard::default();
            shard.keys.insert(b"k", crate::kv::Value::String(bytes.clone()), None);
            let (length, unit) = (bytes.len() as i64 * if in_bits { 8 } else { 1 }, if in_bits { 1 } else { 8 });
            let from_end = |place: i64| if place < 0 { (place + length).max(0) } else { place };
            let is_empty = start < 0 && end < 0 && start > end;
            let (first, last) = (from_end(start) * unit, (from_end(end).min(length - 1) + 1) * unit);
            let in_part = |place: &i64| !is_empty && first <= *place && *place < last;
            let all = (0..bytes.len() as i64 * 8).filter(in_part);
            let is_set = |place: &i64| bytes[*place as usize / 8] >> (7 - place % 8) & 1 == 1;
            let word = if in_bits { "bit" } else { "byte" };
            let count = all.clone().filter(is_set).count();
            prop_assert_eq!(shard.say(&format!("bitcount k {start} {end} {word}")), format!(":{count}"));
            let found = all.clone().find(|place| is_set(place) == bit).unwrap_or(-1);
            let said = shard.say(&format!("bitpos k {} {start} {end} {word}", u8::from(bit)));
            prop_assert_eq!(said, format!(":{found}"));
        }
    }
}
