//! SIGHUP: a node reads its file again.

use crate::config::{Config, Overrides};
use crate::node;
use flotilla_runtime::driver::NodeHandle;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, whatever the file says.
pub(super) const LEVEL_VARIABLE: &str = "FLOTILLA_LOG";

/// Changes what is logged.
pub(super) type SetFilter = Box<dyn Fn(EnvFilter) + Send>;

/// What is logged by a node with that configuration: what the environment says, else what the file does.
pub(super) fn filter_of(config: &Config) -> EnvFilter {
    let named = std::env::var(LEVEL_VARIABLE).ok().and_then(|level| EnvFilter::try_new(level).ok());
    let filed = || config.log_level.as_ref().and_then(|level| EnvFilter::try_new(level).ok());
    named.or_else(filed).unwrap_or_else(|| EnvFilter::new("info"))
}

/// What a node runs with, and how it is told otherwise.
pub(super) struct Reloader {
    pub(super) path: PathBuf,
    /// What goes before the file, now as then.
    pub(super) overrides: Overrides,
    pub(super) current: Config,
    pub(super) node: NodeHandle,
    pub(super) set_filter: SetFilter,
}

impl Reloader {
    /// Reads the file again. If anything is wrong with it, or with the files that it names, nothing changes.
    pub(super) fn reload(&mut self) {
        match self.read() {
            Ok((new, changed)) => {
                (self.set_filter)(filter_of(&new));
                self.current = new;
                tracing::info!(changed, "settings reloaded, certificates too");
            }
            Err(error) => tracing::error!(error, "settings weren't reloaded, nothing has changed"),
        }
    }

    fn read(&self) -> Result<(Config, String), String> {
        let new = Config::load(&self.path, &self.overrides).map_err(|error| error.to_string())?;
        let changes = self.current.changes(&new, &self.path).map_err(|error| error.to_string())?;
        let reload = node::reload(&new).map_err(|error| format!("{}: {error}", self.path.display()))?;
        self.node.reload(reload);
        let changed = if changes.is_empty() { "no key".to_owned() } else { changes.join(", ") };
        Ok((new, changed))
    }
}
