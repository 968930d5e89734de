//! Data that nobody needs any more goes back to the memory, slowly: shards that have gone, and what a snapshot has replaced. All
//! replicas of a group come to that at once, and whoever asks any of them for something would wait for all of it.

use crate::kv::{Grave, Keyspace};
use flotilla_runtime::Nanos;
use flotilla_runtime::machine::MILLISECOND;

/// How often some entries are given back.
const EVERY: Nanos = MILLISECOND;
/// How many: they take a fifth of that time.
const ENTRIES: usize = 500;

/// What a core has to give back.
#[derive(Debug, Default)]
pub(super) struct Graveyard {
    graves: Vec<Grave>,
    next_at: Nanos,
}

impl Graveyard {
    pub(super) fn put(&mut self, keys: Keyspace) {
        if !keys.is_empty() {
            self.graves.push(keys.into());
        }
    }

    /// When some more is given back.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        (!self.graves.is_empty()).then_some(self.next_at)
    }

    pub(super) fn tick(&mut self, now: Nanos) {
        if self.deadline().is_none_or(|at| now < at) {
            return;
        }
        self.next_at = now + EVERY;
        if self.graves.last_mut().is_some_and(|grave| grave.bury(ENTRIES)) {
            self.graves.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::ShardReader;

    #[test]
    fn it_takes_its_time_and_comes_to_an_end() {
        let entry = |key: u16| {
            let key = key.to_be_bytes();
            [&[2, 0, 0, 0, 0, 0, 0, 0][..], &[0; 8], &[1], &key].concat()
        };
        let mut reader = ShardReader::default();
        reader.read(&(0..1200).flat_map(entry).collect::<Vec<u8>>()).unwrap();
        let mut graveyard = Graveyard::default();
        graveyard.put(Keyspace::default());
        assert_eq!(graveyard.deadline(), None, "nothing to do");
        graveyard.put(reader.finish().unwrap());
        let mut turns = 0;
        let mut now = 7;
        while let Some(at) = graveyard.deadline() {
            now = now.max(at);
            graveyard.tick(now);
            graveyard.tick(now);
            turns += 1;
        }
        assert_eq!(turns, 3, "1200 entries, 500 at a time");
    }
}
