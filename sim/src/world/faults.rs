//! What goes wrong: crashes and restarts, links that break, partitions, pauses; and the healing of it all.

use super::{Conn, Happening, MS, SECOND, World};
use crate::disk::{Action, Disk};
use crate::swarm::Swarm;
use flotilla_runtime::machine::Taken;
use flotilla_runtime::{BlockPool, ConnId, CoreBoot, CoreId, Effects, Event, FileKind};
use flotilla_services::core::Core;
use flotilla_storage::{Identity, Lsn, Recovery};

impl World {
    pub(super) fn schedule_faults(&mut self) {
        let Swarm { resets, partitions, crashes, blackouts, pauses, full_disks, transfers, changes, .. } =
            self.swarm;
        let faults = [
            (resets, Happening::Reset),
            (partitions, Happening::Partition),
            (crashes, Happening::Crash { node: Some(0) }),
            (blackouts, Happening::Crash { node: None }),
            (pauses, Happening::Pause),
            (full_disks, Happening::Full),
            (transfers, Happening::Transfer),
            (changes, Happening::Change),
        ];
        for (mean, fault) in faults {
            if mean > 0 {
                self.after(mean, fault);
            }
        }
    }

    pub(super) fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].core.is_some() {
            return Ok(());
        }
        let now = self.clock(node);
        let this = &mut self.nodes[node];
        this.life += 1;
        let boot = CoreBoot {
            core: CoreId(0),
            files: this.disk.boot(),
            pool: BlockPool::heap(),
            seed: this.rng.next_u64(),
            now,
        };
        let core = Core::build(&this.config, boot);
        let core = core.map_err(|error| format!("recovery: node {} refuses to start: {error}", node + 1))?;
        self.trace
            .line(self.now, || format!("node {} starts: {} {:?}", node + 1, core.recovered(), core.damage()));
        self.checks.forget(node);
        this.core = Some(core);
        this.flush_due = false;
        let life = this.life;
        self.at(self.now, Happening::Tick { node, life });
        self.step(node, Event::Tick);
        for other in 0..self.nodes.len() {
            if other != node && self.nodes[other].core.is_some() {
                self.raise_link(node, other);
                self.raise_link(other, node);
            }
        }
        Ok(())
    }

    pub(super) fn raise_link(&mut self, of: usize, to: usize) {
        let life = self.nodes[of].life;
        let delay = self.net_rng.between(MS / 10, 50 * MS);
        self.at(self.now + delay, Happening::Link { of, life, to, up: true });
    }

    /// Whatever is on its way over the link is lost, and its owner hears of it.
    pub(super) fn break_link(&mut self, of: usize, to: usize) {
        let link = self.links.entry((of, to)).or_default();
        link.epoch += 1;
        link.last = 0;
        let life = self.nodes[of].life;
        self.at(self.now + 1, Happening::Link { of, life, to, up: false });
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.crashes += 1;
        self.trace.line(self.now, || format!("node {} crashes", node + 1));
        let this = &mut self.nodes[node];
        this.core = None;
        this.effects = Effects::default();
        let unfinished: Vec<Action> = std::mem::take(&mut this.unfinished).into_values().collect();
        this.disk.crash(&unfinished, &mut this.rng);
        self.rot(node);
        self.wipe(node);
        for connection in std::mem::take(&mut self.nodes[node].conns).into_values() {
            let Conn { client, attempt, .. } = connection;
            self.at(self.now + self.swarm.delay, Happening::GoneAtClient { client, attempt });
        }
        for other in 0..self.nodes.len() {
            if other != node {
                self.break_link(other, node);
                self.break_link(node, other);
            }
        }
        let rest = self.rng.between(MS, if self.healed { 200 * MS } else { 2 * SECOND });
        self.at(self.now + rest, Happening::Restart { node });
    }

    /// Part of what the node's disk holds may be gone. Never of two nodes at once: what both have lost, nobody can give
    /// back.
    fn rot(&mut self, node: usize) {
        let chance = self.swarm.rot;
        if !self.nodes[node].rng.per_million(chance) || !self.may_lose(node) {
            return;
        }
        let this = &mut self.nodes[node];
        let mut disk = this.disk.clone();
        disk.rot(&mut this.rng);
        let identity = Identity { cluster: this.config.cluster_id(), node: this.config.node, core: 0 };
        let before = last_frame(&mut this.disk, identity);
        // A frame that nothing behind it vouches for is taken for torn. No log can tell, so nothing is learned from it.
        if last_frame(&mut disk, identity) == before {
            this.disk = disk;
            self.rotten = Some(node);
            self.rots += 1;
            self.trace.line(self.now, || format!("the disk of node {} rots", node + 1));
        }
    }

    pub(super) fn is_whole(&self, node: usize) -> bool {
        let core = self.nodes[node].core.as_ref();
        core.is_some_and(|core| core.inspect().groups.iter().all(|group| !group.repairing))
    }

    pub(super) fn crash_fault(&mut self, which: Option<usize>) {
        if self.healed {
            return;
        }
        match which {
            Some(_) => {
                let node = self.some_node();
                if self.nodes[node].core.is_some() {
                    self.crash(node);
                }
                self.after(self.swarm.crashes, Happening::Crash { node: Some(0) });
            }
            None => {
                for node in 0..self.nodes.len() {
                    if self.nodes[node].core.is_some() {
                        self.crash(node);
                    }
                }
                self.after(self.swarm.blackouts, Happening::Crash { node: None });
            }
        }
    }

    /// A disk becomes full, or has room again. Every third time, all of them are full.
    pub(super) fn fill_disk(&mut self) {
        if self.healed {
            return;
        }
        if self.rng.between(0, 2) == 0 {
            self.trace.line(self.now, || "every disk is full".to_owned());
            self.nodes.iter_mut().for_each(|node| node.disk.is_full = true);
        } else {
            let node = self.some_node();
            let disk = &mut self.nodes[node].disk;
            disk.is_full = !disk.is_full;
            let is_full = disk.is_full;
            self.trace.line(self.now, || format!("node {}: disk full: {is_full}", node + 1));
        }
        self.after(self.swarm.full_disks, Happening::Full);
    }

    /// An operator wants a group led by another node; or stops a node the gentle way, every fourth time.
    pub(super) fn transfer_fault(&mut self) {
        if self.healed {
            return;
        }
        let (at, to) = (self.some_node(), self.some_node());
        let group = self.rng.between(0, u64::from(self.swarm.groups) - 1);
        let drains = self.rng.between(0, 3) == 0;
        if self.nodes[at].core.is_some() {
            let what = if drains {
                "is told to stop".to_owned()
            } else {
                format!("hands group {group} to {}", to + 1)
            };
            self.trace.line(self.now, || format!("node {} {what}", at + 1));
            if drains {
                self.step(at, Event::Shutdown);
            } else {
                // An operator who doesn't wait for the answer.
                let conn = ConnId(u64::MAX);
                let command = format!("FLOTILLA.TRANSFER {group} {}\r\n", to + 1);
                self.step(at, Event::Opened { conn });
                self.step(
                    at,
                    Event::Client { conn, bytes: command.as_bytes(), taken: &mut Taken::default() },
                );
                self.step(at, Event::Closed { conn });
            }
        }
        self.after(self.swarm.transfers, Happening::Transfer);
    }

    pub(super) fn some_node(&mut self) -> usize {
        usize::try_from(self.rng.between(0, self.nodes.len() as u64 - 1)).expect("few nodes")
    }

    pub(super) fn net_fault(&mut self, fault: &Happening) {
        if self.healed {
            return;
        }
        match fault {
            Happening::Partition => {
                let mode = self.rng.between(0, 2);
                let side: Vec<bool> = match mode {
                    0 => {
                        let alone = self.some_node();
                        (0..self.nodes.len()).map(|node| node == alone).collect()
                    }
                    _ => (0..self.nodes.len()).map(|_| self.rng.between(0, 1) == 0).collect(),
                };
                for from in 0..self.nodes.len() {
                    for to in 0..self.nodes.len() {
                        // One-way every third time.
                        if side[from] != side[to] && (mode != 2 || side[from]) {
                            self.blocked.insert((from, to));
                        }
                    }
                }
                let blocked = &self.blocked;
                self.trace.line(self.now, || format!("partition: {blocked:?}"));
                self.after(self.swarm.partitions, Happening::Mend);
            }
            Happening::Mend => {
                self.mend();
                self.after(self.swarm.partitions, Happening::Partition);
            }
            Happening::Reset => {
                let (of, to) = (self.some_node(), self.some_node());
                if of != to && self.nodes[of].core.is_some() && self.nodes[to].core.is_some() {
                    self.break_link(of, to);
                    self.raise_link(of, to);
                }
                self.after(self.swarm.resets, Happening::Reset);
            }
            _ => {
                // Long enough for another leader, every other time: then the old one wakes up and thinks it still is.
                let leader = self.nodes.iter().position(|node| {
                    let core = node.core.as_ref();
                    core.is_some_and(|core| {
                        core.inspect().groups.iter().any(|it| it.role == flotilla_consensus::Role::Leader)
                    })
                });
                let (node, pause) = match leader.filter(|_| self.rng.between(0, 1) == 0) {
                    Some(leader) => (leader, self.rng.between(1, 4) * self.swarm.election_ms * MS),
                    None => (self.some_node(), self.rng.around(self.swarm.pauses)),
                };
                self.trace.line(self.now, || format!("node {} pauses for {} ms", node + 1, pause / MS));
                let end = (self.now + pause).min(self.swarm.safety);
                for until in &mut self.nodes[node].paused_until {
                    let lag = self.rng.between(0, 3).saturating_sub(1) * MS;
                    *until = (*until).max(end + lag);
                }
                self.after(self.swarm.pauses, Happening::Pause);
            }
        }
    }

    pub(super) fn mend(&mut self) {
        for (from, to) in std::mem::take(&mut self.blocked) {
            if self.nodes[from].core.is_some() && self.nodes[to].core.is_some() {
                self.break_link(from, to);
                self.raise_link(from, to);
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.trace.line(self.now, || "everything is healed".to_owned());
        self.healed = true;
        self.swarm.heal();
        self.mend();
        self.nodes.iter_mut().for_each(|node| node.disk.is_full = false);
        for node in 0..self.nodes.len() {
            if self.nodes[node].core.is_none() {
                self.at(self.now, Happening::Restart { node });
            }
        }
        self.clients.list.iter_mut().for_each(|user| user.served = 0);
        for client in 0..self.clients.list.len() {
            let attempt = self.clients.list[client].attempt;
            self.at(self.now + SECOND, Happening::Impatience { client, attempt });
        }
        // At the earliest: it waits until every client was served once.
        self.at(self.now + 2 * SECOND, Happening::Stop);
    }
}

fn last_frame(disk: &mut Disk, identity: Identity) -> Option<Lsn> {
    let mut recovery = Recovery::new(identity);
    for (file, image) in disk.boot().into_iter().filter(|(file, _)| file.kind == FileKind::Segment) {
        recovery.segment(file, image).ok()?;
    }
    recovery.finish().ok().map(|recovered| recovered.tail.last)
}
