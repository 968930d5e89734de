//! Keys on their way to their leaders: many at a time over one connection to each, and again whatever wasn't done.

use super::peer::{Peer, shown, words};
use crate::cli::Failure;
use crate::client::{ClientError, Cluster, Connection, Reply};
use crate::hands::{Stopwatch, pause};
use crate::slot::Slot;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Loads under way at one leader, and their bytes.
const WINDOW: usize = 256;
const WINDOW_BYTES: usize = 4 << 20;
/// Loads that leave together.
const BATCH: usize = 32;
const BATCH_BYTES: usize = 64 << 10;
/// Before something is tried again: doubled each time, up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];

/// A command that makes one key.
#[derive(Debug)]
pub(super) struct Load {
    /// Of the key.
    pub(super) slot: Slot,
    /// Its name and its arguments.
    pub(super) args: Vec<Vec<u8>>,
    /// When the key's time comes, milliseconds since 1970, 0 for never.
    pub(super) deadline_ms: u64,
}

impl Load {
    fn bytes(&self) -> usize {
        self.args.iter().map(Vec::len).sum()
    }
}

/// A connection to a leader, and what it hasn't answered.
struct Lane {
    connection: Connection,
    unsent: Vec<Load>,
    waiting: VecDeque<Load>,
    bytes: usize,
}

impl Lane {
    fn send(&mut self) -> Result<(), String> {
        let commands: Vec<Vec<&[u8]>> =
            self.unsent.iter().map(|load| load.args.iter().map(Vec::as_slice).collect()).collect();
        let sent = self.connection.send(commands.iter().map(|command| &command[..]));
        drop(commands);
        self.waiting.extend(self.unsent.drain(..));
        sent.map_err(|error| error.to_string())
    }

    fn is_full(&self) -> bool {
        self.waiting.len() + self.unsent.len() >= WINDOW || self.bytes >= WINDOW_BYTES
    }

    fn into_loads(self) -> impl Iterator<Item = Load> {
        self.waiting.into_iter().chain(self.unsent)
    }
}

/// What became of the loads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Loaded {
    pub(super) loaded: u64,
    /// There was a key that was to be kept.
    pub(super) kept: u64,
    /// Their time had come.
    pub(super) over: u64,
}

impl Loaded {
    /// `reply`: what `FLOTILLA.LOAD` said.
    pub(super) fn count(&mut self, reply: i64, deadline_ms: u64) {
        match reply {
            1 => self.loaded += 1,
            _ if deadline_ms > 0 && deadline_ms <= crate::hands::unix_ms() => self.over += 1,
            _ => self.kept += 1,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.loaded += other.loaded;
        self.kept += other.kept;
        self.over += other.over;
    }
}

/// Sends loads where they belong.
pub(super) struct Loader<'a> {
    peer: &'a Peer,
    /// Knows who leads what.
    pub(super) routes: Cluster,
    lanes: BTreeMap<String, Lane>,
    /// Loads that weren't done, and why the last of them wasn't.
    again: VecDeque<Load>,
    why: String,
    pub(super) done: Loaded,
    /// Since when nothing was done but try again.
    failing: Option<Stopwatch>,
    pause: Duration,
}

impl<'a> Loader<'a> {
    pub(super) fn new(peer: &'a Peer) -> Self {
        Self {
            peer,
            routes: peer.client(),
            lanes: BTreeMap::new(),
            again: VecDeque::new(),
            why: String::new(),
            done: Loaded::default(),
            failing: None,
            pause: PAUSES[0],
        }
    }

    /// Takes a load. Some earlier ones may be done when this returns.
    ///
    /// # Errors
    /// A leader refuses one for good, or nothing could be done for too long.
    pub(super) fn put(&mut self, load: Load) -> Result<(), Failure> {
        self.dispatch(load)?;
        self.try_again()
    }

