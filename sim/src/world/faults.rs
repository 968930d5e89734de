//! What goes wrong from outside: links that break, clog and part, pauses, full disks; and the healing of it all.

use super::{Happening, MS, SECOND, World};
use crate::faults::Fault;
use crate::swarm::Swarm;
use flotilla_consensus::Role;
use flotilla_runtime::machine::Taken;
use flotilla_runtime::{ConnId, Event};

impl World {
    pub(super) fn schedule_faults(&mut self) {
        let Swarm {
            resets,
            partitions,
            clogs,
            crashes,
            blackouts,
            pauses,
            full_disks,
            transfers,
            changes,
            reshards,
            ..
        } = self.swarm;
        let faults = [
            (resets, Happening::Reset),
            (partitions, Happening::Partition),
            (clogs, Happening::Clog),
            (crashes, Happening::Crash { all: false }),
            (blackouts, Happening::Crash { all: true }),
            (pauses, Happening::Pause),
            (full_disks, Happening::Full),
            (transfers, Happening::Transfer),
            (changes, Happening::Change),
            (reshards, Happening::Reshard),
        ];
        for (mean, fault) in faults {
            if mean > 0 {
                self.after(mean, fault);
            }
        }
        if self.swarm.backups > 0 {
            self.at(self.swarm.backups, Happening::BackUp);
        }
    }

    pub(super) fn fault(&mut self, fault: &Happening) {
        match fault {
            Happening::Crash { all } => self.crash_fault(*all),
            Happening::Partition => self.part(),
            Happening::Mend => {
                self.mend();
                self.after(self.swarm.partitions, Happening::Partition);
            }
            Happening::Reset => self.reset(),
            Happening::Clog => self.clog(),
            Happening::Pause => self.pause(),
            Happening::Full => self.fill_disk(),
            Happening::Change if self.swarm.plans => self.follow_plan(),
            Happening::Change => self.change_members(),
            Happening::Reshard => self.reshard(),
            Happening::Transfer => self.transfer_fault(),
            _ => {}
        }
    }

    /// An operator wants a group led by another node; or stops a node the gentle way, every fourth time.
    fn transfer_fault(&mut self) {
        self.after(self.swarm.transfers, Happening::Transfer);
        let (node, to) = (self.some_node(), self.some_node() + 1);
        let group = self.rng.between(0, u64::from(self.swarm.groups) - 1);
        let drains = self.rng.between(0, 3) == 0;
        if !self.node_lives(node) {
            return;
        }
        self.tally.note(Fault::Transfer);
        for at in self.of_node(node) {
            if drains {
                self.trace.line(self.now, || format!("{} is told to stop", self.cores[at]));
                self.step(at, Event::Shutdown);
            } else {
                let to = u32::try_from(to).expect("few nodes");
                self.hand_over(at, &group.to_string(), to);
            }
        }
    }

    /// An operator who doesn't wait for the answer.
    pub(super) fn hand_over(&mut self, at: usize, group: &str, to: u32) {
        self.trace.line(self.now, || format!("{} hands group {group} to {to}", self.cores[at]));
        let conn = ConnId(u64::MAX);
        let command = format!("FLOTILLA.TRANSFER {group} {to}\r\n");
        let mut taken = Taken::default();
        self.step(at, Event::Opened { conn, is_local: true });
        self.step(at, Event::Client { conn, bytes: command.as_bytes(), taken: &mut taken });
        self.step(at, Event::Closed { conn });
    }

    /// Two sides don't hear each other: one node and the others, or as the dice fall; sometimes in one direction only, and
    /// sometimes one node goes on hearing, and being heard by, everybody.
    fn part(&mut self) {
        let mode = self.rng.between(0, 3);
        let side: Vec<bool> = match mode {
            0 => {
                let alone = self.some_node();
                (0..self.swarm.nodes).map(|node| node == alone).collect()
            }
            _ => (0..self.swarm.nodes).map(|_| self.rng.between(0, 1) == 0).collect(),
        };
        let one_way = self.swarm.one_way && self.rng.between(0, 1) == 0;
        let bridge = (mode == 3).then(|| self.some_node());
        for from in 0..self.swarm.nodes {
            for to in 0..self.swarm.nodes {
                let is_bridged = bridge == Some(from) || bridge == Some(to);
                if side[from] != side[to] && !is_bridged && (!one_way || side[from]) {
                    self.blocked.insert((from, to));
                }
            }
        }
        if !self.blocked.is_empty() {
            self.tally.note(if one_way { Fault::OneWay } else { Fault::Partition });
        }
        let blocked = &self.blocked;
        self.trace.line(self.now, || format!("partition: {blocked:?}"));
        self.after(self.swarm.partitions, Happening::Mend);
    }

