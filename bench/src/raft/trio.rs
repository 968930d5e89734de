//! Three nodes in one thread: what one sends, the others get within the turn. Their disks are somebody else's: the real
//! driver's ([`super::drive`]), or nobody's ([`in_memory`]).

use std::sync::PoisonError;
use std::time::Instant;

use flotilla_runtime::{BlockPool, DiskReply, Effect, Effects, Nanos, OpId};

use super::node::{NODES, Node, Plan, Shared, peer, shared};
use crate::cpu::CpuReading;
use crate::error::{BenchError, Result};
use crate::turn::Printed;

/// Turns between two looks at the clock.
const CLOCK_EVERY: u32 = 64;

/// See the module.
pub(super) struct Trio {
    pub(super) nodes: Vec<Node>,
    pub(super) due: [bool; NODES],
    pub(super) effects: [Effects<()>; NODES],
}

impl Trio {
    pub(super) fn new(
        plan: Plan,
        pool: &BlockPool,
        seed: u64,
        now: Nanos,
        shared: &Shared,
    ) -> std::result::Result<Self, String> {
        let node = |place: usize| {
            let seed = seed ^ (place as u64 + 1) << 32;
            Node::new(place, plan, pool.clone(), Vec::new(), seed, now, shared.clone())
        };
        let nodes: std::result::Result<Vec<_>, String> = (0..NODES).map(node).collect();
        let due = [true; NODES];
        Ok(Self { nodes: nodes?, due, effects: Default::default() })
    }

    /// Flushes the nodes until none has anything to say to another. `disk` is asked for the rest.
    pub(super) fn turn(&mut self, now: Nanos, mut disk: impl FnMut(usize, Effect<()>)) {
        while let Some(place) = self.due.iter().position(|due| *due) {
            self.due[place] = false;
            self.nodes[place].flush(now, &mut self.effects[place]);
            for effect in self.effects[place].drain() {
                let Effect::Send { to, frame } = effect else {
                    disk(place, effect);
                    continue;
                };
                let to = to.node.0 as usize - 1;
                self.nodes[to].receive(now, peer(place).node, &frame).expect("these nodes speak well");
                self.due[to] = true;
            }
        }
    }

    pub(super) fn tick(&mut self, now: Nanos) {
        for place in 0..NODES {
            if self.nodes[place].multi.deadline().is_some_and(|deadline| deadline <= now) {
                self.nodes[place].multi.tick(now, &mut self.effects[place]);
                self.due[place] = true;
            }
        }
    }
}

/// Runs a plan on disks that do everything at once. The clock is looked at too rarely for latencies.
pub(crate) fn in_memory(plan: Plan) -> Result<Printed> {
    let failed = |reason: String| BenchError::Failed {
        scenario: "in memory".to_owned(),
        target: "flotilla".to_owned(),
        reason,
    };
    let shared = shared(false);
    let begun = Instant::now();
    let clock = || 1_000_000_000 + u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut trio = Trio::new(plan, &BlockPool::new(), 1, clock(), &shared).map_err(failed)?;
    let mut ops: Vec<(usize, OpId)> = Vec::new();
    let (mut now, mut turns) = (clock(), 0_u32);
    let (own, mut before) = ([std::process::id()], None);
    loop {
        trio.turn(now, |place, effect| match effect {
            Effect::Write { op, .. }
            | Effect::Sync { op, .. }
            | Effect::CreateFile { op, .. }
            | Effect::RemoveFile { op, .. } => ops.push((place, op)),
            _ => {}
        });
        let idle = ops.is_empty();
        for (place, op) in ops.drain(..) {
            trio.nodes[place].disk(now, op, &Ok(DiskReply::Done), &mut trio.effects[place]);
            trio.due[place] = true;
        }
        turns = turns.wrapping_add(1);
        if idle || turns.is_multiple_of(CLOCK_EVERY) {
            now = clock();
            trio.tick(now);
            let seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.has_begun && before.is_none() {
                before = Some(CpuReading::take(&own));
            }
            if let Some(before) = before.as_ref().filter(|_| seen.is_over) {
                let used = CpuReading::take(&own).since(before);
                return Ok(Printed::new(seen.commits, seen.nanos as f64 / 1e9, None, used, &own));
            }
            if begun.elapsed() > super::PATIENCE {
                return Err(failed("it never came to its end".to_owned()));
            }
        }
    }
}
