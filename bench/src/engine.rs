//! The load generator for everything that speaks RESP: a cluster, or a single Redis.
//!
//! | module | what |
//! |---|---|
//! | [`event_loop`] | one thread: epoll, requests, replies, pacing |
//! | [`connection`] | one socket and the requests on their way |
//! | [`request`] | requests as bytes |
//! | [`slots`] | which node leads which slot |

mod connection;
mod event_loop;
mod request;
pub(crate) mod slots;

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::recorder::Recorder;
use crate::workload::{Load, Phases};
use event_loop::{EventLoop, Shared};
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
    let shared = Shared { load, phases, map, refresh, interrupt };
    let loops: Vec<EventLoop<'_>> =
        (0..load.threads).map(|thread| EventLoop::new(shared.clone(), thread)).collect::<Result<_>>()?;
    // The loops hold the other senders: the last loop's end is the end of the refresher.
    drop(shared);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while wanted.recv().is_ok() {
                map.refresh();
                std::thread::sleep(REFRESH_INTERVAL);
            }
        });
        let threads: Vec<_> = loops.into_iter().map(|each| scope.spawn(|| each.run())).collect();
        let watched = watch();
        Ok((Recorder::of_all(threads)?, watched?))
    })
}

#[cfg(test)]
mod tests;
