//! A leader is killed with SIGKILL, again and again, while a client writes: how long until the next leader acknowledges.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::engine::slots::{ask, parse_moved};
use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::recorder::latencies;
use crate::resp::Reply;
use crate::target::flotilla::{self, Shape};
use crate::target::process::Ports;

/// The default of the nodes' configuration.
pub(super) const ELECTION_TIMEOUT_MS: f64 = 400.0;
/// Longer than any failover.
const PATIENCE: Duration = Duration::from_secs(20);
/// The client's pause after a write that failed.
const RETRY: Duration = Duration::from_millis(1);

/// From the signal to the first write acknowledged after it.
pub(super) struct Failover {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// Kills so many leaders of one group, each of which is started again before the next dies.
pub(super) fn measure(
    folder: &Path,
    program: Option<&Path>,
    kills: u16,
    interrupt: &Interrupt,
) -> Result<Failover> {
    let data = tempfile::tempdir_in(folder).map_err(BenchError::io("making a folder for nodes"))?;
    let shape = Shape { program: program.map(Path::to_owned), nodes: 3, cores: 1, groups: 1, workers: 0 };
    let mut cluster = flotilla::start(&shape, data.path(), &mut Ports::new())?;
    let mut seen = latencies();
    let nodes = cluster.addresses()?;
    cluster.serving(interrupt)?;
    let mut leader = write_until_acknowledged(&nodes, 0, interrupt)?;
    for _ in 0..kills {
        interrupt.check()?;
        let killed = Instant::now();
        cluster.kill(leader);
        let dead = leader;
        leader = write_until_acknowledged(&nodes, (dead + 1) % nodes.len(), interrupt)?;
        seen.saturating_record(u64::try_from(killed.elapsed().as_nanos()).unwrap_or(u64::MAX));
        cluster.restart(dead, interrupt)?;
        // It has caught up once it, too, knows who leads; and the leader may have changed once more.
        await_follower(&nodes, dead, interrupt)?;
        leader = write_until_acknowledged(&nodes, leader, interrupt)?;
    }
    let ms = |quantile| seen.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Failover { p50_ms: ms(0.5), p99_ms: ms(0.99) })
}

/// Writes at one node after the other until one acknowledges: that one leads.
fn write_until_acknowledged(nodes: &[SocketAddr], first: usize, interrupt: &Interrupt) -> Result<usize> {
    let until = Instant::now() + PATIENCE;
    let mut at = first;
    loop {
        match ask(nodes[at], &[b"SET", b"failover", b"1"], answer).unwrap_or_else(Answer::Failed) {
            Answer::Acknowledged => return Ok(at),
            Answer::Moved(text) => {
                let led = parse_moved(&text, nodes[at]).map(|(_, address)| address);
                let found = led.and_then(|led| nodes.iter().position(|node| *node == led));
                at = found.filter(|place| *place != at).unwrap_or((at + 1) % nodes.len());
            }
            Answer::Failed(reason) if Instant::now() >= until => {
                return Err(BenchError::Failed {
                    scenario: "failover".to_owned(),
                    target: "flotilla".to_owned(),
                    reason: format!("no write succeeds: {reason}"),
                });
            }
            Answer::Failed(_) => at = (at + 1) % nodes.len(),
        }
        interrupt.sleep_until(Instant::now() + RETRY)?;
    }
}

enum Answer {
    Acknowledged,
    Moved(Vec<u8>),
    Failed(String),
}

fn answer(reply: &Reply<'_>) -> Answer {
    match reply {
        Reply::Simple(b"OK") => Answer::Acknowledged,
        Reply::Error(text) if text.starts_with(b"MOVED") => Answer::Moved(text.to_vec()),
        other => Answer::Failed(format!("{other:?}")),
    }
}

/// Waits until the node that was started again sends clients to somebody else.
fn await_follower(nodes: &[SocketAddr], place: usize, interrupt: &Interrupt) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let asked = ask(nodes[place], &[b"SET", b"failover", b"1"], answer);
        if matches!(asked, Ok(Answer::Moved(_) | Answer::Acknowledged)) {
            return Ok(());
        }
        interrupt.sleep_until(Instant::now() + RETRY)?;
    }
    Err(BenchError::Failed {
        scenario: "failover".to_owned(),
        target: "flotilla".to_owned(),
        reason: "a node that was started again never finds its leader".to_owned(),
    })
}
