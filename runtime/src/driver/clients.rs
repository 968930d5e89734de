//! Client connections.
//!
//! Where TLS is spoken, it is on the same port: a connection's first byte says which it is.

use super::core_loop::{CoreLoop, Signal};
use super::outlet::Outlet;
use super::poller::{Listener, Poller, Socket};
use super::wire::{ClientTls, HANDSHAKE_MAX, HANDSHAKE_RECORD, Tls, Wire};
use crate::machine::{ConnId, Event, Machine, Taken};
use crate::vitals::Vitals;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// A connection's first read buffer.
const BUFFER_BYTES: usize = 16 * 1024;
/// Read buffers that are kept for whoever sends next.
const SPARE_BUFFERS_MAX: usize = 64;
/// Larger ones aren't.
const SPARE_BYTES_MAX: usize = 16 * BUFFER_BYTES;
/// What is taken in a round from those who send without a pause, together: what the others wait for. It is shared among as many
/// as there were in the round before; a buffer is the least that each has.
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
    pub(super) fn reply(&self, bytes: &[u8], waiting_max: usize, vitals: &Vitals) {
        let had_gathered = self.outlet.waiting();
        self.outlet.send(bytes);
        if had_gathered > waiting_max {
            tracing::warn!(
                waiting = self.outlet.waiting(),
                "a client that doesn't read its replies was cut off"
            );
            vitals.clients_cut_off.count();
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
        self.poller
            .tasks()
            .spawn("a client's end", async move {
                client.poller.sleep(LINGER).await;
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
                core.poller.sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A client that is gone before it is served is none of our business.
        let Ok(from) = stream.peer_addr() else { continue };
        let Ok(socket) = Socket::new(stream, &core.poller) else { continue };
        let wire = Wire::new(socket);
        let outlet = Rc::clone(&wire.outlet);
        if core.clients.borrow().len() >= core.limits().connections_max {
            core.vitals.clients_refused.count();
            if core.tls().clients.as_ref().is_none_or(|tls| !tls.is_required) {
                outlet.send(b"-ERR max number of clients reached\r\n");
            }
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
        core.tasks.spawn("client", serve(Rc::clone(&core), (conn, from), client, wire)).detach();
    }
}

async fn serve<M: Machine + 'static>(
    core: Rc<CoreLoop<M>>,
    (conn, from): (ConnId, SocketAddr),
    client: Rc<Client>,
    wire: Wire,
) {
    let cover = core.tls();
    let begun = match &cover.clients {
        None => Ok(Vec::new()),
        Some(tls) => begin(tls, &wire).await,
    };
    match begun {
        Ok(first) => {
            core.step(Event::Opened { conn, is_local: from.ip().to_canonical().is_loopback() });
            read_on(&core, conn, &client, &wire, first).await;
            client.outlet.cut();
            core.clients.borrow_mut().remove(&conn);
            core.step(Event::Closed { conn });
        }
        Err(reason) => {
            core.vitals.tls_failures.count();
            core.complaints.no_tls(&format!("client {from}"), &reason);
            client.outlet.end();
            core.clients.borrow_mut().remove(&conn);
        }
    }
}

/// Finds out from its first bytes whether a client speaks TLS, and shakes hands if so; else returns them.
async fn begin(tls: &ClientTls, wire: &Wire) -> Result<Vec<u8>, String> {
    let mut first = vec![0; BUFFER_BYTES];
    let read = async { wire.socket.read(&mut first).await };
    let late = async {
        if !tls.is_required {
            // One that speaks no TLS may take its time.
            std::future::pending::<()>().await;
        }
        wire.socket.poller().sleep(HANDSHAKE_MAX).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let count = futures_lite::future::or(read, late).await.map_err(|error| error.to_string())?;
    first.truncate(count);
    match first.first() {
        Some(&HANDSHAKE_RECORD) => {
            let session = Tls::answer(&tls.config).map_err(|error| error.to_string())?;
            session.feed(&first);
            wire.secure(session).await?;
            Ok(Vec::new())
        }
        Some(_) if tls.is_required => {
            wire.outlet.send(b"-ERR this port speaks TLS only\r\n");
            Err("it doesn't speak TLS, which tls.clients requires".to_owned())
        }
        _ => Ok(first),
    }
}

/// Reads until the client is gone, or too far ahead.
async fn read_on<M: Machine + 'static>(
    core: &Rc<CoreLoop<M>>,
    conn: ConnId,
    client: &Rc<Client>,
    wire: &Wire,
    first: Vec<u8>,
) {
    let mut filled = first.len();
    let mut buffer = first;
    // What came before it was known whether this is TLS.
    let mut is_first = filled > 0;
    if is_first {
        buffer.resize(BUFFER_BYTES, 0);
    }
    let (mut round, mut taken_in_round) = (core.round(), 0);
    loop {
        if filled == 0 {
            core.buffers.give_back(std::mem::take(&mut buffer));
            wire.until_readable().await;
            buffer = core.buffers.take();
        }
        let mut count = filled;
        if !std::mem::take(&mut is_first) {
            count = match wire.read(&mut buffer[filled..]).await {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            filled += count;
        }
        core.vitals.client_bytes_in.add(count as u64);
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
            let most = core.limits().client_input_bytes_max;
            if filled >= most {
                tracing::warn!(bytes = filled, "a client that sends no whole command was cut off");
                core.vitals.clients_cut_off.count();
                return;
            }
            buffer.resize((filled * 2).min(most.max(BUFFER_BYTES)), 0);
        }
        if round != core.round() {
            (round, taken_in_round) = (core.round(), 0);
        }
        taken_in_round += count;
        if taken_in_round >= (ROUND_BYTES_MAX / core.patient_last().max(1)).max(BUFFER_BYTES) {
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
        core.poller.sleep(Duration::from_millis(5)).await;
    }
}
