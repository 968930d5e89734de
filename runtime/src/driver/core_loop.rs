//! The state of a core, the turn, the effects.

use super::admin::Questions;
use super::busy_poll::BusyPoll;
use super::clients::{Buffers, Client};
use super::clock::Clock;
use super::complaints::Complaints;
use super::disk::{Disk, Write};
use super::guardian::Watch;
use super::peers::Link;
use super::poller::{Poller, Socket};
use super::settling::{self, Settling, Work};
use super::start::{NodeShared, Report};
use super::tasks::Tasks;
use super::{Limits, NodeOptions, TlsOptions};
use crate::machine::{ConnId, CoreId, Effect, Effects, Event, Machine, Nanos, Now, PeerId};
use crate::mesh::{Endpoint, SendError};
use crate::sync::Arc;
use crate::vitals::Vitals;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A turn with at most so many events is calm: nobody else waits for the core.
const CALM_EVENTS_MAX: u32 = 2;
/// Mesh messages taken in one go.
const MESH_BATCH: usize = 256;
/// Passes of the executor that it may take until nobody is runnable. More: somebody computes.
const SETTLE_PASSES_MAX: u32 = 16;

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

/// What a core reaches the world with.
pub(super) struct Hands<M: Machine> {
    pub(super) endpoint: Endpoint<M::Message>,
    pub(super) disk: Disk,
    pub(super) poller: Rc<Poller>,
    pub(super) vitals: Rc<Vitals>,
    pub(super) tasks: Rc<Tasks>,
    /// Where the guardian looks after the core.
    pub(super) watch: Watch,
}

/// One core: its machine and everything that the machine can't do itself.
pub(super) struct CoreLoop<M: Machine> {
    machine: RefCell<M>,
    effects: RefCell<Effects<M::Message>>,
    flush_due: Cell<bool>,
    /// Events since the last flush.
    turn: Cell<u32>,
    /// How often the core has looked at what is ready.
    rounds: Cell<u64>,
    /// Tasks that could go on, and let the others go first.
    patient: RefCell<Vec<Waker>>,
    /// How many there were in the round before.
    patient_last: Cell<usize>,
    pub(super) buffers: Buffers,
    endpoint: RefCell<Endpoint<M::Message>>,
    /// Mesh messages that found a full ring, in order.
    mesh_backlog: RefCell<VecDeque<(CoreId, M::Message)>>,
    pub(super) clients: RefCell<BTreeMap<ConnId, Rc<Client>>>,
    pub(super) last_conn: Cell<u64>,
    links: BTreeMap<PeerId, Rc<Link>>,
    /// The sockets of links from peers, to be shut down at the end.
    pub(super) incoming: RefCell<BTreeMap<u64, Rc<Socket>>>,
    pub(super) questions: Questions,
    pub(super) vitals: Rc<Vitals>,
    pub(super) poller: Rc<Poller>,
    disk: Disk,
    settling: Settling,
    busy_poll: BusyPoll,
    pub(super) tasks: Rc<Tasks>,
    watch: Watch,
    limits: Cell<Limits>,
    tls: RefCell<Rc<TlsOptions>>,
    /// How often there were other settings.
    reloads: Cell<usize>,
    pub(super) complaints: Complaints,
    pub(super) id: CoreId,
    clock: Clock,
    /// When the last wait ended.
    woke_at: Cell<Nanos>,
    over: Cell<bool>,
    over_signal: Signal,
    reports: mpsc::Sender<Report>,
}

