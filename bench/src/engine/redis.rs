//! RESP: a cluster whose map says which node leads which slot, or a single server.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::SyncSender;

use super::connection::Pending;
use super::protocol::{Protocol, Verdict};
use super::request::{Ask, Templates};
use super::slots::{Route, SlotMap, parse_moved};
use crate::login;
use crate::resp::{self, Reply};
use crate::workload::{KEY_BYTES, Load};

/// See the module.
pub(super) struct Resp<'a> {
    map: &'a SlotMap,
    route: Route,
    refresh: SyncSender<()>,
    templates: Templates,
}

impl<'a> Resp<'a> {
    /// Who gets a word from `refresh` asks for the map.
    pub(super) fn new(load: &Load, map: &'a SlotMap, refresh: SyncSender<()>) -> Self {
        let templates = Templates::new(load.operations.value_bytes, map.wait);
        Self { map, route: map.route(), refresh, templates }
    }

    fn ask_for_map(&self) {
        // Full means that someone has asked already.
        let _ = self.refresh.try_send(());
    }
}

impl Protocol for Resp<'_> {
    type Reply<'a> = Reply<'a>;

    fn node_of(&self, _client: usize, key: &[u8; KEY_BYTES]) -> usize {
        self.route.node_of(key)
    }

    fn address(&self, node: usize) -> SocketAddr {
        self.route.nodes[node]
    }

    fn greeting(&self) -> &[u8] {
        login::greeting()
    }

    fn greeted(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self.parse(bytes)? {
            Some((Reply::Error(error), _)) => {
                Err(io::Error::other(String::from_utf8_lossy(error).into_owned()))
            }
            other => Ok(other.map(|(_, length)| length)),
        }
    }

    fn append(
        &mut self,
        _connection: usize,
        out: &mut Vec<u8>,
        ask: Ask,
        pending: &Pending,
        key: &[u8; KEY_BYTES],
    ) {
        self.templates.append(out, ask, pending.operation, key);
    }

    fn parse<'a>(&self, bytes: &'a [u8]) -> io::Result<Option<(Reply<'a>, usize)>> {
        resp::parse(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn judge(
        &mut self,
        _connection: usize,
        reply: &Reply<'_>,
        ask: Ask,
        _pending: &Pending,
        asked: SocketAddr,
        may_follow: bool,
    ) -> io::Result<Verdict> {
        let Reply::Error(text) = reply else {
            let missed = ask != Ask::Set && matches!(reply, Reply::Bulk(None));
            return Ok(Verdict::Answered { missed });
        };
        if let Some((slot, address)) = parse_moved(text, asked).filter(|_| may_follow) {
            self.map.moved(slot, address);
            self.route = self.map.route();
            self.ask_for_map();
            // Where it was told to go, whatever the map makes of it.
            return Ok(Verdict::Elsewhere(self.route.nodes.iter().position(|&node| node == address)));
        }
        let code = text.split(|&byte| byte == b' ').next().unwrap_or(text);
        Ok(Verdict::Failed(String::from_utf8_lossy(code).into_owned()))
    }

    fn lost(&mut self, _connection: usize) {
        self.ask_for_map();
    }

    fn turn(&mut self) {
        if self.map.is_newer_than(&self.route) {
            self.route = self.map.route();
        }
    }

    fn waits(&self) -> bool {
        self.map.wait > 0
    }

    fn append_wait(&self, out: &mut Vec<u8>) {
        self.templates.append_wait(out);
    }

    fn is_replicated(&self, reply: &Reply<'_>) -> bool {
        matches!(reply, Reply::Integer(count) if *count >= self.map.wait as i64)
    }
}
