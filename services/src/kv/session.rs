//! Sessions: writes that take effect once, however often they are sent.
//!
//! A client opens a session in the shard of a key and numbers its writes there: 1, 2, 3. A write that isn't answered is
//! sent again under its number. The shard applies each number once and in order, and keeps the replies that the client
//! hasn't acknowledged, so a repeated write gets the reply that it got, or would have got, the first time (Ongaro's
//! dissertation, §6.3). All of it is part of the shard's replicated state: it survives a leader, a restart, a snapshot, and
//! goes with the shard wherever it goes.
//!
//! ```text
//!             number = last + 1                    number <= last
//!  (absent) ───────────────────► executed ────► its reply again, if it is kept
//!     │                             ▲
//!     │ SESSIONLOST                 │ number > last + 1: SESSIONGAP, nothing happens
//! ```
//!
//! **Bounded.** A shard keeps at most [`SESSIONS_MAX`] sessions and [`SESSION_BYTES_MAX`] bytes of them. Beyond, the one goes
//! that was used longest ago: by the order of the log, so on every replica the same. Its client is told so
//! (`SESSIONLOST`) with its next write, which isn't executed; what became of an unanswered one it can't know then.

use super::Keyspace;
use crate::command::{Kind, Rejected, Spec, check, code, lookup, unknown_command};
use crate::resp::{Protocol, ReplyWriter, repeat};
use crate::slot::{SLOTS, Slot};
use flotilla_runtime::planted::{Bug, planted};
use std::collections::{BTreeMap, VecDeque};

/// Sessions of a shard. Part of the replicated state machine: every node has the same.
pub const SESSIONS_MAX: usize = 16_384;
/// Bytes of a shard's sessions, by [`SESSION_BYTES`] and the lengths of the kept replies. Likewise.
pub const SESSION_BYTES_MAX: usize = 4 << 20;
/// What a session counts without its replies: about what it takes.
pub const SESSION_BYTES: usize = 128;
/// A longer reply isn't kept; a repeated write is told so. Likewise.
const REPLY_BYTES_MAX: usize = 64 << 10;
/// Writes of a session that may be unacknowledged at a time. Likewise.
const UNACKNOWLEDGED_MAX: u64 = 256;
/// Bits of a session's number that are the slot it was opened with: a session is never taken for one of another shard.
const SLOT_BITS: u32 = SLOTS.trailing_zeros();

/// A write of a session: `FLOTILLA.ONCE session write acknowledged COMMAND…`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Once<'a, 'b> {
    session: u64,
    /// Its number.
    write: u64,
    /// The client has the replies to all writes up to this one.
    acknowledged: u64,
    pub(crate) spec: &'static Spec,
    /// The command.
    pub(crate) args: &'b [&'a [u8]],
}

impl<'a, 'b> Once<'a, 'b> {
    /// Reads it from the whole command.
    pub(crate) fn parse(args: &'b [&'a [u8]]) -> Result<Self, Rejected> {
        let number = |place: usize| {
            let text = args.get(place).and_then(|arg| std::str::from_utf8(arg).ok());
            text.and_then(|text| text.parse::<u64>().ok()).ok_or_else(Rejected::not_an_integer)
        };
        let (session, write, acknowledged) = (number(1)?, number(2)?, number(3)?);
        let args = args.get(4..).filter(|args| !args.is_empty()).ok_or_else(Rejected::syntax)?;
        if write == 0 || acknowledged >= write {
            return Err(Rejected::new(
                "ERR writes are numbered from 1, and only earlier ones can be acknowledged",
            ));
        }
        if write - acknowledged > UNACKNOWLEDGED_MAX {
            let text = format!("ERR more than {UNACKNOWLEDGED_MAX} writes of the session are unacknowledged");
            return Err(Rejected(text));
        }
        let spec = lookup(args[0]).ok_or_else(|| Rejected(unknown_command(args)))?;
        let is_fit = spec.kind == Kind::Write
            && spec.first_key > 0
            && !matches!(spec.code, code::FLOTILLA_SESSION | code::FLOTILLA_PUBLISH);
        if !is_fit {
            let name = spec.name.to_uppercase();
            return Err(Rejected(format!("ERR {name} can't be a write of a session: no write of keys")));
        }
        check(spec, args)?;
        Ok(Self { session, write, acknowledged, spec, args })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    /// Counts the uses of all sessions: the lowest goes first.
    used: u64,
    /// The last write that was executed.
    last: u64,
    /// Its reply, in the third version of the protocol; empty if it is too long to be kept.
    reply: Box<[u8]>,
    /// The replies to those before it that aren't acknowledged, the latest last. A box, since most sessions have none.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 32 in every idle session")]
    earlier: Option<Box<VecDeque<Box<[u8]>>>>,
}

