//! Which folder is meant, what is in it, whether a node is using it.

use super::Failure;
use crate::config::cluster_id;
use crate::node::{FolderIdentity, IDENTITY_FILE, LOCK_FILE};
use flotilla_runtime::{BlockPool, FileId, FileKind, Slice};
use flotilla_storage::Identity;
use flotilla_storage::repair::Images;
use flotilla_storage::segment::{FirstBlock, SegmentHeader};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The folder of one core.
pub(super) struct CoreFolder {
    /// Without links and dots.
    pub(super) path: PathBuf,
    /// The files of the log and of snapshots in it, finished or not.
    pub(super) files: Vec<FileId>,
    /// Whose it should be, as the data folder around it says.
    pub(super) owner: Option<Identity>,
    /// The groups that have a replica on this core, likewise.
    pub(super) groups: Vec<u64>,
}

/// The core folders that `dir` names: itself, or those of a node's data folder.
pub(super) fn cores(dir: &Path) -> Result<Vec<CoreFolder>, Failure> {
    let path = dir.canonicalize().map_err(|error| unreadable(dir, &error))?;
    if !path.is_dir() {
        return Err(Failure::Usage(format!(
            "{} is a file: name the folder that it is in (…/core-0), or a node's data folder",
            dir.display()
        )));
    }
    let this = core(path)?;
    if has_segments(&this) {
        return Ok(vec![this]);
    }
    let mut cores = Vec::new();
    for path in list(&this.path)? {
        if number_of(&path).is_some() && path.is_dir() {
            cores.push(core(path)?);
        }
    }
    cores.retain(has_segments);
    cores.sort_by_key(|core| number_of(&core.path));
    if cores.is_empty() {
        return Err(Failure::Usage(format!(
            "no log segments in {}: name a core's folder (…/core-0) or a node's data folder",
            dir.display()
        )));
    }
    Ok(cores)
}

/// The only core folder that `dir` names.
pub(super) fn only_core(dir: &Path) -> Result<CoreFolder, Failure> {
    let mut found = cores(dir)?;
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(|core| core.path.display().to_string()).collect();
        return Err(Failure::Usage(format!(
            "every core has a log of its own: name one of {}",
            names.join(", ")
        )));
    }
    Ok(found.remove(0))
}

fn has_segments(core: &CoreFolder) -> bool {
    core.files.iter().any(|file| file.kind == FileKind::Segment)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("can't read {}: {error}", path.display()))
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let at = |error: std::io::Error| unreadable(dir, &error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at)? {
        paths.push(entry.map_err(at)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The number of a core, from its folder's name.
fn number_of(path: &Path) -> Option<u16> {
    path.file_name()?.to_str()?.strip_prefix("core-")?.parse().ok()
}

fn core(path: PathBuf) -> Result<CoreFolder, Failure> {
    let named = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    let files = list(&path)?.iter().filter_map(named).collect();
    let (mut owner, mut groups) = (None, Vec::new());
    if let (Some(number), Some(around)) = (number_of(&path), path.parent()) {
        let file = around.join(IDENTITY_FILE);
        if let Ok(text) = std::fs::read_to_string(&file) {
            let found: FolderIdentity = toml::from_str(&text).map_err(|error| {
                Failure::Failed(format!("can't understand {}: {}", file.display(), error.message()))
            })?;
            owner = Some(Identity { cluster: cluster_id(&found.cluster), node: found.node, core: number });
            let here = |group: &u32| group.checked_rem(u32::from(found.cores)) == Some(u32::from(number));
            groups = (0..found.groups).filter(here).map(|group| u64::from(group) + 1).collect();
        }
    }
    Ok(CoreFolder { path, files, owner, groups })
}

impl CoreFolder {
    /// Every segment, whole.
    pub(super) fn images(&self) -> Result<Images, Failure> {
        let segments = self.files.iter().filter(|file| file.kind == FileKind::Segment);
        segments.map(|file| Ok((*file, self.read(*file)?))).collect()
    }

    /// A file's content, aligned as a node's own buffers are, and padded with zeros to whole blocks.
    pub(super) fn read(&self, file: FileId) -> Result<Slice, Failure> {
        let path = self.path.join(file.to_string());
        let read = || {
            let mut open = File::open(&path)?;
            let length = usize::try_from(open.metadata()?.len()).map_err(std::io::Error::other)?;
            let mut block = BlockPool::new().allocate(length.max(1), 0);
            block.append_with(length, |room| open.read_exact(room))?;
            Ok(block.finish(|_, _| {}))
        };
        read().map_err(|error: std::io::Error| unreadable(&path, &error))
    }

    /// Whose log it is: the owner's if the folder around it tells, else what the newest segment says.
    pub(super) fn identity(&self, images: &Images) -> Identity {
        let headers = images.values().filter_map(|image| match SegmentHeader::parse(image) {
            FirstBlock::Header(header) => Some(header),
            _ => None,
        });
        let newest = headers.max_by_key(|header| header.epoch).map(|header| header.identity);
        self.owner.or(newest).unwrap_or(Identity { cluster: 0, node: 0, core: 0 })
    }

    /// Whether a node is running on the folder.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self.open_lock(), Some(lock) if flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// Keeps nodes from starting on the folder for as long as what is returned lives.
    ///
    /// # Errors
    /// If one is running.
    pub(super) fn lock(&self) -> Result<Option<File>, Failure> {
        let Some(lock) = self.open_lock() else { return Ok(None) };
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Failure::Failed(format!("{} is in use by a running node: stop it first", self.path.display()))
        })?;
        Ok(Some(lock))
    }

    fn open_lock(&self) -> Option<File> {
        File::open(self.path.parent()?.join(LOCK_FILE)).ok()
    }
}
