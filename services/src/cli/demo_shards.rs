//! The demo's resharding: a second group joins under load and gets half of the shards.

use super::Failure;
use super::progress::{self, Progress};
use crate::client::{Connection, Reply, Security};
use crate::hands::{Stopwatch, pause};
use std::time::Duration;

/// Longer than it takes on any disk, for what the demo writes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often progress is shown.
const INTERVAL: Duration = Duration::from_millis(250);

/// What it came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) shards: usize,
    pub(super) of: usize,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
}

/// Lets group 1 join, and waits until every shard is where the new configuration says. `tell` is given a line of progress now
/// and then, and may stop it.
pub(super) fn join(
    address: &str,
    mut tell: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<Moved, Failure> {
    let look = || progress::look(address, &Security::default()).map_err(Failure::failed);
    let before = look()?;
    let clock = Stopwatch::start();
    let number = begin(address, &clock)?;
    let mut first: Option<Progress> = None;
    let mut told = Duration::ZERO;
    loop {
        let seen = look()?;
        if seen.configuration >= number && seen.is_complete() {
            let of_one = seen.groups.iter().find(|it| it.group == 1);
            return Ok(Moved {
                shards: of_one.map_or(0, |it| it.serving.len()),
                of: seen.shards,
                bytes: seen.moved_bytes() - before.moved_bytes(),
                seconds: clock.elapsed().as_secs_f64(),
            });
        }
        let first = first.get_or_insert_with(|| seen.clone());
        let elapsed = clock.elapsed();
        if elapsed > PATIENCE {
            let line = seen.line(first, elapsed);
            return Err(Failure::Failed(format!("not complete after {} s: {line}", PATIENCE.as_secs())));
        }
        if elapsed >= told + INTERVAL {
            tell(&seen.line(first, elapsed))?;
            told = elapsed;
        }
        pause(Duration::from_millis(20));
    }
}

/// Asks until the controller is there; returns the new configuration's number.
fn begin(address: &str, clock: &Stopwatch) -> Result<u64, Failure> {
    loop {
        let mut connection = Connection::open(address, PATIENCE).map_err(Failure::failed)?;
        match connection.execute(&[b"FLOTILLA.CLUSTER", b"JOIN", b"1"]).map_err(Failure::failed)? {
            Reply::Integer(number) => return Ok(number.unsigned_abs()),
            Reply::Error(_) if clock.elapsed() < PATIENCE => pause(INTERVAL),
            other => return Err(Failure::Failed(format!("JOIN 1 was answered with {other}"))),
        }
    }
}
