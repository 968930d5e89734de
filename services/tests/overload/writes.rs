//! More writes than can be done.

use crate::common::{TestCluster, lone};
use crate::load::{Outcome, Writes, percentile};
use crate::narrow::narrow;
use crate::probe::{Probe, Probed};
use crate::{alone, memory_kib, process};
use flotilla_services::local::cpu_seconds_of;
use std::time::Duration;

/// Windows of each kind, a second each.
const WINDOWS: usize = 3;
/// What goes over a line between two nodes in a second where that is what there is too little of: 2000 writes of 4 KiB.
const LINE_BYTES_PER_SECOND: usize = 8_000_000;
/// What a node may need besides what it needs at its peak, in KiB: 8 MiB of entries that wait, as many replies and what
/// sockets hold, and the log up to its next snapshot.
const MORE_KIB: usize = 128 * 1024;
/// The longest that all but one in a hundred of the others wait for a `BUSY`.
const REFUSED_WITHIN: Duration = Duration::from_millis(250);
/// The same for a write that is done: what a write may wait by default, and as long again as for a `BUSY`.
const DONE_WITHIN: Duration = Duration::from_millis(1250);

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scarce {
    /// What the leader can tell its followers in a second: nodes with narrow lines between them.
    Quorum,
    /// The core's CPU: a node by itself.
    Cpu,
}

/// What is written, and how much of it.
#[derive(Clone, Copy, Debug)]
struct Shape {
    scarce: Scarce,
    value_bytes: usize,
    /// Writes that each connection has under way at the peak.
    at_once: usize,
    /// How many times the peak is offered.
    times: f64,
}

/// What a window was like.
struct Window {
    outcome: Outcome,
    /// What the node's process needed.
    cpu_seconds: f64,
}

impl Window {
    fn of(pid: u32, run: impl FnOnce() -> Outcome) -> Self {
        let before = cpu_seconds_of(pid).unwrap();
        let outcome = run();
        Self { outcome, cpu_seconds: cpu_seconds_of(pid).unwrap() - before }
    }

    /// What is done with what there is too little of. Others use this machine's CPUs, too: where they are it, what counts is what
    /// is done in a second of them.
    fn rate(&self, scarce: Scarce) -> f64 {
        match scarce {
            Scarce::Quorum => self.outcome.goodput(),
            Scarce::Cpu => self.outcome.done as f64 / self.cpu_seconds,
        }
    }
}

/// What was seen of a node: at its peak, and then flooded and at its peak in turn.
struct Run {
    shape: Shape,
    before: Vec<Window>,
    floods: Vec<Window>,
    /// What others saw of each flood.
    probed: Vec<Probed>,
    /// The peak after each flood.
    after: Vec<Window>,
    /// More memory than before the floods, at most.
    more_kib: usize,
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut of: Vec<f64> = of.collect();
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}

fn median_time(of: impl Iterator<Item = Duration>) -> Duration {
    percentile(&mut of.collect::<Vec<_>>(), 50)
}

