//! The arithmetic of majorities, of one set of voters and of two at once.
//!
//! Voters are numbers whose meaning is the caller's: node numbers in a [`crate::confchange::Configuration`], places in a
//! table in [`crate::Raft`]. After etcd's `quorum`, whose test data these types reproduce.

mod joint;
mod majority;

pub use joint::JointConfig;
pub use majority::MajorityConfig;

/// What has become of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// Not decided: the answers that are due decide.
    Pending,
    /// It can't be won any more.
    Lost,
    /// A majority said yes.
    Won,
}

/// How many of `voters` make a majority.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The greatest value that a majority has reached: with match indices, the index that is committed; with
/// acknowledged read rounds, the round that is confirmed. 0 for no voters. Sorts `values` in place.
pub fn reached_by_majority(values: &mut [u64]) -> u64 {
    if values.is_empty() {
        return 0;
    }
    values.sort_unstable_by(|a, b| b.cmp(a));
    values[majority(values.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majority_of_few() {
        assert_eq!([1, 2, 3, 4, 5].map(majority), [1, 2, 2, 3, 3]);
    }

    #[test]
    fn the_value_a_majority_has_reached() {
        assert_eq!(reached_by_majority(&mut []), 0);
        assert_eq!(reached_by_majority(&mut [7]), 7);
        assert_eq!(reached_by_majority(&mut [9, 3]), 3);
        assert_eq!(reached_by_majority(&mut [9, 3, 5]), 5);
        assert_eq!(reached_by_majority(&mut [1, 9, 3, 5]), 3);
        assert_eq!(reached_by_majority(&mut [0, 0, 9, 9, 9]), 9);
    }
}
