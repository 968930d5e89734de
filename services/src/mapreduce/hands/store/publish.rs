//! Making the keys of a job visible, and removing what nobody published.

use super::{ASIDE_FOR_MS, Store, aside, behind, input, piece, route, unexpected};
use crate::client::{ClientError, Reply};
use crate::kv::{PUBLISH_MAGIC, put_pair};
use crate::mapreduce::MrError;
use crate::mapreduce::spec::{FileInfo, JobSpec, KeysOut};
use crate::slot::Slot;
use std::collections::BTreeMap;

const WHAT: &str = "publishing keys";
/// Stands for an attempt in the name of what says that an output is whole.
const SUCCESS: &str = "success";

/// The key that says that an output is whole.
pub(super) fn success_key(prefix: &str) -> Vec<u8> {
    format!("{prefix}_SUCCESS").into_bytes()
}

impl Store {
    /// Publishes what the winners have put aside, in the order of the output, and says last that it is whole. May be interrupted
    /// anywhere and done again by another, also by two at a time. `goes_on` is told bytes and says whether to.
    ///
    /// # Errors
    /// [`MrError::Rejected`] if something that was put aside isn't there any more; [`MrError::Store`].
    pub fn publish(
        &self,
        spec: &JobSpec,
        out: &KeysOut,
        outputs: &[FileInfo],
        counters: &BTreeMap<String, u64>,
        mut goes_on: impl FnMut(u64) -> bool,
    ) -> Result<(), MrError> {
        for file in outputs {
            let all: u64 = file.pieces.iter().map(|(_, pieces)| u64::from(*pieces)).sum();
            for (shard, pieces) in &file.pieces {
                for number in 0..*pieces {
                    let name = piece(spec, &file.name, *shard, out.shards, number);
                    self.publish_piece(spec, &name, &mut goes_on)?;
                    if !goes_on(file.bytes / all.max(1)) {
                        return Err(MrError::Rejected("the attempt was told to stop".to_owned()));
                    }
                }
            }
        }
        let bytes: u64 = outputs.iter().map(|file| file.bytes).sum();
        let manifest = serde_json::json!({
            "schema": "flotilla-mr-output-keys-1", "job": spec.name, "bytes": bytes, "counters": counters,
        });
        let key = success_key(&out.prefix);
        let name = piece(spec, SUCCESS, Slot::of_key(&key).shard(out.shards), out.shards, 0);
        let mut staged = PUBLISH_MAGIC.to_vec();
        put_pair(&mut staged, &key, manifest.to_string().as_bytes());
        // Whoever was here before has put the same there, and perhaps published it.
        self.write(WHAT, &name, &[b"SET", &name, &staged, b"NX", b"PX", ASIDE_FOR_MS])?;
        self.publish_piece(spec, &name, &mut goes_on)
    }

    /// As often as it takes: a job whose keys show in part has to go on.
    fn publish_piece(
        &self,
        spec: &JobSpec,
        name: &[u8],
        goes_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<(), MrError> {
        loop {
            match self.repeat(WHAT, name, &[b"FLOTILLA.PUBLISH", name]) {
                Ok(Reply::Integer(0..)) => return Ok(()),
                Ok(Reply::Integer(_)) => {
                    return Err(MrError::Rejected(format!(
                        "{} of {} is gone from the store before it was published: were keys flushed, or has the job taken more \
                         than a week? Submit the job again",
                        String::from_utf8_lossy(name),
                        spec.name
                    )));
                }
                Ok(other) => return Err(unexpected(WHAT, &other)),
                Err(MrError::Store { source: ClientError::TimedOut { .. }, .. }) if goes_on(0) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes some pieces of an attempt.
    ///
    /// # Errors
    /// [`MrError::Store`].
    pub fn remove_pieces(
        &self,
        spec: &JobSpec,
        out: &KeysOut,
        attempt: &str,
        pieces: &[(u16, u32)],
    ) -> Result<(), MrError> {
        for (shard, pieces) in pieces {
            for number in 0..*pieces {
                let name = piece(spec, attempt, *shard, out.shards, number);
                self.repeat("removing what was put aside", &name, &[b"DEL", &name])?;
            }
        }
        Ok(())
    }

    /// Removes everything that a job has put aside: it has ended.
    ///
    /// # Errors
    /// [`MrError::Store`].
    pub fn sweep(&self, spec: &JobSpec, out: &KeysOut) -> Result<(), MrError> {
        for shard in 0..out.shards {
            let (route, prefix) = (route(shard, out.shards), aside(spec, shard, out.shards));
            let (from, to) = (format!("[{prefix}"), behind(prefix.as_bytes()));
            loop {
                let walk: [&[u8]; 4] = [b"FLOTILLA.WALK", &route, from.as_bytes(), &to];
                let reply = self.repeat("looking for what was put aside", &route, &walk)?;
                let Some((next, pairs)) = input::page_of(&reply) else {
                    return Err(unexpected("FLOTILLA.WALK", &reply));
                };
                if !pairs.is_empty() {
                    let mut command: Vec<&[u8]> = vec![b"DEL"];
                    command.extend(pairs.iter().map(|(key, _)| &key[..]));
                    self.repeat("removing what was put aside", &route, &command)?;
                }
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }
}