impl Run {
    fn of(cluster: &TestCluster, node: u32, shape: Shape) -> Self {
        let pid = process(cluster, node);
        let writes = Writes {
            address: cluster.nodes.address(node),
            connections: 4,
            value_bytes: shape.value_bytes,
            time: Duration::from_secs(1),
        };
        let peak = || Window::of(pid, || writes.closed(shape.at_once));
        let before: Vec<_> = (0..WINDOWS).map(|_| peak()).collect();
        let (needed, _) = memory_kib(pid);
        let (mut floods, mut probed, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..WINDOWS {
            let offered = shape.times * after.last().unwrap_or(&before[WINDOWS - 1]).outcome.goodput();
            let probe = Probe::of_writes(cluster.connect(node), shape.value_bytes);
            floods.push(Window::of(pid, || writes.open(offered)));
            probed.push(probe.end());
            after.push(peak());
        }
        // What it needed most so far may be of before: it counts all the same.
        let more_kib = memory_kib(pid).1.saturating_sub(needed);
        Self { shape, before, floods, probed, after, more_kib }
    }

    /// How much of the peaks just before and just after it each flood was.
    fn shares(&self) -> Vec<f64> {
        let rate = |window: &Window| window.rate(self.shape.scarce);
        let peaks = self.before.last().into_iter().chain(&self.after).map(rate);
        let peaks: Vec<f64> = peaks.collect();
        self.floods
            .iter()
            .zip(peaks.windows(2))
            .map(|(flood, around)| 2.0 * rate(flood) / (around[0] + around[1]))
            .collect()
    }

    /// What isn't as it should be.
    fn complaints(mut self) -> Vec<&'static str> {
        let scarce = self.shape.scarce;
        let rate = |windows: &[Window]| median(windows.iter().map(|window| window.rate(scarce)));
        let (before, after, shares) = (rate(&self.before), rate(&self.after), self.shares());
        let peak = median(self.after.iter().map(|window| window.outcome.goodput()));
        let offered = median(self.floods.iter().map(|window| window.outcome.offered()));
        let refused: u64 = self.floods.iter().map(|window| window.outcome.refused).sum();
        let refused_after = median(self.after.iter().map(|window| window.outcome.refused as f64));
        let counts: Vec<_> = self.probed.iter().map(Probed::counts).collect();
        let done_p99 = median_time(self.probed.iter_mut().map(Probed::done_p99));
        let refused_p99 = self.probed.iter_mut().map(Probed::refused_p99).max().unwrap_or_default();
        let share = median(shares.iter().copied());
        println!(
            "{:?}: {before:.0} before, {after:.0} after; offered {:.1} times the peak, {refused} refused; done {share:.2} of the \
             peaks around it ({shares:.2?}); one by one: {counts:?} done and refused, p99 {done_p99:.0?} and {refused_p99:.0?}; {} \
             MiB more",
            self.shape,
            offered / peak,
            self.more_kib / 1024,
        );
        let conditions = [
            (share >= 0.8, "less is done than at the peak"),
            (scarce == Scarce::Cpu || offered >= 3.0 * peak, "it wasn't a flood"),
            ((refused > 0) == (scarce == Scarce::Quorum), "what can't be done is refused, and nothing else"),
            (refused_p99 <= REFUSED_WITHIN, "BUSY comes late"),
            (done_p99 <= DONE_WITHIN, "what is done is done late"),
            (self.more_kib <= MORE_KIB, "it takes much memory"),
            (after >= 0.8 * before, "afterwards it isn't what it was before"),
            (refused_after == 0.0, "it goes on refusing"),
        ];
        conditions.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }
}

/// One of three runs is as it should be in all respects at once: others use this machine, too.
#[track_caller]
fn stands_a_flood(shape: Shape) {
    let run = || {
        let (cluster, node) = match shape.scarce {
            Scarce::Quorum => narrow(LINE_BYTES_PER_SECOND),
            Scarce::Cpu => (lone(), 1),
        };
        Run::of(&cluster, node, shape).complaints()
    };
    let complaints: Vec<_> = (0..3).map(|_| run()).take_while(|complaints| !complaints.is_empty()).collect();
    assert!(complaints.len() < 3, "{complaints:#?}");
}

/// A leader that is offered many times what its followers can take does as much as at its peak, says at once what it doesn't do,
/// and needs no more memory. Afterwards it is as it was. (At ten and fifty times, on a simulated disk: `sim/tests/clusters/overload.rs`.)
#[test]
fn a_flood_of_writes_is_refused_in_part_and_costs_nobody_much() {
    let _alone = alone();
    stands_a_flood(Shape { scarce: Scarce::Quorum, value_bytes: 4096, at_once: 50, times: 10.0 });
}

/// Where the CPU is what there is too little of, as with small values here, the flood waits in its own sockets: nothing is
/// refused, and others are served in turn.
#[test]
fn a_flood_that_the_cpu_is_too_slow_for_waits_in_its_own_sockets() {
    let _alone = alone();
    stands_a_flood(Shape { scarce: Scarce::Cpu, value_bytes: 64, at_once: 500, times: 10.0 });
}
