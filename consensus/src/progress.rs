//! What a leader knows of one follower.

use crate::raft::Asked;
use flotilla_runtime::Nanos;
use flotilla_runtime::machine::MILLISECOND;
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

/// What may be in flight to a follower.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Appends, on a short way.
    pub messages: usize,
    /// Appends, on the longest.
    pub messages_max: usize,
    /// Bytes of entries; one append goes whatever its size.
    pub bytes: usize,
}

/// On a way that takes so long to answer, twice as many appends are in flight as on a short one; and so on.
const LONG_WAY: Nanos = 2 * MILLISECOND;

/// An append that isn't answered yet.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    /// The last index in it.
    last: u64,
    bytes: usize,
    sent: Nanos,
    /// Its entries may wait for a sync.
    is_patient: bool,
}

/// The leader's view of one follower. In the order of use: what every append and its answer touch comes first.
#[derive(Debug)]
#[repr(C)]
pub struct Progress {
    /// Durable on the follower and known to agree up to here.
    pub matched: u64,
    /// The next index to send.
    pub next: u64,
    /// Appends that aren't answered yet, oldest first.
    pub in_flight: VecDeque<InFlight>,
    /// Whose messages are heard: the first that spoke in this term, or the last that asked for repair.
    pub incarnation: Option<u64>,
    /// When it was last heard of, for check-quorum.
    pub heard: Nanos,
    /// About the shortest time in which one that may not wait was answered lately; 0: none was yet.
    answered_within: Nanos,
    /// Its last question for what it must have.
    pub asked: Option<Box<Asked>>,
    /// Probing or replicating.
    pub mode: Mode,
    /// In probe mode: an append is out, wait for its answer (or that of the next heartbeat that is due).
    pub probe_sent: bool,
    /// A heartbeat was due since the last answer to one: an append that wasn't answered may go again.
    probe_again: bool,
    /// Whether its acknowledgements count for commitment: not while it has to get back what it lost.
    pub counts: bool,
    /// The link to it stands, as far as is known.
    pub is_reachable: bool,
    /// Its disk has no room: it takes what is under way, and not much more.
    pub is_full: bool,
    /// It is about to stop, or has much to apply yet: the leadership isn't handed to it.
    pub declines: bool,
    /// When its pulse last vouched for it while the group rested: whether it is alive is all that this says, never for a read or
    /// a lease.
    pub vouched: Nanos,
    /// The newest read round that it has answered in this term.
    pub read_round: u64,
    /// The index at which it agreed to rest, and its epoch then.
    pub rests: (u64, u64),
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
            answered_within: 0,
            probe_sent: false,
            probe_again: false,
            heard: now,
            vouched: 0,
            rests: (0, 0),
            read_round: 0,
            counts: true,
            is_reachable: true,
            is_full: false,
            declines: false,
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
        let oldest = self.in_flight.front().map_or(0, |append| append.last);
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
    pub fn has_room(&self, window: Window) -> bool {
        match self.mode {
            Mode::Probe => !self.probe_sent,
            Mode::Replicate => {
                let bytes = self.in_flight_bytes();
                self.in_flight.len() < self.messages_of(window) && (bytes == 0 || bytes < window.bytes)
            }
            Mode::Snapshot => false,
        }
    }

