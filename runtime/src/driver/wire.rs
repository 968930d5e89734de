//! A connection as its bytes go over it: plain, or under TLS.
//!
//! rustls keeps no socket: ciphertext is fed to it and taken out of it. What the machine says is sealed in the turn in which it
//! is said, and handed to the kernel at once, as plain bytes are.

use super::outlet::Outlet;
use super::poller::Socket;
use rustls::{ClientConfig, ServerConfig, ServerConnection};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::machine::NodeId;
use rustls::pki_types::ServerName;

/// Bytes read from the socket at once: a record and what is around it.
const CHUNK_BYTES: usize = 18 * 1024;
/// The first byte of a TLS connection: a handshake record. No command begins with it.
pub(super) const HANDSHAKE_RECORD: u8 = 0x16;
/// Whoever hasn't finished a handshake by then is cut off.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// TLS with clients.
#[derive(Clone)]
pub struct ClientTls {
    /// What they are answered with.
    pub config: Arc<ServerConfig>,
    /// Nothing else is spoken on the same port.
    pub is_required: bool,
}

/// TLS between nodes.
#[derive(Clone)]
pub struct PeerTls {
    /// What they are answered with.
    pub server: Arc<ServerConfig>,
    /// What they are called with.
    pub client: Arc<ClientConfig>,
    /// Every other node's host.
    pub names: BTreeMap<NodeId, ServerName<'static>>,
    /// A node's certificate must be for its host, whichever side it is on.
    pub checks_host: bool,
}

/// Under what cover a node speaks.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// With clients.
    pub clients: Option<ClientTls>,
    /// With other nodes.
    pub peers: Option<PeerTls>,
}

impl fmt::Debug for TlsOptions {
    /// No keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clients, peers) = (self.clients.is_some(), self.peers.is_some());
        f.debug_struct("TlsOptions").field("clients", &clients).field("peers", &peers).finish()
    }
}

/// One TLS session, without its socket.
pub(super) struct Tls {
    session: RefCell<rustls::Connection>,
    /// Ciphertext that the session hasn't taken yet.
    input: RefCell<Vec<u8>>,
    /// Where the socket is read to; taken while it is.
    chunk: RefCell<Vec<u8>>,
    /// The session has no plain bytes that nobody has read.
    is_read_out: Cell<bool>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    fn new(session: impl Into<rustls::Connection>) -> Rc<Self> {
        let mut session = session.into();
        // Whatever it takes leaves in the same turn.
        session.set_buffer_limit(None);
        let (session, input) = (RefCell::new(session), RefCell::default());
        // It may have some right behind the handshake.
        Rc::new(Self {
            session,
            input,
            chunk: RefCell::new(vec![0; CHUNK_BYTES]),
            is_read_out: Cell::new(false),
        })
    }

    /// The answering side.
    ///
    /// # Errors
    /// If the configuration can't be used.
    pub(super) fn answer(config: &Arc<ServerConfig>) -> io::Result<Rc<Self>> {
        Ok(Self::new(ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?))
    }

    /// The calling side.
    ///
    /// # Errors
    /// If the configuration can't be used.
    pub(super) fn call(config: &Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Rc<Self>> {
        Ok(Self::new(rustls::ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?))
    }

    /// Ciphertext of these bytes, and of whatever else has to be said.
    ///
    /// # Errors
    /// The session is over.
    pub(super) fn seal(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut session = self.session.borrow_mut();
        session.writer().write_all(plain)?;
        Ok(Self::take(&mut session))
    }

    /// Ciphertext of what the session has to say by itself: a part of the handshake, an alert.
    pub(super) fn unsent(&self) -> Vec<u8> {
        Self::take(&mut self.session.borrow_mut())
    }

    /// Ciphertext of the end of what is sent.
    pub(super) fn farewell(&self) -> Vec<u8> {
        let mut session = self.session.borrow_mut();
        session.send_close_notify();
        Self::take(&mut session)
    }

    fn take(session: &mut rustls::Connection) -> Vec<u8> {
        let mut sealed = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut sealed).expect("a vector takes everything");
        }
        sealed
    }

    /// Ciphertext has arrived.
    pub(super) fn feed(&self, bytes: &[u8]) {
        self.input.borrow_mut().extend_from_slice(bytes);
    }

    /// Plain bytes of what has arrived; `None` if there are none yet.
    fn open(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            self.is_read_out.set(false);
            match self.session.borrow_mut().reader().read(buffer) {
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_read_out.set(true),
                Err(error) => return Err(error),
            }
            if !self.digest()? {
                return Ok(None);
            }
        }
    }

    /// Lets the session take of what has arrived; whether there was anything.
    fn digest(&self) -> io::Result<bool> {
        let mut input = self.input.borrow_mut();
        if input.is_empty() {
            return Ok(false);
        }
        let mut session = self.session.borrow_mut();
        let taken = session.read_tls(&mut &input[..])?;
        input.drain(..taken);
        let state = session.process_new_packets();
        state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(true)
    }

    /// Whether something has arrived that hasn't been read.
    fn has_more(&self) -> bool {
        !self.input.borrow().is_empty() || !self.is_read_out.get()
    }

    fn is_handshaking(&self) -> bool {
        self.session.borrow().is_handshaking()
    }
}

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) socket: Rc<Socket>,
    pub(super) outlet: Rc<Outlet>,
}

