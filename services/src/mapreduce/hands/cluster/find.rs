//! The way to whoever coordinates.

use super::log::FactLog;
use crate::client::Seeds;
use crate::hands::{Stopwatch, pause};
use crate::mapreduce::coordinator::{Request, Response};
use crate::mapreduce::hands::talk::cover::Cover;
use crate::mapreduce::hands::talk::trouble::{Complaints, NoTls, has_no_cover, needs_cover};
use crate::mapreduce::hands::talk::{Stream, connect};
use crate::mapreduce::hands::worker::Transport;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One coordinator may take so long to answer: the store's failover is in it.
const ANSWER: Duration = Duration::from_secs(15);
/// Who only asks is told after this that there is no TLS with the coordinator; another may be about to take over.
const NO_TLS: Duration = Duration::from_secs(2);
/// A worker that couldn't speak with whoever coordinated may coordinate again when nobody has for so long: then there is nobody whom it
/// would keep away. A failover among those who can is quicker.
const VACANT: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(20);
const AGAIN_WITHOUT_TLS: Duration = Duration::from_millis(250);
const KNOCK: Duration = Duration::from_secs(1);

/// What a worker's threads know together: whether certificates let it speak with whoever coordinates. Who can't doesn't coordinate
/// either, for it would keep away those who can.
#[derive(Debug, Default)]
pub struct Standing {
    is_outcast: AtomicBool,
    /// Since when nobody coordinates.
    vacant: Mutex<Option<Stopwatch>>,
    complaints: Complaints,
}

impl Standing {
    /// Whether it may coordinate.
    pub fn may_lead(&self) -> bool {
        !self.is_outcast.load(Ordering::Relaxed)
    }

    fn set_outcast(&self, is_outcast: bool) {
        self.is_outcast.store(is_outcast, Ordering::Relaxed);
    }

    fn hear(&self, is_vacant: bool, limit: Duration) {
        let mut vacant = self.vacant.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_vacant {
            *vacant = None;
        } else if vacant.get_or_insert_with(Stopwatch::start).elapsed() >= limit {
            self.set_outcast(false);
        }
    }
}

/// Finds the coordinator through the store, and finds its successor when it is gone.
#[derive(Debug)]
pub struct Found {
    log: FactLog,
    cover: Option<Cover>,
    patience: Duration,
    standing: Option<Arc<Standing>>,
    talk: Option<BufReader<Stream>>,
}

/// Why there is no answer.
enum Trouble {
    /// The coordinator speaks no TLS with us. `yields`: it will give way to one of our kind.
    NoTls { why: String, yields: bool },
    /// Trying again is worth it.
    Other(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match NoTls::is_in(&error) {
            true => Self::NoTls { why: error.to_string(), yields: false },
            false => Self::Other(error.to_string()),
        }
    }
}

impl Found {
    /// Through the store that has these addresses, to a coordinator that speaks TLS if there is a cover. Nobody there for `patience` is an
    /// error.
    pub fn new(seeds: impl Into<Seeds>, cover: Option<Cover>, name: &str, patience: Duration) -> Self {
        Self { log: FactLog::new(seeds, name), cover, patience, standing: None, talk: None }
    }

    /// The same for a worker: what is wrong with certificates is told in the log, and doesn't end it before `patience` is over.
    pub fn of_worker(self, standing: Arc<Standing>) -> Self {
        Self { standing: Some(standing), ..self }
    }

    fn connect(&mut self) -> Result<BufReader<Stream>, Trouble> {
        let announced = self.log.announced().map_err(|error| Trouble::Other(error.to_string()))?;
        if let Some(standing) = &self.standing {
            standing.hear(announced.is_none(), VACANT);
        }
        let nobody = "nobody coordinates: start workers with `flotilla mr worker --addr`";
        let found = announced.ok_or_else(|| Trouble::Other(nobody.to_owned()))?;
        let address = &found.address;
        if self.cover.is_some() != found.tls {
            knock(address, self.cover.as_ref());
            let NoTls(why) = if found.tls { needs_cover(address) } else { has_no_cover(address) };
            return Err(Trouble::NoTls { why, yields: !found.tls });
        }
        connect(address, self.cover.as_ref(), ANSWER).map_err(|error| match Trouble::from(error) {
            Trouble::Other(error) => Trouble::Other(format!("{address}: {error}")),
            no_tls => no_tls,
        })
    }

    fn try_once(&mut self, line: &[u8]) -> Result<Response, Trouble> {
        let mut talk = match self.talk.take() {
            Some(talk) => talk,
            None => self.connect()?,
        };
        talk.get_mut().write_all(line)?;
        talk.get_mut().flush()?;
        let mut answer = Vec::new();
        if talk.read_until(b'\n', &mut answer)? == 0 {
            return Err(Trouble::Other("the coordinator is gone".to_owned()));
        }
        let response = serde_json::from_slice(&answer).map_err(|error| Trouble::Other(error.to_string()))?;
        self.talk = Some(talk);
        Ok(response)
    }

    /// Says so where somebody may read it.
    fn note(&self, why: &str, yields: bool) {
        let Some(standing) = &self.standing else { return };
        if !yields {
            standing.set_outcast(true);
        }
        if standing.complaints.is_to_be_told(why) {
            tracing::warn!(
                reason = why,
                "this worker can't speak with whoever coordinates, and gets no task"
            );
        }
    }
}

/// Lets a coordinator know, and its log say, that somebody is here with whom it can't speak.
fn knock(address: &str, cover: Option<&Cover>) {
    // It may be gone, or have nothing to say.
    let _ = connect(address, cover, KNOCK).and_then(|mut stream| {
        stream.get_mut().write_all(b"\n")?;
        stream.read_until(b'\n', &mut Vec::new())
    });
}

impl Transport for Found {
    /// Asks until there is an answer. A request whose answer was lost is sent again, which all of them allow.
    fn call(&mut self, request: &Request) -> Result<Response, String> {
        let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let (clock, mut without_tls) = (Stopwatch::start(), None::<Stopwatch>);
        loop {
            match self.try_once(&line) {
                Ok(response) => {
                    if let Some(standing) = &self.standing {
                        standing.set_outcast(false);
                    }
                    return Ok(response);
                }
                Err(Trouble::NoTls { why, yields }) => {
                    let since = without_tls.get_or_insert_with(Stopwatch::start).elapsed();
                    let limit = if self.standing.is_some() { self.patience } else { NO_TLS };
                    if since > limit || clock.elapsed() > self.patience {
                        return Err(why);
                    }
                    self.note(&why, yields);
                    pause(AGAIN_WITHOUT_TLS);
                }
                Err(Trouble::Other(error)) => {
                    if clock.elapsed() > self.patience {
                        return Err(error);
                    }
                    pause(AGAIN);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_kept_out_of_the_way_coordinates_again_when_nobody_has_for_long() {
        let standing = Standing::default();
        standing.set_outcast(true);
        standing.hear(true, VACANT);
        standing.hear(false, Duration::ZERO);
        assert!(!standing.may_lead(), "somebody is there, or was a moment ago");
        standing.hear(true, VACANT);
        standing.hear(true, Duration::ZERO);
        assert!(standing.may_lead());
    }
}
