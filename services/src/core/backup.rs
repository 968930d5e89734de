//! `FLOTILLA.BACKUP`: a shard as it is at one moment, read piece by piece while it is being written to.
//!
//! ```text
//!           OPEN, a linearizable read        READ, the last piece
//!   (none) ──────────────────────▶ Reading ──────────────────────▶ (none)
//!                                     │ CLOSE; not read on for a while; the shard is deleted here, or a snapshot of the leader
//!                                     │ takes its place; its snapshot can't wait for it any longer
//!                                     ▼
//!                                  (none): READINGLOST, to be begun again
//! ```
//!
//! A shard's frozen state ([`crate::kv::Keyspace::freeze`]) has one reader at a time, this or the snapshot of its group. A shard whose
//! turn in the snapshot comes while somebody reads it makes the snapshot wait; one that the snapshot reads isn't opened.
//! So that neither a slow reader nor one that was forgotten lets the log grow without bounds, a reading ends when nobody has read on
//! for a while, and when a snapshot has waited until the log is several times as long as it should be, or has no room left.
//!
//! A reading goes on when its group is led elsewhere, and when the shard stops being served: what it reads was the state at
//! a moment at which this replica was the leader and served it.

use super::Core;
use super::connections::Does;
use super::group::Call;
use super::held::Held;
use super::remote::Message;
use super::topology::{Way, id_of};
use crate::command::Spec;
use crate::config::Config;
use crate::resp::ReplyWriter;
use crate::slot::{Slot, first_slot};
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{ConnId, Effects, Nanos, Now};
use std::collections::BTreeMap;

/// Shards of a core that are read at a time.
const READINGS_MAX: usize = 8;
/// Nobody has read on for so long: nobody will.
const IDLE_MAX: Nanos = 15 * SECOND;
/// A reading gives way to a snapshot when the log is so many times as long as it is when one is taken.
const LOGS_MAX: u64 = 4;

const USAGE: &str = "ERR usage: FLOTILLA.BACKUP CLUSTER | LOOK shard | OPEN shard | READ reading piece | CLOSE reading; shards \
                     and pieces count from 0";

/// What `FLOTILLA.BACKUP` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Cluster,
    /// How large a shard is.
    Look(u16),
    Open(u16),
    Read {
        reading: u64,
        piece: u64,
    },
    Close {
        reading: u64,
    },
}

impl Request {
    fn parse(config: &Config, args: &[&[u8]]) -> Option<Self> {
        let number = |arg: &[u8]| std::str::from_utf8(arg).ok()?.parse::<u64>().ok();
        let shard = |arg: &[u8]| u16::try_from(number(arg)?).ok().filter(|shard| *shard < config.shards);
        let (what, rest) = args.get(1..)?.split_first()?;
        Some(match (&what.to_ascii_uppercase()[..], rest) {
            (b"CLUSTER", []) => Self::Cluster,
            (b"LOOK", [it]) => Self::Look(shard(it)?),
            (b"OPEN", [it]) => Self::Open(shard(it)?),
            (b"READ", [reading, piece]) => Self::Read { reading: number(reading)?, piece: number(piece)? },
            (b"CLOSE", [reading]) => Self::Close { reading: number(reading)? },
            _ => return None,
        })
    }
}

/// A shard that is being read. Its frozen state is this reading's as long as it is in the list.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Of its group.
    place: usize,
    shard: u16,
    /// The next one.
    piece: u64,
    last_used: Nanos,
}

/// The readings of a core.
#[derive(Debug, Default)]
pub(super) struct Backups {
    readings: BTreeMap<u64, Reading>,
}

impl Backups {
    fn of_shard(&self, place: usize, shard: u16) -> Option<u64> {
        let is_it = |reading: &Reading| (reading.place, reading.shard) == (place, shard);
        self.readings.iter().find(|(_, reading)| is_it(reading)).map(|(number, _)| *number)
    }

    /// When the one that was used longest ago ends by itself.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.readings.values().map(|reading| reading.last_used + IDLE_MAX).min()
    }
}

