//! One attempt at one task.

use super::files;
use super::gather::gather;
use super::pace::{Paced, breathe};
use super::site::Site;
use super::store::Store;
use super::store::output::{AsPairs, Aside};
use super::streaming;
use super::talk::trouble::NoTls;
use crate::mapreduce::collect::{Collector, Plan};
use crate::mapreduce::map::Position;
use crate::mapreduce::reduce::{Output, reduce};
use crate::mapreduce::run::{RunWriter, SegmentReader};
use crate::mapreduce::spec::{
    Assignment, AttemptId, FileInfo, JobId, JobSpec, Manifest, TaskId, sources_digest,
};
use crate::mapreduce::{Job, MrError, RecordAt, Registry};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What an attempt shares with the thread that speaks for it.
#[derive(Debug, Default)]
pub struct Shared {
    /// Bytes read by now.
    pub progress: AtomicU64,
    /// Nobody needs it any more.
    pub stop: AtomicBool,
}

/// Why an attempt failed.
#[derive(Debug, Default)]
pub struct Failed {
    /// In words.
    pub what: String,
    /// At which record.
    pub at: Option<RecordAt>,
    /// Outputs of other tasks that can't be read.
    pub lost: Vec<(u32, AttemptId)>,
    /// Another worker can do it.
    pub elsewhere: bool,
}

impl From<MrError> for Failed {
    fn from(error: MrError) -> Self {
        let at = match &error {
            MrError::User { at, .. } => at.clone(),
            _ => None,
        };
        let elsewhere = matches!(error, MrError::Elsewhere(_));
        Self { what: error.to_string(), at, lost: Vec::new(), elsewhere }
    }
}

/// Does tasks, one after the other, and keeps what the next can use.
#[derive(Debug)]
pub struct Executor {
    registry: Registry,
    site: Arc<Site>,
    /// Once it was needed.
    store: Option<Store>,
    /// Of the job that it worked for last.
    current: Option<Current>,
    buffer: Vec<u8>,
}

