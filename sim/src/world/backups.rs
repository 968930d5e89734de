//! Somebody who backs up: shards are opened and read piece by piece, now and then forgotten halfway, while everything else goes
//! wrong. What was read whole counts as if all of its keys had been read at once when the shard was opened.

use super::{Happening, MS, SECOND, World};
use crate::rng::Rng;
use flotilla_runtime::machine::Taken;
use flotilla_runtime::{ConnId, Event};
use flotilla_services::backup::{Entries, EntriesError, Found};
use flotilla_services::client::{Reply, parse_reply};
use std::collections::BTreeMap;

/// Shards of the world's cluster.
const SHARDS: u16 = 16;
/// Connections from here on are this reader's, each opening its own.
const CONNS: u64 = 1 << 62;
/// An answer that isn't there by then won't come.
const PATIENCE: u64 = 2 * SECOND;

/// What a shard held: keys, their values and versions.
pub(crate) type ShardData = BTreeMap<String, (Vec<u8>, u64)>;

/// A shard that is being read.
struct Reading {
    at: usize,
    life: u64,
    shard: u16,
    /// When it was asked for, and when that was answered.
    opened: (u64, Option<u64>),
    number: i64,
    piece: u64,
    entries: Entries,
    data: ShardData,
    /// Since when an answer is due.
    waits: Option<u64>,
    input: Vec<u8>,
}

/// The reader, and what came of it.
pub(super) struct Backups {
    rng: Rng,
    conn: u64,
    reading: Option<Reading>,
    /// Shards read whole.
    pub(super) whole: u64,
    /// Those that had to be begun again.
    pub(super) lost: u64,
    broken: Option<String>,
}

impl Backups {
    pub(super) fn new(seed: u64) -> Self {
        let rng = Rng::new(seed ^ 0x6261_636b_7570);
        Self { rng, conn: CONNS, reading: None, whole: 0, lost: 0, broken: None }
    }

    pub(super) fn is_mine(&self, conn: u64) -> bool {
        // The operator who hands leaderships over has the last one.
        (CONNS..u64::MAX).contains(&conn)
    }
}

impl World {
    /// The next step of the reader.
    ///
    /// # Errors
    /// What it was told and must not have been.
    pub(super) fn back_up(&mut self) -> Result<(), String> {
        if self.healed {
            return Ok(());
        }
        let delay = self.backups.rng.around(self.swarm.backups).max(1);
        self.at(self.now + delay, Happening::BackUp);
        let Some(reading) = &self.backups.reading else {
            self.open_shard();
            return self.backups.broken.take().map_or(Ok(()), Err);
        };
        let is_late = reading.waits.is_some_and(|since| self.now > since + PATIENCE);
        if is_late || !self.alive(reading.at, reading.life) {
            self.backups.reading = None;
        } else if reading.waits.is_none() {
            if self.backups.rng.between(0, 49) == 0 {
                // Its node is left to find that out.
                self.backups.reading = None;
            } else {
                let (at, number, piece) = (reading.at, reading.number, reading.piece);
                self.say(at, &format!("READ {number} {piece}"));
            }
        }
        self.backups.broken.take().map_or(Ok(()), Err)
    }

    fn open_shard(&mut self) {
        let most = self.cores.len() as u64 - 1;
        let at = usize::try_from(self.backups.rng.between(0, most)).expect("few cores");
        let shards = self.clients.shards(SHARDS);
        let place = self.backups.rng.between(0, shards.len() as u64 - 1);
        let shard = shards[usize::try_from(place).expect("few keys")];
        if self.cores[at].core.is_none() {
            return;
        }
        self.backups.conn += 1;
        self.backups.reading = Some(Reading {
            at,
            life: self.cores[at].life,
            shard,
            opened: (self.now, None),
            number: 0,
            piece: 0,
            entries: Entries::new(shard, SHARDS),
            data: ShardData::new(),
            waits: None,
            input: Vec::new(),
        });
        let conn = ConnId(self.backups.conn);
        self.step(at, Event::Opened { conn, is_local: true });
        self.say(at, &format!("OPEN {shard}"));
    }

    fn say(&mut self, at: usize, words: &str) {
        if let Some(reading) = &mut self.backups.reading {
            reading.waits = Some(self.now);
        }
        let command = format!("FLOTILLA.BACKUP {words}\r\n");
        let (conn, mut taken) = (ConnId(self.backups.conn), Taken::default());
        self.step(at, Event::Client { conn, bytes: command.as_bytes(), taken: &mut taken });
        self.flush_soon(at);
    }

    /// A node answers, or closes the connection.
    pub(super) fn backup_answered(&mut self, conn: u64, bytes: Option<&[u8]>) {
        if conn != self.backups.conn {
            return;
        }
        let Some(mut reading) = self.backups.reading.take() else { return };
        let Some(bytes) = bytes else { return };
        reading.input.extend_from_slice(bytes);
        match parse_reply(&reading.input) {
            Ok(None) => self.backups.reading = Some(reading),
            Ok(Some((reply, _))) => {
                reading.input.clear();
                reading.waits = None;
                if let Err(what) = self.take_answer(reading, reply) {
                    self.backups.broken = Some(what);
                }
            }
            Err(what) => self.backups.broken = Some(format!("reply: {what}")),
        }
    }

    fn take_answer(&mut self, mut reading: Reading, reply: Reply) -> Result<(), String> {
        let parts = match reply {
            Reply::Array(parts) => parts,
            Reply::Error(error) => {
                let words = ["MOVED ", "CLUSTERDOWN ", "TRYAGAIN ", "BUSY ", "READINGLOST ", "MISCONF "];
                if !words.iter().any(|word| error.starts_with(word)) {
                    return Err(format!("reply: an error that nothing explains: {error}"));
                }
                self.backups.lost += u64::from(reading.opened.1.is_some());
                return Ok(());
            }
            other => return Err(format!("reply: a reading was answered with {other}")),
        };
        match &parts[..] {
            [Reply::Integer(is_last), Reply::Bulk(bytes)] if reading.opened.1.is_some() => {
                let data = &mut reading.data;
                let read = reading.entries.read(bytes, |found| {
                    if let Found::Whole(head, value) = found {
                        let name = String::from_utf8_lossy(head.key).into_owned();
                        data.insert(name, (value.to_vec(), head.version));
                    }
                    Ok::<(), EntriesError>(())
                });
                read.map_err(|error| format!("backup: {error}"))?;
                reading.piece += 1;
                if *is_last == 0 {
                    self.backups.reading = Some(reading);
                    return Ok(());
                }
                self.backups.whole += 1;
                let Reading { shard, opened, data, entries, .. } = reading;
                entries.finish().map_err(|error| format!("backup: {error}"))?;
                self.trace.line(self.now, || format!("shard {shard} was read: {} keys", data.len()));
                self.clients.backed_up(&data, (shard, SHARDS), opened)
            }
            [Reply::Integer(number), ..] if reading.opened.1.is_none() => {
                (reading.number, reading.opened.1) = (*number, Some(self.now));
                self.backups.reading = Some(reading);
                Ok(())
            }
            _ => Err(format!("reply: a reading was answered with {}", Reply::Array(parts))),
        }
    }
}

/// Mean time between steps of a reader who is there.
pub(crate) const STEP: u64 = 8 * MS;
