//! What is fuzzed: every parser of bytes from outside, and recovery as a whole. None may panic, read on for ever, or give
//! back what contradicts itself. The fuzz targets and `services/tests/fuzz_replay.rs` share this file.

use flotilla_consensus::message;
use flotilla_runtime::{BlockPool, FileId, FileKind};
use flotilla_services::backup::{Entries, EntriesError, Manifest, Moment, ShardFileReader, ShardFileWriter};
use flotilla_services::entry::{self, Args};
use flotilla_services::kv::ShardReader;
use flotilla_services::resp as request;
use flotilla_storage::frame::{FRAME_MAGIC, FrameHeader};
use flotilla_storage::inspect::inspect;
use flotilla_storage::repair::{Images, recover, truncate};
use flotilla_storage::segment::{SEGMENT_MAGIC, SegmentHeader};
use flotilla_storage::snapshot::{PartKind, SnapshotReader, parse};
use flotilla_storage::{Damage, HardState, Identity, Lsn, RecordHeader, Recovered};

const BLOCK_BYTES: usize = 4096;
/// Bytes of input beyond this add nothing but time.
const IMAGE_BYTES_MAX: usize = 64 * 1024;

/// One frame, and a segment that begins like that.
pub(crate) fn frame(data: &[u8]) {
    let mut sealed = data.to_vec();
    seal(&mut sealed, false);
    for bytes in [data, &sealed] {
        let _ = inspect(bytes);
        let _ = SegmentHeader::parse(bytes);
        let Ok(header) = FrameHeader::parse(bytes) else { continue };
        assert!(header.frame_bytes() <= bytes.len() && header.frame_bytes().is_multiple_of(BLOCK_BYTES));
        if let Ok(payload) = header.payload(bytes) {
            assert_eq!(payload.len(), header.payload_len as usize);
            record(payload);
        }
    }
}

/// Records one after the other, and what their payloads say.
pub(crate) fn record(data: &[u8]) {
    let mut rest = data;
    while let Ok((header, payload)) = RecordHeader::decode(rest) {
        assert_eq!(payload.len(), header.length as usize);
        let again = [&header.encode()[..], payload].concat();
        assert_eq!(RecordHeader::decode(&again), Ok((header, payload)), "what was read is written the same");
        let state = HardState::from_record(&header, payload);
        let (state_header, state_payload) = state.record(header.group);
        assert_eq!(HardState::from_record(&state_header, &state_payload), state);
        let (damage, holes) = Damage::from_record(&header, payload);
        if let Some(damage) = damage {
            let (header, payload) = Damage::record(Some(&damage), header.group, &holes);
            assert_eq!(Damage::from_record(&header, &payload), (Some(damage), holes));
        }
        // An archive is read where it lies: aligned to 16, as in a frame.
        let aligned = BlockPool::new().copy_of(payload);
        if let Ok(command) = entry::read(&aligned[..payload.len()]) {
            let bytes: usize = command.args.iter().map(|arg| arg.0.len()).sum();
            assert!(bytes <= payload.len() * command.args.len().max(1));
        }
        rest = rest.get(header.padded_len()..).unwrap_or_default();
    }
}

/// A shard's file in a backup, a manifest, and a shard's keys as whoever restores them reads them.
pub(crate) fn backup(data: &[u8]) {
    let _ = Manifest::decode(data, data);
    if let Ok(mut file) = ShardFileReader::begin(data) {
        let moment = file.moment();
        while let Ok(Some(piece)) = file.next_piece() {
            assert!(piece.len() <= data.len() && moment == file.moment());
        }
    }
    // As a file's content, in pieces that end anywhere: what is shown is at most what came.
    let length = 1 + data.first().map_or(0, |byte| usize::from(*byte));
    let mut writer = ShardFileWriter::begin(Vec::new(), &Moment::default()).expect("memory takes everything");
    data.chunks(length).for_each(|piece| writer.piece(piece).expect("memory takes everything"));
    let written = writer.finish().expect("memory takes everything");
    let mut file = ShardFileReader::begin(&written[..]).expect("just written");
    let (mut entries, mut whole, mut bad) = (Entries::new(0, 1), Vec::new(), None);
    while let Some(piece) = file.next_piece().expect("just written") {
        whole.extend_from_slice(piece);
        if bad.is_none() {
            bad = entries.read(piece, |_| Ok::<(), EntriesError>(())).err();
        }
    }
    assert_eq!(whole, data, "what was written is read");
    if let (None, Ok(totals)) = (bad, entries.finish()) {
        assert!(totals.bytes + 17 * totals.keys <= data.len() as u64);
        // A node's own reader, which holds everything, finds the same keys.
        let mut shard = ShardReader::default();
        if shard.read(data).is_ok() {
            let keys = shard.finish().expect("it ended there for the other, too");
            assert_eq!((keys.len(), keys.bytes()), (totals.keys, totals.bytes));
        }
    }
}

