//! Frozen bytes of migration: an entry of a data group's log ([`SCHEMA_STEP_V2`]), and how its shards stand in a snapshot. rkyv
//! archives, as the commands (`docs/format.md`); what they do is `services/src/core/shards.rs`.

use rkyv::with::InlineAsBox;
use rkyv::{Archive, Deserialize, Serialize};

/// The schema of an entry that holds a [`StepV2`].
/// (32 was one whose pieces said behind which key they began; no release has written it.)
pub const SCHEMA_STEP_V2: u16 = 33;

/// The shard stops being served: [`StepV2::kind`].
pub const LEAVE: u8 = 1;
/// A piece of the shard: [`StepV2::kind`].
pub const PIECE: u8 = 2;
/// The shard is deleted: [`StepV2::kind`].
pub const DELETE: u8 = 3;
/// What has come of the shard is given up, for it won't come: [`StepV2::kind`].
pub const GIVE_UP: u8 = 4;

/// A step of a shard's way from one group to another.
#[derive(Archive, Serialize)]
pub struct StepV2<'a> {
    /// [`LEAVE`], [`PIECE`], [`DELETE`] or [`GIVE_UP`].
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
    /// A piece: of which copy of the shard. A later one has a higher number.
    pub copy: u64,
    /// A piece: which of the copy, from 0.
    pub piece: u32,
    /// A piece: its bytes (`services/src/kv/copying.rs`).
    #[rkyv(with = InlineAsBox)]
    pub bytes: &'a [u8],
}

/// A shard in a group's hands.
#[derive(Archive, Serialize, Deserialize)]
pub struct HeldV2 {
    /// Which.
    pub shard: u16,
    /// 1 served, 2 leaving, 3 arriving.
    pub status: u8,
    /// Where it goes to, or comes from.
    pub peer: u32,
    /// The configuration with which it came to that.
    pub config: u64,
    /// Arriving: which copy of it.
    pub copy: u64,
    /// Arriving: pieces of that which are here.
    pub pieces: u32,
}

/// A shard in a group's hands, as older snapshots have it.
#[derive(Archive, Serialize, Deserialize)]
struct HeldV1 {
    shard: u16,
    status: u8,
    peer: u32,
    config: u64,
}

/// How a group's shards stand, as older snapshots have it.
#[derive(Archive, Serialize, Deserialize, Default)]
struct MetaV1 {
    held: Vec<HeldV1>,
    fences: Vec<HeldV1>,
}

impl From<HeldV1> for HeldV2 {
    fn from(HeldV1 { shard, status, peer, config }: HeldV1) -> Self {
        Self { shard, status, peer, config, copy: 0, pieces: 0 }
    }
}

/// How a group's shards stand.
#[derive(Archive, Serialize, Deserialize, Default)]
pub struct MetaV2 {
    /// Those that it has, ascending: the snapshot's parts are their data, in this order.
    pub held: Vec<HeldV2>,
    /// Those that it had: with which configuration they went.
    pub fences: Vec<HeldV2>,
}

const _: () = assert!(size_of::<ArchivedStepV2<'_>>() == 48, "frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedHeldV1>() == 16, "frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedHeldV2>() == 32, "frozen: see docs/format.md");
const _: () = assert!(size_of::<ArchivedMetaV2>() == 16, "frozen: see docs/format.md");

impl<'a> StepV2<'a> {
    /// The shard stops being served, and goes to `group`.
    pub fn leave(shard: u16, config: u64, group: u32) -> Self {
        let nothing: &[u8] = &[];
        Self { kind: LEAVE, is_last: 0, shard, group, config, clock_ms: 0, copy: 0, piece: 0, bytes: nothing }
    }

    /// The shard has arrived at `group`.
    pub fn delete(shard: u16, config: u64, group: u32) -> Self {
        Self { kind: DELETE, ..Self::leave(shard, config, group) }
    }

    /// The shard won't come from `group` with this configuration.
    pub fn give_up(shard: u16, config: u64, group: u32) -> Self {
        Self { kind: GIVE_UP, ..Self::leave(shard, config, group) }
    }

    /// No archive of it is longer.
    pub fn archive_bytes_max(&self) -> usize {
        96 + self.bytes.len()
    }

    /// Serializes it straight into the frame that goes to disk and to the peers.
    pub fn write(&self, writer: &mut flotilla_storage::PayloadWriter<'_>) {
        rkyv::api::high::to_bytes_in::<_, rkyv::rancor::Failure>(self, writer)
            .expect("the writer has room for archive_bytes_max");
    }
}

/// Reads an archive back in place; `None` if the bytes are none, or of a kind that this version doesn't know.
pub fn read(payload: &[u8]) -> Option<&ArchivedStepV2<'_>> {
    let step = rkyv::access::<ArchivedStepV2<'_>, rkyv::rancor::Error>(payload).ok()?;
    matches!(step.kind, LEAVE | PIECE | DELETE | GIVE_UP).then_some(step)
}

