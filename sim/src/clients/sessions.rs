//! Writes that users send again until they are answered: each must take effect once.
//!
//! A user has a session for each counter of this kind, and numbers its increments there. Where other increments become
//! uncertain with a lost connection, these don't: they are sent again, over whatever connection comes next, and the counter
//! must in the end be what was counted.

use super::memory::When;
use super::{Asked, Clients, Key, Purpose};
use std::collections::BTreeMap;

/// One user's session for one counter.
#[derive(Debug, Default)]
pub(super) struct Session {
    number: Option<i64>,
    /// The last increment that was answered, and the count that it made.
    last: (u64, i64),
    /// When the next one was sent first, if it was.
    pending: Option<u64>,
}

/// All sessions, by user and counter.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeMap<(usize, u64), Session>);

impl Sessions {
    /// Increments of a counter that nobody has an answer to.
    pub(super) fn uncertain(&self, tag: u64) -> u64 {
        let pending = self.0.iter().filter(|((_, of), session)| *of == tag && session.pending.is_some());
        pending.count() as u64
    }

    pub(super) fn opened(&mut self, client: usize, tag: u64, number: i64) {
        // A second one, if two were asked for in one packet.
        self.0.entry((client, tag)).or_default().number.get_or_insert(number);
    }

    /// An increment was answered. Returns whether that is news.
    pub(super) fn answered(
        &mut self,
        client: usize,
        tag: u64,
        write: u64,
        count: i64,
    ) -> Result<bool, String> {
        let session = self.0.entry((client, tag)).or_default();
        if write == session.last.0 + 1 {
            session.last = (write, count);
            session.pending = None;
            return Ok(true);
        }
        if session.last == (write, count) {
            return Ok(false);
        }
        let last = session.last;
        Err(format!("exactly once: write {write} of client {client} made {count}, and before that {last:?}"))
    }
}

impl Clients {
    /// The next increment of a session, or the last one again if it wasn't answered.
    pub(super) fn ask_once(&mut self, client: usize, now: u64, tag: u64) {
        let name = Key::Once(tag).name();
        let session = self.sessions.0.entry((client, tag)).or_default();
        let Some(number) = session.number else {
            return self.ask(client, now, &["FLOTILLA.SESSION", &name], Purpose::Open(tag));
        };
        let write = session.last.0 + 1;
        let called = *session.pending.get_or_insert(now);
        let acknowledged = session.last.0 - session.last.0.min(self.rng.between(0, 2));
        let numbers = [number.to_string(), write.to_string(), acknowledged.to_string()];
        // Twice in one packet, now and then.
        for _ in 0..=u64::from(self.rng.between(0, 9) == 0) {
            let args = ["FLOTILLA.ONCE", &numbers[0], &numbers[1], &numbers[2], "INCR", &name];
            super::put_command(&mut self.bytes, &args);
            self.list[client].asked.push_back(Asked { purpose: Purpose::Once { tag, write }, called });
        }
    }

    pub(super) fn once(
        &mut self,
        client: usize,
        (tag, write): (u64, u64),
        count: i64,
        when: When,
    ) -> Result<(), String> {
        if self.sessions.answered(client, tag, write, count)? {
            self.memory.counted_once(tag, count, when);
        }
        Ok(())
    }
}
