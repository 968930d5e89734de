//! The cluster that is backed up or restored into.

use super::Common;
use crate::cli::{Failure, progress};
use crate::client::{ClientError, Cluster, Connection, Reply, Security, Seeds};
use crate::slot::{Slot, first_slot};
use std::time::Duration;

/// How long a node may take for anything but waiting for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is spoken with.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    seeds: Vec<String>,
    security: Security,
    /// Its name.
    pub(super) cluster: String,
    /// Its shards.
    pub(super) shards: u16,
    /// How long it may make no progress.
    pub(super) timeout: Duration,
}

impl Peer {
    /// Asks the nodes one after the other who they are.
    ///
    /// # Errors
    /// None of them answers, or the first that does won't have us.
    pub(super) fn find(common: &Common) -> Result<Self, Failure> {
        let security = common.login.security()?;
        let mut why = Vec::new();
        for address in &common.nodes {
            let asked = Connection::open_secured(address, PATIENCE, &security)
                .and_then(|mut connection| connection.execute(&[b"FLOTILLA.BACKUP", b"CLUSTER"]));
            let (cluster, shards) = match asked {
                Ok(Reply::Array(parts)) => match &parts[..] {
                    [Reply::Bulk(name), Reply::Integer(shards)] => {
                        (String::from_utf8_lossy(name).into_owned(), u16::try_from(*shards).unwrap_or(0))
                    }
                    _ => return Err(Failure::Failed(format!("{address} answers what isn't an answer"))),
                },
                Ok(other) => return Err(Failure::Failed(format!("{address}: {}", words(&other)))),
                Err(ClientError::Io { address, source }) => {
                    why.push(format!("{address}: {source}"));
                    continue;
                }
                Err(error) => return Err(Failure::failed(error)),
            };
            // Whoever was named first may be gone before the end.
            let mut seeds = progress::cores(address, &security).map_err(Failure::failed)?;
            seeds.retain(|seed| !common.nodes.contains(seed));
            seeds.extend(common.nodes.iter().cloned());
            return Ok(Self { seeds, security, cluster, shards, timeout: common.timeout() });
        }
        Err(Failure::Failed(format!("no node of the cluster answers: {}", why.join("; "))))
    }

    /// A client that goes to whoever leads a slot.
    pub(super) fn client(&self) -> Cluster {
        Cluster::new(Seeds { addresses: self.seeds.clone(), security: self.security.clone() })
    }

    /// A connection to one core.
    pub(super) fn connect(&self, address: &str) -> Result<Connection, ClientError> {
        Connection::open_secured(address, PATIENCE, &self.security)
    }

    /// The first slot of a shard.
    pub(super) fn slot(&self, shard: u16) -> Slot {
        Slot(first_slot(shard, self.shards))
    }

    /// Keys and bytes of every shard, as they are now.
    ///
    /// # Errors
    /// Somebody doesn't answer in time.
    pub(super) fn sizes(&self) -> Result<Vec<(u64, u64)>, Failure> {
        let mut client = self.client();
        let size = |shard: u16| {
            let number = shard.to_string();
            let command: [&[u8]; 3] = [b"FLOTILLA.BACKUP", b"LOOK", number.as_bytes()];
            let (reply, _) = client.execute_in(self.slot(shard), &command, self.timeout);
            let reply = reply.map_err(|error| Failure::Failed(format!("shard {shard}: {error}")))?;
            match numbers(&reply)[..] {
                [keys, bytes, ..] => Ok((keys, bytes)),
                _ => Err(Failure::Failed(format!("shard {shard}: {}", words(&reply)))),
            }
        };
        (0..self.shards).map(size).collect()
    }
}

/// The numbers of an array.
pub(super) fn numbers(reply: &Reply) -> Vec<u64> {
    let Reply::Array(parts) = reply else { return Vec::new() };
    let number = |part: &Reply| match part {
        Reply::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    parts.iter().map_while(number).collect()
}

/// A key, for people: its beginning, if it is long.
pub(super) fn shown(key: &[u8]) -> String {
    let beginning = &key[..key.len().min(100)];
    let more = if beginning.len() < key.len() { "…" } else { "" };
    format!("key \"{}{more}\"", beginning.escape_ascii())
}

/// What a node said that it shouldn't have.
pub(super) fn words(reply: &Reply) -> String {
    match reply {
        Reply::Error(error) => error.clone(),
        other => format!("an unexpected answer: {other}"),
    }
}
