//! Links from and to other nodes: one TCP connection a direction.
//!
//! ```text
//! hello  "FLP1" │ cluster u64 │ incarnation u64 │ from node u32, core u16 │ to node u32, core u16
//! frame  length u32 │ crc32 of the payload u32 │ payload
//! ```
//!
//! All little-endian. A frame whose checksum is wrong ends the link: Raft sends again over the next one.
//!
//! Under TLS both sides show certificates, and whoever answers says with one byte that it takes the greeting: until then the
//! caller can't know whether its certificate will do.

use super::core_loop::CoreLoop;
use super::outlet::Outlet;
use super::poller::{Listener, Socket};
use super::start::NodeShared;
use super::wire::{HANDSHAKE_MAX, PeerTls, Tls, Wire};
use super::{NodeOptions, PeerAddress};
use crate::machine::{CoreId, Event, Machine, NodeId, PeerId};
use crate::sync::Arc;
use crate::vitals::Vitals;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

const MAGIC: [u8; 4] = *b"FLP1";
const HELLO_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 8;
const BUFFER_BYTES: usize = 64 * 1024;
/// Between two tries to reach a peer.
const RETRY: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The same after one with which there was no TLS: that won't be mended in a moment.
const RETRY_TLS: Duration = Duration::from_secs(1);
/// Says that a greeting was taken, under TLS.
const WELCOME: u8 = 1;

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
        let mut bytes = self.scratch.take();
        bytes.clear();
        let length = u32::try_from(frame.len()).expect("frames are bounded far below 4 GiB");
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(frame).to_le_bytes());
        bytes.extend_from_slice(frame);
        outlet.send(&bytes);
        self.scratch.replace(bytes);
    }
}

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hello {
    cluster: u64,
    incarnation: u64,
    from: PeerId,
    to: PeerId,
}

impl Hello {
    fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..12].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.incarnation.to_le_bytes());
        for (at, peer) in [(20, self.from), (26, self.to)] {
            bytes[at..at + 4].copy_from_slice(&peer.node.0.to_le_bytes());
            bytes[at + 4..at + 6].copy_from_slice(&peer.core.0.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of 32"));
        let peer = |at: usize| PeerId {
            node: NodeId(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes of 32"))),
            core: CoreId(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]])),
        };
        let hello = Self { cluster: long(4), incarnation: long(12), from: peer(20), to: peer(26) };
        (bytes[0..4] == MAGIC).then_some(hello)
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
    let hello = Hello { cluster: options.cluster, incarnation: options.incarnation, from, to: peer }.encode();
    loop {
        if let Ok(socket) = connect(&core, &link).await {
            let wire = Wire::new(socket);
            if let Err(reason) = greet(&core, peer.node, &wire, &hello).await {
                let with = format!("node {} at {}", peer.node.0, link.to.address);
                core.vitals.tls_failures.count();
                core.complaints.no_tls(&with, &reason);
                wire.outlet.cut();
                core.poller.sleep(RETRY_TLS).await;
                continue;
            }
            let outlet = Rc::clone(&wire.outlet);
            *link.outlet.borrow_mut() = Some(Rc::clone(&outlet));
            tracing::info!(node = peer.node.0, core = peer.core.0, "link to peer is up");
            core.step(Event::PeerUp { peer });
            // Nothing ever comes back on this connection: an end or an error is all that can be read.
            let mut nothing = [0; 64];
            while wire.read(&mut nothing).await.is_ok_and(|count| count > 0) {}
            outlet.cut();
            *link.outlet.borrow_mut() = None;
            tracing::info!(
                node = peer.node.0,
                core = peer.core.0,
                dropped = link.dropped.get(),
                "link to peer is down"
            );
            core.step(Event::PeerDown { peer });
        }
        core.poller.sleep(RETRY).await;
    }
}

/// Says who is calling. Under TLS, after a handshake and until it is taken.
async fn greet<M: Machine + 'static>(
    core: &CoreLoop<M>,
    node: NodeId,
    wire: &Wire,
    hello: &[u8],
) -> Result<(), String> {
    let cover = core.tls();
    let Some(tls) = &cover.peers else {
        wire.outlet.send(hello);
        return Ok(());
    };
    let name = tls.names.get(&node).cloned().ok_or("its host isn't known")?;
    wire.secure(Tls::call(&tls.client, name).map_err(|error| error.to_string())?).await?;
    wire.outlet.send(hello);
    let mut welcome = [0; 1];
    let late = async {
        core.poller.sleep(HANDSHAKE_MAX).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let taken: io::Result<()> = futures_lite::future::or(wire.read_exact(&mut welcome), late).await;
    match taken {
        Ok(()) if welcome[0] == WELCOME => Ok(()),
        Ok(()) => Err("it doesn't answer as a Flotilla node does".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err("it ended the connection: its log says why".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
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
                tasks
                    .spawn("peer", async move {
                        let wire = Wire::new(socket);
                        match answer(&core, shared.options(), &wire).await {
                            Ok(()) => {}
                            Err(Refusal::Link(reason)) => {
                                tracing::warn!(%reason, "a link from a peer was closed")
                            }
                            Err(Refusal::Tls(reason)) => {
                                let from =
                                    from.map_or_else(|_| "somebody".to_owned(), |from| from.to_string());
                                core.vitals.tls_failures.count();
                                core.complaints.no_tls(&format!("{from}, at the peers' port"), &reason);
                                wire.outlet.end();
                            }
                        }
                        core.incoming.borrow_mut().remove(&number);
                    })
                    .detach();
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
    /// Who called isn't who it must be, or sends what can't be.
    Link(String),
    /// There was no TLS with it, or its certificate isn't its own.
    Tls(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Link(reason)
    }
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
    let from = greeted(core, options, wire).await?;
    if let Some(tls) = &cover.peers {
        check_host(tls, from.node, wire).map_err(Refusal::Tls)?;
        wire.outlet.send(&[WELCOME]);
    }
    Ok(serve(core, from, wire).await?)
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

/// Who calls.
async fn greeted<M: Machine + 'static>(
    core: &CoreLoop<M>,
    options: &NodeOptions,
    wire: &Wire,
) -> Result<PeerId, String> {
    let mut hello = [0; HELLO_BYTES];
    wire.read_exact(&mut hello).await.map_err(|error| format!("no greeting: {error}"))?;
    let hello = Hello::decode(&hello).ok_or("what connected isn't a Flotilla node")?;
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
    Ok(hello.from)
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
        buffer.copy_within(consumed..filled, 0);
        filled -= consumed;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_survives_its_bytes() {
        let peer = |node, core| PeerId { node: NodeId(node), core: CoreId(core) };
        let hello = Hello { cluster: 7, incarnation: 9, from: peer(1, 2), to: peer(3, 4) };
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        assert_eq!(Hello::decode(&[b'x'; HELLO_BYTES]), None);
    }
}
