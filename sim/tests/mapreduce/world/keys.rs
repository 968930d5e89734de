//! Keys of the store as input and output: the shards are the real ones, what workers do with them is as in
//! `services/src/mapreduce/hands/store`, a step at a time, and a worker may die between any two.
//!
//! Every input key holds one word at any time, and somebody changes them all the time; so whatever was read when, the counts
//! must add up to the number of keys. A reducer writes its attempt's name beside each count: no two attempts come to the same.

use super::{Event, World};
use crate::files::Files;
use flotilla_services::command::lookup;
use flotilla_services::kv::{Keyspace, PUBLISH_MAGIC, next_pair, put_pair};
use flotilla_services::mapreduce::coordinator::{JobRecord, JobState, Request, Verdict};
use flotilla_services::mapreduce::spec::{
    Assignment, FileInfo, JobSpec, KeysIn, KeysOut, Manifest, Split, TaskId,
};
use flotilla_services::resp::{Protocol, ReplyWriter};
use flotilla_services::slot::{Slot, first_slot, key_in};
use flotilla_sim::rng::Rng;
use std::collections::BTreeMap;

const SHARDS: u16 = 4;
const KEYS: u64 = 60;
const WORDS: [&str; 6] = ["oar", "sail", "mast", "keel", "rudder", "anchor"];
/// Pairs of a piece.
const PIECE: usize = 1;

pub(super) struct Shelf {
    shards: Vec<Keyspace>,
    /// How often each key of the output was set.
    published: BTreeMap<Vec<u8>, u64>,
    successes: u64,
}

fn shard_of(key: &[u8]) -> u16 {
    Slot::of_key(key).shard(SHARDS)
}

fn name(given: &Assignment) -> String {
    format!("{}-{}", given.task, given.attempt)
}

fn piece(spec: &JobSpec, attempt: &str, shard: u16, number: u32) -> Vec<u8> {
    let tag = String::from_utf8(key_in(first_slot(shard, SHARDS))).unwrap();
    format!("flotilla.mr:{{{tag}}}:{}:{attempt}:{number}", spec.nonce()).into_bytes()
}

impl Shelf {
    pub(super) fn new(rng: &mut Rng, spec: &mut JobSpec) -> Self {
        let shards = (0..SHARDS).map(|_| Keyspace::default()).collect();
        let mut shelf = Self { shards, published: BTreeMap::new(), successes: 0 };
        for number in 0..KEYS {
            shelf.put(number, rng);
        }
        spec.inputs = Vec::new();
        spec.tasks =
            (0..u32::from(SHARDS)).map(|shard| vec![Split { file: shard, start: 0, end: 0 }]).collect();
        spec.keys_in = Some(KeysIn { shards: SHARDS, pattern: None, first: None, last: None });
        spec.keys_out = Some(KeysOut { shards: SHARDS, prefix: "out:".to_owned() });
        shelf
    }

    fn put(&mut self, number: u64, rng: &mut Rng) {
        let word = WORDS[rng.between(0, WORDS.len() as u64 - 1) as usize];
        let key = format!("in:{number:03}").into_bytes();
        self.execute(&[b"set", &key, word.as_bytes()]);
    }

    fn execute(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let (spec, mut out) = (lookup(args[0]).unwrap(), Vec::new());
        let keys = &mut self.shards[usize::from(shard_of(args[1]))];
        keys.write(1, spec.code, args, &mut ReplyWriter::new(&mut out, Protocol::Resp2));
        out
    }

    fn map(&self, files: &mut Files, spec: &JobSpec, given: &Assignment, task: u32) -> Manifest {
        let entries = self.shards[task as usize].entries_after(1, None);
        let values = entries.filter(|(key, _)| key.starts_with(b"in:"));
        let values = values.map(|(_, entry)| [entry.value.as_string().unwrap(), &b"\n"[..]].concat());
        files.map_bytes(spec, given, &values.collect::<Vec<_>>().concat())
    }