    pub(super) fn mend(&mut self) {
        for (from, to) in std::mem::take(&mut self.blocked) {
            if self.node_lives(from) && self.node_lives(to) {
                self.break_links(from, to);
                self.raise_links(from, to);
            }
        }
    }

    fn reset(&mut self) {
        let (of, to) = (self.some_node(), self.some_node());
        if of != to && self.node_lives(of) && self.node_lives(to) {
            self.tally.note(Fault::Reset);
            self.break_links(of, to);
            self.raise_links(of, to);
        }
        self.after(self.swarm.resets, Happening::Reset);
    }

    /// Nothing arrives over a link until it does.
    fn clog(&mut self) {
        let (from, to) = (self.some_node(), self.some_node());
        let clogged_until = (self.now + self.rng.around(self.swarm.clogs)).min(self.swarm.safety);
        if from != to {
            self.tally.note(Fault::Clog);
            self.trace.line(self.now, || {
                format!(
                    "the link from node {} to node {} clogs until {} ms",
                    from + 1,
                    to + 1,
                    clogged_until / MS
                )
            });
            for from in self.of_node(from) {
                for to in self.of_node(to) {
                    self.link(from, to).clogged_until = clogged_until;
                }
            }
        }
        self.after(self.swarm.clogs, Happening::Clog);
    }

    /// Long enough for another leader, every other time: then the old one wakes up and thinks it still is.
    fn pause(&mut self) {
        let leads = |at: &usize| {
            let core = self.cores[*at].core.as_ref();
            core.is_some_and(|core| core.inspect().groups.iter().any(|group| group.role == Role::Leader))
        };
        let leader = (0..self.cores.len()).find(leads).map(|at| at / self.swarm.cores);
        let (node, pause) = match leader.filter(|_| self.rng.between(0, 1) == 0) {
            Some(leader) => (leader, self.rng.between(8, 32) * self.swarm.election_ms * MS / 8),
            None => (self.some_node(), self.rng.around(self.swarm.pauses)),
        };
        self.tally.note(Fault::Pause);
        self.trace.line(self.now, || format!("node {} pauses for {} ms", node + 1, pause / MS));
        let end = (self.now + pause).min(self.swarm.safety);
        for at in self.of_node(node) {
            for until in &mut self.cores[at].paused_until {
                let lag = self.rng.between(0, 3).saturating_sub(1) * MS;
                *until = (*until).max(end + lag);
            }
        }
        self.after(self.swarm.pauses, Happening::Pause);
    }

    /// A disk becomes full, or has room again. Every third time, all of them are full.
    fn fill_disk(&mut self) {
        self.tally.note(Fault::FullDisk);
        if self.rng.between(0, 2) == 0 {
            self.trace.line(self.now, || "every disk is full".to_owned());
            self.cores.iter_mut().for_each(|core| core.disk.is_full = true);
        } else {
            let node = self.some_node();
            let is_full = !self.cores[self.of_node(node).start].disk.is_full;
            self.of_node(node).for_each(|at| self.cores[at].disk.is_full = is_full);
            self.trace.line(self.now, || format!("node {}: disk full: {is_full}", node + 1));
        }
        self.after(self.swarm.full_disks, Happening::Full);
    }

    pub(super) fn some_node(&mut self) -> usize {
        usize::try_from(self.rng.between(0, self.swarm.nodes as u64 - 1)).expect("few nodes")
    }

    pub(super) fn heal(&mut self) {
        self.trace.line(self.now, || "everything is healed".to_owned());
        self.healed = true;
        self.swarm.heal();
        self.mend();
        self.cores.iter_mut().for_each(|core| core.disk.is_full = false);
        for node in 0..self.swarm.nodes {
            if !self.node_lives(node) {
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
