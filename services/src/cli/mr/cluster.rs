//! `flotilla mr` with `--addr`: jobs whose facts are in a running cluster's store.

use super::super::Failure;
use super::access::{Access, Way};
use super::progress::summary;
use super::{failure, registry};
use crate::hands::{pause, spawn};
use crate::mapreduce::coordinator::{JobState, JobStatus, Request, Response, Settings};
use crate::mapreduce::hands::cluster::find::{Found, Standing};
use crate::mapreduce::hands::cluster::lead::{self, lead};
use crate::mapreduce::hands::files;
use crate::mapreduce::hands::plan::nonce;
use crate::mapreduce::hands::shuffle::{self, Fetcher};
use crate::mapreduce::hands::site::Site;
use crate::mapreduce::hands::store::Store;
use crate::mapreduce::hands::talk::cover::Cover;
use crate::mapreduce::hands::talk::host_of;
use crate::mapreduce::hands::worker::{Transport, work};
use crate::mapreduce::spec::{JobId, JobSpec, KeysOut};
use clap::Args;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Somebody who coordinates is waited for so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// A worker without coordinator and store ends after this.
const WORKER_PATIENCE: Duration = Duration::from_secs(120);
const ADDR: &str = "127.0.0.1:7000";

/// Options of `flotilla mr status`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusOptions {
    /// The job's number [default: all].
    job: Option<u64>,
    /// A core's client address.
    #[arg(long, short, default_value = ADDR, value_name = "HOST:PORT")]
    addr: String,
    #[command(flatten)]
    access: Access,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Options of `flotilla mr list`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListOptions {
    /// A core's client address.
    #[arg(long, short, default_value = ADDR, value_name = "HOST:PORT")]
    addr: String,
    #[command(flatten)]
    access: Access,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Options of `flotilla mr logs`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LogsOptions {
    /// The job's number.
    job: u64,
    /// Only of this task, as `status` names it: map-00000, reduce-00001.
    task: Option<String>,
    /// A core's client address.
    #[arg(long, short, default_value = ADDR, value_name = "HOST:PORT")]
    addr: String,
    #[command(flatten)]
    access: Access,
}

/// Options of `flotilla mr cancel`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CancelOptions {
    /// The job's number.
    job: u64,
    /// A core's client address.
    #[arg(long, short, default_value = ADDR, value_name = "HOST:PORT")]
    addr: String,
    #[command(flatten)]
    access: Access,
}

/// Options of `flotilla mr worker`.
#[derive(Debug, Args)]
pub(in crate::cli) struct WorkerOptions {
    /// A core's client address; more than one may be given, in case a node is down.
    #[arg(long, short, value_name = "HOST:PORT")]
    addr: Vec<String>,
    #[command(flatten)]
    access: Access,
    /// Tasks at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Where to listen when this process coordinates: other machines need an address of this one.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    listen: String,
    /// Where other workers get files of this one; other machines need an address of this one [default: the host of --listen].
    #[arg(long, value_name = "HOST:PORT")]
    serve: Option<String>,
    /// Where files between map and reduce are kept; workers of one machine share it [default: flotilla-mr-UID among the
    /// temporary files].
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// How much CPU time tasks get: `batch`, what nobody else on the machine wants; `normal`, as much as others.
    #[arg(long, value_enum, default_value_t = Class::Batch)]
    class: Class,
    /// End when the process that started this one ends.
    #[arg(long)]
    die_with_parent: bool,
}

/// What tasks are to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Class {
    Batch,
    Normal,
}

impl WorkerOptions {
    /// As `flotilla mr run` starts one: its coordinator is at its standard input.
    pub(super) fn is_local(&self) -> bool {
        self.addr.is_empty()
    }

    /// Where files between map and reduce are kept; made, so that a worker that can't write says so at once.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let Some(folder) = &self.folder else { return usual_folder() };
        let folder = std::path::absolute(folder).map_err(Failure::failed)?;
        let made = std::fs::create_dir_all(&folder);
        made.map_err(|error| Failure::Failed(format!("--folder {}: {error}", folder.display())))?;
        Ok(folder)
    }
}

/// Where workers of this machine keep their files unless they are told otherwise; made for this user alone. Anybody may make things
/// among the temporary files: what somebody else has made there, or may write to, isn't used.
fn usual_folder() -> Result<PathBuf, Failure> {
    let user = rustix::process::getuid().as_raw();
    let folder = std::env::temp_dir().join(format!("flotilla-mr-{user}"));
    let failed = |why: &dyn std::fmt::Display| {
        Failure::Failed(format!("{}: {why}; remove it, or name another with --folder", folder.display()))
    };
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(&error)),
        _ => {}
    }
    let it = std::fs::symlink_metadata(&folder).map_err(|error| failed(&error))?;
    let is_ours = it.is_dir() && it.uid() == user && it.mode() & 0o022 == 0;
    if is_ours { Ok(folder) } else { Err(failed(&"others may write there")) }
}

fn ask(way: Way, request: &Request) -> Result<Response, Failure> {
    found(way)?.call(request).map_err(Failure::Failed)
}

