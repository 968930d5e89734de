//! When the next request goes out: the closed loop's bursts and the open loop's arrivals.

use std::collections::VecDeque;
use std::time::Duration;

use super::EventLoop;
use crate::engine::connection::Pending;
use crate::engine::protocol::Protocol;
use crate::error::Result;
use crate::timer::Timer;
use crate::workload::Schedule;

/// The longest wait: how soon Ctrl-C and the end of the run are seen.
const WAIT_MAX_NS: u64 = 20_000_000;

/// A client: what paces a closed loop, and what an open loop's arrivals wait for.
#[derive(Default)]
pub(super) struct Client {
    /// Its connection to each node, by the node's index, opened when first needed.
    pub(super) connections: Vec<Option<usize>>,
    pub(super) in_flight: usize,
    pub(super) rest_until_ns: u64,
    /// Open loop: it stands in the queue of clients with room.
    pub(super) queued: bool,
}

/// The arrivals of an open loop.
pub(super) struct Arrivals {
    pub(super) schedule: Schedule,
    pub(super) next: u64,
    /// Clients with room, first come first served.
    pub(super) ready: VecDeque<usize>,
    pub(super) timer: Timer,
}

impl<P: Protocol> EventLoop<'_, P> {
    /// Whether there is nothing left to do, or no time left to do it.
    pub(super) fn is_over(&self, now_ns: u64) -> bool {
        let phases = &self.shared.phases;
        if self.shared.load.operations.fill && self.in_flight == 0 && self.resting.is_empty() {
            return true;
        }
        let arrived = self.arrivals.as_ref().is_none_or(|a| a.schedule.arrival_ns(a.next) >= phases.end_ns);
        now_ns >= phases.give_up_ns || (now_ns >= phases.end_ns && self.in_flight == 0 && arrived)
    }

    /// How long the sockets may be waited for.
    pub(super) fn wait(&self, now_ns: u64) -> Result<Duration> {
        let mut until_ns = now_ns + WAIT_MAX_NS;
        if let Some(&(rested_ns, _)) = self.resting.front() {
            until_ns = until_ns.min(rested_ns);
        }
        if now_ns < self.shared.phases.end_ns {
            until_ns = until_ns.min(self.shared.phases.end_ns);
        }
        if let Some(arrivals) = &self.arrivals
            && !arrivals.ready.is_empty()
        {
            let arrival_ns = arrivals.schedule.arrival_ns(arrivals.next);
            let now_ns = self.shared.phases.now_ns();
            if arrival_ns <= now_ns {
                return Ok(Duration::ZERO);
            }
            if arrival_ns < until_ns {
                arrivals.timer.arm(Duration::from_nanos(arrival_ns - now_ns))?;
            }
        }
        Ok(Duration::from_nanos(until_ns.saturating_sub(now_ns)))
    }

    /// A client has room: closed, it starts its next burst; open, it queues for arrivals.
    pub(super) fn go_on(&mut self, index: usize, now_ns: u64) {
        let client = &mut self.clients[index];
        if client.rest_until_ns > now_ns {
            if client.in_flight == 0 {
                self.resting.push_back((client.rest_until_ns, index));
            }
            return;
        }
        if let Some(arrivals) = &mut self.arrivals {
            if !client.queued && client.in_flight < self.shared.load.pipeline {
                client.queued = true;
                arrivals.ready.push_back(index);
            }
            return;
        }
        if client.in_flight > 0 || now_ns >= self.shared.phases.end_ns {
            return;
        }
        for _ in 0..self.shared.load.pipeline {
            let Some(operation) = self.source.next() else { break };
            self.start(index, Pending::new(now_ns, operation));
        }
    }

    /// Starts what is due by now, as far as clients have room.
    pub(super) fn start_arrivals(&mut self, now_ns: u64) {
        loop {
            let Some(arrivals) = &mut self.arrivals else { return };
            let intended_ns = arrivals.schedule.arrival_ns(arrivals.next);
            if intended_ns > now_ns || intended_ns >= self.shared.phases.end_ns {
                return;
            }
            let Some(index) = arrivals.ready.pop_front() else { return };
            arrivals.next += 1;
            let Some(operation) = self.source.next() else { return };
            self.clients[index].queued = false;
            self.start(index, Pending::new(intended_ns, operation));
            self.go_on(index, now_ns);
        }
    }
}
