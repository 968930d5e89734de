//! Links from and to other nodes: one TCP connection a direction.
//!
//! ```text
//! greeting and its answer: see greeting.rs
//! frame  length u32 │ crc32 of the payload u32 │ payload
//! ```
//!
//! All little-endian. A frame whose checksum is wrong ends the link: Raft sends again over the next one.
//!
//! Under TLS both sides show certificates. Whoever answers says that it takes the greeting, or why not: until then the caller can't know
//! whether its certificate will do, or what the other side speaks.

use super::core_loop::CoreLoop;
use super::greeting::{self, HELLO_BYTES, Hello, REFUSED, TAKEN, VERSIONS_BYTES, Versions};
use super::outlet::Outlet;
use super::poller::{Listener, Socket};
use super::start::NodeShared;
use super::wire::{HANDSHAKE_MAX, PeerTls, Tls, Wire};
use super::{NodeOptions, PeerAddress};
use crate::machine::{Event, Machine, NodeId, PeerId};
use crate::sync::Arc;
use crate::vitals::Vitals;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

const FRAME_HEADER_BYTES: usize = 8;
const BUFFER_BYTES: usize = 64 * 1024;
/// A longer frame goes behind its header as it is: to put both together costs more than to name two pieces.
const COPIED_MAX: usize = 16 * 1024;
/// Between two tries to reach a peer.
const RETRY: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The same after one that said no, or with which there was no TLS: that won't be mended in a moment.
const RETRY_REFUSED: Duration = Duration::from_secs(1);
/// So long without a connection, and the operator is told: longer than a restart takes.
const UNREACHABLE_FOR: Duration = Duration::from_secs(2);
/// So many connections one after the other that end without an answer, and the other side may know no greeting but the oldest.
const SILENT_ENDS: u32 = 2;

/// The link to one core of another node.
#[derive(Debug)]
pub(super) struct Link {
    to: PeerAddress,
    outlet: RefCell<Option<Rc<Outlet>>>,
    dropped: Cell<u64>,
    scratch: RefCell<Vec<u8>>,
}

impl Link {
    pub(super) fn new(to: PeerAddress) -> Rc<Self> {
        Rc::new(Self { to, outlet: RefCell::default(), dropped: Cell::new(0), scratch: RefCell::default() })
    }

    /// Sends a frame, or drops it whole: when the link is down, or the peer doesn't keep up.
    pub(super) fn send(&self, frame: &[u8], waiting_max: usize, vitals: &Vitals) {
        let outlet = self.outlet.borrow().clone();
        let Some(outlet) = outlet.filter(|outlet| outlet.waiting() + frame.len() <= waiting_max) else {
            self.dropped.set(self.dropped.get() + 1);
            vitals.peer_frames_dropped.count();
            return;
        };
        vitals.peer_frames_out.count();
        vitals.peer_bytes_out.add(frame.len() as u64);
        let length = u32::try_from(frame.len()).expect("frames are bounded far below 4 GiB");
        let mut header = [0; FRAME_HEADER_BYTES];
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..].copy_from_slice(&crc32fast::hash(frame).to_le_bytes());
        if frame.len() > COPIED_MAX {
            return outlet.send_both(&header, frame);
        }
        let mut bytes = self.scratch.take();
        bytes.clear();
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(frame);
        outlet.send(&bytes);
        self.scratch.replace(bytes);
    }
}

/// Keeps the link to one peer up, for ever.
pub(super) async fn keep_up<M: Machine + 'static>(
    core: Rc<CoreLoop<M>>,
    link: Rc<Link>,
    shared: Arc<NodeShared>,
) {
    let (peer, options) = (link.to.peer, shared.options());
    let from = PeerId { node: options.node, core: core.id };
    let hello = Hello { cluster: options.cluster, incarnation: options.incarnation, from, to: peer };
    let who = format!("node {} at {}", peer.node.0, link.to.address);
    let (mut silent_ends, mut unreachable_since) = (0, None);
    loop {
        let socket = match connect(&core, &link).await {
            Ok(socket) => socket,
            Err(error) => {
                // Whoever comes back may be another version.
                silent_ends = 0;
                let since = *unreachable_since.get_or_insert_with(Instant::now);
                if since.elapsed() > UNREACHABLE_FOR {
                    let cure = "is it up, are its host and peer_port right in this node's file, does a firewall let it through?";
                    core.complaints
                        .no_link(&who, &format!("{} can't be reached: {error}: {cure}", link.to.address));
                }
                core.poller.sleep(RETRY).await;
                continue;
            }
        };
        unreachable_since = None;
        let wire = Wire::new(socket);
        let is_oldest = options.versions.lowest == 1 && silent_ends >= SILENT_ENDS;
        let versions = Some(options.versions).filter(|versions| versions.says_so() && !is_oldest);
        silent_ends = if is_oldest { 0 } else { silent_ends };
        match greet(&core, peer.node, &wire, &hello, versions).await {
            Ok(version) => {
                silent_ends = 0;
                stand(&core, &link, &wire, version).await;
            }
            Err(NotGreeted::InSilence) => {
                silent_ends += 1;
                wire.outlet.cut();
            }
            Err(NotGreeted::Refused(reason)) => {
                core.complaints.no_link(&who, &reason);
                wire.outlet.cut();
                core.poller.sleep(RETRY_REFUSED).await;
            }
            Err(NotGreeted::NoTls(reason)) => {
                core.vitals.tls_failures.count();
                core.complaints.no_tls(&who, &reason);
                wire.outlet.cut();
                core.poller.sleep(RETRY_REFUSED).await;
            }
        }
        core.poller.sleep(RETRY).await;
    }
}

