//! How fast shards are copied: as fast as it goes while the cores at both ends have nothing else to do, and no faster than
//! allowed while they serve clients. A copy harms nobody by taking long, for its shard is served.

use flotilla_runtime::Nanos;
use flotilla_runtime::machine::{MILLISECOND, SECOND};

/// How often it is looked whether clients want something.
const LOOK: Nanos = 20 * MILLISECOND;
/// A core that is asked for something more often than so serves clients.
const BUSY: Nanos = MILLISECOND;
/// A piece that could have been made so much sooner, but for what the destination had yet to log, holds the next ones up no longer: the
/// window and the rate are two limits, and not the sum of their times.
const LATE_MAX: Nanos = 8 * MILLISECOND;

/// The pace of a core.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The next piece may be made then: of a shard that is served, and of one that is frozen.
    next_at: [Nanos; 2],
    looked_at: Nanos,
    commands: u64,
    is_busy: bool,
}

impl Pace {
    /// Whether the core serves clients, by the number of commands that they have sent since it was started, or since `CONFIG RESETSTAT`.
    pub(super) fn look(&mut self, now: Nanos, commands: u64) -> bool {
        let passed = now.saturating_sub(self.looked_at);
        if passed >= LOOK {
            self.is_busy = commands.saturating_sub(self.commands).saturating_mul(BUSY) > passed;
            (self.looked_at, self.commands) = (now, commands);
        }
        self.is_busy
    }

    /// When the next piece may be made. One of a frozen shard waits for no other, since clients wait for it.
    pub(super) fn next_at(&self, is_frozen: bool) -> Nanos {
        self.next_at[usize::from(is_frozen)]
    }

    /// A piece is made, at a rate of so many bytes a second; 0: there is none.
    pub(super) fn made(&mut self, now: Nanos, bytes: usize, rate: u64, is_frozen: bool) {
        let takes = (bytes as u64 * SECOND).checked_div(rate).unwrap_or(0);
        for at in &mut self.next_at[..=usize::from(is_frozen)] {
            *at = (*at).max(now.saturating_sub(LATE_MAX)) + takes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of eight milliseconds, and then a wait of as long for the answer: that makes up for itself.
    #[test]
    fn time_spent_waiting_for_the_destination_is_not_lost() {
        let (mut pace, mut now, mut pieces) = (Pace::default(), SECOND, 0_u64);
        while now < 2 * SECOND {
            for _ in 0..8 {
                now = now.max(pace.next_at(false));
                pace.made(now, 1_000, 1_000_000, false);
                pieces += 1;
            }
            now += 8 * MILLISECOND;
        }
        assert!((990..=1_020).contains(&pieces), "{pieces} in a second, and not half as many");
    }

    #[test]
    fn a_core_is_busy_when_it_is_asked_often_and_pieces_keep_to_the_rate() {
        let mut pace = Pace::default();
        assert!(!pace.look(SECOND, 500), "one in two milliseconds");
        assert!(!pace.look(SECOND + LOOK / 2, 10_000), "it isn't looked so often");
        assert!(pace.look(SECOND + LOOK, 10_000) && pace.look(SECOND + LOOK + 1, 10_000));
        assert!(!pace.look(SECOND + 2 * LOOK, 10_001));
        assert!(!pace.look(SECOND + 3 * LOOK, 5), "the counter has begun anew");
        assert!(pace.look(SECOND + 4 * LOOK, 5_000));
        let from = SECOND - LATE_MAX;
        pace.made(SECOND, 1_000, 0, false);
        assert_eq!(pace.next_at(false), from, "no limit");
        pace.made(SECOND, 1_000, 10_000, false);
        pace.made(SECOND, 1_000, 10_000, false);
        assert_eq!([false, true].map(|is_frozen| pace.next_at(is_frozen)), [from + 200 * MILLISECOND, 0]);
        pace.made(SECOND, 1_000, 10_000, true);
        let waits = [false, true].map(|is_frozen| pace.next_at(is_frozen) - from);
        assert_eq!(waits, [300 * MILLISECOND, 100 * MILLISECOND], "it goes before the others");
    }
}
