//! `ACL LOG`: what was refused lately.

use crate::resp::{Protocol, ReplyWriter};
use flotilla_runtime::machine::{MILLISECOND, Nanos, SECOND};
use std::collections::VecDeque;

/// Entries that are kept.
pub const ENTRIES_MAX: usize = 128;
/// Entries among which an equal one is looked for.
const SIMILAR_AMONG: usize = 10;
/// An equal one that is older counts as another.
const SIMILAR_WITHIN: Nanos = 60 * SECOND;

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not this command.
    Command,
    /// Not on this key.
    Key,
    /// Not with this name and password.
    Auth,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key => "key",
            Self::Auth => "auth",
        }
    }
}

/// Something that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Between `MULTI` and `EXEC`.
    pub in_transaction: bool,
    /// The command or the key.
    pub object: Vec<u8>,
    /// Who.
    pub user: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    refusal: Refusal,
    count: u64,
    at: Nanos,
    client: String,
}

/// The newest first; equal ones close to each other are one entry with a count.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
}

impl Journal {
    /// Notes a refusal at `now`, on the monotonic clock; `client` is what `CLIENT INFO` says of the connection.
    pub fn note(&mut self, now: Nanos, refusal: Refusal, client: String) {
        let is_similar =
            |entry: &Entry| entry.refusal == refusal && now.saturating_sub(entry.at) <= SIMILAR_WITHIN;
        let similar = self.entries.iter().take(SIMILAR_AMONG).position(is_similar);
        let earlier = similar.and_then(|place| self.entries.remove(place)).map_or(0, |entry| entry.count);
        self.entries.push_front(Entry { refusal, count: earlier + 1, at: now, client });
        self.entries.truncate(ENTRIES_MAX);
    }

    /// Forgets all.
    pub fn reset(&mut self) {
        self.entries.clear();
    }

    /// Tells the newest.
    pub fn write(&self, now: Nanos, most: usize, reply: &mut ReplyWriter<'_>) {
        let told = self.entries.iter().take(most);
        reply.array(told.len());
        for entry in told {
            reply.map(7);
            reply.bulk(b"count");
            reply.unsigned(entry.count);
            let context = if entry.refusal.in_transaction { "multi" } else { "toplevel" };
            for (key, value) in [
                (&b"reason"[..], entry.refusal.reason.name().as_bytes()),
                (b"context", context.as_bytes()),
                (b"object", &entry.refusal.object),
                (b"username", &entry.refusal.user),
            ] {
                reply.bulk(key);
                reply.bulk(value);
            }
            reply.bulk(b"age-seconds");
            let age_ms = now.saturating_sub(entry.at) / MILLISECOND;
            let age = format!("{}.{:03}", age_ms / 1000, age_ms % 1000);
            match reply.protocol() {
                Protocol::Resp2 => reply.bulk(age.as_bytes()),
                Protocol::Resp3 => reply.raw(format!(",{age}\r\n").as_bytes()),
            }
            reply.bulk(b"client-info");
            reply.bulk(entry.client.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(object: &str) -> Refusal {
        let (object, user) = (object.as_bytes().to_vec(), b"ann".to_vec());
        Refusal { reason: Reason::Key, in_transaction: false, object, user }
    }

    #[test]
    fn equal_refusals_are_counted_and_old_ones_forgotten() {
        let mut journal = Journal::default();
        for at in [1, 2, 3] {
            journal.note(at * SECOND, refusal("k"), String::new());
        }
        assert_eq!((journal.entries.len(), journal.entries[0].count), (1, 3));
        journal.note(100 * SECOND, refusal("k"), String::new());
        assert_eq!((journal.entries.len(), journal.entries[0].count), (2, 1));
        for number in 0..200 {
            journal.note(100 * SECOND, refusal(&number.to_string()), String::new());
        }
        assert_eq!(
            (journal.entries.len(), &journal.entries[0].refusal.object[..]),
            (ENTRIES_MAX, &b"199"[..])
        );
    }
}
