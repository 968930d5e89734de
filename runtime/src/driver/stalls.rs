//! Whoever holds a core for long is named.
//!
//! A core does one thing at a time, so whatever takes long holds up everything else of it. The loop and every task look at
//! a clock when they are done; what took more than 5 ms is counted, and told at most once a second. Tasks, of which there are
//! many short ones, look at the kernel's coarse clock, which costs a quarter and goes by its ticks (4 ms, where there are 250 a
//! second): who holds the core for less than two ticks may get away with it. Time in which the
//! kernel gave the CPU to others, or the disk had the core wait, isn't the task's fault: then it is told at the level `debug`.

use crate::machine::{MILLISECOND, Nanos};
use crate::vitals::Vitals;
use rustix::time::{ClockId, clock_getres, clock_gettime};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Longer than that nobody may hold a core.
const LONGEST: Duration = Duration::from_millis(5);
/// The thread's CPU time isn't read more often.
const GRAIN: Nanos = MILLISECOND;
/// Between two that are told of.
const PERIOD: Duration = Duration::from_secs(1);

/// A moment of the coarse clock.
#[derive(Clone, Copy)]
pub(super) struct Tick(Duration);

impl Tick {
    /// The last one.
    #[inline]
    pub(super) fn last() -> Self {
        Self(read(ClockId::MonotonicCoarse))
    }
}

/// See the module.
pub(super) struct Stalls {
    core: u16,
    vitals: Rc<Vitals>,
    /// From one tick to the next.
    tick: Duration,
    /// The thread's CPU time when the turn began, or at most [`GRAIN`] before.
    cpu: Cell<Duration>,
    /// When that was read.
    read_at: Cell<Nanos>,
    told: Cell<Option<Instant>>,
    not_told: Cell<u64>,
}

impl Stalls {
    pub(super) fn new(core: u16, vitals: Rc<Vitals>) -> Self {
        let (told, not_told) = (Cell::new(None), Cell::new(0));
        let tick = clock_getres(ClockId::MonotonicCoarse).try_into().unwrap_or_default();
        Self { core, vitals, tick, cpu: Cell::new(cpu_time()), read_at: Cell::new(0), told, not_told }
    }

    /// A turn begins.
    #[inline]
    pub(super) fn turn_begins(&self, now: Nanos) {
        // A system call: not for each of ten thousand turns a second.
        if now.saturating_sub(self.read_at.get()) >= GRAIN {
            self.read_at.set(now);
            self.cpu.set(cpu_time());
        }
    }

    /// Something named so is done, which was begun then.
    #[inline]
    pub(super) fn look(&self, name: &'static str, begun: Instant) {
        let now = Instant::now();
        let took = now.saturating_duration_since(begun);
        if took > LONGEST {
            self.stalled(name, took, now);
        }
    }

    /// The same of a task, which was begun after that tick.
    #[inline]
    pub(super) fn look_at_ticks(&self, name: &'static str, begun: Tick) {
        let took = Tick::last().0.saturating_sub(begun.0);
        if self.is_long(took) {
            self.stalled(name, took, Instant::now());
        }
    }

    /// Whether a task was long that ended so much after the last tick before it began, by the ticks. With one tick in between
    /// it may have taken no time at all.
    #[inline]
    fn is_long(&self, took: Duration) -> bool {
        took > LONGEST.max(self.tick)
    }

    #[cold]
    fn stalled(&self, name: &'static str, took: Duration, now: Instant) {
        self.vitals.stalls.count();
        if self.told.get().is_some_and(|told| now.saturating_duration_since(told) < PERIOD) {
            self.not_told.set(self.not_told.get() + 1);
            return;
        }
        self.told.set(Some(now));
        let (core, not_told) = (self.core, self.not_told.take());
        let worked = cpu_time().saturating_sub(self.cpu.get());
        let (took_ms, turn_cpu_ms) = (took.as_secs_f64() * 1e3, worked.as_secs_f64() * 1e3);
        if worked >= took / 2 {
            tracing::warn!(core, task = name, took_ms, turn_cpu_ms, not_told, "a task held its core");
        } else {
            tracing::debug!(core, task = name, took_ms, turn_cpu_ms, not_told, "a task waited on its core");
        }
    }
}

fn cpu_time() -> Duration {
    read(ClockId::ThreadCPUTime)
}

#[inline]
fn read(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_takes_long_is_counted() {
        let vitals = Vitals::new();
        let stalls = Stalls::new(0, Rc::clone(&vitals));
        let now = Instant::now();
        stalls.look("quick", now);
        let Some(long_ago) = now.checked_sub(LONGEST * 2) else { return };
        let before = vitals.stalls.get();
        stalls.look("slow", long_ago);
        stalls.look("slow", long_ago);
        assert_eq!((vitals.stalls.get() - before, stalls.not_told.get()), (2, 1));
    }

    #[test]
    fn a_task_is_counted_from_two_ticks_on() {
        let vitals = Vitals::new();
        let stalls = Stalls::new(0, Rc::clone(&vitals));
        assert!(stalls.tick > Duration::ZERO);
        let ticks = [0, 1].map(|count| stalls.is_long(stalls.tick * count));
        assert_eq!(ticks, [false, false], "it may have begun and ended beside one tick");
        let before = vitals.stalls.get();
        let long_ago = Tick(Tick::last().0.saturating_sub(LONGEST + stalls.tick));
        stalls.look_at_ticks("slow", long_ago);
        assert_eq!(vitals.stalls.get() - before, 1);
    }
}
