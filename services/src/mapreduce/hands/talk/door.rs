//! A port that others connect to.
//!
//! Whoever comes has a thread of its own from the first byte on, so nobody who is slow at shaking hands keeps others from the door; a
//! handshake has a limit of time, and so has silence.

use super::cover::Cover;
use super::trouble::{self, Complaints, PLAIN_ONLY, TLS_ONLY};
use super::{Stream, WELCOME, Within, host_of};
use crate::hands::{pause, spawn, try_spawn};
use rustls::{ServerConnection, StreamOwned};
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long callers may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the first byte, and for the whole handshake.
    pub(super) handshake: Duration,
    /// Who has asked nothing for so long is cut off, and connects again when it wants something.
    pub(super) silence: Duration,
    /// Who doesn't take a part of its answer within this is cut off.
    pub(super) taking: Duration,
}

const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(10),
    silence: Duration::from_secs(60),
    taking: Duration::from_secs(10),
};
/// A caller that is turned away has so long to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// Before the next try, if nobody can be let in.
const AGAIN: Duration = Duration::from_millis(20);
/// At the same time; each has a thread. More are turned away.
const CALLERS_MAX: usize = 4096;
/// Of a TLS record that begins a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;

/// What is behind a door.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// What it is, for the log.
    pub what: &'static str,
    /// The answer, in clear, to who comes without TLS or with it and shouldn't.
    pub refusal: fn(&str) -> String,
}

/// A port, open and not yet served.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    address: String,
    keeper: Arc<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    cover: Option<Cover>,
    manner: Manner,
    limits: Limits,
    complaints: Complaints,
}

impl Door {
    /// Listens at `host:port`; port 0: any that is free.
    ///
    /// # Errors
    /// If it can't.
    pub fn open(listen: &str, cover: Option<Cover>, manner: Manner) -> io::Result<Self> {
        Self::open_with(listen, cover, manner, LIMITS)
    }

    pub(super) fn open_with(
        listen: &str,
        cover: Option<Cover>,
        manner: Manner,
        limits: Limits,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        // The host as it was given: a certificate may be for its name.
        let address = format!("{}:{}", host_of(listen), listener.local_addr()?.port());
        let keeper = Arc::new(Keeper { cover, manner, limits, complaints: Complaints::default() });
        Ok(Self { listener, address, keeper })
    }

    /// Where others find it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether TLS is spoken here, and nothing else.
    pub fn is_covered(&self) -> bool {
        self.keeper.cover.is_some()
    }

    /// Looks, each time anew, whether others would take this door's certificate.
    pub fn check(&self) -> impl Fn() -> Result<(), String> + use<> {
        let (cover, host) = (self.keeper.cover.clone(), host_of(&self.address).to_owned());
        move || cover.as_ref().map_or(Ok(()), |cover| cover.rehearse(&host))
    }

    /// Whether anybody may come in who reaches it, from other machines, too.
    pub fn is_open_to_all(&self) -> bool {
        !self.is_covered() && self.listener.local_addr().is_ok_and(|at| !at.ip().is_loopback())
    }

    /// Lets in whoever may come, from now on, each into a thread of its own.
    pub fn serve(self, talk: impl Fn(BufReader<Stream>) -> io::Result<()> + Send + Sync + 'static) {
        let (Self { listener, keeper, .. }, talk) = (self, Arc::new(talk));
        let _ = spawn(move || {
            loop {
                let Ok((socket, from)) = listener.accept() else {
                    // Too many open files, for one: that passes.
                    pause(AGAIN);
                    continue;
                };
                if Arc::strong_count(&keeper) > CALLERS_MAX {
                    keeper.complain(from, "there are too many others");
                    continue;
                }
                let (own, talk) = (Arc::clone(&keeper), Arc::clone(&talk));
                let begun = try_spawn(move || {
                    if let Some(stream) = own.receive(socket, from) {
                        // However it ends, the other side notices and asks again.
                        let _ = talk(BufReader::new(stream));
                    }
                });
                if let Err(error) = begun {
                    keeper.complain(from, &format!("there is no thread for it: {error}"));
                }
            }
        });
    }
}

impl Keeper {
    fn complain(&self, from: SocketAddr, reason: &str) {
        if self.complaints.is_to_be_told(&format!("{} {reason}", from.ip())) {
            tracing::warn!(%from, reason, "somebody who came to {} was turned away", self.manner.what);
        }
    }

    /// `None`: it was turned away, or has gone.
    fn receive(&self, socket: TcpStream, from: SocketAddr) -> Option<Stream> {
        let mut first = [0];
        socket.set_nodelay(true).and_then(|()| socket.set_read_timeout(Some(self.limits.handshake))).ok()?;
        // One that says nothing has no reason to be here, and nothing to be told.
        if socket.peek(&mut first).ok()? == 0 {
            return None;
        }
        let stream = match (&self.cover, first[0] == HANDSHAKE_RECORD) {
            (None, false) => Stream::Plain(socket),
            (Some(cover), true) => self.shake(socket, from, cover)?,
            (None, true) => {
                self.complain(from, "it speaks TLS, and this worker doesn't: start this one with --tls-ca, --tls-cert and --tls-key, or that without");
                return self.turn_away(socket, PLAIN_ONLY);
            }
            (Some(_), false) => {
                self.complain(from, "it speaks no TLS: give it --tls-ca, --tls-cert and --tls-key");
                return self.turn_away(socket, TLS_ONLY);
            }
        };
        stream.limit(self.limits.silence, self.limits.taking).ok()?;
        Some(stream)
    }

    fn turn_away(&self, mut socket: TcpStream, why: &str) -> Option<Stream> {
        // Gone already, at worst.
        let _ = socket.set_write_timeout(Some(FAREWELL));
        let _ = socket.write_all((self.manner.refusal)(why).as_bytes());
        part(socket);
        None
    }

    fn shake(&self, socket: TcpStream, from: SocketAddr, cover: &Cover) -> Option<Stream> {
        let session = ServerConnection::new(cover.server()?).ok()?;
        let mut stream = StreamOwned::new(session, Within::new(socket, self.limits.handshake));
        let shaken = shake_hands(&mut stream);
        let StreamOwned { conn, sock: Within { socket, .. } } = stream;
        if let Err(error) = shaken {
            if let Some(reason) = trouble::of_called(&error, cover) {
                self.complain(from, &reason);
            }
            part(socket);
            return None;
        }
        Some(Stream::Called(Box::new(StreamOwned::new(conn, socket))))
    }
}

fn shake_hands(stream: &mut StreamOwned<ServerConnection, Within>) -> io::Result<()> {
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    stream.write_all(&[WELCOME])?;
    stream.flush()
}

/// Closes a connection so that what was said last arrives: a socket that is closed with something unread takes it back.
fn part(socket: TcpStream) {
    let _ = socket.shutdown(Shutdown::Write);
    let mut rest = Within::new(socket, FAREWELL);
    let mut bytes = [0; 1 << 12];
    while rest.read(&mut bytes).is_ok_and(|count| count > 0) {}
}
