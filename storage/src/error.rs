//! What can be wrong with a log.

use crate::Lsn;
use flotilla_runtime::FileId;

/// A log that can't be opened. The files are left as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Acknowledged data is damaged.
    #[error(
        "{file} is damaged at offset {offset}, in frame {}: {what}. Later frames show that it had been acknowledged, \
         so nothing was cut off. {damage} Restore this node's folder from a copy, or wipe it and let the node \
         rejoin the cluster with an empty one", lsn.0
    )]
    Corrupt {
        /// The segment.
        file: FileId,
        /// Where in it.
        offset: u64,
        /// The frame that should be there.
        lsn: Lsn,
        /// What was found instead.
        what: String,
        /// Which groups and indices are concerned, as far as can be told.
        damage: String,
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
    /// Written by a newer version.
    #[error("{file} has format version {found}, this program reads up to {known}: use the newer program")]
    Version {
        /// The segment.
        file: FileId,
        /// Its version.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// A snapshot can't be read.
    #[error(
        "{file} is damaged at offset {offset}: {what}. The log before it is gone, so this node can't be restored from \
         what it has: restore its folder from a copy, or wipe it and let the node rejoin the cluster with an empty one"
    )]
    Snapshot {
        /// The snapshot.
        file: FileId,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: String,
    },
}
