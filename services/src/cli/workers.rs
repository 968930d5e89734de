//! The workers that a node keeps beside itself (`mapreduce.workers`): a process of its own, so that what a job does to it is
//! nothing to the store.

use crate::config::{Config, Demand};
use crate::hands::{Stopwatch, pause, spawn};
use flotilla_runtime::driver::NodeHandle;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The program that this process runs, whatever lies at its path by now.
const OWN: &str = "/proc/self/exe";
/// Between the end of a worker and the start of the next: at least, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// One that has worked for so long was well.
const WELL: Duration = Duration::from_secs(60);

/// Keeps them running until the node is stopped. The end of this process ends them.
pub(super) fn keep(config: &Config, node: &NodeHandle) {
    if config.mapreduce.workers == 0 {
        return;
    }
    // They are killed when this thread ends: it ends after them.
    let (arguments, node) = (arguments(config), node.clone());
    let _ = spawn(move || {
        let mut wait = AGAIN.0;
        loop {
            let clock = Stopwatch::start();
            let ended =
                Command::new(OWN).args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
            // A terminal, or systemd, has stopped both.
            if node.is_stopping() {
                return;
            }
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            if clock.elapsed() > WELL {
                wait = AGAIN.0;
            }
            tracing::warn!(
                how,
                "the MapReduce workers of this node have ended: they are started again in {} s",
                wait.as_secs()
            );
            pause(wait);
            wait = (2 * wait).min(AGAIN.1);
        }
    });
}

/// The command line of `flotilla mr worker`.
fn arguments(config: &Config) -> Vec<OsString> {
    let (me, settings) = (config.me(), &config.mapreduce);
    let mut all: Vec<OsString> = ["mr", "worker", "--die-with-parent"].map(OsString::from).to_vec();
    let mut add = |name: &str, value: &dyn AsRef<Path>| {
        all.push(name.into());
        all.push(value.as_ref().into());
    };
    for core in 0..me.cores {
        add("--addr", &address(&me.host, me.port + core));
    }
    add("--threads", &settings.workers.to_string());
    // Others get files from it, and speak with it when it coordinates.
    add("--listen", &address(&me.host, 0));
    add("--folder", &config.mapreduce_folder());
    if let Some(user) = &settings.user {
        add("--user", user);
    }
    if let Some(file) = &settings.password_file {
        add("--password-file", file);
    }
    if let Some(tls) = &config.tls {
        add("--tls-ca", &tls.ca);
        add("--tls-cert", &tls.cert);
        add("--tls-key", &tls.key);
        add("--tls-peer-hosts", &tls.peer_hosts.to_string());
        if tls.clients == Demand::Off {
            all.push("--plain-store".into());
        }
    }
    all
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