/// A snapshot file, whole and in pieces. The first byte says how long they are.
pub(crate) fn snapshot(data: &[u8]) {
    let Some((first, image)) = data.split_first() else { return };
    let mut image = image[..image.len().min(IMAGE_BYTES_MAX)].to_vec();
    if first & 1 == 1 {
        seal_parts(&mut image);
    }
    let file = FileId { kind: FileKind::Snapshot, number: 1 };
    let mut whole = Vec::new();
    let mut shard = ShardReader::default();
    let read = parse(file, &image, |header, payload| {
        whole.push((*header, payload.to_vec()));
        shard.read(payload).map_err(|error| error.to_string())?;
        if header.kind == PartKind::LastPiece {
            std::mem::take(&mut shard).finish().map_err(|error| error.to_string())?;
        }
        Ok(())
    });
    let mut reader = SnapshotReader::new(file);
    let mut in_pieces = Vec::new();
    let mut shards = ShardReader::default();
    for piece in image.chunks(1 + usize::from(*first) * 37) {
        let taken = reader.read(piece, |header, payload| {
            if header.kind != PartKind::End {
                in_pieces.push((*header, payload.to_vec()));
                shards.read(payload).map_err(|error| error.to_string())?;
                if header.kind == PartKind::LastPiece {
                    std::mem::take(&mut shards).finish().map_err(|error| error.to_string())?;
                }
            }
            Ok(())
        });
        if taken.is_err() {
            assert!(read.is_err(), "what is bad in pieces is bad as a whole");
            return;
        }
    }
    assert_eq!(in_pieces, whole, "the pieces don't matter");
    assert_eq!(reader.is_whole(), read.is_ok());
}

/// A log of one or two segments: recovery, and what repair makes of it. The first byte: 1 its checksums are made right, 2 and
/// the chain of its frames too, 4 it is cut into two files; the second: where repair cuts.
pub(crate) fn log(data: &[u8]) {
    let [flags, at, image @ ..] = data else { return };
    let mut image = image[..image.len().min(IMAGE_BYTES_MAX)].to_vec();
    if flags & 1 == 1 {
        seal(&mut image, flags & 2 == 2);
    }
    let middle = if flags & 4 == 4 { (image.len() / 2).next_multiple_of(BLOCK_BYTES) } else { image.len() };
    let (one, other) = image.split_at(middle.min(image.len()));
    let mut files = Images::new();
    for (number, part) in [(1, one), (2, other)] {
        if !part.is_empty() {
            files.insert(FileId::segment(number), BlockPool::new().copy_of(part));
        }
    }
    let identity = Identity { cluster: u64::from_le_bytes(*b"flotilla"), node: 2, core: 0 };
    // Whoever wrote it: the headers say.
    let mut headers = files.values().filter_map(|image| match SegmentHeader::parse(image) {
        flotilla_storage::segment::FirstBlock::Header(header) => Some(header.identity),
        _ => None,
    });
    let identity = headers.next_back().unwrap_or(identity);
    if let Ok(recovered) = recover(identity, &files) {
        check(&recovered);
    }
    if let Ok(cut) = truncate(identity, &files, Lsn(1 + u64::from(*at)), &[1, 2, 3]) {
        check(&cut.recovered);
        let again = recover(identity, &cut.files).expect("what was repaired is opened");
        assert_eq!(again.tail.last, cut.recovered.tail.last);
    }
}

