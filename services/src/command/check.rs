//! What can be said of a command from its arguments alone: a bad one never enters the log.

use super::list::code;
use super::table::Spec;
use crate::kv::{self, Expiry, SetOptions, number};

/// A command that can't be executed: Redis' words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(pub String);

impl Rejected {
    /// A rejection in these words.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The words for options that make no sense.
    pub fn syntax() -> Self {
        Self::new("ERR syntax error")
    }

    /// The words for what should be a number.
    pub fn not_an_integer() -> Self {
        Self::new("ERR value is not an integer or out of range")
    }

    /// The words for what should be a number with a point.
    pub fn not_a_float() -> Self {
        Self::new("ERR value is not a valid float")
    }
}

/// Strings are limited as in Redis.
pub const STRING_BYTES_MAX: usize = 512 << 20;

/// Checks a command's arguments, `args[0]` being its name.
///
/// # Errors
/// [`Rejected`].
pub fn check(spec: &Spec, args: &[&[u8]]) -> Result<(), Rejected> {
    check_arity(spec, args)?;
    match spec.code {
        code::SET => SetOptions::parse(args).map(|_| ()),
        code::GETEX => Expiry::check_getex(args),
        code::MSET | code::MSETNX if args.len().is_multiple_of(2) => Err(wrong_arity(spec)),
        code::INCRBY => integer(args[2]).map(|_| ()),
        code::DECRBY if integer(args[2])? == i64::MIN => Err(Rejected::new("ERR decrement would overflow")),
        code::INCRBYFLOAT => number::float(args[2]).map(|_| ()).ok_or_else(Rejected::not_a_float),
        code::SETEX | code::PSETEX => Expiry::of_setex(spec.code, args[2], 0).map(|_| ()),
        code::EXPIRE | code::PEXPIRE | code::EXPIREAT | code::PEXPIREAT => kv::check_expire(spec.code, args),
        code::GETRANGE | code::SUBSTR => integer(args[2]).and_then(|_| integer(args[3])).map(|_| ()),
        code::SETRANGE => set_range(args),
        code::SETBIT => kv::parse_set_bit(args).map(|_| ()),
        code::GETBIT => kv::parse_bit_offset(args[2]).map(|_| ()),
        code::BITPOS => kv::parse_bit(args[2]).map(|_| ()),
        code::BITOP => kv::parse_bit_combination(args).map(|_| ()),
        code::BITFIELD => kv::parse_bit_field(args, false).map(|_| ()),
        code::BITFIELD_RO => kv::parse_bit_field(args, true).map(|_| ()),
        code::LCS => kv::parse_lcs(args).map(|_| ()),
        code::COPY => kv::parse_copy(args).map(|_| ()),
        code::OBJECT => kv::check_object(args),
        code::RESTORE => kv::parse_restore(args).map(|_| ()),
        code::FLOTILLA_CAS => kv::parse_cas(args, 0).map(|_| ()),
        code::FLOTILLA_LOAD | code::FLOTILLA_LOADFROM => kv::parse_load(args).map(|_| ()),
        code::FLOTILLA_ONCE => kv::Once::parse(args).map(|_| ()),
        code::FLOTILLA_RANGE => kv::RangeOptions::parse(args).map(|_| ()),
        code::FLOTILLA_WALK => kv::Walk::parse(args).map(|_| ()),
        code::SCAN => scan(args),
        code::PING if args.len() > 2 => Err(wrong_arity(spec)),
        code::FLUSHALL | code::FLUSHDB => match args.get(1).map(|arg| arg.to_ascii_uppercase()).as_deref() {
            None | Some(b"SYNC" | b"ASYNC") if args.len() <= 2 => Ok(()),
            _ => Err(Rejected::syntax()),
        },
        _ => Ok(()),
    }
}

/// Checks no more than how many arguments there are.
///
/// # Errors
/// [`Rejected`].
pub fn check_arity(spec: &Spec, args: &[&[u8]]) -> Result<(), Rejected> {
    let count = i32::try_from(args.len()).unwrap_or(i32::MAX);
    if (spec.arity >= 0 && count != spec.arity) || count < -spec.arity {
        return Err(wrong_arity(spec));
    }
    Ok(())
}

fn wrong_arity(spec: &Spec) -> Rejected {
    Rejected(format!("ERR wrong number of arguments for '{}' command", spec.name))
}

fn integer(arg: &[u8]) -> Result<i64, Rejected> {
    number::integer(arg).ok_or_else(Rejected::not_an_integer)
}

fn set_range(args: &[&[u8]]) -> Result<(), Rejected> {
    let offset = integer(args[2])?;
    let Ok(offset) = usize::try_from(offset) else { return Err(Rejected::new("ERR offset is out of range")) };
    if !args[3].is_empty() && offset.saturating_add(args[3].len()) > STRING_BYTES_MAX {
        return Err(Rejected::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    }
    Ok(())
}

fn scan(args: &[&[u8]]) -> Result<(), Rejected> {
    if std::str::from_utf8(args[1]).ok().and_then(|text| text.parse::<u64>().ok()).is_none() {
        return Err(Rejected::new("ERR invalid cursor"));
    }
    for pair in args[2..].chunks(2) {
        match (&pair[0].to_ascii_uppercase()[..], pair.get(1)) {
            (b"COUNT", Some(count)) => {
                if integer(count)? < 1 {
                    return Err(Rejected::syntax());
                }
            }
            (b"MATCH" | b"TYPE", Some(_)) => {}
            _ => return Err(Rejected::syntax()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::lookup;
    use super::*;

    fn said(line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        match check(lookup(args[0]).unwrap(), &args) {
            Ok(()) => "fine".to_owned(),
            Err(rejected) => rejected.to_string(),
        }
    }

    #[test]
    fn bad_commands_get_the_words_of_redis() {
        for (line, words) in [
            ("get k", "fine"),
            ("get", "ERR wrong number of arguments for 'get' command"),
            ("get a b", "ERR wrong number of arguments for 'get' command"),
            ("mset a 1 b", "ERR wrong number of arguments for 'mset' command"),
            ("set k v ex 10 nx get", "fine"),
            ("set k v nx xx", "ERR syntax error"),
            ("set k v ex", "ERR syntax error"),
            ("set k v ex 10 px 10", "ERR syntax error"),
            ("set k v ex 10 keepttl", "ERR syntax error"),
            ("set k v ex x", "ERR value is not an integer or out of range"),
            ("set k v ex 0", "ERR invalid expire time in 'set' command"),
            ("set k v px -5", "ERR invalid expire time in 'set' command"),
            ("setex k 0 v", "ERR invalid expire time in 'setex' command"),
            ("getex k persist ex 1", "ERR syntax error"),
            ("getex k ex 0", "fine"),
            ("incrby k x", "ERR value is not an integer or out of range"),
            ("incrby k 9223372036854775808", "ERR value is not an integer or out of range"),
            ("decrby k -9223372036854775808", "ERR decrement would overflow"),
            ("incrbyfloat k abc", "ERR value is not a valid float"),
            ("expire k 1 nx gt", "ERR NX and XX, GT or LT options at the same time are not compatible"),
            ("expire k 9223372036854775807", "ERR invalid expire time in 'expire' command"),
            ("setrange k -1 v", "ERR offset is out of range"),
            ("scan x", "ERR invalid cursor"),
            ("scan 0 count 0", "ERR syntax error"),
        ] {
            assert_eq!(said(line), words, "{line}");
        }
    }
}
