//! A job on this machine: a coordinator in this process, workers as processes of their own.
//!
//! A worker is this very program, started again. It speaks with the coordinator over a socket that is its standard input,
//! a line of JSON each way; when the coordinator is gone, it reads the end of that and ends too.

use super::worker::{self, Transport};
use super::{files, plan};
use crate::hands::{Stopwatch, pause, spawn};
use crate::mapreduce::coordinator::{
    Coordinator, JobStatus, Ledger, Request, Response, Settings, Verdict, WorkerId,
};
use crate::mapreduce::spec::{JobId, JobSpec};
use crate::mapreduce::{MrError, Registry};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// How long a look at time and stop flag may wait.
const TICK: Duration = Duration::from_millis(20);
/// Workers get so long to end by themselves.
const FAREWELL: Duration = Duration::from_millis(500);
/// Workers that end without having done anything, before that is taken for a rule.
const STILLBORN_MAX: u32 = 8;

/// How a job is run here.
#[derive(Debug)]
pub struct LocalOptions {
    /// Worker processes.
    pub workers: u32,
    /// The program that a worker is.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How patient the coordinator is.
    pub settings: Settings,
    /// Whether workers that die are replaced.
    pub replace_workers: bool,
}

struct Seat {
    child: Child,
    /// Its worker number is known after the first poll.
    worker: Option<WorkerId>,
    socket: UnixStream,
    gone: bool,
}

enum Event {
    Said(usize, Box<Request>),
    Gone(usize),
}

struct Local<'a> {
    options: &'a LocalOptions,
    clock: Stopwatch,
    ledger: Ledger,
    coordinator: Coordinator,
    seats: Vec<Seat>,
    events: (Sender<Event>, Receiver<Event>),
    stillborn: u32,
}

/// Runs a job to its end. `observe` is told how it is going, now and then; `stop` cancels it.
///
/// # Errors
/// [`MrError::Rejected`] if it can't be begun; a job that fails is told in the status.
pub fn run(
    spec: JobSpec,
    options: &LocalOptions,
    stop: &AtomicBool,
    observe: impl FnMut(&JobStatus),
) -> Result<JobStatus, MrError> {
    files::prepare_output(&spec)?;
    let work = spec.work.clone();
    let done = begin(spec, options, stop, observe);
    // Whatever is left of a job that has ended in whatever way. After a commit it is gone already.
    let removed = files::remove(Path::new(&work));
    let status = done?;
    removed?;
    Ok(status)
}

fn begin(
    spec: JobSpec,
    options: &LocalOptions,
    stop: &AtomicBool,
    observe: impl FnMut(&JobStatus),
) -> Result<JobStatus, MrError> {
    plan::ship_files(&spec)?;
    let mut local = Local {
        options,
        clock: Stopwatch::start(),
        ledger: Ledger::default(),
        coordinator: Coordinator::new(options.settings, 1),
        seats: Vec::new(),
        events: channel(),
        stillborn: 0,
    };
    for _ in 0..options.workers {
        local.start_worker()?;
    }
    let job = match local.decide(Request::Submit { spec: Box::new(spec) }) {
        Response::Submitted { job } => job,
        other => return Err(MrError::Rejected(format!("the job was answered with {other:?}"))),
    };
    let status = local.serve(job, stop, observe);
    local.farewell();
    status
}

impl Local<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn start_worker(&mut self) -> Result<(), MrError> {
        let program = self.options.program.display();
        let starting = || MrError::io("starting a worker,", &program);
        let (ours, theirs) = UnixStream::pair().map_err(starting())?;
        let child = Command::new(&self.options.program)
            .args(&self.options.arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .map_err(starting())?;
        let (number, events) = (self.seats.len(), self.events.0.clone());
        let reader = ours.try_clone().map_err(starting())?;
        // Ends with the worker.
        let _ = spawn(move || listen(number, &reader, &events));
        self.seats.push(Seat { child, worker: None, socket: ours, gone: false });
        Ok(())
    }

    /// A request through the coordinator; facts are in the log at once, which is this process's memory.
    fn decide(&mut self, request: Request) -> Response {
        let now = self.now();
        match self.coordinator.request(&self.ledger, now, request) {
            Verdict::Reply(response) => response,
            Verdict::Log(fact) => self.coordinator.applied(&mut self.ledger, now, &fact),
        }
    }

