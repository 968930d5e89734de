//! Which task a worker gets.

use super::ledger::JobRecord;
use super::request::{JobStatus, WorkerId};
use super::{Attempt, Coordinator, Ledger, Millis};
use crate::mapreduce::spec::{Assignment, AttemptId, JobId, TaskId};
use std::collections::BTreeMap;

/// An attempt gets a competitor when it has taken so many times what others took for as much.
const SLOW_TIMES: f64 = 1.5;
/// No attempt is slow before.
const SLOW_AFTER_MS: u64 = 300;
/// Speeds that are remembered, for a median.
const SPEEDS_MAX: usize = 101;

/// How long finished tasks took: milliseconds for a megabyte, of maps and of the rest.
#[derive(Debug, Default)]
pub(super) struct Speeds([Vec<f64>; 2]);

impl Speeds {
    fn of(task: TaskId) -> usize {
        usize::from(!matches!(task, TaskId::Map(_)))
    }

    pub(super) fn learn(&mut self, task: TaskId, bytes: u64, took: Millis) {
        let speeds = &mut self.0[Self::of(task)];
        if bytes > 0 && speeds.len() < SPEEDS_MAX {
            speeds.push(took as f64 / megabytes(bytes));
        }
    }

    /// Half of the finished tasks were faster.
    fn median(&self, task: TaskId) -> Option<f64> {
        let mut speeds = self.0[Self::of(task)].clone();
        speeds.sort_by(f64::total_cmp);
        speeds.get(speeds.len() / 2).copied()
    }
}

fn megabytes(bytes: u64) -> f64 {
    (bytes as f64 / 1e6).max(0.1)
}

/// What a worker can do.
#[derive(Debug, Default)]
pub(super) struct Able {
    /// Only ends this job.
    pub(super) only: Option<JobId>,
    /// Doesn't see the output of these.
    pub(super) blind: Vec<JobId>,
}

impl Able {
    fn can(&self, job: JobId, task: TaskId) -> bool {
        let ends = matches!(task, TaskId::Commit | TaskId::Clean);
        self.only.is_none_or(|only| ends && only == job) && !(ends && self.blind.contains(&job))
    }
}

impl Coordinator {
    /// Gives a worker something to do, if there is anything.
    pub(super) fn assign(
        &mut self,
        ledger: &Ledger,
        now: Millis,
        worker: WorkerId,
        able: &Able,
    ) -> Option<Assignment> {
        let (job, task) = self.idle(ledger, able).or_else(|| self.slow(ledger, now, worker, able))?;
        let record = ledger.job(job)?;
        let attempt = self.next_id();
        let begun = Attempt { job, task, worker, since: now, progress: 0, progressed: now };
        self.attempts.insert(attempt, begun);
        let given = assignment(job, record, task, attempt);
        if given.is_none() {
            self.attempts.remove(&attempt);
        }
        given
    }

    /// A task that nobody is at.
    fn idle(&self, ledger: &Ledger, able: &Able) -> Option<(JobId, TaskId)> {
        let taken = |job, task| self.attempts.values().any(|it| it.job == job && it.task == task);
        ledger.jobs().find_map(|(job, record)| {
            let open = record.open_tasks().into_iter();
            let open = open.map(|task| (job, task)).filter(|(job, task)| able.can(*job, *task));
            open.into_iter().find(|(job, task)| !taken(*job, *task))
        })
    }

    /// A task whose only attempt takes too long, or whose worker is silent.
    fn slow(&self, ledger: &Ledger, now: Millis, worker: WorkerId, able: &Able) -> Option<(JobId, TaskId)> {
        let mut attempts_of: BTreeMap<(JobId, TaskId), u32> = BTreeMap::new();
        for attempt in self.attempts.values() {
            *attempts_of.entry((attempt.job, attempt.task)).or_default() += 1;
        }
        let slow = self.attempts.values().filter(|attempt| {
            let Some(record) = ledger.job(attempt.job) else { return false };
            let silent = self
                .workers
                .get(&attempt.worker)
                .is_none_or(|worker| worker.heard + self.settings.silence_ms <= now);
            record.spec.backups
                && attempt.worker != worker
                && attempts_of[&(attempt.job, attempt.task)] == 1
                && record.needs(attempt.task)
                && able.can(attempt.job, attempt.task)
                && (silent || self.is_slow(record, attempt, now))
        });
        slow.min_by_key(|attempt| attempt.since).map(|attempt| (attempt.job, attempt.task))
    }

