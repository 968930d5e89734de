//! From what people ask for to a job: inputs are found and cut, keys are sampled.

use super::files::{self, ReadFile};
use super::store::Store;
use crate::mapreduce::collect::Collector;
use crate::mapreduce::job::InputFormat;
use crate::mapreduce::map::{Position, SplitOf, map_split};
use crate::mapreduce::spec::{InputFile, JobSpec, KeysIn, KeysOut, Split, Streaming};
use crate::mapreduce::split::{self, BlockReader};
use crate::mapreduce::{Job, JobArgs, MrError, Partitioner, Registry};
use std::collections::BTreeSet;
use std::path::Path;

/// The folder of shipped files within a job's own.
pub const FILES: &str = "files";
/// Records that keys are sampled from, and the places they are read at.
const SAMPLES: usize = 20_000;
const SAMPLED_PLACES: u64 = 40;
const SAMPLED_BYTES: u64 = 128 << 10;

/// What people say about a job.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// A registered job.
    pub job: String,
    /// Its arguments.
    pub args: JobArgs,
    /// Commands instead.
    pub streaming: Option<Streaming>,
    /// Files to ship to where the commands run.
    pub files: Vec<String>,
    /// Input patterns.
    pub inputs: Vec<String>,
    /// Keys as input instead.
    pub keys_in: Option<KeysIn>,
    /// The output's folder.
    pub output: String,
    /// Keys as output instead.
    pub keys_out: Option<KeysOut>,
    /// Whether to replace what is there.
    pub overwrite: bool,
    /// Reduce tasks; `None`: as many as seem right.
    pub reducers: Option<u32>,
    /// Workers that there will be, for the size of tasks.
    pub workers: u32,
    /// No task of a large job reads less.
    pub split_bytes: u64,
    /// A worker's memory.
    pub memory_bytes: u64,
    /// Attempts that may fail.
    pub attempts_max: u32,
    /// See [`JobSpec::skip_bad_records`].
    pub skip_bad_records: bool,
    /// See [`JobSpec::backups`].
    pub backups: bool,
}

/// Makes a job of a wish. `store`: of a job whose input is keys.
///
/// # Errors
/// [`MrError::Rejected`]: what is wrong with it; [`MrError::Io`] and [`MrError::Store`] of the inputs.
pub fn plan(wish: Wish, registry: &Registry, store: Option<&Store>) -> Result<JobSpec, MrError> {
    let job: Box<dyn Job> = match &wish.streaming {
        Some(_) => Box::new(super::streaming::Lines),
        None => registry.make(&wish.job, &wish.args).map_err(MrError::Rejected)?,
    };
    let inputs = match wish.keys_in {
        None => files::find_inputs(&wish.inputs)?,
        Some(_) => Vec::new(),
    };
    let (output, work) = match &wish.keys_out {
        None => output_folder(&wish.output, &inputs)?,
        Some(out) if !job.has_keys() => {
            return Err(MrError::Rejected(format!(
                "--to-keys {}: the output of {} has no keys, only lines",
                out.prefix, wish.job
            )));
        }
        Some(out) => (format!("keys {}*", out.prefix), format!("_work-{}", nonce()?)),
    };
    let total: u64 = inputs.iter().map(|input| input.bytes).sum();
    let map_only = match &wish.streaming {
        Some(streaming) => streaming.reducer.is_none(),
        None => job.map_only(),
    };
    let reducers = match (map_only, wish.reducers) {
        (true, _) => 0,
        (false, Some(reducers)) => reducers.max(1),
        (false, None) if wish.keys_in.is_some() => wish.workers.max(1),
        (false, None) => reducers_for(total, wish.workers, job.combiner()),
    };
    let (partitioner, tasks) = match (&wish.keys_in, store) {
        (Some(keys), Some(store)) => {
            (sample_keys(&*job, store, keys, reducers)?, split::plan_shards(keys.shards))
        }
        _ => {
            let partitioner = sample(&*job, &inputs, total, reducers)?;
            (partitioner, split::plan(&inputs, job.input(), wish.split_bytes, u64::from(wish.workers)))
        }
    };
    let name = match &wish.streaming {
        Some(streaming) => streaming.mapper.clone(),
        None => wish.job.clone(),
    };
    let mut streaming = wish.streaming;
    if let Some(streaming) = &mut streaming {
        streaming.has_files = !wish.files.is_empty();
        // Where a worker finds them; see `ship_files`.
        streaming.env.insert("FLOTILLA_FILES".to_owned(), wish.files.join("\n"));
    }
    Ok(JobSpec {
        name,
        job: wish.job,
        args: wish.args,
        streaming,
        inputs,
        keys_in: wish.keys_in,
        tasks,
        work,
        output,
        keys_out: wish.keys_out,
        overwrite: wish.overwrite,
        reducers,
        partitioner,
        memory_bytes: wish.memory_bytes / 2,
        attempts_max: wish.attempts_max.max(1),
        skip_bad_records: wish.skip_bad_records,
        backups: wish.backups && job.allows_backups(),
    })
}

