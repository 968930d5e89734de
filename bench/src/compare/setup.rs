//! Peers that aren't there yet are installed by the scripts of `bench/peers`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::args::{CompareArgs, What};
use super::rounds::peers;
use crate::report::note;
use crate::target::peer::Peer;

/// Scripts that build or fetch what `wal`, `raft` and `mapreduce` are compared with, and what tells that they have run.
const BUILT: [(What, &str, &str); 5] = [
    (What::Kv, "naive.sh", "peers/release/naive-kv"),
    (What::Wal, "raft-engine.sh", "peers/release/wal-raft-engine"),
    (What::Raft, "raft-rs.sh", "peers/release/raft-raft-rs"),
    (What::Raft, "openraft.sh", "peers/release/raft-openraft"),
    (What::MapReduce, "mapreduce.sh", "peers/mapreduce/bin/python"),
];

/// Installs what `what` is compared with. What can't be is told, and left out of the run.
pub(super) fn install(args: &CompareArgs, what: What) {
    let has_naive = what == What::Kv && peers(args).contains(&Peer::Naive);
    if what == What::Kv {
        for peer in peers(args) {
            // What is built needs the sources, and so its script's own place.
            if peer != Peer::Naive && peer.installed().is_err() {
                let (name, text) = peer.script();
                let mut command = Command::new("sh");
                command.args([OsStr::new("-c"), text.as_ref(), name.as_ref(), "install".as_ref()]);
                say(name, command);
            }
        }
    }
    for (_, name, made) in BUILT.iter().filter(|(of, ..)| *of == what) {
        if above(Path::new(made)).is_some() || (what == What::Kv && !has_naive) {
            continue;
        }
        match above(&Path::new("bench/peers").join(name)) {
            Some(script) => say(name, Command::new(script)),
            None => note(&format!("without {name}: there is no bench/peers above this program or here")),
        }
    }
}

/// `path` below this program's folder or the working folder, or one above.
fn above(path: &Path) -> Option<PathBuf> {
    let places = [std::env::current_exe().ok(), std::env::current_dir().ok()];
    let mut folders = places.iter().flatten().flat_map(|place| place.ancestors());
    folders.find_map(|folder| Some(folder.join(path)).filter(|path| path.exists()))
}

/// Runs an installation, its words going to standard error.
fn say(name: &str, mut command: Command) {
    note(&format!("installing: {name}"));
    let outcome = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    match outcome {
        Ok(status) if status.success() => {}
        Ok(status) => note(&format!("{name} ended with {status}")),
        Err(error) => note(&format!("{name}: {error}")),
    }
}
