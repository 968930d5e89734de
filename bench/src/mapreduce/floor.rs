//! What a word count costs without an engine, and how the labs' own design does it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::ours::clear;
use crate::error::{BenchError, Result};

const SLOTS: usize = 1 << 17;

/// Words of up to 16 bytes lie in their slot; longer ones in a map.
struct Counts {
    slots: Vec<(u128, u64)>,
    long: BTreeMap<Vec<u8>, u64>,
}

impl Counts {
    fn new() -> Self {
        Self { slots: vec![(0, 0); SLOTS], long: BTreeMap::new() }
    }

    fn add(&mut self, word: &[u8], n: u64) {
        if word.len() > 16 {
            *self.long.entry(word.to_vec()).or_default() += n;
            return;
        }
        let mut padded = [0; 16];
        padded[..word.len()].copy_from_slice(word);
        let key = u128::from_le_bytes(padded);
        let mixed = u128::from(key as u64 ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from((key >> 64) as u64 ^ 0xe703_7ed1_a0b4_28db);
        let mut place = (mixed as u64 ^ (mixed >> 64) as u64) as usize % SLOTS;
        loop {
            let slot = &mut self.slots[place];
            if slot.0 == key {
                slot.1 += n;
                return;
            }
            if slot.1 == 0 {
                *slot = (key, n);
                return;
            }
            place = (place + 1) % SLOTS;
        }
    }

    /// A byte at a time.
    fn text(&mut self, text: &[u8]) {
        let mut start = None;
        for (at, byte) in text.iter().enumerate() {
            match (byte.is_ascii_alphabetic(), start) {
                (true, None) => start = Some(at),
                (false, Some(from)) => {
                    self.add(&text[from..at], 1);
                    start = None;
                }
                _ => {}
            }
        }
        if let Some(from) = start {
            self.add(&text[from..], 1);
        }
    }

    fn words(self) -> impl Iterator<Item = (Vec<u8>, u64)> {
        let short = self.slots.into_iter().filter(|slot| slot.1 > 0).map(|(key, n)| {
            let bytes = key.to_le_bytes();
            let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(16);
            (bytes[..length].to_vec(), n)
        });
        short.chain(self.long)
    }
}

fn inputs(folder: &Path) -> Result<Vec<PathBuf>> {
    let doing = || BenchError::io(format!("reading {}", folder.display()));
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(doing())? {
        paths.push(entry.map_err(doing())?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Two threads, each half of the files, a table each; one sorted and synced output. Returns seconds.
pub(super) fn word_count(input: &Path, folder: &Path) -> Result<f64> {
    let output = folder.join("floor.txt");
    let from = Instant::now();
    let paths = inputs(input)?;
    let halves = paths.split_at(paths.len().div_ceil(2));
    let counted: Vec<std::io::Result<Counts>> = std::thread::scope(|scope| {
        let threads = [halves.0, halves.1].map(|half| scope.spawn(move || count(half)));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked"))))
            .collect()
    });
    let doing = || BenchError::io("counting words");
    let mut all: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for counts in counted {
        for (word, n) in counts.map_err(doing())?.words() {
            *all.entry(word).or_default() += n;
        }
    }
    let mut text = Vec::new();
    for (word, n) in all {
        text.extend_from_slice(&word);
        text.extend_from_slice(format!("\t{n}\n").as_bytes());
    }
    let mut file = File::create(&output).map_err(doing())?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(doing())?;
    let seconds = from.elapsed().as_secs_f64();
    fs::remove_file(&output).map_err(doing())?;
    Ok(seconds)
}

fn count(paths: &[PathBuf]) -> std::io::Result<Counts> {
    let mut counts = Counts::new();
    let mut buffer = vec![0; 1 << 20];
    for path in paths {
        let mut file = File::open(path)?;
        let mut kept = 0;
        loop {
            let read = file.read(&mut buffer[kept..])?;
            let filled = kept + read;
            // A word at the end may go on.
            let whole = match read {
                0 => filled,
                _ => buffer[..filled]
                    .iter()
                    .rposition(|byte| !byte.is_ascii_alphabetic())
                    .map_or(0, |at| at + 1),
            };
            counts.text(&buffer[..whole]);
            buffer.copy_within(whole..filled, 0);
            kept = filled - whole;
            if read == 0 {
                break;
            }
        }
    }
    Ok(counts)
}

/// As the labs describe it: a map task for each file, a line of JSON for each pair in a file for each reducer, written one by
/// one; reducers hold all pairs of theirs, and sort them. Two threads. Returns seconds.
pub(super) fn labs_design(input: &Path, folder: &Path) -> Result<f64> {
    const REDUCERS: usize = 10;
    let work = folder.join("labs");
    clear(&work)?;
    fs::create_dir(&work).map_err(BenchError::io("making a folder"))?;
    let from = Instant::now();
    let paths = inputs(input)?;
    let tasks: Vec<(usize, &PathBuf)> = paths.iter().enumerate().collect();
    two_threads(&tasks, |(task, path)| {
        let mut files = Vec::new();
        for reducer in 0..REDUCERS {
            files.push(File::create(work.join(format!("mr-{task}-{reducer}")))?);
        }
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        for word in text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
            let hash = word
                .bytes()
                .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
            let line = format!("{{\"Key\":\"{word}\",\"Value\":\"1\"}}\n");
            files[hash as usize % REDUCERS].write_all(line.as_bytes())?;
        }
        Ok(())
    })?;
    let reducers: Vec<usize> = (0..REDUCERS).collect();
    two_threads(&reducers, |reducer| {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for task in 0..paths.len() {
            for line in BufReader::new(File::open(work.join(format!("mr-{task}-{reducer}")))?).lines() {
                let pair: serde_json::Value = serde_json::from_str(&line?).map_err(std::io::Error::other)?;
                let field = |name: &str| pair[name].as_str().unwrap_or_default().to_owned();
                pairs.push((field("Key"), field("Value")));
            }
        }
        pairs.sort();
        let mut out = File::create(work.join(format!("mr-out-{reducer}")))?;
        for group in pairs.chunk_by(|one, other| one.0 == other.0) {
            out.write_all(format!("{} {}\n", group[0].0, group.len()).as_bytes())?;
        }
        Ok(())
    })?;
    let seconds = from.elapsed().as_secs_f64();
    clear(&work)?;
    Ok(seconds)
}

fn two_threads<T: Sync + Copy + Send>(
    tasks: &[T],
    work: impl Fn(T) -> std::io::Result<()> + Sync,
) -> Result<()> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let one = || -> std::io::Result<()> {
        while let Some(task) = tasks.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            work(*task)?;
        }
        Ok(())
    };
    let (here, there) = std::thread::scope(|scope| {
        let there = scope.spawn(one);
        (one(), there.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked"))))
    });
    here.and(there).map_err(BenchError::io("the labs' design"))
}
