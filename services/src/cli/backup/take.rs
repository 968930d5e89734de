//! `flotilla backup`: every shard as it is at one moment, from whoever leads it.

use super::Common;
use super::folder::{ShardFile, Unfinished};
use super::peer::{Peer, numbers, words};
use super::verify::{Ended, summary};
use super::work::{Progress, on_all};
use crate::backup::{Entries, Found, Manifest, Moment, ShardRecord, file_name};
use crate::cli::{Failure, interrupted};
use crate::client::{ClientError, Connection, Reply};
use crate::hands::{pause, unix_ms};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A shard is begun so often, before it is given up: it has gone elsewhere each time.
const TRIES_MAX: u32 = 100;
/// Before it is begun again.
const PAUSE: Duration = Duration::from_millis(100);
/// Pieces that are asked for before they are needed.
const AHEAD: u64 = 2;

pub(super) fn run(common: &Common, dir: &Path) -> Result<(), Failure> {
    let stop = interrupted()?;
    let begun_ms = unix_ms();
    let peer = Peer::find(common)?;
    let folder = Unfinished::begin(dir)?;
    let sizes = peer.sizes()?;
    let total = sizes.iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    let progress = Arc::new(Progress::new(total, common.limit, Arc::clone(&stop)));
    let what = (!common.json).then_some("backup");
    // The largest first, or one of them might be left at the end with nothing beside it.
    let mut shards: Vec<u16> = (0..peer.shards).collect();
    shards.sort_by_key(|shard| std::cmp::Reverse(sizes[usize::from(*shard)].1));
    let (path, of) = (PathBuf::from(dir), peer.clone());
    let read = on_all(shards, common.parallel, &progress, what, move |shard, progress| {
        read_shard(&of, &path, shard, progress)
    });
    let records = read.map_err(|failure| match failure {
        Failure::Failed(why) if why.is_empty() => {
            Failure::Failed("interrupted; nothing was left behind".to_owned())
        }
        failure => failure,
    })?;
    let manifest = Manifest::new(peer.cluster, (begun_ms, unix_ms()), records);
    folder.finish(&manifest)?;
    let seconds = progress.seconds();
    if common.json {
        let Manifest { cluster, keys, bytes, .. } = &manifest;
        let shards = manifest.shards.len();
        println!(
            "{}",
            serde_json::json!({
                "dir": dir, "cluster": cluster, "shards": shards, "keys": keys, "bytes": bytes, "seconds": seconds,
            })
        );
    } else {
        println!("{} has a backup of {} in {seconds:.1} s", dir.display(), summary(&manifest));
    }
    Ok(())
}

/// How one try ended.
enum Tried {
    Whole(ShardRecord),
    /// The shard isn't to be had there any more: why.
    Lost(String),
}

fn read_shard(peer: &Peer, folder: &Path, shard: u16, progress: &Progress) -> Result<ShardRecord, Failure> {
    let mut last = String::new();
    for _ in 0..TRIES_MAX {
        progress.go_on()?;
        match try_shard(peer, folder, shard, progress)? {
            Tried::Whole(record) => return Ok(record),
            Tried::Lost(why) => last = why,
        }
        pause(PAUSE);
    }
    let what = "it didn't stay in one place for long enough; the last word was";
    Err(Failure::Failed(format!("shard {shard}: begun {TRIES_MAX} times: {what}: {last}")))
}

