//! One attempt at one task.

use super::files::{self, ReadFile};
use super::streaming;
use crate::mapreduce::collect::{Collector, Plan};
use crate::mapreduce::job::{Emit, InputFormat};
use crate::mapreduce::map::{Position, SplitOf, map_split};
use crate::mapreduce::reduce::{Output, reduce};
use crate::mapreduce::run::{RunWriter, SegmentReader};
use crate::mapreduce::spec::{Assignment, AttemptId, FileInfo, JobId, JobSpec, Manifest, TaskId};
use crate::mapreduce::split::BlockReader;
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
    /// Outputs of map tasks that can't be read.
    pub lost: Vec<(u32, AttemptId)>,
}

impl From<MrError> for Failed {
    fn from(error: MrError) -> Self {
        let at = match &error {
            MrError::User { at, .. } => at.clone(),
            _ => None,
        };
        Self { what: error.to_string(), at, lost: Vec::new() }
    }
}

/// Does tasks, one after the other, and keeps what the next can use.
#[derive(Debug)]
pub struct Executor {
    registry: Registry,
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
    pub fn new(registry: Registry) -> Self {
        Self { registry, current: None, buffer: Vec::new() }
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
                    let input = spec.inputs.get(file as usize)?.path.clone();
                    Some(RecordAt { input, offset })
                });
                Err(Failed { what: format!("the job's code panicked: {said}"), at, lost: Vec::new() })
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
        match given.task {
            TaskId::Commit => {
                files::commit(spec, &given.outputs, &given.counters)?;
                return Ok(nothing(given.attempt));
            }
            TaskId::Clean => {
                files::remove(Path::new(&spec.work))?;
                return Ok(nothing(given.attempt));
            }
            TaskId::Map(_) | TaskId::Reduce(_) => {}
        }
        self.prepare(given.job, spec)?;
        let Self { current: Some(current), buffer, .. } = self else {
            return Err(Failed { what: "no job was prepared".to_owned(), ..Failed::default() });
        };
        let attempt = Attempt { given, spec, shared, position, job: &current.job };
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

fn nothing(attempt: AttemptId) -> Manifest {
    Manifest {
        attempt,
        file: FileInfo { name: String::new(), bytes: 0, crc: 0 },
        segments: Vec::new(),
        records_in: 0,
        records_out: 0,
        bytes_in: 0,
        counters: BTreeMap::new(),
    }
}

struct Attempt<'a> {
    given: &'a Assignment,
    spec: &'a JobSpec,
    shared: &'a Shared,
    position: &'a Position,
    job: &'a Arc<dyn Job>,
}

