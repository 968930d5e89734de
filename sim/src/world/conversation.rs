//! Clients and nodes talking: bytes on their way, connections made and given up.

use super::{Conn, Happening, MS, SECOND, World};
use crate::clients::Meaning;
use flotilla_runtime::machine::Taken;
use flotilla_runtime::{ConnId, Event};

impl World {
    pub(super) fn reply(&mut self, node: usize, conn: u64, bytes: Option<Vec<u8>>) {
        let delay = self.swarm.delay / 4 + self.net_rng.around(self.swarm.delay) + 1;
        let Some(connection) = self.nodes[node].conns.get_mut(&conn) else { return };
        let time = (self.now + delay).max(connection.last + 1);
        connection.last = time;
        let (client, attempt) = (connection.client, connection.attempt);
        match bytes {
            Some(bytes) => self.at(time, Happening::ToClient { client, attempt, bytes }),
            None => {
                self.at(time, Happening::GoneAtClient { client, attempt });
                let life = self.nodes[node].life;
                self.at(time + 1, Happening::GoneAtNode { node, life, conn });
            }
        }
    }

    pub(super) fn gone_at_node(&mut self, node: usize, conn: u64) {
        if self.nodes[node].conns.remove(&conn).is_some() {
            self.step(node, Event::Closed { conn: ConnId(conn) });
        }
    }

    pub(super) fn arrive_at_node(&mut self, node: usize, conn: u64, bytes: &[u8]) {
        let Some(connection) = self.nodes[node].conns.get_mut(&conn) else { return };
        connection.input.extend_from_slice(bytes);
        if connection.paused {
            return;
        }
        let input = std::mem::take(&mut connection.input);
        let mut taken = Taken::default();
        self.step(node, Event::Client { conn: ConnId(conn), bytes: &input, taken: &mut taken });
        if let Some(connection) = self.nodes[node].conns.get_mut(&conn) {
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
        self.trace.event(self.now, client, 5, u64::from(crc32fast::hash(bytes)));
        match self.clients.received(client, bytes, self.now)? {
            Meaning::Elsewhere(node) => {
                self.leave(client);
                let anywhere = self.rng.between(0, self.nodes.len() as u64 - 1);
                let anywhere = usize::try_from(anywhere).expect("few nodes");
                self.clients.list[client].target =
                    node.filter(|node| *node < self.nodes.len()).unwrap_or(anywhere);
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
        if let Some((node, life, conn)) = user.connection
            && self.alive(node, life)
            && let Some(connection) = self.nodes[node].conns.get_mut(&conn)
        {
            connection.attempt = user.attempt;
        }
    }

    /// A client gives its connection up and will try another node.
    pub(super) fn leave(&mut self, client: usize) {
        if let Some((node, life, conn)) = self.clients.list[client].connection {
            self.at(self.now + self.swarm.delay, Happening::GoneAtNode { node, life, conn });
        }
        self.clients.gave_up(client);
        let next = self.rng.between(0, self.nodes.len() as u64 - 1);
        self.clients.list[client].target = usize::try_from(next).expect("few nodes");
        self.after(5 * MS, Happening::Think { client });
    }

    pub(super) fn think(&mut self, client: usize) {
        let user = &self.clients.list[client];
        if !user.asked.is_empty() || (self.stopping && (client > 0 || self.clients.is_final())) {
            return;
        }
        let connected = user.connection.filter(|(node, life, _)| self.alive(*node, *life));
        let (node, life, conn) = match connected {
            Some(connection) => connection,
            None => {
                let node = user.target;
                if self.nodes[node].core.is_none() {
                    self.leave(client);
                    return;
                }
                self.connect(client, node)
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
        self.trace.event(self.now, client, 6, u64::from(crc32fast::hash(&bytes)));
        let mut time = self.now + self.swarm.delay / 4 + self.net_rng.around(self.swarm.delay);
        let cut = usize::try_from(self.net_rng.between(0, bytes.len() as u64)).expect("short");
        for part in [&bytes[..cut], &bytes[cut..]] {
            self.at(time, Happening::ToNode { node, life, conn, bytes: part.to_vec() });
            time += 1 + self.net_rng.around(self.swarm.delay / 4);
        }
        let longest = if self.now < self.swarm.safety { 3 * SECOND } else { SECOND };
        let patience = self.rng.between(300 * MS, longest);
        self.at(self.now + patience, Happening::Impatience { client, attempt });
    }

    pub(super) fn connect(&mut self, client: usize, node: usize) -> (usize, u64, u64) {
        let attempt = self.clients.list[client].attempt;
        let this = &mut self.nodes[node];
        this.last_conn += 1;
        let (conn, life) = (this.last_conn, this.life);
        this.conns.insert(conn, Conn { client, attempt, input: Vec::new(), paused: false, last: 0 });
        self.step(node, Event::Opened { conn: ConnId(conn) });
        self.clients.list[client].connection = Some((node, life, conn));
        (node, life, conn)
    }
}
