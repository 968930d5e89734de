//! What an idle client costs: the session that it opened, in which it has written once and does nothing any more.
//!
//! Sessions are opened through the protocol on a cluster of three, evenly over its shards; what the leader's resident memory
//! grows by is theirs. Before, it has written and forgotten as much as they will write, so that buffers and the log in memory
//! are as large before as after.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flotilla_services::client::{Cluster, Connection, Reply};
use flotilla_services::slot::{Slot, first_slot, key_in};

use super::cluster::Nodes;
use super::{Bench, PATIENCE, failed};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::report::Goal;
use crate::reshard::is_for_another;

const PART: &str = "sessions";
/// The default of the nodes' configuration.
const SHARDS: u16 = 64;
/// The group keeps little of its log: what is in memory is the sessions'.
const LOG_BYTES: usize = 1 << 20;
/// Commands that are sent at once.
const BATCH: usize = 256;
/// Memory is looked at until it hasn't grown or shrunk by more than this for so long.
const STEADY_BYTES: u64 = 256 << 10;
const STEADY: Duration = Duration::from_secs(1);

pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    let sessions = bench.args.sessions.unwrap_or(if bench.args.quick { 100_000 } else { 400_000 });
    let nodes = Nodes::start(bench, PART, |options| options.log.snapshot_after_bytes = LOG_BYTES)?;
    let keys: Vec<Vec<u8>> = (0..SHARDS).map(|shard| key_in(first_slot(shard, SHARDS))).collect();
    let key_of = |number: u32| &*keys[number as usize % keys.len()];
    let mut pipe = Pipe::new(&nodes, bench.interrupt);
    // As many entries as of the sessions, and longer ones.
    let value = [b'v'; 64];
    for _ in 0..2 {
        pipe.all(
            sessions,
            |number| vec![b"SET".to_vec(), key_of(number).to_vec(), value.to_vec()],
            is_status,
        )?;
    }
    let before = steady(&nodes, bench.interrupt)?;
    let mut numbers = vec![Vec::new(); sessions as usize];
    let open = |number| vec![b"FLOTILLA.SESSION".to_vec(), key_of(number).to_vec()];
    pipe.all(sessions, open, |place, reply| match reply {
        Reply::Integer(number) => {
            numbers[place as usize] = number.to_string().into_bytes();
            true
        }
        _ => false,
    })?;
    let write = |number: u32| {
        let session = &numbers[number as usize];
        let once: [&[u8]; 7] = [b"FLOTILLA.ONCE", session, b"1", b"0", b"SET", key_of(number), &value];
        once.map(<[u8]>::to_vec).to_vec()
    };
    pipe.all(sessions, write, is_status)?;
    let after = steady(&nodes, bench.interrupt)?;
    let leader = pipe.leader(&nodes)?;
    for (place, (before, after)) in before.iter().zip(&after).enumerate() {
        let each = after.saturating_sub(*before) as f64 / f64::from(sessions);
        if place + 1 == leader {
            bench.figures.ratio("session_bytes_of_an_idle_client", each, Goal::AtMost(200.0));
        } else {
            bench.figures.observe("session_bytes_at_a_follower", each);
        }
    }
    Ok(())
}

fn is_status(_: u32, reply: &Reply) -> bool {
    matches!(reply, Reply::Status(_))
}

/// Resident memory of each node, once it stays what it is.
fn steady(nodes: &Nodes, interrupt: &Interrupt) -> Result<[u64; 3]> {
    let all = || -> Result<[u64; 3]> { Ok([nodes.resident(1)?, nodes.resident(2)?, nodes.resident(3)?]) };
    let until = Instant::now() + PATIENCE;
    let mut last = all()?;
    loop {
        interrupt.sleep_until(Instant::now() + STEADY)?;
        let now = all()?;
        let is_steady = now.iter().zip(&last).all(|(now, last)| now.abs_diff(*last) <= STEADY_BYTES);
        if is_steady {
            return Ok(now);
        }
        if Instant::now() > until {
            return Err(failed(PART, "the nodes' memory doesn't come to rest"));
        }
        last = now;
    }
}

/// Many commands at once, to whoever leads: there is one group.
struct Pipe<'a> {
    client: Cluster,
    connection: Option<Connection>,
    interrupt: &'a Interrupt,
}

impl<'a> Pipe<'a> {
    fn new(nodes: &Nodes, interrupt: &'a Interrupt) -> Self {
        Self { client: nodes.cluster.client(), connection: None, interrupt }
    }

    fn address(&mut self) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.client.refresh().map_err(|error| failed(PART, error))?;
            if let Some(address) = self.client.address_of(Slot(0)) {
                return Ok(address);
            }
            if Instant::now() > until {
                return Err(failed(PART, "nobody leads"));
            }
            self.interrupt.sleep_until(Instant::now() + Duration::from_millis(10))?;
        }
    }

    /// The place of the node that leads, from 1.
    fn leader(&mut self, nodes: &Nodes) -> Result<usize> {
        let address = self.address()?;
        let node = nodes.cluster.node_at(&address);
        node.map(|node| node as usize).ok_or_else(|| failed(PART, format!("no node is at {address}")))
    }

    /// Executes so many commands, each once; `take` says whether a reply is as it should be.
    fn all(
        &mut self,
        count: u32,
        command: impl Fn(u32) -> Vec<Vec<u8>>,
        mut take: impl FnMut(u32, &Reply) -> bool,
    ) -> Result<()> {
        let until = Instant::now() + PATIENCE * 10;
        let mut left: VecDeque<u32> = (0..count).collect();
        while !left.is_empty() {
            self.interrupt.check()?;
            if Instant::now() > until {
                let seconds = (PATIENCE * 10).as_secs();
                return Err(failed(
                    PART,
                    format!("{} of {count} commands are left after {seconds} s", left.len()),
                ));
            }
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => Connection::open(&self.address()?, PATIENCE).map_err(|error| failed(PART, error))?,
            };
            let batch: Vec<u32> = left.drain(..BATCH.min(left.len())).collect();
            let commands: Vec<Vec<Vec<u8>>> = batch.iter().map(|number| command(*number)).collect();
            let commands: Vec<Vec<&[u8]>> =
                commands.iter().map(|words| words.iter().map(Vec::as_slice).collect()).collect();
            connection.send(commands.iter().map(Vec::as_slice)).map_err(|error| failed(PART, error))?;
            let mut is_led = true;
            for number in batch {
                match connection.receive().map_err(|error| failed(PART, error))? {
                    Reply::Error(error) if is_for_another(&error) => {
                        is_led = false;
                        left.push_back(number);
                    }
                    reply if take(number, &reply) => {}
                    reply => return Err(failed(PART, format!("a command was answered with {reply}"))),
                }
            }
            self.connection = is_led.then_some(connection);
        }
        Ok(())
    }
}
