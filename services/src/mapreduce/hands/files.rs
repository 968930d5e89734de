//! Files: inputs as they were when the job was submitted, private files of attempts, output that appears at once.

use super::execute::Failed;
use crate::mapreduce::MrError;
use crate::mapreduce::run::ReadAt;
use crate::mapreduce::spec::{FileInfo, InputFile, JobSpec};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What says that an output is whole: sizes and checksums of its files.
pub const SUCCESS: &str = "_SUCCESS";

/// In a job's own folder: files of its output are being renamed, so all of them were there.
const COMMITTING: &str = "committing";

/// Whether a job's output is being made visible.
pub fn is_committing(work: &Path) -> bool {
    work.join(COMMITTING).exists()
}

/// A file that is read at any place.
#[derive(Debug)]
pub struct ReadFile(File);

impl ReadAt for ReadFile {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }
}

impl ReadFile {
    /// Opens a run file.
    ///
    /// # Errors
    /// [`MrError::Io`].
    pub fn open(path: &Path) -> Result<Self, MrError> {
        File::open(path).map(Self).map_err(MrError::io("opening", path.display()))
    }

    /// Opens an input and checks that it is what the job was planned with.
    ///
    /// # Errors
    /// [`MrError::InputChanged`], [`MrError::Io`].
    pub fn open_input(input: &InputFile) -> Result<Self, MrError> {
        let file = Self::open(Path::new(&input.path))?;
        file.check(input)?;
        Ok(file)
    }

    /// Checks that an input is still what the job was planned with.
    ///
    /// # Errors
    /// [`MrError::InputChanged`], [`MrError::Io`].
    pub fn check(&self, input: &InputFile) -> Result<(), MrError> {
        let found = self.0.metadata().map_err(MrError::io("looking at", &input.path))?;
        let what = if found.len() != input.bytes {
            format!("{} bytes, where there were {}", found.len(), input.bytes)
        } else if modified_ns(&found) != input.modified_ns {
            "it was written to".to_owned()
        } else {
            return Ok(());
        };
        Err(MrError::InputChanged { path: input.path.clone(), what })
    }
}

fn modified_ns(of: &fs::Metadata) -> u64 {
    u64::try_from(of.mtime()).unwrap_or(0).saturating_mul(1_000_000_000)
        + u64::try_from(of.mtime_nsec()).unwrap_or(0)
}

/// Finds the inputs that a pattern means: a file, a folder (all files in it), or either with `*` and `?` in its names.
/// What begins with `.` or `_` isn't input, unless it is named.
///
/// # Errors
/// [`MrError::Rejected`] if there is nothing, [`MrError::Io`].
pub fn find_inputs(patterns: &[String]) -> Result<Vec<InputFile>, MrError> {
    let mut paths = Vec::new();
    for pattern in patterns {
        let before = paths.len();
        let pattern_path = Path::new(pattern);
        let absolute = std::path::absolute(pattern_path).map_err(MrError::io("resolving", pattern))?;
        if absolute.exists() {
            collect(&absolute, &mut paths)?;
        } else {
            let names: Vec<String> =
                absolute.iter().skip(1).map(|name| name.to_string_lossy().into_owned()).collect();
            matching(Path::new("/"), &names, &mut paths)?;
        }
        if paths.len() == before {
            return Err(MrError::Rejected(format!("--input {pattern}: there is no such file")));
        }
    }
    paths.sort();
    paths.dedup();
    let input = |path: PathBuf| {
        let found = fs::metadata(&path).map_err(MrError::io("looking at", path.display()))?;
        let Some(text) = path.to_str() else {
            return Err(MrError::Rejected(format!("{}: its name isn't UTF-8", path.display())));
        };
        Ok(InputFile { path: text.to_owned(), bytes: found.len(), modified_ns: modified_ns(&found) })
    };
    paths.into_iter().map(input).collect()
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, MrError> {
    let io = || MrError::io("listing", folder.display());
    let entries = fs::read_dir(folder).map_err(io())?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(io())).collect()
}

fn collect(path: &Path, into: &mut Vec<PathBuf>) -> Result<(), MrError> {
    if !path.is_dir() {
        into.push(path.to_owned());
        return Ok(());
    }
    for entry in entries(path)? {
        let hidden = entry.file_name().is_none_or(|name| is_hidden(&name.to_string_lossy()));
        if !hidden && entry.is_file() {
            into.push(entry);
        }
    }
    Ok(())
}

fn matching(folder: &Path, names: &[String], into: &mut Vec<PathBuf>) -> Result<(), MrError> {
    let Some((first, rest)) = names.split_first() else { return collect(folder, into) };
    if !first.contains(['*', '?', '[']) {
        let next = folder.join(first);
        return if next.exists() { matching(&next, rest, into) } else { Ok(()) };
    }
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in entries(folder)? {
        let Some(name) = entry.file_name().and_then(|name| name.to_str()) else { continue };
        if !is_hidden(name) && crate::command::glob(first.as_bytes(), name.as_bytes()) {
            matching(&entry, rest, into)?;
        }
    }
    Ok(())
}

/// Creates an attempt's file. Nobody else ever has its name.
///
/// # Errors
/// [`MrError::Io`]: among others if the job has ended, and its folder is gone.
pub fn create(folder: &Path, name: &str) -> Result<File, MrError> {
    let path = folder.join(name);
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    file.map_err(MrError::io("creating", path.display()))
}

