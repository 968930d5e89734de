//! Commands that another core of this node, or another node, must execute.
//!
//! A core that can't execute a command itself numbers it, remembers who waits, and sends it on: over the mesh to
//! the core of this node that leads the group, or (with `redirect = "forward"`) over the peer link to the node
//! that does. The answer comes back as finished reply bytes under the same number. Who gets a command doesn't hand it on further:
//! a core that doesn't lead its group answers with the redirection, or gives it back to the node that sent it (`returned.rs`).

use super::client::PackedArgs;
use super::group::UNDECIDED_FOR_MAX;
use super::returned::{Asked, Returned, TRY_AGAIN};
use super::routes::Located;
use super::topology::Way;
use super::{Core, channel};
use crate::admin::Topic;
use crate::admin::report::CoreReport;
use crate::command::slowlog::Setting;
use crate::command::{Spec, code, lookup};
use crate::config::Redirect;
use crate::controller::Configuration;
use crate::kv::Transaction;
use crate::resp::{Protocol, ReplyWriter};
use crate::slot::Slot;
use flotilla_runtime::{ConnId, CoreId, Effect, Effects, Nanos, NodeId, Now, PeerId, SplitMix64};
use std::collections::{BTreeMap, BTreeSet};

/// Who is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client of this core: its connection and the command's number on it.
    Local { conn: ConnId, sequence: u64 },
    /// Another core of this node.
    Core { core: CoreId, token: u64, protocol: Protocol },
    /// A core of another node.
    Peer { peer: PeerId, token: u64, protocol: Protocol },
}

/// What became of a command that was sent on.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The reply, ready for the client.
    Reply(Vec<u8>),
    /// Nobody will ever know: the client must be cut off.
    Unknown,
    /// It certainly didn't happen: whoever was asked doesn't lead the group, or no longer has the shard. With the command, if whoever
    /// asked hasn't kept it.
    NotHere(Option<PackedArgs>),
}

/// What cores of one node say to each other.
#[derive(Clone, Debug)]
pub enum Message {
    /// Execute this for me.
    Request {
        /// The asker's number for it.
        token: u64,
        /// The RESP version of the client that waits.
        protocol: Protocol,
        /// The command.
        command: PackedArgs,
    },
    /// The answer to a request.
    Response {
        /// The asker's number for it.
        token: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// A group's leader is known, or lost.
    Leader {
        /// The group's number from 0.
        group: u32,
        /// In this term.
        term: u64,
        /// Who.
        leader: Option<NodeId>,
    },
    /// Shards are elsewhere.
    Located(Vec<Located>),
    /// There is a newer configuration.
    Configured(Box<Configuration>),
    /// What the leader of a group says to another's about a shard.
    Migration(Vec<u8>),
    /// A user is another, or gone.
    User {
        /// Its name.
        name: Vec<u8>,
        /// What it is now.
        user: Option<Box<crate::acl::User>>,
    },
    /// A client has changed a setting of the node.
    Set {
        /// Which.
        setting: Setting,
        /// To what.
        value: i64,
    },
    /// An operator has asked me: what have you to say?
    Ask {
        /// The asker's number for it.
        question: u64,
        /// What is asked for.
        topic: Topic,
    },
    /// This.
    Told {
        /// The asker's number for it.
        question: u64,
        /// What the core has to say.
        report: Box<CoreReport>,
    },
}

#[derive(Debug)]
struct Waiting {
    conn: ConnId,
    sequence: u64,
    to: Way,
    spec: &'static Spec,
    since: Nanos,
    /// What was sent, if it may be sent elsewhere when it comes back.
    command: Option<PackedArgs>,
}

impl Waiting {
    fn is_at_a_peer(&self) -> bool {
        matches!(self.to, Way::Peer(_))
    }
}

/// The commands that are elsewhere, and what leaves for the peers this turn.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    /// Begins anywhere: an answer to a former life of this core isn't taken for one to this.
    last_token: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Peers to which the link stands.
    up: BTreeSet<PeerId>,
    outgoing: BTreeMap<PeerId, Vec<u8>>,
    /// Commands that came back, undone.
    pub(super) returned: Returned,
}

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const UNKNOWN: u8 = 3;
const NOT_HERE: u8 = 4;
/// kind, protocol, two zero bytes, length, token.
const ITEM_HEADER_BYTES: usize = 16;

