//! What a job is told to be: plain data, as it is submitted, logged and sent to the workers.

use super::error::RecordAt;
use super::job::JobArgs;
use super::partition::Partitioner;
use super::run::Segment;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A job's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u64);

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "job-{}", self.0)
    }
}

/// An input file as it was when the job was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Where it is.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last written, nanoseconds since 1970.
    pub modified_ns: u64,
}

/// Keys of the store as input: the value of each is read as a file would be, its name being the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysIn {
    /// Shards of the cluster; a task reads some of them.
    pub shards: u16,
    /// Which keys, as `KEYS` has it.
    pub pattern: Option<String>,
    /// The first key.
    pub first: Option<String>,
    /// The last key.
    pub last: Option<String>,
}

/// Keys of the store as output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysOut {
    /// Shards of the cluster.
    pub shards: u16,
    /// What the key of every pair gets before it.
    pub prefix: String,
}

/// Part of an input file, or a shard's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Which of the job's inputs, or which shard.
    pub file: u32,
    /// Its first byte.
    pub start: u64,
    /// The byte after its last.
    pub end: u64,
}

/// Commands in place of functions: Hadoop Streaming's contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streaming {
    /// Reads records as lines, writes pairs as lines.
    pub mapper: String,
    /// Reads sorted pairs, writes fewer.
    pub combiner: Option<String>,
    /// Reads sorted pairs, writes the output; none: what mappers write is the output.
    pub reducer: Option<String>,
    /// Variables for all of them.
    pub env: BTreeMap<String, String>,
    /// How many of a line's fields, which tabs separate, are the key.
    pub key_fields: u32,
    /// Whether the commands run in the job's folder of shipped files.
    pub has_files: bool,
    /// Where that is on this machine, if not in the job's own folder.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What people call it.
    pub name: String,
    /// Which of the registered jobs.
    pub job: String,
    /// Its arguments.
    pub args: JobArgs,
    /// Commands in place of a registered job.
    pub streaming: Option<Streaming>,
    /// The input, if it is files.
    pub inputs: Vec<InputFile>,
    /// The input, if it is keys.
    #[serde(default)]
    pub keys_in: Option<KeysIn>,
    /// The input, cut into tasks.
    pub tasks: Vec<Vec<Split>>,
    /// The output's folder, or in words which keys.
    pub output: String,
    /// The output, if it is keys.
    #[serde(default)]
    pub keys_out: Option<KeysOut>,
    /// Where attempts write, within it: a name that no other job has. A job that is submitted twice under one is one. With keys as
    /// output it is only a name.
    pub work: String,
    /// Whether an older output there is to be replaced.
    pub overwrite: bool,
    /// Reduce tasks, which is output files; 0: map tasks write the output.
    pub reducers: u32,
    /// How keys are spread over them.
    pub partitioner: Partitioner,
    /// A map task's memory for what it emits.
    pub memory_bytes: u64,
    /// A task fails the job when so many attempts have failed.
    pub attempts_max: u32,
    /// Records that failed twice are left out and reported.
    pub skip_bad_records: bool,
    /// Slow attempts get a competitor.
    pub backups: bool,
}

impl JobSpec {
    /// What no other job has in its names.
    pub fn nonce(&self) -> &str {
        self.work.rsplit('/').next().unwrap_or(&self.work)
    }
}

/// A task of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskId {
    /// One of [`JobSpec::tasks`].
    Map(u32),
    /// One of the partitions.
    Reduce(u32),
    /// Making the output visible.
    Commit,
    /// Removing what a job that failed has left.
    Clean,
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Map(number) => write!(f, "map-{number:05}"),
            Self::Reduce(number) => write!(f, "reduce-{number:05}"),
            Self::Commit => f.write_str("commit"),
            Self::Clean => f.write_str("clean"),
        }
    }
}

/// Names an attempt at a task, for ever: no two coordinators give the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The coordinator's term.
    pub term: u64,
    /// Counted within it.
    pub counter: u64,
}

impl std::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.term, self.counter)
    }
}

/// A file that an attempt has written, or what it has put aside in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its name in the job's private folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// CRC-32 of all of it; of an output file only, since a run file's blocks have their own.
    pub crc: u32,
    /// Where the worker that has it serves it to others; none: it is where everybody sees it.
    #[serde(default)]
    pub at: Option<String>,
    /// Of what is put aside: how many pieces in which shards.
    #[serde(default)]
    pub pieces: Vec<(u16, u32)>,
}

/// What an attempt has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Who.
    pub attempt: AttemptId,
    /// The file: a run file or an output file.
    pub file: FileInfo,
    /// Where in a run file the partitions are.
    pub segments: Vec<Segment>,
    /// Of a reduce task: [`sources_digest`] of what it read.
    #[serde(default)]
    pub sources: u64,
    /// Records read.
    pub records_in: u64,
    /// Pairs written.
    pub records_out: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// The job's counters.
    pub counters: BTreeMap<String, u64>,
}

/// What a worker gets to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// For which job.
    pub job: JobId,
    /// Which task.
    pub task: TaskId,
    /// Under which name.
    pub attempt: AttemptId,
    /// Records to leave out.
    pub skip: BTreeSet<RecordAt>,
    /// Of a reduce task: the map tasks' files and the segments in them, in the order of the tasks.
    pub sources: Vec<Source>,
    /// Of a commit: the files that won, in the order of the output, and the job's counters.
    pub outputs: Vec<FileInfo>,
    /// See `outputs`: whose they are.
    #[serde(default)]
    pub winners: Vec<AttemptId>,
    /// See `outputs`.
    pub counters: BTreeMap<String, u64>,
}

impl Manifest {
    /// Of an attempt that leaves nothing of its own, as a commit.
    pub fn of(attempt: AttemptId) -> Self {
        Self {
            attempt,
            file: FileInfo::default(),
            segments: Vec::new(),
            sources: 0,
            records_in: 0,
            records_out: 0,
            bytes_in: 0,
            counters: BTreeMap::new(),
        }
    }
}

/// Stands for the attempts whose output a reduce task has read.
pub fn sources_digest(sources: impl IntoIterator<Item = (u32, AttemptId)>) -> u64 {
    let mix = |digest: u64, n: u64| (digest.rotate_left(23) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    sources.into_iter().fold(1, |digest, (task, attempt)| {
        mix(mix(mix(digest, u64::from(task)), attempt.term), attempt.counter)
    })
}

/// A map task's part for a reduce task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Of which map task.
    pub task: u32,
    /// Of which attempt.
    pub attempt: AttemptId,
    /// In which file.
    pub name: String,
    /// See [`FileInfo::at`].
    #[serde(default)]
    pub at: Option<String>,
    /// Where.
    pub segments: Vec<Segment>,
}
