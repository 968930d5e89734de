//! Three nodes on one core of the real driver, each with a log of its own in one folder.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use flotilla_runtime::driver::{self, CoreOptions, NodeHandle, NodeOptions};
use flotilla_runtime::{
    CoreBoot, Effect, Effects, Event, FileId, FileKind, Machine, Nanos, NodeId, Now, OpId,
};

use super::PATIENCE;
use super::node::{Plan, shared};
use super::trio::Trio;
use crate::cpu::CpuReading;
use crate::error::{BenchError, Result};
use crate::turn::Printed;

/// How often the clock is looked at.
const GRAIN: Duration = Duration::from_millis(5);

/// Runs a plan with logs in `folder`, an empty one.
pub(crate) fn durable(folder: &Path, plan: Plan) -> Result<Printed> {
    let failed = |reason: String| BenchError::Failed {
        scenario: "durable".to_owned(),
        target: "flotilla".to_owned(),
        reason,
    };
    let port = || TcpListener::bind("127.0.0.1:0").map_err(BenchError::io("binding a port"));
    let mut options = NodeOptions::new(NodeId(1), 1, 1);
    options.cores.push(CoreOptions { clients: port()?, peers: port()?, folder: folder.to_owned() });
    let (stop, results, syncs) = (NodeHandle::new(), shared(true), Arc::new(AtomicU64::new(0)));
    let (handle, seen, synced) = (stop.clone(), results.clone(), Arc::clone(&syncs));
    let (alive, running) = mpsc::channel::<()>();
    let node = std::thread::spawn(move || {
        let _alive = alive;
        let build = move |boot: CoreBoot| {
            let trio = Trio::new(plan, &boot.pool, boot.seed, boot.now.monotonic, &results)?;
            Ok(OnDisk { trio, syncs: Arc::clone(&synced), is_stopping: false })
        };
        driver::run(options, build, handle, || {})
    });
    // Waits until `is_so`, and says whether it came to that.
    let until = |is_so: &dyn Fn(&super::node::Measured) -> bool| {
        let begun = Instant::now();
        while !is_so(&seen.lock().unwrap_or_else(PoisonError::into_inner)) {
            let alive = running.recv_timeout(GRAIN) == Err(mpsc::RecvTimeoutError::Timeout);
            if !alive || begun.elapsed() > PATIENCE {
                return false;
            }
        }
        true
    };
    let own = [std::process::id()];
    let has_begun = until(&|measured| measured.has_begun);
    let (from, before, synced_before) =
        (Instant::now(), CpuReading::take(&own), syncs.load(Ordering::Relaxed));
    let is_over = has_begun && until(&|measured| measured.is_over);
    let (seconds, used) = (from.elapsed().as_secs_f64(), CpuReading::take(&own).since(&before));
    let synced = syncs.load(Ordering::Relaxed) - synced_before;
    stop.stop();
    match node.join() {
        Ok(ended) => ended.map_err(|error| failed(error.to_string()))?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    if !is_over {
        return Err(failed("it never came to its end".to_owned()));
    }
    let measured = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let latencies = measured.latencies.as_ref();
    let mut printed = Printed::new(measured.commits, measured.nanos as f64 / 1e9, latencies, used, &own);
    printed.syncs_per_second = Some(synced as f64 / seconds);
    Ok(printed)
}

/// A node's files are numbered from its place times this; its operations have its place in these bits.
const FILES_OF_A_NODE: u64 = 1 << 40;
const NODE_SHIFT: u32 = 48;

/// Three nodes on one core of the driver.
struct OnDisk {
    trio: Trio,
    syncs: Arc<AtomicU64>,
    is_stopping: bool,
}

fn file_of(place: usize, file: FileId) -> FileId {
    FileId { kind: FileKind::Segment, number: file.number + place as u64 * FILES_OF_A_NODE }
}

/// The same effect, said to the disk that the nodes share.
fn on_shared_disk(place: usize, effect: Effect<()>) -> Effect<()> {
    let of = |op: OpId| OpId(op.0 | (place as u64) << NODE_SHIFT);
    match effect {
        Effect::Write { op, file, offset, block, sync } => {
            Effect::Write { op: of(op), file: file_of(place, file), offset, block, sync }
        }
        Effect::Sync { op, file } => Effect::Sync { op: of(op), file: file_of(place, file) },
        Effect::CreateFile { op, file, bytes } => {
            Effect::CreateFile { op: of(op), file: file_of(place, file), bytes }
        }
        Effect::RemoveFile { op, file } => Effect::RemoveFile { op: of(op), file: file_of(place, file) },
        other => other,
    }
}

impl Machine for OnDisk {
    type Message = ();

    fn step(&mut self, now: Now, event: Event<'_, ()>, _: &mut Effects<()>) {
        match event {
            Event::Tick => self.trio.tick(now.monotonic),
            Event::Disk { op, result } => {
                let place = (op.0 >> NODE_SHIFT) as usize & 0xff;
                let own = OpId(op.0 & !(0xff << NODE_SHIFT));
                self.trio.nodes[place].disk(now.monotonic, own, &result, &mut self.trio.effects[place]);
                self.trio.due[place] = true;
            }
            Event::Shutdown => self.is_stopping = true,
            _ => {}
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<()>) {
        let mut syncs = 0;
        self.trio.turn(now.monotonic, |place, effect| {
            syncs += u64::from(matches!(effect, Effect::Sync { .. } | Effect::Write { sync: true, .. }));
            out.push(on_shared_disk(place, effect));
        });
        self.syncs.fetch_add(syncs, Ordering::Relaxed);
        if self.is_stopping {
            out.push(Effect::Drained);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        self.trio.nodes.iter().filter_map(|node| node.multi.deadline()).min()
    }
}
