//! Commands that another core of this node, or another node, must execute.
//!
//! A core that can't execute a command itself numbers it, remembers who waits, and sends it on: over the mesh to
//! the core of this node that leads the group, or (with `redirect = "forward"`) over the peer link to the node
//! that does. The answer comes back as finished reply bytes under the same number. Who gets a command doesn't hand it on further:
//! a core that doesn't lead its group answers with the redirection, or gives it back to the node that sent it (`returned.rs`).
//!
//! **Bounded.** What is on its way to one peer takes no more bytes than a link does; beyond, `BUSY`. For one client no more is on its
//! way than `client.rs` says. A command that is longer than a link takes isn't sent, and neither is such a reply: an error is in its
//! place.

use super::Core;
use super::client::PackedArgs;
use super::group::UNDECIDED_FOR_MAX;
use super::peer_frames::{ITEM_HEADER_BYTES, PeerFrames};
use super::returned::{Asked, Returned, TRY_AGAIN};
use super::routes::Located;
use super::topology::Way;
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
    /// Bytes of what was sent.
    bytes: usize,
    /// What was sent, if it may be sent elsewhere when it comes back.
    command: Option<PackedArgs>,
}

impl Waiting {
    fn is_at_a_peer(&self) -> bool {
        matches!(self.to, Way::Peer(_))
    }
}

/// The commands that are elsewhere, and what leaves for the peers this turn.
#[derive(Debug)]
pub(crate) struct Remote {
    /// Begins anywhere: an answer to a former life of this core isn't taken for one to this.
    last_token: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// Bytes of those among them that are at a peer; of a peer without any there is nothing.
    in_flight: BTreeMap<PeerId, usize>,
    in_flight_bytes_max: usize,
    /// Peers to which the link stands.
    up: BTreeSet<PeerId>,
    frames: PeerFrames,
    /// Commands that came back, undone.
    pub(super) returned: Returned,
}

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const UNKNOWN: u8 = 3;
const NOT_HERE: u8 = 4;

impl Remote {
    /// `seed` is another in each life. `link_bytes_max`: what may wait until a peer reads it; a link drops the rest.
    pub(super) fn new(seed: u64, link_bytes_max: usize) -> Self {
        Self {
            // Far from the end of the numbers.
            last_token: SplitMix64::new(seed).next() >> 1,
            waiting: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            in_flight_bytes_max: link_bytes_max,
            up: BTreeSet::new(),
            frames: PeerFrames::new(link_bytes_max),
            returned: Returned::default(),
        }
    }

    fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    fn expect(&mut self, token: u64, waiting: Waiting) {
        if let Way::Peer(peer) = waiting.to {
            *self.in_flight.entry(peer).or_default() += waiting.bytes;
        }
        self.waiting.insert(token, waiting);
    }

    /// What waited for its answer doesn't any more.
    fn forget(&mut self, waited: &Waiting) {
        let Way::Peer(peer) = waited.to else { return };
        let in_flight = self.in_flight.get_mut(&peer).expect("counted when it was sent");
        *in_flight -= waited.bytes;
        if *in_flight == 0 {
            self.in_flight.remove(&peer);
        }
    }

    /// Why a command of so many bytes can't be sent to a peer now.
    fn refusal(&self, peer: PeerId, bytes: usize) -> Option<String> {
        let item_bytes_max = self.frames.item_bytes_max();
        if bytes > item_bytes_max {
            return Some(format!(
                "ERR the command is too large to be handed on ({bytes} bytes, and {item_bytes_max} go over a \
                 link): send it to the node that leads its slot, as CLUSTER SLOTS says"
            ));
        }
        // One alone always goes.
        let in_flight = self.in_flight.get(&peer)?;
        let is_full = in_flight.saturating_add(bytes) > self.in_flight_bytes_max;
        let node = peer.node.0;
        is_full.then(|| format!("BUSY too much is on its way to node {node}, try again later"))
    }

    /// Since when the peer that owes an answer for the longest time does.
    pub(super) fn oldest(&self) -> Option<Nanos> {
        let mut at_peers = self.waiting.values().filter(|waiting| waiting.is_at_a_peer());
        at_peers.next().map(|waiting| waiting.since)
    }

