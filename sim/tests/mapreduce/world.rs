//! The world: time, network, log, coordinators, workers.

mod job;
mod keys;

use crate::files::{Files, Lost};
use flotilla_services::mapreduce::coordinator::{
    Coordinator, Fact, JobState, Ledger, Request, Response, Running, Settings, Verdict, WorkerId,
};
use flotilla_services::mapreduce::spec::{Assignment, AttemptId, JobSpec, Manifest, TaskId};
use flotilla_sim::rng::Rng;
use job::job;
use keys::Shelf;
use std::collections::BTreeMap;

/// Faults end here, and the job must come to its end.
const HEALED_AT: u64 = 20_000;
/// By then.
const END_BY: u64 = 80_000;
const REDUCERS: u32 = 3;

/// What happens besides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) network: bool,
    pub(crate) workers: bool,
    pub(crate) leaders: bool,
    pub(crate) files: bool,
    /// Input and output are keys of the store. Their values change all the time.
    pub(crate) keys: bool,
    /// Somebody cancels the job, at some time.
    pub(crate) cancel: bool,
}

/// What has happened, so that a test knows that it has tested something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) dropped: u64,
    pub(crate) doubled: u64,
    pub(crate) crashes: u64,
    pub(crate) pauses: u64,
    pub(crate) late: u64,
    pub(crate) leaders: u64,
    pub(crate) proposals_lost: u64,
    pub(crate) proposals_survived: u64,
    pub(crate) lost_outputs: u64,
    /// Output of reduce tasks that was lost before the commit.
    pub(crate) lost_winners: u64,
    pub(crate) interrupted_commits: u64,
    pub(crate) assigned_after_done: u64,
    pub(crate) cancelled: u64,
    /// Asked for when keys showed already.
    pub(crate) cancelled_too_late: u64,
    /// Reduce tasks that had read what doesn't count any more.
    pub(crate) reduced_in_vain: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.dropped += other.dropped;
        self.doubled += other.doubled;
        self.crashes += other.crashes;
        self.pauses += other.pauses;
        self.late += other.late;
        self.leaders += other.leaders;
        self.proposals_lost += other.proposals_lost;
        self.proposals_survived += other.proposals_survived;
        self.lost_outputs += other.lost_outputs;
        self.lost_winners += other.lost_winners;
        self.interrupted_commits += other.interrupted_commits;
        self.assigned_after_done += other.assigned_after_done;
        self.cancelled += other.cancelled;
        self.cancelled_too_late += other.cancelled_too_late;
        self.reduced_in_vain += other.reduced_in_vain;
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// A request reaches a coordinator, if that is still there.
    Request {
        leader: u64,
        worker: usize,
        life: u64,
        call: u64,
        request: Request,
    },
    Response {
        worker: usize,
        life: u64,
        call: u64,
        response: Response,
    },
    /// A proposal is in the log.
    Commit {
        term: u64,
    },
    Tick,
    /// A worker looks around.
    Wake {
        worker: usize,
        life: u64,
    },
    /// Its work is at the next step.
    Step {
        worker: usize,
        life: u64,
        attempt: AttemptId,
        step: usize,
    },
    Crash {
        worker: usize,
    },
    Pause {
        worker: usize,
        for_ms: u64,
    },
    NewLeader,
    LoseFile,
    Submit,
    /// Somebody writes to the keys that are read.
    Churn,
    Cancel,
}

/// A coordinator that leads, or still thinks that it does.
struct Leader {
    term: u64,
    ledger: Ledger,
    coordinator: Coordinator,
}

/// On its way into the log: who waits for it.
struct Proposal {
    fact: Fact,
    worker: Option<(usize, u64, u64)>,
}

#[derive(Default)]
struct Worker {
    life: u64,
    id: Option<WorkerId>,
    current: Option<(Assignment, u64)>,
    outcome: Option<Result<Manifest, Lost>>,
    /// The call that it waits for, and since when.
    waits: Option<(u64, u64)>,
    calls: u64,
    paused_until: u64,
    slowness: u64,
}

