//! Who does what.
//!
//! Two kinds of knowledge, kept apart:
//!
//! | | what | lives in |
//! |---|---|---|
//! | **facts** | a job was submitted; a task is done, and by which attempt's file; outputs were lost; the job is committed, or has failed | [`Ledger`], which is a function of the log of facts |
//! | **soft state** | workers, heartbeats, which attempt runs where | [`Coordinator`], which may be lost at any moment |
//!
//! A request either is answered at once, or has to become a fact first:
//!
//! ```text
//! worker: Done(manifest) ──> Coordinator::request ──> Verdict::Log(TaskDone) ──> replicated ──> Coordinator::applied ──> Accepted | Late
//! ```
//!
//! So *the order of the log decides* which of two attempts wins, and a coordinator that takes over knows everything that
//! anybody was ever told. It begins with no workers and no attempts; workers announce what they are doing with their
//! next heartbeat, and it goes on.
//!
//! ```text
//! job:   submitted ──> maps ──> reduces ──> commit ──> committed
//!             └──────────┴─────────┴─────────┴──> failed | cancelled ──> clean
//! ```

mod fact;
mod ledger;
mod request;
mod schedule;
pub mod store;

pub use fact::Fact;
pub use ledger::{Applied, Failure, JobRecord, JobState, Ledger};
pub use request::{JobStatus, Request, Response, Running, WorkerId};

use super::spec::{AttemptId, JobId, TaskId};
use schedule::{Able, Speeds};
use std::collections::BTreeMap;

/// Time in milliseconds of any clock that doesn't go back.
pub type Millis = u64;

/// How patient a coordinator is.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A worker that is silent for so long is gone, and its attempts with it.
    pub lease_ms: Millis,
    /// An attempt whose worker is silent for so long gets a competitor.
    pub silence_ms: Millis,
    /// Jobs fail when there has been no worker for so long.
    pub grace_ms: Millis,
    /// How soon a worker that got nothing asks again.
    pub poll_ms: Millis,
    /// An attempt that makes no progress for so long has failed.
    pub stuck_ms: Millis,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lease_ms: 10_000, silence_ms: 2_000, grace_ms: 30_000, poll_ms: 5, stuck_ms: 600_000 }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// This is the answer.
    Reply(Response),
    /// This has to be in the log first; the answer is what [`Coordinator::applied`] returns then.
    Log(Fact),
}

#[derive(Debug)]
struct Worker {
    heard: Millis,
    name: String,
    /// It is here only for the end of its own job, and does nothing else.
    only_ends: bool,
}

#[derive(Debug)]
struct Attempt {
    job: JobId,
    task: TaskId,
    worker: WorkerId,
    since: Millis,
    progress: u64,
    progressed: Millis,
}

/// What a leading coordinator knows besides the facts.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    term: u64,
    counter: u64,
    workers: BTreeMap<WorkerId, Worker>,
    attempts: BTreeMap<AttemptId, Attempt>,
    speeds: Speeds,
    /// Since when there has been no worker.
    deserted: Option<Millis>,
}

impl Coordinator {
    /// One that has just begun to lead in `term`, which no other ever does.
    pub fn new(settings: Settings, term: u64) -> Self {
        Self {
            settings,
            term,
            counter: 0,
            workers: BTreeMap::new(),
            attempts: BTreeMap::new(),
            speeds: Speeds::default(),
            deserted: None,
        }
    }

    /// Decides on a request.
    pub fn request(&mut self, ledger: &Ledger, now: Millis, request: Request) -> Verdict {
        match request {
            Request::Submit { spec } => match ledger.known(&spec.work) {
                Some(job) => Verdict::Reply(Response::Submitted { job }),
                None => Verdict::Log(Fact::Submitted { spec }),
            },
            Request::Status { job } => Verdict::Reply(Response::Jobs(self.status(ledger, now, job))),
            Request::Spec { job } => Verdict::Reply(match ledger.job(job) {
                Some(record) => Response::Spec(record.spec.clone()),
                None => Response::Refused(format!("there is no {job}")),
            }),
            Request::Cancel { job } => match ledger.job(job) {
                None => Verdict::Reply(Response::Refused(format!("there is no {job}"))),
                Some(record) if record.state != JobState::Running => {
                    Verdict::Reply(Response::Refused(format!("{job} is {} already", record.state.name())))
                }
                Some(record) if record.is_past_return() => Verdict::Reply(Response::Refused(format!(
                    "{job} is past its last task: its keys are being published, and will be there in a moment"
                ))),
                Some(_) => Verdict::Log(Fact::Cancelled { job }),
            },
            Request::Poll { worker, name, running, wants, only, blind } => {
                let wants = wants.then_some(Able { only, blind });
                let id = self.hear_poll(now, worker, name, only.is_some());
                Verdict::Reply(self.poll(ledger, now, id, &running, wants))
            }
            Request::Done { worker, job, task, manifest } => {
                self.hear(worker, now);
                match ledger.may_finish(job, task) {
                    true => Verdict::Log(Fact::TaskDone { job, task, manifest }),
                    false => {
                        self.attempts.remove(&manifest.attempt);
                        Verdict::Reply(match ledger.has_won(job, task, manifest.attempt) {
                            // The answer of the first time was lost.
                            true => Response::Accepted,
                            false => Response::Late,
                        })
                    }
                }
            }
            Request::Failed { worker, job, task, attempt, what, at, lost } => {
                self.hear(worker, now);
                self.attempts.remove(&attempt);
                if !ledger.may_finish(job, task) {
                    return Verdict::Reply(Response::Late);
                }
                Verdict::Log(if lost.is_empty() {
                    Fact::TaskFailed { job, task, attempt, what, at }
                } else {
                    Fact::OutputsLost { job, outputs: lost }
                })
            }
            Request::Goodbye { worker, what } => self.goodbye(worker, &what),
        }
    }

