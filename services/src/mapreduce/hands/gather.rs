//! A commit whose files are with several workers: they are brought together first, then made visible as on one machine.
//!
//! Nothing is visible before everything is here: a file that is lost until then is made again, and one that is found again
//! afterwards is not asked for.

use super::execute::Failed;
use super::files::{self, SUCCESS};
use super::site::Site;
use super::talk::trouble::NoTls;
use crate::mapreduce::MrError;
use crate::mapreduce::run::ReadAt;
use crate::mapreduce::spec::{Assignment, FileInfo, JobSpec};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Copied at once.
const PIECE_BYTES: usize = 1 << 20;

/// Whether a worker can make a job's output visible: it sees the job's own folder, or what somebody has made of it.
pub fn sees_output(spec: &JobSpec) -> bool {
    spec.keys_out.is_some()
        || Path::new(&spec.work).is_dir()
        || Path::new(&spec.output).join(SUCCESS).exists()
}

/// Brings the files of a commit into the job's own folder. `goes_on` is told bytes and says whether to.
///
/// # Errors
/// [`Failed`], with what is lost.
pub fn gather(
    site: &Site,
    spec: &JobSpec,
    given: &Assignment,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<(), Failed> {
    let work = Path::new(&spec.work);
    if files::is_committing(work) {
        return Ok(());
    }
    for (place, file) in (0_u32..).zip(&given.outputs) {
        if work.join(&file.name).exists() {
            continue;
        }
        let draft = work.join(format!("{}-for-{}", file.name, given.attempt));
        let copied = copy(site, spec, file, &draft, &mut goes_on);
        copied.map_err(|error| match (error, given.winners.get(place as usize)) {
            // It isn't lost, and would be as far away if it were made again.
            (Copy::Source(error @ MrError::Io { .. }), _) if is_no_tls(&error) => error.into(),
            (Copy::Source(error), Some(attempt)) => {
                Failed { what: error.to_string(), lost: vec![(place, *attempt)], ..Failed::default() }
            }
            (Copy::Source(error) | Copy::Other(error), _) => error.into(),
        })?;
        let to = work.join(&file.name);
        fs::rename(&draft, &to).map_err(MrError::io("gathering", to.display()))?;
    }
    Ok(())
}

fn is_no_tls(error: &MrError) -> bool {
    matches!(error, MrError::Io { source, .. } if NoTls::is_in(source))
}

enum Copy {
    /// It can't be read any more.
    Source(MrError),
    Other(MrError),
}

fn copy(
    site: &Site,
    spec: &JobSpec,
    file: &FileInfo,
    to: &Path,
    goes_on: &mut impl FnMut(u64) -> bool,
) -> Result<(), Copy> {
    let source = site.open(spec, &file.name, file.at.as_deref(), file.bytes, 1).map_err(Copy::Source)?;
    let into = || MrError::io("writing", to.display());
    let mut out = File::create(to).map_err(into()).map_err(Copy::Other)?;
    let (mut piece, mut at, mut crc) = (vec![0; PIECE_BYTES], 0, crc32fast::Hasher::new());
    while at < file.bytes {
        let length = PIECE_BYTES.min(usize::try_from(file.bytes - at).unwrap_or(usize::MAX));
        let read = source.read_exact_at(&mut piece[..length], at);
        read.map_err(MrError::io("reading", &file.name)).map_err(Copy::Source)?;
        crc.update(&piece[..length]);
        out.write_all(&piece[..length]).map_err(into()).map_err(Copy::Other)?;
        at += length as u64;
        if !goes_on(length as u64) {
            return Err(Copy::Other(MrError::Rejected("the attempt was told to stop".to_owned())));
        }
    }
    if crc.finalize() != file.crc {
        let (path, what) = (file.name.clone(), "its checksum is another".to_owned());
        return Err(Copy::Source(MrError::Damaged { path, offset: 0, what }));
    }
    out.sync_data().map_err(into()).map_err(Copy::Other)
}