/// The output's folder, and a job's own within it.
fn output_folder(wished: &str, inputs: &[InputFile]) -> Result<(String, String), MrError> {
    let output = std::path::absolute(wished).map_err(MrError::io("resolving", wished))?;
    let Some(output) = output.to_str().map(str::to_owned) else {
        return Err(MrError::Rejected(format!("--output {wished}: its name isn't UTF-8")));
    };
    if let Some(inside) = inputs.iter().find(|input| Path::new(&input.path).starts_with(&output)) {
        return Err(MrError::Rejected(format!("--output {output}: the input {} is in it", inside.path)));
    }
    let work = format!("{output}/_work-{}", nonce()?);
    Ok((output, work))
}

/// Copies the files that a streaming job ships into its folder.
///
/// # Errors
/// [`MrError::Io`].
pub fn ship_files(spec: &JobSpec) -> Result<(), MrError> {
    let Some(streaming) = spec.streaming.as_ref().filter(|streaming| streaming.has_files) else {
        return Ok(());
    };
    let folder = Path::new(&spec.work).join(FILES);
    std::fs::create_dir_all(&folder).map_err(MrError::io("creating", folder.display()))?;
    for file in streaming.env.get("FLOTILLA_FILES").into_iter().flat_map(|files| files.lines()) {
        let Some(name) = Path::new(file).file_name() else {
            return Err(MrError::Rejected(format!("--file {file}: that isn't a file")));
        };
        std::fs::copy(file, folder.join(name)).map_err(MrError::io("shipping", file))?;
    }
    Ok(())
}

/// As many reducers as workers where little is left to reduce; more where all of the input comes through, so that each
/// has a part that is soon done.
fn reducers_for(total: u64, workers: u32, combiner: crate::mapreduce::Combiner) -> u32 {
    let workers = workers.max(1);
    if combiner != crate::mapreduce::Combiner::None {
        return if total < 16 << 20 { 1 } else { workers };
    }
    let parts = u32::try_from(total / (64 << 20)).unwrap_or(u32::MAX).min(1024);
    parts.next_multiple_of(workers).max(if total < 1 << 20 { 1 } else { workers })
}

/// A name that nobody else has.
///
/// # Errors
/// [`MrError::Io`] if there is no randomness.
pub fn nonce() -> Result<String, MrError> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| std::io::Read::read_exact(&mut random, &mut bytes))
        .map_err(MrError::io("reading", "/dev/urandom"))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

