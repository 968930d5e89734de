//! `flotilla wal repair`: a copy of a core's folder whose log ends before a frame.
//!
//! The folder itself isn't touched: the copy is made beside it, and whoever wants it puts it in its place.

use super::folder::{CoreFolder, only_core};
use super::{Failure, say};
use clap::Args;
use flotilla_runtime::FileKind;
use flotilla_storage::Lsn;
use flotilla_storage::repair::{Lost, Truncated, truncate};
use std::fs::{self, File};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Options of `flotilla wal repair`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    /// A core's folder (`…/core-0`), or the data folder of a node with one core.
    dir: PathBuf,
    /// The first frame that is given up, with all behind it; `flotilla wal verify` names it.
    #[arg(long, value_name = "LSN", value_parser = clap::value_parser!(u64).range(1..))]
    truncate_at: u64,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let core = only_core(&options.dir)?;
    let _lock = core.lock()?;
    let copy = copy_of(&core.path)?;
    let images = core.images()?;
    let at = Lsn(options.truncate_at);
    let cut = truncate(core.identity(&images), &images, at, &core.groups).map_err(Failure::failed)?;
    if !options.yes {
        ask(&explain(&core, at, &cut, &copy))?;
    }
    write_copy(&core, &cut, &copy)
        .map_err(|error| Failure::Failed(format!("can't write the copy {}: {error}", copy.display())))?;
    let summary = cut.recovered.summary();
    if options.json {
        let lost = cut.lost.iter().map(|(group, lost)| {
            let entries = lost.entries.map(|(first, last)| [first, last]);
            serde_json::json!({ "group": group, "entries": entries, "vote": lost.vote })
        });
        let done = serde_json::json!({
            "schema": "flotilla-wal-repair-1", "folder": core.path.display().to_string(),
            "copy": copy.display().to_string(), "truncate_at": at.0, "frames_given_up": cut.frames,
            "lost": lost.collect::<Vec<_>>(), "still_damaged": cut.recovered.holes.len(), "log": summary,
        });
        say(&format!("{done}\n"));
    } else {
        if options.yes {
            say(&explain(&core, at, &cut, &copy));
        }
        let (old, new) = (core.path.display(), copy.display());
        say(&format!(
            "The copy is written: {summary}.\nLook at it (flotilla wal verify {new}), then put it in place:\n  \
             mv {old} {old}.damaged && mv {new} {old}\n"
        ));
    }
    Ok(())
}

/// Where the copy goes: beside the folder, under a name that no node takes for a core's.
fn copy_of(folder: &Path) -> Result<PathBuf, Failure> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".repaired");
    let copy = folder.with_file_name(name);
    if copy.exists() {
        let copy = copy.display();
        return Err(Failure::Failed(format!("{copy} is there already: move it away or remove it first")));
    }
    Ok(copy)
}

fn explain(core: &CoreFolder, at: Lsn, cut: &Truncated, copy: &Path) -> String {
    let mut text = format!(
        "{} will be copied to {}, without frame {} and all behind it ({} frames that can be read). That gives up:\n",
        core.path.display(),
        copy.display(),
        at.0,
        cut.frames
    );
    for (group, Lost { entries, vote }) in &cut.lost {
        let entries = match entries {
            Some((first, last)) => format!("entries {first} to {last}"),
            None => "nothing that can be read".to_owned(),
        };
        let vote = if *vote { ", and what it voted" } else { "" };
        text.push_str(&format!("  group {group}: {entries}{vote}\n"));
    }
    if cut.lost.is_empty() {
        text.push_str("  nothing\n");
    }
    for line in cut.recovered.holes.iter() {
        text.push_str(&format!("What stays damaged: {line}\n"));
    }
    text.push_str(
        "If other nodes have replicas of these groups, they hold what is lost, and give it back: this is for groups that \
         nobody else has.\n",
    );
    text
}

fn ask(explanation: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage("this gives up data, so it asks first: say --yes in a script".to_owned()));
    }
    // On standard error: standard output may be somebody's file.
    let _ = write!(io::stderr(), "{explanation}Write the copy? [y/N] ");
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Failed("nothing was done".to_owned())),
    }
}

/// Writes the copy under another name first: what has its name is whole, and on the disk.
fn write_copy(core: &CoreFolder, cut: &Truncated, copy: &Path) -> io::Result<()> {
    let unfinished = copy.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    let written = fill(core, cut, &unfinished).and_then(|()| fs::rename(&unfinished, copy));
    if written.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    written?;
    File::open(copy.parent().unwrap_or(copy))?.sync_all()
}

fn fill(core: &CoreFolder, cut: &Truncated, folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    for (name, image) in &cut.files {
        let mut file = File::create_new(folder.join(name.to_string()))?;
        file.write_all(image)?;
        file.sync_all()?;
    }
    for name in core.files.iter().filter(|file| file.kind == FileKind::Snapshot) {
        let to = folder.join(name.to_string());
        fs::copy(core.path.join(name.to_string()), &to)?;
        File::open(&to)?.sync_all()?;
    }
    File::open(folder)?.sync_all()
}
