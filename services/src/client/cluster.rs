//! Many connections and a routing table: sends a command to the core that leads its key.

use super::{ClientError, Connection, Reply, Security};
use crate::slot::Slot;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one node may take before another is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// A pause between two tries, when nobody could serve.
const PAUSE: Duration = Duration::from_millis(5);

/// Where a client looks first, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Seeds {
    /// Client addresses, `host:port`.
    pub addresses: Vec<String>,
    /// Who it is, and its cover.
    pub security: Security,
}

impl From<Vec<String>> for Seeds {
    fn from(addresses: Vec<String>) -> Self {
        Self { addresses, security: Security::default() }
    }
}

/// A client of a whole cluster. One command at a time; make one a thread.
#[derive(Debug)]
pub struct Cluster {
    seeds: Vec<String>,
    security: Security,
    connections: BTreeMap<String, Connection>,
    /// First and last slot, and the address of their leader.
    ranges: Vec<(u16, u16, String)>,
    next_seed: usize,
}

impl Cluster {
    /// A client that knows these addresses to begin with. Connects at the first command.
    pub fn new(seeds: impl Into<Seeds>) -> Self {
        let Seeds { addresses, security } = seeds.into();
        let (connections, ranges) = (BTreeMap::new(), Vec::new());
        Self { seeds: addresses, security, connections, ranges, next_seed: 0 }
    }

    /// Executes a command with a key, following the leader, until it is answered or `timeout` is over. A command
    /// whose reply was lost is sent again: only for those that may be done twice.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for an error reply that trying again won't change, [`ClientError::TimedOut`].
    pub fn execute(
        &mut self,
        key: &[u8],
        command: &[&[u8]],
        timeout: Duration,
    ) -> Result<Reply, ClientError> {
        let (result, _) = self.execute_telling(key, command, timeout);
        result
    }

    /// As [`Self::execute`], and whether a reply was lost on the way: then an earlier try may have been done.
    pub fn execute_telling(
        &mut self,
        key: &[u8],
        command: &[&[u8]],
        timeout: Duration,
    ) -> (Result<Reply, ClientError>, bool) {
        self.execute_in(Slot::of_key(key), command, timeout)
    }

    /// As [`Self::execute_telling`], for whoever leads a slot.
    pub fn execute_in(
        &mut self,
        slot: Slot,
        command: &[&[u8]],
        timeout: Duration,
    ) -> (Result<Reply, ClientError>, bool) {
        let clock = crate::hands::Stopwatch::start();
        let (mut last, mut was_lost) = (String::from("nothing was tried"), false);
        while clock.elapsed() < timeout {
            let address = self.address_of(slot);
            let tried = match &address {
                Some(address) => self.try_at(address, command),
                None => self.refresh().map(|()| None),
            };
            match tried {
                Ok(Some(Reply::Error(error))) => {
                    if !self.may_retry(&error) {
                        return (Err(ClientError::Refused(error)), was_lost);
                    }
                    last = error;
                }
                Ok(Some(reply)) => return (Ok(reply), was_lost),
                Ok(None) if self.address_of(slot).is_some() => continue,
                // Asking on without a pause would keep the nodes from electing one.
                Ok(None) => last = "no leader is known".to_owned(),
                // Who it says that it is, it isn't.
                Err(error @ ClientError::Refused(_)) => return (Err(error), was_lost),
                Err(error) => {
                    was_lost |= address.is_some();
                    last = error.to_string();
                    self.ranges.clear();
                }
            }
            crate::hands::pause(PAUSE);
        }
        (Err(ClientError::TimedOut { seconds: timeout.as_secs_f64(), last }), was_lost)
    }

    /// The address of the core that leads a slot, as far as is known.
    pub fn address_of(&self, slot: Slot) -> Option<String> {
        let range = self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot.0));
        range.map(|(.., address)| address.clone())
    }

    /// Forgets who leads what: it may be different now.
    pub fn forget(&mut self) {
        self.ranges.clear();
    }

    /// Learns anew who leads what, from the next node that answers.
    ///
    /// # Errors
    /// What that node said, or why it couldn't be reached.
    pub fn refresh(&mut self) -> Result<(), ClientError> {
        let address = self.seeds[self.next_seed % self.seeds.len()].clone();
        self.next_seed += 1;
        let Some(Reply::Array(ranges)) = self.try_at(&address, &[b"CLUSTER", b"SLOTS"])? else {
            return Err(ClientError::Protocol { address, what: "CLUSTER SLOTS isn't an array".to_owned() });
        };
        self.ranges = ranges.iter().filter_map(range_of).collect();
        Ok(())
    }

    fn try_at(&mut self, address: &str, command: &[&[u8]]) -> Result<Option<Reply>, ClientError> {
        if !self.connections.contains_key(address) {
            let connection = Connection::open_secured(address, PATIENCE, &self.security)?;
            self.connections.insert(address.to_owned(), connection);
        }
        let connection = self.connections.get_mut(address).expect("inserted just above");
        let reply = connection.execute(command);
        if reply.is_err() {
            self.connections.remove(address);
        }
        reply.map(Some)
    }

    /// Whether an error says "somewhere else" or "later"; learns from it where.
    pub(crate) fn may_retry(&mut self, error: &str) -> bool {
        let mut words = error.split(' ');
        match words.next() {
            Some("MOVED") => {
                self.ranges.clear();
                if let (Some(slot), Some(address)) =
                    (words.next().and_then(|slot| slot.parse().ok()), words.next())
                {
                    self.ranges.push((slot, slot, address.to_owned()));
                    // One slot is enough for this command; the rest is asked for at the next miss.
                }
                true
            }
            Some("CLUSTERDOWN" | "TRYAGAIN" | "BUSY") => {
                self.ranges.clear();
                true
            }
            _ => false,
        }
    }
}

pub(super) fn range_of(reply: &Reply) -> Option<(u16, u16, String)> {
    let Reply::Array(fields) = reply else { return None };
    let [Reply::Integer(first), Reply::Integer(last), Reply::Array(leader), ..] = &fields[..] else {
        return None;
    };
    let [Reply::Bulk(host), Reply::Integer(port), ..] = &leader[..] else { return None };
    let address = format!("{}:{port}", String::from_utf8_lossy(host));
    Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, address))
}
