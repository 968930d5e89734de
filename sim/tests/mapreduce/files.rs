//! The files of the world, and what workers do with them: the real engine over memory.

use flotilla_services::mapreduce::collect::{Collector, Plan};
use flotilla_services::mapreduce::map::{Position, SplitOf, map_split};
use flotilla_services::mapreduce::reduce::{Output, reduce};
use flotilla_services::mapreduce::run::{RunWriter, SegmentReader};
use flotilla_services::mapreduce::spec::{
    Assignment, AttemptId, FileInfo, JobSpec, Manifest, Split, sources_digest,
};
use flotilla_services::mapreduce::split::BlockReader;
use flotilla_services::mapreduce::{InputFormat, Job, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Inputs, the job's private folder, and the output's.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) inputs: BTreeMap<String, Vec<u8>>,
    pub(crate) work: BTreeMap<String, Vec<u8>>,
    pub(crate) output: BTreeMap<String, Vec<u8>>,
    /// Everything that has won was brought together: nothing of it is lost any more.
    pub(crate) gathered: bool,
    /// How often the output was declared whole.
    pub(crate) successes: u64,
}

/// Outputs of map tasks that couldn't be read.
pub(crate) type Lost = Vec<(u32, AttemptId)>;

fn job() -> Arc<dyn Job> {
    Registry::built_in().make("wc", &BTreeMap::new()).unwrap().into()
}

fn name(given: &Assignment) -> String {
    format!("{}-{}", given.task, given.attempt)
}

pub(crate) fn manifest(given: &Assignment, bytes: usize) -> Manifest {
    Manifest {
        attempt: given.attempt,
        file: FileInfo { name: name(given), bytes: bytes as u64, ..FileInfo::default() },
        segments: Vec::new(),
        sources: sources_digest(given.sources.iter().map(|it| (it.task, it.attempt))),
        records_in: 0,
        records_out: 0,
        bytes_in: 1000,
        counters: BTreeMap::from([("tasks".to_owned(), 1)]),
    }
}

impl Files {
    pub(crate) fn map(&mut self, spec: &JobSpec, given: &Assignment, task: u32) -> Manifest {
        let splits = spec.tasks[task as usize].iter().map(|split| {
            let path = &spec.inputs[split.file as usize].path;
            (*split, self.inputs[path].clone())
        });
        let splits: Vec<_> = splits.collect();
        self.map_splits(spec, given, &splits)
    }

    /// The same over what isn't in a file.
    pub(crate) fn map_bytes(&mut self, spec: &JobSpec, given: &Assignment, bytes: &[u8]) -> Manifest {
        let whole = Split { file: 0, start: 0, end: bytes.len() as u64 };
        self.map_splits(spec, given, &[(whole, bytes.to_vec())])
    }

    fn map_splits(&mut self, spec: &JobSpec, given: &Assignment, splits: &[(Split, Vec<u8>)]) -> Manifest {
        let job = job();
        let plan = Plan {
            job: Arc::clone(&job),
            partitioner: spec.partitioner.clone(),
            partitions: spec.reducers,
            memory_bytes_max: 2000,
        };
        let (mut collector, mut buffer) = (Collector::new(plan), Vec::new());
        let mut run = RunWriter::new(Vec::new()).unwrap();
        let (position, skip) = (Position::default(), BTreeSet::new());
        for (split, bytes) in splits {
            let of = SplitOf { file: split.file, input: "in", skip: &skip, position: &position };
            let mut reader = BlockReader::new(
                &bytes[..],
                "in",
                bytes.len() as u64,
                *split,
                InputFormat::Blocks,
                &mut buffer,
            );
            map_split(&*job, &of, &mut reader, &mut collector, |collector, _| {
                if collector.is_full() {
                    collector.write_into(&mut run).unwrap();
                }
                Ok(())
            })
            .unwrap();
        }
        collector.write_into(&mut run).unwrap();
        let (bytes, segments) = run.finish().unwrap();
        let manifest = Manifest { segments, ..manifest(given, bytes.len()) };
        let older = self.work.insert(manifest.file.name.clone(), bytes);
        assert!(older.is_none(), "two attempts have one name");
        manifest
    }

    pub(crate) fn reduce(&mut self, given: &Assignment) -> Result<Manifest, Lost> {
        let bytes = self.reduced(given)?;
        let mut manifest = manifest(given, bytes.len());
        manifest.file.crc = crc32fast::hash(&bytes);
        let older = self.work.insert(manifest.file.name.clone(), bytes);
        assert!(older.is_none(), "two attempts have one name");
        Ok(manifest)
    }

    /// The output of a reduce task.
    pub(crate) fn reduced(&self, given: &Assignment) -> Result<Vec<u8>, Lost> {
        let job = job();
        let mut sources = Vec::new();
        for source in &given.sources {
            let Some(bytes) = self.work.get(&source.name) else {
                return Err(vec![(source.task, source.attempt)]);
            };
            sources.extend(
                source.segments.iter().map(|it| SegmentReader::new(&bytes[..], &source.name, *it).unwrap()),
            );
        }
        let mut out = Output::new(&*job, Vec::new());
        reduce(&*job, sources, &mut out, |_| true).unwrap();
        Ok(out.finish().unwrap().0)
    }

    /// The beginning of a commit, as `gather` does it: what has won may be lost until then.
    pub(crate) fn gather(&mut self, given: &Assignment) -> Result<(), Lost> {
        let missing = given.outputs.iter().position(|file| !self.work.contains_key(&file.name));
        match missing.filter(|_| !self.gathered) {
            Some(place) => Err(vec![(place as u32, given.winners[place])]),
            None => {
                self.gathered = true;
                Ok(())
            }
        }
    }

    /// The next step of a commit, as `files::commit` does it; `None` at its end. The worker may die between any two.
    pub(crate) fn commit_step(&mut self, given: &Assignment, step: usize) -> Result<Option<()>, String> {
        if let Some(file) = given.outputs.get(step) {
            let part = format!("part-{step:05}");
            return match self.work.remove(&file.name) {
                Some(bytes) => {
                    self.output.insert(part, bytes);
                    Ok(Some(()))
                }
                None if self.output.get(&part).is_some_and(|bytes| bytes.len() as u64 == file.bytes) => {
                    Ok(Some(()))
                }
                None => Err(format!("{} is nowhere", file.name)),
            };
        }
        self.successes += 1;
        self.output.insert("_SUCCESS".to_owned(), Vec::new());
        self.work.clear();
        Ok(None)
    }
}
