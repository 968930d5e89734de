//! What a worker has around it: where its files go, and the store.

use super::store::Store;
use crate::client::Seeds;
use crate::mapreduce::MrError;
use crate::mapreduce::spec::{FileInfo, JobSpec};
use std::fs;
use std::path::{Path, PathBuf};

/// Of one worker process. The default is that of a job on one machine.
#[derive(Debug, Default)]
pub struct Site {
    /// Where the files between map and reduce go; none: into the job's own folder.
    pub folder: Option<PathBuf>,
    /// The store, if there is one.
    pub seeds: Option<Seeds>,
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
