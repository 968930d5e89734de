use super::*;
use crate::mapreduce::RecordAt;
use crate::mapreduce::partition::Partitioner;
use crate::mapreduce::run::Segment;
use crate::mapreduce::spec::{
    Assignment, FileInfo, InputFile, JobSpec, KeysIn, KeysOut, Manifest, Split, sources_digest,
};

fn spec(maps: u32, reducers: u32) -> JobSpec {
    let split = |n: u32| Split { file: 0, start: u64::from(n) * 1000, end: u64::from(n + 1) * 1000 };
    JobSpec {
        name: "test".into(),
        job: "wc".into(),
        args: BTreeMap::new(),
        streaming: None,
        inputs: vec![InputFile { path: "/in".into(), bytes: u64::from(maps) * 1000, modified_ns: 0 }],
        tasks: (0..maps).map(|n| vec![split(n)]).collect(),
        keys_in: None,
        output: "/out".into(),
        keys_out: None,
        work: "/out/_work-1".into(),
        overwrite: false,
        reducers,
        partitioner: Partitioner::Hash,
        memory_bytes: 1 << 20,
        attempts_max: 3,
        skip_bad_records: false,
        backups: true,
    }
}

/// A coordinator whose log is memory.
struct Rig {
    ledger: Ledger,
    coordinator: Coordinator,
    log: Vec<Fact>,
    now: Millis,
}

impl Rig {
    fn new() -> Self {
        let settings =
            Settings { lease_ms: 1000, silence_ms: 300, grace_ms: 2000, poll_ms: 5, stuck_ms: 5000 };
        Self {
            ledger: Ledger::default(),
            coordinator: Coordinator::new(settings, 1),
            log: Vec::new(),
            now: 0,
        }
    }

    fn ask(&mut self, request: Request) -> Response {
        match self.coordinator.request(&self.ledger, self.now, request) {
            Verdict::Reply(response) => response,
            Verdict::Log(fact) => self.log(fact),
        }
    }

    fn log(&mut self, fact: Fact) -> Response {
        self.log.push(fact.clone());
        self.coordinator.applied(&mut self.ledger, self.now, &fact)
    }

    fn pass(&mut self, ms: Millis) {
        self.now += ms;
        for fact in self.coordinator.tick(&self.ledger, self.now) {
            self.log(fact);
        }
    }

    fn submit(&mut self, spec: JobSpec) -> JobId {
        match self.ask(Request::Submit { spec: Box::new(spec) }) {
            Response::Submitted { job } => job,
            other => panic!("{other:?}"),
        }
    }

    fn poll(
        &mut self,
        worker: Option<WorkerId>,
        running: &[&Assignment],
    ) -> (WorkerId, Option<Assignment>, Vec<AttemptId>) {
        let running = running.iter().map(|it| Running {
            job: it.job,
            task: it.task,
            attempt: it.attempt,
            progress: self.now,
        });
        let running: Vec<Running> = running.collect();
        let wants = running.is_empty();
        match self.ask(Request::Poll { worker, name: "w".into(), running, wants, only: None, blind: vec![] })
        {
            Response::Work { worker, assignment, stop, .. } => (worker, assignment.map(|it| *it), stop),
            other => panic!("{other:?}"),
        }
    }

    fn done(&mut self, worker: WorkerId, given: &Assignment) -> Response {
        let (job, task) = (given.job, given.task);
        self.ask(Request::Done { worker, job, task, manifest: manifest(given.attempt) })
    }

    fn failed(&mut self, worker: WorkerId, given: &Assignment, at: Option<RecordAt>) -> Response {
        let (job, task, attempt) = (given.job, given.task, given.attempt);
        self.ask(Request::Failed { worker, job, task, attempt, what: "no".into(), at, lost: vec![] })
    }

    fn state(&self, job: JobId) -> &JobState {
        &self.ledger.job(job).unwrap().state
    }

