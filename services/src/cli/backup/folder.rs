//! The folder of a backup.
//!
//! Every file is written under a name of its own, synced, and given its name then; the manifest comes last. A folder without a
//! manifest is what an unfinished backup has left, and the next one begins with removing that.

use crate::backup::{
    MANIFEST, Manifest, Moment, SUMS, ShardFileReader, ShardFileWriter, file_name, hex, is_ours,
};
use crate::cli::Failure;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes written or read at once.
const BUFFER_BYTES: usize = 1 << 20;
const UNFINISHED: &str = "unfinished";

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let place = format!("{what} {}", path.display());
    move |error| Failure::Failed(format!("can't {place}: {error}"))
}

/// Makes names durable.
fn sync(folder: &Path) -> Result<(), Failure> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder", folder))
}

/// A folder that is being filled. Dropped before it is whole, it is emptied again.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    /// It wasn't there before.
    is_made: bool,
    is_whole: bool,
}

impl Unfinished {
    /// Makes the folder, or takes an empty one, or one that an unfinished backup has left.
    ///
    /// # Errors
    /// There is something else in it; it can't be made.
    pub(super) fn begin(path: &Path) -> Result<Self, Failure> {
        let is_made = match fs::create_dir(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed("make the folder", path)(error)),
        };
        if !path.is_dir() {
            return Err(Failure::Usage(format!("{} is no folder: name one for the backup", path.display())));
        }
        let mut this = Self { path: path.to_owned(), is_made, is_whole: true };
        let names = this.names()?;
        if names.iter().any(|name| name == MANIFEST) {
            let what = "has a backup already: name another folder, or move this one away";
            return Err(Failure::Usage(format!("{} {what}", path.display())));
        }
        if let Some(other) = names.iter().find(|name| !is_ours(name)) {
            let what = format!("isn't empty: there is {other:?} in it; name another folder");
            return Err(Failure::Usage(format!("{} {what}", path.display())));
        }
        this.is_whole = false;
        for name in &names {
            let path = this.path.join(name);
            fs::remove_file(&path).map_err(failed("remove what an unfinished backup has left,", &path))?;
        }
        // Whether anything can be written at all is better known before the cluster is asked for it.
        let probe = this.path.join(format!("{MANIFEST}.{UNFINISHED}"));
        File::create(&probe).map_err(failed("write", &probe))?;
        Ok(this)
    }

    fn names(&self) -> Result<Vec<String>, Failure> {
        let entries = fs::read_dir(&self.path).map_err(failed("list the folder", &self.path))?;
        let names: io::Result<Vec<String>> = entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect();
        names.map_err(failed("list the folder", &self.path))
    }

    /// Begins a shard's file, anew if it was begun before.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn shard(path: &Path, moment: &Moment) -> Result<ShardFile, Failure> {
        let to = path.join(file_name(moment.shard));
        let from = to.with_added_extension(UNFINISHED);
        let file = File::create(&from).map_err(failed("write", &from))?;
        let summed = Summed { to: file, sum: Sha256::new(), bytes: 0 };
        let begun = ShardFileWriter::begin(BufWriter::with_capacity(BUFFER_BYTES, summed), moment);
        let writer = begun.map_err(failed("write", &from))?;
        Ok(ShardFile { from, to, writer })
    }

    /// All shards are there: the checksums and the manifest follow.
    ///
    /// # Errors
    /// They can't be written.
    pub(super) fn finish(mut self, manifest: &Manifest) -> Result<(), Failure> {
        let (manifest, sums) = manifest.encode();
        sync(&self.path)?;
        for (name, bytes) in [(SUMS, sums), (MANIFEST, manifest)] {
            let to = self.path.join(name);
            let from = to.with_added_extension(UNFINISHED);
            let written = File::create(&from).and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            });
            written.map_err(failed("write", &from))?;
            fs::rename(&from, &to).map_err(failed("rename", &from))?;
            sync(&self.path)?;
        }
        self.is_whole = true;
        let parent =
            self.path.parent().filter(|parent| *parent != Path::new("")).unwrap_or_else(|| Path::new("."));
        if self.is_made { sync(parent) } else { Ok(()) }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_whole {
            return;
        }
        // What can't be removed doesn't look whole, and the next backup tries again.
        for name in self.names().unwrap_or_default().iter().filter(|name| is_ours(name)) {
            let _ = fs::remove_file(self.path.join(name));
        }
        if self.is_made {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Counts and sums up what is written or read.
#[derive(Debug)]
struct Summed<T> {
    to: T,
    sum: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.to.read(into)?;
        self.sum.update(&into[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// A shard's file that is being written.
pub(super) struct ShardFile {
    from: PathBuf,
    to: PathBuf,
    writer: ShardFileWriter<BufWriter<Summed<File>>>,
}

impl ShardFile {
    /// # Errors
    /// It can't be written.
    pub(super) fn piece(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.piece(bytes).map_err(failed("write", &self.from))
    }

    /// Makes it durable under its name; its length, and its SHA-256 in hexadecimal digits.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn finish(self) -> Result<(u64, String), Failure> {
        let Self { from, to, writer } = self;
        let finished =
            writer.finish().and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error));
        let summed = finished.and_then(|summed| summed.to.sync_all().map(|()| summed));
        let summed = summed.map_err(failed("write", &from))?;
        fs::rename(&from, &to).map_err(failed("rename", &from))?;
        Ok((summed.bytes, hex(&summed.sum.finalize())))
    }

    /// It isn't needed.
    pub(super) fn remove(self) {
        // It stays unfinished, and goes at the end.
        let _ = fs::remove_file(&self.from);
    }
}

/// Reads what a folder says that it is.
///
/// # Errors
/// It is no backup, or a damaged one.
pub(super) fn manifest(folder: &Path) -> Result<Manifest, Failure> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if name == MANIFEST => Failure::Usage(format!(
                "{} is no backup, or one that wasn't finished: there is no {MANIFEST} in it",
                folder.display()
            )),
            _ => failed("read", &path)(error),
        })
    };
    let (manifest, sums) = (read(MANIFEST)?, read(SUMS)?);
    let decoded = Manifest::decode(&manifest, &sums);
    decoded.map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))
}

