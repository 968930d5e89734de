//! `flotilla serve`: one node.

use super::reload::{self, Reloader};
use super::{Failure, systemd, workers};
use crate::config::{Config, ConfigError, Overrides};
use crate::node::{self, ServeError};
use clap::Args;
use flotilla_runtime::driver::{NodeHandle, Versions};
use std::io::Write;
use std::path::PathBuf;

/// Descriptors of a core beside its clients': segments, snapshots, peers, rings.
pub(super) const DESCRIPTORS_A_CORE: u64 = 200;

/// Options of `flotilla serve`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The node's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A setting that goes before the file and the environment, as log.sync=dsync; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// End when the process that started this one ends (for local clusters).
    #[arg(long)]
    die_with_parent: bool,
    /// Speak these versions of the nodes' protocol in place of this release's: for tests of an upgrade.
    #[arg(long, hide = true, value_name = "LOWEST-HIGHEST", value_parser = versions)]
    peer_versions: Option<Versions>,
    /// Write the log as JSON lines.
    #[arg(long)]
    log_json: bool,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    if options.die_with_parent {
        super::die_with_parent()?;
    }
    let set_filter = super::logging::start(options.log_json);
    let wrong = |error: ConfigError| Failure::Usage(error.to_string());
    let overrides = Overrides::gather(std::env::vars_os(), &options.settings).map_err(wrong)?;
    let config = Config::load(&options.config, &overrides).map_err(wrong)?;
    open_as_many_files_as_allowed(config.me().cores)?;
    let stop = NodeHandle::new();
    set_filter(reload::filter_of(&config));
    let path = options.config.clone();
    listen_to_signals(Reloader { path, overrides, current: config.clone(), node: stop.clone(), set_filter })?;
    let line = format!(
        "ready node {} of cluster {:?} on {}:{} ({} core{})",
        config.node,
        config.cluster,
        config.me().host,
        config.me().port,
        config.me().cores,
        if config.me().cores == 1 { "" } else { "s" },
    );
    let (watched, own) = (stop.clone(), &config);
    let announce = move || {
        systemd::ready();
        systemd::watch(&watched);
        workers::keep(own, &watched);
        // Nobody listening is no reason not to serve.
        let _ = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
    };
    let versions = options.peer_versions.unwrap_or(Versions::SPOKEN);
    node::serve(&config, versions, stop, announce).map_err(|error| match error {
        ServeError::Tls(_) => Failure::Usage(format!("{}: {error}", options.config.display())),
        error => Failure::failed(error),
    })
}

fn versions(text: &str) -> Result<Versions, String> {
    let (lowest, highest) = text.split_once('-').ok_or("say LOWEST-HIGHEST, as 1-2")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} isn't a version"));
    match (number(lowest)?, number(highest)?) {
        (lowest, highest) if 0 < lowest && lowest <= highest => Ok(Versions { lowest, highest }),
        _ => Err("from 1 on, the lowest first".to_owned()),
    }
}

/// Every client is a descriptor; what a shell gives by default (1024) is for programs that might use `select`. What leaves
/// no room for the node itself is refused, while it can be said in words.
fn open_as_many_files_as_allowed(cores: u16) -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Who may not, has what it had.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let (needed, limit) = (DESCRIPTORS_A_CORE * u64::from(cores), getrlimit(Resource::Nofile).current);
    match limit {
        Some(limit) if limit < needed => Err(Failure::failed(format!(
            "the limit of open files is {limit}: a node of {cores} core{} needs {needed} beside its clients': raise it (ulimit -n, LimitNOFILE= of the unit)",
            if cores == 1 { "" } else { "s" }
        ))),
        _ => Ok(()),
    }
}

/// SIGTERM and SIGINT stop the node, SIGHUP lets it read its file again.
fn listen_to_signals(mut reloader: Reloader) -> Result<(), Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Failure::Failed(format!("can't listen for signals: {error}")))?;
    crate::hands::spawn(move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                reloader.reload();
            } else {
                systemd::stopping();
                reloader.node.stop();
            }
        }
    });
    Ok(())
}
