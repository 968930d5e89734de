//! `flotilla-bench mapreduce`: whole jobs, from starting the program to a synced and committed output, beside what people use.
//!
//! | module | what |
//! |---|---|
//! | [`beside`] | the store's clients while its nodes' workers are at a job |
//! | [`corpus`] | the inputs: text and records |
//! | [`ours`] | `flotilla mr run`, undisturbed and with a worker killed or slowed down |
//! | [`floor`] | a program that counts words and can do nothing else; the labs' design, for comparison |
//! | [`ended`] | a job that ran: its time, its CPU time, its memory |
//! | [`peers`] | GNU tools, ripgrep, DuckDB, PySpark |

mod beside;
mod corpus;
mod ended;
mod floor;
mod ours;
mod peers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use crate::compare::result::{TargetInfo, Unit};
use crate::error::{BenchError, Result};
use crate::figures::{Figures, Measured, targets};
use crate::interrupt::Interrupt;
use crate::kv::outcome::Round;
use crate::machine::Machine;
use crate::recorder::Percentiles;
use crate::report::{Goal, note};
use crate::turn::{Load, SUBJECT, Seen, Turns, Way};
use peers::{Peer, Task};

/// Others whose ratio is told though it has no goal.
const OTHERS: [&str; 4] = ["gnu", "duckdb", "pyspark", "the labs' design"];
/// Of a job of ours, by default, on the machines that this is measured on.
const WORKERS: usize = 2;

/// MapReduce, side by side with GNU tools, DuckDB and PySpark, and with a program that can only count words
///
/// Word count, inverted index, grep and sort over a corpus, and word count over eight books. Ours, GNU tools and ripgrep are timed
/// from the start of a process to its end, and our output is synced; DuckDB and PySpark once they have started.
/// `bench/peers/mapreduce.sh` installs the peers.
#[derive(Clone, Debug, Args)]
pub(crate) struct MapReduceArgs {
    /// Under 40 s in all: 256 MiB instead of 1 GiB, without PySpark
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds, each with everything in it; ratios are medians of them [default: 3; 2 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rounds: Option<u16>,
    /// A folder on a real disk, in which a temporary one is made [default: here]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Books to make the text of [default: shared/data/books of a parent folder; words made up otherwise]
    #[arg(long)]
    pub(crate) books: Option<PathBuf>,
    /// The `flotilla` program [default: the one beside this]
    #[arg(long)]
    pub(crate) flotilla: Option<PathBuf>,
    /// Only the parts whose name contains this: `wc`, `index`, `grep`, `sort`, `books`, `killed`, `slow`, `beside`
    #[arg(long, default_value = "")]
    pub(crate) only: String,
    /// Leave the peers out
    #[arg(long)]
    pub(crate) no_peers: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

struct Bench<'a> {
    args: &'a MapReduceArgs,
    site: Site<'a>,
    figures: Figures,
    turns: Turns<'a>,
}

/// Where it is measured, and what with.
#[derive(Clone, Copy)]
struct Site<'a> {
    folder: &'a Path,
    flotilla: &'a Path,
    corpus: &'a corpus::Corpus,
    peers: &'a [Peer],
    interrupt: &'a Interrupt,
    quick: bool,
}

/// What a job reads.
#[derive(Clone, Copy)]
struct Input<'a> {
    path: &'a Path,
    bytes: u64,
}

/// Runs the command.
pub(crate) fn run(args: &MapReduceArgs) -> Result<()> {
    measure(args, &Interrupt::install()?)?.print(args.json)
}

