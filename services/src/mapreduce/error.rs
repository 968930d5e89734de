//! What can go wrong with a job.

use std::io;

/// Why a task or a job didn't work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MrError {
    /// The operating system refused.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A run file isn't what was written.
    #[error("{path}: damaged at byte {offset}: {what}; its map task runs again")]
    Damaged {
        /// The file.
        path: String,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// An input is no longer the file that the job was planned with.
    #[error("{path}: changed since the job was submitted ({what}); submit the job again")]
    InputChanged {
        /// The file.
        path: String,
        /// How it differs.
        what: String,
    },
    /// The user's code failed.
    #[error("{what}{}", at.as_ref().map(|at| format!(" (in the record at byte {} of {})", at.offset, at.input)).unwrap_or_default())]
    User {
        /// What it said.
        what: String,
        /// Which record it was at, if it was at one.
        at: Option<RecordAt>,
    },
    /// This worker can't make the output visible; another can.
    #[error("{0}: this machine doesn't see the job's own folder in it")]
    Elsewhere(String),
    /// The store didn't do what was asked of it.
    #[error("the store: {what}: {source}")]
    Store {
        /// What was tried.
        what: &'static str,
        /// What the client said.
        source: crate::client::ClientError,
    },
    /// The job can't be as it was asked for.
    #[error("{0}")]
    Rejected(String),
}

/// Where a record is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct RecordAt {
    /// The input file.
    pub input: String,
    /// Its first byte.
    pub offset: u64,
}

impl MrError {
    /// Wraps what the operating system said.
    pub fn io(what: &'static str, path: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_string();
        move |source| Self::Io { what, path, source }
    }
}