fn try_shard(peer: &Peer, folder: &Path, shard: u16, progress: &Progress) -> Result<Tried, Failure> {
    let failed = |why: &dyn ToString| Failure::Failed(format!("shard {shard}: {}", why.to_string()));
    let mut client = peer.client();
    let (number, slot) = (shard.to_string(), peer.slot(shard));
    let command: [&[u8]; 3] = [b"FLOTILLA.BACKUP", b"OPEN", number.as_bytes()];
    let (reply, _) = client.execute_in(slot, &command, peer.timeout);
    let reply = match reply {
        // A snapshot of a large shard takes its time, and so does somebody else's backup.
        Err(ClientError::TimedOut { last, .. }) if last.starts_with("BUSY ") => return Ok(Tried::Lost(last)),
        reply => reply.map_err(|error| failed(&error))?,
    };
    let [reading, group, index, term, clock_ms, keys, _bytes] = numbers(&reply)[..] else {
        return Err(failed(&words(&reply)));
    };
    // Where it was opened.
    let address = client.address_of(slot).ok_or_else(|| failed(&"its leader was forgotten"))?;
    let mut connection = match peer.connect(&address) {
        Ok(connection) => connection,
        Err(error) => return Ok(Tried::Lost(error.to_string())),
    };
    let moment = Moment { shard, shards: peer.shards, group, index, term, clock_ms };
    let mut read = Read {
        file: Unfinished::shard(folder, &moment)?,
        entries: Entries::new(shard, peer.shards),
        counted: (0, 0),
        progress,
    };
    let ended = read.all(&mut connection, reading);
    if !matches!(ended, Ok(None)) {
        let (keys, bytes) = read.counted;
        progress.take_back(keys, bytes);
    }
    match ended {
        Ok(None) => {}
        Ok(Some(why)) => return Ok(Tried::Lost(why)),
        Err(Ended::Entries(error)) => {
            return Err(failed(&format!("{address} sent what isn't its data: {error}")));
        }
        Err(Ended::Failure(failure)) => {
            // It frees what it holds for us by itself, but needn't wait.
            let reading = reading.to_string();
            let _ = connection.execute(&[b"FLOTILLA.BACKUP", b"CLOSE", reading.as_bytes()]);
            return Err(failure);
        }
    }
    let totals = read
        .entries
        .finish()
        .map_err(|error| failed(&format!("{address} sent what isn't its data: {error}")))?;
    if totals.keys != keys {
        return Err(failed(&format!("{address} sent {} keys, and has {keys}", totals.keys)));
    }
    let (mut file, mut file_bytes, mut sha256) = (None, 0, String::new());
    if keys > 0 {
        (file_bytes, sha256) = read.file.finish()?;
        file = Some(file_name(shard));
    } else {
        read.file.remove();
    }
    let (bytes, version_max) = (totals.bytes, totals.version_max);
    Ok(Tried::Whole(ShardRecord {
        shard,
        file,
        file_bytes,
        sha256,
        keys,
        bytes,
        version_max,
        group,
        index,
        term,
        clock_ms,
    }))
}

/// A shard on its way.
struct Read<'a> {
    file: ShardFile,
    entries: Entries,
    /// Keys and bytes that were counted as progress.
    counted: (u64, u64),
    progress: &'a Progress,
}

impl Read<'_> {
    /// Reads it to its end; or why there is none: then it is to be begun again.
    fn all(&mut self, connection: &mut Connection, reading: u64) -> Result<Option<String>, Ended> {
        let reading = reading.to_string();
        let (mut asked, mut got) = (0_u64, 0_u64);
        loop {
            while asked < got + AHEAD {
                let piece = asked.to_string();
                let command: [&[u8]; 4] = [b"FLOTILLA.BACKUP", b"READ", reading.as_bytes(), piece.as_bytes()];
                if let Err(error) = connection.send([&command[..]]) {
                    return Ok(Some(error.to_string()));
                }
                asked += 1;
            }
            let parts = match connection.receive() {
                Ok(Reply::Array(parts)) => parts,
                Ok(other) => return Ok(Some(words(&other))),
                Err(error) => return Ok(Some(error.to_string())),
            };
            let [Reply::Integer(is_last), Reply::Bulk(bytes)] = &parts[..] else {
                return Ok(Some(words(&Reply::Array(parts))));
            };
            got += 1;
            self.piece(bytes)?;
            if *is_last == 1 {
                return Ok(None);
            }
        }
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let (mut keys, mut counted) = (0, 0);
        self.entries.read(bytes, |found| {
            let (more, length) = match found {
                Found::Whole(head, value) => (1, head.key.len() + value.len()),
                Found::Long(head, _) => (1, head.key.len()),
                Found::Part(_, part) => (0, part.len()),
            };
            (keys, counted) = (keys + more, counted + length as u64);
            Ok::<(), Ended>(())
        })?;
        self.counted = (self.counted.0 + keys, self.counted.1 + counted);
        let went_on = self.progress.add(keys, counted);
        went_on.and_then(|()| self.file.piece(bytes)).map_err(Ended::Failure)
    }
}
