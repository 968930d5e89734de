//! Frozen bytes: a small log and a snapshot, beside the page that explains them. Today's code writes exactly these and reads
//! them. A change here is a change of the format, and needs a new version or a new schema (`docs/format.md`).

use flotilla_runtime::{BlockPool, DiskReply, Effect, Effects, FileId, FileKind, NodeId};
use flotilla_services::backup::{
    Entries, EntriesError, Found, Moment, ShardFileReader, ShardFileWriter, Totals,
};
use flotilla_services::command::lookup;
use flotilla_services::entry::{self, SCHEMA_COMMAND_V1, SCHEMA_EMPTY};
use flotilla_services::kv::{Keyspace, ShardReader};
use flotilla_services::resp::{Protocol, ReplyWriter};
use flotilla_storage::repair::{Images, recover};
use flotilla_storage::snapshot::{PartHeader, PartKind, encode, parse};
use flotilla_storage::{
    Damage, HardState, Identity, Log, LogConfig, Lsn, RecordHeader, RecordKind, Recovery,
};
use std::path::{Path, PathBuf};

const IDENTITY: Identity = Identity { cluster: 0x90_1de7, node: 1, core: 0 };
const SET: [&[u8]; 3] = [b"SET", b"key", b"value"];
const UNIX_MS: u64 = 1_700_000_000_000;

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// A log that is written frame by frame.
struct Writer {
    log: Log,
    out: Effects<()>,
    image: Vec<u8>,
    end: usize,
}

impl Writer {
    fn new() -> Self {
        let tail = Recovery::new(IDENTITY).finish().unwrap().tail;
        let config =
            LogConfig { segment_bytes: 64 << 10, frame_bytes_max: 8 << 10, ..LogConfig::new(IDENTITY) };
        let log = Log::open(config, BlockPool::new(), tail);
        let mut this = Self { log, out: Effects::default(), image: vec![0; 64 << 10], end: 0 };
        this.flush();
        this
    }

    fn flush(&mut self) {
        loop {
            self.log.flush(0, &mut self.out);
            let effects: Vec<Effect<()>> = self.out.drain().collect();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                let (Effect::Write { op, .. } | Effect::Sync { op, .. } | Effect::CreateFile { op, .. }) =
                    effect
                else {
                    panic!("{effect:?}")
                };
                if let Effect::Write { file, offset, block, .. } = effect {
                    assert_eq!(file, FileId::segment(1));
                    let at = usize::try_from(offset).unwrap();
                    self.image[at..at + block.len()].copy_from_slice(&block);
                    self.end = self.end.max(at + block.len());
                }
                self.log.disk(op, &Ok(DiskReply::Done), &mut self.out);
            }
        }
    }

    fn entry(&mut self, index: u64, schema: u16) {
        let header = RecordHeader { group: 1, kind: RecordKind::Entry, schema, index, term: 1, length: 0 };
        let code = lookup(b"set").unwrap().code;
        self.log.append_with(header, entry::archive_bytes_max(&SET), |writer| {
            if schema == SCHEMA_COMMAND_V1 {
                entry::write(writer, UNIX_MS, code, &SET);
            }
        });
    }
}

/// Four frames: a term and the entry that begins it; a command; a mark and a repair; a watermark.
fn golden_log() -> Vec<u8> {
    let mut writer = Writer::new();
    let (header, payload) = HardState { term: 1, vote: Some(NodeId(1)), commit: 0 }.record(1);
    writer.log.append(&header, &payload);
    writer.entry(1, SCHEMA_EMPTY);
    writer.flush();
    writer.entry(2, SCHEMA_COMMAND_V1);
    writer.flush();
    let kind = RecordKind::SnapshotMark;
    let mark = RecordHeader { group: 1, kind, schema: 0, index: 1, term: 1, length: 8 };
    writer.log.append(&mark, &1_u64.to_le_bytes());
    let damage = Damage { from: 5, seen: None, vote_lost: true, given_up: false };
    let (header, payload) = Damage::record(Some(&damage), 2, &[(Lsn(7), Lsn(8))]);
    writer.log.append(&header, &payload);
    writer.flush();
    writer.log.tick(u64::MAX / 2, &mut writer.out);
    writer.flush();
    writer.image.truncate(writer.end);
    writer.image
}

/// The state behind that command.
fn golden_snapshot() -> Vec<u8> {
    let mut keys = Keyspace::default();
    keys.write(UNIX_MS, lookup(b"set").unwrap().code, &SET, &mut ReplyWriter::discard());
    keys.freeze();
    let mut bytes = Vec::new();
    assert!(keys.read_frozen(4000, &mut bytes));
    let part = |kind, shard, payload: &[u8]| {
        let header =
            PartHeader { kind, group: 1, shard, shards: 1, piece: 0, index: 2, term: 1, clock: UNIX_MS };
        encode(&BlockPool::new(), &header, payload).to_vec()
    };
    [part(PartKind::LastPiece, 0, &bytes), part(PartKind::End, 1, &[])].concat()
}

