//! `flotilla generate`: what packages need, from the definitions of the command line itself.

use super::{Failure, Flotilla};
use clap::{CommandFactory, Subcommand};
use clap_complete::Shell;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What to generate.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the completions for a shell: `source <(flotilla generate completions bash)`.
    Completions {
        /// For which.
        shell: Shell,
    },
    /// Print every key of a node's file, with what it is if nobody says, as a table in Markdown.
    Keys,
    /// Write a man page for every command into a folder.
    Man {
        /// Made, if it isn't there.
        folder: PathBuf,
    },
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Flotilla::command(), "flotilla", &mut text);
            print(&text);
            Ok(())
        }
        Command::Keys => {
            print(crate::config::table_of_keys().as_bytes());
            Ok(())
        }
        Command::Man { folder } => pages(folder).map_err(|error| {
            Failure::Failed(format!("can't write man pages to {}: {error}", folder.display()))
        }),
    }
}

fn print(text: &[u8]) {
    // A pipe that is closed early is no failure.
    let _ = std::io::stdout().write_all(text);
}

fn pages(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Flotilla::command(), folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_of_all_commands_make_sense() {
        Flotilla::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        pages(&folder.path().join("man1")).unwrap();
        for page in ["flotilla.1", "flotilla-serve.1", "flotilla-doctor.1", "flotilla-cluster-join.1"] {
            let text = std::fs::read_to_string(folder.path().join("man1").join(page)).unwrap();
            assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
        }
    }
}
