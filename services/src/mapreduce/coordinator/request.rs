//! What clients and workers say to a coordinator, and what it answers.

use super::ledger::Failure;
use crate::mapreduce::RecordAt;
use crate::mapreduce::spec::{Assignment, AttemptId, JobId, JobSpec, Manifest, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Names a worker. The coordinator that it first spoke to has given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub AttemptId);

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// For which job.
    pub job: JobId,
    /// At which task.
    pub task: TaskId,
    /// As which attempt.
    pub attempt: AttemptId,
    /// Bytes that it has read.
    pub progress: u64,
}

/// To a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Run this. The same once more is the same job.
    Submit {
        /// The job.
        spec: Box<JobSpec>,
    },
    /// How is it going?
    Status {
        /// With which; `None`: with all.
        job: Option<JobId>,
    },
    /// What is this job?
    Spec {
        /// Which.
        job: JobId,
    },
    /// Stop it.
    Cancel {
        /// Which.
        job: JobId,
    },
    /// I am here; is there work?
    Poll {
        /// Who I am; `None`: new.
        worker: Option<WorkerId>,
        /// What people call me.
        name: String,
        /// What I am at.
        running: Vec<Running>,
        /// Whether I could do something.
        wants: bool,
        /// I am here only to make the output of this job visible.
        #[serde(default)]
        only: Option<JobId>,
        /// The output of these I can't make visible: I don't see their folders.
        #[serde(default)]
        blind: Vec<JobId>,
    },
    /// I have done it, and what it left is where others can read it.
    Done {
        /// Who I am.
        worker: WorkerId,
        /// Of which job.
        job: JobId,
        /// Which task.
        task: TaskId,
        /// What I left.
        manifest: Manifest,
    },
    /// I couldn't.
    Failed {
        /// Who I am.
        worker: WorkerId,
        /// Of which job.
        job: JobId,
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: AttemptId,
        /// Why.
        what: String,
        /// At which record.
        at: Option<RecordAt>,
        /// It isn't my fault: these outputs of map tasks are gone.
        lost: Vec<(u32, AttemptId)>,
    },
    /// A worker is gone, and won't come back.
    Goodbye {
        /// Who.
        worker: WorkerId,
        /// How that is known.
        what: String,
    },
}

/// From a coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It runs under this number.
    Submitted {
        /// The job.
        job: JobId,
    },
    /// How it is going.
    Jobs(Vec<JobStatus>),
    /// The job that was asked for.
    Spec(Box<JobSpec>),
    /// To a poll.
    Work {
        /// Who you are.
        worker: WorkerId,
        /// What you could do.
        assignment: Option<Box<Assignment>>,
        /// Attempts that nobody needs any more.
        stop: Vec<AttemptId>,
        /// Ask again so soon, if you have nothing to do.
        again_ms: u64,
    },
    /// It counts.
    Accepted,
    /// Somebody else was first, or the job has ended: forget it, and remove what it has left. It won't count later either.
    Late,
    /// It can't be.
    Refused(String),
}

/// How a job is going.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its number.
    pub job: JobId,
    /// What people call it.
    pub name: String,
    /// `running`, `committed`, `failed` or `cancelled`.
    pub state: String,
    /// Why it failed.
    pub why: Option<String>,
    /// Where the output is, or will be.
    pub output: String,
    /// Map tasks that are done, and all.
    pub maps: (u64, u64),
    /// Reduce tasks that are done, and all.
    pub reduces: (u64, u64),
    /// Bytes of input: read by now, and all.
    pub input_bytes: (u64, u64),
    /// Bytes that map tasks left for reducers.
    pub shuffle_bytes: u64,
    /// Bytes of output.
    pub output_bytes: u64,
    /// Records read by map tasks that count.
    pub records_in: u64,
    /// Pairs written by reduce tasks that count.
    pub records_out: u64,
    /// The job's counters.
    pub counters: BTreeMap<String, u64>,
    /// Attempts that run now: task, attempt, worker's name, seconds.
    pub running: Vec<(TaskId, AttemptId, String, u64)>,
    /// Attempts that failed.
    pub failures: Vec<Failure>,
    /// Records that were left out.
    pub skipped: BTreeSet<RecordAt>,
    /// Workers that are there.
    pub workers: u64,
}