/// A shard's file that is being read.
pub(super) struct StoredShard {
    path: PathBuf,
    shard: u16,
    reader: ShardFileReader<BufReader<Summed<File>>>,
}

impl StoredShard {
    /// # Errors
    /// It can't be read, or isn't what it should be.
    pub(super) fn open(folder: &Path, moment: &Moment) -> Result<Self, Failure> {
        let path = folder.join(file_name(moment.shard));
        let shard = moment.shard;
        let file = File::open(&path).map_err(|error| damaged(&path, shard, error))?;
        let summed = Summed { to: file, sum: Sha256::new(), bytes: 0 };
        let reader = ShardFileReader::begin(BufReader::with_capacity(BUFFER_BYTES, summed));
        let reader = reader.map_err(|error| damaged(&path, shard, error))?;
        if reader.moment() != *moment {
            return Err(damaged(&path, shard, "it is of another shard, or of another backup"));
        }
        Ok(Self { path, shard, reader })
    }

    /// # Errors
    /// It can't be read, or isn't what it should be.
    pub(super) fn next_piece(&mut self) -> Result<Option<&[u8]>, Failure> {
        let (path, shard) = (&self.path, self.shard);
        self.reader.next_piece().map_err(|error| damaged(path, shard, error))
    }

    /// What is wrong with it.
    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> Failure {
        damaged(&self.path, self.shard, what)
    }

    /// Its length and its SHA-256, after the last piece.
    pub(super) fn finish(self) -> (u64, String) {
        let summed = self.reader.into_inner().into_inner();
        (summed.bytes, hex(&summed.sum.finalize()))
    }
}

fn damaged(path: &Path, shard: u16, what: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: shard {shard}: {what}", path.display()))
}