    /// Returns when everything is done.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        loop {
            self.try_again()?;
            let busy = self.lanes.iter().find(|(_, lane)| lane.waiting.len() + lane.unsent.len() > 0);
            let Some(address) = busy.map(|(address, _)| address.clone()) else { return Ok(()) };
            self.receive(&address)?;
        }
    }

    /// Sends once more what wasn't done, all of it after one pause: its leader may have just gone.
    fn try_again(&mut self) -> Result<(), Failure> {
        while !self.again.is_empty() {
            self.wait()?;
            for load in std::mem::take(&mut self.again) {
                self.dispatch(load)?;
            }
        }
        Ok(())
    }

    /// Not done: it goes again.
    fn put_back(&mut self, loads: impl IntoIterator<Item = Load>, why: &dyn ToString) {
        self.again.extend(loads);
        self.why = why.to_string();
    }

    fn dispatch(&mut self, load: Load) -> Result<(), Failure> {
        if self.routes.address_of(load.slot).is_none()
            && let Err(error) = self.routes.refresh()
        {
            self.put_back([load], &error);
            return Ok(());
        }
        let Some(address) = self.routes.address_of(load.slot) else {
            self.put_back([load], &"no leader is known");
            return Ok(());
        };
        while self.lanes.get(&address).is_some_and(Lane::is_full) {
            self.receive(&address)?;
        }
        if !self.lanes.contains_key(&address) {
            match self.peer.connect(&address) {
                Ok(connection) => {
                    let lane = Lane { connection, unsent: Vec::new(), waiting: VecDeque::new(), bytes: 0 };
                    self.lanes.insert(address.clone(), lane);
                }
                Err(error @ ClientError::Refused(_)) => return Err(Failure::failed(error)),
                Err(error) => {
                    self.put_back([load], &error);
                    self.routes.forget();
                    return Ok(());
                }
            }
        }
        let lane = self.lanes.get_mut(&address).expect("just made");
        lane.bytes += load.bytes();
        lane.unsent.push(load);
        let unsent: usize = lane.unsent.iter().map(Load::bytes).sum();
        if lane.unsent.len() < BATCH && unsent < BATCH_BYTES {
            return Ok(());
        }
        if let Err(error) = lane.send() {
            self.broke(&address, &error);
        }
        Ok(())
    }

    /// Waits for the next answer of a leader.
    fn receive(&mut self, address: &str) -> Result<(), Failure> {
        let Some(lane) = self.lanes.get_mut(address) else { return Ok(()) };
        let replied = lane.send().and_then(|()| lane.connection.receive().map_err(|error| error.to_string()));
        let reply = match replied {
            Ok(reply) => reply,
            Err(error) => {
                self.broke(address, &error);
                return Ok(());
            }
        };
        let Some(load) = lane.waiting.pop_front() else { return Ok(()) };
        lane.bytes -= load.bytes();
        match reply {
            Reply::Integer(done) => {
                self.done.count(done, load.deadline_ms);
                (self.failing, self.pause) = (None, PAUSES[0]);
                Ok(())
            }
            Reply::Error(error) if self.routes.may_retry(&error) => {
                self.put_back([load], &error);
                Ok(())
            }
            other => {
                let (key, why) = (shown(&load.args[1]), words(&other));
                Err(Failure::Failed(format!("{address}: {key}: {why}")))
            }
        }
    }

    /// The connection is of no use any more: what wasn't answered is sent again. To load a key twice comes to the same.
    fn broke(&mut self, address: &str, why: &str) {
        if let Some(lane) = self.lanes.remove(address) {
            self.put_back(lane.into_loads(), &why);
        }
        self.routes.forget();
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let failing = self.failing.get_or_insert_with(Stopwatch::start);
        if failing.elapsed() > self.peer.timeout {
            let (seconds, why) = (self.peer.timeout.as_secs(), &self.why);
            return Err(Failure::Failed(format!("nothing could be loaded for {seconds} s: {why}")));
        }
        pause(self.pause);
        self.pause = (2 * self.pause).min(PAUSES[1]);
        Ok(())
    }
}
