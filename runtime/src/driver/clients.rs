//! Client connections.

use super::core_loop::{CoreLoop, Signal};
use super::outlet::Outlet;
use super::poller::{Listener, Poller, Socket};
use crate::machine::{ConnId, Event, Machine, Taken};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// A connection's first read buffer.
const BUFFER_BYTES: usize = 16 * 1024;
/// Read buffers that are kept for whoever sends next.
const SPARE_BUFFERS_MAX: usize = 64;
/// Larger ones aren't.
const SPARE_BYTES_MAX: usize = 16 * BUFFER_BYTES;
/// What is taken from one connection before the core looks after the others.
const ROUND_BYTES_MAX: usize = 256 * 1024;
/// How long a connection that we close may go on sending before it is cut off.
const LINGER: Duration = Duration::from_secs(1);

/// Read buffers that nobody uses: most connections are idle most of the time, and need none.
#[derive(Debug, Default)]
pub(super) struct Buffers(RefCell<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER_BYTES])
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut spare = self.0.borrow_mut();
        if (BUFFER_BYTES..=SPARE_BYTES_MAX).contains(&buffer.len()) && spare.len() < SPARE_BUFFERS_MAX {
            spare.push(buffer);
        }
    }
}

/// One client of a core.
#[derive(Debug)]
pub(super) struct Client {
    outlet: Rc<Outlet>,
    poller: Rc<Poller>,
    resumed: Signal,
    closing: Cell<bool>,
}

impl Client {
    /// Sends a reply, which may be of any size; a client that doesn't read is cut off when too much has gathered before.
    pub(super) fn reply(&self, bytes: &[u8], waiting_max: usize) {
        let had_gathered = self.outlet.waiting();
        self.outlet.send(bytes);
        if had_gathered > waiting_max {
            tracing::warn!(
                waiting = self.outlet.waiting(),
                "a client that doesn't read its replies was cut off"
            );
            self.cut();
        }
    }

    /// Closes once everything is sent.
    pub(super) fn close(self: &Rc<Self>) {
        if self.closing.replace(true) {
            return;
        }
        self.outlet.end();
        self.resume();
        let client = Rc::clone(self);
        glommio::spawn_local(async move {
            glommio::timer::sleep(LINGER).await;
            client.outlet.cut();
        })
        .detach();
    }

    pub(super) fn resume(&self) {
        self.resumed.raise();
        self.poller.stir();
    }

    fn cut(&self) {
        self.outlet.cut();
        self.resume();
    }
}

/// Accepts clients for ever.
pub(super) async fn accept<M: Machine + 'static>(core: Rc<CoreLoop<M>>, listener: Listener) {
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "can't accept a client; out of file descriptors?");
                glommio::timer::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A client that is gone before it is served is none of our business.
        let Ok(socket) = Socket::new(stream, &core.poller) else { continue };
        let outlet = Outlet::new(Rc::clone(&socket));
        if core.clients.borrow().len() >= core.limits.connections_max {
            outlet.send(b"-ERR max number of clients reached\r\n");
            outlet.end();
            continue;
        }
        let conn = ConnId(core.last_conn.get() + 1);
        core.last_conn.set(conn.0);
        let client = Rc::new(Client {
            outlet,
            poller: Rc::clone(&core.poller),
            resumed: Signal::default(),
            closing: Cell::new(false),
        });
        core.clients.borrow_mut().insert(conn, Rc::clone(&client));
        core.step(Event::Opened { conn });
        glommio::spawn_local(serve(Rc::clone(&core), conn, client, socket)).detach();
    }
}

async fn serve<M: Machine + 'static>(
    core: Rc<CoreLoop<M>>,
    conn: ConnId,
    client: Rc<Client>,
    socket: Rc<Socket>,
) {
    read_on(&core, conn, &client, &socket).await;
    client.outlet.cut();
    core.clients.borrow_mut().remove(&conn);
    core.step(Event::Closed { conn });
}

/// Reads until the client is gone, or too far ahead.
async fn read_on<M: Machine + 'static>(
    core: &Rc<CoreLoop<M>>,
    conn: ConnId,
    client: &Rc<Client>,
    socket: &Socket,
) {
    let mut buffer = Vec::new();
    let mut filled = 0;
    let (mut round, mut taken_in_round) = (core.round(), 0);
    loop {
        if filled == 0 {
            core.buffers.give_back(std::mem::take(&mut buffer));
            socket.until_readable().await;
            buffer = core.buffers.take();
        }
        let count = match socket.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        filled += count;
        let mut start = 0;
        loop {
            let mut taken = Taken::default();
            core.step(Event::Client { conn, bytes: &buffer[start..filled], taken: &mut taken });
            start += taken.bytes;
            if !taken.pause || client.closing.get() {
                break;
            }
            client.resumed.wait().await;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        if filled > 0 && filled == buffer.len() {
            if filled >= core.limits.client_input_bytes_max {
                tracing::warn!(bytes = filled, "a client that sends no whole command was cut off");
                return;
            }
            buffer.resize((filled * 2).min(core.limits.client_input_bytes_max.max(BUFFER_BYTES)), 0);
        }
        if round != core.round() {
            (round, taken_in_round) = (core.round(), 0);
        }
        taken_in_round += count;
        if taken_in_round >= ROUND_BYTES_MAX {
            core.next_round().await;
        }
    }
}

/// The core ends: no client is left hanging.
pub(super) async fn cut_all<M: Machine + 'static>(core: &Rc<CoreLoop<M>>) {
    let clients: Vec<Rc<Client>> = core.clients.borrow().values().cloned().collect();
    for client in &clients {
        client.outlet.end();
    }
    for _ in 0..100 {
        if core.clients.borrow().is_empty() {
            return;
        }
        for client in &clients {
            if client.outlet.waiting() == 0 {
                client.cut();
            }
        }
        glommio::timer::sleep(Duration::from_millis(5)).await;
    }
}
