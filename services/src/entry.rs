//! What a group's log holds: one command of a client, as an rkyv archive.
//!
//! Schema 0 is the empty entry that begins a leader's term. Schema 1 is frozen as [`CommandV1`]; a new shape
//! gets a new number, and this one stays readable for ever (`docs/format.md`).

use crate::command::by_code;
use crate::controller::Change;
use crate::controller::archive::SCHEMA_CHANGE_V1;
use crate::migration::{self, ArchivedStepV2, SCHEMA_STEP_V2};
use flotilla_consensus::membership::SCHEMA_MEMBERSHIP;
use rkyv::with::InlineAsBox;
use rkyv::{Archive, Serialize};
use smallvec::SmallVec;

/// The schema of an entry without a payload.
pub const SCHEMA_EMPTY: u16 = 0;
/// The schema of [`CommandV1`].
pub const SCHEMA_COMMAND_V1: u16 = 1;

/// The code of the command that only carries the time, for keys that expire without anybody writing. Codes of
/// client commands are in the command table.
pub const CODE_ADVANCE_TIME: u16 = 0;

/// Arguments that most commands have at most, without an allocation.
pub type Args<'a> = SmallVec<[&'a [u8]; 8]>;

/// One argument, borrowed from the client's bytes, archived in place.
#[derive(Archive, Serialize)]
pub struct Arg<'a>(#[rkyv(with = InlineAsBox)] pub &'a [u8]);

/// A write as it is replicated. Whatever isn't in here must not influence its effect.
#[derive(Archive, Serialize)]
pub struct CommandV1<'a> {
    /// The leader's clock when it proposed this, milliseconds since 1970, never behind an earlier entry's.
    pub unix_ms: u64,
    /// Which command, from the table.
    pub code: u16,
    /// The command's name and arguments, as the client sent them.
    pub args: SmallVec<[Arg<'a>; 8]>,
}

const _: () =
    assert!(size_of::<ArchivedCommandV1<'_>>() == 24, "the log's format is frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedArg<'_>>() == 8, "the log's format is frozen: see docs/format.md");

/// No archive of these arguments is longer.
pub fn archive_bytes_max(args: &[&[u8]]) -> usize {
    64 + args.iter().map(|arg| arg.len() + 16).sum::<usize>()
}

/// Serializes a command straight into the frame that goes to disk and to the peers.
pub fn write(writer: &mut flotilla_storage::PayloadWriter<'_>, unix_ms: u64, code: u16, args: &[&[u8]]) {
    let command = CommandV1 { unix_ms, code, args: args.iter().map(|arg| Arg(arg)).collect() };
    rkyv::api::high::to_bytes_in::<_, rkyv::rancor::Failure>(&command, writer)
        .expect("the writer has room for archive_bytes_max");
}

/// Reads an archive back in place.
///
/// # Errors
/// The validator's words, if the bytes are no archive of a [`CommandV1`].
pub fn read(payload: &[u8]) -> Result<&ArchivedCommandV1<'_>, rkyv::rancor::Error> {
    rkyv::access::<ArchivedCommandV1<'_>, rkyv::rancor::Error>(payload)
}

/// What this version doesn't know of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Its schema.
    #[error("schema {0}, which this version doesn't know")]
    Schema(u16),
    /// Its payload, which isn't what its schema says.
    #[error("a payload that schema {0} doesn't explain")]
    Payload(u16),
    /// Its command.
    #[error("a command of code {0}, which this version doesn't know")]
    Code(u16),
}

/// What an entry says.
pub enum Content<'a> {
    /// Nothing to apply: it begins a term, or changes the members, which is Raft's business.
    Nothing,
    /// A command.
    Command(&'a ArchivedCommandV1<'a>),
    /// A step of a shard on its way.
    Step(&'a ArchivedStepV2<'a>),
    /// A change of the cluster, in the controller's log.
    Change(Change),
}

/// Reads an entry's payload by its schema.
///
/// # Errors
/// [`Unknown`].
pub fn content(schema: u16, payload: &[u8]) -> Result<Content<'_>, Unknown> {
    let unexplained = Unknown::Payload(schema);
    match schema {
        SCHEMA_EMPTY | SCHEMA_MEMBERSHIP => Ok(Content::Nothing),
        SCHEMA_COMMAND_V1 => {
            let command = read(payload).map_err(|_| unexplained)?;
            let code = command.code.to_native();
            let is_known = code == CODE_ADVANCE_TIME || by_code(code).is_some();
            if is_known { Ok(Content::Command(command)) } else { Err(Unknown::Code(code)) }
        }
        SCHEMA_STEP_V2 => migration::read(payload).map(Content::Step).ok_or(unexplained),
        SCHEMA_CHANGE_V1 => Change::decode(payload).map(Content::Change).ok_or(unexplained),
        _ => Err(Unknown::Schema(schema)),
    }
}
