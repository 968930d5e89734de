//! The facts of all jobs: a function of the log.

use super::fact::Fact;
use crate::mapreduce::RecordAt;
use crate::mapreduce::spec::{AttemptId, FileInfo, JobId, JobSpec, Manifest, Source, TaskId, sources_digest};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Jobs that have ended are remembered up to this number.
const ENDED_MAX: usize = 100;
/// Failures of a job that are remembered.
const FAILURES_MAX: usize = 1000;

/// How far a job has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Tasks are left.
    Running,
    /// The output is there.
    Committed,
    /// It won't be; why.
    Failed(String),
    /// Somebody didn't want it any more.
    Cancelled,
}

impl JobState {
    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Committed => "committed",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// At which task.
    pub task: TaskId,
    /// Which.
    pub attempt: AttemptId,
    /// What it said.
    pub what: String,
    /// At which record.
    pub at: Option<RecordAt>,
}

/// What is summed over the attempts that count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Bytes read by map tasks.
    pub input_bytes: u64,
    /// Bytes of run files.
    pub shuffle_bytes: u64,
    /// Bytes of output.
    pub output_bytes: u64,
    /// Records read by map tasks.
    pub records_in: u64,
    /// Pairs in the output.
    pub records_out: u64,
    /// The job's counters.
    pub counters: BTreeMap<String, u64>,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// What it is.
    pub spec: Box<JobSpec>,
    /// How far it has come.
    pub state: JobState,
    /// What won each map task.
    pub maps: Vec<Option<Manifest>>,
    /// What won each reduce task.
    pub reduces: Vec<Option<Manifest>>,
    /// What failed.
    pub failures: Vec<Failure>,
    /// Records that are left out.
    pub skipped: BTreeSet<RecordAt>,
    /// Attempts whose output was lost: they never count again, however late somebody says that they are done.
    #[serde(default)]
    lost: BTreeSet<AttemptId>,
    /// Whether what a failed job left has been removed.
    pub cleaned: bool,
    /// Of a job that has ended; see [`Self::totals`].
    ended: Option<Totals>,
}

impl JobRecord {
    fn new(spec: Box<JobSpec>) -> Self {
        let (maps, reduces) = (vec![None; spec.tasks.len()], vec![None; spec.reducers as usize]);
        let (failures, skipped) = (Vec::new(), BTreeSet::new());
        let (state, lost) = (JobState::Running, BTreeSet::new());
        Self { spec, state, maps, reduces, failures, skipped, lost, cleaned: false, ended: None }
    }

    /// The tasks that could be begun now, were it not for attempts that run: of one phase at a time.
    pub fn open_tasks(&self) -> Vec<TaskId> {
        let open = |done: &[Option<Manifest>]| -> Vec<u32> {
            (0..).zip(done).filter(|(_, manifest)| manifest.is_none()).map(|(number, _)| number).collect()
        };
        match self.state {
            JobState::Running => {}
            _ if self.needs(TaskId::Clean) => return vec![TaskId::Clean],
            _ => return Vec::new(),
        }
        let maps = open(&self.maps);
        if !maps.is_empty() {
            return maps.into_iter().map(TaskId::Map).collect();
        }
        let reduces = open(&self.reduces);
        if !reduces.is_empty() {
            return reduces.into_iter().map(TaskId::Reduce).collect();
        }
        vec![TaskId::Commit]
    }

    /// Whether somebody still needs a task to be done.
    pub fn needs(&self, task: TaskId) -> bool {
        let is_running = self.state == JobState::Running;
        match task {
            TaskId::Map(number) => is_running && self.maps.get(number as usize).is_some_and(Option::is_none),
            TaskId::Reduce(number) => {
                is_running && self.reduces.get(number as usize).is_some_and(Option::is_none)
            }
            TaskId::Commit => is_running && self.maps.iter().chain(&self.reduces).all(Option::is_some),
            // In the store the names of a committed job's attempts are left; a folder goes with its commit.
            TaskId::Clean => {
                let leaves_nothing = self.state == JobState::Committed && self.spec.keys_out.is_none();
                !is_running && !self.cleaned && !leaves_nothing
            }
        }
    }

    /// Whether its output may be visible in part: then it will be whole, whatever anybody says.
    pub fn is_past_return(&self) -> bool {
        self.spec.keys_out.is_some() && self.needs(TaskId::Commit)
    }

    /// What a reduce task has to read, in the order of the map tasks; `None` if some of it isn't there.
    pub fn sources(&self, partition: u32) -> Option<Vec<Source>> {
        let mut sources = Vec::new();
        for (task, manifest) in (0..).zip(&self.maps) {
            let manifest = manifest.as_ref()?;
            let segments: Vec<_> =
                manifest.segments.iter().filter(|segment| segment.partition == partition).copied().collect();
            if !segments.is_empty() {
                let FileInfo { name, at, .. } = manifest.file.clone();
                sources.push(Source { task, attempt: manifest.attempt, name, at, segments });
            }
        }
        Some(sources)
    }