impl Wire {
    /// Plain, until [`Self::secure`].
    pub(super) fn new(socket: Rc<Socket>) -> Self {
        let outlet = Outlet::new(Rc::clone(&socket));
        Self { socket, outlet }
    }

    /// From here on under TLS: shakes hands.
    ///
    /// # Errors
    /// In words, what is wrong with whom.
    pub(super) async fn secure(&self, tls: Rc<Tls>) -> Result<(), String> {
        self.outlet.cover(Rc::clone(&tls));
        let shake = async {
            while tls.is_handshaking() {
                self.outlet.send_unsent();
                if !self.digest(&tls)? && self.fetch(&tls).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
            self.outlet.send_unsent();
            Ok(())
        };
        let late = async {
            self.socket.poller().sleep(HANDSHAKE_MAX).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let shaken: io::Result<()> = futures_lite::future::or(shake, late).await;
        shaken.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "the other side ended the connection".to_owned(),
            io::ErrorKind::TimedOut => format!("not done within {} s", HANDSHAKE_MAX.as_secs()),
            _ => error.to_string(),
        })
    }

    /// An alert goes out before the error is told.
    fn digest(&self, tls: &Tls) -> io::Result<bool> {
        tls.digest().inspect_err(|_| self.outlet.send_unsent())
    }

    async fn fetch(&self, tls: &Tls) -> io::Result<usize> {
        let mut chunk = tls.chunk.take();
        let read = self.socket.read(&mut chunk).await;
        if let Ok(count) = read {
            tls.feed(&chunk[..count]);
        }
        tls.chunk.replace(chunk);
        read
    }

    /// Waits until something can be read, or the end is near. What has arrived may turn out to be nothing to read, under TLS.
    pub(super) async fn until_readable(&self) {
        if !self.outlet.tls().is_some_and(|tls| tls.has_more()) {
            self.socket.until_readable().await;
        }
    }

    /// Reads what is there, waiting until something is; 0 at the end.
    ///
    /// # Errors
    /// The connection is broken, or what came over it can't be trusted.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = self.outlet.tls() else { return self.socket.read(buffer).await };
        loop {
            let opened = tls.open(buffer);
            // Keys are renewed, sessions resumed: there may be something to say to that.
            self.outlet.send_unsent();
            if let Some(count) = opened? {
                return Ok(count);
            }
            if self.fetch(tls).await? == 0 {
                return Ok(0);
            }
        }
    }

    /// Reads until the buffer is full.
    ///
    /// # Errors
    /// As [`Self::read`]; `UnexpectedEof` if the other side ends before.
    pub(super) async fn read_exact(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }

    /// Whether the other side's certificate is for that host.
    pub(super) fn is_certified_for(&self, host: &ServerName<'_>) -> bool {
        let Some(tls) = self.outlet.tls() else { return false };
        let session = tls.session.borrow();
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let parsed = certificate.and_then(|it| rustls::server::ParsedCertificate::try_from(it).ok());
        parsed.is_some_and(|it| rustls::client::verify_server_name(&it, host).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Authorities, Certificates, Identity, client, host_name, server};

    /// Two sessions that trust the same self-signed certificate.
    fn pair() -> (Rc<Tls>, Rc<Tls>) {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (folder.path().join("cert"), folder.path().join("key"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let (identity, authorities) =
            (Identity::read(&cert, &key).unwrap(), Authorities::read(&cert).unwrap());
        let answering =
            Tls::answer(&server(&identity, &authorities, Certificates::NotAsked).unwrap()).unwrap();
        let name = host_name("localhost").unwrap();
        (Tls::call(&client(None, &authorities).unwrap(), name).unwrap(), answering)
    }

    /// Carries ciphertext to and fro, in pieces of `piece` bytes, until nobody has anything to say.
    fn carry(one: &Tls, other: &Tls, piece: usize) {
        loop {
            let mut is_quiet = true;
            for (from, to) in [(one, other), (other, one)] {
                for bytes in from.unsent().chunks(piece) {
                    is_quiet = false;
                    to.feed(bytes);
                    while to.is_handshaking() && to.digest().unwrap() {}
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    #[test]
    fn whatever_is_sealed_is_opened_however_it_is_cut() {
        for piece in [1, 7, 1000, 1 << 20] {
            let (one, other) = pair();
            carry(&one, &other, piece);
            assert!(!one.is_handshaking() && !other.is_handshaking());
            let text: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
            let (mut got, mut buffer) = (Vec::new(), [0; 1000]);
            for bytes in one.seal(&text).unwrap().chunks(piece.max(100)) {
                other.feed(bytes);
                while let Some(count) = other.open(&mut buffer).unwrap() {
                    got.extend_from_slice(&buffer[..count]);
                }
            }
            assert!(got == text);
            other.feed(&one.farewell());
            assert_eq!(other.open(&mut buffer).unwrap(), Some(0));
        }
    }

    #[test]
    fn what_is_no_tls_is_an_error_with_an_alert() {
        let (_, answering) = pair();
        answering.feed(b"*1\r\n$4\r\nPING\r\n");
        assert!(answering.digest().is_err());
        assert!(!answering.unsent().is_empty());
    }
}
