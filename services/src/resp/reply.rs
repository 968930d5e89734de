//! Replies, in either version of the protocol.

/// Which version a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// What every client speaks at first.
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

impl Protocol {
    /// 2 or 3.
    pub fn number(self) -> u8 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }

    /// The version of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            2 => Some(Self::Resp2),
            3 => Some(Self::Resp3),
            _ => None,
        }
    }
}

/// Writes replies behind what a buffer holds already; or nowhere, on replicas that nobody waits at.
#[derive(Debug)]
pub struct ReplyWriter<'a> {
    out: Option<&'a mut Vec<u8>>,
    protocol: Protocol,
}

impl<'a> ReplyWriter<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out: Some(out), protocol }
    }

    /// The version in force.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// From here on in this version (the reply to `HELLO` is already in the new one).
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// `+OK`
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// `-ERR …`; line ends in the text become spaces.
    pub fn error(&mut self, text: &str) {
        if self.out.is_some() {
            self.line(b'-', text.replace(['\r', '\n'], " ").as_bytes());
        }
    }

    /// `:1`
    pub fn integer(&mut self, value: i64) {
        self.number(b':', value);
    }

    /// `:1`, of what is never negative; the largest that there is stands for all that are larger.
    pub fn unsigned(&mut self, value: u64) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// `:1`, for how many there are.
    pub fn length_of(&mut self, count: usize) {
        self.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// `$3`, and the bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.length(b'$', bytes.len());
        if let Some(out) = &mut self.out {
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// No value.
    pub fn null(&mut self) {
        self.raw(if self.protocol == Protocol::Resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// No array.
    pub fn null_array(&mut self) {
        self.raw(if self.protocol == Protocol::Resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// An array of so many replies, which follow.
    pub fn array(&mut self, length: usize) {
        self.length(b'*', length);
    }

    /// A map of so many keys and values, which follow in turn.
    pub fn map(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp3 => self.length(b'%', length),
            Protocol::Resp2 => self.length(b'*', length * 2),
        }
    }

    /// A set of so many replies, which follow.
    pub fn set(&mut self, length: usize) {
        self.length(if self.protocol == Protocol::Resp3 { b'~' } else { b'*' }, length);
    }

    /// Text for people.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.length(b'=', text.len() + 4);
                self.raw(b"txt:");
                self.raw(text.as_bytes());
                self.raw(b"\r\n");
            }
        }
    }

    /// Bytes that are a reply already.
    pub fn raw(&mut self, bytes: &[u8]) {
        if let Some(out) = &mut self.out {
            out.extend_from_slice(bytes);
        }
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        if let Some(out) = &mut self.out {
            out.push(kind);
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn length(&mut self, kind: u8, length: usize) {
        self.number(kind, i64::try_from(length).unwrap_or(i64::MAX));
    }

    fn number(&mut self, kind: u8, value: i64) {
        let Some(out) = &mut self.out else { return };
        let mut digits = [0; 24];
        let mut at = digits.len() - 2;
        digits[at..].copy_from_slice(b"\r\n");
        let mut rest = value.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            at -= 1;
            digits[at] = b'-';
        }
        out.push(kind);
        out.extend_from_slice(&digits[at..]);
    }
}

impl ReplyWriter<'static> {
    /// Writes nowhere.
    pub fn discard() -> Self {
        Self { out: None, protocol: Protocol::Resp2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(protocol: Protocol, write: impl FnOnce(&mut ReplyWriter<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut ReplyWriter::new(&mut out, protocol));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_of_every_size() {
        for value in [0, 7, -1, 10, 1234, i64::MAX, i64::MIN] {
            assert_eq!(written(Protocol::Resp2, |reply| reply.integer(value)), format!(":{value}\r\n"));
        }
    }

    #[test]
    fn the_versions_differ_where_they_must() {
        let all = |reply: &mut ReplyWriter<'_>| {
            reply.null();
            reply.null_array();
            reply.map(1);
            reply.verbatim("hi");
            reply.error("ERR a\r\nb");
        };
        assert_eq!(written(Protocol::Resp2, all), "$-1\r\n*-1\r\n*2\r\n$2\r\nhi\r\n-ERR a  b\r\n");
        assert_eq!(written(Protocol::Resp3, all), "_\r\n_\r\n%1\r\n=6\r\ntxt:hi\r\n-ERR a  b\r\n");
    }
}
