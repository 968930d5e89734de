//! The controller's group among the others: founding it, changing it, asking it, and telling the cores what is newest.
//!
//! Its state is [`Controller`]; its log, snapshots and elections are those of any group. `FLOTILLA.CLUSTER` is taken by any core
//! of any node, and handed on to the one that leads it. What every replica applies, its core tells the others of its node.

use super::client::PackedArgs;
use super::connections::Does;
use super::group::Call;
use super::remote::{Message, Origin, Outgoing};
use super::topology::{CONTROLLER, Way};
use super::{Core, shards::Status, topology};
use crate::command::Spec;
use crate::config::Config;
use crate::controller::archive::SCHEMA_CHANGE_V1;
use crate::controller::{Change, Configuration, Controller, GroupEntry};
use crate::resp::ReplyWriter;
use flotilla_consensus::{Refused, Role};
use flotilla_runtime::{ConnId, CoreId, Effect, Effects, Now};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const USAGE: &str = "ERR usage: FLOTILLA.CLUSTER JOIN group[:weight] ... | LEAVE group ... | MOVE shard group | \
                     QUERY [number] | STATUS; groups and shards count from 0";

/// What `FLOTILLA.CLUSTER` says.
enum Request {
    Change(Change),
    Query,
    Status,
}

fn parse(config: &Config, args: &[&[u8]]) -> Option<Request> {
    let text = |arg: &[u8]| std::str::from_utf8(arg).ok().map(str::to_owned);
    let group = |text: &str| text.parse().ok().filter(|group: &u32| *group < config.groups_total());
    let (what, rest) = args.get(1..)?.split_first()?;
    Some(match (&what.to_ascii_uppercase()[..], rest) {
        (b"JOIN", [_, ..]) => {
            let joining = rest.iter().map(|arg| {
                let text = text(arg)?;
                let (number, weight) = text.split_once(':').unwrap_or((&text, "1"));
                let number = group(number)?;
                Some((number, GroupEntry { nodes: founders(config, number), weight: weight.parse().ok()? }))
            });
            Request::Change(Change::Join(joining.collect::<Option<BTreeMap<_, _>>>()?))
        }
        (b"LEAVE", [_, ..]) => {
            let leaving = rest.iter().map(|arg| group(&text(arg)?));
            Request::Change(Change::Leave(leaving.collect::<Option<BTreeSet<_>>>()?))
        }
        (b"MOVE", [shard, to]) => {
            let shard = text(shard)?.parse().ok().filter(|shard| *shard < config.shards)?;
            Request::Change(Change::Move { shard, to: group(&text(to)?)? })
        }
        (b"QUERY", []) => Request::Query,
        (b"QUERY", [number]) => text(number)?.parse::<u64>().ok().map(|_| Request::Query)?,
        (b"STATUS", []) => Request::Status,
        _ => return None,
    })
}

fn founders(config: &Config, group: u32) -> Vec<u32> {
    let mut nodes: Vec<u32> =
        config.nodes.iter().filter(|node| config.founds(node, group)).map(|node| node.id).collect();
    nodes.sort_unstable();
    nodes
}

/// What the nodes' files say before anything was changed.
pub(super) fn first_configuration(config: &Config) -> Configuration {
    let groups = 0..config.groups;
    Configuration {
        number: 0,
        shards: (0..config.shards).map(|shard| Some(topology::group_of(config, shard))).collect(),
        groups: groups.map(|it| (it, GroupEntry { nodes: founders(config, it), weight: 1 })).collect(),
    }
}

/// A line of words that says where the shards are, as `0-5,7`.
pub(super) fn in_words(numbers: impl Iterator<Item = u16>) -> String {
    let numbers: Vec<u16> = numbers.collect();
    let ranges = numbers.chunk_by(|one, next| *next == one + 1).map(|row| match row {
        [only] => only.to_string(),
        _ => format!("{}-{}", row[0], row[row.len() - 1]),
    });
    ranges.collect::<Vec<_>>().join(",")
}