    fn serve(
        &mut self,
        job: JobId,
        stop: &AtomicBool,
        mut observe: impl FnMut(&JobStatus),
    ) -> Result<JobStatus, MrError> {
        let mut looked = Stopwatch::start();
        loop {
            match self.events.1.recv_timeout(TICK) {
                Ok(Event::Said(seat, request)) => self.answer(seat, *request),
                Ok(Event::Gone(seat)) => self.bury(seat)?,
                Err(_) => {}
            }
            let now = self.now();
            for fact in self.coordinator.tick(&self.ledger, now) {
                self.coordinator.applied(&mut self.ledger, now, &fact);
            }
            if stop.load(Ordering::Relaxed) {
                self.decide(Request::Cancel { job });
            }
            let ended = self.ledger.running().next().is_none();
            if ended || looked.elapsed() > Duration::from_millis(100) {
                looked = Stopwatch::start();
                let status = self.coordinator.request(&self.ledger, now, Request::Status { job: Some(job) });
                let Verdict::Reply(Response::Jobs(mut jobs)) = status else { continue };
                let Some(status) = jobs.pop() else { continue };
                observe(&status);
                if ended {
                    return Ok(status);
                }
            }
        }
    }

    fn answer(&mut self, seat: usize, request: Request) {
        let is_poll = matches!(request, Request::Poll { .. });
        let response = self.decide(request);
        if let Response::Work { worker, .. } = &response {
            self.seats[seat].worker = Some(*worker);
        } else if !is_poll {
            self.stillborn = 0;
        }
        let mut line = serde_json::to_vec(&response).expect("plain data");
        line.push(b'\n');
        // If it can't be told, it is gone, and the reader will say so.
        let _ = self.seats[seat].socket.write_all(&line);
    }

    fn bury(&mut self, number: usize) -> Result<(), MrError> {
        let seat = &mut self.seats[number];
        seat.gone = true;
        let status = seat.child.wait().map_err(MrError::io("waiting for", "a worker"))?;
        if let Some(worker) = seat.worker {
            self.decide(Request::Goodbye { worker, what: format!("its worker process ended: {status}") });
        }
        if !self.options.replace_workers {
            return Ok(());
        }
        self.stillborn += 1;
        if self.stillborn > STILLBORN_MAX && self.seats[number].worker.is_none() {
            let program = self.options.program.display();
            return Err(MrError::Rejected(format!(
                "workers end as soon as they are started: {program}: {status}"
            )));
        }
        self.start_worker()
    }

    /// Workers read the end of their input and end. One that is stopped, or deep in somebody's code, doesn't.
    fn farewell(&mut self) {
        for seat in &self.seats {
            // Gone already, at worst.
            let _ = seat.socket.shutdown(std::net::Shutdown::Both);
        }
        let clock = Stopwatch::start();
        for seat in self.seats.iter_mut().filter(|seat| !seat.gone) {
            while matches!(seat.child.try_wait(), Ok(None)) {
                if clock.elapsed() > FAREWELL {
                    let _ = seat.child.kill();
                    let _ = seat.child.wait();
                    break;
                }
                pause(Duration::from_millis(1));
            }
        }
    }
}

fn listen(seat: usize, socket: &UnixStream, events: &Sender<Event>) {
    let mut reader = BufReader::new(socket);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let Ok(request) = serde_json::from_slice(&line) else { break };
        if events.send(Event::Said(seat, Box::new(request))).is_err() {
            return;
        }
        line.clear();
    }
    // Nobody listens any more: the job has ended.
    let _ = events.send(Event::Gone(seat));
}

/// The socket that is a worker's standard input.
#[derive(Debug)]
struct Inherited {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Transport for Inherited {
    fn call(&mut self, request: &Request) -> Result<Response, String> {
        let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        self.writer.write_all(&line).map_err(|error| error.to_string())?;
        line.clear();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) => Err("the coordinator has ended".to_owned()),
            Ok(_) => serde_json::from_slice(&line).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The life of a worker process that [`run`] has started. Ends when the coordinator does.
///
/// # Errors
/// If standard input isn't the coordinator's socket.
pub fn work(registry: Registry) -> Result<(), MrError> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let socket = socket.map_err(MrError::io("opening", "standard input"))?;
    let reader = socket.try_clone().map_err(MrError::io("opening", "standard input"))?;
    let transport = Inherited { reader: BufReader::new(reader), writer: socket };
    let name = format!("pid {}", std::process::id());
    // However the talk ends, the coordinator has ended, and nobody is left to be told.
    let _ = worker::work(transport, registry, &name, Arc::default(), None);
    Ok(())
}