impl Session {
    fn bytes(&self) -> usize {
        let earlier = self.earlier.iter().flat_map(|replies| replies.iter());
        SESSION_BYTES
            + self.reply.len()
            + earlier.map(|reply| reply.len() + size_of::<Box<[u8]>>()).sum::<usize>()
    }

    /// The reply to a write that was executed, if it isn't acknowledged.
    fn reply_to(&self, write: u64) -> Option<&[u8]> {
        match usize::try_from(self.last.checked_sub(write)?).ok()? {
            0 => Some(&self.reply),
            ago => {
                let earlier = self.earlier.as_ref()?;
                earlier.len().checked_sub(ago).map(|place| &*earlier[place])
            }
        }
    }

    fn forget(&mut self, acknowledged: u64) {
        let Some(earlier) = &mut self.earlier else { return };
        let unacknowledged = usize::try_from(self.last.saturating_sub(1).saturating_sub(acknowledged));
        let surplus = earlier.len().saturating_sub(unacknowledged.unwrap_or(usize::MAX));
        earlier.drain(..surplus);
        if earlier.is_empty() {
            self.earlier = None;
        }
    }
}

/// The sessions of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sessions {
    /// How many were ever opened.
    opened: u64,
    /// How often any was used.
    uses: u64,
    by_number: BTreeMap<u64, Session>,
    /// The number of each by its last use.
    by_use: BTreeMap<u64, u64>,
    bytes: usize,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Numbers begin above any of the clusters that a backup may have come from: a session of theirs isn't taken for one of
    /// this shard's.
    pub(super) fn begin_era(&mut self, era_s: u64) {
        self.opened = self.opened.max(era_s << SLOT_BITS);
    }

    fn open(&mut self, slot: Slot) -> u64 {
        self.opened += 1;
        let number = self.opened << SLOT_BITS | u64::from(slot.0);
        self.put(number, Session { used: 0, last: 0, reply: Box::default(), earlier: None });
        number
    }

    /// Takes a session out, to be put back when it has been used.
    fn take(&mut self, number: u64) -> Option<Session> {
        let session = self.by_number.remove(&number)?;
        self.by_use.remove(&session.used);
        self.bytes -= session.bytes();
        Some(session)
    }

    fn put(&mut self, number: u64, mut session: Session) {
        self.uses += 1;
        session.used = self.uses;
        self.restore(number, session);
        while self.by_number.len() > SESSIONS_MAX || self.bytes > SESSION_BYTES_MAX {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            let oldest = *oldest;
            if oldest == number {
                break;
            }
            self.take(oldest);
        }
    }

    fn restore(&mut self, number: u64, session: Session) {
        self.bytes += session.bytes();
        self.by_use.insert(session.used, number);
        self.by_number.insert(number, session);
    }

    /// Equal where the sessions are.
    pub(super) fn hash(&self) -> u64 {
        let bytes = if self.opened == 0 { Vec::new() } else { self.encode() };
        u64::from(crc32fast::hash(&bytes))
    }

    /// Sessions opened, uses, u64 each; how many there are, u32; then each in the order of the numbers: number, use, last
    /// write, u64 each; how many replies, u32, and each: its length u32 and its bytes, the one to the last write at the end.
    /// Little-endian. Nothing if none was ever opened.
    pub(super) fn encode(&self) -> Vec<u8> {
        if self.opened == 0 {
            return Vec::new();
        }
        let short = |length: usize| u32::try_from(length).expect("bounded far below 4 GiB").to_le_bytes();
        let mut out = Vec::with_capacity(self.bytes);
        out.extend_from_slice(&self.opened.to_le_bytes());
        out.extend_from_slice(&self.uses.to_le_bytes());
        out.extend_from_slice(&short(self.by_number.len()));
        for (number, session) in &self.by_number {
            for field in [*number, session.used, session.last] {
                out.extend_from_slice(&field.to_le_bytes());
            }
            let earlier = session.earlier.iter().flat_map(|replies| replies.iter());
            out.extend_from_slice(&short(earlier.clone().count() + 1));
            for reply in earlier.chain([&session.reply]) {
                out.extend_from_slice(&short(reply.len()));
                out.extend_from_slice(reply);
            }
        }
        out
    }

    /// What [`Self::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut sessions = Self { opened: long(&mut rest)?, uses: long(&mut rest)?, ..Self::default() };
        for _ in 0..short(&mut rest)? {
            let (number, used, last) = (long(&mut rest)?, long(&mut rest)?, long(&mut rest)?);
            let replies = short(&mut rest)?;
            let mut earlier = VecDeque::new();
            for _ in 0..replies {
                let length = short(&mut rest)? as usize;
                let (reply, behind) = rest.split_at_checked(length)?;
                earlier.push_back(reply.into());
                rest = behind;
            }
            let reply = earlier.pop_back()?;
            let earlier = (!earlier.is_empty()).then(|| Box::new(earlier));
            let is_new = !sessions.by_number.contains_key(&number) && !sessions.by_use.contains_key(&used);
            if !is_new || used > sessions.uses {
                return None;
            }
            sessions.restore(number, Session { used, last, reply, earlier });
        }
        rest.is_empty().then_some(sessions)
    }
}

