//! The way to whoever coordinates.

use super::log::FactLog;
use crate::client::Seeds;
use crate::hands::{Stopwatch, pause};
use crate::mapreduce::coordinator::{Request, Response};
use crate::mapreduce::hands::worker::Transport;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// One coordinator may take so long to answer: the store's failover is in it.
const ANSWER: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(2);

/// Finds the coordinator through the store, and finds its successor when it is gone.
#[derive(Debug)]
pub struct Found {
    log: FactLog,
    patience: Duration,
    talk: Option<(BufReader<TcpStream>, TcpStream)>,
}

impl Found {
    /// Through the store that has these addresses. Nobody there for `patience` is an error.
    pub fn new(seeds: impl Into<Seeds>, name: &str, patience: Duration) -> Self {
        Self { log: FactLog::new(seeds, name), patience, talk: None }
    }

    fn try_once(&mut self, line: &[u8]) -> Result<Response, String> {
        if self.talk.is_none() {
            let announced = self.log.announced().map_err(|error| error.to_string())?;
            let found =
                announced.ok_or("nobody coordinates: start workers with `flotilla mr worker --addr`")?;
            self.talk = Some(connect(&found.address).map_err(|error| format!("{}: {error}", found.address))?);
        }
        let Some((reader, writer)) = &mut self.talk else { return Err("no connection".to_owned()) };
        let mut answer = Vec::new();
        let done = writer.write_all(line).and_then(|()| reader.read_until(b'\n', &mut answer));
        match done {
            Ok(0) => Err("the coordinator is gone".to_owned()),
            Ok(_) => serde_json::from_slice(&answer).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn connect(address: &str) -> std::io::Result<(BufReader<TcpStream>, TcpStream)> {
    let resolved = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let stream = TcpStream::connect_timeout(&resolved, CONNECT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok((BufReader::new(stream.try_clone()?), stream))
}

impl Transport for Found {
    /// Asks until there is an answer. A request whose answer was lost is sent again, which all of them allow.
    fn call(&mut self, request: &Request) -> Result<Response, String> {
        let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        let clock = Stopwatch::start();
        loop {
            match self.try_once(&line) {
                Ok(response) => return Ok(response),
                Err(error) if clock.elapsed() > self.patience => return Err(error),
                Err(_) => self.talk = None,
            }
            pause(Duration::from_millis(20));
        }
    }
}
