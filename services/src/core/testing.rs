//! Cores without a world, for tests.

use super::peer_frames::ITEM_HEADER_BYTES;
use super::{Core, Message, channel};
use crate::config::Config;
use crate::resp::encode;
use flotilla_runtime::machine::{MILLISECOND, SECOND};
use flotilla_runtime::{
    BlockPool, ConnId, CoreBoot, CoreId, DiskReply, Effect, Effects, Event, Machine, Nanos, Now, PeerId,
    Taken, Vitals,
};

/// The first core of node 1; `more` ends its file, which has a small log already.
pub(super) fn core_with(more: &str) -> (Core, Now) {
    let config = format!(
        "cluster = \"one\"\nnode = 1\ndata = \"/nowhere\"\ncontroller = false\n{more}\n\
         [log]\nsegment_bytes = 1048576\n"
    );
    let config: Config = toml::from_str(&config).unwrap();
    let now = Now { monotonic: SECOND, unix_ms: 1_700_000_000_000 };
    let boot = CoreBoot {
        core: CoreId(0),
        files: Vec::new(),
        pool: BlockPool::new(),
        seed: 1,
        now,
        vitals: Vitals::new(),
    };
    (Core::build(&config, boot).unwrap(), now)
}

/// A command as a client sends it.
pub(super) fn request(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(args, &mut bytes);
    bytes
}

/// What clients are told.
pub(super) fn said(effects: &[Effect<Message>]) -> String {
    let mut bytes = Vec::new();
    for effect in effects {
        if let Effect::Reply { bytes: more, .. } = effect {
            bytes.extend_from_slice(more);
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// The frames of commands and answers for other nodes, in their order.
pub(super) fn sent(effects: &[Effect<Message>]) -> Vec<(PeerId, Vec<u8>)> {
    let frames = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, frame } if frame.first() == Some(&channel::COMMAND) => Some((*to, frame.clone())),
        _ => None,
    });
    frames.collect()
}

/// Kind, token and bytes of each command or answer in a frame.
pub(super) fn items(frame: &[u8]) -> Vec<(u8, u64, Vec<u8>)> {
    assert_eq!(frame[0], channel::COMMAND);
    let (mut rest, mut items) = (&frame[1..], Vec::new());
    while !rest.is_empty() {
        let (header, behind) = rest.split_at(ITEM_HEADER_BYTES);
        let length = u32::from_le_bytes(header[4..8].try_into().unwrap());
        let token = u64::from_le_bytes(header[8..16].try_into().unwrap());
        let (bytes, behind) = behind.split_at(length as usize);
        items.push((header[0], token, bytes.to_vec()));
        rest = behind;
    }
    items
}

/// The only node of its cluster, with a disk that does what it is asked.
pub(super) struct Lone {
    pub(super) core: Core,
    pub(super) now: Now,
    pub(super) halted: Option<String>,
    /// What its client was told.
    said: Vec<u8>,
}

const CLIENT: ConnId = ConnId(1);

impl Lone {
    pub(super) fn leading() -> Self {
        let (core, now) = core_with("nodes = [{ id = 1, host = \"here\", port = 7001, peer_port = 17001 }]");
        let mut lone = Self { core, now, halted: None, said: Vec::new() };
        for _ in 0..1000 {
            lone.turn();
            // The empty entry that begins its term is applied, too.
            if lone.core.groups[0].is_leading() && lone.core.groups[0].applied > 0 {
                return lone;
            }
        }
        panic!("nobody leads");
    }

    /// Lets ten milliseconds pass.
    pub(super) fn turn(&mut self) {
        self.turn_of(10 * MILLISECOND);
    }

    /// Lets so much time pass.
    pub(super) fn turn_of(&mut self, span: Nanos) {
        self.now.monotonic += span;
        let mut out = Effects::default();
        self.core.step(self.now, Event::Tick, &mut out);
        self.core.apply(self.now, &mut out);
        self.core.flush(self.now, &mut out);
        for effect in out.drain().collect::<Vec<_>>() {
            match effect {
                Effect::Halt { reason } => {
                    self.halted = Some(reason);
                    return;
                }
                Effect::Write { op, .. } | Effect::Sync { op, .. } | Effect::CreateFile { op, .. } => {
                    let (result, mut none) = (Ok(DiskReply::Done), Effects::default());
                    self.core.step(self.now, Event::Disk { op, result }, &mut none);
                }
                Effect::Reply { bytes, .. } => self.said.extend_from_slice(&bytes),
                _ => {}
            }
        }
    }

    /// What a new client is told that says these lines; `""` is an empty word. Line ends become spaces.
    pub(super) fn say(&mut self, lines: &[&str]) -> String {
        let mut bytes = Vec::new();
        for line in lines {
            let words = line.split(' ').map(|word| if word == "\"\"" { "" } else { word });
            bytes.extend_from_slice(&request(&words.map(str::as_bytes).collect::<Vec<_>>()));
        }
        let (mut taken, mut none) = (Taken::default(), Effects::default());
        self.core.step(self.now, Event::Opened { conn: CLIENT, is_local: true }, &mut none);
        self.core.step(self.now, Event::Client { conn: CLIENT, bytes: &bytes, taken: &mut taken }, &mut none);
        assert_eq!(taken.bytes, bytes.len());
        for _ in 0..20 {
            self.turn();
        }
        self.core.step(self.now, Event::Closed { conn: CLIENT }, &mut none);
        String::from_utf8(std::mem::take(&mut self.said)).unwrap().replace("\r\n", " ").trim_end().to_owned()
    }

    /// Puts an entry into the log, and waits for what comes of it.
    pub(super) fn log(&mut self, schema: u16, write: impl FnOnce(&mut flotilla_storage::PayloadWriter<'_>)) {
        self.core.multi.propose(self.now.monotonic, 0, schema, 100, write).unwrap();
        for _ in 0..20 {
            self.turn();
        }
    }
}
