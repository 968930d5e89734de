//! One thread of the load on etcd: a task for each request in flight.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};
use tonic::Status;

use super::wire::{Client, PutRequest, RangeRequest};
use super::{EtcdCluster, runtime};
use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::recorder::Recorder;
use crate::timer::Timer;
use crate::workload::{Flavour, KEY_BYTES, Load, Operation, Phases, Schedule, Source, key_into, value};

/// How long a task rests after an error.
const REST: Duration = Duration::from_millis(10);
/// How soon Ctrl-C and the end of waiting are seen.
const TICK: Duration = Duration::from_millis(50);

/// What the tasks of a thread share.
struct Thread {
    phases: Phases,
    fill: bool,
    flavour: Flavour,
    value: Vec<u8>,
    source: RefCell<Source>,
    recorder: RefCell<Recorder>,
    /// The open loop's arrivals, the number of the next, and a permit for each that is due.
    schedule: Option<Schedule>,
    next: Cell<u64>,
    due: Semaphore,
    /// What each task is waiting for.
    in_flight: RefCell<Vec<Option<(u64, Operation)>>>,
}

/// Runs thread number `thread` of `load`.
pub(super) fn run(
    load: &Load,
    phases: Phases,
    cluster: &EtcdCluster,
    interrupt: &Interrupt,
    thread: usize,
) -> Result<Recorder> {
    let share = |total: usize| total * (thread + 1) / load.threads - total * thread / load.threads;
    let clients = share(load.clients);
    let connections = share(load.clients.min(cluster.connections_max)).max(1);
    let tasks = clients * load.pipeline;
    let state = Rc::new(Thread {
        phases,
        fill: load.operations.fill,
        flavour: load.operations.flavour,
        value: value(load.operations.value_bytes),
        source: RefCell::new(Source::new(&load.operations, thread, load.threads)),
        recorder: RefCell::new(Recorder::new()),
        schedule: load.rate.map(|rate| Schedule::new(rate, thread, load.threads).in_bursts(load.bursts)),
        next: Cell::new(0),
        due: Semaphore::new(0),
        in_flight: RefCell::new(vec![None; tasks]),
    });
    LocalSet::new().block_on(&runtime()?, async {
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(
                Client::connect(&cluster.leader)
                    .await
                    .map_err(|reason| BenchError::Unreachable { address: cluster.leader.clone(), reason })?,
            );
        }
        let mut running = JoinSet::new();
        for task in 0..tasks {
            // A client's tasks, P in a row, share its connection.
            let client = channels[(task / load.pipeline) % connections].clone();
            running.spawn_local(Rc::clone(&state).ask(task, client));
        }
        if state.schedule.is_some() {
            tokio::task::spawn_local(Rc::clone(&state).pace(tasks));
        }
        loop {
            interrupt.check()?;
            match tokio::time::timeout(TICK, running.join_next()).await {
                Ok(None) => break,
                Ok(Some(Err(error))) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Ok(Some(_)) => {}
                Err(_) if phases.now_ns() >= phases.give_up_ns => break,
                Err(_) => {}
            }
        }
        running.shutdown().await;
        Ok(())
    })?;
    state.give_up();
    Ok(state.recorder.replace(Recorder::new()))
}

/// Keys lie next to each other, so that a scan's last one is known: to a range without an end, etcd counts all that follow.
fn scan(number: u64, key: Vec<u8>) -> RangeRequest {
    let limit = Flavour::scan_limit(number);
    let mut end = vec![0; KEY_BYTES];
    key_into(&mut end, number + limit);
    RangeRequest::of(key, end, limit as i64)
}

