//! What an entry costs the CPU on its way into a frame: built, checksummed, queued; without a disk.

use std::time::Instant;

use flotilla_runtime::{BlockPool, Effects};
use flotilla_storage::{Log, LogConfig, RecordHeader, RecordKind, Recovery};

use super::appender::IDENTITY;
use crate::hot::commit;
use crate::recorder::median;

/// Entries of a commit.
const BATCH: u64 = 256;
const BATCHES: u64 = 2_000;

/// Nanoseconds for an entry of `bytes`: the median of five passes, each a mean.
pub(super) fn frame_build_ns(bytes: usize) -> f64 {
    let payload = vec![0x5a; bytes];
    median((0..5).map(|_| pass(&payload)))
}

fn pass(payload: &[u8]) -> f64 {
    let recovered = Recovery::new(IDENTITY).finish().expect("an empty log is a good one");
    let mut log = Log::open(LogConfig::new(IDENTITY), BlockPool::new(), recovered.tail);
    let mut out = Effects::<()>::default();
    let length = u32::try_from(payload.len()).expect("entries are small");
    let mut index = 0;
    let mut begun = Instant::now();
    for batch in 0..BATCHES + 10 {
        if batch == 10 {
            begun = Instant::now();
        }
        for _ in 0..BATCH {
            index += 1;
            let header =
                RecordHeader { group: 1, kind: RecordKind::Entry, schema: 9, index, term: 1, length };
            log.append(&header, payload);
        }
        log.release(1, index);
        commit(&mut log, &mut out);
    }
    begun.elapsed().as_nanos() as f64 / (BATCHES * BATCH) as f64
}