/// A link that stands, until it doesn't.
async fn stand<M: Machine + 'static>(core: &Rc<CoreLoop<M>>, link: &Link, wire: &Wire, version: u16) {
    let peer = link.to.peer;
    let outlet = Rc::clone(&wire.outlet);
    *link.outlet.borrow_mut() = Some(Rc::clone(&outlet));
    core.vitals.peer_versions.borrow_mut().insert(peer, version);
    tracing::info!(node = peer.node.0, core = peer.core.0, version, "link to peer is up");
    core.step(Event::PeerUp { peer });
    // Nothing ever comes back on this connection: an end or an error is all that can be read.
    let mut nothing = [0; 64];
    while wire.read(&mut nothing).await.is_ok_and(|count| count > 0) {}
    outlet.cut();
    *link.outlet.borrow_mut() = None;
    core.vitals.peer_versions.borrow_mut().remove(&peer);
    let dropped = link.dropped.get();
    tracing::info!(node = peer.node.0, core = peer.core.0, dropped, "link to peer is down");
    core.step(Event::PeerDown { peer });
}

/// Why there is no link to a peer.
enum NotGreeted {
    /// The connection ended without an answer: the other side is going away, or knows only the oldest greeting.
    InSilence,
    /// It says no.
    Refused(String),
    /// There was no TLS with it, or it doesn't want ours.
    NoTls(String),
}

