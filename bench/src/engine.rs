//! The load generator for everything that speaks RESP (a cluster, or a single Redis) or ZooKeeper's protocol.
//!
//! | module | what |
//! |---|---|
//! | [`event_loop`] | one thread: epoll, requests, replies, pacing |
//! | [`connection`] | one socket and the requests on their way |
//! | [`protocol`] | what the event loop must know of a protocol |
//! | [`redis`] | RESP |
//! | [`request`] | what is asked, and in RESP as bytes |
//! | [`slots`] | which node leads which slot |

pub(crate) mod connection;
mod event_loop;
pub(crate) mod protocol;
mod redis;
pub(crate) mod request;
pub(crate) mod slots;

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::recorder::Recorder;
use crate::workload::{Load, Phases};
use event_loop::{EventLoop, Shared};
use protocol::Protocol;
use redis::Resp;
use slots::SlotMap;

/// The least time between two questions for the map.
const REFRESH_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `load` against the servers of `map`, calling `watch` meanwhile on this thread.
pub(crate) fn run<T>(
    load: &Load,
    phases: Phases,
    map: &SlotMap,
    interrupt: &Interrupt,
    watch: impl FnOnce() -> Result<T>,
) -> Result<(Recorder, T)> {
    let (refresh, wanted) = sync_channel(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while wanted.recv().is_ok() {
                map.refresh();
                std::thread::sleep(REFRESH_INTERVAL);
            }
        });
        // The loops hold the other senders: the last loop's end is the end of the refresher.
        drive(load, phases, move |_| Resp::new(load, map, refresh.clone()), interrupt, watch)
    })
}

/// Runs `load` in the protocol that `speaker` makes for each thread, calling `watch` meanwhile on this thread.
pub(crate) fn drive<P: Protocol + Send, T>(
    load: &Load,
    phases: Phases,
    speaker: impl Fn(usize) -> P,
    interrupt: &Interrupt,
    watch: impl FnOnce() -> Result<T>,
) -> Result<(Recorder, T)> {
    let shared = Shared { load, phases, interrupt };
    let new = |thread| EventLoop::new(shared, speaker(thread), thread);
    let loops: Vec<EventLoop<'_, P>> = (0..load.threads).map(new).collect::<Result<_>>()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = loops.into_iter().map(|each| scope.spawn(|| each.run())).collect();
        let watched = watch();
        Ok((Recorder::of_all(threads)?, watched?))
    })
}

#[cfg(test)]
mod tests;
