//! The little of ZooKeeper's protocol that the benchmark speaks: packets of records in jute, its encoding.
//!
//! ```text
//! packet       length, 4 bytes │ record of so many bytes
//! request      xid, 4 │ type, 4 │ the type's fields
//! reply        xid, 4 │ zxid, 8 │ error, 4 │ the type's fields unless there is an error
//! buffer       length, 4, or -1 for none │ so many bytes          strings are buffers, numbers are big-endian
//! ```
//!
//! As with RESP the parser keeps no state: it is shown everything received so far, and answers with a whole reply or
//! "not yet".

use crate::workload::{KEY_BYTES, value};

/// What `jute.maxbuffer` allows in a packet by default, and a byte.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// Of a length, an xid, an error.
const INT_BYTES: usize = 4;
/// xid, zxid, error.
const HEADER_BYTES: usize = 16;
/// What ZooKeeper tells of a znode: eleven numbers.
const STAT_BYTES: usize = 68;
/// The xid of pings and of their replies.
pub(super) const PING_XID: i32 = -2;

const CREATE: i32 = 1;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const PING: i32 = 11;
const CLOSE_SESSION: i32 = -11;

/// These bytes are no reply of ZooKeeper's, or not the one that was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// A packet has at least a header, and at most what `jute.maxbuffer` allows.
    #[error("a packet of {0} bytes")]
    PacketLength(i32),
    /// A record ends before its fields do.
    #[error("{expected} bytes of {what} expected, {found} found")]
    Fields {
        /// Of which record.
        what: &'static str,
        /// As its lengths say.
        expected: usize,
        /// Up to the end of the packet.
        found: usize,
    },
    /// A string or a value of a length that can't be.
    #[error("a buffer of {0} bytes")]
    BufferLength(i32),
    /// Replies come in the order of their requests.
    #[error("a reply to request {found} where that to {expected} is due")]
    Order {
        /// The oldest request without a reply.
        expected: i32,
        /// What the reply says.
        found: i32,
    },
    /// The server has no session for this client.
    #[error("no session was granted")]
    NoSession,
}

/// What a server says went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ErrorCode(pub(super) i32);

impl ErrorCode {
    /// There is no such znode.
    pub(super) const NO_NODE: Self = Self(-101);
    /// There is one already.
    pub(super) const NODE_EXISTS: Self = Self(-110);

    /// As ZooKeeper calls it.
    pub(super) fn name(self) -> String {
        let known = match self.0 {
            -1 => "SystemError",
            -2 => "RuntimeInconsistency",
            -3 => "DataInconsistency",
            -4 => "ConnectionLoss",
            -5 => "MarshallingError",
            -6 => "Unimplemented",
            -7 => "OperationTimeout",
            -8 => "BadArguments",
            -101 => "NoNode",
            -102 => "NoAuth",
            -103 => "BadVersion",
            -110 => "NodeExists",
            -112 => "SessionExpired",
            -115 => "AuthFailed",
            -118 => "SessionMoved",
            -119 => "NotReadOnly",
            -125 => "QuotaExceeded",
            -127 => "ThrottledOp",
            other => return format!("error {other}"),
        };
        known.to_owned()
    }
}

/// A reply to a request, borrowed from the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    /// Which request it answers.
    pub(super) xid: i32,
    /// The type's fields, or why there are none.
    pub(super) fields: Result<&'a [u8], ErrorCode>,
}

/// Reads one reply from the front of `bytes`: the reply and its length, or none while it is incomplete.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, WireError> {
    let Some((record, length)) = packet(bytes)? else { return Ok(None) };
    let (xid, error) = (int(record, 0), int(record, 12));
    let (Some(xid), Some(error)) = (xid, error) else {
        return Err(WireError::Fields { what: "header", expected: HEADER_BYTES, found: record.len() });
    };
    let fields = if error == 0 { Ok(&record[HEADER_BYTES..]) } else { Err(ErrorCode(error)) };
    Ok(Some((Reply { xid, fields }, length)))
}

/// Reads the reply to [`Requests::connect`]: its length, or none while it is incomplete.
pub(super) fn parse_connected(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let Some((record, length)) = packet(bytes)? else { return Ok(None) };
    // Protocol, timeout, session, password; and whether it is read-only, which servers before 3.4 don't tell.
    let (_, rest) = buffer("connect", record, 16)?;
    let timeout_ms = int(record, 4).unwrap_or(0);
    match (timeout_ms, rest.len()) {
        (..=0, _) => Err(WireError::NoSession),
        (_, 0 | 1) => Ok(Some(length)),
        (_, more) => {
            Err(WireError::Fields { what: "connect", expected: record.len() - more + 1, found: record.len() })
        }
    }
}