/// `QUERY`: a configuration as lines.
pub(super) fn query(controller: Option<&Controller>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    let Some(controller) = controller else { return reply.error("ERR this group is no controller") };
    let number = args.get(2).and_then(|arg| std::str::from_utf8(arg).ok()?.parse().ok());
    let found = match number {
        Some(number) => controller.query(number),
        None => Some(controller.newest().clone()),
    };
    let Some(found) = found else {
        let newest = controller.newest().number;
        return reply.error(&format!("ERR there is no such configuration: the newest is {newest}"));
    };
    reply.array(1 + found.groups.len());
    reply.bulk(format!("configuration {}", found.number).as_bytes());
    for (group, entry) in &found.groups {
        let nodes = entry.nodes.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let shards = in_words(found.shards_of(*group));
        let weight = entry.weight;
        reply.bulk(format!("group {group} weight {weight} nodes {nodes} shards {shards}").as_bytes());
    }
}

impl Core {
    /// `FLOTILLA.CLUSTER`: any core takes it, and hands it on to who leads the controller.
    pub(super) fn cluster_command(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let sequence = self.connections.promise(conn, Does::Read);
        let origin = Origin::Local { conn, sequence };
        let error = match parse(&self.config, args) {
            _ if !self.config.controller => {
                "ERR this cluster has no controller: see `controller` in its nodes' files"
            }
            None => USAGE,
            Some(Request::Status) => return self.answer_status(origin, out),
            Some(_) => {
                let protocol = self.connections.protocol(conn);
                let outgoing = Outgoing { conn, sequence, protocol, spec, args };
                match self.way_to(CONTROLLER) {
                    Some(Way::Here) => return self.cluster_for(now, origin, spec, args, out),
                    Some(Way::Core(core)) => return self.send_to_core(now, core, &outgoing, out),
                    Some(Way::Peer(peer)) => return self.send_to_peer(now, peer, &outgoing, out),
                    None => "CLUSTERDOWN no leader of the controller is known",
                }
            }
        };
        self.answer(origin, out, |_, reply| reply.error(error));
    }

    /// The same, where it is handed on to.
    pub(super) fn cluster_for(
        &mut self,
        now: Now,
        origin: Origin,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let place = self.multi.place_of(topology::id_of(CONTROLLER));
        let (Some(place), Some(request)) = (place, parse(&self.config, args)) else {
            return self.answer(origin, out, |_, reply| reply.error(USAGE));
        };
        let done = match request {
            Request::Change(change) => {
                if let Some(error) =
                    self.groups[place].controller.as_ref().and_then(|it| objection(it, &change))
                {
                    return self.answer(origin, out, |_, reply| reply.error(error));
                }
                self.propose_change(now, place, &change, Some(origin))
            }
            _ => self.begin_read(now, place, &Call { origin, spec, slot: None, args, in_order: true }),
        };
        if let Err(refused) = done {
            let error = format!("TRYAGAIN the controller can't do this now: {refused}");
            self.answer(origin, out, |_, reply| reply.error(&error));
        }
    }

    fn propose_change(
        &mut self,
        now: Now,
        place: usize,
        change: &Change,
        origin: Option<Origin>,
    ) -> Result<(), Refused> {
        let bytes = change.encode();
        let proposal = self.multi.propose(now.monotonic, place, SCHEMA_CHANGE_V1, bytes.len(), |writer| {
            writer.put(&bytes);
        })?;
        if let Some(origin) = origin {
            self.groups[place].wait_for(proposal, origin, None);
        }
        Ok(())
    }

    /// An entry of the controller's log is applied.
    pub(super) fn apply_change(
        &mut self,
        place: usize,
        change: &Change,
        origin: Option<Origin>,
        out: &mut Effects<Message>,
    ) {
        let controller = self.groups[place].controller.as_mut();
        let controller = controller.expect("only the controller's log has changes");
        // Asked before it was proposed, too; but another change may have come between.
        if let Some(error) = objection(controller, change) {
            if let Some(origin) = origin {
                self.answer(origin, out, |_, reply| reply.error(error));
            }
            return;
        }
        let result = controller.apply(change);
        if let Some(origin) = origin {
            self.answer(origin, out, |_, reply| match result {
                Ok(number) => reply.integer(i64::try_from(number).unwrap_or(i64::MAX)),
                Err(rejected) => reply.error(&format!("ERR {rejected}")),
            });
        }
        self.learn_from_controller(place);
    }