    fn is_slow(&self, record: &JobRecord, attempt: &Attempt, now: Millis) -> bool {
        let took = now.saturating_sub(attempt.since);
        let Some(median) = self.speeds.median(attempt.task) else { return false };
        // How much there is in a shard isn't known before it is read.
        let is_known = !(matches!(attempt.task, TaskId::Map(_)) && record.spec.keys_in.is_some());
        is_known
            && took >= SLOW_AFTER_MS
            && took as f64 > SLOW_TIMES * median * megabytes(bytes_of(record, attempt.task))
    }

    /// What is known of jobs: facts, and who is at what.
    pub(super) fn status(&self, ledger: &Ledger, now: Millis, job: Option<JobId>) -> Vec<JobStatus> {
        let chosen = ledger.jobs().filter(|(id, _)| job.is_none_or(|job| job == *id));
        chosen.map(|(id, record)| self.status_of(id, record, now)).collect()
    }

    fn status_of(&self, job: JobId, record: &JobRecord, now: Millis) -> JobStatus {
        let done = |of: &[Option<_>]| (of.iter().flatten().count() as u64, of.len() as u64);
        let totals = record.totals();
        let running = self.attempts.iter().filter(|(_, attempt)| attempt.job == job);
        let maps_read: u64 = running
            .clone()
            .filter(|(_, attempt)| matches!(attempt.task, TaskId::Map(_)))
            .map(|(_, attempt)| attempt.progress)
            .sum();
        let all: u64 = record.spec.inputs.iter().map(|input| input.bytes).sum();
        let name = |worker| self.workers.get(worker).map(|it| it.name.clone()).unwrap_or_default();
        JobStatus {
            job,
            name: record.spec.name.clone(),
            state: record.state.name().to_owned(),
            why: match &record.state {
                super::JobState::Failed(why) => Some(why.clone()),
                _ => None,
            },
            output: record.spec.output.clone(),
            maps: done(&record.maps),
            reduces: done(&record.reduces),
            input_bytes: match record.spec.keys_in {
                None => ((totals.input_bytes + maps_read).min(all), all),
                // How much it will be isn't known before the end.
                Some(_) => (totals.input_bytes + maps_read, 0),
            },
            shuffle_bytes: totals.shuffle_bytes,
            output_bytes: totals.output_bytes,
            records_in: totals.records_in,
            records_out: totals.records_out,
            counters: totals.counters,
            running: running
                .map(|(id, it)| (it.task, *id, name(&it.worker), now.saturating_sub(it.since) / 1000))
                .collect(),
            failures: record.failures.clone(),
            skipped: record.skipped.clone(),
            workers: self.workers.values().filter(|worker| !worker.only_ends).count() as u64,
        }
    }
}

/// What a task reads.
fn bytes_of(record: &JobRecord, task: TaskId) -> u64 {
    match task {
        TaskId::Map(number) => {
            let splits = record.spec.tasks.get(number as usize);
            splits.map_or(0, |splits| splits.iter().map(|split| split.end - split.start).sum())
        }
        TaskId::Reduce(number) => {
            let segments = record.maps.iter().flatten().flat_map(|manifest| &manifest.segments);
            segments.filter(|segment| segment.partition == number).map(|segment| segment.bytes).sum()
        }
        TaskId::Commit | TaskId::Clean => 0,
    }
}

/// `None` if a slow reduce task can't be begun once more, since outputs of map tasks were lost in the meantime.
fn assignment(job: JobId, record: &JobRecord, task: TaskId, attempt: AttemptId) -> Option<Assignment> {
    let mut given = Assignment {
        job,
        task,
        attempt,
        skip: record.skipped.clone(),
        sources: Vec::new(),
        outputs: Vec::new(),
        winners: Vec::new(),
        counters: BTreeMap::new(),
    };
    match task {
        TaskId::Reduce(partition) => {
            given.sources = record.sources(partition)?;
        }
        TaskId::Commit => {
            given.outputs = record.winners().map(|manifest| manifest.file.clone()).collect();
            given.winners = record.winners().map(|manifest| manifest.attempt).collect();
            given.counters = record.totals().counters;
        }
        TaskId::Map(_) | TaskId::Clean => {}
    }
    Some(given)
}