pub(crate) struct World {
    seed: u64,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    rng: Rng,
    faults: Faults,
    spec: JobSpec,
    files: Files,
    keys: Option<Shelf>,
    expected: BTreeMap<String, Vec<u8>>,
    pub(crate) log: Vec<Fact>,
    truth: Ledger,
    leaders: Vec<Leader>,
    proposals: Vec<Proposal>,
    workers: Vec<Worker>,
    pub(crate) seen: Seen,
}

fn settings() -> Settings {
    Settings { lease_ms: 1000, silence_ms: 300, grace_ms: 60_000, poll_ms: 20, stuck_ms: 600_000 }
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = Rng::new(seed);
        let mut files = Files::default();
        for file in 0..3 {
            let mut text = String::new();
            while text.len() < 2500 {
                text.push_str(&format!(
                    "{}{}",
                    ["oar", "sail", "mast", "keel"][rng.between(0, 3) as usize],
                    "x".repeat(rng.between(0, 5) as usize)
                ));
                text.push(if rng.per_million(200_000) { '\n' } else { ' ' });
            }
            files.inputs.insert(format!("/in/{file}"), text.into_bytes());
        }
        let (mut spec, expected) = job(&files, &mut rng);
        let keys = faults.keys.then(|| Shelf::new(&mut rng, &mut spec));
        let workers = (0..rng.between(2, 5)).map(|_| Worker {
            slowness: if faults.workers && rng.per_million(200_000) { 10 } else { 1 },
            ..Worker::default()
        });
        let workers = workers.collect();
        let mut world = Self {
            seed,
            now: 0,
            events: BTreeMap::new(),
            sequence: 0,
            rng,
            faults,
            spec,
            files,
            keys,
            expected,
            log: Vec::new(),
            truth: Ledger::default(),
            leaders: Vec::new(),
            proposals: Vec::new(),
            workers,
            seen: Seen::default(),
        };
        world.new_leader();
        world.at(1, Event::Submit);
        world.at(5, Event::Tick);
        for worker in 0..world.workers.len() {
            world.at(2, Event::Wake { worker, life: 0 });
        }
        world.plan_faults();
        world
    }

    fn plan_faults(&mut self) {
        let Faults { workers, leaders, files, keys, cancel, .. } = self.faults;
        let count = |on: bool, rng: &mut Rng, most: u64| if on { rng.between(1, most) } else { 0 };
        for _ in 0..count(workers, &mut self.rng, 4) {
            let (at, worker) =
                (self.rng.between(1, 900), self.rng.between(0, self.workers.len() as u64 - 1) as usize);
            self.at(at, Event::Crash { worker });
            let (at, for_ms) = (self.rng.between(1, 900), self.rng.between(50, 3000));
            self.at(at, Event::Pause { worker, for_ms });
        }
        for _ in 0..count(leaders, &mut self.rng, 8) {
            let at = self.rng.between(1, 900);
            self.at(at, Event::NewLeader);
        }
        let (most, latest) = if keys { (12, 2500) } else { (9, 1200) };
        for _ in 0..count(files, &mut self.rng, most) {
            let at = self.rng.between(100, latest);
            self.at(at, Event::LoseFile);
        }
        if keys {
            self.at(1, Event::Churn);
        }
        if cancel {
            let at = self.rng.between(1, 2500);
            self.at(at, Event::Cancel);
        }
    }

    fn at(&mut self, after: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    pub(crate) fn run(&mut self) {
        while self.truth.jobs().next().is_none_or(|(_, job)| job.state == JobState::Running) {
            let ((now, _), event) = self.events.pop_first().unwrap();
            self.now = now;
            assert!(now < END_BY, "seed {}: the job doesn't come to its end: {:?}", self.seed, self.truth);
            self.happen(event);
        }
        // What is still under way may do no harm.
        for _ in 0..500 {
            let Some(((now, _), event)) = self.events.pop_first() else { break };
            self.now = now;
            self.happen(event);
        }
    }

    pub(crate) fn check(&self) {
        let (_, job) = self.truth.jobs().next().unwrap();
        if let Some(keys) = &self.keys {
            return keys.check(self.seed, job);
        }
        assert_eq!(job.state, JobState::Committed, "seed {}", self.seed);
        assert!(self.files.successes >= 1, "seed {}", self.seed);
        let mut output = self.files.output.clone();
        assert!(output.remove("_SUCCESS").is_some());
        assert!(output == self.expected, "seed {}: the output differs", self.seed);
        let totals = job.totals();
        assert_eq!(
            totals.counters["tasks"],
            self.spec_tasks() + u64::from(REDUCERS),
            "seed {}: counters of attempts that don't count were counted",
            self.seed
        );
        let mut replayed = Ledger::default();
        let taken = self.log.iter().filter(|fact| {
            let done = matches!(fact, Fact::TaskDone { task: TaskId::Commit, .. });
            replayed.apply(fact) == flotilla_services::mapreduce::coordinator::Applied::Taken && done
        });
        assert_eq!(taken.count(), 1, "seed {}: committed once", self.seed);
        assert_eq!(replayed, self.truth, "seed {}: the ledger is a function of the log", self.seed);
    }

    fn spec_tasks(&self) -> u64 {
        self.spec.tasks.len() as u64
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Submit => {
                let fact = Fact::Submitted { spec: Box::new(self.spec.clone()) };
                self.append(fact);
            }
            Event::Tick => {
                let now = self.now;
                let Leader { ledger, coordinator, .. } = self.leaders.last_mut().unwrap();
                for fact in coordinator.tick(ledger, now) {
                    self.propose(fact, None);
                }
                self.at(20, Event::Tick);
            }
            Event::Request { leader, worker, life, call, request } => {
                self.asked(leader, worker, life, call, request)
            }
            Event::Commit { term } => self.commit(term),
            Event::Response { worker, life, call, response } => self.told(worker, life, call, response),
            Event::Wake { worker, life } => self.wake(worker, life),
            Event::Step { worker, life, attempt, step } => self.step(worker, life, attempt, step),
            Event::Crash { worker } => self.crash(worker),
            Event::Pause { worker, for_ms } => {
                self.seen.pauses += 1;
                self.workers[worker].paused_until = self.now + for_ms;
            }
            Event::NewLeader => self.new_leader(),
            Event::LoseFile => self.lose_file(),
            Event::Churn => self.churn(),
            Event::Cancel => self.cancel(),
        }
    }

    fn append(&mut self, fact: Fact) -> Response {
        self.truth.apply(&fact);
        self.log.push(fact.clone());
        let now = self.now;
        let Leader { ledger, coordinator, .. } = self.leaders.last_mut().unwrap();
        let response = coordinator.applied(ledger, now, &fact);
        assert_eq!(*ledger, self.truth);
        response
    }

    /// The leader is gone. Of what it had proposed, the first few are in its successor's log, and the rest never were; nobody
    /// hears of either. The old one may go on thinking that it leads.
    fn new_leader(&mut self) {
        let term = self.leaders.last().map_or(1, |leader| leader.term + 1);
        let pending = std::mem::take(&mut self.proposals);
        let survive = self.rng.between(0, pending.len() as u64) as usize;
        self.seen.proposals_survived += survive as u64;
        self.seen.proposals_lost += (pending.len() - survive) as u64;
        for proposal in pending.into_iter().take(survive) {
            self.truth.apply(&proposal.fact);
            self.log.push(proposal.fact);
        }
        self.leaders.push(Leader {
            term,
            ledger: self.truth.clone(),
            coordinator: Coordinator::new(settings(), term),
        });
        if self.leaders.len() > 2 {
            self.leaders.remove(0);
        }
        self.seen.leaders += 1;
    }

    fn propose(&mut self, fact: Fact, worker: Option<(usize, u64, u64)>) {
        self.proposals.push(Proposal { fact, worker });
        let (term, after) = (self.leaders.last().unwrap().term, self.rng.between(1, 15));
        self.at(after, Event::Commit { term });
    }

    /// The oldest proposal is in the log; its leader answers who waits for it.
    fn commit(&mut self, term: u64) {
        if term != self.leaders.last().unwrap().term || self.proposals.is_empty() {
            return;
        }
        let Proposal { fact, worker } = self.proposals.remove(0);
        let response = self.append(fact);
        if let Some((worker, life, call)) = worker {
            self.send(Event::Response { worker, life, call, response });
        }
    }

    /// Onto the network.
    fn send(&mut self, message: Event) {
        let faulty = self.faults.network && self.now < HEALED_AT;
        if faulty && self.rng.per_million(100_000) {
            self.seen.dropped += 1;
            return;
        }
        if faulty && self.rng.per_million(100_000) {
            self.seen.doubled += 1;
            let after = self.rng.between(1, 500);
            self.at(after, message.clone());
        }
        let most = if faulty && self.rng.per_million(50_000) { 800 } else { 5 };
        let after = self.rng.between(1, most);
        self.at(after, message);
    }

    fn asked(&mut self, term: u64, worker: usize, life: u64, call: u64, request: Request) {
        let now = self.now;
        let newest = self.leaders.last().unwrap().term;
        let Some(leader) = self.leaders.iter_mut().find(|leader| leader.term == term) else { return };
        match leader.coordinator.request(&leader.ledger, now, request) {
            Verdict::Reply(response) => {
                if let Response::Work { assignment: Some(given), .. } = &response
                    && term == newest
                    && !self.truth.may_finish(given.job, given.task)
                {
                    self.seen.assigned_after_done += 1;
                }
                self.send(Event::Response { worker, life, call, response });
            }
            Verdict::Log(fact) if term == newest => self.propose(fact, Some((worker, life, call))),
            // A leader that has been deposed waits for a majority in vain.
            Verdict::Log(_) => {}
        }
    }

    /// Most know the leader; some still talk to the one before.
    fn call(&mut self, worker: usize, request: Request) {
        let behind = self.leaders.len() > 1 && self.rng.per_million(200_000);
        let leader = self.leaders[self.leaders.len() - 1 - usize::from(behind)].term;
        let (now, it) = (self.now, &mut self.workers[worker]);
        it.calls += 1;
        it.waits = Some((it.calls, now));
        let (life, call) = (it.life, it.calls);
        self.send(Event::Request { leader, worker, life, call, request });
    }

    fn wake(&mut self, worker: usize, life: u64) {
        let now = self.now;
        let it = &mut self.workers[worker];
        if it.life != life {
            return;
        }
        if it.paused_until > now {
            let after = it.paused_until - now;
            return self.at(after, Event::Wake { worker, life });
        }
        self.at(30, Event::Wake { worker, life });
        let it = &mut self.workers[worker];
        if it.waits.is_some_and(|(_, since)| since + 200 > now) {
            return;
        }
        let request = match (&it.current, &it.outcome, it.id) {
            (Some((given, _)), Some(Ok(manifest)), Some(id)) => {
                Request::Done { worker: id, job: given.job, task: given.task, manifest: manifest.clone() }
            }
            (Some((given, _)), Some(Err(lost)), Some(id)) => Request::Failed {
                worker: id,
                job: given.job,
                task: given.task,
                attempt: given.attempt,
                what: "no".to_owned(),
                at: None,
                lost: lost.clone(),
            },
            (current, _, id) => {
                let running = current.iter().map(|(given, progress)| Running {
                    job: given.job,
                    task: given.task,
                    attempt: given.attempt,
                    progress: *progress,
                });
                Request::Poll {
                    worker: id,
                    name: format!("w{worker}"),
                    running: running.collect(),
                    wants: current.is_none(),
                    only: None,
                    blind: Vec::new(),
                }
            }
        };
        self.call(worker, request);
    }

    fn told(&mut self, worker: usize, life: u64, call: u64, response: Response) {
        let now = self.now;
        let it = &mut self.workers[worker];
        if it.life != life || it.paused_until > now || it.waits.is_none_or(|(waits, _)| waits != call) {
            return;
        }
        it.waits = None;
        match response {
            Response::Work { worker: id, assignment, stop, .. } => {
                it.id = Some(id);
                if it.current.as_ref().is_some_and(|(given, _)| stop.contains(&given.attempt)) {
                    (it.current, it.outcome) = (None, None);
                }
                if let (Some(given), None) = (assignment, &it.current) {
                    let attempt = given.attempt;
                    it.current = Some((*given, 0));
                    let slowness = it.slowness;
                    let after = self.rng.between(20, 150) * slowness;
                    self.at(after, Event::Step { worker, life, attempt, step: 0 });
                }
            }
            Response::Accepted | Response::Late => {
                let is_late = response == Response::Late;
                self.seen.late += u64::from(is_late);
                if let (true, Some(keys), Some(Ok(manifest))) = (is_late, &mut self.keys, &it.outcome) {
                    keys.discard(&self.spec, &manifest.file);
                }
                (it.current, it.outcome) = (None, None);
            }
            other => panic!("{other:?}"),
        }
    }

    fn step(&mut self, worker: usize, life: u64, attempt: AttemptId, step: usize) {
        let now = self.now;
        let it = &mut self.workers[worker];
        if it.life != life {
            return;
        }
        if it.paused_until > now {
            let after = it.paused_until - now;
            return self.at(after, Event::Step { worker, life, attempt, step });
        }
        let Some((given, _)) = it.current.clone().filter(|(given, _)| given.attempt == attempt) else {
            return;
        };
        if self.keys.is_some() {
            return self.step_keys(worker, &given, step);
        }
        let is_commit = given.task == TaskId::Commit;
        if is_commit && self.faults.workers && self.now < HEALED_AT && self.rng.per_million(200_000) {
            return self.crash(worker);
        }
        let outcome = match given.task {
            TaskId::Map(task) => Ok(self.files.map(&self.spec, &given, task)),
            TaskId::Reduce(_) => self.files.reduce(&given),
            TaskId::Commit => {
                match self.files.gather(&given).map(|()| self.files.commit_step(&given, step)) {
                    Err(lost) => {
                        self.seen.lost_winners += 1;
                        Err(lost)
                    }
                    Ok(Ok(Some(()))) => {
                        let after = self.rng.between(1, 30);
                        return self.at(after, Event::Step { worker, life, attempt, step: step + 1 });
                    }
                    Ok(Ok(None)) => Ok(Manifest::of(given.attempt)),
                    Ok(Err(what)) => {
                        // Only one who comes late may find nothing to rename.
                        assert!(self.files.successes > 0, "seed {}: {what}", self.seed);
                        let it = &mut self.workers[worker];
                        (it.current, it.outcome) = (None, None);
                        return;
                    }
                }
            }
            TaskId::Clean => panic!("seed {}: nothing has failed", self.seed),
        };
        self.seen.lost_outputs += u64::from(outcome.is_err());
        self.workers[worker].outcome = Some(outcome);
    }

    fn crash(&mut self, worker: usize) {
        let at_commit = |(given, _): &(Assignment, u64)| given.task == TaskId::Commit;
        self.seen.interrupted_commits +=
            u64::from(self.workers[worker].current.as_ref().is_some_and(at_commit));
        self.seen.crashes += 1;
        let life = self.workers[worker].life + 1;
        self.workers[worker] = Worker { life, slowness: 1, ..Worker::default() };
        let after = self.rng.between(10, 500);
        self.at(after, Event::Wake { worker, life });
    }

    fn lose_file(&mut self) {
        let gathered = self.files.gathered;
        let may_go = |name: &&String| name.starts_with("map-") || !gathered;
        let maps: Vec<String> = self.files.work.keys().filter(may_go).cloned().collect();
        if !maps.is_empty() {
            let lost = self.rng.between(0, maps.len() as u64 - 1) as usize;
            self.files.work.remove(&maps[lost]);
        }
    }
}