fn check(found: &Recovered) {
    for (number, group) in &found.groups {
        let mut last = None;
        for record in &group.entries {
            let (header, _) = RecordHeader::decode(record).expect("recovery gives records");
            assert_eq!(header.group, *number);
            assert!(last.is_none_or(|last| header.index == last + 1), "entries are contiguous");
            last = Some(header.index);
        }
    }
    let _ = (found.damage(), found.summary());
}

/// A frame from a peer: Raft's messages, and the records in them.
pub(crate) fn peer(data: &[u8]) {
    let mut at = 0;
    while let Ok((message, next)) = message::decode(data, at) {
        assert!(next >= at + message::HEADER_BYTES && next <= data.len());
        record(message.body);
        at = next;
    }
}

/// A client's bytes.
pub(crate) fn request(data: &[u8]) {
    let limits =
        request::Limits { args_max: 64, bulk_bytes_max: 4096, inline_bytes_max: 1024, ..Default::default() };
    let mut rest = data;
    let mut args = Args::new();
    while let Ok(request::Parsed::Command { consumed }) = request::parse(rest, &limits, &mut args) {
        assert!(consumed > 0 && consumed <= rest.len());
        let bytes: usize = args.iter().map(|arg| arg.len()).sum();
        assert!(bytes <= consumed && args.len() <= consumed);
        let mut again = Args::new();
        let alone = request::parse(&rest[..consumed], &limits, &mut again);
        assert_eq!(alone, Ok(request::Parsed::Command { consumed }), "what follows doesn't matter");
        assert_eq!(again, args);
        rest = &rest[consumed..];
    }
}

/// Makes the checksums right of everything that looks like a segment's or a frame's header, so that what is behind them is
/// reached. `chain`: each frame names the one before.
fn seal(image: &mut [u8], chain: bool) {
    let mut before: Option<[u8; 4]> = None;
    for at in (0..image.len()).step_by(BLOCK_BYTES) {
        let bytes = &mut image[at..];
        if bytes.len() >= 72 && bytes[..4] == SEGMENT_MAGIC {
            if let Some(crc) = before.filter(|_| chain) {
                bytes[20..24].copy_from_slice(&crc);
            }
            let crc = crc32fast::hash(&bytes[..68]);
            bytes[68..72].copy_from_slice(&crc.to_le_bytes());
        }
        if bytes.len() < 88 || bytes[..4] != FRAME_MAGIC {
            continue;
        }
        let header = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
        let payload = u32::from_le_bytes([bytes[32], bytes[33], bytes[34], bytes[35]]) as usize;
        let sums = payload.div_ceil(BLOCK_BYTES);
        if header < 88 + 4 * sums || bytes.len() < header.saturating_add(payload) {
            continue;
        }
        for place in 0..sums {
            let start = header + place * BLOCK_BYTES;
            let crc = crc32fast::hash(&bytes[start..(start + BLOCK_BYTES).min(header + payload)]);
            bytes[88 + 4 * place..92 + 4 * place].copy_from_slice(&crc.to_le_bytes());
        }
        if let Some(crc) = before.filter(|_| chain) {
            bytes[40..44].copy_from_slice(&crc);
        }
        bytes[44..48].fill(0);
        let crc = crc32fast::hash(&bytes[..header]).to_le_bytes();
        bytes[44..48].copy_from_slice(&crc);
        before = Some(crc);
    }
}

/// The same for the parts of a snapshot.
fn seal_parts(image: &mut [u8]) {
    for at in (0..image.len()).step_by(BLOCK_BYTES) {
        let bytes = &mut image[at..];
        if bytes.len() < 64 || bytes[..4] != *b"SNP2" {
            continue;
        }
        let payload = u32::from_le_bytes([bytes[48], bytes[49], bytes[50], bytes[51]]) as usize;
        if let Some(payload) = bytes.get(64..64_usize.saturating_add(payload)) {
            let crc = crc32fast::hash(payload).to_le_bytes();
            bytes[56..60].copy_from_slice(&crc);
        }
        let crc = crc32fast::hash(&bytes[..60]).to_le_bytes();
        bytes[60..64].copy_from_slice(&crc);
    }
}