fn found(way: Way) -> Result<Found, Failure> {
    let name = nonce().map_err(Failure::failed)?;
    Ok(Found::new(way.seeds, way.cover, &name, PATIENCE))
}

fn jobs(way: Way, job: Option<u64>) -> Result<Vec<JobStatus>, Failure> {
    match ask(way, &Request::Status { job: job.map(JobId) })? {
        Response::Jobs(jobs) if jobs.is_empty() && job.is_some() => {
            Err(Failure::Failed(format!("there is no job {}", job.unwrap_or_default())))
        }
        Response::Jobs(jobs) => Ok(jobs),
        other => Err(Failure::Failed(format!("an answer that makes no sense: {other:?}"))),
    }
}

fn print_json(jobs: &[JobStatus]) -> Result<(), Failure> {
    let object = serde_json::json!({ "schema": "flotilla-mr-1", "jobs": jobs });
    println!("{}", serde_json::to_string(&object).map_err(Failure::failed)?);
    Ok(())
}

pub(super) fn status(options: &StatusOptions) -> Result<(), Failure> {
    let jobs = jobs(options.access.way(std::slice::from_ref(&options.addr))?, options.job)?;
    if options.json {
        return print_json(&jobs);
    }
    for job in &jobs {
        println!("{}: {}", job.job, summary(job, None));
        if let Some(why) = &job.why {
            println!("  why        {why}");
        }
        for (task, attempt, worker, seconds) in &job.running {
            println!("  running    {task} as {attempt} on {worker} for {seconds} s");
        }
        if job.state == JobState::Running.name() {
            println!("  workers    {}", job.workers);
        }
    }
    Ok(())
}

/// What failed attempts said, each in full.
pub(super) fn logs(options: &LogsOptions) -> Result<(), Failure> {
    let way = options.access.way(std::slice::from_ref(&options.addr))?;
    for failure in jobs(way, Some(options.job))?.iter().flat_map(|job| &job.failures) {
        if options.task.as_ref().is_some_and(|task| *task != failure.task.to_string()) {
            continue;
        }
        println!("{} {}: {}", failure.task, failure.attempt, failure.what);
        if let Some(at) = &failure.at {
            println!("  at the record at byte {} of {}", at.offset, at.input);
        }
    }
    Ok(())
}

pub(super) fn list(options: &ListOptions) -> Result<(), Failure> {
    let jobs = jobs(options.access.way(std::slice::from_ref(&options.addr))?, None)?;
    if options.json {
        return print_json(&jobs);
    }
    for job in &jobs {
        let (maps, reduces) = (job.maps, job.reduces);
        println!(
            "{:<8} {:<10} map {}/{} reduce {}/{}  {}  {}",
            job.job.to_string(),
            job.state,
            maps.0,
            maps.1,
            reduces.0,
            reduces.1,
            job.output,
            job.name
        );
    }
    Ok(())
}

pub(super) fn cancel(options: &CancelOptions) -> Result<(), Failure> {
    let way = options.access.way(std::slice::from_ref(&options.addr))?;
    match ask(way, &Request::Cancel { job: JobId(options.job) })? {
        Response::Refused(why) => Err(Failure::Failed(why)),
        _ => Ok(()),
    }
}

/// Nothing may be there that could be taken for the output.
fn prepare_keys(out: &KeysOut, overwrite: bool, store: &Store) -> Result<(), Failure> {
    let prefix = &out.prefix;
    if overwrite {
        return store.forget_success(prefix).map_err(failure);
    }
    match store.has_prefix(out.shards, prefix).map_err(failure)? {
        true => Err(Failure::Usage(format!(
            "--to-keys {prefix}: there are keys that begin so: name another prefix, or say --overwrite"
        ))),
        false => Ok(()),
    }
}

/// The output is where this program runs. It may be that no worker sees it: then we make it visible ourselves.
fn end_here(way: Way, job: JobId) -> Result<(), Failure> {
    let fetcher = Arc::new(Fetcher::new(way.cover.clone()));
    let site = Arc::new(Site { folder: Some(usual_folder()?), fetcher, ..Site::default() });
    let (ends, shown) = (found(way)?, format!("pid {} submitted it", std::process::id()));
    // Ends with this program.
    let _ = spawn(move || work(ends, registry(), &shown, site, Some(job)));
    Ok(())
}

/// Submits a job and waits for its end.
pub(super) fn run(
    spec: JobSpec,
    (way, store): (Way, Option<&Store>),
    shipped: &[String],
    stop: &AtomicBool,
    observe: impl FnMut(&JobStatus),
) -> Result<JobStatus, Failure> {
    match (&spec.keys_out, store) {
        (Some(out), Some(store)) => prepare_keys(out, spec.overwrite, store)?,
        _ => files::prepare_output(&spec).map_err(failure)?,
    }
    let Some(store) = store.filter(|_| !shipped.is_empty()) else {
        return run_prepared(spec, way, stop, observe);
    };
    let done = match store.ship(&spec, shipped) {
        Ok(()) => run_prepared(spec.clone(), way, stop, observe),
        Err(error) => {
            if spec.keys_out.is_none() {
                files::remove(Path::new(&spec.work)).map_err(failure)?;
            }
            Err(failure(error))
        }
    };
    // What stays is gone after a week.
    let _ = store.remove_shipped(&spec);
    done
}

