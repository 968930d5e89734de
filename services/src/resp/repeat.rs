//! A reply that was written before, to a client that may speak the other version of the protocol.

use super::reply::{Protocol, ReplyWriter};

/// Writes `said`, a whole reply in version 3, in the version that `reply` is in.
pub fn repeat(said: &[u8], reply: &mut ReplyWriter<'_>) {
    if reply.protocol() == Protocol::Resp3 {
        return reply.raw(said);
    }
    let mut rest = said;
    // Containers come before what they contain, so one look at each head is enough.
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let (head, behind) = (&rest[..end], &rest[end + 2..]);
        let length = || std::str::from_utf8(&head[1..]).ok().and_then(|text| text.parse::<usize>().ok());
        let mut taken = 0;
        match (head.first(), length()) {
            (Some(b'_'), _) => reply.null(),
            (Some(b'%'), Some(length)) => reply.map(length),
            (Some(b'~'), Some(length)) => reply.set(length),
            (Some(b'$'), Some(length)) => {
                reply.bulk(&behind[..length.min(behind.len())]);
                taken = length + 2;
            }
            (Some(b'='), Some(length)) => {
                reply.bulk(behind.get(4..length).unwrap_or_default());
                taken = length + 2;
            }
            _ => reply.raw(&rest[..end + 2]),
        }
        rest = behind.get(taken..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_repeated_as_it_would_have_been_said() {
        let said = |protocol| {
            let mut out = Vec::new();
            let mut reply = ReplyWriter::new(&mut out, protocol);
            reply.array(7);
            reply.null();
            reply.bulk(b"a\r\n_\r\n");
            reply.map(1);
            reply.simple("OK");
            reply.integer(-7);
            reply.set(1);
            reply.error("ERR no");
            reply.verbatim("text");
            reply.bulk(b"");
            reply.array(0);
            out
        };
        let in_3 = said(Protocol::Resp3);
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let mut out = Vec::new();
            repeat(&in_3, &mut ReplyWriter::new(&mut out, protocol));
            assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&said(protocol)));
        }
    }
}