impl MetaV2 {
    /// As a group is founded: these are served since configuration 1.
    pub fn founded(numbers: std::ops::Range<u16>) -> Self {
        let held = |shard| HeldV2 { shard, status: 1, peer: 0, config: 1, copy: 0, pieces: 0 };
        Self { held: numbers.map(held).collect(), fences: Vec::new() }
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(self);
        bytes.expect("memory is the only thing it needs").into_vec()
    }

    /// Reads it back from anywhere; `None` if the bytes are none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        rkyv::from_bytes::<Self, rkyv::rancor::Error>(&aligned(bytes)).ok()
    }

    /// The same of an older snapshot. Of what was arriving then nothing is known but the data: its source begins it again.
    pub fn decode_older(bytes: &[u8]) -> Option<Self> {
        let MetaV1 { held, fences } =
            rkyv::from_bytes::<MetaV1, rkyv::rancor::Error>(&aligned(bytes)).ok()?;
        let newer = |of: Vec<HeldV1>| of.into_iter().map(HeldV2::from).collect();
        Some(Self { held: newer(held), fences: newer(fences) })
    }
}

fn aligned(bytes: &[u8]) -> rkyv::util::AlignedVec<16> {
    let mut copy = rkyv::util::AlignedVec::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_shards_stood_in_an_older_snapshot_is_read() {
        let held = vec![HeldV1 { shard: 3, status: 1, peer: 0, config: 9 }];
        let fences = vec![HeldV1 { shard: 5, status: 0, peer: 2, config: 8 }];
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&MetaV1 { held, fences }).unwrap();
        let meta = MetaV2::decode_older(&bytes).unwrap();
        let seen = |it: &HeldV2| (it.shard, it.status, it.peer, it.config, it.copy, it.pieces);
        assert_eq!(meta.held.iter().map(seen).collect::<Vec<_>>(), [(3, 1, 0, 9, 0, 0)]);
        assert_eq!(meta.fences.iter().map(seen).collect::<Vec<_>>(), [(5, 0, 2, 8, 0, 0)]);
    }

    /// Frozen: docs/format.md.
    #[test]
    fn the_bytes_of_a_piece_and_of_how_shards_stand_are_these() {
        let step = StepV2 {
            kind: PIECE,
            is_last: 1,
            clock_ms: 5,
            copy: 6,
            piece: 7,
            bytes: b"data",
            ..StepV2::leave(2, 4, 3)
        };
        let piece = rkyv::to_bytes::<rkyv::rancor::Error>(&step).unwrap();
        #[rustfmt::skip]
        let expected = [
            b'd', b'a', b't', b'a', 0, 0, 0, 0,
            2, 1, 2, 0, 3, 0, 0, 0,
            4, 0, 0, 0, 0, 0, 0, 0,
            5, 0, 0, 0, 0, 0, 0, 0,
            6, 0, 0, 0, 0, 0, 0, 0,
            7, 0, 0, 0, 0xd4, 0xff, 0xff, 0xff,
            4, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(piece[..], expected);
        let held = vec![HeldV2 { shard: 1, status: 3, peer: 2, config: 4, copy: 6, pieces: 7 }];
        #[rustfmt::skip]
        let expected = [
            1, 0, 3, 0, 2, 0, 0, 0,
            4, 0, 0, 0, 0, 0, 0, 0,
            6, 0, 0, 0, 0, 0, 0, 0,
            7, 0, 0, 0, 0, 0, 0, 0,
            0xe0, 0xff, 0xff, 0xff, 1, 0, 0, 0,
            0xf8, 0xff, 0xff, 0xff, 0, 0, 0, 0,
        ];
        assert_eq!(MetaV2 { held, fences: Vec::new() }.encode(), expected);
    }
}