    /// One worker does everything that is left.
    fn finish(&mut self, worker: WorkerId) -> Vec<Assignment> {
        let mut did = Vec::new();
        while let (_, Some(given), _) = self.poll(Some(worker), &[]) {
            assert_eq!(self.done(worker, &given), Response::Accepted);
            did.push(given);
        }
        did
    }
}

fn manifest(attempt: AttemptId) -> Manifest {
    let segment = |partition| Segment { partition, offset: 8, bytes: 100, records: 3 };
    Manifest {
        attempt,
        file: FileInfo { name: format!("file-{attempt}"), bytes: 10, ..FileInfo::default() },
        segments: vec![segment(0), segment(1)],
        sources: 0,
        records_in: 5,
        records_out: 3,
        bytes_in: 1000,
        counters: BTreeMap::from([("seen".into(), 7)]),
    }
}

#[test]
fn a_job_goes_from_maps_over_reduces_to_its_commit() {
    let mut rig = Rig::new();
    let job = rig.submit(spec(3, 2));
    let (worker, first, _) = rig.poll(None, &[]);
    assert_eq!(first.as_ref().unwrap().task, TaskId::Map(0));
    assert_eq!(rig.done(worker, &first.unwrap()), Response::Accepted);
    let did = rig.finish(worker);
    let tasks: Vec<TaskId> = did.iter().map(|it| it.task).collect();
    assert_eq!(tasks, [TaskId::Map(1), TaskId::Map(2), TaskId::Reduce(0), TaskId::Reduce(1), TaskId::Commit]);
    assert_eq!(did[2].sources.len(), 3);
    assert_eq!(did[4].outputs.len(), 2);
    assert_eq!(did[4].counters["seen"], 5 * 7);
    assert_eq!(*rig.state(job), JobState::Committed);
    let totals = rig.ledger.job(job).unwrap().totals();
    assert_eq!((totals.records_in, totals.records_out, totals.counters["seen"]), (15, 6, 35));
}

#[test]
fn h1_a_job_without_reducers_commits_what_its_maps_wrote() {
    let mut rig = Rig::new();
    let job = rig.submit(spec(2, 0));
    let (worker, _, _) = rig.poll(None, &[]);
    rig.pass(1);
    rig.coordinator.attempts.clear();
    let did = rig.finish(worker);
    assert_eq!(
        did.iter().map(|it| it.task).collect::<Vec<_>>(),
        [TaskId::Map(0), TaskId::Map(1), TaskId::Commit]
    );
    assert_eq!(did[2].outputs.len(), 2);
    assert_eq!(*rig.state(job), JobState::Committed);
}

#[test]
fn mr_08_h4_a_silent_workers_task_goes_to_another_and_its_late_answer_is_ignored() {
    let mut rig = Rig::new();
    let job = rig.submit(spec(1, 1));
    let (slow, taken, _) = rig.poll(None, &[]);
    let taken = taken.unwrap();
    let (quick, none, _) = rig.poll(None, &[]);
    assert!(none.is_none(), "one attempt at a time");
    rig.pass(200);
    assert!(rig.poll(Some(quick), &[]).1.is_none(), "not given up at once");
    rig.pass(150);
    let again = rig.poll(Some(quick), &[]).1.expect("a silent worker gets a competitor");
    assert_eq!(again.task, taken.task);
    assert_ne!(again.attempt, taken.attempt);
    assert_eq!(rig.done(quick, &again), Response::Accepted);
    assert_eq!(rig.done(slow, &taken), Response::Late);
    assert_eq!(rig.poll(Some(slow), &[&taken]).2, [taken.attempt], "it is told to stop");
    rig.finish(quick);
    assert_eq!(rig.ledger.job(job).unwrap().maps[0].as_ref().unwrap().attempt, again.attempt);
    assert_eq!(*rig.state(job), JobState::Committed);
}