/// Says who is calling, under TLS after a handshake, and waits until that is taken. Returns the version that is to be spoken.
///
/// Without `versions` it is the oldest greeting, which has no answer, or none that says anything.
async fn greet<M: Machine + 'static>(
    core: &CoreLoop<M>,
    node: NodeId,
    wire: &Wire,
    hello: &Hello,
    versions: Option<Versions>,
) -> Result<u16, NotGreeted> {
    let cover = core.tls();
    let is_covered = cover.peers.is_some();
    if let Some(tls) = &cover.peers {
        let name = tls.names.get(&node).cloned();
        let name = name.ok_or_else(|| NotGreeted::NoTls("its host isn't known".to_owned()))?;
        let session = Tls::call(&tls.client, name).map_err(|error| NotGreeted::NoTls(error.to_string()))?;
        wire.secure(session).await.map_err(NotGreeted::NoTls)?;
    }
    wire.outlet.send(&hello.encode(versions));
    if versions.is_none() && !is_covered {
        return Ok(1);
    }
    let late = async {
        core.poller.sleep(HANDSHAKE_MAX).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    match (futures_lite::future::or(answer_to(wire, versions), late).await, is_covered) {
        (Ok(outcome), _) => outcome.map_err(NotGreeted::Refused),
        (Err(error), _) if error.kind() == io::ErrorKind::TimedOut => {
            Err(NotGreeted::Refused(format!("it gives no answer within {} s", HANDSHAKE_MAX.as_secs())))
        }
        // Whatever is wrong with our certificate is told in a way that ends the session.
        (Err(error), true) if error.kind() == io::ErrorKind::InvalidData => {
            Err(NotGreeted::NoTls(error.to_string()))
        }
        (Err(_), true) if versions.is_none() => {
            Err(NotGreeted::NoTls("it ended the connection: its log says why".to_owned()))
        }
        (Err(_), _) => Err(NotGreeted::InSilence),
    }
}

/// What the other side says to a greeting: the version, or why not.
async fn answer_to(wire: &Wire, versions: Option<Versions>) -> io::Result<Result<u16, String>> {
    let mut kind = [0; 1];
    wire.read_exact(&mut kind).await?;
    match (kind[0], versions) {
        (TAKEN, None) => return Ok(Ok(1)),
        (TAKEN | REFUSED, Some(_)) => {}
        _ => return Ok(Err("it doesn't answer as a Flotilla node does".to_owned())),
    }
    let mut number = [0; 2];
    wire.read_exact(&mut number).await?;
    let number = u16::from_le_bytes(number);
    if kind[0] == TAKEN {
        let is_ours = versions.is_some_and(|ours| (ours.lowest..=ours.highest).contains(&number));
        return Ok(match is_ours {
            true => Ok(number),
            false => Err(format!("it wants to speak version {number} of the nodes' protocol")),
        });
    }
    let mut words = vec![0; usize::from(number)];
    wire.read_exact(&mut words).await?;
    Ok(Err(String::from_utf8_lossy(&words).into_owned()))
}

async fn connect<M: Machine + 'static>(core: &CoreLoop<M>, link: &Link) -> io::Result<Rc<Socket>> {
    let too_long = async {
        core.poller.sleep(CONNECT_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    futures_lite::future::or(Socket::connect(link.to.address, &core.poller), too_long).await
}

/// Accepts links from peers for ever.
pub(super) async fn accept<M: Machine + 'static>(
    core: Rc<CoreLoop<M>>,
    listener: Listener,
    shared: Arc<NodeShared>,
) {
    for number in 0.. {
        match listener.accept().await {
            Ok(stream) => {
                let (core, shared) = (Rc::clone(&core), Arc::clone(&shared));
                let from = stream.peer_addr();
                let Ok(socket) = Socket::new(stream, &core.poller) else { continue };
                core.incoming.borrow_mut().insert(number, Rc::clone(&socket));
                let tasks = Rc::clone(&core.tasks);
                let task = async move {
                    let wire = Wire::new(socket);
                    let caller = from.map_or_else(|_| "somebody".to_owned(), |from| from.to_string());
                    match answer(&core, shared.options(), &wire).await {
                        Ok(()) => {}
                        Err(Refusal::Broken(reason)) => {
                            tracing::warn!(%reason, "a link from a peer was closed")
                        }
                        Err(Refusal::Greeting(reason)) => {
                            core.complaints.no_link(&format!("{caller}, at the peers' port"), &reason);
                            wire.outlet.end();
                        }
                        Err(Refusal::Tls(reason)) => {
                            core.vitals.tls_failures.count();
                            core.complaints.no_tls(&format!("{caller}, at the peers' port"), &reason);
                            wire.outlet.end();
                        }
                    }
                    core.incoming.borrow_mut().remove(&number);
                };
                tasks.spawn("peer", task).detach();
            }
            Err(error) => {
                tracing::warn!(%error, "can't accept a peer");
                core.poller.sleep(RETRY).await;
            }
        }
    }
}

/// The core ends: no peer goes on sending to nobody.
pub(super) fn cut_all<M: Machine + 'static>(core: &CoreLoop<M>) {
    for socket in core.incoming.borrow().values() {
        socket.shutdown(std::net::Shutdown::Both);
    }
}

/// Why a link was closed.
enum Refusal {
    /// What came over it can't be.
    Broken(String),
    /// Who called isn't who it must be, or speaks what this node doesn't.
    Greeting(String),
    /// There was no TLS with it, or its certificate isn't its own.
    Tls(String),
}

/// Serves a peer, after a handshake where TLS is spoken.
async fn answer<M: Machine + 'static>(
    core: &Rc<CoreLoop<M>>,
    options: &NodeOptions,
    wire: &Wire,
) -> Result<(), Refusal> {
    let cover = core.tls();
    if let Some(tls) = &cover.peers {
        let session = Tls::answer(&tls.server).map_err(|error| Refusal::Tls(error.to_string()))?;
        wire.secure(session).await.map_err(Refusal::Tls)?;
    }
    let (hello, versions) = greeted(options, wire).await.map_err(Refusal::Greeting)?;
    let outcome = taken(core, options, &hello, versions).map_err(Refusal::Greeting).and_then(|version| {
        let checked = cover.peers.as_ref().map_or(Ok(()), |tls| check_host(tls, hello.from.node, wire));
        checked.map(|()| version).map_err(Refusal::Tls)
    });
    if versions.is_some() {
        let told = outcome.as_ref().map(|version| *version).map_err(|refusal| match refusal {
            Refusal::Broken(why) | Refusal::Greeting(why) | Refusal::Tls(why) => why.as_str(),
        });
        wire.outlet.send(&greeting::answer(told));
    } else if outcome.is_ok() && cover.peers.is_some() {
        wire.outlet.send(&[TAKEN]);
    }
    outcome?;
    serve(core, hello.from, wire).await.map_err(Refusal::Broken)
}

