//! The workers that a node keeps.

use super::{Config, ConfigError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// More tasks at once than that are no node's.
const WORKERS_MAX: u32 = 1024;

/// Workers for MapReduce jobs that the node starts beside itself, with the CPU time that its cores leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MapReduceSettings {
    /// Tasks that this node works on at once, in the CPU time that nobody else wants; one a CPU is usual; at most 1024; 0: none
    /// ([mapreduce.md](mapreduce.md#workers-of-a-node)).
    pub workers: u32,
    /// The user that they are in the store; without, the default user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file whose first line is the user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Where files between map and reduce are kept; without, in `mapreduce` of the node's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

impl MapReduceSettings {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Config {
    /// Where files between map and reduce are kept.
    pub fn mapreduce_folder(&self) -> PathBuf {
        self.mapreduce.folder.clone().unwrap_or_else(|| self.data.join("mapreduce"))
    }

    pub(super) fn check_mapreduce(
        &self,
        invalid: &dyn Fn(&str, String, &str) -> ConfigError,
    ) -> Result<(), ConfigError> {
        match self.mapreduce.workers {
            0..=WORKERS_MAX => Ok(()),
            workers => Err(invalid("mapreduce.workers", workers.to_string(), "at most 1024")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOOD, error};
    use super::*;

    #[test]
    fn a_node_has_no_workers_unless_it_is_told_to() {
        let config: Config = toml::from_str(GOOD).unwrap();
        assert_eq!(
            (config.mapreduce.workers, config.mapreduce_folder()),
            (0, PathBuf::from("/tmp/x/mapreduce"))
        );
        let with = |settings: &str| error(&format!("{GOOD}[mapreduce]\n{settings}\n"));
        assert_eq!(with("workers = 2\nuser = \"mr\"\npassword_file = \"/p\"\nfolder = \"/f\""), "accepted");
        assert!(with("workers = 1025").contains("mapreduce.workers = 1025: at most 1024"));
        assert!(with("worker = 1").contains("did you mean `workers`"));
    }
}
