//! The state of a core, the turn, the effects.

use super::clients::Client;
use super::disk::{Disk, Write};
use super::peers::Link;
use super::start::Report;
use super::{Limits, NodeOptions};
use crate::machine::{ConnId, CoreId, Effect, Effects, Event, Machine, Nanos, Now, PeerId};
use crate::mesh::{Endpoint, SendError};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A turn with at most so many events is calm: nobody else waits for the core.
const CALM_EVENTS_MAX: u32 = 2;
/// Mesh messages taken in one go.
const MESH_BATCH: usize = 256;

/// Reads both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: self.monotonic(), unix_ms: u64::try_from(unix.as_millis()).unwrap_or(0) }
    }

    fn monotonic(self) -> Nanos {
        // Starts at one second, so that "long ago" can be said.
        1_000_000_000 + u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A flag that a task waits for.
#[derive(Debug, Default)]
pub(super) struct Signal {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    pub(super) fn raise(&self) {
        if !self.raised.replace(true)
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// Waits until it is raised, and lowers it.
    pub(super) async fn wait(&self) {
        poll_fn(|cx| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// One core: its machine and everything that the machine can't do itself.
pub(super) struct CoreLoop<M: Machine> {
    machine: RefCell<M>,
    effects: RefCell<Effects<M::Message>>,
    flush_due: Signal,
    /// Events since the last flush.
    turn: Cell<u32>,
    endpoint: RefCell<Endpoint<M::Message>>,
    /// Mesh messages that found a full ring, in order.
    mesh_backlog: RefCell<VecDeque<(CoreId, M::Message)>>,
    pub(super) clients: RefCell<BTreeMap<ConnId, Rc<Client>>>,
    pub(super) last_conn: Cell<u64>,
    links: BTreeMap<PeerId, Rc<Link>>,
    /// The sockets of links from peers, to be shut down at the end.
    pub(super) incoming: RefCell<BTreeMap<u64, std::net::TcpStream>>,
    disk: Disk,
    pub(super) limits: Limits,
    pub(super) id: CoreId,
    clock: Clock,
    over: Cell<bool>,
    over_signal: Signal,
    reports: mpsc::Sender<Report>,
}

impl<M: Machine + 'static> CoreLoop<M> {
    pub(super) fn new(
        machine: M,
        id: CoreId,
        endpoint: Endpoint<M::Message>,
        disk: Disk,
        options: &NodeOptions,
        clock: Clock,
        reports: mpsc::Sender<Report>,
    ) -> Rc<Self> {
        let links = options.peers.iter().map(|address| (address.peer, Link::new(*address))).collect();
        Rc::new(Self {
            machine: RefCell::new(machine),
            effects: RefCell::default(),
            flush_due: Signal::default(),
            turn: Cell::new(0),
            endpoint: RefCell::new(endpoint),
            mesh_backlog: RefCell::default(),
            clients: RefCell::default(),
            last_conn: Cell::new(0),
            links,
            incoming: RefCell::default(),
            disk,
            limits: options.limits,
            id,
            clock,
            over: Cell::new(false),
            over_signal: Signal::default(),
            reports,
        })
    }

    /// Hands one event to the machine; its effects leave with the turn's flush.
    pub(super) fn step(&self, event: Event<'_, M::Message>) {
        if self.over.get() {
            return;
        }
        self.machine.borrow_mut().step(self.clock.now(), event, &mut self.effects.borrow_mut());
        self.turn.set(self.turn.get() + 1);
        self.flush_due.raise();
    }

    pub(super) fn tick_if_due(&self) {
        let deadline = self.machine.borrow().deadline();
        if deadline.is_some_and(|deadline| deadline <= self.clock.monotonic()) {
            self.step(Event::Tick);
        }
    }

    pub(super) fn first_tick(&self) {
        self.step(Event::Tick);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    pub(super) async fn until_over(&self) {
        self.over_signal.wait().await;
    }

    pub(super) fn links(&self) -> Vec<Rc<Link>> {
        self.links.values().cloned().collect()
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(super) async fn close_disk(&self) {
        self.disk.close().await;
    }

    /// The flusher: runs after every task that was ready when the flush became due.
    pub(super) async fn flush_when_due(core: Rc<Self>) {
        loop {
            core.flush_due.wait().await;
            let mut effects = std::mem::take(&mut *core.effects.borrow_mut());
            core.machine.borrow_mut().flush(core.clock.now(), &mut effects);
            let calm = core.turn.replace(0) <= CALM_EVENTS_MAX;
            let mut last_write = None;
            for effect in effects.drain() {
                match effect {
                    Effect::Halt { reason } => {
                        // Nothing behind it is carried out.
                        last_write = None;
                        core.halt(reason);
                        break;
                    }
                    Effect::Write { op, file, offset, block, sync }
                        if calm && sync && last_write.is_none() =>
                    {
                        last_write = Some(Write { op, file, offset, block, sync });
                    }
                    effect => core.carry_out(effect),
                }
            }
            core.publish();
            if let Some(write) = last_write {
                core.write_last(write);
            }
            // The emptied list goes back, unless carrying out made new effects meanwhile.
            let mut current = core.effects.borrow_mut();
            if current.is_empty() {
                *current = effects;
            }
        }
    }

    /// The write of a calm turn comes last, since it may be done on the spot.
    fn write_last(self: &Rc<Self>, write: Write) {
        match self.disk.write_on_the_spot(write) {
            Ok((op, result)) => self.step(Event::Disk { op, result }),
            Err(write) => self.disk.begin_write(write, Rc::clone(self)),
        }
    }

    fn carry_out(self: &Rc<Self>, effect: Effect<M::Message>) {
        match effect {
            Effect::Reply { conn, bytes } => {
                if let Some(client) = self.client(conn) {
                    client.reply(&bytes, self.limits.client_output_bytes_max);
                }
            }
            Effect::Close { conn } => {
                if let Some(client) = self.client(conn) {
                    client.close();
                }
            }
            Effect::Resume { conn } => {
                if let Some(client) = self.client(conn) {
                    client.resume();
                }
            }
            Effect::Send { to, frame } => {
                if let Some(link) = self.links.get(&to) {
                    link.send(&frame, self.limits.peer_output_bytes_max);
                }
            }
            Effect::Mesh { to, message } => self.send_to_core(to, message),
            Effect::Halt { reason } => self.halt(reason),
            Effect::Drained => self.end(),
            disk => self.disk.carry_out(disk, Rc::clone(self)),
        }
    }

    fn halt(&self, reason: String) {
        self.end();
        // Nobody listens: the node is ending already.
        let _ = self.reports.send(Report::Halted(reason));
    }

    fn end(&self) {
        self.over.set(true);
        self.over_signal.raise();
    }

    fn client(&self, conn: ConnId) -> Option<Rc<Client>> {
        self.clients.borrow().get(&conn).cloned()
    }

    fn send_to_core(&self, to: CoreId, message: M::Message) {
        let mut backlog = self.mesh_backlog.borrow_mut();
        if !backlog.is_empty() {
            return backlog.push_back((to, message));
        }
        match self.endpoint.borrow_mut().send(to, message) {
            Ok(()) | Err(SendError::Closed(_)) => {}
            Err(SendError::Full(message)) => backlog.push_back((to, message)),
        }
    }

    /// Makes the turn's mesh messages visible. What didn't fit waits for the receiver to make room.
    fn publish(self: &Rc<Self>) {
        self.endpoint.borrow_mut().publish();
        if !self.mesh_backlog.borrow().is_empty() {
            let core = Rc::clone(self);
            glommio::spawn_local(async move { core.drain_backlog().await }).detach();
        }
    }

    async fn drain_backlog(self: Rc<Self>) {
        poll_fn(|cx| {
            let mut backlog = self.mesh_backlog.borrow_mut();
            let mut endpoint = self.endpoint.borrow_mut();
            while let Some((to, message)) = backlog.pop_front() {
                if let Err(SendError::Full(message)) = endpoint.send(to, message) {
                    backlog.push_front((to, message));
                    if endpoint.poll_room(to, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
            endpoint.publish();
            Poll::Ready(())
        })
        .await;
    }

    /// Takes what other cores of the node send.
    pub(super) async fn receive_from_mesh(core: Rc<Self>) {
        let mut batch = Vec::with_capacity(MESH_BATCH);
        loop {
            poll_fn(|cx| core.endpoint.borrow_mut().poll_ready(cx)).await;
            let taken =
                core.endpoint.borrow_mut().receive(MESH_BATCH, |from, message| batch.push((from, message)));
            for (from, message) in batch.drain(..) {
                core.step(Event::Mesh { from, message });
            }
            if taken == 0 && core.endpoint.borrow().all_closed() {
                return;
            }
        }
    }
}