    /// The replica of the controller here has perhaps a newer configuration than this core.
    pub(super) fn learn_from_controller(&mut self, place: usize) {
        let Some(newest) = self.groups[place].controller.as_ref().map(|it| it.newest()) else { return };
        if newest.number > self.configuration.number {
            self.configuration = Rc::new(newest.clone());
            self.is_configuration_news = true;
            self.migration.wake();
        }
    }

    /// Another core of this node says what is newest.
    pub(super) fn heard_configuration(&mut self, configuration: Configuration) {
        if configuration.number > self.configuration.number {
            self.configuration = Rc::new(configuration);
            self.migration.wake();
        }
    }

    /// Tells the other cores of this node.
    pub(super) fn spread_configuration(&mut self, out: &mut Effects<Message>) {
        if !std::mem::take(&mut self.is_configuration_news) {
            return;
        }
        for core in (0..self.config.me().cores).map(CoreId).filter(|core| *core != self.id) {
            let news = Box::new((*self.configuration).clone());
            out.push(Effect::Mesh { to: core, message: Message::Configured(news) });
        }
    }

    /// A controller without a configuration gets the first one from its leader, once.
    pub(super) fn found_controller(&mut self, now: Now, place: usize) {
        let raft = self.multi.raft(place);
        let term = raft.term();
        let is_due = raft.role() == Role::Leader && self.founded_in != Some(term);
        let is_new = self.groups[place].controller.as_ref().is_some_and(|it| it.newest().number == 0);
        if is_due && is_new {
            let first = Change::Found(first_configuration(&self.config));
            if self.propose_change(now, place, &first, None).is_ok() {
                self.founded_in = Some(term);
            }
        }
    }

    /// `STATUS`: what this core knows, a line for each group that it leads.
    fn answer_status(&mut self, origin: Origin, out: &mut Effects<Message>) {
        let mut lines = vec![format!("configuration {}", self.configuration.number)];
        for group in self.groups.iter().filter(|group| group.is_leading() && group.number != CONTROLLER) {
            let serving = in_words(group.shards.serving().map(|shard| shard.number));
            let (mut leaving, mut arriving, mut bytes) = (Vec::new(), Vec::new(), 0);
            for shard in group.shards.iter() {
                match shard.status {
                    Status::Serving => {}
                    Status::Leaving { to } => leaving.push(format!("{}>{to}", shard.number)),
                    Status::Arriving { from } => arriving.push(format!("{}<{from}", shard.number)),
                }
                bytes += shard.keys.bytes();
            }
            lines.push(format!(
                "group {} serving {serving} leaving {} arriving {} keys {} bytes {bytes} moved_in {} moved_bytes {}",
                group.number,
                leaving.join(","),
                arriving.join(","),
                group.keys(),
                group.moved_in,
                group.moved_bytes,
            ));
        }
        self.answer(origin, out, |_, reply| {
            reply.array(lines.len());
            lines.iter().for_each(|line| reply.bulk(line.as_bytes()));
        });
    }

    /// For tests and tools that aren't clients: the same as the command.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn change_cluster(&mut self, now: Now, change: &[&[u8]]) -> Result<(), String> {
        let packed = PackedArgs::pack(&[&[&b"FLOTILLA.CLUSTER"[..]], change].concat());
        let args = PackedArgs::unpack(packed.bytes()).ok_or("no command")?;
        let Some(Request::Change(change)) = parse(&self.config, &args) else { return Err(USAGE.to_owned()) };
        let place = self.multi.place_of(topology::id_of(CONTROLLER)).ok_or("no controller on this core")?;
        if let Some(error) = self.groups[place].controller.as_ref().and_then(|it| objection(it, &change)) {
            return Err(error.to_owned());
        }
        self.propose_change(now, place, &change, None).map_err(|refused| refused.to_string())
    }
}

/// What an operator certainly doesn't want.
fn objection(controller: &Controller, change: &Change) -> Option<&'static str> {
    let Change::Leave(leaving) = change else { return None };
    let newest = controller.newest();
    let stays = newest.groups.is_empty() || newest.groups.keys().any(|group| !leaving.contains(group));
    (!stays).then_some("ERR somebody has to serve the shards: let another group join first")
}