    /// Bytes of entries that are in flight.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight.iter().map(|append| append.bytes).sum()
    }

    /// Deep windows destroy batching where answers come quickly; where they take long, shallow ones leave the link idle.
    fn messages_of(&self, window: Window) -> usize {
        let ways = usize::try_from(1 + self.answered_within / LONG_WAY).unwrap_or(usize::MAX);
        window.messages.saturating_mul(ways).min(window.messages_max).max(1)
    }

    /// About the shortest time in which an append was answered lately; 0: none was yet.
    pub fn answered_within(&self) -> Nanos {
        self.answered_within
    }

    /// When the oldest append was sent that isn't answered.
    pub fn waits_since(&self) -> Option<Nanos> {
        self.in_flight.front().map(|append| append.sent)
    }

    /// No append in flight may wait for a sync any more. Returns whether one might have.
    pub fn hurry(&mut self) -> bool {
        let before = self.in_flight.iter().any(|append| append.is_patient);
        self.in_flight.iter_mut().for_each(|append| append.is_patient = false);
        before
    }

    /// An append up to `last` was sent, whose entries may wait for a sync if it `is_patient`.
    pub fn sent(&mut self, last: u64, bytes: usize, now: Nanos, is_patient: bool) {
        match self.mode {
            Mode::Probe => self.probe_sent = true,
            Mode::Replicate => {
                self.next = last + 1;
                self.in_flight.push_back(InFlight { last, bytes, sent: now, is_patient });
            }
            Mode::Snapshot => {}
        }
    }

    /// The follower has everything up to `index`. Returns whether that is news.
    pub fn acknowledged(&mut self, index: u64, now: Nanos) -> bool {
        while let Some(append) = self.in_flight.pop_front_if(|append| append.last <= index) {
            if append.is_patient {
                continue;
            }
            let took = now.saturating_sub(append.sent).max(1);
            // The shortest, but ways change: it grows slowly towards what is seen.
            let before = if self.answered_within == 0 { took } else { self.answered_within };
            self.answered_within = took.min(before + before / 64 + 1);
        }
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(index + 1);
        if self.mode == Mode::Probe || (self.mode == Mode::Snapshot && news) {
            self.mode = Mode::Replicate;
            self.in_flight.clear();
            // The guess may have been beyond: what nobody has acknowledged is sent (again).
            self.next = self.matched + 1;
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

    const WINDOW: Window = Window { messages: 8, messages_max: 8, bytes: 1000 };
    const TWO: Window = Window { messages: 2, messages_max: 8, bytes: 1000 };

    #[test]
    fn a_probe_goes_alone_until_it_is_answered() {
        let mut progress = Progress::new(5, 0);
        assert!(progress.has_room(WINDOW));
        progress.sent(9, 10, 0, false);
        assert!(!progress.has_room(WINDOW) && progress.next == 5);
        assert!(progress.acknowledged(9, 0));
        assert_eq!((progress.mode, progress.next, progress.has_room(WINDOW)), (Mode::Replicate, 10, true));
    }

    #[test]
    fn an_unanswered_probe_is_repeated_once_a_heartbeat() {
        let mut progress = Progress::new(5, 0);
        progress.sent(9, 10, 0, false);
        progress.repeat_probe();
        assert!(!progress.has_room(WINDOW), "that answered a read's heartbeat");
        progress.note_heartbeat(4);
        progress.repeat_probe();
        assert!(progress.has_room(WINDOW));
        progress.sent(9, 10, 0, false);
        progress.repeat_probe();
        assert!(!progress.has_room(WINDOW));
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let mut progress = Progress::new(1, 0);
        progress.acknowledged(0, 0);
        progress.sent(3, 10, 0, false);
        progress.sent(6, 10, 0, false);
        assert!(!progress.has_room(TWO));
        assert!(progress.acknowledged(4, 0), "half of the second append is news");
        assert!(progress.has_room(TWO) && progress.in_flight.len() == 1);
        assert!(!progress.acknowledged(2, 0), "an old answer is none");
        progress.probe_from(2);
        assert_eq!((progress.mode, progress.next), (Mode::Probe, 5), "never below what is acknowledged");
    }

    #[test]
    fn bytes_in_flight_are_bounded_but_one_append_always_goes() {
        let mut progress = Progress::new(1, 0);
        progress.acknowledged(0, 0);
        progress.sent(1, 5_000, 0, false);
        assert!(!progress.has_room(WINDOW) && progress.in_flight_bytes() == 5_000);
        progress.acknowledged(1, 0);
        progress.sent(2, 400, 0, false);
        progress.sent(3, 500, 0, false);
        assert!(progress.has_room(WINDOW));
        progress.sent(4, 500, 0, false);
        assert!(!progress.has_room(WINDOW));
    }

    #[test]
    fn the_window_grows_with_the_time_that_answers_take() {
        let mut progress = Progress::new(1, 0);
        progress.acknowledged(0, 0);
        let wide = |progress: &mut Progress, takes: Nanos| {
            for round in 0..400 {
                progress.sent(progress.next, 1, round, false);
                progress.acknowledged(progress.next - 1, round + takes);
            }
            progress.messages_of(TWO)
        };
        assert_eq!(wide(&mut progress, MILLISECOND / 2), 2, "a LAN");
        assert_eq!(wide(&mut progress, 5 * MILLISECOND), 6);
        assert_eq!(wide(&mut progress, 100 * MILLISECOND), 8, "the other side of the world");
        assert_eq!(wide(&mut progress, MILLISECOND / 2), 2, "and back at once");
    }
}
