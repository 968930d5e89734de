//! What stands behind a snapshot's shards: who was in the group, and how the shards stood.
//!
//! ```text
//! 0 since u64 │ 8 the members at that entry (`consensus/src/membership.rs`) │ then:
//! "SHD2" │ bytes of the next u32 │ an archive of MetaV2 │ bytes of the next u32 │ an archive of ControllerV1, of the controller only
//! ```
//!
//! Older files have "SHD1" and an archive of MetaV1. Still older ones have the members only, or nothing: their shards are those that the group was founded with.

use crate::migration::MetaV2;
use flotilla_consensus::Membership;

const MAGIC: [u8; 4] = *b"SHD2";
/// Before [`MetaV2`] was.
const OLDER_MAGIC: [u8; 4] = *b"SHD1";

/// The payload of an end mark.
#[derive(Default)]
pub(super) struct EndMark {
    /// The members, and the entry that brought them.
    pub(super) membership: Option<(u64, Membership)>,
    /// How the shards stood.
    pub(super) meta: Option<MetaV2>,
    /// The controller's state.
    pub(super) controller: Option<Vec<u8>>,
}

impl EndMark {
    pub(super) fn encode(since: u64, membership: &[u8], meta: &MetaV2, controller: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = since.to_le_bytes().to_vec();
        bytes.extend_from_slice(membership);
        bytes.extend_from_slice(&MAGIC);
        for part in [&meta.encode()[..], controller.unwrap_or_default()] {
            let length = u32::try_from(part.len()).expect("far below 4 GiB");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// `None` if the bytes are no end mark of any version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let (since, rest) = bytes.split_first_chunk()?;
        // Flags, and the number of members of eight bytes each.
        let count = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?) as usize;
        let (members, rest) = rest.split_at_checked(count.checked_mul(8)?.checked_add(8)?)?;
        let membership = Some((u64::from_le_bytes(*since), Membership::decode(members)?));
        if rest.is_empty() {
            return Some(Self { membership, ..Self::default() });
        }
        let (magic, rest) = rest.split_first_chunk()?;
        let (meta, rest) = split(rest)?;
        let (controller, rest) = split(rest)?;
        let meta = match *magic {
            MAGIC => Some(MetaV2::decode(meta)?),
            OLDER_MAGIC => Some(MetaV2::decode_older(meta)?),
            _ => return None,
        };
        let controller = (!controller.is_empty()).then(|| controller.to_vec());
        rest.is_empty().then_some(Self { membership, meta, controller })
    }
}

/// A part with its length before it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_runtime::{CoreId, NodeId, PeerId};

    #[test]
    fn end_marks_of_every_age_are_read() {
        let peer = PeerId { node: NodeId(3), core: CoreId(0) };
        let membership = Membership::of_voters([peer]).encode();
        let whole = EndMark::encode(7, &membership, &MetaV2::default(), Some(b"state"));
        let found = EndMark::decode(&whole).unwrap();
        assert!(found.membership.is_some_and(|(since, _)| since == 7) && found.meta.is_some());
        assert_eq!(found.controller.as_deref(), Some(&b"state"[..]));
        let older = EndMark::decode(&whole[..8 + membership.len()]).unwrap();
        assert!(older.membership.is_some() && older.meta.is_none());
        assert!(EndMark::decode(&[]).unwrap().membership.is_none());
        assert!((1..whole.len()).filter(|cut| EndMark::decode(&whole[..*cut]).is_some()).count() <= 1);
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = EndMark::decode(&bytes);
        }
    }
}