struct Current {
    id: JobId,
    spec: Arc<JobSpec>,
    job: Arc<dyn Job>,
    collector: Collector,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Executor {
    /// One that knows these jobs.
    pub fn new(registry: Registry, site: Arc<Site>) -> Self {
        Self { registry, site, store: None, current: None, buffer: Vec::new() }
    }

    /// Does a task.
    ///
    /// # Errors
    /// [`Failed`]. A panic of the user's code is one, too.
    pub fn run(
        &mut self,
        given: &Assignment,
        spec: &Arc<JobSpec>,
        shared: &Shared,
    ) -> Result<Manifest, Failed> {
        let position = Position::default();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.attempt(given, spec, shared, &position)
        }));
        match caught {
            Ok(done) => {
                if done.is_err() {
                    self.forget();
                }
                done
            }
            Err(panic) => {
                self.forget();
                let said = panic.downcast_ref::<String>().map(String::as_str);
                let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
                let at = position.get().and_then(|(file, offset)| {
                    let input = match spec.keys_in {
                        None => spec.inputs.get(file as usize)?.path.clone(),
                        Some(_) => position.key(),
                    };
                    Some(RecordAt { input, offset })
                });
                Err(Failed { what: format!("the job's code panicked: {said}"), at, ..Failed::default() })
            }
        }
    }

    fn forget(&mut self) {
        if let Some(current) = &mut self.current {
            current.collector.clear();
        }
    }

    fn attempt(
        &mut self,
        given: &Assignment,
        spec: &Arc<JobSpec>,
        shared: &Shared,
        position: &Position,
    ) -> Result<Manifest, Failed> {
        let shipped = spec.streaming.as_ref().filter(|it| it.has_files).and_then(|it| it.folder.as_ref());
        let ends = matches!(given.task, TaskId::Commit | TaskId::Clean);
        let reads_store = !ends && (spec.keys_in.is_some() || shipped.is_some());
        if self.store.is_none() && (reads_store || spec.keys_out.is_some()) {
            self.store = Some(self.site.connect()?);
        }
        match (given.task, &spec.keys_out, &self.store) {
            (TaskId::Commit, Some(out), Some(store)) => {
                let goes_on = |bytes| went_on(shared, bytes);
                store.publish(spec, out, &given.outputs, &given.counters, goes_on)?;
                return Ok(Manifest::of(given.attempt));
            }
            (TaskId::Clean, Some(out), Some(store)) => {
                store.sweep(spec, out)?;
                return Ok(Manifest::of(given.attempt));
            }
            (TaskId::Commit, ..) => {
                let bring = || match self.site.folder {
                    None => Ok(()),
                    Some(_) => gather(&self.site, spec, given, |bytes| went_on(shared, bytes)),
                };
                files::commit(spec, &given.outputs, &given.counters, bring)?;
                return Ok(Manifest::of(given.attempt));
            }
            (TaskId::Clean, ..) => {
                files::remove(Path::new(&spec.work))?;
                return Ok(Manifest::of(given.attempt));
            }
            (TaskId::Map(_) | TaskId::Reduce(_), _, store) => {
                if let (Some(folder), Some(store)) = (shipped, store) {
                    self.site.make_runs(spec)?;
                    store.fetch_shipped(spec, &given.attempt.to_string(), folder)?;
                }
            }
        }
        self.prepare(given.job, spec)?;
        let Self { current: Some(current), buffer, site, store, .. } = self else {
            return Err(Failed { what: "no job was prepared".to_owned(), ..Failed::default() });
        };
        let store = store.as_ref();
        let name = format!("{}-{}", given.task, given.attempt);
        let attempt = Attempt { given, name, spec, shared, position, job: &current.job, site, store };
        match given.task {
            TaskId::Map(number) if spec.reducers == 0 => attempt.map_to_output(number, buffer),
            TaskId::Map(number) => attempt.map(number, &mut current.collector, buffer),
            _ => attempt.reduce(),
        }
    }

    fn prepare(&mut self, id: JobId, spec: &Arc<JobSpec>) -> Result<(), MrError> {
        // Job numbers of different coordinators may be the same; private folders never are.
        if self.current.as_ref().is_some_and(|current| current.id == id && current.spec.work == spec.work) {
            return Ok(());
        }
        let job: Arc<dyn Job> = match &spec.streaming {
            Some(_) => Arc::new(streaming::Lines),
            None => self.registry.make(&spec.job, &spec.args).map_err(MrError::Rejected)?.into(),
        };
        let plan = Plan {
            job: Arc::clone(&job),
            partitioner: spec.partitioner.clone(),
            partitions: spec.reducers.max(1),
            memory_bytes_max: usize::try_from(spec.memory_bytes).unwrap_or(usize::MAX),
        };
        self.current = Some(Current { id, spec: Arc::clone(spec), job, collector: Collector::new(plan) });
        Ok(())
    }
}

pub(super) struct Attempt<'a> {
    pub(super) given: &'a Assignment,
    /// Nobody else ever has it.
    name: String,
    pub(super) spec: &'a JobSpec,
    shared: &'a Shared,
    pub(super) position: &'a Position,
    pub(super) job: &'a Arc<dyn Job>,
    site: &'a Site,
    pub(super) store: Option<&'a Store>,
}

fn went_on(shared: &Shared, bytes: u64) -> bool {
    breathe();
    shared.progress.fetch_add(bytes, Ordering::Relaxed);
    !shared.stop.load(Ordering::Relaxed)
}

