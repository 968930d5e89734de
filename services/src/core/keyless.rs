//! Data commands without a key: they concern every group that this core leads; where commands are forwarded, every group
//! there is.
//!
//! Each group is asked by itself, and [`super::gather`] puts the answers together: linearizable group by group, not a picture
//! of one moment. A command that is sent on has the group's number as a further argument.

use super::connections::Does;
use super::gather::Gathering;
use super::group::{Call, Group};
use super::remote::{Message, Origin, Outgoing};
use super::scan::{self, Cursor};
use super::topology::Way;
use super::{Core, topology};
use crate::command::{Spec, code, glob};
use crate::config::Redirect;
use crate::entry::Args;
use crate::kv::{Keyspace, RangeOptions, read_range};
use crate::resp::ReplyWriter;
use flotilla_runtime::{ConnId, Effects, Now};

/// How far from a random place `RANDOMKEY` goes on, at most.
const RANDOM_STEPS_MAX: u64 = 64;

impl Core {
    pub(super) fn keyless_command(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        if spec.code == code::SCAN {
            return self.scan_command(now, conn, spec, args, out);
        }
        let asked: Vec<u32> = (0..self.config.groups_total()).filter(|number| self.serves(*number)).collect();
        let count = u32::try_from(asked.len()).expect("groups are few");
        if count == 0 {
            return self.connections.reply(conn, |reply| match spec.code {
                code::DBSIZE => reply.integer(0),
                code::RANDOMKEY => reply.null(),
                _ if spec.is_write() => reply.simple("OK"),
                _ => reply.array(0),
            });
        }
        let sequence =
            self.connections.promise_parts(conn, Gathering::new(spec, args, count), Does::of(spec));
        for number in asked {
            self.ask_group(now, number, Origin::Local { conn, sequence }, spec, args, out);
        }
    }

    /// Goes on in the first shard from the cursor's on that is served.
    fn scan_command(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let mut cursor = Cursor::parse(args[1]).unwrap_or_else(|| Cursor::at(0));
        let number = loop {
            let shard = u16::try_from(cursor.shard).ok().filter(|shard| *shard < self.config.shards);
            let Some(shard) = shard else { return self.connections.reply(conn, scan::nothing) };
            let number = self.routes.of(shard);
            if self.serves(number) {
                break number;
            }
            cursor = Cursor::at(u64::from(shard) + 1);
        };
        let cursor = cursor.number().to_string();
        let mut args: Args<'_> = args.into();
        args[1] = cursor.as_bytes();
        let sequence = self.connections.promise(conn, Does::of(spec));
        self.ask_group(now, number, Origin::Local { conn, sequence }, spec, &args, out);
    }

    /// Whether a keyless command concerns this group.
    fn serves(&self, number: u32) -> bool {
        self.config.redirect == Redirect::Forward || self.way_to(number) == Some(Way::Here)
    }

    fn ask_group(
        &mut self,
        now: Now,
        number: u32,
        origin: Origin,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let Origin::Local { conn, sequence } = origin else { unreachable!("a client of this core asks") };
        let suffix = number.to_le_bytes();
        let mut sent: Args<'_> = args.into();
        sent.push(&suffix);
        let protocol = self.connections.protocol(conn);
        let outgoing = Outgoing { conn, sequence, protocol, spec, args: &sent };
        match self.way_to(number) {
            Some(Way::Here) => self.execute_keyless(now, number, origin, spec, args, out),
            Some(Way::Core(core)) => self.send_to_core(now, core, &outgoing, out),
            Some(Way::Peer(peer)) => self.send_to_peer(now, peer, &outgoing, out),
            None => {
                let error = format!("CLUSTERDOWN no leader of group {number} is known");
                self.answer(origin, out, |_, reply| reply.error(&error));
            }
        }
    }

