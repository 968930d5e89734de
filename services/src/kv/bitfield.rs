//! `BITFIELD`: integers of any width, at any place of a string.

use super::keyspace::{Keyspace, Value};
use super::number;
use crate::command::{Rejected, STRING_BYTES_MAX};
use crate::resp::ReplyWriter;
use smallvec::SmallVec;

/// Where an integer is, and of what kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    is_signed: bool,
    bits: u32,
    /// Its first bit.
    place: u64,
}

/// What happens when a number doesn't fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    field: Field,
    action: Action,
    overflow: Overflow,
}

type Operations = SmallVec<[Operation; 4]>;

/// The operations of `BITFIELD`, or of `BITFIELD_RO`.
pub(crate) fn parse(args: &[&[u8]], read_only: bool) -> Result<Operations, Rejected> {
    let mut operations = Operations::new();
    let (mut place, mut overflow) = (2, Overflow::Wrap);
    while place < args.len() {
        let left = args.len() - place;
        let word = args[place].to_ascii_uppercase();
        if word == b"OVERFLOW" && left >= 2 {
            overflow = match &args[place + 1].to_ascii_uppercase()[..] {
                b"WRAP" => Overflow::Wrap,
                b"SAT" => Overflow::Saturate,
                b"FAIL" => Overflow::Fail,
                _ => return Err(Rejected::new("ERR Invalid OVERFLOW type specified")),
            };
            place += 2;
            continue;
        }
        let arguments = match &word[..] {
            b"GET" => 2,
            b"SET" | b"INCRBY" => 3,
            _ => return Err(Rejected::syntax()),
        };
        if left <= arguments {
            return Err(Rejected::syntax());
        }
        let field = parse_field(args[place + 1], args[place + 2])?;
        if read_only && arguments == 3 {
            return Err(Rejected::new("ERR BITFIELD_RO only supports the GET subcommand"));
        }
        let value = || number::integer(args[place + 3]).ok_or_else(Rejected::not_an_integer);
        let action = match &word[..] {
            b"GET" => Action::Get,
            b"SET" => Action::Set(value()?),
            _ => Action::Add(value()?),
        };
        operations.push(Operation { field, action, overflow });
        place += 1 + arguments;
    }
    Ok(operations)
}

fn parse_field(kind: &[u8], offset: &[u8]) -> Result<Field, Rejected> {
    let invalid =
        "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.";
    let (is_signed, most) = match kind.first() {
        Some(b'i') => (true, 64),
        Some(b'u') => (false, 63),
        _ => return Err(Rejected::new(invalid)),
    };
    let bits = number::integer(&kind[1..]).and_then(|bits| u32::try_from(bits).ok());
    let bits = bits.filter(|bits| (1..=most).contains(bits)).ok_or_else(|| Rejected::new(invalid))?;
    let (offset, unit) = match offset.split_first() {
        Some((b'#', rest)) => (rest, u64::from(bits)),
        _ => (offset, 1),
    };
    let place = number::integer(offset).and_then(|place| u64::try_from(place).ok());
    let place = place.and_then(|place| place.checked_mul(unit));
    let fits = |place: &u64| place.saturating_add(u64::from(bits)) <= 8 * STRING_BYTES_MAX as u64;
    let place = place.filter(fits);
    let place = place.ok_or_else(|| Rejected::new("ERR bit offset is not an integer or out of range"))?;
    Ok(Field { is_signed, bits, place })
}

impl Field {
    /// Bytes that a string needs to hold it.
    fn end(self) -> usize {
        usize::try_from((self.place + u64::from(self.bits)).div_ceil(8)).expect("checked: a string holds it")
    }

    fn read(self, bytes: &[u8]) -> i64 {
        let mut raw = 0_u64;
        for place in self.place..self.place + u64::from(self.bits) {
            let byte = usize::try_from(place / 8).ok().and_then(|byte| bytes.get(byte)).copied().unwrap_or(0);
            raw = raw << 1 | u64::from(byte >> (7 - place % 8) & 1);
        }
        self.wrap(raw)
    }

    fn write(self, bytes: &mut [u8], value: i64) {
        let raw = value.cast_unsigned();
        for (number, place) in (self.place..self.place + u64::from(self.bits)).enumerate() {
            let bit = raw >> (self.bits as usize - 1 - number) & 1 == 1;
            let byte = &mut bytes[usize::try_from(place / 8).expect("the string is long enough")];
            let mask = 0x80 >> (place % 8);
            *byte = if bit { *byte | mask } else { *byte & !mask };
        }
    }

