//! The store as a job's input and output.
//!
//! | module | what |
//! |---|---|
//! | [`input`] | the keys of a shard, page by page |
//! | [`output`] | an attempt's pairs, put aside in the shards where they belong |
//! | [`publish`] | making them keys, and removing what nobody published |
//! | [`ship`] | files that a job's commands need |
//!
//! What an attempt puts aside is one key for some tens of kilobytes of pairs, under a name that only this attempt has, in the
//! shard of the pairs. It is as durable as everything in the store. Once the log of facts has decided which attempts have won,
//! theirs are published, each piece by one entry of its shard's log, which empties it: whoever does it again does nothing.

pub mod input;
pub mod output;
pub mod publish;
pub mod ship;

use crate::client::{Client, ClientError, ClientOptions, Reply, Seeds};
use crate::mapreduce::MrError;
use crate::mapreduce::spec::{JobSpec, KeysIn};
use crate::slot::{first_slot, key_in};
use futures_lite::future::block_on;
use std::time::Duration;

/// What the names of the engine's own keys begin with; they are never input.
const OWN: [&[u8]; 2] = [b"{flotilla.mr}", b"flotilla.mr:{"];
/// What nobody came to publish or to remove is gone after this: a week, in milliseconds.
const ASIDE_FOR_MS: &[u8] = b"604800000";
const OPTIONS: ClientOptions =
    ClientOptions { timeout: Duration::from_secs(30), patience: Duration::from_secs(2) };

/// A blocking client of the store, for a thread that works.
#[derive(Debug)]
pub struct Store {
    client: Client,
}

impl Store {
    /// Connects.
    ///
    /// # Errors
    /// [`MrError::Store`], if nobody answers, or not this user.
    pub fn connect(seeds: &Seeds) -> Result<Self, MrError> {
        let addresses: Vec<&str> = seeds.addresses.iter().map(String::as_str).collect();
        let connected = block_on(Client::connect_secured(&addresses, OPTIONS, seeds.security.clone()));
        let client = connected.map_err(|source| MrError::Store { what: "connecting", source })?;
        Ok(Self { client })
    }

    /// Executes what may be done twice.
    fn repeat(&self, what: &'static str, key: &[u8], command: &[&[u8]]) -> Result<Reply, MrError> {
        block_on(self.client.read(key, command)).map_err(|source| MrError::Store { what, source })
    }

    /// Executes a write once.
    fn write(&self, what: &'static str, key: &[u8], command: &[&[u8]]) -> Result<Reply, MrError> {
        block_on(self.client.write(key, command)).map_err(|source| MrError::Store { what, source })
    }

    /// How many shards the cluster has.
    ///
    /// # Errors
    /// [`MrError::Store`].
    pub fn shards(&self) -> Result<u16, MrError> {
        const WHAT: &str = "asking for the number of shards";
        let reply = self.repeat(WHAT, b"", &[b"CLUSTER", b"INFO"])?;
        let shards = match &reply {
            Reply::Bulk(text) => String::from_utf8_lossy(text)
                .lines()
                .find_map(|line| line.strip_prefix("flotilla_shards:")?.parse().ok())
                .filter(|shards| *shards > 0),
            _ => None,
        };
        shards.ok_or_else(|| unexpected(WHAT, &reply))
    }

    /// Whether there is a key that begins so.
    ///
    /// # Errors
    /// [`MrError::Store`].
    pub fn has_prefix(&self, shards: u16, prefix: &str) -> Result<bool, MrError> {
        let (from, to) = ([b"[", prefix.as_bytes()].concat(), behind(prefix.as_bytes()));
        for shard in 0..shards {
            let route = route(shard, shards);
            let command: [&[u8]; 6] = [b"FLOTILLA.WALK", &route, &from, &to, b"LIMIT", b"1"];
            let reply = self.repeat("looking for older output", &route, &command)?;
            if !input::page_of(&reply).ok_or_else(|| unexpected("FLOTILLA.WALK", &reply))?.1.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes what says that an output under this prefix is whole.
    ///
    /// # Errors
    /// [`MrError::Store`].
    pub fn forget_success(&self, prefix: &str) -> Result<(), MrError> {
        let key = publish::success_key(prefix);
        self.repeat("removing an older output's mark", &key, &[b"DEL", &key]).map(drop)
    }

    /// Lines of a few values, for ranges of keys.
    ///
    /// # Errors
    /// [`MrError::Store`].
    pub fn sample(&self, keys: &KeysIn, mut take: impl FnMut(&[u8])) -> Result<(), MrError> {
        let step = usize::from((keys.shards / 40).max(1));
        for shard in (0..keys.shards).step_by(step) {
            let mut pages = input::Pages::new(self, keys, shard);
            pages.limit(500, 128 << 10);
            pages.next_page()?.into_iter().flatten().for_each(|(_, value)| take(&value));
        }
        Ok(())
    }
}

/// A key in a shard: says where a command goes, and names what is put aside there.
fn route(shard: u16, shards: u16) -> Vec<u8> {
    key_in(first_slot(shard, shards))
}

/// What all names of a job's pieces in a shard begin with.
fn aside(spec: &JobSpec, shard: u16, shards: u16) -> String {
    let tag = String::from_utf8_lossy(&route(shard, shards)).into_owned();
    format!("flotilla.mr:{{{tag}}}:{}:", spec.nonce())
}

/// The name of a piece.
fn piece(spec: &JobSpec, attempt: &str, shard: u16, shards: u16, number: u32) -> Vec<u8> {
    format!("{}{attempt}:{number}", aside(spec, shard, shards)).into_bytes()
}

/// The end of a range of keys that begin with `prefix`, which isn't empty.
fn behind(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX);
    match kept {
        None => b"+".to_vec(),
        Some(last) => {
            let mut end = [b"(", &prefix[..=last]].concat();
            end[last + 1] += 1;
            end
        }
    }
}

fn unexpected(what: &'static str, reply: &Reply) -> MrError {
    let (address, said) = ("the cluster".to_owned(), format!("{what} was answered with {reply}"));
    MrError::Store { what, source: ClientError::Protocol { address, what: said } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_behind_everything_that_begins_so() {
        assert_eq!(behind(b"a:"), b"(a;");
        assert_eq!(behind(b"a\xff"), b"(b");
        assert_eq!(behind(b"\xff\xff"), b"+");
    }
}