/// The payload of an entry that is a transaction: if `key` still has version 7, `SET key value` and a reply that was known.
fn golden_transaction() -> Vec<u8> {
    let args: [&[u8]; 9] = [
        b"EXEC",
        &1_u32.to_le_bytes(),
        b"key",
        &7_u64.to_le_bytes(),
        &[21, 0, 3, 0, 0, 0],
        b"SET",
        b"key",
        b"value",
        &[0, 0, 1, 0, 0, 0],
    ];
    let args = [&args[..], &[b"+PONG\r\n"]].concat();
    let mut writer = Writer::new();
    let kind = RecordKind::Entry;
    let header = RecordHeader { group: 1, kind, schema: SCHEMA_COMMAND_V1, index: 1, term: 1, length: 0 };
    let code = lookup(b"exec").unwrap().code;
    let slice = writer.log.append_with(header, entry::archive_bytes_max(&args), |writer| {
        entry::write(writer, UNIX_MS, code, &args);
    });
    RecordHeader::decode(&slice).unwrap().1.to_vec()
}

const ONCE: [&[u8]; 7] = [b"FLOTILLA.ONCE", SESSION, b"2", b"0", b"SET", b"key", b"value"];
/// The first session, opened with a key of slot 12539.
const SESSION: &[u8] = b"28923";

/// A shard with a session that keeps two replies, and a key.
fn golden_sessions() -> Vec<u8> {
    let mut keys = Keyspace::default();
    let mut say = |args: &[&[u8]]| {
        let mut out = Vec::new();
        let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
        keys.write(UNIX_MS, lookup(args[0]).unwrap().code, args, &mut reply);
        out
    };
    assert_eq!(say(&[b"FLOTILLA.SESSION", b"key"]), [b":", SESSION, b"\r\n"].concat());
    assert_eq!(say(&[b"FLOTILLA.ONCE", SESSION, b"1", b"0", b"DEL", b"key"]), b":0\r\n");
    assert_eq!(say(&ONCE), b"+OK\r\n");
    keys.freeze();
    let mut bytes = Vec::new();
    assert!(keys.read_frozen(4000, &mut bytes));
    bytes
}

const MOMENT: Moment = Moment { shard: 48, shards: 64, group: 1, index: 2, term: 1, clock_ms: UNIX_MS };

/// A shard's file in a backup: the state behind that command, in two pieces.
fn golden_backup() -> Vec<u8> {
    let mut keys = Keyspace::default();
    keys.write(UNIX_MS, lookup(b"set").unwrap().code, &SET, &mut ReplyWriter::discard());
    let mut file = ShardFileWriter::begin(Vec::new(), &MOMENT).unwrap();
    keys.freeze();
    for length in [25, 100] {
        let mut bytes = Vec::new();
        keys.read_frozen(length, &mut bytes);
        file.piece(&bytes).unwrap();
    }
    file.finish().unwrap()
}

#[test]
fn the_golden_backup_is_read() {
    let bytes = std::fs::read(docs("format/golden.backup")).unwrap();
    let mut file = ShardFileReader::begin(&bytes[..]).unwrap();
    assert_eq!(file.moment(), MOMENT);
    let (mut entries, mut found) = (Entries::new(48, 64), Vec::new());
    while let Some(piece) = file.next_piece().unwrap() {
        let read = entries.read(piece, |it| {
            let Found::Whole(head, value) = it else { panic!("{it:?}") };
            found.push((head.key.to_vec(), value.to_vec(), head.version, head.deadline_ms));
            Ok::<(), EntriesError>(())
        });
        read.unwrap();
    }
    assert_eq!(found, [(b"key".to_vec(), b"value".to_vec(), 1, 0)]);
    assert_eq!(entries.finish().unwrap(), Totals { keys: 1, bytes: 8, version_max: 1 });
}

#[test]
fn today_s_code_writes_the_golden_bytes() {
    for (name, written) in [
        ("format/golden.log", golden_log()),
        ("format/golden.snap", golden_snapshot()),
        ("format/golden.exec", golden_transaction()),
        ("format/golden.sessions", golden_sessions()),
        ("format/golden.backup", golden_backup()),
    ] {
        if std::env::var_os("FLOTILLA_WRITE_GOLDEN").is_some() {
            std::fs::write(docs(name), &written).unwrap();
        }
        let golden = std::fs::read(docs(name)).unwrap();
        let differs = written.iter().zip(&golden).position(|(one, other)| one != other);
        assert!(written == golden, "docs/{name} differs at byte {differs:?} of {}", golden.len());
    }
}

