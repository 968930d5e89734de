//! `flotilla restore`: a backup is loaded into a cluster.

use super::loader::{Load, Loaded, Loader};
use super::peer::{Peer, shown, words};
use super::verify::{check, read, summary};
use super::work::{Progress, on_all};
use super::{Common, Existing};
use crate::backup::{Found, Head, Manifest, ShardRecord, hex};
use crate::cli::{Failure, interrupted};
use crate::client::Reply;
use crate::hands::unix_ms;
use crate::slot::{Slot, key_in};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a value is gathered under that is too long for one entry of the log goes by itself, should it never be whole.
const STAGED_FOR_S: &[u8] = b"86400";

pub(super) fn run(common: &Common, existing: Option<Existing>, dir: &Path) -> Result<(), Failure> {
    let stop = interrupted()?;
    let manifest = check(dir, common.json, Arc::clone(&stop))
        .map_err(|failure| interrupted_before(failure, "nothing was loaded"))?;
    let peer = Peer::find(common)?;
    let keys: u64 = peer.sizes()?.iter().map(|it| it.0).sum();
    if keys > 0 && existing.is_none() {
        return Err(Failure::Failed(format!(
            "cluster {:?} isn't empty, it has {keys} keys: --existing keep leaves them as they are (so a restore that was \
             interrupted goes on), --existing replace gives those that are in the backup what they have there",
            peer.cluster
        )));
    }
    let era_s = (unix_ms() / 1000).max(manifest.ended_ms / 1000 + 1).to_string();
    begin_era(&peer, &era_s)?;
    let total = (manifest.keys, manifest.bytes);
    let progress = Arc::new(Progress::new(total, common.limit, stop));
    let what = (!common.json).then_some("restore");
    let mode = if existing == Some(Existing::Replace) { "REPLACE" } else { "KEEP" };
    let task = Task { peer: peer.clone(), folder: dir.into(), era_s, mode, shards: manifest.shards_total() };
    let records: Vec<ShardRecord> = manifest.shards.iter().filter(|it| it.file.is_some()).cloned().collect();
    let done = on_all(records, common.parallel, &progress, what, move |record, progress| {
        task.load(&record, progress)
    });
    let done =
        done.map_err(|failure| interrupted_before(failure, "run it again with --existing keep to go on"))?;
    let mut all = Loaded::default();
    done.iter().for_each(|it| all.add(it));
    tell(common, &manifest, &peer, &all, progress.seconds());
    Ok(())
}

fn interrupted_before(failure: Failure, what: &str) -> Failure {
    match failure {
        Failure::Failed(why) if why.is_empty() => Failure::Failed(format!("interrupted; {what}")),
        failure => failure,
    }
}

fn tell(common: &Common, manifest: &Manifest, peer: &Peer, all: &Loaded, seconds: f64) {
    let Loaded { loaded, kept, over } = all;
    if common.json {
        println!(
            "{}",
            serde_json::json!({
                "cluster": peer.cluster, "from_cluster": manifest.cluster, "keys": manifest.keys, "bytes": manifest.bytes,
                "loaded": loaded, "kept": kept, "over": over, "seconds": seconds,
            })
        );
        return;
    }
    let of = summary(manifest);
    println!("cluster {:?} has the backup of {of}, in {seconds:.1} s", peer.cluster);
    println!("  {loaded} keys loaded, {kept} kept as they were, {over} whose time had come");
}

/// No shard of the cluster, those included for which there is no key, gives out a version again that somebody may know.
fn begin_era(peer: &Peer, era_s: &str) -> Result<(), Failure> {
    let mut client = peer.client();
    for shard in 0..peer.shards {
        let slot = peer.slot(shard);
        let key = key_in(slot.0);
        // A key whose time came long ago: nothing is loaded.
        let command: [&[u8]; 7] = [b"FLOTILLA.LOAD", &key, b"", era_s.as_bytes(), b"0", b"1", b"KEEP"];
        let (reply, _) = client.execute_in(slot, &command, peer.timeout);
        match reply {
            Ok(Reply::Integer(_)) => {}
            Ok(other) => return Err(Failure::Failed(format!("shard {shard}: {}", words(&other)))),
            Err(error) => return Err(Failure::Failed(format!("shard {shard}: {error}"))),
        }
    }
    Ok(())
}

/// What every thread needs.
struct Task {
    peer: Peer,
    folder: PathBuf,
    era_s: String,
    mode: &'static str,
    /// Of the backup.
    shards: u16,
}

