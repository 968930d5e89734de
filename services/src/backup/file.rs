//! A shard's file in a backup.
//!
//! ```text
//! header   0 "FBK1" │ 4 version u16 │ 6 shard u16 │ 8 shards u16 │ 10 zeros │ 16 group u64 │ 24 index u64 │ 32 term u64
//!          40 clock u64 │ 48 zeros │ 60 crc32 of these 60 bytes
//! piece    0 bytes u32 │ 4 number u32, from 0 │ 8 crc32 of the bytes │ 12 crc32 of these 12 bytes │ 16 the bytes
//! end      a piece of no bytes
//! ```

use std::io::{self, Read, Write};

const MAGIC: [u8; 4] = *b"FBK1";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 64;
const PIECE_HEADER_BYTES: usize = 16;
/// A piece as a node sends it is at most 16 MiB, and what comes before the first key may be added to it.
const PIECE_BYTES_MAX: usize = 64 << 20;

/// Which shard it is, and as of when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The shard.
    pub shard: u16,
    /// Shards of its cluster.
    pub shards: u16,
    /// The group that served it.
    pub group: u64,
    /// The shard as it was after this entry of the group's log.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The group's clock, milliseconds since 1970.
    pub clock_ms: u64,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It can't be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It begins as none of ours.
    #[error("byte 0: this isn't the beginning of a shard's backup, or it is damaged")]
    Header,
    /// It is newer.
    #[error("it is of version {0}, and this program reads version {VERSION}: restore it with a newer one")]
    Version(u16),
    /// A piece isn't as it was written.
    #[error("byte {offset}: piece {number} {what}")]
    Piece {
        /// Where it begins.
        offset: u64,
        /// Which, from 0.
        number: u32,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Writes a shard's file.
#[derive(Debug)]
pub struct ShardFileWriter<W> {
    to: W,
    pieces: u32,
}

impl<W: Write> ShardFileWriter<W> {
    /// Writes its header.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(mut to: W, moment: &Moment) -> io::Result<Self> {
        let mut header = [0; HEADER_BYTES];
        header[0..4].copy_from_slice(&MAGIC);
        for (at, short) in [(4, VERSION), (6, moment.shard), (8, moment.shards)] {
            header[at..at + 2].copy_from_slice(&short.to_le_bytes());
        }
        for (at, long) in [(16, moment.group), (24, moment.index), (32, moment.term), (40, moment.clock_ms)] {
            header[at..at + 8].copy_from_slice(&long.to_le_bytes());
        }
        let crc = crc32fast::hash(&header[..60]);
        header[60..64].copy_from_slice(&crc.to_le_bytes());
        to.write_all(&header)?;
        Ok(Self { to, pieces: 0 })
    }

    /// Writes the next piece; one without bytes is left out.
    ///
    /// # Errors
    /// What the system says.
    pub fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() { Ok(()) } else { self.put(bytes) }
    }

    /// Writes the end; what it was written to.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(&[])?;
        Ok(self.to)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= PIECE_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("a piece of a shard is too long"))?;
        let mut header = [0; PIECE_HEADER_BYTES];
        for (at, word) in [(0, length), (4, self.pieces), (8, crc32fast::hash(bytes))] {
            header[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let crc = crc32fast::hash(&header[..12]);
        header[12..16].copy_from_slice(&crc.to_le_bytes());
        self.pieces += 1;
        self.to.write_all(&header)?;
        self.to.write_all(bytes)
    }
}

/// Reads a shard's file.
#[derive(Debug)]
pub struct ShardFileReader<R> {
    from: R,
    moment: Moment,
    offset: u64,
    pieces: u32,
    piece: Vec<u8>,
}

impl<R: Read> ShardFileReader<R> {
    /// Reads its header.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn begin(mut from: R) -> Result<Self, FileError> {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FileError::Header,
            _ => error.into(),
        })?;
        let short = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let long = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes of 64"));
        if header[..4] != MAGIC || crc32fast::hash(&header[..60]).to_le_bytes() != header[60..64] {
            return Err(FileError::Header);
        }
        if short(4) != VERSION {
            return Err(FileError::Version(short(4)));
        }
        let moment = Moment {
            shard: short(6),
            shards: short(8),
            group: long(16),
            index: long(24),
            term: long(32),
            clock_ms: long(40),
        };
        Ok(Self { from, moment, offset: HEADER_BYTES as u64, pieces: 0, piece: Vec::new() })
    }

    /// Which shard it is, and as of when.
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// What it was read from.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// The next piece, or `None` at the end, behind which nothing may be.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn next_piece(&mut self) -> Result<Option<&[u8]>, FileError> {
        let (offset, number) = (self.offset, self.pieces);
        let bad = |what| FileError::Piece { offset, number, what };
        let mut header = [0; PIECE_HEADER_BYTES];
        self.fill(&mut header, bad("is cut off"))?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes of 16"));
        if crc32fast::hash(&header[..12]) != word(12) {
            return Err(bad("begins with what isn't its header"));
        }
        if word(4) != number {
            return Err(bad("isn't there"));
        }
        let length = word(0) as usize;
        if length > PIECE_BYTES_MAX {
            return Err(bad("is too long"));
        }
        let mut piece = std::mem::take(&mut self.piece);
        piece.resize(length, 0);
        self.fill(&mut piece, bad("is cut off"))?;
        if crc32fast::hash(&piece) != word(8) {
            return Err(bad("isn't what its checksum says"));
        }
        self.offset += (PIECE_HEADER_BYTES + length) as u64;
        self.pieces += 1;
        self.piece = piece;
        if length > 0 {
            return Ok(Some(&self.piece));
        }
        match self.from.read(&mut [0])? {
            0 => Ok(None),
            _ => Err(bad("was the last, and something is behind it")),
        }
    }

    fn fill(&mut self, into: &mut [u8], cut_off: FileError) -> Result<(), FileError> {
        self.from.read_exact(into).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => cut_off,
            _ => error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Moment = Moment { shard: 3, shards: 64, group: 1, index: 7, term: 2, clock_ms: 9 };

    fn written(pieces: &[&[u8]]) -> Vec<u8> {
        let mut writer = ShardFileWriter::begin(Vec::new(), &MOMENT).unwrap();
        pieces.iter().for_each(|piece| writer.piece(piece).unwrap());
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(Moment, Vec<u8>), FileError> {
        let mut reader = ShardFileReader::begin(bytes)?;
        let mut all = Vec::new();
        while let Some(piece) = reader.next_piece()? {
            all.extend_from_slice(piece);
        }
        Ok((reader.moment(), all))
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&written(&[b"abc", b"", b"de"])).unwrap(), (MOMENT, b"abcde".to_vec()));
        assert_eq!(read(&written(&[])).unwrap(), (MOMENT, Vec::new()));
    }

    #[test]
    fn every_flipped_bit_every_end_and_every_addition_is_noticed() {
        let good = written(&[b"abc", b"de"]);
        for place in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[place] ^= 1 << bit;
                assert!(read(&bad).is_err(), "byte {place}, bit {bit}");
            }
            assert!(read(&good[..place]).is_err(), "{place} bytes of it");
        }
        assert!(read(&[&good[..], b"x"].concat()).is_err());
        let newer = {
            let mut newer = good;
            newer[4] = 2;
            let crc = crc32fast::hash(&newer[..60]).to_le_bytes();
            newer[60..64].copy_from_slice(&crc);
            newer
        };
        assert!(read(&newer).unwrap_err().to_string().contains("of version 2"));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let _ = read(&[&written(&[])[..HEADER_BYTES], &bytes].concat());
        }
    }
}
