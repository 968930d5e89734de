//! RESP2, the Redis protocol, from the client's side: requests out, replies in.
//!
//! The parser keeps no state: it is shown everything received so far and answers with a whole reply or "not yet".
//! A load generator's replies are a few bytes, so looking twice at a split one costs less than remembering.

/// One reply, borrowed from the receive buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// `+OK`
    Simple(&'a [u8]),
    /// `-ERR …`
    Error(&'a [u8]),
    /// `:1`
    Integer(i64),
    /// `$3 foo`, or none for the nil reply.
    Bulk(Option<&'a [u8]>),
    /// `*2 …`, or none for the nil array.
    Array(Option<Vec<Self>>),
}

/// These bytes are no RESP2 reply.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a RESP2 reply: {0}")]
pub(crate) struct ProtocolError(&'static str);

/// Lines longer than this are not a reply's first line.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Deeper nesting than any reply of a cluster.
const DEPTH_MAX: usize = 8;
/// More elements than any reply of a cluster.
const ELEMENTS_MAX: i64 = 1 << 20;
/// What Redis itself allows in a bulk string.
const BULK_BYTES_MAX: i64 = 512 << 20;

/// Reads one reply from the front of `bytes`: the reply and its length, or none while it is incomplete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, ProtocolError> {
    let mut at = 0;
    let reply = parse_at(bytes, &mut at, 0)?;
    Ok(reply.map(|reply| (reply, at)))
}

fn parse_at<'a>(bytes: &'a [u8], at: &mut usize, depth: usize) -> Result<Option<Reply<'a>>, ProtocolError> {
    let Some(&kind) = bytes.get(*at) else { return Ok(None) };
    if !matches!(kind, b'+' | b'-' | b':' | b'$' | b'*') {
        return Err(ProtocolError("unknown type byte"));
    }
    let Some(line) = line(bytes, *at + 1)? else { return Ok(None) };
    *at += 1 + line.len() + 2;
    Ok(Some(match kind {
        b'+' => Reply::Simple(line),
        b'-' => Reply::Error(line),
        b':' => Reply::Integer(integer(line)?),
        b'$' => {
            let length = integer(line)?;
            if length == -1 {
                return Ok(Some(Reply::Bulk(None)));
            }
            if !(0..=BULK_BYTES_MAX).contains(&length) {
                return Err(ProtocolError("impossible bulk length"));
            }
            let end = *at + length as usize;
            let Some(tail) = bytes.get(end..end + 2) else { return Ok(None) };
            if tail != b"\r\n" {
                return Err(ProtocolError("bulk string without its end"));
            }
            let body = &bytes[*at..end];
            *at = end + 2;
            Reply::Bulk(Some(body))
        }
        _ => {
            let count = integer(line)?;
            if count == -1 {
                return Ok(Some(Reply::Array(None)));
            }
            if !(0..=ELEMENTS_MAX).contains(&count) || depth == DEPTH_MAX {
                return Err(ProtocolError("impossible array"));
            }
            let mut items = Vec::new();
            for _ in 0..count {
                let Some(item) = parse_at(bytes, at, depth + 1)? else { return Ok(None) };
                items.push(item);
            }
            Reply::Array(Some(items))
        }
    }))
}

/// The line that starts at `from`, without its end; none while the end hasn't arrived.
fn line(bytes: &[u8], from: usize) -> Result<Option<&[u8]>, ProtocolError> {
    let rest = &bytes[from.min(bytes.len())..];
    match rest.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n') {
        Some(0) => Err(ProtocolError("line feed without carriage return")),
        Some(end) if rest[end - 1] == b'\r' => Ok(Some(&rest[..end - 1])),
        Some(_) => Err(ProtocolError("line feed without carriage return")),
        None if rest.len() >= LINE_BYTES_MAX => Err(ProtocolError("endless line")),
        None => Ok(None),
    }
}

fn integer(line: &[u8]) -> Result<i64, ProtocolError> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(ProtocolError("not a number"))
}

/// Appends a request: an array of bulk strings.
pub(crate) fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"+OK\r\n-MOVED 5 1.2.3.4:5\r\n:-42\r\n$5\r\na\r\nbc\r\n$-1\r\n$0\r\n\r\n*-1\r\n*0\r\n\
        *3\r\n:0\r\n*2\r\n$1\r\nx\r\n:7\r\n+y\r\n";

    fn expected() -> Vec<Reply<'static>> {
        use Reply::*;
        vec![
            Simple(b"OK"),
            Error(b"MOVED 5 1.2.3.4:5"),
            Integer(-42),
            Bulk(Some(b"a\r\nbc")),
            Bulk(None),
            Bulk(Some(b"")),
            Array(None),
            Array(Some(vec![])),
            Array(Some(vec![Integer(0), Array(Some(vec![Bulk(Some(b"x")), Integer(7)])), Simple(b"y")])),
        ]
    }

    #[test]
    fn replies_come_out_whole_whatever_the_split() {
        // Every pair of cuts: the parser sees the bytes up to the cut, as a socket would give them.
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let (mut seen, mut at) = (Vec::new(), 0);
                for end in [first, second, STREAM.len()] {
                    while let Some((reply, length)) = parse(&STREAM[at..end]).unwrap() {
                        seen.push(reply);
                        at += length;
                    }
                }
                assert_eq!(seen, expected(), "cuts at {first} and {second}");
                assert_eq!(at, STREAM.len());
            }
        }
    }

    #[test]
    fn byte_by_byte_too() {
        let (mut seen, mut at) = (Vec::new(), 0);
        for end in 0..=STREAM.len() {
            while let Some((reply, length)) = parse(&STREAM[at..end]).unwrap() {
                seen.push(reply);
                at += length;
            }
        }
        assert_eq!(seen, expected());
    }

    #[test]
    fn other_bytes_are_refused() {
        for bad in
            [&b"HTTP/1.1 400\r\n"[..], b":x\r\n", b"$-2\r\n", b"$1\r\nab\r\n", b"*99999999\r\n", b"+a\n"]
        {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        assert!(parse(&b"*1\r\n".repeat(9)).is_err(), "too deep");
        assert!(parse(&vec![b'+'; LINE_BYTES_MAX + 1]).is_err(), "endless");
    }

    #[test]
    fn a_request_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        encode(&mut out, &[b"GET", b"key"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n");
    }
}
