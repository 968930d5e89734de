//! Frames between nodes, and the links that they take: one from every core to every core of the other nodes.

use super::{Happening, MS, World};
use crate::check::promises::{is_rafts, messages};
use crate::faults::Fault;
use flotilla_runtime::Event;

/// One direction between two cores.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    /// Grows when it breaks: what is on its way belongs to an earlier one, and is lost.
    epoch: u64,
    /// When the last frame arrives.
    last: u64,
    /// Nothing arrives before this instant.
    pub(super) clogged_until: u64,
}

impl World {
    pub(super) fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let all = self.cores.len();
        &mut self.links[from * all + to]
    }

    pub(super) fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        let sides = (from / self.swarm.cores, to / self.swarm.cores);
        if self.blocked.contains(&sides) || self.cores[to].core.is_none() {
            return;
        }
        self.trace.event(self.now, from, bytes.len() as u64, || {
            format!("{} → {}: {}", self.cores[from], self.cores[to], shown(&bytes))
        });
        if self.net_rng.per_million(self.swarm.loss) {
            self.tally.note(Fault::Loss);
            self.trace.event(self.now, from, 8, || "  it is lost".to_owned());
            return;
        }
        // Raft bears what a link never does; commands on their way to a leader count on its order.
        let is_rafts = is_rafts(&bytes);
        let twice = self.net_rng.per_million(self.swarm.duplication) && is_rafts;
        if twice {
            self.tally.note(Fault::Duplication);
            self.frame(from, to, bytes.clone(), is_rafts);
        }
        self.frame(from, to, bytes, is_rafts);
    }

    fn frame(&mut self, from: usize, to: usize, bytes: Vec<u8>, may_be_late: bool) {
        let delay = self.swarm.delay / 4 + self.net_rng.around(self.swarm.delay) + 1;
        let overtaken = self.net_rng.per_million(self.swarm.reordering) && may_be_late;
        let extra = if overtaken { self.net_rng.around(self.swarm.delay * 4) } else { 0 };
        if overtaken {
            self.tally.note(Fault::Reordering);
        }
        let now = self.now;
        let link = self.link(from, to);
        let mut time = (now + delay + extra).max(link.clogged_until);
        if !overtaken {
            time = time.max(link.last + 1);
            link.last = time;
        }
        let epoch = link.epoch;
        let life = self.cores[to].life;
        self.at(time, Happening::Frame { from, to, life, epoch, bytes });
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, life: u64, epoch: u64, bytes: &[u8]) {
        let current = self.link(from, to).epoch;
        if self.alive(to, life) && epoch == current {
            let digest = u64::from(crc32fast::hash(bytes));
            self.trace.event(self.now, to, digest, || {
                format!("{} ← {}: {}", self.cores[to], self.cores[from], shown(bytes))
            });
            let from = self.cores[from].peer();
            self.step(to, Event::Peer { from, frame: bytes });
        }
    }

    pub(super) fn link_changed(&mut self, of: usize, to: usize, up: bool) {
        let peer = self.cores[to].peer();
        self.trace.line(self.now, || {
            let state = if up { "up" } else { "down" };
            format!("{}'s link to {} is {state}", self.cores[of], self.cores[to])
        });
        self.step(of, if up { Event::PeerUp { peer } } else { Event::PeerDown { peer } });
    }

    /// All links from one node to another come up.
    pub(super) fn raise_links(&mut self, of: usize, to: usize) {
        for of in self.of_node(of) {
            for to in self.of_node(to) {
                let life = self.cores[of].life;
                let delay = self.net_rng.between(MS / 10, 50 * MS);
                self.at(self.now + delay, Happening::Link { of, life, to, up: true });
            }
        }
    }

    /// Whatever is on its way from one node to another is lost, and the sender hears of it.
    pub(super) fn break_links(&mut self, of: usize, to: usize) {
        for of in self.of_node(of) {
            for to in self.of_node(to) {
                let link = self.link(of, to);
                link.epoch += 1;
                (link.last, link.clogged_until) = (0, 0);
                let life = self.cores[of].life;
                self.at(self.now + 1, Happening::Link { of, life, to, up: false });
            }
        }
    }
}

/// A peer frame, for people.
fn shown(frame: &[u8]) -> String {
    let messages = messages(frame);
    if messages.is_empty() {
        return format!("{} bytes of commands or answers", frame.len());
    }
    let one = |(header, body): &(flotilla_consensus::Header, usize)| {
        let flag = if header.flag { " flag" } else { "" };
        format!(
            "{:?}{flag} group {} term {} index {} ({}) commit {} aux {} +{body} bytes",
            header.kind,
            header.group.0.saturating_sub(1),
            header.term,
            header.index,
            header.log_term,
            header.commit,
            header.aux
        )
    };
    messages.iter().map(one).collect::<Vec<_>>().join("; ")
}
