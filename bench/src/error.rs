//! What can go wrong in a benchmark, each as one line that says what and where.

use std::io;
use std::path::PathBuf;

/// Why a benchmark stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BenchError {
    /// The command line asks for something that can't be: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Nothing answers at a target's address.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// The address as given.
        address: String,
        /// What the system or the server said.
        reason: String,
    },
    /// A server of ours didn't come up.
    #[error("{server} did not start: {reason}")]
    NotStarted {
        /// Which process.
        server: String,
        /// Its last words, or what was waited for.
        reason: String,
    },
    /// A program isn't installed, or isn't where it was said to be.
    #[error("no {program} found{hint}")]
    Missing {
        /// The program's name or path.
        program: String,
        /// What to do about it, with its own punctuation.
        hint: String,
    },
    /// A load ran, but its result means nothing.
    #[error("{scenario} on {target}: {reason}")]
    Failed {
        /// The scenario's name.
        scenario: String,
        /// The target's name.
        target: String,
        /// Why the numbers can't be used.
        reason: String,
    },
    /// The operating system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk under `--dir` can't be measured or isn't one.
    #[error("{}: {reason}; give --dir a folder on a real disk", path.display())]
    Disk {
        /// The folder.
        path: PathBuf,
        /// What's wrong with it.
        reason: String,
    },
    /// The machine is too busy for a run that was to be strict.
    #[error("too noisy: {0}")]
    Noisy(String),
    /// Of several comparisons some came to nothing; each has said why.
    #[error("no result of {0}: see above")]
    Partly(String),
    /// Ctrl-C, or a termination signal.
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    /// The process's exit code: 2 for wrong usage, 1 for everything else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// Wraps a system error with what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// The result of anything in this crate.
pub(crate) type Result<T, E = BenchError> = std::result::Result<T, E>;