impl Attempt<'_> {
    fn name(&self) -> String {
        format!("{}-{}", self.given.task, self.given.attempt)
    }

    fn went_on(&self, bytes: u64) -> bool {
        self.shared.progress.fetch_add(bytes, Ordering::Relaxed);
        !self.shared.stop.load(Ordering::Relaxed)
    }

    fn goes_on(&self, bytes: u64) -> Result<(), MrError> {
        match self.went_on(bytes) {
            true => Ok(()),
            false => Err(MrError::Rejected("the attempt was told to stop".to_owned())),
        }
    }

    /// Maps all splits of a task into `out`; returns records and bytes read.
    fn map_into<E: Emit>(
        &self,
        number: u32,
        out: &mut E,
        buffer: &mut Vec<u8>,
        mut between: impl FnMut(&mut E) -> Result<(), MrError>,
    ) -> Result<(u64, u64), MrError> {
        let (mut records, mut bytes) = (0, 0);
        let splits = self.spec.tasks.get(number as usize).map(Vec::as_slice).unwrap_or_default();
        for split in splits {
            let input = &self.spec.inputs[split.file as usize];
            let file = ReadFile::open_input(input)?;
            let of = SplitOf {
                file: split.file,
                input: &input.path,
                skip: &self.given.skip,
                position: self.position,
            };
            let mut reader =
                BlockReader::new(&file, &input.path, input.bytes, *split, self.job.input(), buffer);
            records += map_split(&**self.job, &of, &mut reader, out, |out, read| {
                self.goes_on(read)?;
                between(out)
            })?;
            file.check(input)?;
            bytes += split.end - split.start;
        }
        Ok((records, bytes))
    }

    fn map(&self, number: u32, collector: &mut Collector, buffer: &mut Vec<u8>) -> Result<Manifest, Failed> {
        let name = self.name();
        let io = |what| MrError::io(what, format!("{}/{name}", self.spec.work));
        let file = BufWriter::with_capacity(1 << 20, files::create(&self.spec.work, &name)?);
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
        let file = FileInfo { name, bytes, crc: 0 };
        let attempt = self.given.attempt;
        Ok(Manifest { attempt, file, segments, records_in, records_out, bytes_in, counters })
    }

    /// Hands the records of a task to a command, line by line.
    fn feed(&self, number: u32, buffer: &mut Vec<u8>, out: &mut dyn Write) -> Result<(u64, u64), MrError> {
        struct Raw<'a>(&'a mut dyn Write, u64, Option<io::Error>);
        impl Emit for Raw<'_> {
            fn emit(&mut self, _: &[u8], value: &[u8]) {
                if self.2.is_none() {
                    self.2 = self.0.write_all(value).err();
                }
                self.1 += memchr::memchr_iter(b'\n', value).count() as u64;
                if !value.ends_with(b"\n") {
                    self.1 += 1;
                    if self.2.is_none() {
                        self.2 = self.0.write_all(b"\n").err();
                    }
                }
            }
            fn counter(&mut self, _: &str, _: u64) {}
        }
        let mut raw = Raw(out, 0, None);
        let (_, bytes) = self.map_into(number, &mut raw, buffer, |raw| match raw.2.take() {
            // Whoever closes its input has read enough; its exit status tells the rest.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                raw.2 = Some(error);
                Ok(())
            }
            Some(error) => Err(MrError::io("writing to", "the mapper")(error)),
            None => Ok(()),
        })?;
        Ok((raw.1, bytes))
    }

    fn map_to_output(&self, number: u32, buffer: &mut Vec<u8>) -> Result<Manifest, Failed> {
        let name = self.name();
        let mut out = Output::new(&**self.job, Synced::new(files::create(&self.spec.work, &name)?));
        let mut counters = BTreeMap::new();
        let (records_in, bytes_in) = match &self.spec.streaming {
            None => self.map_into(number, &mut out, buffer, |out| self.check(out))?,
            Some(commands) => {
                let feed = |into: &mut dyn Write| self.feed(number, buffer, into);
                streaming::map_to_output(commands, self.spec, &mut out, &mut counters, feed)?
            }
        };
        self.written(name, out, (records_in, bytes_in), counters)
    }

    fn reduce(&self) -> Result<Manifest, Failed> {
        let (mut sources, mut bytes_in) = (Vec::new(), 0);
        for source in &self.given.sources {
            let path = Path::new(&self.spec.work).join(&source.name);
            let lost = |error: MrError| Failed {
                what: error.to_string(),
                at: None,
                lost: vec![(source.task, source.attempt)],
            };
            let file = Arc::new(ReadFile::open(&path).map_err(lost)?);
            for segment in &source.segments {
                bytes_in += segment.bytes;
                let path = path.display().to_string();
                sources.push(SegmentReader::new(Arc::clone(&file), &path, *segment)?);
            }
        }
        let name = self.name();
        let mut out = Output::new(&**self.job, Synced::new(files::create(&self.spec.work, &name)?));
        let mut counters = BTreeMap::new();
        let records_in: u64 =
            self.given.sources.iter().flat_map(|it| &it.segments).map(|it| it.records).sum();
        let per_record = bytes_in as f64 / records_in.max(1) as f64;
        let progress = |records: u64| self.went_on((records as f64 * per_record) as u64);
        let done = match &self.spec.streaming {
            None => reduce(&**self.job, sources, &mut out, progress),
            Some(commands) => {
                streaming::reduce(commands, self.spec, sources, &mut out, &mut counters, progress)
            }
        };
        done.map_err(|error| self.blame(error))?;
        self.written(name, out, (records_in, bytes_in), counters)
    }

    /// A damaged run file is a lost output of its map task.
    fn blame(&self, error: MrError) -> Failed {
        let path = match &error {
            MrError::Damaged { path, .. } | MrError::Io { path, .. } => path.clone(),
            _ => return error.into(),
        };
        let is_it = |name: &str| path.ends_with(&format!("/{name}"));
        let lost = self.given.sources.iter().filter(|source| is_it(&source.name));
        Failed { what: error.to_string(), at: None, lost: lost.map(|it| (it.task, it.attempt)).collect() }
    }

    fn check<W: Write>(&self, out: &mut Output<'_, W>) -> Result<(), MrError> {
        let path = || format!("{}/{}", self.spec.work, self.name());
        out.take_error().map_or(Ok(()), |error| Err(MrError::io("writing", path())(error)))
    }

    fn written(
        &self,
        name: String,
        out: Output<'_, Synced>,
        (records_in, bytes_in): (u64, u64),
        mut counters: BTreeMap<String, u64>,
    ) -> Result<Manifest, Failed> {
        let io = |what| MrError::io(what, format!("{}/{name}", self.spec.work));
        let (file, written) = out.finish().map_err(io("writing"))?;
        file.finish().map_err(io("syncing"))?;
        for (counter, n) in written.counters {
            *counters.entry(counter).or_default() += n;
        }
        Ok(Manifest {
            attempt: self.given.attempt,
            file: FileInfo { name, bytes: written.bytes, crc: written.crc },
            segments: Vec::new(),
            records_in,
            records_out: written.records,
            bytes_in,
            counters,
        })
    }
}

/// A file that is synced before anybody hears of it.
#[derive(Debug)]
pub struct Synced {
    file: File,
}

impl Synced {
    fn new(file: File) -> Self {
        Self { file }
    }

    fn finish(self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How records are cut that go to a command: whole blocks of lines.
pub(super) const STREAMED: InputFormat = InputFormat::Blocks;
