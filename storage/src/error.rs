//! What can be wrong with a log.

use crate::Lsn;
use flotilla_runtime::FileId;

/// A log that can't be opened. The files are left as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Records that make no sense though every checksum is right.
    #[error(
        "{file} is damaged at offset {offset}, in frame {}: {what}. The checksums are right, so this is what was written: \
         was it a newer program? Use that, or wipe this node's folder and let the node rejoin with an empty one", lsn.0
    )]
    Corrupt {
        /// The segment.
        file: FileId,
        /// Where in it.
        offset: u64,
        /// The frame.
        lsn: Lsn,
        /// What is wrong with it.
        what: String,
    },
    /// Acknowledged data is lost, and nobody else has it.
    #[error(
        "{what}. No other node has a replica of group {group}, so what is lost can't be fetched: restore this node's folder \
         from a copy, or see `flotilla wal verify` and `flotilla wal repair`"
    )]
    Irreparable {
        /// The group.
        group: u64,
        /// What was found.
        what: String,
    },
    /// A segment that must be there isn't.
    #[error(
        "the log segment of epoch {epoch} is missing: the segments from epoch {oldest} to {newest} are needed. \
         Was a file removed by hand? Restore it from a copy, or wipe the folder and let the node rejoin"
    )]
    MissingSegment {
        /// The missing one.
        epoch: u64,
        /// The oldest that is needed.
        oldest: u64,
        /// The newest.
        newest: u64,
    },
    /// The log of another core, node or cluster.
    #[error(
        "{file} belongs to core {} of node {} of another cluster or node (cluster id {:016x}), not to core {} of \
         node {} (cluster id {:016x}): was a folder copied? Give this node its own folder",
        found.core, found.node, found.cluster, expected.core, expected.node, expected.cluster
    )]
    Foreign {
        /// The segment.
        file: FileId,
        /// What its header says.
        found: crate::Identity,
        /// What the configuration says.
        expected: crate::Identity,
    },
    /// Written by another version.
    #[error("{file} has format version {found}, this program reads {known}: use the program that wrote it")]
    Version {
        /// The segment.
        file: FileId,
        /// Its version.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// A snapshot can't be read.
    #[error("{file} is damaged at offset {offset}: {what}")]
    Snapshot {
        /// The snapshot.
        file: FileId,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: String,
    },
}