/// All rounds.
pub(crate) fn measure(args: &MapReduceArgs, interrupt: &Interrupt) -> Result<Measured> {
    let from = Instant::now();
    let folder = crate::kv::folder(args.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    note("making the corpus");
    let bytes = if args.quick { 256 << 20 } else { 1 << 30 };
    let corpus = corpus::Corpus::make(folder.path(), args.books.as_deref(), bytes)?;
    let (peers, missing) = if args.no_peers { Default::default() } else { peers::installed(args.quick) };
    missing.iter().for_each(|reason| note(&format!("without {reason}")));
    let flotilla = ours::program(args.flotilla.as_deref())?;
    let site = Site {
        folder: folder.path(),
        flotilla: &flotilla,
        corpus: &corpus,
        peers: &peers,
        interrupt,
        quick: args.quick,
    };
    let (figures, turns) = (Figures::default(), Turns::new(interrupt));
    let (mut bench, mut floors) = (Bench { args, site, figures, turns }, Vec::new());
    let each = Duration::from_millis(if args.quick { 200 } else { 500 });
    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 3 });
    for round in 0..usize::from(rounds) {
        note(&format!("round {}/{rounds}", round + 1));
        floors.push(crate::floor::measure(folder.path(), each, interrupt)?);
        bench.turns.begin(round);
        bench.round()?;
    }
    let Bench { figures, turns, .. } = bench;
    let cells = turns.cells();
    let targets = targets(&cells, |target| about(target, &peers));
    Ok(Measured { machine, targets, floors, figures, cells, from })
}

/// What a target is.
fn about(target: &str, peers: &[Peer]) -> TargetInfo {
    let of = |peer: &Peer| peer.version.clone();
    let version = peers.iter().find(|peer| peer.name == target).map_or_else(String::new, of);
    let (version, processes, what) = match target {
        SUBJECT => (
            env!("CARGO_PKG_VERSION").to_owned(),
            WORKERS + 1,
            "`flotilla mr run`: from the start of the program to its synced and committed output",
        ),
        "gnu" => (version, 1, "a pipeline of GNU tools: from its start to its end, unsynced"),
        "ripgrep" => (version, 1, "from its start to its end, unsynced"),
        "duckdb" => (version, 1, "two threads, as a library of Python: once it has started, unsynced"),
        "pyspark" => (
            version,
            2,
            "DataFrames on local[2]: once its session has started, unsynced; a cold Java machine",
        ),
        "floor" => (version, 1, "two threads that can only count words: in this program, synced"),
        "the labs' design" => (version, 1, "files of JSON, a line for each pair: in this program, unsynced"),
        beside::ALONE => {
            (env!("CARGO_PKG_VERSION").to_owned(), 3, "three nodes, whose workers have nothing to do")
        }
        beside::BESIDE => (env!("CARGO_PKG_VERSION").to_owned(), 3, "the same, whose workers count words"),
        _ => (version, WORKERS + 1, "`flotilla mr run`, disturbed"),
    };
    TargetInfo { name: target.to_owned(), version, durability: what.to_owned(), processes }
}

impl<'a> Site<'a> {
    fn text(&self) -> Input<'a> {
        Input { path: &self.corpus.text, bytes: self.corpus.text_bytes }
    }

    fn records(&self) -> Input<'a> {
        Input { path: &self.corpus.records, bytes: self.corpus.records_bytes }
    }

    fn books(&self) -> Input<'a> {
        Input { path: &self.corpus.books, bytes: self.corpus.books_bytes }
    }

    /// A job of ours, undisturbed.
    fn ours(&self, input: Input<'_>, arguments: &[&str]) -> Result<Seen> {
        let ran = ours::run(self.flotilla, self.folder, input.path, arguments, |_| {})?;
        Ok(ran.job.seen(input.bytes))
    }

    /// Every peer that knows the job.
    fn peers(&self, job: &'static str, input: Input<'a>, pattern: &'a str) -> impl Iterator<Item = Way<'a>> {
        let (folder, interrupt, quick) = (self.folder, self.interrupt, self.quick);
        let those = self.peers.iter().filter(move |peer| peer.can(job));
        those.map(move |peer| {
            Way::new(peer.name, move || peer.run(&Task { job, input, pattern, folder, interrupt, quick }))
        })
    }
}

