//! `flotilla-bench mapreduce`: whole jobs, from starting the program to a synced and committed output, beside what people use.
//!
//! | module | what |
//! |---|---|
//! | [`corpus`] | the inputs: text and records |
//! | [`ours`] | `flotilla mr run`, undisturbed and with a worker killed or slowed down |
//! | [`floor`] | a program that counts words and can do nothing else; the labs' design, for comparison |
//! | [`peers`] | GNU tools, ripgrep, DuckDB, PySpark |

mod corpus;
mod floor;
mod ours;
mod peers;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::error::{BenchError, Result};
use crate::figures::{Figures, Found, number};
use crate::interrupt::Interrupt;
use crate::machine::Machine;
use crate::recorder::median;
use crate::report::{self, Goal, note};

/// MapReduce, side by side with GNU tools, DuckDB and PySpark, and with a program that can only count words
///
/// Word count, inverted index, grep and sort over a corpus, and word count over eight books. Everything is timed from the
/// start of a process to its end; our output is synced. `bench/peers/mapreduce.sh` installs the peers.
#[derive(Clone, Debug, Args)]
pub(crate) struct MapReduceArgs {
    /// Under 40 s in all: 256 MiB instead of 1 GiB, without PySpark
    #[arg(long)]
    quick: bool,
    /// Rounds, each with everything in it; ratios are medians of them [default: 3; 2 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// A folder on a real disk, in which a temporary one is made [default: here]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Books to make the text of [default: shared/data/books of a parent folder; words made up otherwise]
    #[arg(long)]
    books: Option<PathBuf>,
    /// The `flotilla` program [default: the one beside this]
    #[arg(long)]
    flotilla: Option<PathBuf>,
    /// Only the parts whose name contains this: `wc`, `index`, `grep`, `sort`, `books`, `killed`, `slow`
    #[arg(long, default_value = "")]
    only: String,
    /// Leave the peers out
    #[arg(long)]
    no_peers: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One job by one program in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobResult {
    pub(crate) job: &'static str,
    pub(crate) target: &'static str,
    pub(crate) seconds: f64,
    pub(crate) megabytes_per_second: f64,
}

#[derive(Serialize)]
struct Floors {
    /// Two threads that count words over the same text, and write their counts; none if that was left out.
    word_count_mb_per_second: Option<f64>,
}

struct Bench<'a> {
    args: &'a MapReduceArgs,
    folder: &'a Path,
    flotilla: PathBuf,
    corpus: corpus::Corpus,
    interrupt: &'a Interrupt,
    figures: Figures,
    results: Vec<JobResult>,
    floors: Vec<f64>,
}

/// Runs the command.
pub(crate) fn run(args: &MapReduceArgs) -> Result<()> {
    let from = Instant::now();
    let interrupt = Interrupt::install()?;
    let folder = crate::kv::folder(args.dir.as_deref())?;
    let machine = Machine::of(folder.path());
    note("making the corpus");
    let bytes = if args.quick { 256 << 20 } else { 1 << 30 };
    let corpus = corpus::Corpus::make(folder.path(), args.books.as_deref(), bytes)?;
    let mut bench = Bench {
        args,
        folder: folder.path(),
        flotilla: ours::program(args.flotilla.as_deref())?,
        corpus,
        interrupt: &interrupt,
        figures: Figures::default(),
        results: Vec::new(),
        floors: Vec::new(),
    };
    for round in 1..=args.rounds.unwrap_or(if args.quick { 2 } else { 3 }) {
        note(&format!("round {round}"));
        bench.round(round == 1)?;
    }
    let Bench { figures, results, floors, .. } = bench;
    let floors =
        Floors { word_count_mb_per_second: (!floors.is_empty()).then(|| median(floors.iter().copied())) };
    Found { machine, floors, figures, results, from }.print(args.json, shown)
}

