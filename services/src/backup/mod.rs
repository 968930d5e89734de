//! A backup of a cluster: a folder with a file for each shard that has keys, and a manifest (`docs/format.md`).
//!
//! Pure: bytes in, bytes out. What reads and writes the folder, and speaks with a cluster, is `cli/backup`.
//!
//! | file | what |
//! |---|---|
//! | `entries.rs` | the keys in a shard's bytes, without ever holding a long value |
//! | `file.rs` | a shard's file, piece by piece, each with its checksum |
//! | `manifest.rs` | what a backup consists of |

mod entries;
mod file;
mod manifest;

pub use entries::{Entries, EntriesError, Found, Head, LONG_VALUE_BYTES, Totals};
pub use file::{FileError, Moment, ShardFileReader, ShardFileWriter};
pub use manifest::{MANIFEST, Manifest, ManifestError, SUMS, ShardRecord, file_name, hex, is_ours};