    /// Answers a peer's command. A reply that no frame takes isn't sent: whoever waits for it is told so.
    fn reply(&mut self, to: PeerId, protocol: Protocol, token: u64, bytes: &[u8]) {
        let (length, item_bytes_max) = (bytes.len(), self.frames.item_bytes_max());
        if length <= item_bytes_max {
            return self.frames.put(to, REPLY, protocol, token, bytes);
        }
        // A write has happened all the same.
        let error = format!(
            "ERR the command was executed, but its reply is too large to be handed on ({length} bytes, and \
             {item_bytes_max} go over a link): ask the node that leads its slot, as CLUSTER SLOTS says, or \
             for less"
        );
        let mut bytes = Vec::new();
        ReplyWriter::new(&mut bytes, protocol).error(&error);
        self.frames.put(to, REPLY, protocol, token, &bytes);
    }

    pub(super) fn flush(&mut self, out: &mut Effects<Message>) {
        self.frames.flush(out);
    }

    /// Whether the link to a peer stands.
    pub(super) fn is_up(&self, peer: PeerId) -> bool {
        self.up.contains(&peer)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.frames.is_empty() && self.returned.is_empty()
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
        let Outgoing { conn, sequence, protocol, spec, args } = *command;
        let (token, packed) = (self.remote.token(), PackedArgs::pack(args));
        let (to, since, bytes) = (Way::Core(core), now.monotonic, packed.bytes().len());
        self.expect(token, Waiting { conn, sequence, to, spec, since, bytes, command: None });
        out.push(Effect::Mesh { to: core, message: Message::Request { token, protocol, command: packed } });
    }

    /// Sends a client's command to the node that leads its group, if there is a way.
    pub(super) fn send_to_peer(
        &mut self,
        now: Now,
        peer: PeerId,
        command: &Outgoing<'_>,
        out: &mut Effects<Message>,
    ) {
        let Outgoing { conn, sequence, protocol, spec, args } = *command;
        let packed = PackedArgs::pack(args);
        if !self.remote.up.contains(&peer) {
            return self.take_back(now, (conn, sequence), Some(Way::Peer(peer)), Some(packed), out);
        }
        let (to, since, bytes) = (Way::Peer(peer), now.monotonic, packed.bytes().len());
        if let Some(refusal) = self.remote.refusal(peer, bytes) {
            return self.connections.fill(conn, sequence, |reply| reply.error(&refusal));
        }
        let token = self.remote.token();
        self.cut_off_at.get_or_insert(now.monotonic + UNDECIDED_FOR_MAX);
        self.remote.frames.put(peer, REQUEST, protocol, token, packed.bytes());
        self.expect(token, Waiting { conn, sequence, to, spec, since, bytes, command: Some(packed) });
    }

    fn expect(&mut self, token: u64, waiting: Waiting) {
        self.connections.sent_on(waiting.conn, waiting.bytes);
        self.remote.expect(token, waiting);
    }