impl Attempt<'_> {
    fn went_on(&self, bytes: u64) -> bool {
        went_on(self.shared, bytes)
    }

    pub(super) fn goes_on(&self, bytes: u64) -> Result<(), MrError> {
        match self.went_on(bytes) {
            true => Ok(()),
            false => Err(MrError::Rejected("the attempt was told to stop".to_owned())),
        }
    }

    fn map(&self, number: u32, collector: &mut Collector, buffer: &mut Vec<u8>) -> Result<Manifest, Failed> {
        let (name, folder) = (self.name.clone(), self.site.make_runs(self.spec)?);
        let io = |what| MrError::io(what, format!("{}/{name}", folder.display()));
        let file = Paced(BufWriter::with_capacity(1 << 20, files::create(&folder, &name)?));
        let mut run = RunWriter::new(file).map_err(io("writing"))?;
        let mut counters = BTreeMap::new();
        let (records_in, bytes_in) = match &self.spec.streaming {
            None => self.map_into(number, collector, buffer, |collector| match collector.is_full() {
                true => collector.write_into(&mut run).map_err(io("writing")),
                false => Ok(()),
            })?,
            Some(commands) => {
                let mut mapper =
                    streaming::Mapper { commands, spec: self.spec, run: &mut run, counters: &mut counters };
                let feed = |out: &mut dyn Write| self.feed(number, buffer, out);
                mapper.map(collector, feed)?
            }
        };
        if !collector.is_empty() {
            match &self.spec.streaming {
                Some(commands) if commands.combiner.is_some() => {
                    let mut mapper = streaming::Mapper {
                        commands,
                        spec: self.spec,
                        run: &mut run,
                        counters: &mut counters,
                    };
                    mapper.combine(collector)?;
                }
                _ => collector.write_into(&mut run).map_err(io("writing"))?,
            }
        }
        for (counter, n) in collector.take_counters() {
            *counters.entry(counter).or_default() += n;
        }
        let bytes = run.bytes();
        let (mut file, segments) = run.finish().map_err(io("writing"))?;
        file.flush().map_err(io("writing"))?;
        let records_out = segments.iter().map(|segment| segment.records).sum();
        let file = FileInfo { name, bytes, at: self.site.address.clone(), ..FileInfo::default() };
        let attempt = self.given.attempt;
        Ok(Manifest { attempt, file, segments, sources: 0, records_in, records_out, bytes_in, counters })
    }

    fn map_to_output(&self, number: u32, buffer: &mut Vec<u8>) -> Result<Manifest, Failed> {
        self.put_out(|out| {
            let mut counters = BTreeMap::new();
            let read = match &self.spec.streaming {
                None => self.map_into(number, out, buffer, |out| self.check(out))?,
                Some(commands) => {
                    let feed = |into: &mut dyn Write| self.feed(number, buffer, into);
                    streaming::map_to_output(commands, self.spec, out, &mut counters, feed)?
                }
            };
            Ok((read, counters))
        })
    }

    fn reduce(&self) -> Result<Manifest, Failed> {
        let (mut sources, mut bytes_in) = (Vec::new(), 0);
        let parts = self.given.sources.iter().map(|source| source.segments.len()).sum();
        for source in &self.given.sources {
            for segment in &source.segments {
                bytes_in += segment.bytes;
                let end = segment.offset + segment.bytes;
                let opened = self.site.open(self.spec, &source.name, source.at.as_deref(), end, parts);
                let file = opened.map_err(|error| Failed {
                    what: error.to_string(),
                    lost: vec![(source.task, source.attempt)],
                    ..Failed::default()
                })?;
                // As `blame` looks for it.
                let path = format!("{}/{}", source.at.as_deref().unwrap_or(&self.spec.work), source.name);
                sources.push(SegmentReader::new(file, &path, *segment)?);
            }
        }
        let records_in: u64 =
            self.given.sources.iter().flat_map(|it| &it.segments).map(|it| it.records).sum();
        let per_record = bytes_in as f64 / records_in.max(1) as f64;
        let progress = |records: u64| self.went_on((records as f64 * per_record) as u64);
        self.put_out(|out| {
            let mut counters = BTreeMap::new();
            let done = match &self.spec.streaming {
                None => reduce(&**self.job, sources, out, progress),
                Some(commands) => {
                    streaming::reduce(commands, self.spec, sources, out, &mut counters, progress)
                }
            };
            done.map_err(|error| self.blame(error))?;
            Ok(((records_in, bytes_in), counters))
        })
    }

    /// Gives `work` somewhere to write the output to, under the attempt's own name. What it returns is records and bytes read, and
    /// counters.
    fn put_out(
        &self,
        work: impl FnOnce(&mut Output<'_, Sink<'_>>) -> Result<((u64, u64), BTreeMap<String, u64>), Failed>,
    ) -> Result<Manifest, Failed> {
        let Some((out, store)) = self.spec.keys_out.as_ref().zip(self.store) else {
            let folder = self.site.make_drafts(self.spec)?;
            let file = files::create(&folder, &self.name)?;
            let mut out = Output::new(&**self.job, Sink::File(file));
            let (read, counters) = work(&mut out)?;
            return self.written(out, read, counters);
        };
        let key_fields = self.spec.streaming.as_ref().map(|commands| commands.key_fields);
        let job = AsPairs { job: &**self.job, key_fields };
        let mut out = Output::new(&job, Sink::Aside(Aside::new(store, self.spec, out, &self.name)));
        match work(&mut out) {
            Ok((read, counters)) => self.written(out, read, counters),
            Err(failed) => {
                if let Sink::Aside(aside) = out.give_up() {
                    aside.give_up();
                }
                Err(failed)
            }
        }
    }

    /// A damaged run file is a lost output of its map task. With a worker that can't be reached, everything is lost that it has, unless it
    /// is there and certificates are what is wrong.
    fn blame(&self, error: MrError) -> Failed {
        let (path, is_unreachable) = match &error {
            MrError::Damaged { path, .. } => (path.clone(), false),
            // Made again, it would be as far away. Somebody has to hear of it.
            MrError::Io { source, .. } if NoTls::is_in(source) => return error.into(),
            MrError::Io { path, source, .. } => (path.clone(), source.kind() != io::ErrorKind::NotFound),
            _ => return error.into(),
        };
        let is_it = |name: &str| path.ends_with(&format!("/{name}"));
        let at = self.given.sources.iter().find(|it| is_it(&it.name)).and_then(|it| it.at.clone());
        let folder = self.site.runs(self.spec);
        let lost = self.given.sources.iter().filter(|source| {
            let with_it = is_unreachable && at.is_some() && source.at == at;
            is_it(&source.name) || (with_it && !folder.join(&source.name).exists())
        });
        let lost = lost.map(|it| (it.task, it.attempt)).collect();
        Failed { what: error.to_string(), lost, ..Failed::default() }
    }

    fn check(&self, out: &mut Output<'_, Sink<'_>>) -> Result<(), MrError> {
        out.take_error().map_or(Ok(()), |error| Err(MrError::io("writing", self.shown())(error)))
    }

    /// The output, in words.
    fn shown(&self) -> String {
        match self.spec.keys_out {
            None => format!("{}/{}", self.spec.work, self.name),
            Some(_) => self.spec.output.clone(),
        }
    }

    fn written(
        &self,
        out: Output<'_, Sink<'_>>,
        (records_in, bytes_in): (u64, u64),
        mut counters: BTreeMap<String, u64>,
    ) -> Result<Manifest, Failed> {
        let io = |what| MrError::io(what, self.shown());
        let (mut sink, written) = out.finish().map_err(io("writing"))?;
        let pieces = match sink.finish() {
            Ok(pieces) => pieces,
            Err(error) => {
                if let Sink::Aside(aside) = &sink {
                    aside.give_up();
                }
                return Err(io("syncing")(error).into());
            }
        };
        for (counter, n) in written.counters {
            *counters.entry(counter).or_default() += n;
        }
        Ok(Manifest {
            attempt: self.given.attempt,
            file: FileInfo {
                name: self.name.clone(),
                bytes: written.bytes,
                crc: written.crc,
                at: self.site.address.clone().filter(|_| !self.site.sees_work(self.spec)),
                pieces,
            },
            segments: Vec::new(),
            sources: sources_digest(self.given.sources.iter().map(|it| (it.task, it.attempt))),
            records_in,
            records_out: written.records,
            bytes_in,
            counters,
        })
    }
}

/// Where output goes.
#[derive(Debug)]
enum Sink<'a> {
    /// A file that is synced before anybody hears of it.
    File(File),
    /// The store.
    Aside(Aside<'a>),
}

impl Sink<'_> {
    /// When it returns, what was written is durable. Pieces in the store.
    fn finish(&mut self) -> io::Result<Vec<(u16, u32)>> {
        match self {
            Self::File(file) => file.sync_data().map(|()| Vec::new()),
            Self::Aside(aside) => aside.finish(),
        }
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Aside(aside) => aside.write(bytes),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