    /// The pieces of a reduce task's output.
    fn pieces(spec: &JobSpec, given: &Assignment, text: &[u8]) -> Vec<(u16, Vec<u8>, Vec<u8>)> {
        let mut pairs: BTreeMap<u16, Vec<(String, String)>> = BTreeMap::new();
        for line in std::str::from_utf8(text).unwrap().lines() {
            let (word, n) = line.split_once('\t').unwrap();
            let pair = (format!("out:{word}"), format!("{n} {}", given.attempt));
            pairs.entry(shard_of(pair.0.as_bytes())).or_default().push(pair);
        }
        let mut pieces = Vec::new();
        for (shard, pairs) in pairs {
            for (number, some) in (0..).zip(pairs.chunks(PIECE)) {
                let mut staged = PUBLISH_MAGIC.to_vec();
                some.iter().for_each(|(key, value)| put_pair(&mut staged, key.as_bytes(), value.as_bytes()));
                pieces.push((shard, piece(spec, &name(given), shard, number), staged));
            }
        }
        pieces
    }

    fn publish(&mut self, name: &[u8]) -> Result<(), String> {
        let keys = &self.shards[usize::from(shard_of(name))];
        let staged = keys.get(1, name).and_then(|entry| entry.value.as_string()).cloned().unwrap_or_default();
        let mut rest = staged.strip_prefix(PUBLISH_MAGIC).unwrap_or_default();
        while let Some((key, _, behind)) = next_pair(rest) {
            *self.published.entry(key.to_vec()).or_default() += 1;
            rest = behind;
        }
        let reply = self.execute(&[b"flotilla.publish", name]);
        match &reply[..] {
            b":-1\r\n" => Err("it is gone".to_owned()),
            [b':', ..] => Ok(()),
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }

    /// The next step of a commit; `None` at its end.
    fn commit_step(&mut self, spec: &JobSpec, given: &Assignment, step: usize) -> Result<Option<()>, String> {
        let pieces = given.outputs.iter().flat_map(|file| {
            file.pieces.iter().flat_map(|(shard, pieces)| {
                (0..*pieces).map(|number| piece(spec, &file.name, *shard, number)).collect::<Vec<_>>()
            })
        });
        match pieces.collect::<Vec<_>>().get(step) {
            Some(name) => self.publish(name).map(Some),
            None => {
                self.successes += 1;
                Ok(None)
            }
        }
    }

    pub(super) fn discard(&mut self, spec: &JobSpec, file: &FileInfo) {
        for (shard, pieces) in &file.pieces {
            (0..*pieces)
                .for_each(|number| drop(self.execute(&[b"del", &piece(spec, &file.name, *shard, number)])));
        }
    }

    fn staged(&self) -> Vec<Vec<u8>> {
        let all = self.shards.iter().flat_map(|shard| shard.keys_after(1, None));
        all.filter(|key| key.starts_with(b"flotilla.mr:")).map(<[u8]>::to_vec).collect()
    }

    fn sweep(&mut self) {
        self.staged().iter().for_each(|key| drop(self.execute(&[b"del", key])));
    }

    fn output(&self) -> BTreeMap<String, String> {
        let all = self.shards.iter().flat_map(|shard| shard.entries_after(1, None));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        all.filter(|(key, _)| key.starts_with(b"out:"))
            .map(|(key, entry)| (text(&key[4..]), text(entry.value.as_string().unwrap())))
            .collect()
    }

    pub(super) fn check(&self, seed: u64, job: &JobRecord) {
        let output = self.output();
        if job.state == JobState::Cancelled {
            assert!(output.is_empty(), "seed {seed}: a cancelled job shows");
            return;
        }
        assert_eq!(job.state, JobState::Committed, "seed {seed}");
        assert!(self.successes > 0, "seed {seed}");
        assert!(self.published.values().all(|times| *times == 1), "seed {seed}: {:?}", self.published);
        let mut sum = 0;
        for (word, value) in &output {
            let (n, attempt) = value.split_once(' ').unwrap();
            sum += n.parse::<u64>().unwrap();
            let partition = job.spec.partitioner.of(word.as_bytes(), job.spec.reducers);
            let winner = job.reduces[partition as usize].as_ref().unwrap().attempt.to_string();
            assert_eq!(attempt, winner, "seed {seed}: {word} is of an attempt that hasn't won");
        }
        assert_eq!(sum, KEYS, "seed {seed}: a key counts twice, or not at all: {output:?}");
    }
}

impl World {
    pub(super) fn churn(&mut self) {
        let number = self.rng.between(0, KEYS - 1);
        if let Some(keys) = &mut self.keys {
            keys.put(number, &mut self.rng);
        }
        self.at(10, Event::Churn);
    }