impl Thread {
    /// A task: one request after another.
    async fn ask(self: Rc<Self>, task: usize, mut client: Client) {
        while let Some(intended_ns) = self.next_start().await {
            let Some(operation) = self.source.borrow_mut().next() else { return };
            self.in_flight.borrow_mut()[task] = Some((intended_ns, operation));
            let mut key = vec![0; KEY_BYTES];
            key_into(&mut key, operation.key);
            let outcome = self.call(&mut client, operation, key).await;
            let now_ns = self.phases.now_ns();
            self.in_flight.borrow_mut()[task] = None;
            let counts = self.phases.counts(if self.schedule.is_some() { intended_ns } else { now_ns });
            match outcome {
                Ok(missed) => {
                    let mut recorder = self.recorder.borrow_mut();
                    recorder.misses += u64::from(missed);
                    recorder.done(&self.phases, self.schedule.is_some(), operation.read, intended_ns, now_ns);
                }
                Err(status) => {
                    if counts || self.fill {
                        self.recorder.borrow_mut().failed(&format!("{:?}", status.code()));
                    }
                    self.source.borrow_mut().give_back(operation);
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    /// Whether it found nothing, where it looked.
    async fn call(&self, client: &mut Client, operation: Operation, key: Vec<u8>) -> Result<bool, Status> {
        if operation.read {
            let range = match self.flavour {
                Flavour::Scan => scan(operation.key, key),
                _ => RangeRequest::one(key),
            };
            return client.range(range).await.map(|range| range.kvs.is_empty());
        }
        let mut missed = false;
        if self.flavour == Flavour::ReadModifyWrite {
            missed = client.range(RangeRequest::one(key.clone())).await?.kvs.is_empty();
        }
        client.put(PutRequest { key, value: self.value.clone() }).await.map(|_| missed)
    }

    /// When the next request starts, or was meant to; none at the end.
    async fn next_start(&self) -> Option<u64> {
        let intended_ns = match &self.schedule {
            None => self.phases.now_ns(),
            Some(schedule) => {
                self.due.acquire().await.ok()?.forget();
                let index = self.next.get();
                self.next.set(index + 1);
                schedule.arrival_ns(index)
            }
        };
        (intended_ns < self.phases.end_ns).then_some(intended_ns)
    }

    /// Gives out a permit at every arrival, and at the end one to each task so that it sees the end.
    async fn pace(self: Rc<Self>, tasks: usize) {
        let Some(schedule) = self.schedule else { return };
        let Ok(timer) = Timer::new() else { return self.due.close() };
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types whose descriptor may change; a Timer's can't"
        )]
        let watched = AsyncFd::with_interest(timer, Interest::READABLE);
        let Ok(timer) = watched else { return self.due.close() };
        let mut index = 0;
        loop {
            let now_ns = self.phases.now_ns();
            let mut due = 0;
            while schedule.arrival_ns(index) <= now_ns && schedule.arrival_ns(index) < self.phases.end_ns {
                index += 1;
                due += 1;
            }
            self.due.add_permits(due);
            let next_ns = schedule.arrival_ns(index);
            if next_ns >= self.phases.end_ns {
                return self.due.add_permits(tasks);
            }
            let wait = Duration::from_nanos(next_ns.saturating_sub(now_ns));
            if timer.get_ref().arm(wait).is_err() {
                return self.due.close();
            }
            match timer.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return self.due.close(),
            }
        }
    }

    /// Too late: what wasn't answered is an error, and in an open loop its latency so far counts too.
    fn give_up(&self) {
        let now_ns = self.phases.now_ns();
        let mut late: Vec<_> = self.in_flight.borrow_mut().iter_mut().filter_map(Option::take).collect();
        if let Some(schedule) = &self.schedule {
            for index in self.next.get().. {
                let intended_ns = schedule.arrival_ns(index);
                let Some(operation) =
                    (intended_ns < self.phases.end_ns).then(|| self.source.borrow_mut().next()).flatten()
                else {
                    break;
                };
                late.push((intended_ns, operation));
            }
        }
        let mut recorder = self.recorder.borrow_mut();
        for (intended_ns, operation) in late {
            if self.phases.counts(intended_ns) || self.schedule.is_none() {
                recorder.gave_up(operation.read, now_ns.saturating_sub(intended_ns));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_ends_behind_its_last_key() {
        let (number, mut key) = (999, vec![0; KEY_BYTES]);
        key_into(&mut key, number);
        let request = scan(number, key);
        let end = 999 + Flavour::scan_limit(999);
        assert_eq!(request.key, b"key:000000000999");
        assert_eq!(request.range_end, format!("key:{end:012}").into_bytes());
        assert_eq!(request.limit, (end - 999) as i64);
    }
}
