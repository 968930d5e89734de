//! `flotilla mr run`: a job on this machine, from submission to its committed output.

use super::super::{Failure, interrupted};
use super::access::{Access, Way};
use super::progress::{Progress, summary};
use super::{failure, registry};
use crate::mapreduce::coordinator::{JobStatus, Settings};
use crate::mapreduce::hands::local::{self, LocalOptions};
use crate::mapreduce::hands::plan::{Wish, plan};
use crate::mapreduce::hands::store::Store;
use crate::mapreduce::spec::{KeysIn, KeysOut, Streaming};
use clap::Args;

/// Options of `flotilla mr run`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// A job by name; `flotilla mr jobs` lists them.
    #[arg(long, required_unless_present = "mapper", conflicts_with = "mapper")]
    job: Option<String>,
    /// An argument of the job.
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    args: Vec<String>,
    /// A command as mapper: lines in, lines `key<TAB>value` out. Run by `sh -c`.
    #[arg(long, value_name = "CMD")]
    mapper: Option<String>,
    /// A command that shortens sorted pairs before they are sent on.
    #[arg(long, value_name = "CMD", requires = "mapper")]
    combiner: Option<String>,
    /// A command as reducer: sorted lines in, output lines out; NONE: what mappers write is the output.
    #[arg(long, value_name = "CMD", requires = "mapper")]
    reducer: Option<String>,
    /// Fields of a line, which tabs separate, that are the key.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    key_fields: u32,
    /// A file to ship to where the commands run.
    #[arg(long, value_name = "FILE", requires = "mapper")]
    file: Vec<String>,
    /// A variable for the commands.
    #[arg(long = "env", value_name = "NAME=VALUE", requires = "mapper")]
    env: Vec<String>,
    /// Input: a file, a folder, or a pattern in quotes.
    #[arg(long, short, required_unless_present_any = ["from_keys", "from_range"], value_name = "PATH")]
    input: Vec<String>,
    /// Input from the store: the values of the keys that match a pattern, as KEYS has it.
    #[arg(long, value_name = "PATTERN", requires = "addr", conflicts_with = "input")]
    from_keys: Option<String>,
    /// Input from the store: the values of the keys from the one to the other; either may be left out.
    #[arg(long, value_name = "FIRST..LAST", requires = "addr", conflicts_with = "input")]
    from_range: Option<String>,
    /// The output's folder.
    #[arg(long, short, required_unless_present = "to_keys", value_name = "DIR")]
    output: Option<String>,
    /// Output to the store: every pair becomes a key that begins so.
    #[arg(long, value_name = "PREFIX", requires = "addr", conflicts_with = "output")]
    to_keys: Option<String>,
    /// Replace an output that is there. Keys of an older one that this one hasn't stay.
    #[arg(long)]
    overwrite: bool,
    /// A core's client address of a running cluster: its workers do the job, and no death of one process ends it.
    #[arg(long, short, value_name = "HOST:PORT")]
    addr: Option<String>,
    #[command(flatten)]
    access: Access,
    /// Worker processes [default: one for each CPU].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    workers: Option<u32>,
    /// Output files, each of which one reduce task writes [default: as the input's size asks for].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65535))]
    reducers: Option<u32>,
    /// The least that a map task of a large job reads, in MiB.
    #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=4096))]
    split_mib: u64,
    /// A worker's memory for pairs, in MiB; what is more goes to disk.
    #[arg(long, default_value_t = 128, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=16384))]
    memory_mib: u64,
    /// The job fails when an attempt at one task has failed so often.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    attempts: u32,
    /// Leave out records at which the job has failed twice, and report them.
    #[arg(long)]
    skip_bad_records: bool,
    /// No second attempts at tasks that take long.
    #[arg(long)]
    no_backups: bool,
    /// Seconds after which a silent worker is given up.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS", conflicts_with = "addr")]
    lease: f64,
    /// Seconds without any worker after which the job fails.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS", conflicts_with = "addr")]
    grace: f64,
    /// Minutes without progress after which an attempt is given up.
    #[arg(long, default_value_t = 10.0, value_name = "MINUTES", conflicts_with = "addr")]
    stuck: f64,
    /// Don't replace workers that end.
    #[arg(long, hide = true)]
    no_replacements: bool,
    /// Print what came of it as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let stop = interrupted()?;
    let progress = Progress::new();
    let workers = match options.workers {
        Some(workers) => workers,
        None => std::thread::available_parallelism().map_or(2, |cpus| u32::try_from(cpus.get()).unwrap_or(2)),
    };
    if let Some(addr) = &options.addr {
        let way: Way = options.access.way(std::slice::from_ref(addr))?;
        let store = match options.uses_store() {
            true => Some(Store::connect(&way.seeds).map_err(failure)?),
            false => None,
        };
        let shards = store.as_ref().map(Store::shards).transpose().map_err(failure)?;
        let wish = options.wish(workers, shards.unwrap_or(1))?;
        let spec = plan(wish, &registry(), store.as_ref()).map_err(failure)?;
        let status = super::cluster::run(spec, (way, store.as_ref()), &options.file, &stop, |status| {
            progress.show(status)
        });
        progress.clear();
        return report(&status?, progress.seconds(), options.json);
    }
    let spec = plan(options.wish(workers, 1)?, &registry(), None).map_err(failure)?;
    let local = LocalOptions {
        workers,
        program: std::env::current_exe().map_err(Failure::failed)?,
        arguments: vec!["mr".to_owned(), "worker".to_owned()],
        settings: options.settings(),
        replace_workers: !options.no_replacements,
    };
    let status = local::run(spec, &local, &stop, |status| progress.show(status));
    progress.clear();
    let status = status.map_err(failure)?;
    let seconds = progress.seconds();
    report(&status, seconds, options.json)
}

