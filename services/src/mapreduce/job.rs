//! What a job is: a few functions over bytes.
//!
//! The engine calls [`Job::map`] for every record of the input, sorts and combines what it emits by key, and calls
//! [`Job::reduce`] once for every key, in the order of the keys' bytes within a partition. Both must be functions of what
//! they are given and of nothing else: then the output is that of a sequential run, byte for byte, whatever failed on
//! the way.

use std::collections::BTreeMap;

/// What user code answers with: any error will do.
pub type Done = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// How the input is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputFormat {
    /// One line, without its line feed.
    Lines,
    /// Many whole lines at once, some 16 KiB with their line feeds: for jobs that are faster so than over each line.
    Blocks,
    /// Records of so many bytes.
    Fixed(u32),
    /// A whole file, as in the labs. It has to fit into memory.
    WholeFiles,
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// What it says.
    pub bytes: &'a [u8],
    /// The path of the file that it is from.
    pub input: &'a str,
    /// Where in that file it begins.
    pub offset: u64,
}

/// How values of the same key are put together before they are sent to the reducers, and again there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combiner {
    /// They aren't: the reducer sees every one, in the order of the input.
    None,
    /// They are counts ([`Emit::count`]); the reducer sees their sum.
    Sum,
    /// They are a set; the reducer sees each once, in the order of their bytes.
    Distinct,
    /// By [`Job::fold`]; the reducer sees what that made. It must not matter in which order values are folded.
    Fold,
}

/// Takes what a map or reduce function has to say.
pub trait Emit {
    /// A pair.
    fn emit(&mut self, key: &[u8], value: &[u8]);

    /// Adds to the count of a key (under [`Combiner::Sum`]).
    fn count(&mut self, key: &[u8], n: u64) {
        let mut value = Vec::with_capacity(10);
        super::varint::put(&mut value, n);
        self.emit(key, &value);
    }

    /// Adds one for the key `block[start..end]`. Faster than [`Self::count`], since what is around the key may be read
    /// with it.
    fn count_span(&mut self, block: &[u8], start: usize, end: usize) {
        self.count(&block[start..end], 1);
    }

    /// A pair with the key `block[start..end]`. Faster than [`Self::emit`] where the key is short.
    fn emit_span(&mut self, block: &[u8], start: usize, end: usize, value: &[u8]) {
        self.emit(&block[start..end], value);
    }

    /// Adds to a counter of the job, which is shown at its end. A task that runs twice counts once.
    fn counter(&mut self, name: &str, n: u64);
}

/// The values of one key.
pub trait Values {
    /// The next one.
    fn next(&mut self) -> Option<&[u8]>;

    /// The next one, which is a count.
    fn next_count(&mut self) -> Option<u64> {
        self.next().map(count_of)
    }
}

/// The count that a value stands for (see [`Emit::count`]); 0 if it is none.
pub fn count_of(value: &[u8]) -> u64 {
    super::varint::get(value).map_or(0, |(n, _)| n)
}

/// A job's functions.
pub trait Job: Send + Sync {
    /// How the input is cut.
    fn input(&self) -> InputFormat {
        InputFormat::Lines
    }

    /// How values of one key are put together.
    fn combiner(&self) -> Combiner {
        Combiner::None
    }

    /// Looks at one record, emits pairs.
    ///
    /// # Errors
    /// Whatever the user's code says: the attempt fails and is tried again.
    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done;

    /// Puts `value` into `into`, which is what earlier values of the key have become, under [`Combiner::Fold`].
    fn fold(&self, key: &[u8], into: &mut Vec<u8>, value: &[u8]) {
        let _ = key;
        into.clear();
        into.extend_from_slice(value);
    }

    /// Looks at one key and its values, emits what becomes of them.
    ///
    /// # Errors
    /// As [`Self::map`].
    fn reduce(&self, key: &[u8], values: &mut dyn Values, out: &mut dyn Emit) -> Done;

    /// Which of `partitions` a key goes to, if not where the job's partitioner says.
    fn partition(&self, key: &[u8], partitions: u32) -> Option<u32> {
        let _ = (key, partitions);
        None
    }

    /// Writes a pair that the reducer emitted into the output file.
    fn write(&self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(key);
        out.push(b'\t');
        out.extend_from_slice(value);
        out.push(b'\n');
    }

    /// What a map task of this job can be sampled by, so that every partition gets a range of keys of about the same
    /// size, and the output files one after the other are sorted. `None`: by hash.
    fn sample_key<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let _ = record;
        None
    }

    /// Whether the pairs of the output have keys that mean something, so that they can be keys of the store.
    fn has_keys(&self) -> bool {
        true
    }

    /// Whether there is nothing to reduce: what map tasks emit is the output, one file for each.
    fn map_only(&self) -> bool {
        false
    }

    /// Whether a second attempt at the same time is harmless. Not for jobs that do more than emit.
    fn allows_backups(&self) -> bool {
        true
    }
}

/// Named arguments of a job, as given on the command line (`--arg name=value`).
pub type JobArgs = BTreeMap<String, String>;

/// Makes a job from its arguments.
pub type Maker = fn(&JobArgs) -> Result<Box<dyn Job>, String>;

/// The jobs that a program knows by name.
#[derive(Clone, Default)]
pub struct Registry {
    jobs: BTreeMap<String, (Maker, String)>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.jobs.keys()).finish()
    }
}

impl Registry {
    /// The jobs that come with the program.
    pub fn built_in() -> Self {
        let mut registry = Self::default();
        super::jobs::register(&mut registry);
        registry
    }

    /// Adds a job. A later one of the same name takes its place.
    pub fn add(&mut self, name: &str, what: &str, maker: Maker) {
        self.jobs.insert(name.to_owned(), (maker, what.to_owned()));
    }

    /// Names, and what they do.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.jobs.iter().map(|(name, (_, what))| (name.as_str(), what.as_str()))
    }

    /// Makes the job of that name.
    ///
    /// # Errors
    /// No such job, or its maker's words about the arguments.
    pub fn make(&self, name: &str, args: &JobArgs) -> Result<Box<dyn Job>, String> {
        let Some((maker, _)) = self.jobs.get(name) else {
            let known: Vec<&str> = self.jobs.keys().map(String::as_str).collect();
            return Err(format!("no job is called {name:?}; there are {}", known.join(", ")));
        };
        maker(args).map_err(|error| format!("job {name}: {error}"))
    }
}
