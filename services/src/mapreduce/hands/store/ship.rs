//! Files that a job's commands need, by way of the store: workers of other machines see no folder of the one that submitted it.
//!
//! A file is a few pieces in one shard, under names of the job's own; they go when the job has ended, or after a week.

use super::{ASIDE_FOR_MS, Store, piece, unexpected};
use crate::client::Reply;
use crate::mapreduce::MrError;
use crate::mapreduce::spec::JobSpec;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const PIECE_BYTES: usize = 256 << 10;
/// More belongs somewhere else.
const SHIPPED_BYTES_MAX: usize = 64 << 20;
const WHAT: &str = "shipping files";

/// The first piece.
#[derive(Debug, Serialize, Deserialize)]
struct Shipped {
    files: Vec<ShippedFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ShippedFile {
    name: String,
    mode: u32,
    bytes: usize,
}

/// All of it is in the shard of slot 0.
fn name(spec: &JobSpec, number: usize) -> Vec<u8> {
    piece(spec, "shipped", 0, 1, u32::try_from(number).unwrap_or(u32::MAX))
}

impl Store {
    /// Puts the files with these paths where workers find them.
    ///
    /// # Errors
    /// [`MrError::Rejected`] for what is no file or too much, [`MrError::Io`], [`MrError::Store`].
    pub fn ship(&self, spec: &JobSpec, paths: &[String]) -> Result<(), MrError> {
        let (mut files, mut all) = (Vec::new(), Vec::new());
        for path in paths {
            let Some(name) = Path::new(path).file_name().and_then(|name| name.to_str()) else {
                return Err(MrError::Rejected(format!(
                    "--file {path}: that isn't a file with a name in UTF-8"
                )));
            };
            let bytes = fs::read(path).map_err(MrError::io("shipping", path))?;
            let mode = fs::metadata(path).map_err(MrError::io("shipping", path))?.permissions().mode();
            files.push(ShippedFile { name: name.to_owned(), mode: mode & 0o777, bytes: bytes.len() });
            all.extend_from_slice(&bytes);
            if all.len() > SHIPPED_BYTES_MAX {
                let what = format!("--file {path}: more than {} MiB of files", SHIPPED_BYTES_MAX >> 20);
                return Err(MrError::Rejected(what));
            }
        }
        let head = serde_json::to_vec(&Shipped { files }).expect("plain data");
        for (number, part) in std::iter::once(&head[..]).chain(all.chunks(PIECE_BYTES)).enumerate() {
            let name = name(spec, number);
            self.write(WHAT, &name, &[b"SET", &name, part, b"PX", ASIDE_FOR_MS])?;
        }
        Ok(())
    }

    /// Fetches them into a folder, which appears when all are there.
    ///
    /// # Errors
    /// [`MrError::Rejected`] if they are gone, [`MrError::Io`], [`MrError::Store`].
    pub fn fetch_shipped(&self, spec: &JobSpec, attempt: &str, into: &Path) -> Result<(), MrError> {
        if into.is_dir() {
            return Ok(());
        }
        let gone = || MrError::Rejected("the files that were shipped with the job are gone".to_owned());
        let head = self.shipped_piece(spec, 0)?.ok_or_else(gone)?;
        let head: Shipped = serde_json::from_slice(&head).map_err(|_| gone())?;
        let (mut all, bytes) = (Vec::new(), head.files.iter().map(|file| file.bytes).sum::<usize>());
        for number in 1..=bytes.div_ceil(PIECE_BYTES) {
            all.append(&mut self.shipped_piece(spec, number)?.ok_or_else(gone)?);
        }
        let draft = into.with_extension(attempt);
        fs::create_dir_all(&draft).map_err(MrError::io("creating", draft.display()))?;
        let mut rest = &all[..];
        for file in &head.files {
            let (bytes, behind) = rest.split_at_checked(file.bytes).ok_or_else(gone)?;
            // Names come from the store: nothing outside of the folder is meant.
            let Some(name) = Path::new(&file.name).file_name() else { return Err(gone()) };
            let path = draft.join(name);
            let mode = fs::Permissions::from_mode(file.mode);
            let written = fs::write(&path, bytes).and_then(|()| fs::set_permissions(&path, mode));
            written.map_err(MrError::io("writing", path.display()))?;
            rest = behind;
        }
        match fs::rename(&draft, into) {
            // Another worker of this machine was first.
            Err(_) if into.is_dir() => {
                fs::remove_dir_all(&draft).map_err(MrError::io("removing", draft.display()))
            }
            renamed => renamed.map_err(MrError::io("creating", into.display())),
        }
    }

    fn shipped_piece(&self, spec: &JobSpec, number: usize) -> Result<Option<Vec<u8>>, MrError> {
        let name = name(spec, number);
        match self.repeat(WHAT, &name, &[b"GET", &name])? {
            Reply::Bulk(bytes) => Ok(Some(bytes)),
            Reply::Null => Ok(None),
            other => Err(unexpected(WHAT, &other)),
        }
    }

    /// Removes them: the job has ended.
    ///
    /// # Errors
    /// [`MrError::Store`].
    pub fn remove_shipped(&self, spec: &JobSpec) -> Result<(), MrError> {
        for number in 0.. {
            let name = name(spec, number);
            if self.repeat(WHAT, &name, &[b"DEL", &name])? == Reply::Integer(0) {
                break;
            }
        }
        Ok(())
    }
}