    /// Whether a reduce task has read what counts. Files stay as they are, so that any attempt at a map task is as good as
    /// another; keys don't: a key that two attempts found different must not count for one reducer as the one and for another
    /// as the other found it.
    fn has_read_what_counts(&self, partition: u32, reduced: &Manifest) -> bool {
        if self.spec.keys_in.is_none() {
            return true;
        }
        let sources = self.sources(partition);
        sources.is_some_and(|sources| {
            sources_digest(sources.iter().map(|it| (it.task, it.attempt))) == reduced.sources
        })
    }

    /// A map task is done; if it is so for a second time, reducers that have read the first have to begin anew.
    fn mapped(&mut self, number: u32, manifest: &Manifest) {
        self.maps[number as usize] = Some(manifest.clone());
        if self.spec.keys_in.is_none() {
            return;
        }
        for partition in 0..self.spec.reducers {
            let reduced = self.reduces[partition as usize].take();
            self.reduces[partition as usize] = reduced.filter(|it| self.has_read_what_counts(partition, it));
        }
    }

    /// The attempts whose files are the output, in its order.
    pub fn winners(&self) -> impl Iterator<Item = &Manifest> {
        let won = if self.spec.reducers == 0 { &self.maps } else { &self.reduces };
        won.iter().flatten()
    }

    /// Sums over the attempts that count, so that what ran twice counts once.
    pub fn totals(&self) -> Totals {
        if let Some(totals) = &self.ended {
            return totals.clone();
        }
        let mut totals = Totals::default();
        let map_only = self.spec.reducers == 0;
        for (manifest, is_map) in self
            .maps
            .iter()
            .flatten()
            .map(|it| (it, true))
            .chain(self.reduces.iter().flatten().map(|it| (it, false)))
        {
            if is_map {
                totals.input_bytes += manifest.bytes_in;
                totals.records_in += manifest.records_in;
            }
            if is_map && !map_only {
                totals.shuffle_bytes += manifest.segments.iter().map(|segment| segment.bytes).sum::<u64>();
            } else {
                totals.output_bytes += manifest.file.bytes;
                totals.records_out += manifest.records_out;
            }
            for (name, n) in &manifest.counters {
                *totals.counters.entry(name.clone()).or_default() += n;
            }
        }
        totals
    }

    /// The output of an attempt that has won can't be read any more. Whether that matters.
    fn lose(&mut self, task: usize, attempt: AttemptId) -> bool {
        // Nobody needs run files any more when all is reduced; and what is in the store stays there.
        let is_reduced = self.needs(TaskId::Commit);
        let places = match (self.spec.reducers, is_reduced) {
            (0, _) | (_, false) => self.maps.get_mut(task),
            (_, true) => self.reduces.get_mut(task),
        };
        let matters = !(is_reduced && self.spec.keys_out.is_some());
        let lost = places.filter(|_| matters).and_then(|done| done.take_if(|it| it.attempt == attempt));
        if lost.is_some() {
            self.lost.insert(attempt);
        }
        lost.is_some()
    }

    fn end(&mut self, state: JobState) {
        self.ended = Some(self.totals());
        self.state = state;
        // The plan and the manifests are large, and nobody will ask for them again.
        self.spec.tasks = Vec::new();
        for done in self.maps.iter_mut().chain(&mut self.reduces).flatten() {
            done.segments = Vec::new();
            done.file.pieces = Vec::new();
        }
    }

    /// Failures that still count against a task.
    fn failures_of(&self, task: TaskId) -> usize {
        let skipped = |failure: &&Failure| failure.at.as_ref().is_some_and(|at| self.skipped.contains(at));
        self.failures.iter().filter(|failure| failure.task == task && !skipped(failure)).count()
    }

    fn fail(&mut self, failure: Failure) {
        let task = failure.task;
        let what = failure.what.clone();
        if let Some(at) = &failure.at
            && self.spec.skip_bad_records
            && self.failures.iter().any(|it| it.task == task && it.at.as_ref() == Some(at))
        {
            self.skipped.insert(at.clone());
        }
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(failure);
        }
        let count = self.failures_of(task);
        if count >= self.spec.attempts_max.max(1) as usize || self.failures.len() >= FAILURES_MAX {
            self.end(JobState::Failed(format!("{task} has failed {count} times, at last: {what}")));
        }
    }
}

