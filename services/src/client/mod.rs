//! A small blocking client: one connection, or a cluster of them with a routing table.
//!
//! For the command line, the demo and tests. It numbers nothing: a write whose reply is lost may or may not have
//! happened, and [`Cluster::execute`] retries such a command only because its callers say that they don't mind.

mod cluster;
mod lock;
mod native;
mod reply;
mod security;
mod versions;

pub use cluster::{Cluster, Seeds};
pub use lock::{Held, Lock};
pub use native::{Client, ClientOptions};
pub use reply::{Reply, parse as parse_reply};
pub use security::{ClientTls, Security};
pub use versions::{PutError, Versions};

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Plain, or under TLS.
#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Stream {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(chunk),
            Self::Tls(stream) => stream.read(chunk),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }
}

/// Why a command got no useful answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody there, or the connection broke.
    #[error("{address}: {source}")]
    Io {
        /// Whom we talked to.
        address: String,
        /// What happened.
        source: io::Error,
    },
    /// What came back isn't the protocol.
    #[error("{address} doesn't speak the Redis protocol: {what}")]
    Protocol {
        /// Whom we talked to.
        address: String,
        /// What was wrong.
        what: String,
    },
    /// The command was answered with an error.
    #[error("{0}")]
    Refused(String),
    /// A write was sent and never answered: it took effect once or not at all.
    #[error("the write may have taken effect or not; the last word was: {last}")]
    Unknown {
        /// The last error.
        last: String,
    },
    /// No node gave an answer in time.
    #[error("no answer within {seconds:.1} s; the last word was: {last}")]
    TimedOut {
        /// How long was tried.
        seconds: f64,
        /// The last error.
        last: String,
    },
}

/// One connection to one core.
#[derive(Debug)]
pub struct Connection {
    address: String,
    stream: Stream,
    input: Vec<u8>,
    start: usize,
}

impl Connection {
    /// Connects; every later wait is bounded by `timeout` as well.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn open(address: &str, timeout: Duration) -> Result<Self, ClientError> {
        let io = |source| ClientError::Io { address: address.to_owned(), source };
        let resolved = address.to_socket_addrs().map_err(io)?.next();
        let resolved = resolved.ok_or_else(|| io(io::Error::other("the name has no address")))?;
        let stream = TcpStream::connect_timeout(&resolved, timeout).map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        stream.set_read_timeout(Some(timeout)).map_err(io)?;
        stream.set_write_timeout(Some(timeout)).map_err(io)?;
        Ok(Self { address: address.to_owned(), stream: Stream::Plain(stream), input: Vec::new(), start: 0 })
    }

    /// Connects under cover, and says who it is.
    ///
    /// # Errors
    /// [`ClientError::Io`], also if there is no TLS with that address; [`ClientError::Refused`] for a wrong password.
    pub fn open_secured(address: &str, timeout: Duration, security: &Security) -> Result<Self, ClientError> {
        let mut this = Self::open(address, timeout)?;
        if let Some(tls) = &security.tls {
            let io = |source| ClientError::Io { address: address.to_owned(), source };
            let name = security::name_of(address).map_err(|error| io(io::Error::other(error)))?;
            let session = rustls::ClientConnection::new(tls.config(), name);
            let session = session.map_err(|error| io(io::Error::other(error)))?;
            if let Stream::Plain(stream) = this.stream {
                let mut stream = rustls::StreamOwned::new(session, stream);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock).map_err(io)?;
                }
                this.stream = Stream::Tls(Box::new(stream));
            }
        }
        if let Some(greeting) = security.greeting() {
            let reply = this.execute(&greeting)?;
            security::greeted(address, reply)?;
        }
        Ok(this)
    }

    /// Sends commands in one write; their replies follow in order through [`Self::receive`].
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn send<'a>(
        &mut self,
        commands: impl IntoIterator<Item = &'a [&'a [u8]]>,
    ) -> Result<(), ClientError> {
        let mut bytes = Vec::new();
        for command in commands {
            crate::resp::encode(command, &mut bytes);
        }
        self.stream.write_all(&bytes).map_err(|source| self.io(source))
    }

    /// Waits for the next reply.
    ///
    /// # Errors
    /// [`ClientError::Io`] and [`ClientError::Protocol`]; an error reply is a [`Reply::Error`], not an error.
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        loop {
            match reply::parse(&self.input[self.start..]) {
                Ok(Some((reply, consumed))) => {
                    self.start += consumed;
                    if self.start == self.input.len() {
                        self.input.clear();
                        self.start = 0;
                    }
                    return Ok(reply);
                }
                Ok(None) => self.fill()?,
                Err(what) => return Err(ClientError::Protocol { address: self.address.clone(), what }),
            }
        }
    }

    /// One command, one reply.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn execute(&mut self, command: &[&[u8]]) -> Result<Reply, ClientError> {
        self.send([command])?;
        self.receive()
    }

    fn fill(&mut self) -> Result<(), ClientError> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk).map_err(|source| self.io(source))?;
        if count == 0 {
            return Err(self.io(io::ErrorKind::UnexpectedEof.into()));
        }
        self.input.drain(..self.start);
        self.start = 0;
        self.input.extend_from_slice(&chunk[..count]);
        Ok(())
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io { address: self.address.clone(), source }
    }
}