/// Prints what came of a job; anything but a committed one is a failure.
fn report(status: &JobStatus, seconds: f64, json: bool) -> Result<(), Failure> {
    let said = if json {
        let mut object = serde_json::to_value(status).map_err(Failure::failed)?;
        object["schema"] = "flotilla-mr-1".into();
        object["seconds"] = seconds.into();
        object.to_string()
    } else {
        summary(status, Some(seconds))
    };
    if status.state == "committed" {
        println!("{said}");
        return Ok(());
    }
    if json {
        println!("{said}");
    } else {
        eprintln!("{said}");
    }
    Err(Failure::Failed(match &status.why {
        Some(why) => format!("{} {}: {why}", status.name, status.state),
        None => format!("{} {}", status.name, status.state),
    }))
}

impl Options {
    fn uses_store(&self) -> bool {
        let uses_keys = self.from_keys.is_some() || self.from_range.is_some() || self.to_keys.is_some();
        uses_keys || !self.file.is_empty()
    }

    fn keys_in(&self, shards: u16) -> Result<Option<KeysIn>, Failure> {
        if self.from_keys.is_none() && self.from_range.is_none() {
            return Ok(None);
        }
        let (mut first, mut last) = (None, None);
        if let Some(range) = &self.from_range {
            let Some((from, to)) = range.split_once("..") else {
                return Err(Failure::Usage(format!("--from-range {range}: write FIRST..LAST")));
            };
            let end = |key: &str| (!key.is_empty()).then(|| key.to_owned());
            (first, last) = (end(from), end(to));
        }
        Ok(Some(KeysIn { shards, pattern: self.from_keys.clone(), first, last }))
    }

    fn keys_out(&self, shards: u16) -> Result<Option<KeysOut>, Failure> {
        match &self.to_keys {
            Some(prefix) if prefix.is_empty() => {
                Err(Failure::Usage("--to-keys wants a prefix that nothing else has".to_owned()))
            }
            prefix => Ok(prefix.clone().map(|prefix| KeysOut { shards, prefix })),
        }
    }

    fn wish(&self, workers: u32, shards: u16) -> Result<Wish, Failure> {
        let streaming = match &self.mapper {
            None => None,
            Some(mapper) => Some(Streaming {
                mapper: mapper.clone(),
                combiner: self.combiner.clone(),
                reducer: self.reducer.clone().filter(|reducer| reducer != "NONE"),
                env: pairs("--env", &self.env)?,
                key_fields: self.key_fields,
                has_files: false,
                folder: None,
            }),
        };
        Ok(Wish {
            job: self.job.clone().unwrap_or_default(),
            args: pairs("--arg", &self.args)?,
            streaming,
            files: self.file.clone(),
            inputs: self.input.clone(),
            keys_in: self.keys_in(shards)?,
            output: self.output.clone().unwrap_or_default(),
            keys_out: self.keys_out(shards)?,
            overwrite: self.overwrite,
            reducers: self.reducers,
            workers,
            split_bytes: self.split_mib << 20,
            memory_bytes: self.memory_mib << 20,
            attempts_max: self.attempts,
            skip_bad_records: self.skip_bad_records,
            backups: !self.no_backups,
        })
    }

    fn settings(&self) -> Settings {
        let ms = |seconds: f64| (seconds.clamp(0.05, 1e6) * 1e3) as u64;
        let lease_ms = ms(self.lease);
        Settings {
            lease_ms,
            silence_ms: (lease_ms / 4).clamp(300, 2000),
            grace_ms: ms(self.grace),
            stuck_ms: ms(self.stuck * 60.0),
            ..Settings::default()
        }
    }
}

fn pairs(flag: &str, given: &[String]) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    let pair = |text: &String| {
        let pair = text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| Failure::Usage(format!("{flag} {text}: write NAME=VALUE")))
    };
    given.iter().map(pair).collect()
}
