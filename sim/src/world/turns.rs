//! Events go in, effects come out and are carried out.

use super::{Happening, TICK, World};
use crate::check::promises::standing;
use crate::disk::{Action, broken};
use crate::faults::Fault;
use flotilla_runtime::{CoreId, Effect, Event, FileKind, Machine, OpId};
use flotilla_services::core::Message;

/// No disk operation takes longer than this on average: whoever waited for it would be late after the healing, too.
const STALL_MAX: u64 = 500_000_000;
/// A message over the mesh takes at most so long, unless its receiver is paused.
const MESH_DELAY: u64 = 20_000;

impl World {
    /// A paused node takes nothing until it goes on. Then the kernel hands it clients, peers, timers and disk in any
    /// order: a client can be heard before the peers that elected somebody else.
    pub(super) fn paused_until(&self, happening: &Happening) -> Option<u64> {
        let (at, source) = match happening {
            Happening::ToNode { at, .. } | Happening::GoneAtNode { at, .. } | Happening::Flush { at, .. } => {
                (*at, 0)
            }
            Happening::Frame { to: at, .. } | Happening::Link { of: at, .. } => (*at, 1),
            Happening::Tick { at, .. } => (*at, 2),
            Happening::Disk { at, .. } => (*at, 3),
            Happening::Mesh { to: at, .. } => (*at, 4),
            _ => return None,
        };
        let until = self.cores[at].paused_until[source];
        (until > self.now).then_some(until)
    }

    pub(super) fn step(&mut self, at: usize, event: Event<'_, Message>) {
        let now = self.cores[at].clock(self.now);
        let this = &mut self.cores[at];
        let core = this.core.as_mut().expect("only the living are stepped");
        core.step(now, event, &mut this.effects);
        self.flush_soon(at);
    }

    pub(super) fn flush_soon(&mut self, at: usize) {
        let this = &mut self.cores[at];
        if !this.flush_due {
            this.flush_due = true;
            let gather = this.rng.between(0, self.swarm.batch);
            let life = this.life;
            self.at(self.now + gather, Happening::Flush { at, life });
        }
    }

    pub(super) fn tick(&mut self, at: usize) {
        let this = &mut self.cores[at];
        let now = this.clock(self.now);
        let due = this.core.as_ref().and_then(Machine::deadline).is_some_and(|at| at <= now.monotonic);
        let jitter = this.rng.between(0, TICK / 2);
        let life = this.life;
        if due {
            self.trace.event(self.now, at, 2, || format!("{} hears the clock", self.cores[at]));
            self.step(at, Event::Tick);
        }
        self.at(self.now + TICK / 2 + jitter, Happening::Tick { at, life });
    }

    pub(super) fn flush(&mut self, at: usize) -> Result<(), String> {
        let this = &mut self.cores[at];
        let now = this.clock(self.now);
        this.flush_due = false;
        let core = this.core.as_mut().expect("only the living are flushed");
        core.apply(now, &mut this.effects);
        core.flush(now, &mut this.effects);
        let inspection = core.inspect();
        self.checks.look(this.seat, &inspection)?;
        let mut effects: Vec<Effect<Message>> = this.effects.drain().collect();
        let dies = !effects.is_empty() && this.rng.per_million(self.swarm.mid_batch);
        if dies {
            let done = this.rng.between(0, effects.len() as u64 - 1);
            effects.truncate(usize::try_from(done).expect("short"));
        }
        self.trace.event(self.now, at, effects.len() as u64, || {
            let this = &self.cores[at];
            let core = this.core.as_ref().expect("flushed just now");
            format!("{this} ends a turn with {} effects {}", effects.len(), standing(&core.inspect()))
        });
        for effect in effects {
            if self.cores[at].core.is_none() {
                return Ok(());
            }
            self.carry_out(at, effect)?;
        }
        if dies && self.cores[at].core.is_some() {
            self.die_here(at);
        }
        Ok(())
    }

    fn die_here(&mut self, at: usize) {
        self.tally.note(Fault::MidBatch);
        self.trace.line(self.now, || format!("{} dies in the middle of it", self.cores[at]));
        self.crash(at / self.swarm.cores);
    }

    fn carry_out(&mut self, at: usize, effect: Effect<Message>) -> Result<(), String> {
        match effect {
            Effect::Reply { conn, bytes } => self.reply(at, conn.0, Some(bytes)),
            Effect::Close { conn } => self.reply(at, conn.0, None),
            Effect::Resume { conn } => {
                if let Some(connection) = self.cores[at].conns.get_mut(&conn.0) {
                    connection.paused = false;
                    self.arrive_at_node(at, conn.0, &[]);
                }
            }
            Effect::Send { to, frame } => {
                self.checks.sent(self.cores[at].seat, to.node.0, &frame)?;
                let node = to.node.0 as usize - 1;
                self.send(at, node * self.swarm.cores + usize::from(to.core.0), frame);
            }
            Effect::Mesh { to, message } => self.over_the_mesh(at, to, message),
            Effect::Halt { reason } => {
                self.trace.line(self.now, || format!("{} halts: {reason}", self.cores[at]));
                self.crash(at / self.swarm.cores);
            }
            Effect::Drained => {
                self.cores[at].is_drained = true;
                let node = at / self.swarm.cores;
                if self.of_node(node).all(|at| self.cores[at].is_drained) {
                    self.trace.line(self.now, || format!("node {} has drained", node + 1));
                    self.crash(node);
                }
            }
            disk => return self.begin_disk(at, disk),
        }
        Ok(())
    }