impl Remote {
    /// `seed` is another in each life.
    pub(super) fn new(seed: u64) -> Self {
        // Far from the end of the numbers.
        Self { last_token: SplitMix64::new(seed).next() >> 1, ..Self::default() }
    }

    fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    fn expect(&mut self, now: Now, token: u64, sent: &Outgoing<'_>, to: Way, command: Option<PackedArgs>) {
        let Outgoing { conn, sequence, spec, .. } = *sent;
        let since = now.monotonic;
        self.waiting.insert(token, Waiting { conn, sequence, to, spec, since, command });
    }

    /// Since when the peer that owes an answer for the longest time does.
    pub(super) fn oldest(&self) -> Option<Nanos> {
        let mut at_peers = self.waiting.values().filter(|waiting| waiting.is_at_a_peer());
        at_peers.next().map(|waiting| waiting.since)
    }

    fn put(&mut self, to: PeerId, kind: u8, protocol: Protocol, token: u64, bytes: &[u8]) {
        let frame = self.outgoing.entry(to).or_insert_with(|| vec![channel::COMMAND]);
        frame.extend_from_slice(&[kind, protocol.number(), 0, 0]);
        frame.extend_from_slice(
            &u32::try_from(bytes.len()).expect("requests and replies are bounded").to_le_bytes(),
        );
        frame.extend_from_slice(&token.to_le_bytes());
        frame.extend_from_slice(bytes);
    }

    pub(super) fn flush(&mut self, out: &mut Effects<Message>) {
        for (to, frame) in std::mem::take(&mut self.outgoing) {
            out.push(Effect::Send { to, frame });
        }
    }

    /// Whether the link to a peer stands.
    pub(super) fn is_up(&self, peer: PeerId) -> bool {
        self.up.contains(&peer)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.outgoing.is_empty() && self.returned.is_empty()
    }
}

/// A command of a client of this core, about to be sent on.
pub(super) struct Outgoing<'a> {
    pub(super) conn: ConnId,
    pub(super) sequence: u64,
    pub(super) protocol: Protocol,
    pub(super) spec: &'static Spec,
    pub(super) args: &'a [&'a [u8]],
}

impl Core {
    /// Sends a client's command to another core of this node.
    pub(super) fn send_to_core(
        &mut self,
        now: Now,
        core: CoreId,
        command: &Outgoing<'_>,
        out: &mut Effects<Message>,
    ) {
        let token = self.remote.token();
        self.remote.expect(now, token, command, Way::Core(core), None);
        let packed = PackedArgs::pack(command.args);
        out.push(Effect::Mesh {
            to: core,
            message: Message::Request { token, protocol: command.protocol, command: packed },
        });
    }

    /// Sends a client's command to the node that leads its group, if there is a way.
    pub(super) fn send_to_peer(
        &mut self,
        now: Now,
        peer: PeerId,
        command: &Outgoing<'_>,
        out: &mut Effects<Message>,
    ) {
        let packed = PackedArgs::pack(command.args);
        if !self.remote.up.contains(&peer) {
            let asked = (command.conn, command.sequence);
            return self.take_back(now, asked, Some(Way::Peer(peer)), Some(packed), out);
        }
        let token = self.remote.token();
        self.cut_off_at.get_or_insert(now.monotonic + UNDECIDED_FOR_MAX);
        self.remote.put(peer, REQUEST, command.protocol, token, packed.bytes());
        self.remote.expect(now, token, command, Way::Peer(peer), Some(packed));
    }