impl Core {
    pub(super) fn backup_command(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let (cluster, shards) = (self.config.cluster.clone(), self.config.shards);
        let shard = match Request::parse(&self.config, args) {
            Some(Request::Look(shard) | Request::Open(shard)) => shard,
            Some(Request::Cluster) => {
                return self.connections.reply(conn, |reply| {
                    reply.array(2);
                    reply.bulk(cluster.as_bytes());
                    reply.integer(shards.into());
                });
            }
            Some(Request::Read { reading, piece }) => {
                let read = self.read_on(now, reading, piece, out);
                return self.connections.reply(conn, |reply| match read {
                    Ok((bytes, is_last)) => {
                        reply.array(2);
                        reply.integer(is_last.into());
                        reply.bulk(&bytes);
                    }
                    Err(error) => reply.error(&error),
                });
            }
            Some(Request::Close { reading }) => {
                self.end_reading(now, reading, out);
                return self.connections.reply(conn, |reply| reply.simple("OK"));
            }
            None => return self.connections.reply(conn, |reply| reply.error(USAGE)),
        };
        let slot = Slot(first_slot(shard, shards));
        let number = self.routes.of(shard);
        let place = self.multi.place_of(id_of(number)).filter(|_| self.way_to(number) == Some(Way::Here));
        let Some(place) = place else {
            let error = self.moved(Some(slot));
            return self.connections.reply(conn, |reply| reply.error(&error));
        };
        let in_order = self.connections.map.get(&conn).is_some_and(|connection| connection.writes());
        let sequence = self.connections.promise(conn, Does::Read);
        let origin = super::remote::Origin::Local { conn, sequence };
        self.execute_at(now, place, &Call { origin, spec, slot: Some(slot), args, in_order }, out);
    }

    /// `LOOK` and `OPEN`, once it is known that this is the newest state. The shard is served here.
    pub(super) fn serve_backup(
        &mut self,
        now: Now,
        place: usize,
        command: &Held,
        out: &mut Effects<Message>,
    ) {
        let answer = match Request::parse(&self.config, &command.args()) {
            Some(Request::Look(shard)) => {
                let keys = self.groups[place].shards.get(shard).map(|it| (it.keys.len(), it.keys.bytes()));
                let (keys, bytes) = keys.unwrap_or_default();
                Ok(vec![keys, bytes, self.groups[place].number.into()])
            }
            Some(Request::Open(shard)) => self.open_reading(now, place, shard),
            _ => Err(USAGE.to_owned()),
        };
        self.answer(command.origin, out, |_, reply| match answer {
            Ok(numbers) => {
                reply.array(numbers.len());
                numbers.iter().for_each(|number| reply.unsigned(*number));
            }
            Err(error) => reply.error(&error),
        });
    }

    /// The number of a new reading, the group, the index and the term of the entry behind which the state is, the group's clock,
    /// keys and bytes.
    fn open_reading(&mut self, now: Now, place: usize, number: u16) -> Result<Vec<u64>, String> {
        if self.backups.readings.len() >= READINGS_MAX {
            return Err(format!("BUSY {READINGS_MAX} shards of this core are being read, try again later"));
        }
        if self.backups.of_shard(place, number).is_some() {
            return Err(format!("BUSY shard {number} is being read by somebody else, try again later"));
        }
        let raft = self.multi.raft(place);
        let group = &mut self.groups[place];
        let index = group.applied;
        let term = raft.log().term(index).unwrap_or_else(|| raft.term());
        let mut reading = group.random() >> 1;
        while self.backups.readings.contains_key(&reading) {
            reading = group.random() >> 1;
        }
        let (of, clock_ms) = (group.number, group.clock_ms);
        let shard = group.shards.get_mut(number).ok_or("TRYAGAIN the shard has just gone")?;
        if shard.keys.is_frozen() {
            return Err(format!("BUSY shard {number} is being read by a snapshot, try again later"));
        }
        shard.keys.freeze();
        let (keys, bytes) = (shard.keys.len(), shard.keys.bytes());
        let opened = Reading { place, shard: number, piece: 0, last_used: now.monotonic };
        self.backups.readings.insert(reading, opened);
        Ok(vec![reading, of.into(), index, term, clock_ms, keys, bytes])
    }

