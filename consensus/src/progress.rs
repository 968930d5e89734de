//! What a leader knows of one follower.

use crate::raft::Asked;
use flotilla_runtime::Nanos;
use std::collections::VecDeque;

/// How entries go to a follower (as in etcd's `tracker`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The leader doesn't know where the logs agree: one append at a time until one is accepted.
    Probe,
    /// It does: appends are pipelined, up to the window.
    Replicate,
    /// The entries that it needs are gone: it waits for a snapshot.
    Snapshot,
}

/// The leader's view of one follower.
#[derive(Debug)]
pub struct Progress {
    /// Probing or replicating.
    pub mode: Mode,
    /// Durable on the follower and known to agree up to here.
    pub matched: u64,
    /// The next index to send.
    pub next: u64,
    /// The last index of every append not answered yet, oldest first.
    pub in_flight: VecDeque<u64>,
    /// In probe mode: an append is out, wait for its answer (or that of the next heartbeat that is due).
    pub probe_sent: bool,
    /// A heartbeat was due since the last answer to one: an append that wasn't answered may go again.
    probe_again: bool,
    /// When it was last heard of, for check-quorum.
    pub heard: Nanos,
    /// When its pulse last vouched for it while the group rested: whether it is alive is all that this says, never for a read or
    /// a lease.
    pub vouched: Nanos,
    /// The index at which it agreed to rest, and its epoch then.
    pub rests: (u64, u64),
    /// The newest read round that it has answered in this term.
    pub read_round: u64,
    /// Whether its acknowledgements count for commitment: not while it has to get back what it lost.
    pub counts: bool,
    /// Whose messages are heard: the first that spoke in this term, or the last that asked for repair.
    pub incarnation: Option<u64>,
    /// Its last question for what it must have.
    pub asked: Option<Asked>,
    /// The oldest append in flight at the last heartbeat, and for how many heartbeats it has been.
    stalled: (u64, u8),
}

impl Progress {
    /// Nothing known yet; `next` is a first guess.
    pub fn new(next: u64, now: Nanos) -> Self {
        Self {
            mode: Mode::Probe,
            matched: 0,
            next,
            in_flight: VecDeque::new(),
            probe_sent: false,
            probe_again: false,
            heard: now,
            vouched: 0,
            rests: (0, 0),
            read_round: 0,
            counts: true,
            incarnation: None,
            asked: None,
            stalled: (0, 0),
        }
    }

    /// The last sign of life.
    pub fn last_heard(&self) -> Nanos {
        self.heard.max(self.vouched)
    }

    /// A heartbeat goes out. If the oldest append has now been in flight for `patience` of them, it is taken for
    /// lost: probe again.
    pub fn note_heartbeat(&mut self, patience: u8) {
        self.probe_again = true;
        let oldest = self.in_flight.front().copied().unwrap_or(0);
        let (last, times) = self.stalled;
        let times = if oldest != 0 && oldest == last { times + 1 } else { 0 };
        self.stalled = (oldest, times);
        if times >= patience {
            self.stalled = (0, 0);
            self.probe_from(self.matched + 1);
        }
    }

    /// It answered a heartbeat, but not the append of a probe: lost, or there is no room for it. Once for each
    /// heartbeat that is due, and not for each that a read needs: the append may be large.
    pub fn repeat_probe(&mut self) {
        if std::mem::take(&mut self.probe_again) {
            self.probe_sent = false;
        }
    }

    /// Whether another append may be sent now.
    pub fn has_room(&self, window: usize) -> bool {
        match self.mode {
            Mode::Probe => !self.probe_sent,
            Mode::Replicate => self.in_flight.len() < window,
            Mode::Snapshot => false,
        }
    }

    /// An append up to `last` was sent.
    pub fn sent(&mut self, last: u64) {
        match self.mode {
            Mode::Probe => self.probe_sent = true,
            Mode::Replicate => {
                self.next = last + 1;
                self.in_flight.push_back(last);
            }
            Mode::Snapshot => {}
        }
    }

    /// The follower has everything up to `index`. Returns whether that is news.
    pub fn acknowledged(&mut self, index: u64) -> bool {
        while self.in_flight.front().is_some_and(|last| *last <= index) {
            self.in_flight.pop_front();
        }
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(index + 1);
        if self.mode == Mode::Probe || (self.mode == Mode::Snapshot && news) {
            self.mode = Mode::Replicate;
            self.in_flight.clear();
        }
        self.probe_sent = false;
        news
    }

    /// Start over from what is known for certain: an append was refused, or the link broke.
    pub fn probe_from(&mut self, next: u64) {
        self.mode = Mode::Probe;
        self.next = next.max(self.matched + 1);
        self.in_flight.clear();
        self.probe_sent = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_goes_alone_until_it_is_answered() {
        let mut progress = Progress::new(5, 0);
        assert!(progress.has_room(8));
        progress.sent(9);
        assert!(!progress.has_room(8) && progress.next == 5);
        assert!(progress.acknowledged(9));
        assert_eq!((progress.mode, progress.next, progress.has_room(8)), (Mode::Replicate, 10, true));
    }

    #[test]
    fn an_unanswered_probe_is_repeated_once_a_heartbeat() {
        let mut progress = Progress::new(5, 0);
        progress.sent(9);
        progress.repeat_probe();
        assert!(!progress.has_room(8), "that answered a read's heartbeat");
        progress.note_heartbeat(4);
        progress.repeat_probe();
        assert!(progress.has_room(8));
        progress.sent(9);
        progress.repeat_probe();
        assert!(!progress.has_room(8));
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let mut progress = Progress::new(1, 0);
        progress.acknowledged(0);
        progress.sent(3);
        progress.sent(6);
        assert!(!progress.has_room(2));
        assert!(progress.acknowledged(4), "half of the second append is news");
        assert!(progress.has_room(2) && progress.in_flight.len() == 1);
        assert!(!progress.acknowledged(2), "an old answer is none");
        progress.probe_from(2);
        assert_eq!((progress.mode, progress.next), (Mode::Probe, 5), "never below what is acknowledged");
    }
}
