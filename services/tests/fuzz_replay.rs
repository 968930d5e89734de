//! The fuzz targets on any toolchain: the committed corpus, and changes of it from one seed.
//!
//! `cargo fuzz run log` goes on where this ends (`fuzz/`). What that finds is put into the corpus.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

#[path = "../../fuzz/bodies.rs"]
mod bodies;

use flotilla_runtime::SplitMix64;
use std::path::Path;

/// Runs a target over its corpus and over so many changes of it.
fn replay(name: &str, body: fn(&[u8]), changes: u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name} has a corpus");
    for (seed, path) in seeds.iter().zip(&paths) {
        check(body, seed, || path.display().to_string());
    }
    let times: u64 =
        std::env::var("FLOTILLA_FUZZ_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    for number in 0..changes * times {
        let mut random = SplitMix64::new(number);
        let any = |random: &mut SplitMix64| usize::try_from(random.below(seeds.len() as u64)).unwrap();
        let mut bytes = seeds[any(&mut random)].clone();
        for _ in 0..=random.below(6) {
            change(&mut bytes, &seeds[any(&mut random)], &mut random);
        }
        check(body, &bytes, || format!("change {number} of {name}"));
    }
}

fn check(body: fn(&[u8]), bytes: &[u8], what: impl Fn() -> String) {
    let done = std::panic::catch_unwind(|| body(bytes));
    if done.is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-replay-failure");
        std::fs::write(&path, bytes).unwrap();
        panic!("{}; the bytes are in {}", what(), path.display());
    }
}

fn below(random: &mut SplitMix64, limit: usize) -> usize {
    usize::try_from(random.below(limit.max(1) as u64)).unwrap()
}

/// Numbers that lengths and indices break on.
const EDGES: [u64; 10] = [0, 1, 2, 15, 16, 4096, 0x7fff_ffff, 0xffff_ffff, u64::MAX - 1, u64::MAX];

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut SplitMix64) {
    let at = below(random, bytes.len());
    let length = below(random, 64).min(bytes.len() - at);
    match random.below(9) {
        _ if bytes.is_empty() => bytes.extend_from_slice(other),
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
        2 | 3 => {
            // Most numbers lie at multiples of four.
            let at = at & !3;
            let width = [2, 4, 8][below(random, 3)].min(bytes.len() - at);
            let edge = EDGES[below(random, EDGES.len())].to_le_bytes();
            bytes[at..at + width].copy_from_slice(&edge[..width]);
        }
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..at + length)),
        6 => {
            let copy = bytes[at..at + length].to_vec();
            let to = below(random, bytes.len());
            bytes.splice(to..to, copy);
        }
        7 => {
            // A block of another seed's takes the place of one.
            let (from, to) = (below(random, other.len()) & !4095, at & !4095);
            let width = 4096.min(other.len() - from).min(bytes.len() - to);
            bytes[to..to + width].copy_from_slice(&other[from..from + width]);
        }
        _ => {
            let from = below(random, other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}

#[test]
fn backups() {
    replay("backup", bodies::backup, 40_000);
}

#[test]
fn frames() {
    replay("frame", bodies::frame, 16_000);
}

#[test]
fn records() {
    replay("record", bodies::record, 80_000);
}

#[test]
fn snapshots() {
    replay("snapshot", bodies::snapshot, 12_000);
}

#[test]
fn logs() {
    replay("log", bodies::log, 10_000);
}

#[test]
fn peer_frames() {
    replay("peer", bodies::peer, 80_000);
}

#[test]
fn requests() {
    replay("request", bodies::request, 160_000);
}
