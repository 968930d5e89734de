//! The same load on ZooKeeper: its own protocol, spoken by the event loop that speaks RESP.
//!
//! A key is a znode below the root. Every client has a session of its own, as a client of ZooKeeper has: opened before
//! the first request, kept alive by pings, closed at the end. Clients are spread over all members, since each answers
//! reads; the first goes to the leader, which spares a lone client's writes a forward.
//!
//! | module | what |
//! |---|---|
//! | [`wire`] | packets |
//! | [`session`] | what the event loop must know |

mod session;
mod wire;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::engine;
use crate::engine::slots::resolve;
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::recorder::Recorder;
use crate::workload::{Load, Phases};
use session::Sessions;

/// The largest value that is put on it.
///
/// A packet may have 1 MiB by default. That can be raised, but then members die: each remembers the last 500 transactions,
/// and in those some three copies of a value. With 1 MiB, 2 GiB of heap were full after 500 writes.
pub(crate) const VALUE_BYTES_MAX: usize = 256 << 10;
/// Connecting to a member, and each read of its answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// More than a member says of itself.
const STATUS_BYTES_MAX: u64 = 64 * 1024;

/// Members that serve, as a load sees them.
#[derive(Clone, Debug)]
pub(crate) struct Ensemble {
    /// Where clients reach each member, the leader first.
    pub(crate) members: Vec<SocketAddr>,
    /// What the leader says it runs.
    pub(crate) version: String,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Status {
    version: String,
    leads: bool,
}

/// Asks `members`; none while one doesn't serve or they have no leader.
///
/// # Errors
/// An address that is none.
pub(crate) fn find(members: &[String]) -> Result<Option<Ensemble>> {
    let mut ensemble = Ensemble { members: Vec::new(), version: String::new() };
    let mut led = false;
    for member in members {
        let address = resolve(member)?;
        let Some(status) = ask(address).ok().and_then(|text| status(&text)) else { return Ok(None) };
        match status.leads {
            true => {
                led = true;
                ensemble.members.insert(0, address);
                ensemble.version = status.version;
            }
            false => ensemble.members.push(address),
        }
    }
    Ok(led.then_some(ensemble))
}

/// The answer to the four-letter word `srvr`.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    socket.write_all(b"srvr")?;
    let mut text = String::new();
    socket.take(STATUS_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// None for a member that doesn't serve yet.
fn status(text: &str) -> Option<Status> {
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // Behind the version is what it was built from.
    let version = of("Zookeeper version:")?.split(['-', ',']).next()?.to_owned();
    match of("Mode:")? {
        "leader" => Some(Status { version, leads: true }),
        "follower" => Some(Status { version, leads: false }),
        _ => None,
    }
}

/// Runs `load` on `ensemble`, calling `watch` meanwhile on this thread.
pub(crate) fn run<T>(
    load: &Load,
    phases: Phases,
    ensemble: &Ensemble,
    interrupt: &Interrupt,
    watch: impl FnOnce() -> Result<T>,
) -> Result<(Recorder, T)> {
    engine::drive(load, phases, |thread| Sessions::new(load, ensemble, thread), interrupt, watch)
}

#[cfg(test)]
mod tests;