#[test]
fn the_golden_bytes_are_read() {
    let mut image = std::fs::read(docs("format/golden.log")).unwrap();
    image.resize(64 << 10, 0);
    let files: Images = [(FileId::segment(1), BlockPool::new().copy_of(&image))].into();
    let found = recover(IDENTITY, &files).unwrap();
    assert!(found.tail.last == Lsn(4) && found.cut.is_none() && found.holes.is_empty());
    let group = &found.groups[&1];
    assert_eq!(group.hard_state, Some(HardState { term: 1, vote: Some(NodeId(1)), commit: 0 }));
    assert_eq!(group.snapshot.as_ref().map(|(mark, _)| mark.index), Some(1));
    assert_eq!(group.entries.len(), 1);
    let (header, payload) = RecordHeader::decode(&group.entries[0]).unwrap();
    assert_eq!((header.index, header.term, header.schema), (2, 1, SCHEMA_COMMAND_V1));
    let command = entry::read(payload).unwrap();
    assert_eq!(command.unix_ms.to_native(), UNIX_MS);
    assert_eq!(command.args.iter().map(|arg| &arg.0[..]).collect::<Vec<_>>(), SET);
    let damage = Damage { from: 5, seen: None, vote_lost: true, given_up: false };
    assert_eq!(found.groups[&2].damage, Some(damage));

    read_snapshot("format/golden.snap");
    // Without versions.
    read_snapshot("format/golden-1.snap");

    let payload = std::fs::read(docs("format/golden.exec")).unwrap();
    let mut aligned = rkyv::util::AlignedVec::<16>::new();
    aligned.extend_from_slice(&payload);
    let command = entry::read(&aligned).unwrap();
    let args: Vec<&[u8]> = command.args.iter().map(|arg| &arg.0[..]).collect();
    let mut keys = Keyspace::default();
    let apply = |keys: &mut Keyspace| {
        let mut out = Vec::new();
        let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
        keys.write(UNIX_MS, command.code.to_native(), &args, &mut reply);
        out
    };
    assert_eq!(apply(&mut keys), b"*-1\r\n", "the key isn't there");
    for _ in 0..7 {
        keys.write(UNIX_MS, lookup(b"set").unwrap().code, &SET, &mut ReplyWriter::discard());
    }
    assert_eq!(apply(&mut keys), b"*2\r\n+OK\r\n+PONG\r\n");
}

#[test]
fn the_golden_sessions_are_read() {
    let mut reader = ShardReader::default();
    reader.read(&std::fs::read(docs("format/golden.sessions")).unwrap()).unwrap();
    let mut keys = reader.finish().unwrap();
    assert_eq!(keys.sessions(), 1);
    let first: [&[u8]; 6] = [b"FLOTILLA.ONCE", SESSION, b"1", b"0", b"DEL", b"key"];
    for (args, expected) in [(&first[..], &b":0\r\n"[..]), (&ONCE[..], b"+OK\r\n")] {
        let mut out = Vec::new();
        let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
        keys.write(UNIX_MS, lookup(args[0]).unwrap().code, args, &mut reply);
        assert_eq!(out, expected);
    }
    assert!(keys.get(UNIX_MS, b"key").is_some(), "neither was executed again");
}

fn read_snapshot(name: &str) {
    let image = std::fs::read(docs(name)).unwrap();
    let file = FileId { kind: FileKind::Snapshot, number: 1 };
    let mut shard = ShardReader::default();
    parse(file, &image, |header, payload| {
        assert_eq!((header.index, header.term, header.clock), (2, 1, UNIX_MS));
        shard.read(payload).map_err(|error| error.to_string())
    })
    .unwrap();
    let keys = shard.finish().unwrap();
    let found = keys.get(UNIX_MS, b"key").unwrap();
    assert_eq!((&found.value.as_string().unwrap()[..], found.version), (&b"value"[..], 1));
}

/// The lines `<file> <offset>: <hexadecimal bytes>  <what>` of the page show what is in the files.
#[test]
fn the_page_shows_the_golden_bytes() {
    let page = std::fs::read_to_string(docs("format.md")).unwrap();
    let mut lines = 0;
    for line in page.lines().filter(|line| {
        ["log ", "snap ", "exec ", "sessions ", "backup "].iter().any(|name| line.starts_with(name))
    }) {
        let (place, rest) = line.split_once(": ").unwrap();
        let (name, offset) = place.split_once(' ').unwrap();
        let hex = rest.split("  ").next().unwrap();
        let bytes: Vec<u8> = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let golden = std::fs::read(docs(&format!("format/golden.{name}"))).unwrap();
        let at: usize = offset.trim().parse().unwrap();
        assert_eq!(golden[at..at + bytes.len()], bytes, "{line}");
        lines += 1;
    }
    assert!(lines >= 40, "{lines} lines");
}
