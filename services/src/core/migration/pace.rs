//! How fast shards are copied: as fast as it goes while the cores at both ends have nothing else to do, and no faster than
//! allowed while they serve clients. A copy harms nobody by taking long, for its shard is served.

use flotilla_runtime::Nanos;
use flotilla_runtime::machine::{MILLISECOND, SECOND};

/// How often it is looked whether clients want something.
const LOOK: Nanos = 20 * MILLISECOND;
/// A core that is asked for something more often than so serves clients.
const BUSY: Nanos = MILLISECOND;

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
            *at = (*at).max(now) + takes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_busy_when_it_is_asked_often_and_pieces_keep_to_the_rate() {
        let mut pace = Pace::default();
        assert!(!pace.look(SECOND, 500), "one in two milliseconds");
        assert!(!pace.look(SECOND + LOOK / 2, 10_000), "it isn't looked so often");
        assert!(pace.look(SECOND + LOOK, 10_000) && pace.look(SECOND + LOOK + 1, 10_000));
        assert!(!pace.look(SECOND + 2 * LOOK, 10_001));
        assert!(!pace.look(SECOND + 3 * LOOK, 5), "the counter has begun anew");
        assert!(pace.look(SECOND + 4 * LOOK, 5_000));
        pace.made(SECOND, 1_000, 0, false);
        assert_eq!(pace.next_at(false), SECOND, "no limit");
        pace.made(SECOND, 1_000, 10_000, false);
        pace.made(SECOND, 1_000, 10_000, false);
        assert_eq!([false, true].map(|is_frozen| pace.next_at(is_frozen)), [SECOND + 200 * MILLISECOND, 0]);
        pace.made(SECOND, 1_000, 10_000, true);
        let waits = [false, true].map(|is_frozen| pace.next_at(is_frozen) - SECOND);
        assert_eq!(waits, [300 * MILLISECOND, 100 * MILLISECOND], "it goes before the others");
    }
}
