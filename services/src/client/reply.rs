//! A server's answer, RESP2.

use std::fmt;

/// What a command was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Status(String),
    /// `-ERR …`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3…`
    Bulk(Vec<u8>),
    /// `$-1` or `*-1`
    Null,
    /// `*2…`
    Array(Vec<Self>),
}

impl fmt::Display for Reply {
    /// As redis-cli prints it on a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(text) => f.write_str(text),
            Self::Error(text) => write!(f, "(error) {text}"),
            Self::Integer(value) => write!(f, "(integer) {value}"),
            Self::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Null => f.write_str("(nil)"),
            Self::Array(items) if items.is_empty() => f.write_str("(empty array)"),
            Self::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    let text = item.to_string().replace('\n', "\n   ");
                    write!(f, "{}{}) {text}", if place > 0 { "\n" } else { "" }, place + 1)?;
                }
                Ok(())
            }
        }
    }
}

/// Reads one reply from the front: it and its length, or `None` if it isn't whole yet.
///
/// # Errors
/// What isn't the protocol, in words.
pub fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let line = &bytes[..end];
    let after = end + 2;
    let text = || String::from_utf8_lossy(&line[1..]).into_owned();
    let number = || text().parse::<i64>().map_err(|_| format!("{:?} isn't a number", text()));
    let reply = match line.first() {
        Some(b'+') => Reply::Status(text()),
        Some(b'-') => Reply::Error(text()),
        Some(b':') => Reply::Integer(number()?),
        Some(b'$') => match usize::try_from(number()?) {
            Err(_) => Reply::Null,
            Ok(length) => {
                let Some(bulk) = bytes.get(after..after + length + 2) else { return Ok(None) };
                return Ok(Some((Reply::Bulk(bulk[..length].to_vec()), after + length + 2)));
            }
        },
        Some(b'*') => match usize::try_from(number()?) {
            Err(_) => Reply::Null,
            Ok(count) => return parse_array(bytes, after, count),
        },
        _ => return Err(format!("a reply starts with {:?}", String::from_utf8_lossy(line))),
    };
    Ok(Some((reply, after)))
}

fn parse_array(bytes: &[u8], mut at: usize, count: usize) -> Result<Option<(Reply, usize)>, String> {
    let mut items = Vec::with_capacity(count.min(1024));
    for _ in 0..count {
        let Some((item, length)) = parse(&bytes[at..])? else { return Ok(None) };
        items.push(item);
        at += length;
    }
    Ok(Some((Reply::Array(items), at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_every_kind_and_no_half_ones() {
        let bytes = b"*5\r\n+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n";
        let whole = Reply::Array(vec![
            Reply::Status("OK".into()),
            Reply::Error("ERR no".into()),
            Reply::Integer(-7),
            Reply::Bulk(b"a\r\n".to_vec()),
            Reply::Null,
        ]);
        assert_eq!(parse(bytes), Ok(Some((whole, bytes.len()))));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
        }
        assert!(parse(b"HTTP/1.1 400\r\n").is_err());
    }
}