    /// The command isn't elsewhere any more, whatever became of it.
    fn forget(&mut self, waited: &Waiting) {
        self.remote.forget(waited);
        self.connections.is_back(waited.conn, waited.bytes);
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
                self.remote.reply(peer, protocol, token, &bytes);
            }
        }
    }

    /// The command of `origin` certainly didn't happen here: tell it where to go.
    pub(super) fn redirect(&mut self, origin: Origin, slot: Option<Slot>, out: &mut Effects<Message>) {
        let error = match (self.config.redirect, origin) {
            (Redirect::Moved, _) => self.moved(slot),
            (Redirect::Forward, Origin::Peer { peer, token, protocol }) => {
                return self.remote.frames.put(peer, NOT_HERE, protocol, token, &[]);
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
            Origin::Peer { peer, token, protocol } => {
                self.remote.frames.put(peer, UNKNOWN, protocol, token, &[]);
            }
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
        self.forget(&waiting);
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
        writers.iter().chain(&readers).for_each(|waited| self.forget(waited));
        writers.into_iter().for_each(|writer| self.connections.cut_off(writer.conn));
        readers.into_iter().map(|reader| ((reader.conn, reader.sequence), reader.command)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{core_with, items, request, said, sent};
    use super::*;
    use flotilla_runtime::{Event, Machine, Taken};

    const PEER: PeerId = PeerId { node: NodeId(2), core: CoreId(0) };
    const CLIENT: ConnId = ConnId(1);
    /// What goes over a link here.
    const LINK_BYTES: usize = 1000;

    /// A core that hands its client's commands on to the other node.
    fn handing_on() -> (Core, Now) {
        let node = |id| format!("{{ id = {id}, host = \"here\", port = 700{id}, peer_port = 1700{id} }}");
        let nodes = format!("redirect = \"forward\"\nnodes = [{}, {}]", node(1), node(2));
        let (mut core, now) = core_with(&nodes);
        core.remote = Remote::new(1, LINK_BYTES);
        core.leaders.heard(0, 1, Some(PEER.node));
        let mut out = Effects::default();
        core.step(now, Event::PeerUp { peer: PEER }, &mut out);
        core.step(now, Event::Opened { conn: CLIENT, is_local: true }, &mut out);
        (core, now)
    }

    /// The client sets a key to so many bytes. Returns the commands that leave for the peer, and what the client is told.
    fn set(core: &mut Core, now: Now, bytes: usize) -> (Vec<(u8, u64, Vec<u8>)>, String) {
        let (mut taken, mut out) = (Taken::default(), Effects::default());
        let bytes = request(&[b"SET", b"k", &vec![b'x'; bytes]]);
        core.step(now, Event::Client { conn: CLIENT, bytes: &bytes, taken: &mut taken }, &mut out);
        assert_eq!(taken.bytes, bytes.len());
        let effects = flushed(core, now, out);
        (sent(&effects).iter().flat_map(|(_, frame)| items(frame)).collect(), said(&effects))
    }

    /// What a turn has brought by its end.
    fn flushed(core: &mut Core, now: Now, mut out: Effects<Message>) -> Vec<Effect<Message>> {
        core.flush(now, &mut out);
        out.drain().collect()
    }

    /// The peer answers; what the client is told then.
    fn answer(core: &mut Core, now: Now, token: u64) -> String {
        let (mut frames, mut out) = (PeerFrames::new(LINK_BYTES), Effects::default());
        frames.put(PEER, REPLY, Protocol::Resp2, token, b"+OK\r\n");
        frames.flush(&mut out);
        for (from, frame) in sent(&out.drain().collect::<Vec<_>>()) {
            core.step(now, Event::Peer { from, frame: &frame }, &mut out);
        }
        said(&flushed(core, now, out))
    }

    #[test]
    fn what_is_on_its_way_to_a_peer_is_bounded_in_bytes_and_so_is_a_command() {
        let (mut core, now) = handing_on();
        let (first, _) = set(&mut core, now, 600);
        assert!(first.len() == 1 && first[0].0 == REQUEST);
        for bytes in [600, LINK_BYTES] {
            assert_eq!(set(&mut core, now, bytes), (Vec::new(), String::new()), "answered behind the first");
        }
        let told = answer(&mut core, now, first[0].1);
        let words = "+OK\r\n-BUSY too much is on its way to node 2, try again later\r\n\
                     -ERR the command is too large to be handed on (1016 bytes, and 983 go over a link): ";
        assert!(told.starts_with(words), "{told}");
        assert_eq!(set(&mut core, now, 900).0.len(), 1, "there is room again");
        core.step(now, Event::PeerDown { peer: PEER }, &mut Effects::default());
        let sent_on = core.connections.map[&CLIENT].sent_on_bytes();
        assert_eq!((core.remote.in_flight.len(), sent_on), (0, 0), "what is given up isn't on its way");
    }

    #[test]
    fn a_reply_that_no_link_takes_becomes_an_error_and_the_others_arrive() {
        let ((mut core, now), mut out) = (handing_on(), Effects::default());
        for (token, bytes) in [(1, 100), (2, 2 * LINK_BYTES), (3, 700), (4, 700)] {
            let origin = Origin::Peer { peer: PEER, token, protocol: Protocol::Resp2 };
            core.answer(origin, &mut out, |_, reply| reply.bulk(&vec![b'x'; bytes]));
        }
        let frames = sent(&flushed(&mut core, now, out));
        assert!(frames.iter().all(|(to, frame)| *to == PEER && frame.len() <= LINK_BYTES));
        let answers: Vec<_> = frames.iter().flat_map(|(_, frame)| items(frame)).collect();
        let kinds: Vec<_> = answers.iter().map(|(kind, token, _)| (*kind, *token)).collect();
        assert_eq!(kinds, [(REPLY, 1), (REPLY, 2), (REPLY, 3), (REPLY, 4)]);
        let lengths = [0, 2, 3].map(|place: usize| answers[place].2.len());
        assert_eq!(lengths, [108, 708, 708]);
        let words = "-ERR the command was executed, but its reply is too large to be handed on (2009 bytes, ";
        assert!(answers[1].2.starts_with(words.as_bytes()), "{}", String::from_utf8_lossy(&answers[1].2));
    }
}
