//! Connections between workers, and between them and who submits jobs: plain, or under mutual TLS.
//!
//! | module | what |
//! |---|---|
//! | [`cover`] | certificates: what TLS is spoken with |
//! | [`door`] | a port: whoever comes has a thread, and limits of time |
//! | [`trouble`] | why there is no TLS with somebody, in words that say what to do |
//!
//! **Who has certificates speaks TLS and nothing else, who hasn't speaks none**, whatever the other side says of itself: so nobody can
//! talk a worker out of it. Each side shows a certificate that an authority of the other's has signed.
//!
//! ```text
//! caller: connect, handshake ──> called: handshake, "+" ──> caller: requests
//! ```
//!
//! In TLS 1.3 a caller's handshake is done before its certificate was looked at. So the called says one byte when it was, and whoever is
//! turned away hears why before it has asked anything.

pub mod cover;
pub mod door;
pub mod trouble;

use crate::hands::Stopwatch;
use cover::Cover;
use flotilla_runtime::tls;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;
use trouble::NoTls;

const CONNECT: Duration = Duration::from_secs(2);
/// A caller waits so long for the end of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The called says so when the caller's certificate is good.
const WELCOME: u8 = b'+';

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Under TLS, from the side that has opened it.
    Caller(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// Under TLS, from the other side.
    Called(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Caller(stream) => &stream.sock,
            Self::Called(stream) => &stream.sock,
        }
    }

    /// From now on: how long to wait for the other side to say something, and to take something.
    fn limit(&self, reading: Duration, writing: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(Some(reading))?;
        self.socket().set_write_timeout(Some(writing))
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Caller(stream) => stream.read(into),
            Self::Called(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Caller(stream) => stream.write(bytes),
            Self::Called(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Caller(stream) => stream.flush(),
            Self::Called(stream) => stream.flush(),
        }
    }
}

/// Connects to `address`, `host:port`, under `cover` if there is one. Later each answer is waited for so long.
///
/// # Errors
/// Nobody there, or no TLS with whoever is: then [`NoTls::is_in`] the error.
pub fn connect(address: &str, cover: Option<&Cover>, answer: Duration) -> io::Result<BufReader<Stream>> {
    let socket = dial(address)?;
    socket.set_nodelay(true)?;
    let stream = match cover {
        None => Stream::Plain(socket),
        Some(cover) => shake(address, socket, cover)?,
    };
    stream.limit(answer, answer)?;
    Ok(BufReader::new(stream))
}

/// A name may have several addresses, of which one is listened at.
fn dial(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, CONNECT) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn shake(address: &str, socket: TcpStream, cover: &Cover) -> io::Result<Stream> {
    let name = tls::host_name(host_of(address)).map_err(io::Error::other)?;
    let session = ClientConnection::new(cover.client(), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, Within::new(socket, HANDSHAKE));
    let mut welcome = [0];
    let shaken = stream.flush().and_then(|()| stream.read_exact(&mut welcome));
    shaken.map_err(|error| match trouble::of_caller(address, &error, cover) {
        Some(why) => NoTls(why).into(),
        None => error,
    })?;
    if welcome != [WELCOME] {
        return Err(io::Error::other(format!("{address} speaks TLS, and is no worker")));
    }
    Ok(Stream::Caller(Box::new(StreamOwned::new(stream.conn, stream.sock.socket))))
}

/// The host of `host:port`, as it was given.
pub fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// A socket for something that has to be done within a time, however many pieces it comes in.
#[derive(Debug)]
struct Within {
    socket: TcpStream,
    clock: Stopwatch,
    limit: Duration,
}

impl Within {
    fn new(socket: TcpStream, limit: Duration) -> Self {
        Self { socket, clock: Stopwatch::start(), limit }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.limit.saturating_sub(self.clock.elapsed());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// What the system says when the time is over.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

impl Read for Within {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(into).map_err(timed_out)
    }
}

impl Write for Within {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