/// Whether these are the fields of a reply to `getData`; the value is not looked at.
pub(super) fn check_data(fields: &[u8]) -> Result<(), WireError> {
    let (_, rest) = buffer("getData", fields, 0)?;
    check_length("getData", rest, STAT_BYTES)
}

/// Whether these are the fields of a reply to `setData`.
pub(super) fn check_stat(fields: &[u8]) -> Result<(), WireError> {
    check_length("setData", fields, STAT_BYTES)
}

/// Whether these are the fields of a reply to `create`.
pub(super) fn check_path(fields: &[u8]) -> Result<(), WireError> {
    let (_, rest) = buffer("create", fields, 0)?;
    check_length("create", rest, 0)
}

fn check_length(what: &'static str, rest: &[u8], expected: usize) -> Result<(), WireError> {
    match rest.len() == expected {
        true => Ok(()),
        false => Err(WireError::Fields { what, expected, found: rest.len() }),
    }
}

/// The record at the front of `bytes`, and the length of its packet.
fn packet(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, WireError> {
    let Some(told) = int(bytes, 0) else { return Ok(None) };
    let length = usize::try_from(told).unwrap_or(usize::MAX);
    if !(HEADER_BYTES..=PACKET_BYTES_MAX).contains(&length) {
        return Err(WireError::PacketLength(told));
    }
    let end = INT_BYTES + length;
    Ok(bytes.get(INT_BYTES..end).map(|record| (record, end)))
}

/// The buffer at `at` of a record, and what is behind it.
fn buffer<'a>(what: &'static str, record: &'a [u8], at: usize) -> Result<(&'a [u8], &'a [u8]), WireError> {
    let cut = |expected| WireError::Fields { what, expected, found: record.len() };
    let told = int(record, at).ok_or_else(|| cut(at + INT_BYTES))?;
    let from = at + INT_BYTES;
    let length = match told {
        // No value at all, which is another thing than an empty one.
        -1 => 0,
        told => usize::try_from(told).map_err(|_| WireError::BufferLength(told))?,
    };
    if length > PACKET_BYTES_MAX {
        return Err(WireError::BufferLength(told));
    }
    let end = from + length;
    record.get(from..end).map(|buffer| (buffer, &record[end..])).ok_or_else(|| cut(end))
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    let bytes = bytes.get(at..at + INT_BYTES)?;
    bytes.try_into().map(i32::from_be_bytes).ok()
}

/// What is asked about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Make a persistent znode that anyone may do anything with.
    Create,
    /// Change one, whatever its version.
    SetData,
    /// Its value, without a watch.
    GetData,
}

/// The requests, with holes where xid and key go.
#[derive(Debug)]
pub(super) struct Requests {
    create: Vec<u8>,
    set: Vec<u8>,
    get: Vec<u8>,
    connect: Vec<u8>,
}

/// Where a request's xid is, and where its key: behind length, xid, type, the path's length and its slash.
const XID_AT: usize = INT_BYTES;
const KEY_AT: usize = 4 * INT_BYTES + 1;

impl Requests {
    /// Requests with values of so many bytes, for sessions that live so long without a sign of life.
    pub(super) fn new(value_bytes: usize, timeout_ms: i32) -> Self {
        let value = value(value_bytes);
        let path = [&b"/"[..], &[b'.'; KEY_BYTES]].concat();
        let mut create = Record::request(0, CREATE).buffer(&path).buffer(&value);
        // One entry of an access list: all five rights, for the world's anyone.
        create = create.int(1).int(31).buffer(b"world").buffer(b"anyone");
        // Flags: neither ephemeral nor numbered.
        create = create.int(0);
        let set = Record::request(0, SET_DATA).buffer(&path).buffer(&value).int(-1);
        let mut get = Record::request(0, GET_DATA).buffer(&path);
        get.0.push(0);
        // Protocol 0, nothing seen yet, the timeout, no session yet and its password, and not a read-only member.
        let mut connect = Record::new().int(0).int(0).int(0).int(timeout_ms).int(0).int(0).buffer(&[0; 16]);
        connect.0.push(0);
        Self { create: create.packet(), set: set.packet(), get: get.packet(), connect: connect.packet() }
    }

    /// What opens a session; first on a connection.
    pub(super) fn connect(&self) -> &[u8] {
        &self.connect
    }

    /// Appends a question about `key`.
    pub(super) fn append(&self, out: &mut Vec<u8>, question: Question, xid: i32, key: &[u8; KEY_BYTES]) {
        let template = match question {
            Question::Create => &self.create,
            Question::SetData => &self.set,
            Question::GetData => &self.get,
        };
        let from = out.len();
        out.extend_from_slice(template);
        out[from + XID_AT..][..INT_BYTES].copy_from_slice(&xid.to_be_bytes());
        out[from + KEY_AT..][..KEY_BYTES].copy_from_slice(key);
    }
}

