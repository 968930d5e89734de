//! The log of facts in the store.

use crate::client::{ClientError, Cluster, Reply, Seeds};
use crate::mapreduce::coordinator::store::{COVERED, Place, Snapshot, key, place_key, snapshot_key};
use crate::mapreduce::coordinator::{Fact, Ledger};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a failover of the store may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// A snapshot is written after so many places.
const SNAPSHOT_AFTER: u64 = 200;
/// Covered places are kept for so long, in seconds.
const COVERED_FOR: &[u8] = b"604800";

/// Who says that it coordinates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Where it listens.
    pub address: String,
    /// Which process it is.
    pub pid: u32,
    /// It speaks TLS, and nothing else.
    #[serde(default)]
    pub tls: bool,
}

/// The log, and what it says up to a place.
#[derive(Debug)]
pub struct FactLog {
    store: Cluster,
    name: String,
    writes: u64,
    next: u64,
    covered: u64,
    term: u64,
    /// The facts so far.
    pub ledger: Ledger,
}

fn protocol(what: impl ToString) -> ClientError {
    ClientError::Refused(format!("the log of facts in the store makes no sense: {}", what.to_string()))
}

impl FactLog {
    /// The log in the store that has these addresses; `name` is nobody else's.
    pub fn new(seeds: impl Into<Seeds>, name: &str) -> Self {
        let store = Cluster::new(seeds);
        Self {
            store,
            name: name.to_owned(),
            writes: 0,
            next: 0,
            covered: 0,
            term: 0,
            ledger: Ledger::default(),
        }
    }

    fn ask(&mut self, key: &[u8], command: &[&[u8]]) -> Result<Reply, ClientError> {
        self.store.execute(key, command, PATIENCE)
    }

    /// Reads what others have written.
    ///
    /// # Errors
    /// The store's, or if what is there is no log.
    pub fn catch_up(&mut self) -> Result<(), ClientError> {
        let at = snapshot_key();
        if let Reply::Bulk(bytes) = self.ask(&at, &[b"GET", &at])? {
            let snapshot: Snapshot = serde_json::from_slice(&bytes).map_err(protocol)?;
            if snapshot.next > self.next {
                (self.next, self.term, self.ledger) = (snapshot.next, snapshot.term, snapshot.ledger);
                self.covered = self.next;
            }
        }
        loop {
            let at = place_key(self.next);
            match self.ask(&at, &[b"GET", &at])? {
                Reply::Null => return Ok(()),
                // A snapshot has overtaken us.
                Reply::Bulk(bytes) if bytes == COVERED => return self.catch_up(),
                Reply::Bulk(bytes) => {
                    let place: Place = serde_json::from_slice(&bytes).map_err(protocol)?;
                    if let Some(fact) = &place.fact {
                        self.ledger.apply(fact);
                    }
                    self.passed(place.term);
                }
                other => return Err(protocol(other)),
            }
        }
    }

    fn passed(&mut self, term: u64) {
        self.next += 1;
        self.term = self.term.max(term);
    }

    /// Begins a term of our own: the term, or `None` if somebody else was first.
    ///
    /// # Errors
    /// The store's.
    pub fn begin_term(&mut self) -> Result<Option<u64>, ClientError> {
        self.catch_up()?;
        let term = self.term + 1;
        let ours = self.write(term, None)?;
        if ours {
            self.passed(term);
        }
        Ok(ours.then_some(term))
    }

    /// Appends a fact; `false` if another coordinator has taken over. The caller applies it to the ledger.
    ///
    /// # Errors
    /// The store's: then nobody knows whether it was appended, and the log must be read again.
    pub fn append(&mut self, term: u64, fact: &Fact) -> Result<bool, ClientError> {
        let ours = self.write(term, Some(fact.clone()))?;
        if ours {
            self.passed(term);
        }
        Ok(ours)
    }

    fn write(&mut self, term: u64, fact: Option<Fact>) -> Result<bool, ClientError> {
        self.writes += 1;
        let place = Place { by: format!("{} {}", self.name, self.writes), term, fact };
        let bytes = serde_json::to_vec(&place).map_err(protocol)?;
        let at = place_key(self.next);
        match self.ask(&at, &[b"SET", &at, &bytes, b"NX"])? {
            Reply::Status(_) => Ok(true),
            // Taken: by another, or by ourselves, if the answer was lost and the command sent again.
            Reply::Null => Ok(self.ask(&at, &[b"GET", &at])? == Reply::Bulk(bytes)),
            other => Err(protocol(other)),
        }
    }

    /// Writes a snapshot now and then, and empties the places that it covers.
    ///
    /// # Errors
    /// The store's.
    pub fn tidy(&mut self) -> Result<(), ClientError> {
        if self.next < self.covered + SNAPSHOT_AFTER {
            return Ok(());
        }
        let snapshot = Snapshot { next: self.next, term: self.term, ledger: self.ledger.clone() };
        let (at, bytes) = (snapshot_key(), serde_json::to_vec(&snapshot).map_err(protocol)?);
        self.ask(&at, &[b"SET", &at, &bytes])?;
        for place in self.covered..self.next {
            let at = place_key(place);
            self.ask(&at, &[b"SET", &at, COVERED, b"EX", COVERED_FOR])?;
        }
        self.covered = self.next;
        Ok(())
    }

    /// Says that we coordinate, for so long, if nobody else says so. Whether it is us. Who speaks TLS goes before who doesn't: so a worker
    /// that was started without certificates keeps the others waiting for a moment only.
    ///
    /// # Errors
    /// The store's.
    pub fn announce(&mut self, ours: &Announcement, lease: Duration) -> Result<bool, ClientError> {
        let (at, bytes) = (key("coordinator"), serde_json::to_vec(ours).map_err(protocol)?);
        let ms = lease.as_millis().to_string();
        match self.ask(&at, &[b"SET", &at, &bytes, b"NX", b"PX", ms.as_bytes()])? {
            Reply::Status(_) => return Ok(true),
            Reply::Null => {}
            other => return Err(protocol(other)),
        }
        let is_ours = match self.ask(&at, &[b"GET", &at])? {
            Reply::Bulk(theirs) if theirs == bytes => true,
            Reply::Bulk(theirs) => {
                ours.tls && serde_json::from_slice(&theirs).is_ok_and(|theirs: Announcement| !theirs.tls)
            }
            _ => false,
        };
        if !is_ours {
            return Ok(false);
        }
        self.ask(&at, &[b"SET", &at, &bytes, b"PX", ms.as_bytes()])?;
        Ok(true)
    }

    /// Who says that it coordinates.
    ///
    /// # Errors
    /// The store's.
    pub fn announced(&mut self) -> Result<Option<Announcement>, ClientError> {
        let at = key("coordinator");
        match self.ask(&at, &[b"GET", &at])? {
            Reply::Bulk(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(protocol),
            _ => Ok(None),
        }
    }
}
