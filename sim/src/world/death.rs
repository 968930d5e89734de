//! Crashes, what disks lose in them, and what starts again.

use super::seat::Conn;
use super::{Happening, MS, SECOND, World};
use crate::check::Seat;
use crate::disk::{Action, Disk};
use crate::faults::Fault;
use flotilla_runtime::{BlockPool, CoreBoot, CoreId, Effects, Event, FileKind, Vitals};
use flotilla_services::core::Core;
use flotilla_storage::{Identity, Lsn, Recovery};

impl World {
    /// A node starts: all its cores, each from its disk.
    pub(super) fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.node_lives(node) {
            return Ok(());
        }
        for at in self.of_node(node) {
            self.start_core(at)?;
        }
        for other in 0..self.swarm.nodes {
            if other != node && self.node_lives(other) {
                self.raise_links(node, other);
                self.raise_links(other, node);
            }
        }
        Ok(())
    }

    fn start_core(&mut self, at: usize) -> Result<(), String> {
        let this = &mut self.cores[at];
        this.life += 1;
        let boot = CoreBoot {
            core: CoreId(this.seat.core),
            files: this.disk.boot(),
            pool: BlockPool::new(),
            seed: this.rng.next_u64(),
            now: this.clock(self.now),
            vitals: Vitals::new(),
        };
        let core = Core::build(&this.config, boot);
        let mut core = core.map_err(|error| format!("recovery: {this} refuses to start: {error}"))?;
        if self.swarm.applies > 0 {
            core.apply_at_most(self.swarm.applies);
        }
        self.trace.line(self.now, || format!("{this} starts: {} {:?}", core.recovered(), core.damage()));
        self.checks.started(this.seat, &core.inspect())?;
        this.core = Some(core);
        this.flush_due = false;
        let life = this.life;
        self.at(self.now, Happening::Tick { at, life });
        self.step(at, Event::Tick);
        Ok(())
    }

    /// A node dies: all its cores at once.
    pub(super) fn crash(&mut self, node: usize) {
        self.trace.line(self.now, || format!("node {} crashes", node + 1));
        for at in self.of_node(node) {
            let this = &mut self.cores[at];
            this.core = None;
            this.effects = Effects::default();
            this.mesh_last.fill(0);
            this.is_drained = false;
            let unfinished: Vec<Action> = std::mem::take(&mut this.unfinished).into_values().collect();
            this.disk.crash(&unfinished, self.swarm.loses, &mut this.rng, &mut self.tally);
            for connection in std::mem::take(&mut this.conns).into_values() {
                let Conn { client, attempt, .. } = connection;
                self.at(self.now + self.swarm.delay, Happening::GoneAtClient { client, attempt });
            }
        }
        self.rot(node);
        self.wipe(node);
        for other in 0..self.swarm.nodes {
            if other != node {
                self.break_links(other, node);
                self.break_links(node, other);
            }
        }
        let rest = self.rng.between(MS, if self.healed { 200 * MS } else { 2 * SECOND });
        self.at(self.now + rest, Happening::Restart { node });
    }

    /// Part of what a disk of the node holds may be gone.
    fn rot(&mut self, node: usize) {
        let chance = self.swarm.rot;
        let first = self.of_node(node).start;
        if self.swarm.rots.is_none() || !self.cores[first].rng.per_million(chance) || !self.may_lose(node) {
            return;
        }
        for at in self.of_node(node) {
            let this = &mut self.cores[at];
            let mut disk = this.disk.clone();
            let Some(fault) = disk.rot(self.swarm.rots, &mut this.rng) else { continue };
            let Seat { node: number, core, .. } = this.seat;
            let identity = Identity { cluster: this.config.cluster_id(), node: number, core };
            let before = last_frame(&mut this.disk, identity);
            // A frame that nothing behind it vouches for is taken for torn. No log can tell, so nothing is learned from it.
            if last_frame(&mut disk, identity) != before {
                continue;
            }
            this.disk = disk;
            self.tally.note(fault);
            self.checks.rotten(this.seat);
            self.trace.line(self.now, || format!("{}'s disk suffers: {fault}", self.cores[at]));
        }
    }

    pub(super) fn is_whole(&self, node: usize) -> bool {
        self.of_node(node).all(|at| {
            let core = self.cores[at].core.as_ref();
            core.is_some_and(|core| core.inspect().groups.iter().all(|group| !group.repairing))
        })
    }

    pub(super) fn crash_fault(&mut self, all: bool) {
        if all {
            self.tally.note(Fault::Blackout);
            for node in 0..self.swarm.nodes {
                if self.node_lives(node) {
                    self.crash(node);
                }
            }
            return self.after(self.swarm.blackouts, Happening::Crash { all });
        }
        let node = self.some_node();
        if self.node_lives(node) {
            self.tally.note(Fault::Crash);
            self.crash(node);
        }
        self.after(self.swarm.crashes, Happening::Crash { all });
    }
}

fn last_frame(disk: &mut Disk, identity: Identity) -> Option<Lsn> {
    let mut recovery = Recovery::new(identity);
    for (file, image) in disk.boot().into_iter().filter(|(file, _)| file.kind == FileKind::Segment) {
        recovery.segment(file, image).ok()?;
    }
    recovery.finish().ok().map(|recovered| recovered.tail.last)
}
