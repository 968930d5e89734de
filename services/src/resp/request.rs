//! One command from the front of a client's bytes, borrowed in place.
//!
//! A command is an array of bulk strings, or (for people on a terminal) a line of words. Whatever the bytes are,
//! nothing panics; an error means that the two sides have lost each other, and the connection must end.

use crate::entry::Args;

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Arguments of one command.
    pub args_max: usize,
    /// Bytes of one argument.
    pub bulk_bytes_max: usize,
    /// Bytes of an inline command, or of a length line.
    pub inline_bytes_max: usize,
    /// Who it is isn't known: errors say so.
    pub is_unauthenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            args_max: 1024 * 1024,
            bulk_bytes_max: 16 << 20,
            inline_bytes_max: 64 * 1024,
            is_unauthenticated: false,
        }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A command, in `args` (none: an empty line, to be skipped).
    Command {
        /// Its bytes.
        consumed: usize,
    },
    /// Not a whole command yet.
    Incomplete {
        /// Nor is it one before there are so many bytes.
        bytes_min: usize,
    },
}

/// The client doesn't speak the protocol, or says too much. Redis' words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Protocol error: {0}")]
pub struct ProtocolError(String);

/// Of an argument, `$0` and two ends of a line, at least.
const EMPTY_ARG_BYTES: usize = 6;

fn error<T>(text: &str) -> Result<T, ProtocolError> {
    Err(ProtocolError(text.to_owned()))
}

/// Parses one command; `args` is emptied first.
///
/// # Errors
/// [`ProtocolError`].
pub fn parse<'a>(bytes: &'a [u8], limits: &Limits, args: &mut Args<'a>) -> Result<Parsed, ProtocolError> {
    args.clear();
    match bytes.first() {
        None => Ok(Parsed::Incomplete { bytes_min: 1 }),
        Some(b'*') => parse_array(bytes, limits, args),
        Some(_) => parse_inline(bytes, limits, args),
    }
}

/// The number between a type byte at `at` and the end of its line, with the place behind the line.
fn length_line(bytes: &[u8], at: usize) -> Option<(Option<i64>, usize)> {
    let mut end = at + 1;
    // Lengths are short: looking at each byte beats a general search.
    while *bytes.get(end)? != b'\r' {
        end += 1;
    }
    bytes.get(end + 1)?;
    Some((integer(&bytes[at + 1..end]), end + 2))
}

/// A decimal number as Redis accepts it: an optional minus, digits, no more than fit.
fn integer(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value = 0_i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

fn parse_array<'a>(bytes: &'a [u8], limits: &Limits, args: &mut Args<'a>) -> Result<Parsed, ProtocolError> {
    let Some((count, mut at)) = length_line(bytes, 0) else {
        return incomplete_line(bytes, limits, "too big mbulk count string");
    };
    let count = match count {
        Some(count) if count <= i64::try_from(limits.args_max).unwrap_or(i64::MAX) => count,
        Some(_) if limits.is_unauthenticated => return error("unauthenticated multibulk length"),
        _ => return error("invalid multibulk length"),
    };
    for place in 0..count {
        match bytes.get(at) {
            None => return Ok(Parsed::Incomplete { bytes_min: behind(at, count - place) }),
            Some(b'$') => {}
            Some(other) => return error(&format!("expected '$', got '{}'", char::from(*other))),
        }
        let Some((length, start)) = length_line(bytes, at) else {
            incomplete_line(&bytes[at..], limits, "too big bulk count string")?;
            let bytes_min = behind(at, count - place).max(bytes.len() + 1);
            return Ok(Parsed::Incomplete { bytes_min });
        };
        let length = match length.and_then(|length| usize::try_from(length).ok()) {
            Some(length) if length <= limits.bulk_bytes_max => length,
            Some(_) if limits.is_unauthenticated => return error("unauthenticated bulk length"),
            _ => return error("invalid bulk length"),
        };
        let end = start + length;
        if bytes.len() < end + 2 {
            return Ok(Parsed::Incomplete { bytes_min: behind(end + 2, count - place - 1) });
        }
        args.push(&bytes[start..end]);
        at = end + 2;
    }
    Ok(Parsed::Command { consumed: at })
}

/// The least bytes of a command of which so many arguments are still to come behind `at`.
#[cold]
fn behind(at: usize, left: i64) -> usize {
    let left = usize::try_from(left).unwrap_or(0);
    at.saturating_add(left.saturating_mul(EMPTY_ARG_BYTES))
}

fn incomplete_line(line: &[u8], limits: &Limits, too_big: &str) -> Result<Parsed, ProtocolError> {
    match line.len() > limits.inline_bytes_max {
        true => error(too_big),
        false => Ok(Parsed::Incomplete { bytes_min: line.len() + 1 }),
    }
}