    /// The next piece, and whether it is the last.
    fn read_on(
        &mut self,
        now: Now,
        number: u64,
        piece: u64,
        out: &mut Effects<Message>,
    ) -> Result<(Vec<u8>, bool), String> {
        let lost = || format!("READINGLOST there is no reading {number}, or no more: open the shard again");
        let bytes_max = self.config.log.snapshot_piece_bytes;
        let reading = self.backups.readings.get_mut(&number).ok_or_else(lost)?;
        if piece != reading.piece {
            return Err(format!("ERR the next piece of reading {number} is {}, not {piece}", reading.piece));
        }
        let Reading { place, shard, .. } = *reading;
        let found = self.groups[place].shards.get_mut(shard).expect("a reading ends with its shard");
        assert!(found.keys.is_frozen(), "nobody else reads or thaws it");
        let mut bytes = Vec::new();
        let is_last = found.keys.read_frozen(bytes_max, &mut bytes);
        (reading.piece, reading.last_used) = (piece + 1, now.monotonic);
        if is_last {
            self.end_reading(now, number, out);
        }
        Ok((bytes, is_last))
    }

    /// Nobody reads on: a snapshot that waited does.
    fn end_reading(&mut self, now: Now, number: u64, out: &mut Effects<Message>) {
        let Some(reading) = self.forget_reading(number) else { return };
        self.settle_snapshots(now, reading.place, out);
    }

    fn forget_reading(&mut self, number: u64) -> Option<Reading> {
        let reading = self.backups.readings.remove(&number)?;
        if let Some(shard) = self.groups[reading.place].shards.get_mut(reading.shard) {
            shard.keys.thaw();
        }
        Some(reading)
    }

    /// The group's shards are about to be others, or one of them is gone.
    pub(super) fn forget_readings_of(&mut self, place: usize, shard: Option<u16>) {
        let is_concerned = |it: &Reading| it.place == place && shard.is_none_or(|shard| it.shard == shard);
        let ended: Vec<u64> = self
            .backups
            .readings
            .iter()
            .filter(|(_, it)| is_concerned(it))
            .map(|(number, _)| *number)
            .collect();
        for number in ended {
            self.forget_reading(number);
        }
    }

    /// A snapshot comes to a shard. Whether it must wait for somebody who reads that.
    pub(super) fn waits_for_reading(&mut self, place: usize, shard: u16) -> bool {
        let Some(number) = self.backups.of_shard(place, shard) else { return false };
        if planted(Bug::ReadingNotAwaited) {
            return false;
        }
        let state: u64 = self.groups[place].shards.iter().map(|shard| shard.keys.bytes()).sum();
        let usual = (self.config.log.snapshot_after_bytes as u64).max(state / 4);
        let log_bytes = self.multi.raft(place).log().bytes() as u64;
        if log_bytes <= LOGS_MAX * usual && self.multi.wal().no_room_for(0).is_none() {
            return true;
        }
        tracing::warn!(shard, log_bytes, "a reading of a shard was ended: a snapshot can't wait any longer");
        self.forget_reading(number);
        false
    }

    /// Time has passed: readings that nobody goes on with end.
    pub(super) fn tick_backups(&mut self, now: Now, out: &mut Effects<Message>) {
        while self.backups.deadline().is_some_and(|at| at <= now.monotonic) {
            let is_over = |it: &Reading| it.last_used + IDLE_MAX <= now.monotonic;
            let over = self.backups.readings.iter().find(|(_, it)| is_over(it)).map(|(number, _)| *number);
            let Some(number) = over else { return };
            self.end_reading(now, number, out);
        }
    }

    /// Shards that are being read.
    pub fn readings(&self) -> usize {
        self.backups.readings.len()
    }

    /// Another core, or another node, hands the command on: it can't be done for anybody but a client that is connected here.
    pub(super) fn refuse_backup(&mut self, origin: super::remote::Origin, out: &mut Effects<Message>) {
        let error = "TRYAGAIN the shard is led elsewhere by now";
        self.answer(origin, out, |_, reply: &mut ReplyWriter<'_>| reply.error(error));
    }
}
