//! How files go that nobody needs any more.
//!
//! Where the file system tells the disk at once what it doesn't use (`discard`), everybody's syncs wait for that: 20 to 50 ms for a segment
//! of 64 MiB. So a long file goes by a piece at a time, with pauses.

use crate::machine::{FileId, FileKind};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

/// So many bytes at a time.
const PIECE_BYTES: u64 = 8 << 20;
const PAUSE: Duration = Duration::from_millis(10);
/// In the number of a file that is going: no other has one as large.
const GOING: u64 = 1 << 63;

/// Removes a file of a core's folder; in pieces if it `is_unread`.
pub(super) async fn remove(folder: &Path, file: FileId, is_unread: bool) -> io::Result<()> {
    let mut path = folder.join(file.to_string());
    if is_unread {
        // What is left of it after a crash must be taken for nothing else.
        let unfinished = FileId { kind: FileKind::Unfinished, number: file.number | GOING };
        let going = folder.join(unfinished.to_string());
        let (old, new, its_folder) = (path.clone(), going.clone(), folder.to_owned());
        // Whatever fails here, the rest goes in one go.
        let is_set_aside = blocking(move || set_aside(&old, &new, &its_folder)).await.unwrap_or(false);
        if is_set_aside || going.exists() {
            path = going;
        }
        if is_set_aside {
            while shorten(&path).await {
                glommio::timer::sleep(PAUSE).await;
            }
        }
    }
    blocking(move || fs::remove_file(path)).await
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    glommio::executor().spawn_blocking(work).await
}

/// Gives a long file another name, for good. Returns whether it has it.
fn set_aside(old: &Path, new: &Path, folder: &Path) -> io::Result<bool> {
    if fs::metadata(old)?.len() <= PIECE_BYTES {
        return Ok(false);
    }
    fs::rename(old, new)?;
    File::open(folder)?.sync_all()?;
    Ok(true)
}

/// Returns whether that is to be done again.
async fn shorten(path: &Path) -> bool {
    let path = path.to_owned();
    blocking(move || cut(&path)).await.unwrap_or(false)
}

/// Takes the last bytes off a file. Returns whether it is still long.
fn cut(path: &Path) -> io::Result<bool> {
    let file = File::options().write(true).open(path)?;
    let length = file.metadata()?.len().saturating_sub(PIECE_BYTES);
    file.set_len(length)?;
    // By itself: else all of it comes with the next change that somebody waits for.
    file.sync_all()?;
    Ok(length > PIECE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use glommio::LocalExecutor;

    fn sizes(folder: &Path) -> Vec<u64> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect()
    }

    #[test]
    fn a_long_file_goes_by_and_by_and_a_short_one_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = |number| FileId { kind: FileKind::Segment, number };
        let make = |number, bytes| {
            let made = File::create(folder.path().join(file(number).to_string())).unwrap();
            made.set_len(bytes).unwrap();
        };
        make(1, 3 * PIECE_BYTES + 1);
        make(2, 4096);
        LocalExecutor::default().run(async {
            let mut removal = std::pin::pin!(remove(folder.path(), file(1), true));
            let at_once = async {
                removal.as_mut().await.unwrap();
                panic!("it has taken no pause");
            };
            let is_set_aside = async {
                while folder.path().join(file(1).to_string()).exists() {
                    glommio::timer::sleep(PAUSE / 10).await;
                }
            };
            futures_lite::future::or(at_once, is_set_aside).await;
            assert_eq!(sizes(folder.path()).len(), 2, "it goes by another name");
            removal.await.unwrap();
            remove(folder.path(), file(2), true).await.unwrap();
        });
        assert!(sizes(folder.path()).is_empty());
    }

    #[test]
    fn each_cut_takes_a_piece_and_whoever_reads_a_file_keeps_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = FileId { kind: FileKind::Snapshot, number: 7 };
        let path = folder.path().join(file.to_string());
        File::create(&path).unwrap().set_len(2 * PIECE_BYTES + 5).unwrap();
        assert!(cut(&path).unwrap() && !cut(&path).unwrap());
        assert_eq!(sizes(folder.path()), [5]);
        File::create(&path).unwrap().set_len(2 * PIECE_BYTES).unwrap();
        let reader = File::open(&path).unwrap();
        LocalExecutor::default().run(async { remove(folder.path(), file, false).await.unwrap() });
        assert_eq!((sizes(folder.path()).len(), reader.metadata().unwrap().len()), (0, 2 * PIECE_BYTES));
    }

    #[test]
    fn a_removal_that_failed_halfway_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = FileId { kind: FileKind::Segment, number: 3 };
        let going = FileId { kind: FileKind::Unfinished, number: 3 | GOING };
        File::create(folder.path().join(going.to_string())).unwrap().set_len(99).unwrap();
        let again = || LocalExecutor::default().run(async { remove(folder.path(), file, true).await });
        again().unwrap();
        assert_eq!(again().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