#[test]
fn the_order_of_the_log_decides_even_between_answers_on_their_way() {
    let mut rig = Rig::new();
    rig.submit(spec(1, 1));
    let (one, first, _) = rig.poll(None, &[]);
    rig.pass(400);
    let (other, second, _) = rig.poll(None, &[]);
    let (first, second) = (first.unwrap(), second.unwrap());
    let mut verdicts = Vec::new();
    for (worker, given) in [(one, &first), (other, &second)] {
        let (job, task, manifest) = (given.job, given.task, manifest(given.attempt));
        verdicts.push(rig.coordinator.request(
            &rig.ledger,
            rig.now,
            Request::Done { worker, job, task, manifest },
        ));
    }
    let facts: Vec<Fact> = verdicts
        .into_iter()
        .map(|verdict| match verdict {
            Verdict::Log(fact) => fact,
            Verdict::Reply(response) => panic!("{response:?}"),
        })
        .collect();
    assert_eq!(rig.log(facts[1].clone()), Response::Accepted);
    assert_eq!(rig.log(facts[0].clone()), Response::Late);
    assert_eq!(rig.log(facts[1].clone()), Response::Accepted, "the same is told the same, and counts once");
}

#[test]
fn a_slow_attempt_gets_one_competitor_once_others_have_shown_the_pace() {
    let mut rig = Rig::new();
    rig.submit(spec(4, 1));
    let (slow, stuck, _) = rig.poll(None, &[]);
    let stuck = stuck.unwrap();
    let (quick, _, _) = rig.poll(None, &[&stuck]);
    for _ in 0..3 {
        let given = rig.poll(Some(quick), &[]).1.unwrap();
        rig.pass(90);
        rig.poll(Some(slow), &[&stuck]);
        rig.done(quick, &given);
    }
    assert!(rig.poll(Some(quick), &[]).1.is_none(), "below 300 ms nothing is slow");
    rig.pass(100);
    rig.poll(Some(slow), &[&stuck]);
    let backup = rig.poll(Some(quick), &[]).1.expect("a backup");
    assert_eq!(backup.task, stuck.task);
    let (third, none, _) = rig.poll(None, &[]);
    assert!(none.is_none(), "one backup is enough");
    assert_eq!(rig.done(slow, &stuck), Response::Accepted, "who is first wins");
    assert_eq!(rig.poll(Some(quick), &[&backup]).2, [backup.attempt]);
    assert!(rig.poll(Some(third), &[]).1.is_some_and(|given| given.task == TaskId::Reduce(0)));
}

#[test]
fn jobs_that_have_effects_of_their_own_get_no_backups() {
    let mut rig = Rig::new();
    rig.submit(JobSpec { backups: false, ..spec(1, 1) });
    let (slow, stuck, _) = rig.poll(None, &[]);
    let (quick, _, _) = rig.poll(None, &[]);
    rig.pass(900);
    rig.poll(Some(slow), &[&stuck.unwrap()]);
    assert!(rig.poll(Some(quick), &[]).1.is_none());
}

#[test]
fn failures_are_retried_up_to_the_limit_and_reported_once() {
    let mut rig = Rig::new();
    let job = rig.submit(spec(1, 1));
    let (worker, _, _) = rig.poll(None, &[]);
    for round in 1..=3 {
        rig.coordinator.attempts.clear();
        let given = rig.poll(Some(worker), &[]).1.unwrap();
        assert_eq!(given.task, TaskId::Map(0));
        rig.failed(worker, &given, None);
        let again = rig.failed(worker, &given, None);
        assert_eq!(again, Response::Late, "a report that was sent twice is one");
        assert_eq!(rig.ledger.job(job).unwrap().failures.len(), round);
    }
    assert!(
        matches!(rig.state(job), JobState::Failed(why) if why.contains("map-00000 has failed 3 times, at last: no"))
    );
    let clean = rig.poll(Some(worker), &[]).1.unwrap();
    assert_eq!(clean.task, TaskId::Clean);
    rig.done(worker, &clean);
    assert!(rig.poll(Some(worker), &[]).1.is_none());
}

