//! The applications of the labs' own tests: they crash, wait, leave marker files and count processes. For tests of the
//! engine, under names that begin with `lab-`.
//!
//! Their marker files go to the folder that `--arg dir=DIR` names.

use crate::hands::pause;
use crate::mapreduce::job::{Done, Emit, InputFormat, Job, JobArgs, Record, Registry, Values};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

/// Adds them to a registry.
pub fn register(registry: &mut Registry) {
    registry.add("lab-crash", "a test: every call may end or delay the process", |args| {
        Lab::make(args, App::Crash)
    });
    registry.add("lab-nocrash", "a test: lab-crash without accidents", |args| Lab::make(args, App::NoCrash));
    registry
        .add("lab-jobcount", "a test: how often map functions ran", |args| Lab::make(args, App::JobCount));
    registry
        .add("lab-early-exit", "a test: some reduce calls take long", |args| Lab::make(args, App::EarlyExit));
    registry.add("lab-mtiming", "a test: map calls at the same time", |args| Lab::make(args, App::MapTiming));
    registry.add("lab-panic", "a test: panics at lines with PANIC in them", |_| Ok(Box::new(Panics)));
    registry.add("lab-rtiming", "a test: reduce calls at the same time", |args| {
        Lab::make(args, App::ReduceTiming)
    });
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum App {
    Crash,
    NoCrash,
    JobCount,
    EarlyExit,
    MapTiming,
    ReduceTiming,
}

#[derive(Debug)]
struct Lab {
    app: App,
    dir: PathBuf,
    /// Every wait is so many times as long as in the labs.
    pace: f64,
}

impl Lab {
    fn make(args: &JobArgs, app: App) -> Result<Box<dyn Job>, String> {
        let pace = args.get("pace").map_or(Ok(1.0), |pace| pace.parse::<f64>());
        let pace = pace.map_err(|_| "--arg pace: not a number".to_owned())?;
        let dir = args.get("dir").map_or_else(std::env::temp_dir, PathBuf::from);
        Ok(Box::new(Self { app, dir, pace }))
    }

    fn wait(&self, seconds: f64) {
        pause(Duration::from_secs_f64(seconds * self.pace));
    }

    /// The lottery of the labs' crash application: a third ends the process, a third waits up to ten seconds.
    fn draw(&self) {
        let lot = random() % 1000;
        if lot < 330 {
            std::process::exit(1);
        } else if lot < 660 {
            self.wait((random() % 10_000) as f64 / 1e3);
        }
    }

    /// How many processes are in the same phase within the next second.
    fn at_the_same_time(&self, phase: &str) -> Result<u64, std::io::Error> {
        let own = self.dir.join(format!("{phase}-{}", std::process::id()));
        fs::write(&own, b"x")?;
        self.wait(0.5);
        let mut count = 0;
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix(phase)?.strip_prefix('-'));
            count += u64::from(pid.is_some_and(|pid| PathBuf::from(format!("/proc/{pid}")).exists()));
        }
        self.wait(0.5);
        fs::remove_file(&own)?;
        Ok(count)
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(0)
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Job for Lab {
    fn input(&self) -> InputFormat {
        InputFormat::WholeFiles
    }

    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done {
        let name = base(record.input);
        match self.app {
            App::Crash | App::NoCrash => {
                if self.app == App::Crash {
                    self.draw();
                }
                out.emit(b"a", name.as_bytes());
                out.emit(b"b", name.len().to_string().as_bytes());
                out.emit(b"c", record.bytes.len().to_string().as_bytes());
                out.emit(b"d", b"xyzzy");
            }
            App::JobCount => {
                let marker = format!("mr-worker-jobcount-{}-{:x}", std::process::id(), random());
                fs::write(self.dir.join(marker), b"x")?;
                self.wait((2000 + random() % 3000) as f64 / 1e3);
                out.emit(b"a", b"x");
            }
            App::EarlyExit => out.emit(name.as_bytes(), b"1"),
            App::MapTiming => {
                let pid = std::process::id();
                let count = self.at_the_same_time("mapping")?;
                out.emit(format!("times-{pid}").as_bytes(), b"1");
                out.emit(format!("parallel-{pid}").as_bytes(), count.to_string().as_bytes());
            }
            App::ReduceTiming => {
                for key in b'a'..=b'j' {
                    out.emit(&[key], b"1");
                }
            }
        }
        Ok(())
    }

    fn reduce(&self, key: &[u8], values: &mut dyn Values, out: &mut dyn Emit) -> Done {
        let mut all = Vec::new();
        while let Some(value) = values.next() {
            all.push(String::from_utf8_lossy(value).into_owned());
        }
        all.sort();
        let value = match self.app {
            App::Crash | App::NoCrash => {
                if self.app == App::Crash {
                    self.draw();
                }
                all.join(" ")
            }
            App::JobCount => {
                let markers = fs::read_dir(&self.dir)?.filter_map(Result::ok);
                let is_marker = |name: &str| name.starts_with("mr-worker-jobcount");
                markers.filter(|it| it.file_name().to_str().is_some_and(is_marker)).count().to_string()
            }
            App::EarlyExit => {
                let key = String::from_utf8_lossy(key);
                if key.contains("sherlock") || key.contains("tom") {
                    self.wait(3.0);
                }
                all.len().to_string()
            }
            App::MapTiming => all.join(" "),
            App::ReduceTiming => self.at_the_same_time("reducing")?.to_string(),
        };
        out.emit(key, value.as_bytes());
        Ok(())
    }

    fn write(&self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(key);
        out.push(b' ');
        out.extend_from_slice(value);
        out.push(b'\n');
    }

    fn allows_backups(&self) -> bool {
        matches!(self.app, App::Crash | App::NoCrash)
    }
}

/// A function with a bug: it can't stand certain lines.
#[derive(Debug)]
struct Panics;

impl Job for Panics {
    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done {
        assert!(memchr::memmem::find(record.bytes, b"PANIC").is_none(), "can't stand this line");
        out.emit(record.bytes, b"");
        Ok(())
    }

    fn reduce(&self, key: &[u8], values: &mut dyn Values, out: &mut dyn Emit) -> Done {
        while values.next().is_some() {
            out.emit(key, b"");
        }
        Ok(())
    }

    fn write(&self, key: &[u8], _: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(key);
        out.push(b'\n');
    }
}
