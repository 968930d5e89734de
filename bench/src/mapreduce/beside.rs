//! What a job at full tilt costs the store's clients: the same open loop of commands, alone and beside word counts by workers that
//! the nodes keep, on the same CPUs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::Site;
use crate::compare::result::Unit;
use crate::distribution::Distribution;
use crate::error::{BenchError, Result};
use crate::kv::outcome::Round;
use crate::target::Target;
use crate::target::flotilla::{self, Shape};
use crate::target::process::{Ports, dying_with_us};
use crate::turn::{Load, Seen, Turns};
use crate::workload::{self, Flavour, Operations};

/// Of the nodes: together more than the CPUs of a small machine.
const NODES: u16 = 3;
const WORKERS_OF_A_NODE: u32 = 1;
/// Clients, and what they ask for in a second, half of it writes: a fraction of what such a cluster can do.
const CLIENTS: usize = 16;
const RATE: f64 = 4000.0;
const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 64;
/// Workers have their first tasks by then.
const WARMUP: Duration = Duration::from_millis(1500);
/// Between two looks at whether a job has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The names of the turns.
pub(super) const ALONE: &str = "store alone";
pub(super) const BESIDE: &str = "store beside a job";

/// Both turns, alone first.
pub(super) fn measure(site: Site<'_>, turns: &mut Turns<'_>) -> Result<[Round; 2]> {
    let folder = site.folder.join("beside");
    std::fs::create_dir_all(&folder).map_err(BenchError::io(format!("making {}", folder.display())))?;
    let shape = Shape {
        program: Some(site.flotilla.to_owned()),
        nodes: NODES,
        cores: 1,
        groups: 1,
        workers: WORKERS_OF_A_NODE,
    };
    let starting = flotilla::start(&shape, &folder, &mut Ports::new())?;
    let at = starting.addresses()?[0];
    let target = starting.ready(site.interrupt)?;
    let seconds = Duration::from_secs(if site.quick { 3 } else { 8 });
    target.fill(&load(seconds, true), site.interrupt)?;
    let told = Load {
        set: "beside",
        name: "beside".to_owned(),
        unit: Unit::Operation,
        clients: CLIENTS,
        bytes: VALUE_BYTES,
        warmup: WARMUP,
        seconds,
    };
    let alone = turns.one(&told, ALONE, || seen(&target, site, seconds))?;
    let beside = turns.one(&told, BESIDE, || {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let jobs = scope.spawn(|| jobs(site, &folder, at, &stop));
            let seen = seen(&target, site, seconds);
            stop.store(true, Ordering::Relaxed);
            jobs.join().expect("it doesn't panic")?;
            seen
        })
    })?;
    drop(target);
    std::fs::remove_dir_all(&folder).map_err(BenchError::io(format!("removing {}", folder.display())))?;
    Ok([alone, beside])
}

fn load(seconds: Duration, fill: bool) -> workload::Load {
    let operations = Operations {
        first_key: 0,
        keys: KEYS,
        distribution: Distribution::Uniform,
        reads_percent: if fill { 0 } else { 50 },
        flavour: Flavour::Plain,
        value_bytes: VALUE_BYTES,
        seed: 1,
        fill,
    };
    let (rate, warmup) = if fill { (None, Duration::ZERO) } else { (Some(RATE), WARMUP) };
    workload::Load {
        operations,
        clients: CLIENTS,
        pipeline: 1,
        rate,
        bursts: None,
        threads: 1,
        warmup,
        seconds,
    }
}

fn seen(target: &Target, site: Site<'_>, seconds: Duration) -> Result<Seen> {
    let (recorder, used) = target.run(&load(seconds, false), site.interrupt)?;
    if !recorder.errors.is_empty() {
        return Err(target.failed("beside", format!("errors: {:?}", recorder.errors)));
    }
    let timed = Seen::timed(recorder.operations() as f64, seconds.as_secs_f64());
    Ok(Seen { latencies: Some(recorder.all()), cpu_seconds: used.servers, ..timed })
}

/// One job after the other, until it is enough.
fn jobs(site: Site<'_>, folder: &Path, at: SocketAddr, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let mut command = dying_with_us(site.flotilla.as_os_str());
        command.args(["mr", "run", "--job", "wc", "--overwrite", "--addr"]).arg(at.to_string());
        command.arg("--input").arg(&site.corpus.text).arg("--output").arg(folder.join("out"));
        let mut job = start(&mut command)?;
        let ended = loop {
            match job.try_wait().map_err(BenchError::io("waiting for a job"))? {
                Some(status) => break Some(status),
                None if stop.load(Ordering::Relaxed) => break None,
                None => thread::sleep(LOOK_EVERY),
            }
        };
        match ended {
            Some(status) if !status.success() => {
                return Err(BenchError::Failed {
                    scenario: "beside".to_owned(),
                    target: BESIDE.to_owned(),
                    reason: format!("the job ended with {status}"),
                });
            }
            Some(_) => {}
            // The nodes end with their workers in a moment.
            None => {
                let _ = job.kill();
                let _ = job.wait();
            }
        }
    }
    Ok(())
}

fn start(command: &mut Command) -> Result<Child> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(BenchError::io("starting flotilla"))
}
