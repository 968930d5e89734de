//! So many appenders of entries of so many bytes to raft-engine, each with a region of its own, each waiting until its entry
//! is durable before it appends the next. They are dealt out to threads, each of which writes what its appenders have as one
//! batch; with as many threads as appenders each writes for itself. Prints one JSON object.

#[path = "../../printed.rs"]
mod printed;

use hdrhistogram::Histogram;
use raft::eraftpb::Entry;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As in a Flotilla node: what is compared isn't the allocators.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Entries of a region that are kept.
const KEPT: u64 = 50;

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
    let mut next = || args.next().expect("usage: wal-raft-engine DIR APPENDERS BYTES SECONDS THREADS");
    let (dir, appenders, bytes, seconds, threads) = (next(), next(), next(), next(), next());
    let appenders: u64 = appenders.parse().expect("a number of appenders");
    let bytes: usize = bytes.parse().expect("a number of bytes");
    let time = Duration::from_secs_f64(seconds.parse().expect("a number of seconds"));
    let threads: u64 = threads.parse().expect("a number of threads");
    let config = Config {
        dir,
        // No compression: neither log has any.
        batch_compression_threshold: ReadableSize::kb(0),
        // Files are used again, as ours are, and written with zeros before that.
        purge_threshold: ReadableSize::mb(256),
        prefill_for_recycle: true,
        ..Config::default()
    };
    let engine = Arc::new(Engine::open(config).expect("raft-engine opens its folder"));
    let begun = Instant::now();
    let warmup = time / 3;
    let threads: Vec<_> = (1..=threads)
        .map(|thread| {
            let engine = Arc::clone(&engine);
            let regions: Vec<u64> = (thread..=appenders).step_by(threads as usize).collect();
            std::thread::spawn(move || {
                let mut seen = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).expect("bounds");
                let mut batch = LogBatch::default();
                let mut index = 0;
                while begun.elapsed() < warmup + time {
                    index += 1;
                    let start = Instant::now();
                    for region in &regions {
                        let mut entry = Entry::default();
                        entry.index = index;
                        entry.term = 1;
                        entry.data = vec![0x5a; bytes].into();
                        batch.add_entries::<Entries>(*region, &[entry]).expect("an entry");
                        if index % KEPT == 0 && index > KEPT {
                            // What is old isn't needed: its files are used again.
                            batch.add_command(*region, Command::Compact { index: index - KEPT });
                        }
                    }
                    engine.write(&mut batch, true).expect("raft-engine writes");
                    if begun.elapsed() >= warmup {
                        seen.record_n(start.elapsed().as_nanos() as u64, regions.len() as u64).expect("in bounds");
                    }
                    if thread == 1 && index % 1000 == 0 {
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
