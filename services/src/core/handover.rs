//! Handing groups over: when an operator says so, when this node stops, and what clients see of it (nothing).
//!
//! While a leadership is under way to another node, commands that arrive here are held. As soon as the new leader is known
//! they are sent there, in their order; if nothing comes of it, they are executed here.

use super::Core;
use super::group::Call;
use super::held::Held;
use super::remote::{Message, Origin, Outgoing};
use super::topology::{CONTROLLER, Way};
use crate::command::Spec;
use crate::group_name;
use crate::kv::number;
use flotilla_consensus::{Role, TransferError};
use flotilla_runtime::machine::MILLISECOND;
use flotilla_runtime::{ConnId, Effects, Nanos, NodeId, Now};
use std::collections::VecDeque;

/// Bytes of commands that a group holds during a handover; more are refused.
const HELD_BYTES_MAX: usize = 4 << 20;

/// A handover of one group, as its clients and operators wait for it.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// If no other leader is known by then, clients are told that there is none.
    until: Nanos,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Readers whose leadership is gone. Writes of theirs that came later may be decided by the time the handover ends, so
    /// they can only be sent elsewhere, whoever leads.
    stranded: Vec<Held>,
    /// Operators that asked for it, and whom they want to lead.
    asked: Vec<(Origin, NodeId)>,
}

impl Handover {
    /// Clients and operators that wait.
    pub(super) fn waiting(&self) -> usize {
        self.held.len() + self.stranded.len() + self.asked.len()
    }

    /// These readers can't be served any more: they are told where to go as soon as that is known.
    pub(super) fn strand(&mut self, readers: impl Iterator<Item = Held>) {
        self.stranded.extend(readers);
    }
}

/// The group and the node that a `FLOTILLA.TRANSFER` names.
fn parse(args: &[&[u8]]) -> Option<(u32, NodeId)> {
    let node = number::integer(args[2]).and_then(|node| u32::try_from(node).ok())?;
    Some((group_name::parse(args[1])?, NodeId(node)))
}

impl Core {
    /// `FLOTILLA.TRANSFER group node`: any node takes it, and hands it on to the leader. Answered when the node leads.
    pub(super) fn transfer_command(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let sequence = self.connections.promise(conn, super::connections::Does::Read);
        let origin = Origin::Local { conn, sequence };
        let known = parse(args).filter(|(group, node)| {
            let is_group = match *group {
                CONTROLLER => self.config.controller,
                number => number < self.config.groups_total(),
            };
            is_group && self.config.nodes.iter().any(|entry| entry.id == node.0)
        });
        let Some((group, _)) = known else {
            let error =
                "ERR there is no such group or node: FLOTILLA.TRANSFER group node, groups count from 0";
            return self.answer(origin, out, |_, reply| reply.error(error));
        };
        let protocol = self.connections.protocol(conn);
        let outgoing = Outgoing { conn, sequence, protocol, spec, args };
        match self.way_to(group) {
            Some(Way::Here) => self.transfer_for(now, origin, args, out),
            Some(Way::Core(core)) => self.send_to_core(now, core, &outgoing, out),
            Some(Way::Peer(peer)) => self.send_to_peer(now, peer, &outgoing, out),
            None => {
                let error = format!("CLUSTERDOWN no leader of {} is known", group_name::in_words(group));
                self.answer(origin, out, |_, reply| reply.error(&error));
            }
        }
    }

    /// Begins a transfer for whoever asked for it.
    pub(super) fn transfer_for(
        &mut self,
        now: Now,
        origin: Origin,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        let asked = parse(args)
            .and_then(|(group, node)| Some((self.multi.place_of(super::topology::id_of(group))?, node)));
        let Some((place, node)) = asked else { return self.abandon(origin, out) };
        let leads = self.multi.raft(place).role() == Role::Leader && node == self.config.node_id();
        match self.multi.transfer_to(now.monotonic, place, node) {
            Ok(()) => self.groups[place].handover.asked.push((origin, node)),
            Err(TransferError::NoOtherVoter) if leads => {
                self.answer(origin, out, |_, reply| reply.simple("OK"));
            }
            Err(error) => {
                let error = format!("TRYAGAIN node {} doesn't take the leadership: {error}", node.0);
                self.answer(origin, out, |_, reply| reply.error(&error));
            }
        }
    }

    /// Whether the group's leadership is on its way to another node.
    pub(super) fn is_handing_over(&self, now: Now, place: usize) -> bool {
        let raft = self.multi.raft(place);
        raft.transferring_to().is_some()
            || (raft.leader().is_none() && now.monotonic < self.groups[place].handover.until)
    }

    /// Whether a command must wait for the end of a handover: also behind those that do.
    pub(super) fn must_hold(&self, now: Now, place: usize) -> bool {
        !self.groups[place].handover.held.is_empty() || self.is_handing_over(now, place)
    }

    pub(super) fn hold(&mut self, place: usize, call: &Call<'_>, out: &mut Effects<Message>) {
        let handover = &mut self.groups[place].handover;
        let held = Held::new(call);
        if handover.held_bytes + held.bytes() > HELD_BYTES_MAX {
            let error = "TRYAGAIN the leadership of the key's group is being handed over";
            return self.answer(call.origin, out, |_, reply| reply.error(error));
        }
        handover.held_bytes += held.bytes();
        handover.held.push_back(held);
    }

    /// Takes note of a handover that begins or ends.
    pub(super) fn settle_handover(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let raft = self.multi.raft(place);
        if raft.transferring_to().is_some() {
            let patience = 2 * self.config.raft.election_timeout_ms * MILLISECOND;
            self.groups[place].handover.until = now.monotonic + patience;
            return;
        }
        if self.groups[place].handover.waiting() == 0 || self.is_handing_over(now, place) {
            return;
        }
        let (leader, leads) = (raft.leader(), raft.role() == Role::Leader);
        let handover = &mut self.groups[place].handover;
        handover.held_bytes = 0;
        for (origin, node) in std::mem::take(&mut handover.asked) {
            self.answer(origin, out, |_, reply| match leader == Some(node) {
                true => reply.simple("OK"),
                false => {
                    reply.error("TRYAGAIN the node didn't take the leadership within an election timeout")
                }
            });
        }
        for reader in std::mem::take(&mut self.groups[place].handover.stranded) {
            reader.call(|call| self.give_back(now, call, out));
        }
        for held in std::mem::take(&mut self.groups[place].handover.held) {
            if leads {
                held.call(|call| self.execute_at(now, place, call, out));
            } else {
                held.call(|call| self.give_back(now, call, out));
            }
        }
    }

    /// This node is about to stop: its leaderships go to others.
    pub(super) fn retire(&mut self, now: Now) {
        self.multi.retire(now.monotonic);
    }
}