fn run_prepared(
    spec: JobSpec,
    way: Way,
    stop: &AtomicBool,
    mut observe: impl FnMut(&JobStatus),
) -> Result<JobStatus, Failure> {
    let mut found = found(way.clone())?;
    let work = spec.keys_out.is_none().then(|| spec.work.clone());
    let submitted = found.call(&Request::Submit { spec: Box::new(spec) });
    let job = match submitted {
        Ok(Response::Submitted { job }) => job,
        other => {
            // Nothing is worse than a job that nobody knows; its folder would stay.
            let _ = work.map(|work| files::remove(Path::new(&work)));
            return Err(Failure::Failed(match other {
                Ok(response) => format!("the job was answered with {response:?}"),
                Err(error) => error,
            }));
        }
    };
    let work = work.map(PathBuf::from);
    if work.is_some() {
        end_here(way, job)?;
    }
    loop {
        if stop.load(Ordering::Relaxed) {
            // If it is refused, the job is over, or will be in a moment.
            found.call(&Request::Cancel { job }).map_err(Failure::Failed)?;
        }
        let status = match found.call(&Request::Status { job: Some(job) }).map_err(Failure::Failed)? {
            Response::Jobs(mut jobs) => jobs.pop(),
            _ => None,
        };
        let status = status.ok_or_else(|| Failure::Failed(format!("{job} is forgotten")))?;
        observe(&status);
        if status.state != JobState::Running.name() {
            // After a commit it is gone.
            if let Some(work) = work.filter(|_| status.state != JobState::Committed.name()) {
                files::remove(&work).map_err(failure)?;
            }
            return Ok(status);
        }
        pause(Duration::from_millis(20));
    }
}

/// Works until there is neither coordinator nor store for a while.
pub(super) fn worker(options: &WorkerOptions) -> Result<(), Failure> {
    if options.die_with_parent {
        crate::cli::die_with_parent()?;
    }
    // What goes wrong with files of a job that has ended is only told.
    let _ = crate::cli::logging::start(false);
    let name = nonce().map_err(Failure::failed)?;
    let settings = Settings { poll_ms: 20, lease_ms: 5_000, ..Settings::default() };
    let Way { seeds, cover } = options.access.way(&options.addr)?;
    let serve = match &options.serve {
        Some(serve) => serve.clone(),
        None => {
            format!("{}:0", if options.listen.contains(':') { host_of(&options.listen) } else { "127.0.0.1" })
        }
    };
    if let Some(cover) = &cover {
        rehearse(cover, &[&options.listen, &serve])?;
    }
    let folder = options.folder()?;
    let address = shuffle::serve(&folder, &serve, cover.clone());
    let address = address.map_err(|error| Failure::Failed(format!("--serve {serve}: {error}")))?;
    let door = lead::open(&options.listen, cover.clone());
    let door = door.map_err(|error| Failure::Failed(format!("--listen {}: {error}", options.listen)))?;
    if door.is_open_to_all() {
        tracing::warn!(
            listen = options.listen,
            "whoever reaches this port can submit jobs, whose commands run as this user: keep it on a network of its own, or see --tls-cert"
        );
    }
    let site = Arc::new(Site {
        folder: Some(folder),
        seeds: Some(seeds.clone()),
        address: Some(address),
        fetcher: Arc::new(Fetcher::new(cover.clone())),
        gives_way: options.class == Class::Batch,
    });
    let (standing, leader, at) = (Arc::new(Standing::default()), name.clone(), seeds.clone());
    let knows = Arc::clone(&standing);
    let leading = spawn(move || lead(&at, door, &leader, settings, &knows));
    let mut working: Vec<_> = (0..options.threads)
        .map(|number| {
            let name = format!("{name}-{number}");
            let found = Found::new(seeds.clone(), cover.clone(), &name, WORKER_PATIENCE);
            let (found, site) = (found.of_worker(Arc::clone(&standing)), Arc::clone(&site));
            let shown = format!("pid {} thread {number}", std::process::id());
            spawn(move || work(found, registry(), &shown, site, None))
        })
        .collect();
    loop {
        if leading.is_finished() {
            return Err(Failure::failed("the coordinator's thread panicked"));
        }
        if working.iter().all(std::thread::JoinHandle::is_finished) {
            let why = working.pop().and_then(|last| last.join().ok()?.err());
            let why = why.unwrap_or_else(|| "its threads have ended".to_owned());
            return Err(Failure::Failed(format!("this worker can't work: {why}")));
        }
        pause(Duration::from_millis(50));
    }
}

/// What others would refuse of this worker's certificate is told before it does anything.
fn rehearse(cover: &Cover, listens: &[&str]) -> Result<(), Failure> {
    listens.iter().try_for_each(|listen| cover.rehearse(host_of(listen)).map_err(Failure::Usage))
}