/// Syncs a folder, so that what was renamed in it stays so.
///
/// # Errors
/// [`MrError::Io`].
pub fn sync_folder(path: &Path) -> Result<(), MrError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(MrError::io("syncing", path.display()))
}

/// Makes the job's private folder, within that of the output.
///
/// # Errors
/// [`MrError::Rejected`] if an output is there that isn't to be replaced, [`MrError::Io`].
pub fn prepare_output(spec: &JobSpec) -> Result<(), MrError> {
    let output = Path::new(&spec.output);
    fs::create_dir_all(output).map_err(MrError::io("creating the output folder", output.display()))?;
    if !spec.overwrite
        && let Some(found) = foreign(output, None)?
    {
        return Err(MrError::Rejected(format!(
            "the output folder {} isn't empty ({found} is there): name another, or say --overwrite",
            output.display()
        )));
    }
    fs::create_dir_all(&spec.work).map_err(MrError::io("creating", &spec.work))
}

/// Something in an output folder that isn't one of `ours` and not a job's private folder.
fn foreign(output: &Path, ours: Option<&[FileInfo]>) -> Result<Option<String>, MrError> {
    let names = entries(output)?
        .into_iter()
        .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    let is_ours = |name: &str| {
        let place = name.strip_prefix("part-").and_then(|place| place.parse::<usize>().ok());
        name.starts_with("_work-") || ours.is_some_and(|ours| place.is_some_and(|place| place < ours.len()))
    };
    Ok(names.into_iter().find(|name| !is_ours(name)))
}

/// The name of an output file.
pub fn part_name(place: usize) -> String {
    format!("part-{place:05}")
}

/// Makes a job's output visible, as the files that have won; says so in [`SUCCESS`] last. May be interrupted anywhere and
/// done again by another. `bring` brings them into the job's own folder.
///
/// # Errors
/// [`MrError::Elsewhere`] if this worker doesn't see the output, [`MrError::Rejected`] if another output has appeared there,
/// [`MrError::Io`], and as `bring`.
pub fn commit(
    spec: &JobSpec,
    outputs: &[FileInfo],
    counters: &std::collections::BTreeMap<String, u64>,
    bring: impl FnOnce() -> Result<(), Failed>,
) -> Result<(), Failed> {
    let (output, work) = (Path::new(&spec.output), Path::new(&spec.work));
    let success = output.join(SUCCESS);
    let marker = work.join(COMMITTING);
    let parts: Vec<serde_json::Value> = (0..)
        .zip(outputs)
        .map(|(place, file)| {
            serde_json::json!({ "name": part_name(place), "bytes": file.bytes, "crc32": format!("{:08x}", file.crc) })
        })
        .collect();
    let manifest = serde_json::json!({
        "schema": "flotilla-mr-output-1", "job": spec.name, "files": parts, "counters": counters,
    });
    let manifest = format!("{manifest:#}\n");
    if is_committed(spec, outputs, &manifest) {
        // Somebody has done it all, but for what comes after.
        return Ok(remove(work)?);
    }
    if !work.is_dir() {
        return Err(MrError::Elsewhere(spec.output.clone()).into());
    }
    bring()?;
    let goes_on = marker.exists();
    if spec.overwrite {
        // From here on there is no output, until there is all of ours.
        remove_if_there(&success)?;
        sync_folder(output)?;
        if !goes_on {
            for path in entries(output)? {
                if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("part-")) {
                    remove_if_there(&path)?;
                }
            }
        }
    } else if let Some(found) = foreign(output, goes_on.then_some(outputs))? {
        let what = format!("{} has appeared in the output folder {}", found, output.display());
        return Err(MrError::Rejected(what).into());
    }
    fs::write(&marker, b"").map_err(MrError::io("creating", marker.display()))?;
    for (place, file) in outputs.iter().enumerate() {
        let (from, to) = (work.join(&file.name), output.join(part_name(place)));
        match fs::rename(&from, &to) {
            Ok(()) => {}
            // Renamed by one who was interrupted.
            Err(error) if error.kind() == io::ErrorKind::NotFound && has_length(&to, file.bytes) => {}
            Err(error) => return Err(MrError::io("making visible", from.display())(error).into()),
        }
    }
    sync_folder(output)?;
    let draft = work.join("success");
    let written = File::create(&draft).and_then(|mut file| {
        file.write_all(manifest.as_bytes())?;
        file.sync_all()
    });
    written.map_err(MrError::io("writing", draft.display()))?;
    fs::rename(&draft, &success).map_err(MrError::io("making visible", draft.display()))?;
    sync_folder(output)?;
    Ok(remove(work)?)
}

fn is_committed(spec: &JobSpec, outputs: &[FileInfo], manifest: &str) -> bool {
    let (output, work) = (Path::new(&spec.output), Path::new(&spec.work));
    let all_renamed = outputs.iter().all(|file| !work.join(&file.name).exists());
    all_renamed && fs::read_to_string(output.join(SUCCESS)).is_ok_and(|there| there == manifest)
}

fn has_length(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() == bytes)
}

fn remove_if_there(path: &Path) -> Result<(), MrError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(MrError::io("removing", path.display())(error))
        }
        _ => Ok(()),
    }
}

/// Removes a job's private folder and whatever is in it.
///
/// # Errors
/// [`MrError::Io`].
pub fn remove(work: &Path) -> Result<(), MrError> {
    match fs::remove_dir_all(work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(MrError::io("removing", work.display())(error))
        }
        _ => Ok(()),
    }
}
