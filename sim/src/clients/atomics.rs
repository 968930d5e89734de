//! Commands that must happen as one, or only if nothing has changed: transactions and compare-and-set.
//!
//! A pair is two counters that only transactions change, both at once: whoever sees them differ has caught a transaction in
//! two halves. A versioned key is only written if it has the version that its writer has in mind.

use super::memory::{Placed, When, in_order};
use super::{Clients, Key, Purpose, token};
use flotilla_services::client::Reply;
use std::collections::{BTreeMap, BTreeSet};

/// One versioned key.
#[derive(Debug, Default)]
pub(super) struct Versioned {
    /// The newest version that anybody has seen.
    known: u64,
    /// What is in each version, as far as anybody has seen.
    values: BTreeMap<u64, Vec<u8>>,
    /// Versions that somebody's write was told to have made.
    made: BTreeSet<u64>,
    placed: Vec<Placed>,
}

impl Versioned {
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    /// A write was done: the version that it was given for, what it wrote, and its new version.
    pub(super) fn wrote(&mut self, given: u64, value: u64, reply: &Reply, when: When) -> Result<(), String> {
        let Reply::Integer(new) = reply else {
            return Err(format!("reply: a CAS was answered with {reply}"));
        };
        let new = u64::try_from(*new).unwrap_or(0);
        if (given > 0 && new != given + 1) || new == 0 || !self.made.insert(new) {
            return Err(format!("exactly once: a CAS at version {given} made version {new}"));
        }
        self.placed.push(Placed { when, place: new, is_change: true });
        self.holds(new, token(value).into_bytes())
    }

    /// A write wasn't done: the key had another version.
    pub(super) fn refused(&mut self, given: u64, error: &str, when: When) -> Result<(), String> {
        let found = match error.split(' ').next() {
            Some("NOKEY") => 0,
            _ => error.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0),
        };
        if found == given {
            return Err(format!("reply: a CAS at version {given} was refused: {error}"));
        }
        self.looked(found, when);
        Ok(())
    }

    pub(super) fn read(&mut self, reply: &Reply, when: When) -> Result<(), String> {
        match reply {
            Reply::Null => self.looked(0, when),
            Reply::Array(items) => {
                let [Reply::Integer(version), Reply::Bulk(value)] = &items[..] else {
                    return Err(format!("reply: GETV was answered with {reply}"));
                };
                let version = u64::try_from(*version).unwrap_or(0);
                self.looked(version, when);
                self.holds(version, value.clone())?;
            }
            other => return Err(format!("reply: GETV was answered with {other}")),
        }
        Ok(())
    }

    fn looked(&mut self, version: u64, when: When) {
        self.known = self.known.max(version);
        self.placed.push(Placed { when, place: version, is_change: false });
    }

    fn holds(&mut self, version: u64, value: Vec<u8>) -> Result<(), String> {
        self.known = self.known.max(version);
        let known = self.values.entry(version).or_insert_with(|| value.clone());
        match *known == value {
            true => Ok(()),
            false => Err(format!(
                "linearizability: version {version} is {} and {}",
                known.escape_ascii(),
                value.escape_ascii()
            )),
        }
    }

    pub(super) fn judge(&self) -> Result<(), String> {
        in_order(&self.placed)
    }
}

/// The two halves of a pair, as a transaction or a look at both returned them: they must be equal.
pub(super) fn both(reply: &Reply) -> Result<i64, String> {
    let number = |half: &Reply| match half {
        Reply::Integer(number) => Some(*number),
        Reply::Bulk(text) => String::from_utf8_lossy(text).parse().ok(),
        Reply::Null => Some(0),
        _ => None,
    };
    match reply {
        Reply::Array(halves) if halves.len() == 2 => match (number(&halves[0]), number(&halves[1])) {
            (Some(one), Some(other)) if one == other => Ok(one),
            _ => Err(format!("atomicity: the halves of a pair are {reply}")),
        },
        other => Err(format!("reply: a pair is {other}")),
    }
}

impl Clients {
    /// Both halves of a pair go up, in one packet; now and then only if neither has changed since the packet's beginning.
    pub(super) fn ask_pair(&mut self, client: usize, now: u64, tag: u64) {
        let (one, other) = halves(tag);
        let watches = self.rng.between(0, 2) == 0;
        if watches {
            self.ask(client, now, &["WATCH", &one, &other], Purpose::Said("OK"));
        }
        self.ask(client, now, &["MULTI"], Purpose::Said("OK"));
        self.ask(client, now, &["INCR", &one], Purpose::Said("QUEUED"));
        self.ask(client, now, &["INCR", &other], Purpose::Said("QUEUED"));
        self.ask(client, now, &["EXEC"], Purpose::Pair { tag, watches });
    }

    /// Writes a key if it has the version that was seen last; or, now and then, another.
    pub(super) fn ask_cas(&mut self, client: usize, now: u64, tag: u64, value: u64) {
        let known = self.memory.known_version(tag);
        let given = if self.rng.between(0, 9) == 0 { known.saturating_sub(1) } else { known };
        let key = Key::Version(tag).name();
        let args = ["FLOTILLA.CAS", &key, &given.to_string(), &token(value)];
        self.ask(client, now, &args, Purpose::Cas { tag, given, value });
    }

    /// A look at whatever it is.
    pub(super) fn ask_look(&mut self, client: usize, now: u64, key: Key, purpose: Purpose) {
        let name = key.name();
        match key {
            Key::Pair(tag) => {
                let (one, other) = halves(tag);
                self.ask(client, now, &["MGET", &one, &other], purpose);
            }
            Key::Version(_) => self.ask(client, now, &["FLOTILLA.GETV", &name], purpose),
            _ => self.ask(client, now, &["GET", &name], purpose),
        }
    }
}

pub(super) fn halves(tag: u64) -> (String, String) {
    (format!("one:{{{tag}}}"), format!("other:{{{tag}}}"))
}
