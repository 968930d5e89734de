//! How two nodes begin to speak: who they are, and in which version of their protocol.
//!
//! ```text
//! version 1  "FLP1" │ cluster u64 │ incarnation u64 │ from node u32, core u16 │ to node u32, core u16
//! since 2    "FLP2" │ the same │ lowest u16 │ highest u16
//! answer     1 │ version u16          taken: what follows is of that version
//!            2 │ length u16 │ words   refused, and why
//! ```
//!
//! All little-endian. Each release speaks its own version and the one before, so that a cluster can be upgraded node by node: over
//! each link goes the highest version that both sides speak. To version 1 there is no answer, but the byte 1 under TLS; whoever speaks
//! nothing else ends the connection when it is greeted with another, and is greeted with that the next time.

use crate::machine::{CoreId, NodeId, PeerId};

/// Bytes of a greeting of version 1, and of what all later ones begin with.
pub(super) const HELLO_BYTES: usize = 32;
/// What follows in those.
pub(super) const VERSIONS_BYTES: usize = 4;
/// Of an answer's words.
const WORDS_BYTES_MAX: usize = 1024;
/// The first byte of an answer.
pub(super) const TAKEN: u8 = 1;
pub(super) const REFUSED: u8 = 2;

const MAGIC_1: [u8; 4] = *b"FLP1";
const MAGIC_2: [u8; 4] = *b"FLP2";

/// Versions of the nodes' protocol that a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// From this one.
    pub lowest: u16,
    /// To this one.
    pub highest: u16,
}

impl Versions {
    /// Those of this release: its own, and the one before.
    pub const SPOKEN: Self = Self { lowest: 1, highest: 2 };

    /// The highest that both sides speak.
    pub(super) fn common(self, other: Self) -> Option<u16> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest.max(other.lowest)).then_some(highest)
    }

    /// Whether greetings say which versions there are.
    pub(super) fn says_so(self) -> bool {
        self.highest >= 2
    }

    fn in_words(self) -> String {
        match self.lowest == self.highest {
            true => format!("version {}", self.lowest),
            false => format!("versions {} to {}", self.lowest, self.highest),
        }
    }
}

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) cluster: u64,
    pub(super) incarnation: u64,
    pub(super) from: PeerId,
    pub(super) to: PeerId,
}

impl Hello {
    /// As version 1 has it, or, with the versions that there are, as all later ones do.
    pub(super) fn encode(&self, versions: Option<Versions>) -> Vec<u8> {
        let mut bytes = vec![0; HELLO_BYTES];
        bytes[0..4].copy_from_slice(if versions.is_some() { &MAGIC_2 } else { &MAGIC_1 });
        bytes[4..12].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.incarnation.to_le_bytes());
        for (at, peer) in [(20, self.from), (26, self.to)] {
            bytes[at..at + 4].copy_from_slice(&peer.node.0.to_le_bytes());
            bytes[at + 4..at + 6].copy_from_slice(&peer.core.0.to_le_bytes());
        }
        if let Some(Versions { lowest, highest }) = versions {
            bytes.extend_from_slice(&lowest.to_le_bytes());
            bytes.extend_from_slice(&highest.to_le_bytes());
        }
        bytes
    }

    /// A greeting, and whether the versions that the other side speaks follow. `None` for what is no greeting.
    pub(super) fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<(Self, bool)> {
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of 32"));
        let peer = |at: usize| PeerId {
            node: NodeId(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of 32"))),
            core: CoreId(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]])),
        };
        let hello = Self { cluster: long(4), incarnation: long(12), from: peer(20), to: peer(26) };
        let is_known = bytes[0..4] == MAGIC_1 || bytes[0..4] == MAGIC_2;
        is_known.then_some((hello, bytes[0..4] == MAGIC_2))
    }
}

/// The versions behind a greeting.
pub(super) fn versions(bytes: [u8; VERSIONS_BYTES]) -> Versions {
    let [a, b, c, d] = bytes;
    Versions { lowest: u16::from_le_bytes([a, b]), highest: u16::from_le_bytes([c, d]) }
}

/// The version that a link from a node is to have, or one line that says why there is none.
pub(super) fn agree(from: NodeId, theirs: Versions, ours: Versions) -> Result<u16, String> {
    ours.common(theirs).ok_or_else(|| {
        format!(
            "node {} speaks {} of the nodes' protocol and this one {}: a cluster is upgraded by one release at a time, node by node",
            from.0,
            theirs.in_words(),
            ours.in_words()
        )
    })
}

/// The answer to a greeting with versions.
pub(super) fn answer(outcome: Result<u16, &str>) -> Vec<u8> {
    match outcome {
        Ok(version) => [&[TAKEN][..], &version.to_le_bytes()].concat(),
        Err(words) => {
            let mut end = words.len().min(WORDS_BYTES_MAX);
            while !words.is_char_boundary(end) {
                end -= 1;
            }
            let length = u16::try_from(end).expect("at most a thousand");
            [&[REFUSED][..], &length.to_le_bytes(), &words.as_bytes()[..end]].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn spoken(lowest: u16, highest: u16) -> Versions {
        Versions { lowest, highest }
    }

    #[test]
    fn a_greeting_survives_its_bytes() {
        let peer = |node, core| PeerId { node: NodeId(node), core: CoreId(core) };
        let hello = Hello { cluster: 7, incarnation: 9, from: peer(1, 2), to: peer(3, 4) };
        let old: [u8; HELLO_BYTES] = hello.encode(None).try_into().unwrap();
        assert_eq!(Hello::decode(&old), Some((hello, false)));
        assert!(old.starts_with(b"FLP1"), "as every node before version 2 expects it");
        let new = hello.encode(Some(spoken(3, 4)));
        assert_eq!(Hello::decode(new[..HELLO_BYTES].try_into().unwrap()), Some((hello, true)));
        assert_eq!(versions(new[HELLO_BYTES..].try_into().unwrap()), spoken(3, 4));
        assert_eq!(Hello::decode(&[b'x'; HELLO_BYTES]), None);
    }

    #[test]
    fn two_nodes_speak_the_highest_version_that_both_know() {
        for (one, other, common) in [
            (spoken(1, 2), spoken(1, 2), Some(2)),
            (spoken(1, 2), spoken(2, 3), Some(2)),
            (spoken(1, 1), spoken(1, 2), Some(1)),
            (spoken(1, 2), spoken(3, 4), None),
            (spoken(1, 9), spoken(4, 5), Some(5)),
            (spoken(1, 2), spoken(5, 3), None),
        ] {
            assert_eq!((one.common(other), other.common(one)), (common, common), "{one:?} {other:?}");
        }
        let why = agree(NodeId(3), spoken(4, 4), spoken(1, 2)).unwrap_err();
        assert!(
            why.starts_with("node 3 speaks version 4 of the nodes' protocol and this one versions 1 to 2: ")
        );
        assert_eq!(Versions::SPOKEN.highest - Versions::SPOKEN.lowest, 1, "its own, and the one before");
    }

    #[test]
    fn an_answer_is_a_version_or_words() {
        assert_eq!(answer(Ok(513)), [TAKEN, 1, 2]);
        assert_eq!(answer(Err("no")), [REFUSED, 2, 0, b'n', b'o']);
        assert_eq!(answer(Err(&"ü".repeat(2000))).len(), 3 + WORDS_BYTES_MAX);
    }
}