#[test]
fn a_record_that_fails_twice_is_left_out_if_that_is_wanted() {
    let mut rig = Rig::new();
    let job = rig.submit(JobSpec { skip_bad_records: true, ..spec(1, 1) });
    let (worker, first, _) = rig.poll(None, &[]);
    let bad = |offset| Some(RecordAt { input: "/in".into(), offset });
    let mut given = first.unwrap();
    for offset in [3, 9, 27, 81] {
        for _ in 0..2 {
            assert!(!given.skip.contains(&bad(offset).unwrap()));
            rig.failed(worker, &given, bad(offset));
            given = rig.poll(Some(worker), &[]).1.unwrap();
        }
        assert!(
            given.skip.contains(&bad(offset).unwrap()),
            "two bad records fail more often than attempts may"
        );
    }
    rig.done(worker, &given);
    rig.finish(worker);
    assert_eq!(*rig.state(job), JobState::Committed);
    assert_eq!(rig.ledger.job(job).unwrap().skipped.len(), 4);
}

#[test]
fn lost_outputs_run_again_but_not_those_of_a_later_attempt() {
    let mut rig = Rig::new();
    let job = rig.submit(spec(2, 2));
    let (worker, first, _) = rig.poll(None, &[]);
    rig.done(worker, &first.unwrap());
    let second = rig.poll(Some(worker), &[]).1.unwrap();
    rig.done(worker, &second);
    let reduce = rig.poll(Some(worker), &[]).1.unwrap();
    let lost: Vec<(u32, AttemptId)> =
        reduce.sources.iter().map(|source| (source.task, source.attempt)).collect();
    let report = |attempt| Request::Failed {
        worker,
        job,
        task: reduce.task,
        attempt,
        what: "unreadable".into(),
        at: None,
        lost: lost.clone(),
    };
    assert_eq!(rig.ask(report(reduce.attempt)), Response::Accepted);
    let again = rig.poll(Some(worker), &[]).1.unwrap();
    assert_eq!(again.task, TaskId::Map(0));
    rig.done(worker, &again);
    assert_eq!(rig.ask(report(reduce.attempt)), Response::Late, "task 0 has a new output, task 1 is open");
    let did = rig.finish(worker);
    assert_eq!(did.iter().map(|it| it.task).collect::<Vec<_>>()[..2], [TaskId::Map(1), TaskId::Reduce(0)]);
    assert_eq!(*rig.state(job), JobState::Committed);
    assert!(rig.ledger.job(job).unwrap().failures.is_empty(), "nobody's failure");
}

#[test]
fn without_workers_jobs_fail_after_the_grace_period_and_not_before() {
    let mut rig = Rig::new();
    let job = rig.submit(spec(1, 1));
    rig.poll(None, &[]);
    rig.pass(999);
    rig.pass(1);
    assert!(rig.coordinator.workers.is_empty());
    rig.pass(1999);
    assert_eq!(*rig.state(job), JobState::Running);
    rig.pass(1);
    assert!(matches!(rig.state(job), JobState::Failed(why) if why.contains("no worker")));
}

#[test]
fn an_attempt_without_progress_fails_however_alive_its_worker_is() {
    let mut rig = Rig::new();
    let job = rig.submit(JobSpec { backups: false, ..spec(1, 1) });
    let (worker, given, _) = rig.poll(None, &[]);
    let Assignment { task, attempt, .. } = given.unwrap();
    for _ in 0..11 {
        let running = vec![Running { job, task, attempt, progress: 1 }];
        rig.ask(Request::Poll {
            worker: Some(worker),
            name: "w".into(),
            running,
            wants: false,
            only: None,
            blind: vec![],
        });
        rig.pass(500);
    }
    assert!(rig.ledger.job(job).unwrap().failures[0].what.contains("no progress"));
}