fn long(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u64::from_le_bytes(*bytes))
}

fn short(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u32::from_le_bytes(*bytes))
}

impl Keyspace {
    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// `FLOTILLA.SESSION key`: the number of a new session in the key's shard.
    pub(super) fn open_session(&mut self, key: &[u8], reply: &mut ReplyWriter<'_>) {
        reply.unsigned(self.sessions.open(Slot::of_key(key)));
    }

    /// `FLOTILLA.ONCE`: executes the write unless it has been; either way the reply is the first time's.
    pub(super) fn once(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let once = match Once::parse(args) {
            Ok(once) => once,
            Err(rejected) => return reply.error(&rejected.to_string()),
        };
        let Once { session: number, write, acknowledged, spec, args } = once;
        let Some(mut session) = self.sessions.take(number) else {
            return reply.error(&format!("SESSIONLOST there is no session {number} in this shard"));
        };
        session.forget(acknowledged);
        if write == session.last + 1 || (write == session.last && planted(Bug::RepeatedWriteDone)) {
            let mut said = Vec::new();
            self.write(clock_ms, spec.code, args, &mut ReplyWriter::new(&mut said, Protocol::Resp3));
            repeat(&said, reply);
            let kept = if said.len() > REPLY_BYTES_MAX { Box::default() } else { said.into() };
            let former = std::mem::replace(&mut session.reply, kept);
            if session.last > acknowledged {
                session.earlier.get_or_insert_default().push_back(former);
            }
            session.last = write;
        } else if write > session.last {
            let last = session.last;
            reply.error(&format!("SESSIONGAP write {write} is too early: the session's last is {last}"));
        } else {
            match session.reply_to(write) {
                Some([]) => reply.error(&format!(
                    "SESSIONREPLY write {write} took effect, but its reply was too long to be kept"
                )),
                Some(said) => repeat(said, reply),
                None => reply.error(&format!("SESSIONOLD write {write} took effect, and was acknowledged")),
            }
        }
        self.sessions.put(number, session);
    }
}

#[cfg(test)]
mod tests;
