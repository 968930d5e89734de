//! One set of voters, decided by more than half of them.

use super::{VoteResult, majority, reached_by_majority};
use std::fmt;

/// Sets up to this size are counted without an allocation.
const FEW: usize = 16;

/// A set of voters, each once, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MajorityConfig(Vec<u64>);

impl MajorityConfig {
    /// The voters, ascending.
    pub fn ids(&self) -> &[u64] {
        &self.0
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `id` is one of them.
    pub fn contains(&self, id: u64) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// Adds a voter; returns whether it is new.
    pub fn insert(&mut self, id: u64) -> bool {
        let Err(at) = self.0.binary_search(&id) else { return false };
        self.0.insert(at, id);
        true
    }

    /// Removes a voter; returns whether it was one.
    pub fn remove(&mut self, id: u64) -> bool {
        let Ok(at) = self.0.binary_search(&id) else { return false };
        self.0.remove(at);
        true
    }

    /// How many are in one of the two sets and not in the other.
    pub fn differs_by(&self, other: &Self) -> usize {
        let missing = |of: &Self, from: &Self| of.0.iter().filter(|id| !from.contains(**id)).count();
        missing(self, other) + missing(other, self)
    }

    /// What has become of a vote in which each said yes, no, or nothing yet. No voters: won, for the sake of
    /// [`super::JointConfig`].
    pub fn vote_result(&self, vote: impl Fn(u64) -> Option<bool>) -> VoteResult {
        if self.0.is_empty() {
            return VoteResult::Won;
        }
        let count = |said: Option<bool>| self.0.iter().filter(|id| vote(**id) == said).count();
        let (yes, due) = (count(Some(true)), count(None));
        let needed = majority(self.0.len());
        if yes >= needed {
            VoteResult::Won
        } else if yes + due >= needed {
            VoteResult::Pending
        } else {
            VoteResult::Lost
        }
    }

    /// The greatest index that a majority has acknowledged; nothing acknowledged counts as 0. No voters: `u64::MAX`, for
    /// the sake of [`super::JointConfig`].
    pub fn committed_index(&self, acknowledged: impl Fn(u64) -> Option<u64>) -> u64 {
        if self.0.is_empty() {
            return u64::MAX;
        }
        let indices = self.0.iter().map(|id| acknowledged(*id).unwrap_or(0));
        let mut few = [0; FEW];
        if self.0.len() > FEW {
            return reached_by_majority(&mut indices.collect::<Vec<u64>>());
        }
        for (place, index) in few.iter_mut().zip(indices) {
            *place = index;
        }
        reached_by_majority(&mut few[..self.0.len()])
    }

    /// A picture of who has acknowledged what: as many `x` as there are voters behind, `?` for who said nothing.
    pub fn describe(&self, acknowledged: impl Fn(u64) -> Option<u64>) -> String {
        if self.0.is_empty() {
            return "<empty majority quorum>".to_owned();
        }
        let voters = self.0.len();
        let index_of = |id: u64| acknowledged(id).unwrap_or(0);
        let behind = |id: u64| self.0.iter().filter(|other| index_of(**other) < index_of(id)).count();
        let mut picture = format!("{:voters$}    idx\n", "");
        for id in &self.0 {
            let bar = match acknowledged(*id) {
                None => "?".to_owned(),
                Some(_) => format!("{}>", "x".repeat(behind(*id))),
            };
            let (index, width) = (index_of(*id), voters + 1);
            picture.push_str(&format!("{bar:width$} {index:5}    (id={id})\n"));
        }
        picture
    }
}

impl FromIterator<u64> for MajorityConfig {
    fn from_iter<T: IntoIterator<Item = u64>>(ids: T) -> Self {
        let mut ids: Vec<u64> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }
}

impl fmt::Display for MajorityConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = self.0.iter().map(u64::to_string).collect();
        write!(f, "({})", ids.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every voter's vote is one of three: what becomes of it when those that are due are given in any way?
    fn outcomes(votes: &[Option<bool>]) -> (bool, bool) {
        let Some(due) = votes.iter().position(Option::is_none) else {
            let yes = votes.iter().filter(|vote| **vote == Some(true)).count();
            let won = yes * 2 > votes.len();
            return (won, !won);
        };
        let with = |vote| {
            let mut votes = votes.to_vec();
            votes[due] = Some(vote);
            outcomes(&votes)
        };
        let (yes, no) = (with(true), with(false));
        (yes.0 || no.0, yes.1 || no.1)
    }

    fn index_by_trying(indices: &[u64]) -> u64 {
        let reached = |index: &u64| indices.iter().filter(|at| *at >= index).count() * 2 > indices.len();
        indices.iter().copied().chain([0]).filter(reached).max().unwrap_or(0)
    }

    proptest::proptest! {
        #[test]
        fn a_vote_is_decided_when_nothing_can_change_it(
            votes in proptest::collection::vec(proptest::option::of(proptest::bool::ANY), 1..8)
        ) {
            let config: MajorityConfig = (0..votes.len() as u64).collect();
            let expected = match outcomes(&votes) {
                (true, true) => VoteResult::Pending,
                (true, false) => VoteResult::Won,
                _ => VoteResult::Lost,
            };
            assert_eq!(config.vote_result(|id| votes[usize::try_from(id).unwrap()]), expected);
        }

        #[test]
        fn an_index_is_committed_when_more_than_half_have_it(
            indices in proptest::collection::vec(0_u64..9, 1..24)
        ) {
            let config: MajorityConfig = (0..indices.len() as u64).collect();
            let committed = config.committed_index(|id| Some(indices[usize::try_from(id).unwrap()]));
            assert_eq!(committed, index_by_trying(&indices));
        }

        #[test]
        fn a_set_is_a_set(ids: Vec<u64>, other: Vec<u64>) {
            let of = |ids: &[u64]| -> std::collections::BTreeSet<u64> { ids.iter().copied().collect() };
            let (config, mut grown) = (ids.iter().copied().collect::<MajorityConfig>(), MajorityConfig::default());
            for id in &ids {
                grown.insert(*id);
            }
            assert_eq!(config, grown);
            let with: MajorityConfig = other.iter().copied().collect();
            let expected = of(&ids).symmetric_difference(&of(&other)).count();
            assert_eq!(config.differs_by(&with), expected);
        }
    }
}