impl Bench<'_> {
    fn round(&mut self, first: bool) -> Result<()> {
        if self.begins("wc")? {
            self.word_count(first)?;
        }
        if self.begins("index")? {
            let ours = self.ours("index", &["--job", "index"], Input::Text)?;
            self.figures.ratio("index_mb_per_second", ours.0, Goal::AtLeast(300.0));
        }
        if self.begins("grep")? {
            self.grep()?;
        }
        if self.begins("sort")? {
            self.sort(first)?;
        }
        if self.begins("books")? {
            self.books(first)?;
        }
        if self.begins("killed")? {
            self.killed()?;
        }
        if self.begins("slow")? {
            self.slow()?;
        }
        Ok(())
    }

    fn begins(&self, part: &str) -> Result<bool> {
        self.interrupt.check()?;
        let begins = part.contains(&self.args.only);
        if begins {
            note(&format!("  {part}"));
        }
        Ok(begins)
    }

    fn input(&self, input: Input) -> (&Path, u64) {
        match input {
            Input::Text => (&self.corpus.text, self.corpus.text_bytes),
            Input::Records => (&self.corpus.records, self.corpus.records_bytes),
            Input::Books => (&self.corpus.books, self.corpus.books_bytes),
        }
    }

    /// A job of ours: its megabytes a second, and its peak of memory in MiB.
    fn ours(&mut self, job: &'static str, arguments: &[&str], input: Input) -> Result<(f64, f64)> {
        let (path, bytes) = self.input(input);
        let ran = ours::run(&self.flotilla, self.folder, path, arguments, |_| {})?;
        let rate = self.result(job, "flotilla", ran.seconds, bytes);
        Ok((rate, ran.peak_mib))
    }

    fn result(&mut self, job: &'static str, target: &'static str, seconds: f64, bytes: u64) -> f64 {
        let megabytes_per_second = bytes as f64 / 1e6 / seconds;
        self.results.push(JobResult { job, target, seconds, megabytes_per_second });
        megabytes_per_second
    }

    /// Every peer that knows the job, in the first round only: they are slow, and there is no goal to miss.
    fn peers(&mut self, job: &'static str, input: Input, ours: f64, first: bool) -> Result<()> {
        if self.args.no_peers || !first {
            return Ok(());
        }
        for peer in peers::of(job, self.args.quick) {
            self.interrupt.check()?;
            let (path, bytes) = self.input(input);
            match peers::run(&peer, job, path, self.folder, bytes)? {
                Some((seconds, bytes)) => {
                    let rate = self.result(job, peer.name, seconds, bytes);
                    self.figures.observe(&format!("{job}_vs_{}", peer.name), ours / rate);
                }
                None => note(&format!("    without {}: bench/peers/mapreduce.sh installs it", peer.name)),
            }
        }
        Ok(())
    }

    fn word_count(&mut self, first: bool) -> Result<()> {
        let (path, bytes) = self.input(Input::Text);
        let seconds = floor::word_count(path, self.folder)?;
        let floor = self.result("wc", "floor", seconds, bytes);
        self.floors.push(floor);
        let (ours, _) = self.ours("wc", &["--job", "wc"], Input::Text)?;
        self.figures.ratio("wc_mb_per_second", ours, Goal::AtLeast(350.0));
        self.figures.ratio("wc_vs_floor", ours / floor, Goal::AtLeast(0.6));
        self.peers("wc", Input::Text, ours, first)
    }

    fn grep(&mut self) -> Result<()> {
        let patterns = [
            ("grep", "Frankenstein", Goal::AtLeast(0.5)),
            ("grep_regex", r"[A-Z][a-z]+ (said|asked) ", Goal::AtLeast(0.5)),
        ];
        for (job, pattern, goal) in patterns {
            let argument = format!("pattern={pattern}");
            let (ours, _) = self.ours(job, &["--job", "grep", "--arg", &argument], Input::Text)?;
            let (path, bytes) = self.input(Input::Text);
            if let Some(seconds) = peers::ripgrep(path, pattern, self.folder)? {
                let theirs = self.result(job, "ripgrep", seconds, bytes);
                self.figures.ratio(&format!("{job}_vs_ripgrep"), ours / theirs, goal);
            }
        }
        Ok(())
    }

    fn sort(&mut self, first: bool) -> Result<()> {
        let (ours, peak) = self.ours("sort", &["--job", "sort"], Input::Records)?;
        self.figures.ratio("sort_mb_per_second", ours, Goal::AtLeast(250.0));
        self.figures.ratio("sort_memory_mib", peak, Goal::AtMost(256.0));
        self.peers("sort", Input::Records, ours, first)
    }

    fn books(&mut self, first: bool) -> Result<()> {
        let (path, bytes) = self.input(Input::Books);
        let ran = ours::run(&self.flotilla, self.folder, path, &["--job", "wc"], |_| {})?;
        self.result("books", "flotilla", ran.seconds, bytes);
        self.figures.ratio("books_seconds", ran.seconds, Goal::AtMost(0.15));
        if first && !self.args.no_peers {
            let seconds = floor::labs_design(self.input(Input::Books).0, self.folder)?;
            self.result("books", "the labs' design", seconds, bytes);
            self.figures.observe("books_vs_labs_design", seconds / ran.seconds);
        }
        self.peers("books", Input::Books, bytes as f64 / 1e6 / ran.seconds, first)
    }

    /// One of two workers is killed midway.
    fn killed(&mut self) -> Result<()> {
        let (path, bytes) = (self.corpus.text.clone(), self.corpus.text_bytes);
        let arguments = ["--job", "wc", "--workers", "2"];
        let whole = ours::run(&self.flotilla, self.folder, &path, &arguments, |_| {})?;
        let midway = std::time::Duration::from_secs_f64(whole.seconds / 2.0);
        let killed =
            ours::run(&self.flotilla, self.folder, &path, &arguments, |pid| ours::kill_one(pid, midway))?;
        if killed.failures == 0 {
            return Err(BenchError::Failed {
                scenario: "killed".to_owned(),
                target: "flotilla".to_owned(),
                reason: "the worker was killed after the job's end".to_owned(),
            });
        }
        self.result("wc, a worker killed", "flotilla", killed.seconds, bytes);
        // What one worker can lose is a task; no task is longer than this.
        let lost = f64::from(128 << 20) / bytes as f64;
        self.figures.ratio(
            "wc_killed_vs_whole",
            killed.seconds / whole.seconds,
            Goal::AtMost(1.05 + lost.min(0.5)),
        );
        Ok(())
    }

    /// One of four workers runs a tenth of the time.
    fn slow(&mut self) -> Result<()> {
        let (path, bytes) = (self.corpus.text.clone(), self.corpus.text_bytes);
        let arguments = ["--job", "wc", "--workers", "4"];
        let whole = ours::run(&self.flotilla, self.folder, &path, &arguments, |_| {})?;
        let slowed = ours::run(&self.flotilla, self.folder, &path, &arguments, ours::slow_one)?;
        self.result("wc, a worker slowed", "flotilla", slowed.seconds, bytes);
        self.figures.ratio("wc_slowed_vs_whole", slowed.seconds / whole.seconds, Goal::AtMost(1.2));
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Input {
    Text,
    Records,
    Books,
}

/// The table for people.
fn shown(_: &Floors, results: &[JobResult]) -> String {
    let rows = results.iter().map(|it| {
        let mut row = vec![it.job.to_owned(), it.target.to_owned()];
        row.extend([it.seconds, it.megabytes_per_second].map(number));
        row
    });
    report::table(&["job", "target", "seconds", "MB/s"], &rows.collect::<Vec<_>>())
}
