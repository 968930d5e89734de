//! What a node takes that nobody asks for anything: three of them, with many groups.

use std::time::{Duration, Instant};

use super::cluster::{Even, Nodes};
use super::{Bench, failed};
use crate::cpu::CpuReading;
use crate::error::Result;
use crate::report::Goal;

const PART: &str = "idle";
const NODES: u32 = 3;
/// As many led by each.
const GROUPS: u32 = 63;
/// Longer than any of what follows a start.
const REST: Duration = Duration::from_secs(3);
/// A clock tick is 10 ms, and hardly one a second is used.
const LEAST_SECONDS: f64 = 10.0;

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let nodes = Nodes::start(bench, PART, |options| (options.nodes, options.groups) = (NODES, GROUPS))?;
    let even = Even { nodes: NODES, cores: 1, groups: GROUPS };
    nodes.wait_for_even_leaders(even, bench.interrupt)?;
    bench.interrupt.sleep_until(Instant::now() + REST)?;
    let all: Vec<u32> = (1..=NODES).filter_map(|node| nodes.cluster.pid(node)).collect();
    let time = bench.seconds(20.0).max(Duration::from_secs_f64(LEAST_SECONDS));
    let (before, begun) = (CpuReading::take(&all), Instant::now());
    bench.interrupt.sleep_until(begun + time)?;
    let used = CpuReading::take(&all).since(&before).servers;
    let used = used.ok_or_else(|| failed(PART, "the nodes' CPU time can't be read"))?;
    let percent = used * 100.0 / begun.elapsed().as_secs_f64() / f64::from(NODES);
    bench.figures.ratio("idle_cpu_percent_of_a_node", percent, Goal::AtMost(0.5));
    Ok(())
}
