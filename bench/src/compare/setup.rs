//! Peers that aren't there yet are installed by the scripts of `bench/peers`.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::args::{CompareArgs, What};
use super::rounds::peers;
use crate::report::note;
use crate::target::built::beside;
use crate::target::peer::Peer;

/// Scripts that build or fetch what is compared with, and what tells that they have run.
const BUILT: [(What, &str, &str); 7] = [
    (What::Kv, "naive.sh", "peers/release/naive-kv"),
    (What::Wal, "raft-engine.sh", "peers/release/wal-raft-engine"),
    (What::Raft, "raft-rs.sh", "peers/release/raft-raft-rs"),
    (What::Raft, "openraft.sh", "peers/release/raft-openraft"),
    (What::Mesh, "mesh.sh", "peers/release/mesh-peers"),
    (What::Runtime, "echo.sh", "peers/release/echo-peers"),
    (What::MapReduce, "mapreduce.sh", "peers/mapreduce/installed"),
];

/// Installs what `what` is compared with. What can't be is told, and left out of the run.
pub(super) fn install(args: &CompareArgs, what: What) {
    let (is_kv, mut tried) = (what == What::Kv, Vec::new());
    let peers = match what {
        What::Kv => peers(args),
        What::Nodes => vec![Peer::RedisNone],
        _ => Vec::new(),
    };
    for peer in peers.iter().filter(|peer| peer.installed().is_err()) {
        // One script is for all modes of Redis: what failed once isn't tried again.
        let Some((name, text)) = peer.script().filter(|(name, _)| !tried.contains(name)) else { continue };
        tried.push(name);
        let mut command = Command::new("sh");
        command.args([OsStr::new("-c"), text.as_ref(), name.as_ref(), "install".as_ref()]);
        say(name, command);
    }
    let is_wanted = !is_kv || peers.contains(&Peer::Naive);
    for (_, name, made) in BUILT.iter().filter(|(of, ..)| is_wanted && *of == what) {
        if beside(made).is_some() {
            continue;
        }
        match script(name) {
            Some(script) => say(name, Command::new(script)),
            None => note(&format!("without {name}: there is no bench/peers above this program or here")),
        }
    }
}

/// The script's own place, since it builds sources beside it: above this program, or above the working folder.
fn script(name: &str) -> Option<PathBuf> {
    let path = format!("bench/peers/{name}");
    beside(&path).or_else(|| {
        let here = std::env::current_dir().ok()?;
        here.ancestors().map(|folder| folder.join(&path)).find(|path| path.exists())
    })
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