/// What a fact did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// A job has this number now.
    Submitted(JobId),
    /// It counts.
    Taken,
    /// Something before it in the log has settled the matter.
    Late,
}

/// The facts of all jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    next: u64,
    jobs: BTreeMap<JobId, JobRecord>,
}

impl Ledger {
    /// Takes in the next fact of the log. The same log makes the same ledger.
    pub fn apply(&mut self, fact: &Fact) -> Applied {
        match fact {
            Fact::Submitted { spec } => {
                if let Some(job) = self.known(&spec.work) {
                    return Applied::Submitted(job);
                }
                self.next += 1;
                let job = JobId(self.next);
                self.jobs.insert(job, JobRecord::new(spec.clone()));
                self.forget_old();
                Applied::Submitted(job)
            }
            Fact::TaskDone { job, task, manifest } => self.change(*job, |record| {
                if !record.needs(*task) || record.lost.contains(&manifest.attempt) {
                    return false;
                }
                match task {
                    TaskId::Map(number) => record.mapped(*number, manifest),
                    TaskId::Reduce(number) if !record.has_read_what_counts(*number, manifest) => {
                        return false;
                    }
                    TaskId::Reduce(number) => record.reduces[*number as usize] = Some(manifest.clone()),
                    TaskId::Commit => record.end(JobState::Committed),
                    TaskId::Clean => record.cleaned = true,
                }
                true
            }),
            Fact::TaskFailed { job, task, attempt, what, at } => self.change(*job, |record| {
                let failure = Failure { task: *task, attempt: *attempt, what: what.clone(), at: at.clone() };
                if *task == TaskId::Clean {
                    // What can't be removed stays.
                    record.cleaned = true;
                    return true;
                }
                // A retried report of the same failure is one.
                let is_new = !record.failures.contains(&failure) && record.needs(*task);
                if is_new {
                    record.fail(failure);
                }
                is_new
            }),
            Fact::OutputsLost { job, outputs } => self.change(*job, |record| {
                let mut any = false;
                let lost = if record.state == JobState::Running { &outputs[..] } else { &[] };
                for (task, attempt) in lost {
                    any |= record.lose(*task as usize, *attempt);
                }
                any
            }),
            Fact::Failed { job, why } => self.end(*job, JobState::Failed(why.clone())),
            Fact::Cancelled { job } => self.end(*job, JobState::Cancelled),
        }
    }

    fn change(&mut self, job: JobId, change: impl FnOnce(&mut JobRecord) -> bool) -> Applied {
        match self.jobs.get_mut(&job).map(change) {
            Some(true) => Applied::Taken,
            _ => Applied::Late,
        }
    }

    fn end(&mut self, job: JobId, state: JobState) -> Applied {
        self.change(job, |record| {
            let ends = record.state == JobState::Running && !record.is_past_return();
            if ends {
                record.end(state);
            }
            ends
        })
    }

    fn forget_old(&mut self) {
        let ended = |record: &JobRecord| record.state != JobState::Running;
        let mut too_many =
            self.jobs.values().filter(|record| ended(record)).count().saturating_sub(ENDED_MAX);
        self.jobs.retain(|_, record| {
            let goes = too_many > 0 && ended(record);
            too_many -= usize::from(goes);
            !goes
        });
    }

    /// The job that was submitted with this private folder.
    pub fn known(&self, work: &str) -> Option<JobId> {
        self.jobs.iter().find(|(_, record)| record.spec.work == work).map(|(job, _)| *job)
    }

    /// A job.
    pub fn job(&self, job: JobId) -> Option<&JobRecord> {
        self.jobs.get(&job)
    }

    /// All jobs that are remembered.
    pub fn jobs(&self) -> impl Iterator<Item = (JobId, &JobRecord)> {
        self.jobs.iter().map(|(job, record)| (*job, record))
    }

    /// Jobs that run.
    pub fn running(&self) -> impl Iterator<Item = (JobId, &JobRecord)> {
        self.jobs().filter(|(_, record)| record.state == JobState::Running)
    }

    /// Whether this attempt is the one that counts.
    pub fn has_won(&self, job: JobId, task: TaskId, attempt: AttemptId) -> bool {
        let Some(record) = self.job(job) else { return false };
        let done = match task {
            TaskId::Map(number) => record.maps.get(number as usize),
            TaskId::Reduce(number) => record.reduces.get(number as usize),
            TaskId::Commit | TaskId::Clean => None,
        };
        done.and_then(Option::as_ref).is_some_and(|manifest| manifest.attempt == attempt)
    }

    /// Whether an attempt at this task could still count.
    pub fn may_finish(&self, job: JobId, task: TaskId) -> bool {
        self.job(job).is_some_and(|record| record.needs(task))
    }
}
