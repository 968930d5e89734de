//! Bytes that survive: the write-ahead log of one core. Pure: bytes in, effects out.
//!
//! | module | what |
//! |---|---|
//! | [`record`] | the unit of meaning: a 32-byte header, then a payload that is read in place |
//! | [`frame`] | the unit of writing: one group commit's records, checksummed block by block |
//! | [`segment`] | the unit of space: a pre-written file, taken into use again and again |
//! | [`log`] | the writer: gathers, cuts frames, says what is durable, gives space back |
//! | [`recover`] | the reader: tells a torn tail from damage, and gives back what was written |
//! | [`snapshot`] | the file that lets a group forget its log |
//! | [`inspect`] | a look at a segment for people |
//! | [`repair`] | a log without what is behind a place, for people who must |
//!
//! `docs/format.md` draws every byte.

#![forbid(unsafe_code)]

pub mod error;
pub mod frame;
pub mod inspect;
pub mod log;
pub mod record;
pub mod recover;
pub mod repair;
pub mod segment;
pub mod snapshot;

pub use error::StorageError;
pub use log::{Log, LogConfig, LogCounters, PayloadWriter, Progress};
pub use record::{Damage, HardState, LostFrames, RECORD_HEADER_BYTES, RecordError, RecordHeader, RecordKind};
pub use recover::{Hole, LogTail, Recovered, RecoveredGroup, Recovery, TornTail};
pub use segment::Identity;

/// No number of a frame, an epoch, an index or a term is higher: one more can always be counted.
pub const NUMBER_MAX: u64 = u64::MAX >> 1;

/// A frame's number in its log: one more than the frame before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);
