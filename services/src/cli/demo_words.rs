//! The demo's MapReduce job: a text whose words are known, counted by `flotilla mr run`.

use super::Failure;
use crate::hands::{Stopwatch, pause};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The text, about.
const BYTES: usize = 96 << 20;
const FILES: usize = 8;
const SYLLABLES: [&str; 16] = [
    "sail", "mast", "keel", "oar", "wind", "tide", "port", "bow", "deck", "helm", "knot", "reef", "buoy",
    "spar", "hull", "crew",
];

/// What came of it.
#[derive(Debug)]
pub(super) struct Words {
    /// Of text.
    pub(super) bytes: u64,
    /// From the job's start to its end.
    pub(super) seconds: f64,
    /// Whether every count was right.
    pub(super) is_right: bool,
    /// What the store did meanwhile.
    pub(super) writes: u64,
}

/// Makes a text in `folder`, has its words counted, checks the counts.
///
/// `acknowledged` says how many writes the store has acknowledged.
pub(super) fn count(
    folder: &Path,
    stop: &AtomicBool,
    acknowledged: impl Fn() -> u64,
) -> Result<Words, Failure> {
    let (input, output) = (folder.join("in"), folder.join("out"));
    fs::create_dir_all(&input).map_err(Failure::failed)?;
    let (mut expected, mut state, mut bytes) = (BTreeMap::<String, u64>::new(), 1_u64, 0);
    // One piece of text, repeated: it is the counting that is to take time.
    let mut piece = String::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    while piece.len() < 1 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Small numbers are frequent, as some words are.
        let (wide, narrow) = ((state >> 33) as usize % 4096, (state >> 50) as usize % 4096);
        let number = wide * narrow / 4096;
        let word = [number % 16, number / 16 % 16, number / 256].map(|place| SYLLABLES[place]).concat();
        piece.push_str(&word);
        piece.push(if state >> 61 == 0 { '\n' } else { ' ' });
        *counts.entry(word).or_default() += 1;
    }
    piece.push('\n');
    let times = BYTES / FILES / piece.len();
    for file in 0..FILES {
        let text = piece.repeat(times);
        bytes += text.len() as u64;
        fs::write(input.join(format!("{file}.txt")), text).map_err(Failure::failed)?;
    }
    for (word, n) in counts {
        expected.insert(word, n * (FILES * times) as u64);
    }
    let before = acknowledged();
    let seconds = run(&input, &output, stop)?;
    let writes = acknowledged() - before;
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&output).map_err(Failure::failed)? {
        let path = entry.map_err(Failure::failed)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("part-")) {
            let text = fs::read_to_string(&path).map_err(Failure::failed)?;
            let counts = text.lines().filter_map(|line| line.split_once('\t'));
            found.extend(counts.map(|(word, n)| (word.to_owned(), n.parse().unwrap_or(0))));
        }
    }
    fs::remove_dir_all(folder).map_err(Failure::failed)?;
    Ok(Words { bytes, seconds, is_right: found == expected, writes })
}

fn run(input: &Path, output: &Path, stop: &AtomicBool) -> Result<f64, Failure> {
    let clock = Stopwatch::start();
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let mut job = Command::new(program)
        .args(["mr", "run", "--json", "--job", "wc", "--input"])
        .arg(input)
        .arg("--output")
        .arg(output)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(Failure::failed)?;
    loop {
        match job.try_wait().map_err(Failure::failed)? {
            Some(status) if status.success() => return Ok(clock.elapsed().as_secs_f64()),
            Some(status) => return Err(Failure::Failed(format!("the MapReduce job failed: {status}"))),
            None if stop.load(Ordering::Relaxed) => {
                // It ends by the same signal, or with us.
                let _ = job.kill();
                let _ = job.wait();
                return Err(Failure::Failed(String::new()));
            }
            None => pause(Duration::from_millis(5)),
        }
    }
}
