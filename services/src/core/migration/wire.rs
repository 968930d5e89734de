//! What the leaders of two groups say to each other about a shard, byte by byte; the same over the mesh and between nodes.
//!
//! ```text
//! 0 kind u8 │ 1 flags u8 (1 last, 2 again, 4 busy) │ 2 shard u16 │ 4 from u32 │ 8 to u32 │ 12 piece u32 │ 16 configuration u64
//! 24 clock u64 │ 32 copy u64 │ 40 bytes of the piece u32 │ the piece
//! ```

const HEADER_BYTES: usize = 44;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// May I send you the shard with this configuration?
    Ask,
    /// It is frozen, and waits for nothing but you.
    Offer,
    /// I am there. Of this copy I have the pieces before this one for good: send me those behind, and those on their way once
    /// more if I say "again".
    Pull,
    /// Here it is.
    Piece,
    /// I have all of it, for good.
    Have,
    /// To a node that has no part in the group: I lead it, in the term that stands in the configuration's place. The piece says
    /// what it serves: of each shard its number as u16 and its configuration as u64; of the controller, the newest configuration.
    Announce,
    /// With this configuration you won't get it from me.
    Never,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Ask, Self::Offer, Self::Pull, Self::Piece, Self::Have, Self::Announce, Self::Never];
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub(super) kind: Kind,
    pub(super) shard: u16,
    /// The group that speaks, and the group that is spoken to.
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) config: u64,
    pub(super) clock_ms: u64,
    pub(super) is_last: bool,
    pub(super) again: bool,
    pub(super) is_busy: bool,
    pub(super) copy: u64,
    pub(super) piece: u32,
    pub(super) bytes: &'a [u8],
}

impl<'a> Word<'a> {
    /// One that says no more than that.
    pub(super) fn new(kind: Kind, shard: u16, config: u64, (from, to): (u32, u32)) -> Self {
        Self {
            kind,
            shard,
            from,
            to,
            config,
            clock_ms: 0,
            is_last: false,
            again: false,
            is_busy: false,
            copy: 0,
            piece: 0,
            bytes: &[],
        }
    }

    /// Bytes of it.
    pub(super) fn len(&self) -> usize {
        HEADER_BYTES + self.bytes.len()
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let place = Kind::ALL.iter().position(|kind| *kind == self.kind).expect("all are listed");
        let kind = u8::try_from(place).expect("they are few") + 1;
        let flags = u8::from(self.is_last) | u8::from(self.again) << 1 | u8::from(self.is_busy) << 2;
        let length = u32::try_from(self.bytes.len()).expect("pieces are far below 4 GiB");
        out.extend_from_slice(&[kind, flags]);
        out.extend_from_slice(&self.shard.to_le_bytes());
        for number in [self.from, self.to, self.piece] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.config.to_le_bytes());
        out.extend_from_slice(&self.clock_ms.to_le_bytes());
        out.extend_from_slice(&self.copy.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(self.bytes);
    }

    /// The message at the front, and what is behind it; `None` if there is no whole one.
    pub(super) fn decode(frame: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = frame.split_at_checked(HEADER_BYTES)?;
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let word =
            |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes of the header"));
        let long =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes of the header"));
        let kind = *Kind::ALL.get(usize::from(header[0]).checked_sub(1)?)?;
        let (bytes, rest) = rest.split_at_checked(word(40) as usize)?;
        let this = Self {
            kind,
            shard: half(2),
            from: word(4),
            to: word(8),
            piece: word(12),
            config: long(16),
            clock_ms: long(24),
            is_last: header[1] & 1 != 0,
            again: header[1] & 2 != 0,
            is_busy: header[1] & 4 != 0,
            copy: long(32),
            bytes,
        };
        Some((this, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_wire_one_after_the_other() {
        let mut frame = Vec::new();
        let short = Word::new(Kind::Ask, 7, 9, (1, 2));
        let long = Word {
            again: true,
            is_busy: true,
            bytes: b"piece",
            is_last: true,
            piece: 3,
            clock_ms: 4,
            copy: 5,
            ..short
        };
        short.encode(&mut frame);
        assert_eq!(frame.len(), short.len());
        long.encode(&mut frame);
        assert_eq!(frame.len(), short.len() + long.len());
        let (first, rest) = Word::decode(&frame).unwrap();
        let (second, rest) = Word::decode(rest).unwrap();
        assert_eq!((first, second, rest), (short, long, &[][..]));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while let Some((_, behind)) = Word::decode(rest) {
                rest = behind;
            }
        }
    }
}
