//! `flotilla backup verify`: a backup is read as a whole, and everything that can be compared is.

use super::folder::{StoredShard, manifest};
use super::work::{Progress, on_all};
use crate::backup::{Entries, EntriesError, Found, Manifest, ShardRecord};
use crate::cli::{Failure, interrupted};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Files at a time.
const PARALLEL: u8 = 4;

/// Why reading a shard ended.
pub(super) enum Ended {
    /// Its bytes are none.
    Entries(EntriesError),
    /// What was to be done with them failed.
    Failure(Failure),
}

impl From<EntriesError> for Ended {
    fn from(error: EntriesError) -> Self {
        Self::Entries(error)
    }
}

pub(super) fn run(folder: &Path, json: bool) -> Result<(), Failure> {
    let stop = interrupted()?;
    let manifest = check(folder, json, stop)?;
    if json {
        let Manifest { cluster, keys, bytes, begun_ms, ended_ms, .. } = &manifest;
        let shards = manifest.shards.len();
        println!(
            "{}",
            serde_json::json!({
                "whole": true, "cluster": cluster, "shards": shards, "keys": keys, "bytes": bytes,
                "begun_ms": begun_ms, "ended_ms": ended_ms,
            })
        );
    } else {
        println!("{} is whole: {}", folder.display(), summary(&manifest));
    }
    Ok(())
}

/// What is in it, for people.
pub(super) fn summary(manifest: &Manifest) -> String {
    let Manifest { cluster, keys, bytes, shards, .. } = manifest;
    format!("cluster {cluster:?}, {} shards, {keys} keys, {bytes} bytes", shards.len())
}

/// Compares everything; the manifest.
///
/// # Errors
/// The first that isn't as it should be.
pub(super) fn check(folder: &Path, is_quiet: bool, stop: Arc<AtomicBool>) -> Result<Manifest, Failure> {
    let manifest = manifest(folder)?;
    let progress = Arc::new(Progress::new((manifest.keys, manifest.bytes), None, stop));
    let (shards, path) = (manifest.shards_total(), PathBuf::from(folder));
    let records = manifest.shards.iter().filter(|record| record.file.is_some()).cloned().collect();
    let what = (!is_quiet).then_some("checking");
    on_all(records, PARALLEL, &progress, what, move |record: ShardRecord, progress| {
        let (bytes, sum) = read(&path, &record, shards, |found| match found {
            Found::Whole(head, value) => progress.add(1, (head.key.len() + value.len()) as u64),
            Found::Long(head, _) => progress.add(1, head.key.len() as u64),
            Found::Part(_, part) => progress.add(0, part.len() as u64),
        })?;
        if (bytes, &sum) != (record.file_bytes, &record.sha256) {
            let name = path.join(record.file.unwrap_or_default());
            let what = format!("its SHA-256 is {sum}, and the manifest says {}", record.sha256);
            return Err(Failure::Failed(format!("{}: shard {}: {what}", name.display(), record.shard)));
        }
        Ok(())
    })?;
    Ok(manifest)
}

