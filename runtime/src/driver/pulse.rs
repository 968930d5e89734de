//! Whether all cores turn, for whoever restarts a node that doesn't.
//!
//! A core counts each time that it is about to wait, four times a second at least. It is a number of its own, which nobody else writes;
//! who compares two readings of it knows whether it turned between them.

use crate::sync::{Arc, AtomicUsize, Ordering};
use std::sync::OnceLock;

/// What a core that has ended as it should has counted to.
const ENDED: usize = usize::MAX;

/// A core's number, in a cache line that no other core writes to.
#[derive(Debug)]
#[repr(align(128))]
struct Beat(AtomicUsize);

/// How often each core has come round. None, as long as the node hasn't been started.
#[derive(Clone, Debug, Default)]
pub(super) struct Beats(Arc<OnceLock<Vec<Beat>>>);

impl Beats {
    /// For so many cores.
    pub(super) fn begin(&self, cores: usize) {
        self.0.get_or_init(|| (0..cores).map(|_| Beat(AtomicUsize::new(0))).collect());
    }

    /// That core has come round.
    pub(super) fn beat(&self, core: u16) {
        if let Some(beats) = self.of(core) {
            // Nobody else writes it.
            beats.store(beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// That core won't any more, and needn't.
    pub(super) fn end(&self, core: u16) {
        if let Some(beats) = self.of(core) {
            beats.store(ENDED, Ordering::Relaxed);
        }
    }

    fn of(&self, core: u16) -> Option<&AtomicUsize> {
        self.0.get()?.get(usize::from(core)).map(|beat| &beat.0)
    }

    fn read(&self) -> Vec<usize> {
        self.0.get().into_iter().flatten().map(|beat| beat.0.load(Ordering::Relaxed)).collect()
    }
}

/// Compares how often the cores have come round with how often they had when it was asked before.
#[derive(Debug)]
pub struct Pulse {
    beats: Beats,
    before: Vec<usize>,
}

impl Pulse {
    pub(super) fn new(beats: &Beats) -> Self {
        Self { before: beats.read(), beats: beats.clone() }
    }

    /// The cores that haven't turned since the last call, ascending.
    pub fn stuck(&mut self) -> Vec<u16> {
        let now = self.beats.read();
        let pairs = (0..).zip(now.iter().zip(&self.before));
        let stuck = pairs.filter(|(_, (now, before))| now == before && **now != ENDED);
        let stuck = stuck.map(|(core, _)| core).collect();
        self.before = now;
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_doesn_t_come_round_is_named() {
        let beats = Beats::default();
        beats.beat(0);
        assert!(Pulse::new(&beats).stuck().is_empty(), "there are no cores yet");
        beats.begin(3);
        let mut pulse = Pulse::new(&beats);
        assert_eq!(pulse.stuck(), [0, 1, 2]);
        [0, 2].into_iter().for_each(|core| beats.beat(core));
        assert_eq!(pulse.stuck(), [1]);
        assert_eq!(pulse.stuck(), [0, 1, 2], "since the last time");
        beats.end(0);
        beats.beat(1);
        assert_eq!(pulse.stuck(), [2]);
        beats.beat(2);
        assert_eq!(pulse.stuck(), [1], "who has ended isn't stuck");
    }
}