impl<M: Machine + 'static> CoreLoop<M> {
    pub(super) fn new(
        machine: M,
        id: CoreId,
        hands: Hands<M>,
        options: &NodeOptions,
        clock: Clock,
        reports: mpsc::Sender<Report>,
    ) -> Rc<Self> {
        let Hands { endpoint, disk, poller, vitals, tasks, watch } = hands;
        let links = options.peers.iter().map(|address| (address.peer, Link::new(*address))).collect();
        Rc::new(Self {
            machine: RefCell::new(machine),
            effects: RefCell::default(),
            flush_due: Cell::new(false),
            turn: Cell::new(0),
            rounds: Cell::new(0),
            patient: RefCell::default(),
            patient_last: Cell::new(0),
            buffers: Buffers::default(),
            endpoint: RefCell::new(endpoint),
            mesh_backlog: RefCell::default(),
            clients: RefCell::default(),
            last_conn: Cell::new(0),
            links,
            incoming: RefCell::default(),
            questions: Questions::default(),
            vitals,
            poller,
            disk,
            settling: Settling::new(),
            busy_poll: BusyPoll::new(options.busy_poll),
            tasks,
            watch,
            limits: Cell::new(options.limits),
            tls: RefCell::new(Rc::new(options.tls.clone())),
            reloads: Cell::new(0),
            complaints: Complaints::default(),
            id,
            clock,
            woke_at: Cell::new(clock.monotonic()),
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
        self.flush_due.set(true);
    }

    /// The bounds in force.
    pub(super) fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// Under what cover connections begin.
    pub(super) fn tls(&self) -> Rc<TlsOptions> {
        Rc::clone(&self.tls.borrow())
    }

    /// Takes over other settings, if there are any.
    fn take_over_settings(&self, shared: &NodeShared) {
        let reloads = shared.control().reloads();
        if self.reloads.replace(reloads) == reloads {
            return;
        }
        if let Some(newest) = shared.control().newest() {
            self.limits.set(newest.limits);
            self.tls.replace(Rc::new(newest.tls.clone()));
            self.step(Event::Reloaded { settings: &*newest.settings });
        }
    }

    fn tick_if_due(&self) {
        let (deadline, now) = (self.machine.borrow().deadline(), self.clock.monotonic());
        self.woke_at.set(now);
        self.tasks.stalls.turn_begins(now);
        if self.poller.timers().fire(now) {
            self.poller.stir();
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.step(Event::Tick);
        }
    }

    pub(super) fn first_tick(&self) {
        self.step(Event::Tick);
    }

    /// How often the core has looked at what is ready.
    pub(super) fn round(&self) -> u64 {
        self.rounds.get()
    }

    /// How many tasks let the others go first in the round before.
    pub(super) fn patient_last(&self) -> usize {
        self.patient_last.get()
    }

    /// Waits until whoever is ready has had a part.
    pub(super) async fn next_round(&self) {
        let round = self.rounds.get();
        poll_fn(|cx| {
            if self.rounds.get() > round {
                return Poll::Ready(());
            }
            self.patient.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// A new round begins: those who let others go first go on in it. Returns whether there are any.
    fn begin_round(&self) -> bool {
        self.rounds.set(self.rounds.get() + 1);
        let patient = self.patient.take();
        self.patient_last.set(patient.len());
        let are_there = !patient.is_empty();
        if are_there {
            self.poller.stir();
        }
        patient.into_iter().for_each(Waker::wake);
        are_there
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

    /// The core's loop: whoever is runnable runs, then the turn is flushed, then the core waits. Cancelled at the end.
    pub(super) async fn run(core: Rc<Self>, shared: Arc<NodeShared>) {
        let mut told = false;
        shared.control().attend(core.poller.bell());
        loop {
            while core.poller.take_stirred() {
                core.watch.hand_over();
                futures_lite::future::yield_now().await;
                core.watch.regain();
            }
            let begun = Instant::now();
            core.receive_from_mesh();
            core.disk.finished(|op, result| core.step(Event::Disk { op, result }));
            if core.flush_due.replace(false) {
                core.flush();
                core.tasks.stalls.look("flush", begun);
                continue;
            }
            if core.settling.is_due(core.work()) {
                core.settle().await;
                continue;
            }
            core.watch.beat();
            core.disk.ring().submit();
            let is_due = core.begin_round();
            let now = Instant::now();
            core.turn_ends(now);
            core.wait(now, if is_due { Duration::ZERO } else { core.patience(now) });
            core.tick_if_due();
            core.take_over_settings(&shared);
            if shared.control().is_stopping() && !told {
                told = true;
                core.step(Event::Shutdown);
            }
        }
    }

    /// The core is about to wait: how long has it worked?
    fn turn_ends(&self, now: Instant) {
        let worked = self.clock.at(now).saturating_sub(self.woke_at.get());
        self.vitals.turns.borrow_mut().record(worked);
    }

    /// Waits for whatever comes next, awake at first if that has paid lately.
    fn wait(&self, since: Instant, patience: Duration) {
        let mut came = false;
        if let Some(longest) = self.busy_poll.look_for()
            && !patience.is_zero()
        {
            // The kernel needs the CPU for what it was asked to write.
            while self.disk.ring().under_way() == 0 {
                came = self.poller.wait(Duration::ZERO);
                if came || since.elapsed() >= longest.min(patience) {
                    break;
                }
                rustix::thread::sched_yield();
            }
        }
        if !came {
            if !patience.is_zero() {
                self.watch.will_wait();
            }
            came = self.poller.wait(patience.saturating_sub(since.elapsed()));
        }
        if !patience.is_zero() {
            let waited = since.elapsed();
            self.watch.waited(waited);
            self.busy_poll.waited(waited, came);
        }
    }

    /// How long to wait for whatever comes next.
    fn patience(&self, now: Instant) -> Duration {
        if self.drain_backlog_or_wait() || self.messages_wait() {
            return Duration::ZERO;
        }
        let glommio = self.settling.patience(self.work(), now);
        let deadlines = [self.machine.borrow().deadline(), self.poller.timers().next()];
        let earliest = deadlines.into_iter().flatten().min();
        let left = earliest.map(|deadline| deadline.saturating_sub(self.clock.at(now)));
        left.map_or(glommio, |left| glommio.min(Duration::from_nanos(left)))
    }

    /// What glommio has to do.
    fn work(&self) -> Work {
        if self.disk.is_busy() || self.over.get() {
            Work::Operations
        } else if self.tasks.is_bulk_runnable() {
            Work::Patient
        } else {
            Work::Nothing
        }
    }

    /// Lets glommio submit and reap what the other tasks do, until nobody but this task is runnable. It can't tell: so
    /// two passes in a row must have run nobody else, since in the first they may stand behind this task.
    async fn settle(&self) {
        let work = self.work();
        self.tasks.take_bulk();
        let mut quiet = 0;
        for _ in 0..SETTLE_PASSES_MAX {
            self.watch.hand_over();
            settling::pass().await;
            self.watch.regain();
            let others = glommio::executor().executor_stats().tasks_executed() > 1;
            quiet = if others { 0 } else { quiet + 1 };
            if quiet == 2 {
                return self.settling.is_done(work);
            }
        }
        self.tasks.put_back_bulk();
        self.settling.is_done(work);
    }

    fn flush(self: &Rc<Self>) {
        let mut effects = std::mem::take(&mut *self.effects.borrow_mut());
        self.let_machine_flush(&mut effects);
        // Several writes are for the ring, which has them all at once.
        let calm = self.turn.replace(0) <= CALM_EVENTS_MAX && effects.writes() == 1;
        let mut last_write = None;
        for effect in effects.drain() {
            match effect {
                Effect::Halt { reason } => {
                    // Nothing behind it is carried out.
                    last_write = None;
                    self.halt(reason);
                    break;
                }
                Effect::Write { op, file, offset, block, sync } if calm && sync && last_write.is_none() => {
                    last_write = Some(Write { op, file, offset, block, sync });
                }
                effect => self.carry_out(effect),
            }
        }
        let rung = self.endpoint.borrow_mut().publish();
        self.vitals.mesh_rings.add(rung);
        self.disk.ring().submit();
        if let Some(write) = last_write {
            self.write_last(write);
        }
        // The emptied list goes back, unless carrying out made new effects meanwhile.
        let mut current = self.effects.borrow_mut();
        if current.is_empty() {
            *current = effects;
        }
    }

    /// The end of a batch, and how long its two parts took.
    fn let_machine_flush(&self, effects: &mut Effects<M::Message>) {
        let (mut machine, began) = (self.machine.borrow_mut(), self.clock.now());
        machine.apply(began, effects);
        let applied = self.clock.monotonic();
        machine.flush(Now { monotonic: applied, ..began }, effects);
        self.vitals.applied_nanos.set(applied.saturating_sub(began.monotonic));
        self.vitals.flushed_nanos.set(self.clock.monotonic().saturating_sub(applied));
    }

    /// The write of a calm turn comes last, since it may be done on the spot.
    fn write_last(self: &Rc<Self>, write: Write) {
        match self.disk.write_on_the_spot(write) {
            Ok((op, result)) => self.step(Event::Disk { op, result }),
            Err(write) => {
                self.disk.begin_write(write, Rc::clone(self));
                self.disk.ring().submit();
            }
        }
    }

    fn carry_out(self: &Rc<Self>, effect: Effect<M::Message>) {
        match effect {
            Effect::Reply { conn, bytes } => {
                if let Some(client) = self.client(conn) {
                    self.vitals.client_bytes_out.add(bytes.len() as u64);
                    client.reply(&bytes, self.limits.get().client_output_bytes_max, &self.vitals);
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
                    link.send(&frame, self.limits.get().peer_output_bytes_max, &self.vitals);
                }
            }
            Effect::Mesh { to, message } => self.send_to_core(to, message),
            Effect::Answer { question, answer } => {
                self.questions.answered(question, answer);
                self.poller.stir();
            }
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
        self.poller.stir();
    }

    fn client(&self, conn: ConnId) -> Option<Rc<Client>> {
        self.clients.borrow().get(&conn).cloned()
    }

    fn send_to_core(&self, to: CoreId, message: M::Message) {
        self.vitals.mesh_messages_out.count();
        let mut backlog = self.mesh_backlog.borrow_mut();
        if !backlog.is_empty() {
            self.vitals.mesh_full.count();
            return backlog.push_back((to, message));
        }
        match self.endpoint.borrow_mut().send(to, message) {
            Ok(()) | Err(SendError::Closed(_)) => {}
            Err(SendError::Full(message)) => {
                self.vitals.mesh_full.count();
                backlog.push_back((to, message));
            }
        }
    }

    /// Sends what didn't fit a ring before. Returns whether that changed anything; if not, room rings the bell.
    fn drain_backlog_or_wait(&self) -> bool {
        let mut backlog = self.mesh_backlog.borrow_mut();
        let mut endpoint = self.endpoint.borrow_mut();
        let mut sent = false;
        while let Some((to, message)) = backlog.pop_front() {
            match endpoint.send(to, message) {
                Ok(()) | Err(SendError::Closed(_)) => sent = true,
                Err(SendError::Full(message)) => {
                    backlog.push_front((to, message));
                    if endpoint.poll_room(to, &mut Context::from_waker(&self.poller.bell())).is_pending() {
                        break;
                    }
                }
            }
        }
        endpoint.publish();
        sent
    }

    /// Whether another core's message is there; if not, the next rings the bell.
    fn messages_wait(&self) -> bool {
        let mut endpoint = self.endpoint.borrow_mut();
        endpoint.cores() > 1
            && !endpoint.all_closed()
            && endpoint.poll_ready(&mut Context::from_waker(&self.poller.bell())).is_ready()
    }

    /// Takes what other cores of the node sent.
    fn receive_from_mesh(&self) {
        let mut endpoint = self.endpoint.borrow_mut();
        if endpoint.cores() > 1 {
            let got = endpoint.receive(MESH_BATCH, |from, message| self.step(Event::Mesh { from, message }));
            self.vitals.mesh_messages_in.add(got as u64);
        }
    }
}
