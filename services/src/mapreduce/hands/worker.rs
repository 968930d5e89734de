//! A worker: asks for tasks, does them, says so.
//!
//! One thread speaks with the coordinator, another works, so that a long task doesn't keep the worker from being heard.

use super::execute::{Executor, Failed, Shared};
use super::files;
use super::gather::sees_output;
use super::plan::FILES;
use super::site::Site;
use crate::hands::Stopwatch;
use crate::mapreduce::Registry;
use crate::mapreduce::coordinator::{JobState, Request, Response, Running, WorkerId};
use crate::mapreduce::spec::{Assignment, JobId, JobSpec, Manifest, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// A working worker is heard this often.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// Between two looks at which jobs have ended.
const TIDY_AFTER: Duration = Duration::from_secs(1);
/// Jobs that are remembered to be for others.
const BLIND_MAX: usize = 256;
/// Specs that are kept.
const SPECS_MAX: usize = 16;

/// The way to the coordinator.
pub trait Transport {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// The coordinator is gone, in words.
    fn call(&mut self, request: &Request) -> Result<Response, String>;
}

/// What is being done.
struct Current {
    given: Assignment,
    shared: Arc<Shared>,
}

type Order = (Assignment, Arc<JobSpec>, Arc<Shared>);

/// Works until the coordinator is gone. `only`: does nothing but make the output of this job visible.
///
/// # Errors
/// Why it can't work.
pub fn work(
    mut transport: impl Transport,
    registry: Registry,
    name: &str,
    site: Arc<Site>,
    only: Option<JobId>,
) -> Result<(), String> {
    let (orders, take_orders) = channel::<Order>();
    let (outcomes, take_outcomes) = channel();
    // Not joined: it may be in user code that never ends. The process ends with this thread.
    let around = Arc::clone(&site);
    let _ = crate::hands::spawn(move || {
        if around.gives_way
            && let Err(error) = super::pace::give_way()
        {
            tracing::warn!(
                error,
                "this worker can't give way to others: it takes as much CPU time as they do"
            );
        }
        execute(registry, around, &take_orders, &outcomes);
    });
    let mut worker = Worker {
        name: name.to_owned(),
        id: None,
        specs: BTreeMap::new(),
        current: None,
        orders,
        outcomes: take_outcomes,
        site,
        only,
        blind: Vec::new(),
        held: BTreeMap::new(),
        looked: Stopwatch::start(),
    };
    loop {
        let wait = worker.poll(&mut transport)?;
        let wait = if worker.current.is_some() { HEARTBEAT } else { wait };
        match worker.outcomes.recv_timeout(wait) {
            Ok(outcome) => worker.report(&mut transport, outcome)?,
            Err(RecvTimeoutError::Timeout) => worker.tidy(&mut transport)?,
            Err(RecvTimeoutError::Disconnected) => return Err("the working thread is gone".to_owned()),
        }
    }
}

fn execute(
    registry: Registry,
    site: Arc<Site>,
    orders: &Receiver<Order>,
    outcomes: &Sender<Result<Manifest, Failed>>,
) {
    let mut executor = Executor::new(registry, site);
    while let Ok((given, spec, shared)) = orders.recv() {
        let done = executor.run(&given, &spec, &shared);
        if outcomes.send(done).is_err() {
            return;
        }
    }
}

struct Worker {
    name: String,
    id: Option<WorkerId>,
    specs: BTreeMap<JobId, Arc<JobSpec>>,
    current: Option<Current>,
    orders: Sender<Order>,
    outcomes: Receiver<Result<Manifest, Failed>>,
    site: Arc<Site>,
    /// The only job that it is here for.
    only: Option<JobId>,
    /// Jobs whose output it doesn't see.
    blind: Vec<JobId>,
    /// Jobs that have files in the site's folder.
    held: BTreeMap<JobId, Arc<JobSpec>>,
    looked: Stopwatch,
}

impl Worker {
    fn poll(&mut self, transport: &mut impl Transport) -> Result<Duration, String> {
        let running = self.current.iter().map(|Current { given, shared }| Running {
            job: given.job,
            task: given.task,
            attempt: given.attempt,
            progress: shared.progress.load(Ordering::Relaxed),
        });
        let wants = self.current.is_none();
        let poll = Request::Poll {
            worker: self.id,
            name: self.name.clone(),
            running: running.collect(),
            wants,
            only: self.only,
            blind: self.blind.clone(),
        };
        let response = transport.call(&poll)?;
        let Response::Work { worker, assignment, stop, again_ms } = response else {
            return Err(format!("the coordinator answered a poll with {response:?}"));
        };
        self.id = Some(worker);
        if let Some(current) = &self.current
            && stop.contains(&current.given.attempt)
        {
            current.shared.stop.store(true, Ordering::Relaxed);
        }
        if let Some(given) = assignment {
            let spec = self.spec(transport, given.job)?;
            if matches!(given.task, TaskId::Commit | TaskId::Clean) && !sees_output(&spec) {
                // It was never begun here; the coordinator hears with the next poll who can't.
                self.forget_output(given.job);
                return Ok(Duration::ZERO);
            }
            let shared = Arc::new(Shared::default());
            if self.site.folder.is_some() {
                self.held.insert(given.job, Arc::clone(&spec));
            }
            self.current = Some(Current { given: (*given).clone(), shared: Arc::clone(&shared) });
            self.orders.send((*given, spec, shared)).map_err(|_| "the working thread is gone".to_owned())?;
        }
        Ok(Duration::from_millis(again_ms))
    }

    fn forget_output(&mut self, job: JobId) {
        if !self.blind.contains(&job) {
            self.blind.push(job);
        }
        let too_many = self.blind.len().saturating_sub(BLIND_MAX);
        self.blind.drain(..too_many);
    }

    fn spec(&mut self, transport: &mut impl Transport, job: JobId) -> Result<Arc<JobSpec>, String> {
        if let Some(spec) = self.specs.get(&job) {
            return Ok(Arc::clone(spec));
        }
        match transport.call(&Request::Spec { job })? {
            Response::Spec(spec) => {
                let mut spec = *spec;
                let files = self.site.folder.as_ref().map(|_| self.site.runs(&spec).join(FILES));
                if let Some(streaming) = &mut spec.streaming {
                    streaming.folder = files;
                }
                let spec = Arc::new(spec);
                while self.specs.len() >= SPECS_MAX {
                    self.specs.pop_first();
                }
                self.specs.insert(job, Arc::clone(&spec));
                Ok(spec)
            }
            other => Err(format!("{job}: the coordinator answered with {other:?}")),
        }
    }

    fn report(
        &mut self,
        transport: &mut impl Transport,
        outcome: Result<Manifest, Failed>,
    ) -> Result<(), String> {
        let (Some(worker), Some(Current { given, .. })) = (self.id, self.current.take()) else {
            return Ok(());
        };
        let Assignment { job, task, attempt, .. } = given;
        let manifest = match outcome {
            Ok(manifest) => manifest,
            Err(Failed { elsewhere: true, .. }) => {
                self.forget_output(job);
                return Ok(());
            }
            Err(Failed { what, at, lost, .. }) => {
                let failed = Request::Failed { worker, job, task, attempt, what, at, lost };
                return transport.call(&failed).map(drop);
            }
        };
        let file = manifest.file.clone();
        let response = transport.call(&Request::Done { worker, job, task, manifest })?;
        if response == Response::Late
            && let Some(spec) = self.specs.get(&job)
        {
            self.site.discard(spec, &file);
        }
        Ok(())
    }

    /// Removes the files of jobs that have ended.
    fn tidy(&mut self, transport: &mut impl Transport) -> Result<(), String> {
        if self.current.is_some() || self.held.is_empty() || self.looked.elapsed() < TIDY_AFTER {
            return Ok(());
        }
        self.looked = Stopwatch::start();
        let jobs: Vec<JobId> = self.held.keys().copied().collect();
        for job in jobs {
            let Response::Jobs(found) = transport.call(&Request::Status { job: Some(job) })? else {
                continue;
            };
            if found.iter().any(|it| it.state == JobState::Running.name()) {
                continue;
            }
            if let Some(spec) = self.held.remove(&job)
                && let Err(error) = files::remove(&self.site.runs(&spec))
            {
                tracing::warn!(%error, "files of a job that has ended stay");
            }
        }
        Ok(())
    }
}
