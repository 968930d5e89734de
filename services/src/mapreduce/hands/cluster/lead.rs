//! A process that coordinates, for as long as nobody else does.

use super::log::{Announcement, FactLog};
use crate::client::ClientError;
use crate::client::Seeds;
use crate::hands::{Stopwatch, pause, spawn};
use crate::mapreduce::coordinator::{Coordinator, Fact, Request, Response, Settings, Verdict};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Nobody is taken for the coordinator for longer than this after it was last heard of.
const LEASE: Duration = Duration::from_millis(700);
const RENEW_AFTER: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(20);
/// Requests that wait to be decided; more have to wait to be sent.
const WAITING_MAX: usize = 256;

type Asked = (Request, Asker);

/// Whoever asked something. Who gets no answer is cut off, and looks for the one who coordinates: without that it would wait for long.
struct Asker {
    back: TcpStream,
    is_answered: bool,
}

impl Asker {
    fn answer(mut self, response: &Response) {
        let mut line = serde_json::to_vec(response).expect("plain data");
        line.push(b'\n');
        // Who is gone asks again.
        self.is_answered = self.back.write_all(&line).is_ok();
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        if !self.is_answered {
            // Gone already, at worst.
            let _ = self.back.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Coordinates whenever nobody else does; never returns but for an error that waiting doesn't mend.
///
/// # Errors
/// If it can't listen at `listen`.
pub fn lead(seeds: &Seeds, listen: &str, name: &str, settings: Settings) -> Result<(), String> {
    let listener = TcpListener::bind(listen).map_err(|error| format!("--listen {listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("--listen {listen}: {error}"))?.to_string();
    let (send, requests) = sync_channel(WAITING_MAX);
    let _ = spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let send = send.clone();
            let _ = spawn(move || listen_to(&stream, &send));
        }
    });
    let ours = Announcement { address, pid: std::process::id() };
    let mut log = FactLog::new(seeds.clone(), name);
    loop {
        match log.announce(&ours, LEASE) {
            Ok(true) => {
                if let Err(error) = reign(&mut log, &ours, settings, &requests) {
                    tracing::warn!(%error, "coordinating ended");
                }
                // Whatever was in doubt is read again.
                log = FactLog::new(seeds.clone(), name);
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the store can't be asked"),
        }
        requests.try_iter().for_each(drop);
        pause(Duration::from_millis(100));
    }
}

fn listen_to(stream: &TcpStream, send: &SyncSender<Asked>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let (Ok(request), Ok(back)) = (serde_json::from_slice(&line), stream.try_clone()) else { break };
        if send.send((request, Asker { back, is_answered: false })).is_err() {
            break;
        }
        line.clear();
    }
    // Gone already, at worst.
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

/// One term: until another coordinator has taken over.
fn reign(
    log: &mut FactLog,
    ours: &Announcement,
    settings: Settings,
    requests: &Receiver<Asked>,
) -> Result<(), ClientError> {
    let Some(term) = log.begin_term()? else { return Ok(()) };
    let mut reign =
        Reign { log, term, coordinator: Coordinator::new(settings, term), clock: Stopwatch::start() };
    let mut renewed = Stopwatch::start();
    loop {
        if renewed.elapsed() > RENEW_AFTER {
            if !reign.log.announce(ours, LEASE)? {
                return Ok(());
            }
            renewed = Stopwatch::start();
            reign.log.tidy()?;
        }
        if let Ok((request, asker)) = requests.recv_timeout(TICK) {
            let Some(response) = reign.decide(request)? else { return Ok(()) };
            asker.answer(&response);
        }
        let now = reign.now();
        for fact in reign.coordinator.tick(&reign.log.ledger, now) {
            if reign.append(&fact)?.is_none() {
                return Ok(());
            }
        }
    }
}

struct Reign<'a> {
    log: &'a mut FactLog,
    term: u64,
    coordinator: Coordinator,
    clock: Stopwatch,
}

impl Reign<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// `None`: somebody else coordinates now.
    fn decide(&mut self, request: Request) -> Result<Option<Response>, ClientError> {
        let now = self.now();
        match self.coordinator.request(&self.log.ledger, now, request) {
            Verdict::Reply(response) => Ok(Some(response)),
            Verdict::Log(fact) => self.append(&fact),
        }
    }

    fn append(&mut self, fact: &Fact) -> Result<Option<Response>, ClientError> {
        if !self.log.append(self.term, fact)? {
            return Ok(None);
        }
        let now = self.now();
        Ok(Some(self.coordinator.applied(&mut self.log.ledger, now, fact)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_no_answer_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let asking = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (asked, _) = listener.accept().unwrap();
        let asker = || Asker { back: asked.try_clone().unwrap(), is_answered: false };
        let (mut reader, mut line) = (BufReader::new(&asking), String::new());
        asker().answer(&Response::Refused("no".to_owned()));
        assert!(reader.read_line(&mut line).unwrap() > 0 && line.contains("no"), "{line}");
        // As when the store didn't take what it was about.
        drop(asker());
        assert_eq!(reader.read_line(&mut line).unwrap(), 0, "and not after a time-out");
    }
}