#[test]
fn a_new_leader_knows_every_fact_and_goes_on_with_the_attempts_that_run() {
    let mut rig = Rig::new();
    let job = rig.submit(spec(3, 1));
    let (worker, first, _) = rig.poll(None, &[]);
    rig.done(worker, &first.unwrap());
    let running = rig.poll(Some(worker), &[]).1.unwrap();
    // The leader dies. Another has the same log.
    let mut ledger = Ledger::default();
    for fact in &rig.log {
        ledger.apply(fact);
    }
    assert_eq!(ledger, rig.ledger);
    rig.coordinator = Coordinator::new(rig.coordinator.settings, 2);
    rig.ledger = ledger;
    let (same, none, stop) = rig.poll(Some(worker), &[&running]);
    assert!(same == worker && none.is_none() && stop.is_empty(), "what runs goes on");
    let (_, other, _) = rig.poll(None, &[]);
    let other = other.unwrap();
    assert_eq!(other.task, TaskId::Map(2), "nobody else gets the task that runs");
    assert!(other.attempt > running.attempt, "names of attempts are never given twice");
    assert_eq!(rig.done(worker, &running), Response::Accepted);
    assert_eq!(rig.submit(spec(3, 1)), job, "a client that submits again has the same job");
}

#[test]
fn a_cancelled_job_stops_its_attempts() {
    let mut rig = Rig::new();
    let job = rig.submit(spec(1, 1));
    let (worker, given, _) = rig.poll(None, &[]);
    let given = given.unwrap();
    assert_eq!(rig.ask(Request::Cancel { job }), Response::Accepted);
    assert_eq!(rig.poll(Some(worker), &[&given]).2, [given.attempt]);
    assert_eq!(rig.done(worker, &given), Response::Late);
    assert!(matches!(rig.ask(Request::Cancel { job }), Response::Refused(_)));
    assert!(matches!(rig.ask(Request::Cancel { job: JobId(99) }), Response::Refused(_)));
}

#[test]
fn a_worker_that_dies_at_a_task_has_failed_it() {
    let mut rig = Rig::new();
    let job = rig.submit(spec(1, 1));
    for _ in 0..3 {
        let (worker, given, _) = rig.poll(None, &[]);
        assert!(given.is_some());
        rig.ask(Request::Goodbye { worker, what: "killed".into() });
    }
    assert!(matches!(rig.state(job), JobState::Failed(why) if why.contains("killed")));
}

fn from_keys(maps: u32, reducers: u32) -> JobSpec {
    JobSpec {
        keys_in: Some(KeysIn { shards: 8, pattern: None, first: None, last: None }),
        ..spec(maps, reducers)
    }
}

fn to_keys(maps: u32, reducers: u32) -> JobSpec {
    JobSpec { keys_out: Some(KeysOut { shards: 8, prefix: "out:".into() }), ..spec(maps, reducers) }
}

impl Rig {
    /// As a worker does it: a reduce task says what it has read.
    fn reduced(&mut self, worker: WorkerId, given: &Assignment) -> Response {
        let sources = sources_digest(given.sources.iter().map(|it| (it.task, it.attempt)));
        let manifest = Manifest { sources, ..manifest(given.attempt) };
        self.ask(Request::Done { worker, job: given.job, task: given.task, manifest })
    }

    fn lose(&mut self, job: JobId, given: &Assignment) {
        let outputs = vec![(given.sources[0].task, given.sources[0].attempt)];
        assert_eq!(self.log(Fact::OutputsLost { job, outputs }), Response::Accepted);
    }
}

#[test]
fn what_reducers_have_read_of_keys_is_of_one_attempt_or_is_read_again() {
    let mut rig = Rig::new();
    let job = rig.submit(from_keys(1, 3));
    let (worker, first, _) = rig.poll(None, &[]);
    rig.done(worker, &first.unwrap());
    let done = rig.poll(Some(worker), &[]).1.unwrap();
    assert_eq!(rig.reduced(worker, &done), Response::Accepted);
    let slow = rig.poll(Some(worker), &[]).1.unwrap();
    rig.lose(job, &slow);
    // While the map task is open nobody knows what will count.
    assert_eq!(rig.reduced(worker, &slow), Response::Late);
    let again = rig.poll(Some(worker), &[]).1.unwrap();
    assert_eq!(again.task, TaskId::Map(0));
    rig.done(worker, &again);
    assert_eq!(rig.reduced(worker, &slow), Response::Late);
    assert_eq!(rig.ledger.job(job).unwrap().open_tasks(), (0..3).map(TaskId::Reduce).collect::<Vec<_>>());
    // Of files nothing is read again.
    let job = rig.submit(JobSpec { work: "/out/_work-2".into(), ..spec(1, 2) });
    rig.ledger.apply(&Fact::Cancelled { job: JobId(1) });
    rig.coordinator.attempts.clear();
    let clean = rig.poll(Some(worker), &[]).1.unwrap();
    rig.done(worker, &clean);
    let first = rig.poll(Some(worker), &[]).1.unwrap();
    rig.done(worker, &first);
    let done = rig.poll(Some(worker), &[]).1.unwrap();
    rig.reduced(worker, &done);
    let slow = rig.poll(Some(worker), &[]).1.unwrap();
    rig.lose(job, &slow);
    assert_eq!(rig.reduced(worker, &slow), Response::Accepted);
}

