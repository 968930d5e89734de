//! Frozen bytes of migration: an entry of a data group's log ([`SCHEMA_STEP_V1`]), and how its shards stand in a snapshot. rkyv
//! archives, as the commands (`docs/format.md`); what they do is `services/src/core/shards.rs`.

use rkyv::with::InlineAsBox;
use rkyv::{Archive, Deserialize, Serialize};

/// The schema of an entry that holds a [`StepV1`].
pub const SCHEMA_STEP_V1: u16 = 32;

/// The shard stops being served: [`StepV1::kind`].
pub const LEAVE: u8 = 1;
/// A piece of the shard: [`StepV1::kind`].
pub const PIECE: u8 = 2;
/// The shard is deleted: [`StepV1::kind`].
pub const DELETE: u8 = 3;

/// A step of a shard's way from one group to another.
#[derive(Archive, Serialize)]
pub struct StepV1<'a> {
    /// [`LEAVE`], [`PIECE`] or [`DELETE`].
    pub kind: u8,
    /// A piece: it is the last. Else 0.
    pub is_last: u8,
    /// Which shard.
    pub shard: u16,
    /// Where it goes to, or comes from.
    pub group: u32,
    /// The configuration that it goes with.
    pub config: u64,
    /// A piece: the source's clock, milliseconds since 1970.
    pub clock_ms: u64,
    /// A piece: bytes of the entry behind `after` that came before it.
    pub within: u32,
    /// A piece: whether a key came before it.
    pub has_after: u8,
    /// A piece: the last whole key before it.
    #[rkyv(with = InlineAsBox)]
    pub after: &'a [u8],
    /// A piece: its bytes, as in a snapshot of the shard.
    #[rkyv(with = InlineAsBox)]
    pub bytes: &'a [u8],
}

/// A shard in a group's hands.
#[derive(Archive, Serialize, Deserialize)]
pub struct HeldV1 {
    /// Which.
    pub shard: u16,
    /// 1 served, 2 leaving, 3 arriving.
    pub status: u8,
    /// Where it goes to, or comes from.
    pub peer: u32,
    /// The configuration with which it came to that.
    pub config: u64,
}

/// How a group's shards stand.
#[derive(Archive, Serialize, Deserialize, Default)]
pub struct MetaV1 {
    /// Those that it has, ascending: the snapshot's parts are their data, in this order.
    pub held: Vec<HeldV1>,
    /// Those that it had: with which configuration they went.
    pub fences: Vec<HeldV1>,
}

const _: () = assert!(size_of::<ArchivedStepV1<'_>>() == 48, "frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedHeldV1>() == 16, "frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedMetaV1>() == 16, "frozen: see docs/format.md");

impl<'a> StepV1<'a> {
    /// The shard stops being served, and goes to `group`.
    pub fn leave(shard: u16, config: u64, group: u32) -> Self {
        let nothing: &[u8] = &[];
        Self {
            kind: LEAVE,
            is_last: 0,
            shard,
            group,
            config,
            clock_ms: 0,
            within: 0,
            has_after: 0,
            after: nothing,
            bytes: nothing,
        }
    }

    /// The shard has arrived at `group`.
    pub fn delete(shard: u16, config: u64, group: u32) -> Self {
        Self { kind: DELETE, ..Self::leave(shard, config, group) }
    }

    /// No archive of it is longer.
    pub fn archive_bytes_max(&self) -> usize {
        96 + self.after.len() + self.bytes.len()
    }

    /// Serializes it straight into the frame that goes to disk and to the peers.
    pub fn write(&self, writer: &mut flotilla_storage::PayloadWriter<'_>) {
        rkyv::api::high::to_bytes_in::<_, rkyv::rancor::Failure>(self, writer)
            .expect("the writer has room for archive_bytes_max");
    }
}

/// Reads an archive back in place; `None` if the bytes are none, or of a kind that this version doesn't know.
pub fn read(payload: &[u8]) -> Option<&ArchivedStepV1<'_>> {
    let step = rkyv::access::<ArchivedStepV1<'_>, rkyv::rancor::Error>(payload).ok()?;
    matches!(step.kind, LEAVE | PIECE | DELETE).then_some(step)
}

impl MetaV1 {
    /// As a group is founded: these are served since configuration 1.
    pub fn founded(numbers: std::ops::Range<u16>) -> Self {
        let held = |shard| HeldV1 { shard, status: 1, peer: 0, config: 1 };
        Self { held: numbers.map(held).collect(), fences: Vec::new() }
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(self);
        bytes.expect("memory is the only thing it needs").into_vec()
    }

    /// Reads it back from anywhere; `None` if the bytes are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut copy = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        copy.extend_from_slice(bytes);
        rkyv::from_bytes::<Self, rkyv::rancor::Error>(&copy).ok()
    }
}
