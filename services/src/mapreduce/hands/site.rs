//! What a worker has around it: where its files go, and the store.

use super::files::ReadFile;
use super::shuffle::{Fetcher, Name, Remote};
use super::store::Store;
use crate::client::Seeds;
use crate::mapreduce::MrError;
use crate::mapreduce::run::ReadAt;
use crate::mapreduce::spec::{FileInfo, JobSpec};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Of one worker process. The default is that of a job on one machine.
#[derive(Debug, Default)]
pub struct Site {
    /// Where the files between map and reduce go; none: into the job's own folder.
    pub folder: Option<PathBuf>,
    /// The store, if there is one.
    pub seeds: Option<Seeds>,
    /// Where other workers get the files of this one.
    pub address: Option<String>,
    /// For getting theirs.
    pub fetcher: Arc<Fetcher>,
    /// Works only with the CPU time that nobody else wants. To speak with the coordinator and to hand out files it takes what it needs.
    pub gives_way: bool,
}

/// A file that an attempt has left, wherever it is.
#[derive(Debug)]
pub enum Left {
    /// On this machine.
    Here(ReadFile),
    /// Another worker has it.
    There(Remote),
}

impl ReadAt for Left {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Here(file) => file.read_exact_at(into, offset),
            Self::There(remote) => remote.read_exact_at(into, offset),
        }
    }
}

impl Site {
    /// The folder of a job's files between map and reduce. All workers of a machine that have the same folder share it.
    pub fn runs(&self, spec: &JobSpec) -> PathBuf {
        match &self.folder {
            Some(folder) => folder.join(spec.nonce()),
            None => Path::new(&spec.work).to_owned(),
        }
    }

    /// Makes that folder.
    ///
    /// # Errors
    /// [`MrError::Io`].
    pub fn make_runs(&self, spec: &JobSpec) -> Result<PathBuf, MrError> {
        let folder = self.runs(spec);
        if self.folder.is_some() {
            fs::create_dir_all(&folder).map_err(MrError::io("creating", folder.display()))?;
        }
        Ok(folder)
    }

    /// Whether it sees the job's own folder in that of the output.
    pub fn sees_work(&self, spec: &JobSpec) -> bool {
        spec.keys_out.is_none() && Path::new(&spec.work).is_dir()
    }

    /// Makes the folder for output that isn't visible yet: where it is renamed later, if that is seen here, so that nothing has to be copied.
    ///
    /// # Errors
    /// [`MrError::Io`].
    pub fn make_drafts(&self, spec: &JobSpec) -> Result<PathBuf, MrError> {
        if self.sees_work(spec) { Ok(PathBuf::from(&spec.work)) } else { self.make_runs(spec) }
    }

    /// A file of an attempt, up to byte `end`: from the own folder, which others of this machine share, or from whoever has it.
    /// `parts`: how many are read at the same time.
    ///
    /// # Errors
    /// [`MrError::Io`].
    pub fn open(
        &self,
        spec: &JobSpec,
        name: &str,
        at: Option<&str>,
        end: u64,
        parts: usize,
    ) -> Result<Left, MrError> {
        let here = ReadFile::open(&self.runs(spec).join(name));
        match at {
            Some(address) if here.is_err() && self.address.as_deref() != Some(address) => {
                let (folder, name) = (spec.nonce().to_owned(), name.to_owned());
                let name = Name { address: address.to_owned(), folder, name };
                Ok(Left::There(Remote::new(Arc::clone(&self.fetcher), name, end, parts)))
            }
            _ => here.map(Left::Here),
        }
    }

    /// Connects to the store.
    ///
    /// # Errors
    /// [`MrError::Rejected`] if there is none, [`MrError::Store`].
    pub fn connect(&self) -> Result<Store, MrError> {
        match &self.seeds {
            Some(seeds) => Store::connect(seeds),
            None => {
                Err(MrError::Rejected("a job whose input or output are keys needs a cluster: --addr".into()))
            }
        }
    }

    /// Somebody else was first: what an attempt has put aside goes. Whatever stays is gone after a week.
    pub fn discard(&self, spec: &JobSpec, file: &FileInfo) {
        if let (Some(out), false) = (&spec.keys_out, file.pieces.is_empty())
            && let Ok(store) = self.connect()
        {
            let _ = store.remove_pieces(spec, out, &file.name, &file.pieces);
        }
    }
}