    /// Writes the reply of whoever waits at `origin`.
    pub(super) fn answer(
        &mut self,
        origin: Origin,
        out: &mut Effects<Message>,
        write: impl FnOnce(&mut [super::Group], &mut ReplyWriter<'_>),
    ) {
        let groups = &mut self.groups;
        match origin {
            Origin::Local { conn, sequence } => {
                self.connections.fill(conn, sequence, |reply| write(groups, reply));
            }
            Origin::Core { core, token, protocol } => {
                let mut bytes = Vec::new();
                write(groups, &mut ReplyWriter::new(&mut bytes, protocol));
                out.push(Effect::Mesh {
                    to: core,
                    message: Message::Response { token, outcome: Outcome::Reply(bytes) },
                });
            }
            Origin::Peer { peer, token, protocol } => {
                let mut bytes = Vec::new();
                write(groups, &mut ReplyWriter::new(&mut bytes, protocol));
                self.remote.put(peer, REPLY, protocol, token, &bytes);
            }
        }
    }

    /// The command of `origin` certainly didn't happen here: tell it where to go.
    pub(super) fn redirect(&mut self, origin: Origin, slot: Option<Slot>, out: &mut Effects<Message>) {
        let error = match (self.config.redirect, origin) {
            (Redirect::Moved, _) => self.moved(slot),
            (Redirect::Forward, Origin::Peer { peer, token, protocol }) => {
                return self.remote.put(peer, NOT_HERE, protocol, token, &[]);
            }
            (Redirect::Forward, _) => TRY_AGAIN.to_owned(),
        };
        self.answer(origin, out, |_, reply| reply.error(&error));
    }

    /// What a client with a key of this slot is told when its group isn't led here.
    pub(super) fn moved(&self, slot: Option<Slot>) -> String {
        match slot {
            Some(slot) => self.leader_of(slot),
            None => "CLUSTERDOWN this node leads no group at the moment".to_owned(),
        }
    }

    /// Nobody will ever know what became of the command of `origin`.
    pub(super) fn abandon(&mut self, origin: Origin, out: &mut Effects<Message>) {
        match origin {
            Origin::Local { conn, .. } => self.connections.cut_off(conn),
            Origin::Core { core, token, .. } => out.push(Effect::Mesh {
                to: core,
                message: Message::Response { token, outcome: Outcome::Unknown },
            }),
            Origin::Peer { peer, token, protocol } => self.remote.put(peer, UNKNOWN, protocol, token, &[]),
        }
    }

    pub(super) fn mesh_message(
        &mut self,
        now: Now,
        from: CoreId,
        message: Message,
        out: &mut Effects<Message>,
    ) {
        match message {
            Message::Request { token, protocol, command } => {
                self.execute_for(now, Origin::Core { core: from, token, protocol }, command.bytes(), out);
            }
            Message::Response { token, outcome } => self.came_back(now, token, outcome, out),
            Message::Leader { group, term, leader } => self.leaders.heard(group, term, leader),
            Message::Configured(newest) => self.heard_configuration(*newest),
            Message::Set { setting, value } => self.slowlog.set(setting, value),
            Message::Ask { question, topic } => self.asked_by(now, from, (question, topic), out),
            Message::Told { question, report } => self.told(now, question, *report, out),
            Message::User { name, user } => self.user_changed(now, &name, user),
            Message::Migration(frame) => self.migration_frame(now, self.config.node_id(), &frame, out),
            Message::Located(news) => {
                for it in news {
                    self.routes.heard(it);
                }
                self.release_rerouted(now, out);
            }
        }
    }

    /// Commands and answers from a peer; anything malformed ends the frame with a warning.
    pub(super) fn remote_frame(
        &mut self,
        now: Now,
        from: PeerId,
        mut frame: &[u8],
        out: &mut Effects<Message>,
    ) {
        while !frame.is_empty() {
            let Some((header, rest)) = frame.split_at_checked(ITEM_HEADER_BYTES) else { break };
            let length = u32::from_le_bytes(header[4..8].try_into().expect("four bytes of sixteen")) as usize;
            let token = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes of sixteen"));
            let (Some((bytes, rest)), Some(protocol)) =
                (rest.split_at_checked(length), Protocol::from_number(header[1]))
            else {
                break;
            };
            match header[0] {
                REQUEST => self.execute_for(now, Origin::Peer { peer: from, token, protocol }, bytes, out),
                REPLY => self.came_back(now, token, Outcome::Reply(bytes.to_vec()), out),
                UNKNOWN => self.came_back(now, token, Outcome::Unknown, out),
                NOT_HERE => self.came_back(now, token, Outcome::NotHere(None), out),
                _ => break,
            }
            frame = rest;
        }
        if !frame.is_empty() {
            tracing::warn!(peer = from.node.0, "a malformed command frame from a peer was dropped");
        }
    }

    fn execute_for(&mut self, now: Now, origin: Origin, packed: &[u8], out: &mut Effects<Message>) {
        let Some(args) = PackedArgs::unpack(packed) else { return self.abandon(origin, out) };
        match args.first().and_then(|name| lookup(name)) {
            Some(spec) if spec.code == code::FLOTILLA_CLUSTER => {
                self.cluster_for(now, origin, spec, &args, out)
            }
            Some(spec) if spec.code == code::FLOTILLA_BACKUP => self.refuse_backup(origin, out),
            Some(spec) if spec.code == code::FLOTILLA_TRANSFER => self.transfer_for(now, origin, &args, out),
            Some(spec) if spec.code == code::ACL => self.acl_for(now, origin, &args, out),
            Some(spec) if spec.code == code::EXEC => {
                match Transaction::parse(&args).is_some_and(|transaction| transaction.is_checked()) {
                    true => self.execute(now, origin, spec, &args, true, out),
                    false => self.abandon(origin, out),
                }
            }
            Some(spec) => self.execute(now, origin, spec, &args, true, out),
            None => self.abandon(origin, out),
        }
    }

    fn came_back(&mut self, now: Now, token: u64, outcome: Outcome, out: &mut Effects<Message>) {
        let Some(waiting) = self.remote.waiting.remove(&token) else { return };
        match outcome {
            Outcome::Reply(bytes) => {
                self.connections.fill_raw(waiting.conn, waiting.sequence, &bytes);
                self.note_if_slow_elsewhere(waiting.conn, waiting.spec);
            }
            Outcome::Unknown => self.connections.cut_off(waiting.conn),
            Outcome::NotHere(given_back) => {
                let Waiting { conn, sequence, to, command, .. } = waiting;
                self.take_back(now, (conn, sequence), Some(to), command.or(given_back), out);
            }
        }
    }

    /// The link to a peer stands, or broke. In that case what was sent there may have happened.
    pub(super) fn remote_link_changed(
        &mut self,
        now: Now,
        peer: PeerId,
        up: bool,
        out: &mut Effects<Message>,
    ) {
        if up {
            self.remote.up.insert(peer);
            self.remote.returned.link_is_up();
        } else {
            self.remote.up.remove(&peer);
            // Readers ask whoever leads next.
            for (asked, command) in self.give_up(|waiting| waiting.to == Way::Peer(peer)) {
                self.take_back(now, asked, None, command, out);
            }
        }
    }

    /// Peers that haven't answered since then won't: the answer may have been lost with the link from them to us, of
    /// whose end nobody tells us.
    pub(super) fn give_up_since(&mut self, latest: Nanos) {
        for (asked, command) in self.give_up(|waiting| waiting.is_at_a_peer() && waiting.since <= latest) {
            self.give_it_up(asked, command.as_ref());
        }
    }

    /// No answer will come: writers are cut off. Returns the others, who may ask again: readers, and operators, who see what became of it.
    fn give_up(&mut self, is_lost: impl Fn(&Waiting) -> bool) -> Vec<(Asked, Option<PackedArgs>)> {
        let lost = self.remote.waiting.extract_if(.., |_, waiting| is_lost(waiting)).map(|(_, lost)| lost);
        let (writers, readers): (Vec<_>, Vec<_>) = lost.partition(|waiting| waiting.spec.is_write());
        writers.into_iter().for_each(|writer| self.connections.cut_off(writer.conn));
        readers.into_iter().map(|reader| ((reader.conn, reader.sequence), reader.command)).collect()
    }
}