/// A line of words. Quoted words aren't borrowed in place: they are refused unless the quotes only enclose.
fn parse_inline<'a>(bytes: &'a [u8], limits: &Limits, args: &mut Args<'a>) -> Result<Parsed, ProtocolError> {
    let searched = &bytes[..bytes.len().min(limits.inline_bytes_max + 1)];
    let Some(end) = searched.iter().position(|byte| *byte == b'\n') else {
        return incomplete_line(bytes, limits, "too big inline request");
    };
    if end > limits.inline_bytes_max {
        return error("too big inline request");
    }
    let mut rest = &bytes[..end];
    loop {
        rest = rest.trim_ascii_start();
        let Some(first) = rest.first() else { break };
        let length = match first {
            quote @ (b'"' | b'\'') => {
                let Some(length) = rest[1..].iter().position(|byte| byte == quote) else {
                    return error("unbalanced quotes in request");
                };
                args.push(&rest[1..=length]);
                length + 2
            }
            _ => {
                let length = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                args.push(&rest[..length]);
                length
            }
        };
        rest = &rest[length..];
        if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return error("unbalanced quotes in request");
        }
    }
    Ok(Parsed::Command { consumed: end + 1 })
}

/// Appends a command, as clients send it.
pub fn encode(command: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for arg in command {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(bytes: &[u8]) -> Result<Vec<Vec<String>>, String> {
        let mut at = 0;
        let mut found = Vec::new();
        loop {
            let mut args = Args::new();
            match parse(&bytes[at..], &Limits::default(), &mut args) {
                Ok(Parsed::Incomplete { bytes_min }) => {
                    assert!(bytes_min > bytes.len() - at, "else it would be asked again for nothing");
                    return Ok(found);
                }
                Ok(Parsed::Command { consumed }) => {
                    at += consumed;
                    found.push(args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    #[test]
    fn arrays_and_lines_one_after_the_other() {
        let found =
            commands(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nping\r\n\r\n*0\r\nset 'a b' \"c\"\n*1\r\n$4\r\nPI")
                .unwrap();
        assert_eq!(found, [vec!["GET", "k"], vec!["ping"], vec![], vec![], vec!["set", "a b", "c"]]);
    }

    #[test]
    fn errors_have_the_words_of_redis() {
        for (bytes, text) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*2000000\r\n", "invalid multibulk length"),
            (b"*1\r\n:1\r\n", "expected '$', got ':'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$999999999\r\n", "invalid bulk length"),
            (b"get \"k\r\n", "unbalanced quotes in request"),
            (b"get \"k\"x\r\n", "unbalanced quotes in request"),
        ] {
            assert_eq!(commands(bytes), Err(format!("Protocol error: {text}")), "{}", bytes.escape_ascii());
        }
        assert_eq!(commands(&[b'*'; 70_000]), Err("Protocol error: too big mbulk count string".to_owned()));
        assert_eq!(commands(&[b'x'; 70_000]), Err("Protocol error: too big inline request".to_owned()));
    }

    #[test]
    fn what_is_said_to_be_too_few_bytes_is_too_few() {
        let whole = b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nabcdefghijkl\r\n$0\r\n\r\n";
        for length in 0..whole.len() {
            let found = parse(&whole[..length], &Limits::default(), &mut Args::new());
            let Ok(Parsed::Incomplete { bytes_min }) = found else { panic!("{found:?} with {length} bytes") };
            assert!((length + 1..=whole.len()).contains(&bytes_min), "{bytes_min} with {length} bytes");
        }
        let last = parse(&whole[..whole.len() - 1], &Limits::default(), &mut Args::new());
        assert_eq!(last, Ok(Parsed::Incomplete { bytes_min: whole.len() }));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = commands(&bytes);
        }

        #[test]
        fn a_command_is_found_exactly_when_it_is_whole(args: Vec<Vec<u8>>, tail in 0_usize..8) {
            let mut bytes = Vec::new();
            encode(&args.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut bytes);
            for cut in 0..bytes.len() {
                let mut found = Args::new();
                let cut_off = parse(&bytes[..cut], &Limits::default(), &mut found);
                proptest::prop_assert!(
                    matches!(cut_off, Ok(Parsed::Incomplete { bytes_min }) if (cut + 1..=bytes.len()).contains(&bytes_min)),
                    "{cut_off:?} with {cut} of {} bytes",
                    bytes.len()
                );
            }
            let whole = bytes.len();
            bytes.extend(std::iter::repeat_n(b'*', tail));
            let mut found = Args::new();
            proptest::prop_assert_eq!(parse(&bytes, &Limits::default(), &mut found), Ok(Parsed::Command { consumed: whole }));
            proptest::prop_assert_eq!(found.to_vec(), args.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