    fn over_the_mesh(&mut self, at: usize, to: CoreId, message: Message) {
        let this = &mut self.cores[at];
        let last = &mut this.mesh_last[usize::from(to.0)];
        // In order, and never lost.
        *last = (self.now + this.rng.between(1, MESH_DELAY)).max(*last + 1);
        let (time, from) = (*last, this.seat.core);
        let to = at / self.swarm.cores * self.swarm.cores + usize::from(to.0);
        let life = self.cores[to].life;
        self.at(time, Happening::Mesh { from, to, life, message });
    }

    pub(super) fn mesh_message(&mut self, from: u16, to: usize, message: Message) {
        self.trace.event(self.now, to, 7, || format!("{} ← core {from}: {message:?}", self.cores[to]));
        self.step(to, Event::Mesh { from: CoreId(from), message });
    }

    fn begin_disk(&mut self, at: usize, effect: Effect<Message>) -> Result<(), String> {
        let this = &mut self.cores[at];
        let mut digest = 3;
        if let Effect::Write { offset, block, file, .. } = &effect {
            digest = *offset ^ u64::from(crc32fast::hash(block));
            let (end, length) = (*offset + block.len() as u64, this.disk.length(*file));
            if file.kind == FileKind::Segment && length.is_some_and(|length| end > length) {
                return Err(format!("space: {this} writes behind the end of {file}"));
            }
            if file.kind == FileKind::Segment && *offset == 0 {
                self.checks.reuses(this.seat, this.disk.first_block(*file))?;
            }
        }
        let (op, action) = this.disk.begin(effect);
        self.disk_numbers += 1;
        let number = self.disk_numbers;
        let mut mean = self.swarm.disk;
        if this.rng.per_million(self.swarm.stalls) {
            mean *= 100;
            self.tally.note(Fault::Stall);
        }
        if self.swarm.slow_disk && at / self.swarm.cores == self.slow {
            mean *= 20;
            self.tally.note(Fault::SlowDisk);
        }
        let latency = this.rng.around(mean.min(STALL_MAX)) + 1;
        let life = this.life;
        self.trace.event(self.now, at, digest, || format!("{this} asks its disk: {action:?}"));
        this.unfinished.insert(number, action);
        self.at(self.now + latency, Happening::Disk { at, life, number, op });
        Ok(())
    }

    /// What of the disk's faults hits this operation, if one does, and in whose words.
    fn disk_fault(&mut self, at: usize, action: &Action) -> Option<(Fault, flotilla_runtime::DiskError)> {
        let this = &mut self.cores[at];
        let (chance, fault, operation, file) = match action {
            Action::Write { file, sync: true, .. } => {
                (self.swarm.sync_errors, Fault::SyncError, "write", file)
            }
            Action::Sync { file, .. } => (self.swarm.sync_errors, Fault::SyncError, "sync", file),
            Action::Create { file, .. } => (self.swarm.io_errors, Fault::IoError, "create", file),
            Action::Rename { from, .. } => (self.swarm.io_errors, Fault::IoError, "rename", from),
            Action::Remove { file } => (self.swarm.io_errors, Fault::IoError, "remove", file),
            Action::Read { file, .. } => (self.swarm.read_errors, Fault::ReadError, "read", file),
            _ => return None,
        };
        if !this.rng.per_million(chance) {
            return None;
        }
        self.tally.note(fault);
        self.trace.line(self.now, || format!("{}: a {operation} of {file} fails", self.cores[at]));
        Some((fault, broken(operation, *file)))
    }

    pub(super) fn disk_done(&mut self, at: usize, number: u64, op: OpId) -> Result<(), String> {
        let action = self.cores[at].unfinished.remove(&number).expect("completes once");
        let failed = self.disk_fault(at, &action);
        let digest = op.0 ^ u64::from(failed.is_some());
        self.trace.event(self.now, at, digest, || format!("{}'s disk has done {action:?}", self.cores[at]));
        let this = &mut self.cores[at];
        let result = match failed {
            Some((fault, error)) => {
                if let Action::Write { file, .. } | Action::Sync { file, .. } = &action
                    && fault == Fault::SyncError
                {
                    this.disk.lose_pending(*file);
                }
                Err(error)
            }
            None => {
                if let Action::Rename { from, .. } = &action
                    && !this.disk.is_durable(*from)
                {
                    return Err(format!("snapshot: {this} renames {from} before it is synced"));
                }
                let result = this.disk.complete(&action);
                for (_, offset, bytes) in this.disk.take_hardened() {
                    self.checks.hardened(this.seat, offset, &bytes)?;
                }
                if let Err(error) = &result
                    && !matches!(action, Action::NoRoom { .. })
                {
                    return Err(format!("space: {this} asks its disk for what can't be: {error}"));
                }
                result
            }
        };
        if self.cores[at].rng.per_million(self.swarm.mid_batch) {
            self.die_here(at);
            return Ok(());
        }
        self.step(at, Event::Disk { op, result });
        Ok(())
    }
}
