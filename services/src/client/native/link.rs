//! One connection of the native client.

use super::super::{ClientError, Reply, encode, parse_reply};
use async_net::TcpStream;
use futures_lite::{AsyncReadExt, AsyncWriteExt};

/// Bytes asked for at once.
const CHUNK_BYTES: usize = 16 << 10;

/// A connection to one core, used by one call at a time.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: String,
    stream: TcpStream,
    input: Vec<u8>,
}

impl Link {
    pub(super) async fn open(address: &str) -> Result<Self, ClientError> {
        let io = |source| ClientError::Io { address: address.to_owned(), source };
        let stream = TcpStream::connect(address).await.map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        Ok(Self { address: address.to_owned(), stream, input: Vec::new() })
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
                return Err(self.io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.input.extend_from_slice(&chunk[..count]);
        }
    }

    fn io(&self, source: std::io::Error) -> ClientError {
        ClientError::Io { address: self.address.clone(), source }
    }
}