/// Reads a shard's file to its end and shows every key; the file's length and its SHA-256.
///
/// # Errors
/// It isn't as it should be, or `each` fails.
pub(super) fn read(
    folder: &Path,
    record: &ShardRecord,
    shards: u16,
    mut each: impl FnMut(Found<'_>) -> Result<(), Failure>,
) -> Result<(u64, String), Failure> {
    let mut file = StoredShard::open(folder, &record.moment(shards))?;
    let mut entries = Entries::new(record.shard, shards);
    while let Some(piece) = file.next_piece()? {
        let read = entries.read(piece, |found| each(found).map_err(Ended::Failure));
        read.map_err(|ended| match ended {
            Ended::Entries(error) => file.damaged(error),
            Ended::Failure(failure) => failure,
        })?;
    }
    let totals = entries.finish().map_err(|error| file.damaged(error))?;
    if (totals.keys, totals.bytes, totals.version_max) != (record.keys, record.bytes, record.version_max) {
        let what = format!(
            "{} keys of {} bytes, and the manifest says {} of {}",
            totals.keys, totals.bytes, record.keys, record.bytes
        );
        return Err(file.damaged(what));
    }
    Ok(file.finish())
}

#[cfg(test)]
mod tests {
    use super::super::folder::Unfinished;
    use super::*;
    use crate::backup::Moment;
    use crate::command::lookup;
    use crate::kv::Keyspace;
    use crate::resp::ReplyWriter;
    use crate::slot::Slot;
    use std::fs;

    /// A backup of two shards with a key each, and one without.
    fn small(folder: &Path) {
        let unfinished = Unfinished::begin(folder).unwrap();
        let mut records = Vec::new();
        for shard in 0..3 {
            let moment = Moment { shard, shards: 3, group: 0, index: 5, term: 1, clock_ms: 9 };
            let mut record = ShardRecord {
                shard,
                file: None,
                file_bytes: 0,
                sha256: String::new(),
                keys: 0,
                bytes: 0,
                version_max: 0,
                group: 0,
                index: 5,
                term: 1,
                clock_ms: 9,
            };
            if shard < 2 {
                let key = (0..).map(|number| format!("key:{number}").into_bytes());
                let key = key.into_iter().find(|key| Slot::of_key(key).shard(3) == shard).unwrap();
                let (mut keys, mut bytes) = (Keyspace::default(), Vec::new());
                keys.write(
                    1,
                    lookup(b"SET").unwrap().code,
                    &[b"SET", &key, b"value"],
                    &mut ReplyWriter::discard(),
                );
                keys.freeze();
                assert!(keys.read_frozen(1 << 20, &mut bytes));
                let mut file = Unfinished::shard(folder, &moment).unwrap();
                file.piece(&bytes).unwrap();
                (record.file_bytes, record.sha256) = file.finish().unwrap();
                record.file = Some(crate::backup::file_name(shard));
                (record.keys, record.bytes, record.version_max) = (1, keys.bytes(), 1);
            }
            records.push(record);
        }
        unfinished.finish(&Manifest::new("small".to_owned(), (1, 2), records)).unwrap();
    }

    fn said(folder: &Path) -> Result<Manifest, String> {
        check(folder, true, Arc::default()).map_err(|failure| match failure {
            Failure::Failed(why) | Failure::Usage(why) => why,
        })
    }

    #[test]
    fn every_changed_byte_and_every_end_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("backup");
        small(folder);
        assert_eq!(said(folder).unwrap().keys, 2);
        let names: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        for path in names {
            let name = path.file_name().unwrap().to_str().unwrap();
            let names_it = |why: &str| match name.strip_prefix("shard-0000") {
                Some(rest) => why.contains(name) && why.contains(&format!("shard {}", &rest[..1])),
                None => why.contains("manifest.json") || why.contains("SHA256SUMS"),
            };
            let good = fs::read(&path).unwrap();
            for place in 0..good.len() {
                let mut bad = good.clone();
                bad[place] ^= 1 << (place % 8);
                fs::write(&path, &bad).unwrap();
                let why = said(folder).expect_err(name);
                assert!(names_it(&why), "{name}, byte {place}: {why}");
                if place % 16 == 0 {
                    fs::write(&path, &good[..place]).unwrap();
                    let why = said(folder).expect_err(name);
                    assert!(names_it(&why), "{name}, {place} bytes of it: {why}");
                }
            }
            fs::remove_file(&path).unwrap();
            assert!(said(folder).is_err_and(|why| names_it(&why)));
            fs::write(&path, &good).unwrap();
        }
        assert!(said(folder).is_ok());
    }

    #[test]
    fn files_of_two_backups_are_not_one() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("backup");
        small(folder);
        let names = [0, 1].map(|shard| folder.join(crate::backup::file_name(shard)));
        fs::copy(&names[0], &names[1]).unwrap();
        assert!(said(folder).unwrap_err().contains("of another shard"));
    }
}