/// A value that comes in parts.
struct Staged {
    key: Vec<u8>,
    /// What it is gathered under, in the same slot.
    under: Vec<u8>,
    version: u64,
    deadline_ms: u64,
    bytes: u64,
}

impl Task {
    fn load(&self, record: &ShardRecord, progress: &Progress) -> Result<Loaded, Failure> {
        let mut loader = Loader::new(&self.peer);
        let mut staged: Option<Staged> = None;
        read(&self.folder, record, self.shards, |found| match found {
            Found::Whole(head, value) => {
                loader.put(self.whole(&head, value))?;
                progress.add(1, (head.key.len() + value.len()) as u64)
            }
            Found::Long(head, bytes) => {
                staged = Some(self.stage(&mut loader, &head, bytes)?);
                progress.add(1, head.key.len() as u64)
            }
            Found::Part(behind, part) => {
                let it = staged.as_ref().expect("parts follow what they are of");
                self.put_part(&mut loader, it, behind, part)?;
                progress.add(0, part.len() as u64)
            }
        })?;
        loader.finish()?;
        Ok(loader.done)
    }

    fn whole(&self, head: &Head<'_>, value: &[u8]) -> Load {
        let Head { key, version, deadline_ms } = *head;
        let (version, deadline) = (version.to_string(), deadline_ms.to_string());
        let args = [
            b"FLOTILLA.LOAD",
            key,
            value,
            self.era_s.as_bytes(),
            version.as_bytes(),
            deadline.as_bytes(),
            self.mode.as_bytes(),
        ];
        Load { slot: Slot::of_key(key), args: args.map(<[u8]>::to_vec).to_vec(), deadline_ms }
    }

    /// Whatever is left of an earlier try goes.
    fn stage(&self, loader: &mut Loader<'_>, head: &Head<'_>, bytes: u64) -> Result<Staged, Failure> {
        let Head { key, version, deadline_ms } = *head;
        let tag = String::from_utf8_lossy(&key_in(Slot::of_key(key).0)).into_owned();
        let under = format!("{{{tag}}}flotilla.restore:{}", hex(&Sha256::digest(key))).into_bytes();
        let staged = Staged { key: key.to_vec(), under, version, deadline_ms, bytes };
        self.execute(loader, &staged, &[b"DEL", &staged.under])?;
        Ok(staged)
    }

    /// Parts are put where they belong, so one that is sent twice does no harm.
    fn put_part(
        &self,
        loader: &mut Loader<'_>,
        it: &Staged,
        behind: u64,
        part: &[u8],
    ) -> Result<(), Failure> {
        let place = behind.to_string();
        self.execute(loader, it, &[b"SETRANGE", &it.under, place.as_bytes(), part])?;
        if behind == 0 {
            self.execute(loader, it, &[b"EXPIRE", &it.under, STAGED_FOR_S])?;
        }
        if behind + part.len() as u64 == it.bytes {
            self.put_staged(loader, it)?;
        }
        Ok(())
    }

    fn put_staged(&self, loader: &mut Loader<'_>, it: &Staged) -> Result<(), Failure> {
        let numbers = [it.version, it.deadline_ms, it.bytes].map(|number| number.to_string());
        let [version, deadline, bytes] = numbers.each_ref().map(String::as_bytes);
        let (era, mode) = (self.era_s.as_bytes(), self.mode.as_bytes());
        let command: [&[u8]; 8] =
            [b"FLOTILLA.LOADFROM", &it.key, &it.under, era, version, deadline, mode, bytes];
        match self.execute(loader, it, &command)? {
            (-1, was_lost) if was_lost => loader.done.count(1, 0),
            (-1, _) => return Err(self.refused(it, &"what was gathered of its value is gone")),
            (done, _) => loader.done.count(done, it.deadline_ms),
        }
        Ok(())
    }

    /// Executes what may be done twice; its answer, and whether it may have been.
    fn execute(
        &self,
        loader: &mut Loader<'_>,
        it: &Staged,
        command: &[&[u8]],
    ) -> Result<(i64, bool), Failure> {
        let (reply, was_lost) = loader.routes.execute_in(Slot::of_key(&it.key), command, self.peer.timeout);
        match reply {
            Ok(Reply::Integer(number)) => Ok((number, was_lost)),
            Ok(other) => Err(self.refused(it, &words(&other))),
            Err(error) => Err(self.refused(it, &error)),
        }
    }

    fn refused(&self, it: &Staged, why: &dyn ToString) -> Failure {
        Failure::Failed(format!("{}: {}", shown(&it.key), why.to_string()))
    }
}
