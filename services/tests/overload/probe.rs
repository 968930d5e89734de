//! A client that writes one thing after the other while others write much.

use crate::load::percentile;
use flotilla_services::client::{Connection, Reply};
use flotilla_services::hands::{Stopwatch, pause, spawn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long what was done took, and what was refused.
#[derive(Debug, Default)]
pub(crate) struct Probed {
    done: Vec<Duration>,
    refused: Vec<Duration>,
}

impl Probed {
    /// All but one in a hundred of those that were done.
    pub(crate) fn done_p99(&mut self) -> Duration {
        if self.done.is_empty() { Duration::ZERO } else { percentile(&mut self.done, 99) }
    }

    pub(crate) fn refused_p99(&mut self) -> Duration {
        if self.refused.is_empty() { Duration::ZERO } else { percentile(&mut self.refused, 99) }
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.done.len(), self.refused.len())
    }
}

/// See the module.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Probed>,
}

impl Probe {
    /// Sets a key to so many bytes, again and again.
    pub(crate) fn of_writes(mut client: Connection, value_bytes: usize) -> Self {
        let value = vec![b'v'; value_bytes];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = spawn(move || {
            let command: [&[u8]; 3] = [b"SET", b"probe", &value];
            let mut probed = Probed::default();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Stopwatch::start();
                match client.execute(&command).unwrap() {
                    Reply::Error(error) if error.starts_with("BUSY ") => probed.refused.push(begun.elapsed()),
                    Reply::Error(error) => panic!("{error}"),
                    _ => probed.done.push(begun.elapsed()),
                }
                pause(Duration::from_millis(1));
            }
            probed
        });
        Self { stop, thread }
    }

    pub(crate) fn end(self) -> Probed {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
