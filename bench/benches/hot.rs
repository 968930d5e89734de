//! Times of the hot paths: `cargo bench -p flotilla-bench`. On a quiet machine; `bench/instructions.sh` needs none.

#![allow(missing_docs, reason = "Criterion's macros make functions without")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "../src/hot.rs"]
mod hot;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn hot_paths(criterion: &mut Criterion) {
    for path in hot::ALL {
        let mut group = criterion.benchmark_group(path.name);
        group.throughput(Throughput::Elements(path.units));
        let mut work = (path.prepare)();
        group.bench_function("call", |bencher| bencher.iter(&mut *work));
        group.finish();
    }
}

criterion_group!(benches, hot_paths);
criterion_main!(benches);