    /// What the lowest bits of a number stand for.
    fn wrap(self, raw: u64) -> i64 {
        let unused = 64 - self.bits;
        if self.is_signed {
            (raw << unused).cast_signed() >> unused
        } else {
            (raw << unused >> unused).cast_signed()
        }
    }

    fn limits(self) -> (i128, i128) {
        match self.is_signed {
            true => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    /// A number as the field holds it; `None` if it doesn't fit and mustn't be changed.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i64> {
        let (least, most) = self.limits();
        if (least..=most).contains(&value) {
            return i64::try_from(value).ok();
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => i64::try_from(value.clamp(least, most)).ok(),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "that is what wrapping is"
            )]
            Overflow::Wrap => Some(self.wrap(value as u64)),
        }
    }
}

impl Keyspace {
    pub(super) fn read_bit_field(&self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let (bytes, operations) = match (self.bytes_at(clock_ms, args[1]), parse(args, true)) {
            (Ok(bytes), Ok(operations)) => (bytes.unwrap_or_default(), operations),
            (Err(refusal), _) => return reply.error(refusal),
            (_, Err(rejected)) => return reply.error(&rejected.to_string()),
        };
        reply.array(operations.len());
        operations.iter().for_each(|operation| reply.integer(operation.field.read(bytes)));
    }

    pub(super) fn bit_field(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let (found, operations) = match (self.string_at(clock_ms, args[1]), parse(args, false)) {
            (Ok(found), Ok(operations)) => (found, operations),
            (Err(refusal), _) => return reply.error(refusal),
            (_, Err(rejected)) => return reply.error(&rejected.to_string()),
        };
        let (mut bytes, deadline) = found;
        let mut writes = operations.iter().filter(|operation| operation.action != Action::Get).peekable();
        let writes_something = writes.peek().is_some();
        let end = writes.map(|operation| operation.field.end()).max().unwrap_or(0);
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        reply.array(operations.len());
        for Operation { field, action, overflow } in operations {
            let old = field.read(&bytes);
            let (value, said) = match action {
                Action::Get => (None, Some(old)),
                Action::Set(value) => {
                    // Of an unsigned field a negative number is a very large one, as in Redis.
                    let given =
                        if field.is_signed { i128::from(value) } else { i128::from(value.cast_unsigned()) };
                    let value = field.fit(given, overflow);
                    (value, value.map(|_| old))
                }
                Action::Add(delta) => {
                    let value = field.fit(i128::from(old) + i128::from(delta), overflow);
                    (value, value)
                }
            };
            if let Some(value) = value {
                field.write(&mut bytes, value);
            }
            match said {
                Some(said) => reply.integer(said),
                None => reply.null(),
            }
        }
        if writes_something {
            self.insert(args[1], Value::String(bytes), deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;

    #[test]
    fn numbers_that_do_not_fit() {
        let mut shard = Shard::default();
        assert_eq!(shard.say("bitfield k set u8 0 255 get u4 0 get i4 4"), "*3 :0 :15 :-1");
        assert_eq!(shard.say("bitfield k incrby u8 0 1"), "*1 :0");
        assert_eq!(shard.say("bitfield k overflow sat incrby i8 0 200 incrby i8 0 -300"), "*2 :127 :-128");
        assert_eq!(
            shard.say("bitfield u overflow sat set u8 0 -1 get u8 0"),
            "*2 :0 :255",
            "a very large one"
        );
        assert_eq!(
            shard.say("bitfield u overflow fail set u8 0 -1 overflow wrap set u8 0 -2 get u8 0"),
            "*3 $-1 :255 :254"
        );
        assert_eq!(shard.say("bitfield k overflow fail incrby i8 0 -1 get i8 0"), "*2 $-1 :-128");
        assert_eq!(shard.say("bitfield k set i64 #1 -5 get i64 64"), "*2 :0 :-5");
        assert_eq!(shard.say("bitfield k incrby u63 #3 -1"), "*1 :9223372036854775807");
        assert_eq!(shard.say("strlen k"), ":32");
        assert_eq!(shard.say("bitfield_ro k get i64 64"), "*1 :-5");
        assert_eq!(
            shard.say("bitfield_ro k set u8 0 1"),
            "-ERR BITFIELD_RO only supports the GET subcommand"
        );
        assert!(shard.say("bitfield k get u64 0").starts_with("-ERR Invalid bitfield type."));
        assert_eq!(shard.say("bitfield none get u8 0"), "*1 :0");
        assert_eq!(shard.say("exists none"), ":0");
    }
}