/// Ranges of keys of about the same size, if the job wants them.
fn sample(job: &dyn Job, inputs: &[InputFile], total: u64, reducers: u32) -> Result<Partitioner, MrError> {
    if reducers <= 1 || job.sample_key(b"").is_none() || job.input() == InputFormat::WholeFiles {
        return Ok(Partitioner::Hash);
    }
    let mut taken = Sample { job, seen: 0, keys: Vec::new() };
    let (mut buffer, step) = (Vec::new(), (total / SAMPLED_PLACES).max(1));
    let mut before = 0_u64;
    for (number, input) in (0..).zip(inputs) {
        // The places are even over all inputs, one behind the other.
        let mut place = before.next_multiple_of(step);
        let file = ReadFile::open_input(input)?;
        while place < before + input.bytes {
            let start = place - before;
            let split = Split { file: number, start, end: (start + SAMPLED_BYTES).min(input.bytes) };
            let mut reader =
                BlockReader::new(&file, &input.path, input.bytes, split, job.input(), &mut buffer);
            while let Some((_, block)) = reader.next_block()? {
                taken.lines(block);
            }
            place += step;
        }
        before += input.bytes;
    }
    Ok(Partitioner::from_sample(taken.keys, reducers))
}

/// The same for keys of the store, from the first page of some shards.
fn sample_keys(job: &dyn Job, store: &Store, keys: &KeysIn, reducers: u32) -> Result<Partitioner, MrError> {
    if reducers <= 1 || job.sample_key(b"").is_none() || job.input() == InputFormat::WholeFiles {
        return Ok(Partitioner::Hash);
    }
    let mut taken = Sample { job, seen: 0, keys: Vec::new() };
    store.sample(keys, |value| taken.lines(value))?;
    Ok(Partitioner::from_sample(taken.keys, reducers))
}

struct Sample<'a> {
    job: &'a dyn Job,
    seen: usize,
    keys: Vec<Vec<u8>>,
}

impl Sample<'_> {
    fn lines(&mut self, block: &[u8]) {
        for line in block.split(|byte| *byte == b'\n') {
            self.seen += 1;
            // Every so many, so that all places are in it.
            if let Some(key) = self.job.sample_key(line)
                && self.keys.len() < SAMPLES
                && self.seen % 4 == 1
            {
                self.keys.push(key.to_vec());
            }
        }
    }
}

/// The output of a sequential run: one thread, no files between. For tests and comparisons.
///
/// # Errors
/// As the job, and [`MrError::Io`] of the inputs.
pub fn sequential(spec: &JobSpec, registry: &Registry) -> Result<Vec<Vec<u8>>, MrError> {
    use crate::mapreduce::reduce::{Output, reduce};
    use crate::mapreduce::run::{RunWriter, SegmentReader};
    let job: std::sync::Arc<dyn Job> =
        registry.make(&spec.job, &spec.args).map_err(MrError::Rejected)?.into();
    let partitions = spec.reducers.max(1);
    let plan = crate::mapreduce::collect::Plan {
        job: std::sync::Arc::clone(&job),
        partitioner: spec.partitioner.clone(),
        partitions,
        memory_bytes_max: usize::MAX,
    };
    let mut collector = Collector::new(plan);
    let (position, skip, mut buffer) = (Position::default(), BTreeSet::new(), Vec::new());
    for split in spec.tasks.iter().flatten() {
        let input = &spec.inputs[split.file as usize];
        let file = ReadFile::open_input(input)?;
        let of = SplitOf { file: split.file, input: &input.path, skip: &skip, position: &position };
        let mut reader = BlockReader::new(&file, &input.path, input.bytes, *split, job.input(), &mut buffer);
        map_split(&*job, &of, &mut reader, &mut collector, |_: &mut Collector, _| Ok(()))?;
    }
    let memory = || MrError::io("writing to", "memory");
    let mut run = RunWriter::new(Vec::new()).map_err(memory())?;
    collector.write_into(&mut run).map_err(memory())?;
    let (file, segments) = run.finish().map_err(memory())?;
    let mut outputs = Vec::new();
    for partition in 0..partitions {
        let of_it = segments.iter().filter(|segment| segment.partition == partition);
        let sources: Result<Vec<_>, _> =
            of_it.map(|segment| SegmentReader::new(&file[..], "memory", *segment)).collect();
        let mut out = Output::new(&*job, Vec::new());
        reduce(&*job, sources?, &mut out, |_| true)?;
        outputs.push(out.finish().map_err(memory())?.0);
    }
    let _ = collector.take_counters();
    Ok(outputs)
}