    fn execute_keyless(
        &mut self,
        now: Now,
        number: u32,
        origin: Origin,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        match self.multi.place_of(topology::id_of(number)) {
            Some(place) => {
                self.execute_at(now, place, &Call { origin, spec, slot: None, args, in_order: true }, out);
            }
            None => self.redirect(origin, None, out),
        }
    }

    /// Another core asks for one group's part.
    pub(super) fn execute_keyless_for(
        &mut self,
        now: Now,
        origin: Origin,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let number = args.split_last().and_then(|(last, args)| Some(((**last).try_into().ok()?, args)));
        match number {
            Some((number, args)) if !args.is_empty() => {
                self.execute_keyless(now, u32::from_le_bytes(number), origin, spec, args, out);
            }
            _ => self.abandon(origin, out),
        }
    }
}

/// Whether a command concerns groups as a whole.
pub(super) fn is_keyless(spec: &Spec) -> bool {
    matches!(
        spec.code,
        code::DBSIZE
            | code::KEYS
            | code::RANDOMKEY
            | code::SCAN
            | code::FLOTILLA_RANGE
            | code::FLUSHALL
            | code::FLUSHDB
    )
}

/// Answers for one group.
pub(super) fn read(group: &mut Group, spec: &Spec, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    let clock_ms = group.clock_ms;
    match spec.code {
        code::DBSIZE => reply.unsigned(group.keys()),
        code::KEYS => {
            let keys = group.shards.serving().flat_map(|shard| shard.keys.keys_after(clock_ms, None));
            let found: Vec<&[u8]> = keys.filter(|key| glob(args[1], key)).collect();
            reply.array(found.len());
            found.into_iter().for_each(|key| reply.bulk(key));
        }
        code::FLOTILLA_RANGE => match RangeOptions::parse(args) {
            Ok(options) => {
                read_range(clock_ms, group.shards.serving().map(|shard| &shard.keys), &options, reply)
            }
            Err(rejected) => reply.error(&rejected.to_string()),
        },
        code::RANDOMKEY => match random_key(group) {
            Some(key) => reply.bulk(&key),
            None => reply.null(),
        },
        _ => scan::scan(group, group.shards_total(), args, reply),
    }
}

/// A key near a random place of a shard, which is chosen by its size. Not every key is equally likely.
fn random_key(group: &mut Group) -> Option<Vec<u8>> {
    let all = group.keys();
    let (mut number, pivot, steps) = (group.random() % all.max(1), group.random(), group.random());
    let clock_ms = group.clock_ms;
    let shards: Vec<&Keyspace> = group.shards.serving().map(|shard| &shard.keys).collect();
    let chosen = shards.iter().position(|shard| {
        let is_in = number < shard.len();
        number = number.saturating_sub(shard.len());
        is_in
    })?;
    // If all of its keys are over, another shard's will do.
    let mut candidates = std::iter::once(shards[chosen]).chain(shards.iter().copied());
    candidates.find_map(|shard| near(shard, clock_ms, pivot, steps)).map(<[u8]>::to_vec)
}

fn near(shard: &Keyspace, clock_ms: u64, pivot: u64, steps: u64) -> Option<&[u8]> {
    let (first, last) = shard.ends()?;
    let shared = first.iter().zip(last).take_while(|(one, other)| one == other).count();
    let mut from = first[..shared].to_vec();
    let (low, high) = (first.get(shared).copied().unwrap_or(0), last.get(shared).copied().unwrap_or(0));
    let span = u64::from(high.saturating_sub(low)) + 1;
    from.push(low.saturating_add(u8::try_from(pivot % span).unwrap_or(0)));
    let behind: Vec<&[u8]> = shard
        .keys_after(clock_ms, Some(&from))
        .chain(shard.keys_after(clock_ms, None))
        .take(usize::try_from(RANDOM_STEPS_MAX.min(shard.len())).unwrap_or(1))
        .collect();
    let place = usize::try_from(steps % (behind.len() as u64).max(1)).unwrap_or(0);
    behind.get(place).copied()
}
