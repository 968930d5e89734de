//! What may be read of a key that one client writes, one write after the other, a number that only grows.
//!
//! ```text
//! acknowledged 7, unknown {8, 9}:   7, 8 and 9 may be read;   6 is a lost write, 10 was never written
//! 9 is read:                        9 has taken effect; from now on 9 and 8 may be read, for 8 may still be on its way
//! ```

use std::collections::BTreeSet;

/// Of one key.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// The newest write that surely took effect; 0 before the first.
    acknowledged: u64,
    /// Writes whose outcome isn't known: each may take effect at any time, or never.
    unknown: BTreeSet<u64>,
    /// The newest number that was sent.
    sent: u64,
}

impl Ledger {
    /// The number of the next write.
    pub(super) fn next(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// The write `number` was acknowledged.
    pub(super) fn acknowledge(&mut self, number: u64) {
        assert!(number == self.sent && number > self.acknowledged, "one write after the other");
        self.acknowledged = number;
    }

    /// Nobody knows what became of the write `number`.
    pub(super) fn lose_sight(&mut self, number: u64) {
        self.unknown.insert(number);
    }

    /// Takes in what was read, 0 for nothing.
    ///
    /// # Errors
    /// What should have been there.
    pub(super) fn read(&mut self, number: u64) -> Result<(), String> {
        if number == self.acknowledged {
            return Ok(());
        }
        if self.unknown.remove(&number) {
            self.acknowledged = number;
            return Ok(());
        }
        let unknown: Vec<String> = self.unknown.iter().map(ToString::to_string).collect();
        Err(format!(
            "write {number} was read, but {} had taken effect; of unknown outcome: {}",
            self.acknowledged,
            if unknown.is_empty() { "none".to_owned() } else { unknown.join(" ") }
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(count: u64) -> Ledger {
        let mut ledger = Ledger::default();
        for _ in 0..count {
            let number = ledger.next();
            ledger.acknowledge(number);
        }
        ledger
    }

    #[test]
    fn a_lost_write_is_seen() {
        let mut ledger = written(3);
        assert_eq!(ledger.read(3), Ok(()));
        assert!(ledger.read(2).unwrap_err().contains("write 2 was read, but 3 had taken effect"));
        assert!(ledger.read(0).is_err(), "the key is gone");
        assert!(ledger.read(4).is_err(), "never written");
    }

    #[test]
    fn an_unknown_write_may_come_or_not_but_once() {
        let mut ledger = written(1);
        let number = ledger.next();
        ledger.lose_sight(number);
        assert_eq!(ledger.read(1), Ok(()), "it may not have happened");
        assert_eq!(ledger.read(2), Ok(()), "or it may");
        assert!(ledger.read(1).is_err(), "what was seen can't be undone");
        let number = ledger.next();
        ledger.acknowledge(number);
        assert!(ledger.read(2).is_err(), "nor can it happen twice");
    }
}
