//! `flotilla backup`, `flotilla backup verify` and `flotilla restore`: a whole cluster to a folder and back.
//!
//! | file | what |
//! |---|---|
//! | `take.rs` | shard by shard, from whoever leads it |
//! | `folder.rs` | the folder: nothing in it looks whole before it is |
//! | `verify.rs` | a folder is read as a whole, and every byte is compared |
//! | `restore.rs` | what is loaded into which cluster |
//! | `loader.rs` | keys on their way to their leaders, many at a time |
//! | `peer.rs` | the cluster: who is asked, and how large it is |
//! | `work.rs` | several shards at a time, with a line of progress |

mod folder;
mod loader;
mod peer;
mod restore;
mod take;
mod verify;
mod work;

use super::Failure;
use super::login::Login;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Options of whatever speaks with a cluster.
#[derive(Debug, Args)]
struct Common {
    /// Client addresses of cores of the cluster; one that answers is enough.
    #[arg(long, short, default_value = "127.0.0.1:7000", value_delimiter = ',', value_name = "HOST:PORT,…")]
    nodes: Vec<String>,
    #[command(flatten)]
    login: Login,
    /// Shards at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    parallel: u8,
    /// Move at most so many MiB a second.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    limit: Option<u64>,
    /// Give up after so many seconds in which nothing came or went.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "SECONDS")]
    timeout: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Common {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// Options of `flotilla backup`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct BackupOptions {
    #[command(subcommand)]
    command: Option<BackupCommand>,
    #[command(flatten)]
    common: Common,
    /// The folder: made if it isn't there, else it must be empty.
    #[arg(required = true, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Read a backup as a whole and compare every checksum.
    Verify(VerifyOptions),
}

#[derive(Debug, Args)]
struct VerifyOptions {
    /// The folder.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Options of `flotilla restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreOptions {
    #[command(flatten)]
    common: Common,
    /// What becomes of keys that the cluster has already. Without this, it must have none.
    #[arg(long, value_enum)]
    existing: Option<Existing>,
    /// The backup.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// What becomes of keys that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Existing {
    /// They stay as they are; so a restore that was interrupted goes on.
    Keep,
    /// Those that are in the backup get what they have there. Others stay.
    Replace,
}

pub(super) fn run(options: &BackupOptions) -> Result<(), Failure> {
    match (&options.command, &options.dir) {
        (Some(BackupCommand::Verify(options)), _) => verify::run(&options.dir, options.json),
        (None, Some(dir)) => take::run(&options.common, dir),
        (None, None) => Err(Failure::Usage("say into which folder: flotilla backup DIR".to_owned())),
    }
}

pub(super) fn restore(options: &RestoreOptions) -> Result<(), Failure> {
    restore::run(&options.common, options.existing, &options.dir)
}