/// A certificate that an authority has signed is a node's only if it is for that node's host.
fn check_host(tls: &PeerTls, node: NodeId, wire: &Wire) -> Result<(), String> {
    let name = tls.names.get(&node).ok_or_else(|| format!("there is no node {} in `nodes`", node.0))?;
    if !tls.checks_host || wire.is_certified_for(name) {
        return Ok(());
    }
    let host = name.to_str();
    Err(format!(
        "it says that it is node {}, and its certificate isn't for that node's host {host}: see tls.peer_hosts",
        node.0
    ))
}

/// Who calls, and which versions it speaks: none, if it doesn't say so, as the first didn't.
async fn greeted(options: &NodeOptions, wire: &Wire) -> Result<(Hello, Option<Versions>), String> {
    let no_greeting = |error: io::Error| format!("no greeting: {error}");
    let mut hello = [0; HELLO_BYTES];
    wire.read_exact(&mut hello).await.map_err(no_greeting)?;
    let decoded = Hello::decode(&hello).filter(|(_, says_so)| options.versions.says_so() || !says_so);
    let (hello, says_so) =
        decoded.ok_or("what connected isn't a Flotilla node, or one of a newer version")?;
    if !says_so {
        return Ok((hello, None));
    }
    let mut versions = [0; VERSIONS_BYTES];
    wire.read_exact(&mut versions).await.map_err(no_greeting)?;
    Ok((hello, Some(greeting::versions(versions))))
}

/// The version that is spoken with whoever greets so, or why it is turned away.
fn taken<M: Machine + 'static>(
    core: &CoreLoop<M>,
    options: &NodeOptions,
    hello: &Hello,
    versions: Option<Versions>,
) -> Result<u16, String> {
    if hello.cluster != options.cluster {
        return Err(format!(
            "node {} belongs to another cluster: check both configurations",
            hello.from.node.0
        ));
    }
    let me = PeerId { node: options.node, core: core.id };
    if hello.to != me {
        return Err(format!(
            "node {} was looking for core {} of node {} and found core {} of node {}: check hosts and ports",
            hello.from.node.0, hello.to.core.0, hello.to.node.0, me.core.0, me.node.0
        ));
    }
    let theirs = versions.unwrap_or(Versions { lowest: 1, highest: 1 });
    greeting::agree(hello.from.node, theirs, options.versions)
}

async fn serve<M: Machine + 'static>(
    core: &Rc<CoreLoop<M>>,
    from: PeerId,
    wire: &Wire,
) -> Result<(), String> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        match wire.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => filled += count,
        }
        let consumed = take_frames(core, from, &buffer[..filled])?;
        if consumed > 0 {
            buffer.copy_within(consumed..filled, 0);
            filled -= consumed;
        }
        make_room(core, &mut buffer, filled)?;
    }
}

/// Hands every whole frame to the machine; returns the bytes consumed.
fn take_frames<M: Machine + 'static>(
    core: &CoreLoop<M>,
    from: PeerId,
    bytes: &[u8],
) -> Result<usize, String> {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + FRAME_HEADER_BYTES) {
        let word = |i: usize| u32::from_le_bytes(header[i..i + 4].try_into().expect("four bytes of eight"));
        let start = at + FRAME_HEADER_BYTES;
        let Some(frame) = bytes.get(start..start + word(0) as usize) else { break };
        if crc32fast::hash(frame) != word(4) {
            return Err(format!("a frame from node {} was damaged on its way", from.node.0));
        }
        core.vitals.peer_frames_in.count();
        core.vitals.peer_bytes_in.add(frame.len() as u64);
        core.step(Event::Peer { from, frame });
        at = start + frame.len();
    }
    Ok(at)
}

/// Grows the buffer to what the frame at its front needs.
fn make_room<M: Machine + 'static>(
    core: &CoreLoop<M>,
    buffer: &mut Vec<u8>,
    filled: usize,
) -> Result<(), String> {
    if filled < FRAME_HEADER_BYTES {
        return Ok(());
    }
    let length = u32::from_le_bytes(buffer[..4].try_into().expect("four bytes")) as usize;
    if length > core.limits().peer_frame_bytes_max {
        return Err(format!("a frame of {length} bytes is over the limit"));
    }
    let needed = length + FRAME_HEADER_BYTES;
    if needed > buffer.len() {
        buffer.resize(needed.next_multiple_of(BUFFER_BYTES), 0);
    } else if filled == buffer.len() {
        buffer.resize(filled * 2, 0);
    }
    Ok(())
}
