//! `flotilla wal`: a look into a write-ahead log, and the last resort.
//!
//! | file | what |
//! |---|---|
//! | `folder.rs` | which folder is meant, what is in it, whether a node is using it |
//! | `inspect.rs` | what every segment holds, frame by frame |
//! | `verify.rs` | what a start would make of it |
//! | `dump.rs` | the entries of a group |
//! | `repair.rs` | a copy that ends before a frame |
//!
//! All but `repair` only read, and `repair` changes nothing but the copy that it writes. Exit status: 0 all is well, 1 the
//! log is damaged (or the repair failed), 2 there is no log to look at under that name.

mod dump;
mod folder;
mod inspect;
mod repair;
mod verify;

use super::Failure;
use clap::Subcommand;
use std::io::Write;

/// Subcommands of `flotilla wal`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what every segment of a log holds.
    Inspect(inspect::Options),
    /// Tell whether a log is whole, what is damaged, and what a start would do.
    Verify(verify::Options),
    /// Print the entries of one group.
    Dump(dump::Options),
    /// Write a copy of a log that ends before a frame, for a log that can't be opened.
    Repair(repair::Options),
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Inspect(options) => inspect::run(options),
        Command::Verify(options) => verify::run(options),
        Command::Dump(options) => dump::run(options),
        Command::Repair(options) => repair::run(options),
    }
}

/// Writes to standard output. Whoever has stopped reading wants no more, and no complaint.
fn say(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}