/// Appends a sign of life.
pub(super) fn append_ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&Record::request(PING_XID, PING).packet());
}

/// Appends what ends a session; last on a connection.
pub(super) fn append_close(out: &mut Vec<u8>, xid: i32) {
    out.extend_from_slice(&Record::request(xid, CLOSE_SESSION).packet());
}

/// A record that is being written, behind the place of its packet's length.
struct Record(Vec<u8>);

impl Record {
    fn new() -> Self {
        Self(vec![0; INT_BYTES])
    }

    fn request(xid: i32, kind: i32) -> Self {
        Self::new().int(xid).int(kind)
    }

    fn int(mut self, value: i32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn buffer(self, bytes: &[u8]) -> Self {
        let length = i32::try_from(bytes.len()).expect("values are bounded far below 2 GiB");
        let mut with = self.int(length);
        with.0.extend_from_slice(bytes);
        with
    }

    fn packet(mut self) -> Vec<u8> {
        let length = i32::try_from(self.0.len() - INT_BYTES).expect("values are bounded far below 2 GiB");
        self.0[..INT_BYTES].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8; KEY_BYTES] = b"key:000000000042";
    const STAT: &[u8; STAT_BYTES] = &[7; STAT_BYTES];

    /// What ZooKeeper 3.8.0 answered to these requests: connect, setData of a key that isn't there, create, a ping,
    /// create again, setData, getData, close.
    const CONNECTED: &[u8] = b"\0\0\0\x25\0\0\0\0\0\0\x75\x30\x01\x00\x01\xa5\xcf\xc8\0\0\0\0\0\x10\
        \x4a\xed\xdf\x94\x0f\xb6\x55\x4b\x38\xca\xe4\x94\x70\xb2\x5a\x84\0";
    const STREAM: &[u8] = b"\0\0\0\x10\0\0\0\x01\0\0\0\x01\0\0\0\x02\xff\xff\xff\x9b\
        \0\0\0\x1a\0\0\0\x02\0\0\0\x01\0\0\0\x03\0\0\0\0\0\0\0\x06/key:1\
        \0\0\0\x10\xff\xff\xff\xfe\0\0\0\x01\0\0\0\x03\0\0\0\0\
        \0\0\0\x10\0\0\0\x03\0\0\0\x01\0\0\0\x04\xff\xff\xff\x92\
        \0\0\0\x54\0\0\0\x04\0\0\0\x01\0\0\0\x05\0\0\0\0\
        \0\0\0\x01\0\0\0\x03\0\0\0\x01\0\0\0\x05\0\0\x01\xa2\x20\x71\x79\xc9\0\0\x01\xa2\x20\x71\x79\xd0\0\0\0\x01\
        \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\x03\
        \0\0\0\x5b\0\0\0\x05\0\0\0\x01\0\0\0\x05\0\0\0\0\0\0\0\x03xyz\
        \0\0\0\x01\0\0\0\x03\0\0\0\x01\0\0\0\x05\0\0\x01\xa2\x20\x71\x79\xc9\0\0\x01\xa2\x20\x71\x79\xd0\0\0\0\x01\
        \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\x03\
        \0\0\0\x10\0\0\0\x07\0\0\0\x01\0\0\0\x06\0\0\0\0";

    /// A reply's xid, and how many bytes of fields it has.
    type Looked = (i32, Result<usize, ErrorCode>);

    /// The replies of the stream, each looked into as what it answers.
    fn seen(bytes: &[u8]) -> (Vec<Looked>, usize) {
        let (mut seen, mut at) = (Vec::new(), 0);
        while let Some((reply, length)) = parse(&bytes[at..]).unwrap() {
            match (reply.xid, reply.fields) {
                (2, Ok(fields)) => check_path(fields).unwrap(),
                (4, Ok(fields)) => check_stat(fields).unwrap(),
                (5, Ok(fields)) => check_data(fields).unwrap(),
                _ => {}
            }
            seen.push((reply.xid, reply.fields.map(<[u8]>::len)));
            at += length;
        }
        (seen, at)
    }

    #[test]
    fn what_zookeeper_said_is_read() {
        let wanted = [
            (1, Err(ErrorCode::NO_NODE)),
            (2, Ok(10)),
            (PING_XID, Ok(0)),
            (3, Err(ErrorCode::NODE_EXISTS)),
            (4, Ok(STAT_BYTES)),
            (5, Ok(4 + 3 + STAT_BYTES)),
            (7, Ok(0)),
        ];
        assert_eq!(seen(STREAM), (wanted.to_vec(), STREAM.len()));
        assert_eq!(parse_connected(CONNECTED), Ok(Some(CONNECTED.len())));
        let names = [ErrorCode::NO_NODE, ErrorCode::NODE_EXISTS, ErrorCode(-999)].map(ErrorCode::name);
        assert_eq!(names, ["NoNode", "NodeExists", "error -999"]);
    }

    #[test]
    fn a_cut_packet_is_waited_for_whatever_the_cut() {
        let all = seen(STREAM).0;
        for cut in 0..=STREAM.len() {
            let (mut before, at) = seen(&STREAM[..cut]);
            before.extend(seen(&STREAM[at..]).0);
            assert_eq!(before, all, "cut at {cut}");
        }
        for cut in 0..CONNECTED.len() {
            assert_eq!(parse_connected(&CONNECTED[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn requests_have_zookeepers_bytes() {
        let requests = Requests::new(3, 30_000);
        let value = value(3);
        let wanted = |length: &[u8], head: &[u8], tail: &[&[u8]]| {
            [length, head, b"\0\0\0\x11/", KEY, &tail.concat()].concat()
        };
        let asked = |question| {
            let mut out = b"before".to_vec();
            requests.append(&mut out, question, 0x0102_0304, KEY);
            out.split_off(6)
        };
        let sized = [&b"\0\0\0\x03"[..], &value].concat();
        let acl = b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone";
        assert_eq!(
            asked(Question::Create),
            wanted(b"\0\0\0\x43", b"\x01\x02\x03\x04\0\0\0\x01", &[&sized, acl, b"\0\0\0\0"])
        );
        assert_eq!(
            asked(Question::SetData),
            wanted(b"\0\0\0\x28", b"\x01\x02\x03\x04\0\0\0\x05", &[&sized, b"\xff\xff\xff\xff"])
        );
        assert_eq!(asked(Question::GetData), wanted(b"\0\0\0\x1e", b"\x01\x02\x03\x04\0\0\0\x04", &[b"\0"]));
        let connect =
            [&b"\0\0\0\x2d\0\0\0\0"[..], &[0; 8], b"\0\0\x75\x30", &[0; 8], b"\0\0\0\x10", &[0; 17]];
        assert_eq!(requests.connect(), connect.concat());
        let mut out = Vec::new();
        append_ping(&mut out);
        append_close(&mut out, 7);
        assert_eq!(out, b"\0\0\0\x08\xff\xff\xff\xfe\0\0\0\x0b\0\0\0\x08\0\0\0\x07\xff\xff\xff\xf5");
    }

    #[test]
    fn absurd_lengths_are_refused_at_once() {
        for length in [-1, i32::MIN, i32::MAX, 0, 15, PACKET_BYTES_MAX as i32 + 1] {
            let bytes = length.to_be_bytes();
            assert_eq!(parse(&bytes), Err(WireError::PacketLength(length)));
            assert_eq!(parse_connected(&bytes), Err(WireError::PacketLength(length)));
        }
        let largest = (PACKET_BYTES_MAX as i32).to_be_bytes();
        assert_eq!(parse(&largest), Ok(None), "it may still come");
        for length in [-2, i32::MIN, i32::MAX] {
            let fields = [&length.to_be_bytes()[..], STAT].concat();
            assert_eq!(check_data(&fields), Err(WireError::BufferLength(length)));
            assert_eq!(check_path(&fields), Err(WireError::BufferLength(length)));
        }
    }

    #[test]
    fn fields_that_are_cut_or_too_many_are_refused() {
        let data = [b"\0\0\0\x02ab", &STAT[..]].concat();
        assert_eq!(check_data(&data), Ok(()));
        assert_eq!(check_data(&[b"\xff\xff\xff\xff", &STAT[..]].concat()), Ok(()), "a znode without a value");
        for cut in 0..data.len() {
            let error = check_data(&data[..cut]).unwrap_err();
            assert!(matches!(error, WireError::Fields { what: "getData", .. }), "cut at {cut}: {error}");
        }
        assert!(check_data(&[&data[..], b"x"].concat()).is_err());
        assert!(check_stat(&STAT[1..]).is_err() && check_stat(STAT).is_ok());
        assert!(check_path(b"\0\0\0\x02/a").is_ok());
        assert!(check_path(b"\0\0\0\x02/ab").is_err() && check_path(b"\0\0\0\x03/a").is_err());
    }

    #[test]
    fn a_refused_session_is_told() {
        let mut refused = CONNECTED.to_vec();
        refused[8..12].fill(0);
        assert_eq!(parse_connected(&refused), Err(WireError::NoSession));
        let mut short = CONNECTED.to_vec();
        short[20..24].copy_from_slice(&[0, 0, 0, 64]);
        assert!(matches!(parse_connected(&short), Err(WireError::Fields { what: "connect", .. })));
    }
}
