//! Two sets of voters at once, while one takes the other's place: each must decide alike (§6 of the paper).

use super::{MajorityConfig, VoteResult};
use std::fmt;

/// The voters of a configuration. Unless it is joint, `outgoing` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JointConfig {
    /// Those that decide from now on.
    pub incoming: MajorityConfig,
    /// Those that decided until now, and still have a say.
    pub outgoing: MajorityConfig,
}

impl JointConfig {
    /// Whether two sets have a say.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` has a vote in either.
    pub fn contains(&self, id: u64) -> bool {
        self.incoming.contains(id) || self.outgoing.contains(id)
    }

    /// The voters of both.
    pub fn ids(&self) -> MajorityConfig {
        self.incoming.ids().iter().chain(self.outgoing.ids()).copied().collect()
    }

    /// What has become of a vote: won if both sets won it, lost if either lost it.
    pub fn vote_result(&self, vote: impl Fn(u64) -> Option<bool>) -> VoteResult {
        match (self.incoming.vote_result(&vote), self.outgoing.vote_result(&vote)) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
            _ => VoteResult::Pending,
        }
    }

    /// The greatest index that a majority of each has acknowledged, `u64::MAX` without voters.
    pub fn committed_index(&self, acknowledged: impl Fn(u64) -> Option<u64>) -> u64 {
        self.incoming.committed_index(&acknowledged).min(self.outgoing.committed_index(&acknowledged))
    }

    /// The picture of the voters of both, see [`MajorityConfig::describe`].
    pub fn describe(&self, acknowledged: impl Fn(u64) -> Option<u64>) -> String {
        self.ids().describe(acknowledged)
    }
}

impl fmt::Display for JointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_joint() {
            true => write!(f, "{}&&{}", self.incoming, self.outgoing),
            false => self.incoming.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Whatever the two sets: two majorities of both always share a voter, so no two leaders are elected.
        #[test]
        fn who_won_leaves_nobody_else_to_win(incoming in 0_u64..256, outgoing in 0_u64..256, yes in 0_u64..256) {
            let set = |bits: u64| (0..8).filter(|id| bits >> id & 1 == 1).collect::<MajorityConfig>();
            let config = JointConfig { incoming: set(incoming | 1), outgoing: set(outgoing) };
            let won = |bits: u64| config.vote_result(|id| Some(bits >> id & 1 == 1)) == VoteResult::Won;
            assert!(!(won(yes) && won(!yes)), "{config} {yes:b}");
        }

        #[test]
        fn a_joint_index_is_the_lower_of_two(incoming in 1_u64..256, outgoing in 1_u64..256, indices: [u64; 8]) {
            let set = |bits: u64| (0..8).filter(|id| bits >> id & 1 == 1).collect::<MajorityConfig>();
            let config = JointConfig { incoming: set(incoming), outgoing: set(outgoing) };
            let index = config.committed_index(|id| Some(indices[usize::try_from(id).unwrap()]));
            let reached = |set: &MajorityConfig, index: u64| {
                let has = |id: &&u64| indices[usize::try_from(**id).unwrap()] >= index;
                set.ids().iter().filter(has).count() * 2 > set.len()
            };
            assert!(reached(&config.incoming, index) && reached(&config.outgoing, index));
            let more = index.saturating_add(1);
            assert!(index == u64::MAX || !reached(&config.incoming, more) || !reached(&config.outgoing, more));
        }
    }
}