    /// A worker has gone for good. If it was at something, that attempt has failed: user code may be why.
    fn goodbye(&mut self, worker: WorkerId, what: &str) -> Verdict {
        self.workers.remove(&worker);
        let mut left = self.attempts.extract_if(.., |_, attempt| attempt.worker == worker);
        let first = left.next();
        left.for_each(drop);
        match first {
            Some((attempt, Attempt { job, task, .. })) => {
                Verdict::Log(Fact::TaskFailed { job, task, attempt, what: what.to_owned(), at: None })
            }
            None => Verdict::Reply(Response::Accepted),
        }
    }

    /// Takes a fact that is in the log into the ledger; returns the answer for whoever asked for it.
    pub fn applied(&mut self, ledger: &mut Ledger, now: Millis, fact: &Fact) -> Response {
        if let Fact::TaskDone { task, manifest, .. } = fact
            && let Some(attempt) = self.attempts.remove(&manifest.attempt)
        {
            self.speeds.learn(*task, manifest.bytes_in, now.saturating_sub(attempt.since));
        }
        match ledger.apply(fact) {
            Applied::Submitted(job) => Response::Submitted { job },
            Applied::Taken => Response::Accepted,
            Applied::Late => match fact {
                Fact::TaskDone { job, task, manifest } if ledger.has_won(*job, *task, manifest.attempt) => {
                    Response::Accepted
                }
                _ => Response::Late,
            },
        }
    }

    /// Looks at the time. Returns what has become a fact by its passing.
    pub fn tick(&mut self, ledger: &Ledger, now: Millis) -> Vec<Fact> {
        let lease_ms = self.settings.lease_ms;
        self.workers.retain(|_, worker| worker.heard + lease_ms > now);
        self.attempts.retain(|_, attempt| self.workers.contains_key(&attempt.worker));
        let mut facts = Vec::new();
        let stuck_ms = self.settings.stuck_ms;
        for (id, attempt) in self.attempts.extract_if(.., |_, it| it.progressed + stuck_ms <= now) {
            let what = format!("no progress for {} s", stuck_ms / 1000);
            let Attempt { job, task, .. } = attempt;
            facts.push(Fact::TaskFailed { job, task, attempt: id, what, at: None });
        }
        let mut running = ledger.running().filter(|(_, record)| !record.is_past_return()).peekable();
        if self.workers.values().any(|worker| !worker.only_ends) || running.peek().is_none() {
            self.deserted = None;
        } else if *self.deserted.get_or_insert(now) + self.settings.grace_ms <= now {
            let why = format!(
                "no worker has been there for {:.1} s: start some, and submit the job again",
                self.settings.grace_ms as f64 / 1e3
            );
            facts.extend(running.map(|(job, _)| Fact::Failed { job, why: why.clone() }));
        }
        facts
    }

    fn hear(&mut self, worker: WorkerId, now: Millis) {
        if let Some(known) = self.workers.get_mut(&worker) {
            known.heard = now;
        }
    }

    fn next_id(&mut self) -> AttemptId {
        self.counter += 1;
        AttemptId { term: self.term, counter: self.counter }
    }

    fn hear_poll(
        &mut self,
        now: Millis,
        worker: Option<WorkerId>,
        name: String,
        only_ends: bool,
    ) -> WorkerId {
        let id = worker.unwrap_or_else(|| WorkerId(self.next_id()));
        let known = self.workers.entry(id).and_modify(|known| known.heard = now);
        known.or_insert(Worker { heard: now, name, only_ends });
        id
    }

    /// `wants`: what it can do, if it could do something.
    fn poll(
        &mut self,
        ledger: &Ledger,
        now: Millis,
        id: WorkerId,
        running: &[Running],
        wants: Option<Able>,
    ) -> Response {
        let mut stop = Vec::new();
        for Running { job, task, attempt, progress } in running {
            if !ledger.may_finish(*job, *task) {
                self.attempts.remove(attempt);
                stop.push(*attempt);
                continue;
            }
            // One that a coordinator before us gave out, or that we have given up, is as good as ours.
            let known = self.attempts.entry(*attempt).or_insert(Attempt {
                job: *job,
                task: *task,
                worker: id,
                since: now,
                progress: *progress,
                progressed: now,
            });
            if known.progress < *progress {
                (known.progress, known.progressed) = (*progress, now);
            }
        }
        // What it no longer runs and never reported.
        let gone = |attempt: &AttemptId| !running.iter().any(|it| it.attempt == *attempt);
        self.attempts.retain(|attempt, it| it.worker != id || !gone(attempt));
        let able = wants.filter(|_| running.is_empty());
        let assignment = able.and_then(|able| self.assign(ledger, now, id, &able));
        Response::Work {
            worker: id,
            assignment: assignment.map(Box::new),
            stop,
            again_ms: self.settings.poll_ms,
        }
    }
}

#[cfg(test)]
mod tests;
