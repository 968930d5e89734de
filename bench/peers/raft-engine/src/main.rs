//! So many threads append entries of so many bytes to raft-engine, each to a region of its own, each waiting until its entry
//! is durable before it appends the next. Prints one JSON object.

#[path = "../../printed.rs"]
mod printed;

use hdrhistogram::Histogram;
use raft::eraftpb::Entry;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().expect("usage: wal-raft-engine DIR APPENDERS BYTES SECONDS");
    let (dir, appenders, bytes, seconds) = (next(), next(), next(), next());
    let appenders: u64 = appenders.parse().expect("a number of appenders");
    let bytes: usize = bytes.parse().expect("a number of bytes");
    let time = Duration::from_secs_f64(seconds.parse().expect("a number of seconds"));
    let config = Config {
        dir,
        // No compression: neither log has any.
        batch_compression_threshold: ReadableSize::kb(0),
        ..Config::default()
    };
    let engine = Arc::new(Engine::open(config).expect("raft-engine opens its folder"));
    let begun = Instant::now();
    let warmup = time / 3;
    let threads: Vec<_> = (1..=appenders)
        .map(|region| {
            let engine = Arc::clone(&engine);
            std::thread::spawn(move || {
                let mut seen = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).expect("bounds");
                let mut batch = LogBatch::default();
                let mut index = 0;
                while begun.elapsed() < warmup + time {
                    index += 1;
                    let mut entry = Entry::default();
                    entry.index = index;
                    entry.term = 1;
                    entry.data = vec![0x5a; bytes].into();
                    batch.add_entries::<Entries>(region, &[entry]).expect("an entry");
                    if index > 100 {
                        // What is old isn't needed: its files are used again.
                        batch.add_command(region, raft_engine::Command::Compact { index: index - 50 });
                    }
                    let start = Instant::now();
                    engine.write(&mut batch, true).expect("raft-engine writes");
                    if begun.elapsed() >= warmup {
                        seen.saturating_record(start.elapsed().as_nanos() as u64);
                    }
                    if region == 1 && index % 1000 == 0 {
                        engine.purge_expired_files().expect("raft-engine purges");
                    }
                }
                seen
            })
        })
        .collect();
    std::thread::sleep((begun + warmup).saturating_duration_since(Instant::now()));
    let usage = printed::Usage::now();
    let mut all = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).expect("bounds");
    for thread in threads {
        all += &thread.join().expect("a thread of the load");
    }
    let measured = begun.elapsed() - warmup;
    let latencies = all.iter_recorded().map(|it| (it.value_iterated_to(), it.count_at_value()));
    printed::print(all.len(), measured.as_secs_f64(), &usage, latencies);
}
