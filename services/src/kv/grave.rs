//! Data that nobody needs any more, on its way back to the memory.

use super::key::Key;
use super::keyspace::{Entry, Keyspace};
use std::collections::{btree_map, btree_set};

/// A shard's data that is given back a little at a time: a million keys take half a second.
#[derive(Debug)]
pub struct Grave {
    keys: btree_map::IntoIter<Key, Entry>,
    deadlines: btree_set::IntoIter<(u64, Box<[u8]>)>,
}

impl From<Keyspace> for Grave {
    fn from(keyspace: Keyspace) -> Self {
        let (keys, deadlines) = keyspace.into_trees();
        Self { keys: keys.into_iter(), deadlines: deadlines.into_iter() }
    }
}

impl Grave {
    /// Gives up to `most` entries back; returns whether that was all.
    pub fn bury(&mut self, most: usize) -> bool {
        (0..most).any(|_| self.deadlines.next().is_none() && self.keys.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Value;

    #[test]
    fn all_of_it_goes_a_little_at_a_time() {
        let mut keys = Keyspace::default();
        for key in 0..10_u8 {
            keys.insert(&[key], Value::String(vec![key]), (key < 5).then_some(7));
        }
        let mut grave = Grave::from(keys);
        let turns = (0..).find(|_| grave.bury(4)).unwrap();
        assert_eq!(turns, 3, "15 entries of two trees, 4 at a time");
    }
}
