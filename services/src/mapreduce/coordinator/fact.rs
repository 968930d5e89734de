//! What is replicated.

use crate::mapreduce::RecordAt;
use crate::mapreduce::spec::{AttemptId, JobId, JobSpec, Manifest, TaskId};
use serde::{Deserialize, Serialize};

/// Something that has happened, and that no coordinator may forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A job was submitted; its place in the log makes its number.
    Submitted {
        /// The job.
        spec: Box<JobSpec>,
    },
    /// An attempt at a task has come to its end. The first in the log counts.
    TaskDone {
        /// Of which job.
        job: JobId,
        /// Which task.
        task: TaskId,
        /// What it left.
        manifest: Manifest,
    },
    /// An attempt has failed.
    TaskFailed {
        /// Of which job.
        job: JobId,
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: AttemptId,
        /// What it said.
        what: String,
        /// The record it was at.
        at: Option<RecordAt>,
    },
    /// Files of map tasks that were done can't be read any more: those tasks run again.
    OutputsLost {
        /// Of which job.
        job: JobId,
        /// The tasks, and whose output of each: a later one isn't meant.
        outputs: Vec<(u32, AttemptId)>,
    },
    /// The job has failed.
    Failed {
        /// Which.
        job: JobId,
        /// Why.
        why: String,
    },
    /// Somebody has cancelled it.
    Cancelled {
        /// Which.
        job: JobId,
    },
}