#[test]
fn a_job_whose_keys_may_show_goes_on_to_its_end() {
    let mut rig = Rig::new();
    let job = rig.submit(to_keys(1, 1));
    let (worker, first, _) = rig.poll(None, &[]);
    rig.done(worker, &first.unwrap());
    let reduce = rig.poll(Some(worker), &[]).1.unwrap();
    rig.reduced(worker, &reduce);
    assert!(matches!(rig.ask(Request::Cancel { job }), Response::Refused(why) if why.contains("published")));
    // Nor does one that was asked for before, and comes late, or the absence of workers.
    assert_eq!(rig.log(Fact::Cancelled { job }), Response::Late);
    let outputs = vec![(0, reduce.sources[0].attempt)];
    assert_eq!(rig.log(Fact::OutputsLost { job, outputs }), Response::Late);
    rig.pass(1001);
    rig.pass(5000);
    assert_eq!(*rig.state(job), JobState::Running);
    let (worker, commit, _) = rig.poll(None, &[]);
    assert_eq!(rig.done(worker, &commit.unwrap()), Response::Accepted);
    assert_eq!(*rig.state(job), JobState::Committed);
    let clean = rig.poll(Some(worker), &[]).1.unwrap();
    assert_eq!(clean.task, TaskId::Clean, "what attempts have put aside goes");
    rig.done(worker, &clean);
    assert!(rig.poll(Some(worker), &[]).1.is_none());
}

#[test]
fn outputs_are_made_visible_by_those_who_see_their_folder_and_made_again_if_lost() {
    let mut rig = Rig::new();
    let job = rig.submit(spec(1, 1));
    let (worker, first, _) = rig.poll(None, &[]);
    rig.done(worker, &first.unwrap());
    let reduce = rig.poll(Some(worker), &[]).1.unwrap();
    rig.done(worker, &reduce);
    let ask = |rig: &mut Rig, worker, only, blind| {
        let poll = Request::Poll { worker, name: "w".into(), running: vec![], wants: true, only, blind };
        match rig.ask(poll) {
            Response::Work { worker, assignment, .. } => (worker, assignment.map(|it| *it)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(&mut rig, Some(worker), None, vec![job]).1, None);
    let (client, commit) = ask(&mut rig, None, Some(job), vec![]);
    let commit = commit.expect("the client that submitted it sees it");
    assert_eq!((commit.task, &commit.winners), (TaskId::Commit, &vec![reduce.attempt]));
    let lost = vec![(0, reduce.attempt)];
    let (task, attempt) = (commit.task, commit.attempt);
    let failed = Request::Failed { worker: client, job, task, attempt, what: "gone".into(), at: None, lost };
    assert_eq!(rig.ask(failed), Response::Accepted);
    assert_eq!(ask(&mut rig, Some(client), Some(job), vec![]).1, None, "it does nothing else");
    let again = rig.poll(Some(worker), &[]).1.unwrap();
    assert_eq!(again.task, TaskId::Reduce(0));
    rig.done(worker, &again);
    assert_eq!(rig.finish(worker).len(), 1);
    assert_eq!(*rig.state(job), JobState::Committed);
}
