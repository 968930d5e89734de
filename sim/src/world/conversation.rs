//! Clients and nodes talking: bytes on their way, connections made and given up.

use super::seat::{Conn, core_of_port};
use super::{Happening, MS, SECOND, World};
use crate::clients::Meaning;
use flotilla_runtime::machine::Taken;
use flotilla_runtime::{ConnId, Event};

/// When all is healed, a client waits so long: longer than a node needs to say that it doesn't know.
const PATIENCE_AT_LAST: u64 = 12 * SECOND;

impl World {
    pub(super) fn reply(&mut self, at: usize, conn: u64, bytes: Option<Vec<u8>>) {
        if self.backups.is_mine(conn) {
            return self.backup_answered(conn, bytes.as_deref());
        }
        let delay = self.swarm.delay / 4 + self.net_rng.around(self.swarm.delay) + 1;
        let Some(connection) = self.cores[at].conns.get_mut(&conn) else { return };
        let time = (self.now + delay).max(connection.last + 1);
        connection.last = time;
        let (client, attempt) = (connection.client, connection.attempt);
        match bytes {
            Some(bytes) => self.at(time, Happening::ToClient { client, attempt, bytes }),
            None => {
                self.at(time, Happening::GoneAtClient { client, attempt });
                let life = self.cores[at].life;
                self.at(time + 1, Happening::GoneAtNode { at, life, conn });
            }
        }
    }

    pub(super) fn gone_at_node(&mut self, at: usize, conn: u64) {
        if self.cores[at].conns.remove(&conn).is_some() {
            self.step(at, Event::Closed { conn: ConnId(conn) });
        }
    }

    pub(super) fn arrive_at_node(&mut self, at: usize, conn: u64, bytes: &[u8]) {
        let Some(connection) = self.cores[at].conns.get_mut(&conn) else { return };
        connection.input.extend_from_slice(bytes);
        if connection.paused {
            return;
        }
        let input = std::mem::take(&mut connection.input);
        let mut taken = Taken::default();
        self.step(at, Event::Client { conn: ConnId(conn), bytes: &input, taken: &mut taken });
        if let Some(connection) = self.cores[at].conns.get_mut(&conn) {
            connection.input = input[taken.bytes..].to_vec();
            connection.paused = taken.pause;
        }
    }

    pub(super) fn arrive_at_client(
        &mut self,
        client: usize,
        attempt: u64,
        bytes: &[u8],
    ) -> Result<(), String> {
        if self.clients.list[client].attempt != attempt {
            return Ok(());
        }
        let digest = u64::from(crc32fast::hash(bytes));
        self.trace.event(self.now, client, digest, || format!("client {client} ← {}", bytes.escape_ascii()));
        match self.clients.received(client, bytes, self.now)? {
            Meaning::Elsewhere(port) => {
                self.leave(client);
                let anywhere = self.rng.between(0, self.cores.len() as u64 - 1);
                let anywhere = usize::try_from(anywhere).expect("few nodes");
                let told = port.and_then(|port| core_of_port(port, self.swarm.cores));
                let told = told.filter(|at| *at < self.cores.len());
                self.clients.list[client].target = told.unwrap_or(anywhere);
            }
            Meaning::Fine if self.clients.list[client].asked.is_empty() => {
                self.clients.list[client].attempt += 1;
                self.resume_attempt(client);
                self.after(2 * MS, Happening::Think { client });
            }
            Meaning::Fine => {}
        }
        Ok(())
    }

    /// The connection goes on under the client's new attempt number.
    pub(super) fn resume_attempt(&mut self, client: usize) {
        let user = &self.clients.list[client];
        if let Some((at, life, conn)) = user.connection
            && self.alive(at, life)
            && let Some(connection) = self.cores[at].conns.get_mut(&conn)
        {
            connection.attempt = user.attempt;
        }
    }

    /// A client has waited as long as it would. When all is healed, nobody should have to.
    ///
    /// # Errors
    /// Somebody had to.
    pub(super) fn impatient(&mut self, client: usize) -> Result<(), String> {
        let oldest = self.clients.list[client].asked.front().map_or(u64::MAX, |asked| asked.called);
        if self.healed && oldest.saturating_add(PATIENCE_AT_LAST) <= self.now {
            let asked = &self.clients.list[client].asked;
            return Err(format!("liveness: client {client} has waited for {asked:?} since it was called"));
        }
        self.leave(client);
        Ok(())
    }

    /// A client gives its connection up and will try another node.
    pub(super) fn leave(&mut self, client: usize) {
        if let Some((at, life, conn)) = self.clients.list[client].connection {
            self.at(self.now + self.swarm.delay, Happening::GoneAtNode { at, life, conn });
        }
        self.clients.gave_up(client);
        let next = self.rng.between(0, self.cores.len() as u64 - 1);
        self.clients.list[client].target = usize::try_from(next).expect("few nodes");
        self.after(5 * MS, Happening::Think { client });
    }

    pub(super) fn think(&mut self, client: usize) {
        let user = &self.clients.list[client];
        if !user.asked.is_empty() || (self.stopping && (client > 0 || self.clients.is_final())) {
            return;
        }
        let connected = user.connection.filter(|(at, life, _)| self.alive(*at, *life));
        let (at, life, conn) = match connected {
            Some(connection) => connection,
            None => {
                let at = user.target;
                if self.cores[at].core.is_none() {
                    self.leave(client);
                    return;
                }
                self.connect(client, at)
            }
        };
        // The last look waits until nobody else has anything under way.
        let quiet = self.clients.list.iter().all(|user| user.asked.is_empty());
        let bytes = match self.stopping {
            false => self.clients.next_commands(client, self.now),
            true if quiet => self.clients.final_commands(client, self.now),
            true => return self.after(20 * MS, Happening::Think { client }),
        };
        let attempt = self.clients.list[client].attempt;
        let digest = u64::from(crc32fast::hash(&bytes));
        self.trace.event(self.now, client, digest, || {
            format!("client {client} → {}: {}", self.cores[at], bytes.escape_ascii())
        });
        let mut time = self.now + self.swarm.delay / 4 + self.net_rng.around(self.swarm.delay);
        let cut = usize::try_from(self.net_rng.between(0, bytes.len() as u64)).expect("short");
        for part in [&bytes[..cut], &bytes[cut..]] {
            self.at(time, Happening::ToNode { at, life, conn, bytes: part.to_vec() });
            // What was under way when the first part came is mostly done when a late one comes.
            let is_late = self.net_rng.between(0, 3) == 0;
            time +=
                1 + self.net_rng.around(if is_late { 4 * self.swarm.delay } else { self.swarm.delay / 4 });
        }
        // Some give up soon, and are elsewhere while others still wait.
        let drawn = match self.rng.between(0, 3) {
            0 => self.rng.between(20 * MS, 300 * MS),
            _ => self.rng.between(300 * MS, 3 * SECOND),
        };
        let patience = if self.healed { PATIENCE_AT_LAST } else { drawn };
        self.at(self.now + patience, Happening::Impatience { client, attempt });
    }

    pub(super) fn connect(&mut self, client: usize, at: usize) -> (usize, u64, u64) {
        let attempt = self.clients.list[client].attempt;
        let this = &mut self.cores[at];
        this.last_conn += 1;
        let (conn, life) = (this.last_conn, this.life);
        this.conns.insert(conn, Conn { client, attempt, input: Vec::new(), paused: false, last: 0 });
        self.step(at, Event::Opened { conn: ConnId(conn), is_local: true });
        self.clients.list[client].connection = Some((at, life, conn));
        (at, life, conn)
    }
}