    pub(super) fn cancel(&mut self) {
        let now = self.now;
        let leader = self.leaders.last_mut().unwrap();
        let Some((job, _)) = leader.ledger.jobs().next() else { return };
        match leader.coordinator.request(&leader.ledger, now, Request::Cancel { job }) {
            Verdict::Log(fact) => {
                self.seen.cancelled += 1;
                self.propose(fact, None);
            }
            Verdict::Reply(_) => self.seen.cancelled_too_late += 1,
        }
    }

    /// The next step of what a worker is at.
    pub(super) fn step_keys(&mut self, worker: usize, given: &Assignment, step: usize) {
        let (life, attempt) = (self.workers[worker].life, given.attempt);
        if self.faults.workers && self.now < super::HEALED_AT && self.rng.per_million(50_000) {
            return self.crash(worker);
        }
        let keys = self.keys.as_mut().unwrap();
        let nothing = |given: &Assignment| Ok(Manifest::of(given.attempt));
        let outcome = match given.task {
            TaskId::Map(task) => Some(Ok(keys.map(&mut self.files, &self.spec, given, task))),
            TaskId::Reduce(_) => match self.files.reduced(given) {
                Err(lost) => Some(Err(lost)),
                Ok(text) => {
                    let pieces = Shelf::pieces(&self.spec, given, &text);
                    if let Some((_, name, staged)) = pieces.get(step) {
                        keys.execute(&[b"set", name, staged]);
                        None
                    } else {
                        let mut manifest = crate::files::manifest(given, text.len());
                        let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
                        pieces.iter().for_each(|(shard, ..)| *counts.entry(*shard).or_default() += 1);
                        manifest.file.pieces = counts.into_iter().collect();
                        let (job, task) = (given.job, given.task);
                        let read_too_early = self.truth.may_finish(job, task)
                            && self.truth.job(job).is_some_and(|record| {
                                let TaskId::Reduce(partition) = task else { return false };
                                record.sources(partition).as_ref() != Some(&given.sources)
                            });
                        self.seen.reduced_in_vain += u64::from(read_too_early);
                        Some(Ok(manifest))
                    }
                }
            },
            TaskId::Commit => match keys.commit_step(&self.spec, given, step) {
                Ok(Some(())) => None,
                Ok(None) => Some(nothing(given)),
                Err(what) => {
                    // Only one who comes late may find nothing to publish.
                    assert!(keys.successes > 0, "seed {}: {what}", self.seed);
                    let it = &mut self.workers[worker];
                    (it.current, it.outcome) = (None, None);
                    return;
                }
            },
            TaskId::Clean => {
                keys.sweep();
                Some(nothing(given))
            }
        };
        match outcome {
            Some(outcome) => {
                self.seen.lost_outputs += u64::from(outcome.is_err());
                self.workers[worker].outcome = Some(outcome);
            }
            None => {
                let after = self.rng.between(1, 30);
                self.at(after, Event::Step { worker, life, attempt, step: step + 1 });
            }
        }
    }
}
