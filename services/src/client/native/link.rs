//! One connection of the native client.

use super::super::security::{greeted, name_of};
use super::super::{ClientError, Reply, Security, parse_reply};
use crate::resp::encode;
use async_net::TcpStream;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use std::io;

/// Bytes asked for at once.
const CHUNK_BYTES: usize = 16 << 10;

/// Plain, or under TLS.
#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    async fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(chunk).await,
            Self::Tls(stream) => stream.read(chunk).await,
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }
}

/// A connection to one core, used by one call at a time.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: String,
    stream: Stream,
    input: Vec<u8>,
}

impl Link {
    pub(super) async fn open(address: &str, security: &Security) -> Result<Self, ClientError> {
        let io = |source| ClientError::Io { address: address.to_owned(), source };
        let stream = TcpStream::connect(address).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        let stream = match &security.tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let name = name_of(address).map_err(|error| io(io::Error::other(error)))?;
                let connected = TlsConnector::from(tls.config()).connect(name, stream).await;
                Stream::Tls(Box::new(connected.map_err(io)?))
            }
        };
        let mut this = Self { address: address.to_owned(), stream, input: Vec::new() };
        if let Some(greeting) = security.greeting() {
            let reply = this.call(&greeting).await?;
            greeted(address, reply)?;
        }
        Ok(this)
    }

    /// Sends a command and waits for its reply. After an error, or if it is dropped before its end, the connection is of no
    /// use any more.
    pub(super) async fn call(&mut self, command: &[&[u8]]) -> Result<Reply, ClientError> {
        let mut bytes = Vec::new();
        encode(command, &mut bytes);
        let sent = self.stream.write_all(&bytes).await;
        sent.map_err(|source| self.io(source))?;
        loop {
            match parse_reply(&self.input) {
                Ok(Some((reply, consumed))) => {
                    self.input.drain(..consumed);
                    return Ok(reply);
                }
                Ok(None) => {}
                Err(what) => return Err(ClientError::Protocol { address: self.address.clone(), what }),
            }
            let mut chunk = [0; CHUNK_BYTES];
            let count = self.stream.read(&mut chunk).await.map_err(|source| self.io(source))?;
            if count == 0 {
                return Err(self.io(io::ErrorKind::UnexpectedEof.into()));
            }
            self.input.extend_from_slice(&chunk[..count]);
        }
    }

    fn io(&self, source: io::Error) -> ClientError {
        ClientError::Io { address: self.address.clone(), source }
    }
}
