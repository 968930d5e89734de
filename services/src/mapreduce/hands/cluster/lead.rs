//! A process that coordinates, for as long as nobody else does.

use super::find::Standing;
use super::log::{Announcement, FactLog};
use crate::client::ClientError;
use crate::client::Seeds;
use crate::hands::{Stopwatch, pause};
use crate::mapreduce::coordinator::{Coordinator, Fact, Request, Response, Settings, Verdict};
use crate::mapreduce::hands::talk::Stream;
use crate::mapreduce::hands::talk::cover::Cover;
use crate::mapreduce::hands::talk::door::{Door, Manner};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Nobody is taken for the coordinator for longer than this after it was last heard of.
const LEASE: Duration = Duration::from_millis(700);
const RENEW_AFTER: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(20);
/// Between two looks at the own certificate.
const LOOK_AFTER: Duration = Duration::from_secs(10);
/// No request is longer: a job of very many files and tasks is.
const REQUEST_BYTES_MAX: u64 = 256 << 20;
/// Requests that wait to be decided; more have to wait to be sent.
const WAITING_MAX: usize = 256;

/// A request, and where its answer goes. Who gets none is cut off, and looks for the one who coordinates: without that it would wait
/// for long.
type Asked = (Request, SyncSender<Response>);

/// Where the coordinator listens, if this process becomes it.
///
/// # Errors
/// If it can't listen there.
pub fn open(listen: &str, cover: Option<Cover>) -> io::Result<Door> {
    let refusal = |why: &str| {
        let mut line = serde_json::to_string(&Response::Refused(why.to_owned())).expect("plain data");
        line.push('\n');
        line
    };
    Door::open(listen, cover, Manner { what: "the coordinator", refusal })
}

/// Coordinates whenever nobody else does and this process is one of those who may; never returns.
pub fn lead(seeds: &Seeds, door: Door, name: &str, settings: Settings, standing: &Standing) {
    let (mut fitness, address, tls) = (Fitness::new(&door), door.address().to_owned(), door.is_covered());
    let ours = Announcement { address, pid: std::process::id(), tls };
    let (send, requests) = sync_channel(WAITING_MAX);
    door.serve(move |stream| listen_to(stream, &send));
    let mut log = FactLog::new(seeds.clone(), name);
    loop {
        match (fitness.is_fit() && standing.may_lead()).then(|| log.announce(&ours, LEASE)) {
            Some(Ok(true)) => {
                if let Err(error) = reign(&mut log, &ours, settings, &requests, standing) {
                    tracing::warn!(%error, "coordinating ended");
                }
                // Whatever was in doubt is read again.
                log = FactLog::new(seeds.clone(), name);
            }
            Some(Ok(false)) | None => {}
            Some(Err(error)) => tracing::warn!(%error, "the store can't be asked"),
        }
        requests.try_iter().for_each(drop);
        pause(Duration::from_millis(100));
    }
}

/// Whether others would take our certificate, which may expire while we run.
struct Fitness<F> {
    check: F,
    is_fit: bool,
    looked: Stopwatch,
}

impl Fitness<()> {
    fn new(door: &Door) -> Fitness<impl Fn() -> Result<(), String> + use<>> {
        // The worker that has this door has looked at its start.
        Fitness { check: door.check(), is_fit: true, looked: Stopwatch::start() }
    }
}

impl<F: Fn() -> Result<(), String>> Fitness<F> {
    fn is_fit(&mut self) -> bool {
        if self.looked.elapsed() > LOOK_AFTER {
            self.looked = Stopwatch::start();
            let checked = (self.check)();
            if let (Err(reason), true) = (&checked, self.is_fit) {
                tracing::warn!(reason, "this worker doesn't coordinate any more");
            }
            self.is_fit = checked.is_ok();
        }
        self.is_fit
    }
}

/// The thread of one connection: it alone reads and writes there, so that nobody who is slow to read keeps the coordinator waiting.
fn listen_to(mut stream: BufReader<Stream>, send: &SyncSender<Asked>) -> io::Result<()> {
    let mut line = Vec::new();
    while (&mut stream).take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line)? > 0 {
        let request = serde_json::from_slice(&line)?;
        let (answer, answered) = sync_channel(1);
        let sent = send.send((request, answer));
        let Some(response) = sent.ok().and_then(|()| answered.recv().ok()) else { return Ok(()) };
        line.clear();
        serde_json::to_writer(&mut line, &response)?;
        line.push(b'\n');
        stream.get_mut().write_all(&line)?;
        stream.get_mut().flush()?;
        line.clear();
    }
    Ok(())
}

/// One term: until another coordinator has taken over.
fn reign(
    log: &mut FactLog,
    ours: &Announcement,
    settings: Settings,
    requests: &Receiver<Asked>,
    standing: &Standing,
) -> Result<(), ClientError> {
    let Some(term) = log.begin_term()? else { return Ok(()) };
    let mut reign =
        Reign { log, term, coordinator: Coordinator::new(settings, term), clock: Stopwatch::start() };
    let mut renewed = Stopwatch::start();
    loop {
        if renewed.elapsed() > RENEW_AFTER {
            // With a certificate that has expired meanwhile nobody can speak with us; we can't, either.
            if !standing.may_lead() || !reign.log.announce(ours, LEASE)? {
                return Ok(());
            }
            renewed = Stopwatch::start();
            reign.log.tidy()?;
        }
        if let Ok((request, answer)) = requests.recv_timeout(TICK) {
            let Some(response) = reign.decide(request)? else { return Ok(()) };
            // Who is gone asks again.
            let _ = answer.try_send(response);
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
    use crate::hands::spawn;
    use std::net::TcpStream;

    #[test]
    fn who_gets_no_answer_is_cut_off() {
        let (send, requests) = sync_channel(1);
        let door = open("127.0.0.1:0", None).unwrap();
        let address = door.address().to_owned();
        door.serve(move |stream| listen_to(stream, &send));
        let decided = spawn(move || {
            let (_, answer): Asked = requests.recv().unwrap();
            answer.send(Response::Refused("no".to_owned())).unwrap();
            // As when the store didn't take what it was about.
            drop(requests.recv().unwrap());
        });
        let mut reader = BufReader::new(TcpStream::connect(address).unwrap());
        let (ask, mut line) = (b"{\"status\":{\"job\":null}}\n", String::new());
        reader.get_mut().write_all(ask).unwrap();
        assert!(reader.read_line(&mut line).unwrap() > 0 && line.contains("no"), "{line}");
        reader.get_mut().write_all(ask).unwrap();
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "and not after a time-out");
        decided.join().unwrap();
    }
}