/// A job as a load: what is counted is its input.
fn load(job: &'static str, input: Input<'_>) -> Load {
    let bytes = usize::try_from(input.bytes).unwrap_or(usize::MAX);
    let (unit, none) = (Unit::Megabyte, Duration::ZERO);
    // Both kinds of grep are one part.
    let set = if job.starts_with("grep") { "grep" } else { job };
    Load { set, name: job.to_owned(), unit, clients: 1, bytes, warmup: none, seconds: none }
}

/// Rounds by target.
type Rounds = BTreeMap<&'static str, Round>;

impl Bench<'_> {
    fn round(&mut self) -> Result<()> {
        type Part<'a> = (&'static str, fn(&mut Bench<'a>) -> Result<()>);
        let parts: [Part<'_>; 8] = [
            ("wc", Bench::word_count),
            ("index", Bench::index),
            ("grep", Bench::grep),
            ("sort", Bench::sort),
            ("books", Bench::books),
            ("killed", Bench::killed),
            ("slow", Bench::slow),
            ("beside", Bench::beside),
        ];
        for (_, part) in parts.iter().filter(|(name, _)| name.contains(&self.args.only)) {
            part(self)?;
        }
        Ok(())
    }

    /// What has no goal: ours beside each other.
    fn observe(&mut self, job: &str, found: &Rounds, others: &[&str]) {
        for (other, round) in found.iter().filter(|(other, _)| others.contains(other)) {
            let ratio = found[SUBJECT].operations_per_second / round.operations_per_second;
            self.figures.observe(
                &format!("{job}_vs_{}", other.trim_start_matches("the ").replace('\'', "").replace(' ', "_")),
                ratio,
            );
        }
    }

    fn word_count(&mut self) -> Result<()> {
        let site = self.site;
        let text = site.text();
        let floor = move || Ok(ended::timed(floor::word_count(text.path, site.folder)?, text.bytes));
        let mut ways =
            vec![Way::new(SUBJECT, move || site.ours(text, &["--job", "wc"])), Way::new("floor", floor)];
        ways.extend(site.peers("wc", text, ""));
        let found = self.turns.each(&load("wc", text), ways)?;
        let ours = found[SUBJECT].operations_per_second;
        self.figures.ratio("wc_mb_per_second", ours, Goal::AtLeast(350.0));
        self.figures.ratio("wc_vs_floor", ours / found["floor"].operations_per_second, Goal::AtLeast(0.6));
        self.observe("wc", &found, &OTHERS);
        Ok(())
    }

    fn index(&mut self) -> Result<()> {
        let (site, text) = (self.site, self.site.text());
        let ours = self.turns.one(&load("index", text), SUBJECT, || site.ours(text, &["--job", "index"]))?;
        self.figures.ratio("index_mb_per_second", ours.operations_per_second, Goal::AtLeast(300.0));
        Ok(())
    }

    fn grep(&mut self) -> Result<()> {
        let (site, text) = (self.site, self.site.text());
        for (job, pattern) in [("grep", "Frankenstein"), ("grep_regex", r"[A-Z][a-z]+ (said|asked) ")] {
            let argument = format!("pattern={pattern}");
            let ours = || site.ours(text, &["--job", "grep", "--arg", &argument]);
            let mut ways = vec![Way::new(SUBJECT, ours)];
            ways.extend(site.peers(job, text, pattern));
            let found = self.turns.each(&load(job, text), ways)?;
            if let Some(theirs) = found.get("ripgrep") {
                let ratio = found[SUBJECT].operations_per_second / theirs.operations_per_second;
                self.figures.ratio(&format!("{job}_vs_ripgrep"), ratio, Goal::AtLeast(0.5));
            }
        }
        Ok(())
    }

    fn sort(&mut self) -> Result<()> {
        let (site, records) = (self.site, self.site.records());
        let mut ways = vec![Way::new(SUBJECT, move || site.ours(records, &["--job", "sort"]))];
        ways.extend(site.peers("sort", records, ""));
        let found = self.turns.each(&load("sort", records), ways)?;
        let (ours, peak) = (found[SUBJECT].operations_per_second, found[SUBJECT].memory_bytes.unwrap_or(0));
        self.figures.ratio("sort_mb_per_second", ours, Goal::AtLeast(250.0));
        self.figures.ratio("sort_memory_mib", peak as f64 / f64::from(1 << 20), Goal::AtMost(256.0));
        self.observe("sort", &found, &OTHERS);
        Ok(())
    }

    fn books(&mut self) -> Result<()> {
        let (site, books) = (self.site, self.site.books());
        let mut ways = vec![Way::new(SUBJECT, move || site.ours(books, &["--job", "wc"]))];
        if !self.args.no_peers {
            let labs = move || Ok(ended::timed(floor::labs_design(books.path, site.folder)?, books.bytes));
            ways.push(Way::new("the labs' design", labs));
        }
        ways.extend(site.peers("books", books, ""));
        let found = self.turns.each(&load("books", books), ways)?;
        let seconds = books.bytes as f64 / 1e6 / found[SUBJECT].operations_per_second;
        self.figures.ratio("books_seconds", seconds, Goal::AtMost(0.15));
        self.observe("books", &found, &OTHERS);
        Ok(())
    }

    /// One of two workers is killed midway.
    fn killed(&mut self) -> Result<()> {
        let (site, text) = (self.site, self.site.text());
        let (arguments, load) = (["--job", "wc", "--workers", "2"], load("killed", text));
        let whole = self.turns.one(&load, SUBJECT, || site.ours(text, &arguments))?;
        let whole_seconds = text.bytes as f64 / 1e6 / whole.operations_per_second;
        let midway = Duration::from_secs_f64(whole_seconds / 2.0);
        let killed = self.turns.one(&load, "a worker killed", || {
            let kill = |pid| ours::kill_one(pid, midway);
            let ran = ours::run(site.flotilla, site.folder, text.path, &arguments, kill)?;
            match ran.failures {
                0 => Err(BenchError::Failed {
                    scenario: "killed".to_owned(),
                    target: SUBJECT.to_owned(),
                    reason: "the worker was killed after the job's end".to_owned(),
                }),
                _ => Ok(ran.job.seen(text.bytes)),
            }
        })?;
        // What one worker can lose is a task; no task is longer than this.
        let lost = f64::from(128 << 20) / text.bytes as f64;
        self.figures.ratio(
            "wc_killed_vs_whole",
            whole.operations_per_second / killed.operations_per_second,
            Goal::AtMost(((1.05 + lost.min(0.5)) * 100.0).round() / 100.0),
        );
        Ok(())
    }

    /// The store's clients beside a job.
    fn beside(&mut self) -> Result<()> {
        let [alone, beside] = beside::measure(self.site, &mut self.turns)?;
        let ratio = |of: fn(&Percentiles) -> f64| beside.latency(of) / alone.latency(of);
        self.figures.ratio("kv_p99_beside_a_job_vs_alone", ratio(|it| it.p99), Goal::AtMost(2.0));
        self.figures.observe("kv_p50_beside_a_job_vs_alone", ratio(|it| it.p50));
        Ok(())
    }

    /// One of four workers runs a tenth of the time.
    fn slow(&mut self) -> Result<()> {
        let (site, text) = (self.site, self.site.text());
        let (arguments, load) = (["--job", "wc", "--workers", "4"], load("slow", text));
        let slowed = || {
            let ran = ours::run(site.flotilla, site.folder, text.path, &arguments, ours::slow_one)?;
            Ok(ran.job.seen(text.bytes))
        };
        let whole = || site.ours(text, &arguments);
        let ways = vec![Way::new(SUBJECT, whole), Way::new("a worker slowed", slowed)];
        let found = self.turns.each(&load, ways)?;
        let speed = |target: &str| found[target].operations_per_second;
        self.figures.ratio(
            "wc_slowed_vs_whole",
            speed(SUBJECT) / speed("a worker slowed"),
            Goal::AtMost(1.2),
        );
        Ok(())
    }
}
