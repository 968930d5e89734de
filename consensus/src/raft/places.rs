//! Members by their places in a replica's table. They are bits of a word: who decides is found out in every turn of every group, and
//! takes no memory but the replica's own.

use crate::quorum::{majority, reached_by_majority};

/// Members, and some who were or will be.
pub(super) const PLACES_MAX: usize = 64;
/// So many are counted without an allocation.
const FEW: usize = 8;

/// Some places of the table of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(u64);

impl Places {
    pub(super) fn iter(self) -> PlacesIter {
        self.into_iter()
    }

    pub(super) fn has(self, place: usize) -> bool {
        self.0 >> place & 1 == 1
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(super) fn insert(&mut self, place: usize) {
        self.0 |= 1 << place;
    }
}

impl IntoIterator for Places {
    type Item = usize;
    type IntoIter = PlacesIter;

    fn into_iter(self) -> PlacesIter {
        PlacesIter(self.0)
    }
}

/// The places one after the other, ascending.
#[derive(Debug)]
pub(super) struct PlacesIter(u64);

impl Iterator for PlacesIter {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (place < PLACES_MAX).then_some(place)
    }
}

impl FromIterator<usize> for Places {
    fn from_iter<T: IntoIterator<Item = usize>>(places: T) -> Self {
        Self(places.into_iter().fold(0, |bits, place| bits | 1 << place))
    }
}

/// Who decides: more than half of one set or, while the group changes, of each of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Voters {
    pub(super) incoming: Places,
    /// Empty but in a joint configuration.
    pub(super) outgoing: Places,
}

impl Voters {
    /// Whether two sets have a say.
    pub(super) fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the member at `place` has a vote in either.
    pub(super) fn has(&self, place: usize) -> bool {
        self.incoming.has(place) || self.outgoing.has(place)
    }

    /// Whether those for whom `yes` holds decide. Nobody decides for an empty group.
    pub(super) fn is_quorum(&self, yes: impl Fn(usize) -> bool) -> bool {
        let is_won = |places: Places| {
            places.is_empty() || places.iter().filter(|place| yes(*place)).count() >= majority(places.len())
        };
        !self.incoming.is_empty() && is_won(self.incoming) && is_won(self.outgoing)
    }

    /// The greatest value that those who decide have reached; 0 for an empty group.
    pub(super) fn reached(&self, value: impl Fn(usize) -> u64) -> u64 {
        let by = |places: Places| {
            let mut few = [0; FEW];
            if places.len() > FEW {
                return reached_by_majority(&mut places.iter().map(&value).collect::<Vec<u64>>());
            }
            for (room, place) in few.iter_mut().zip(places) {
                *room = value(place);
            }
            reached_by_majority(&mut few[..places.len()])
        };
        match (self.incoming.is_empty(), self.is_joint()) {
            (true, _) => 0,
            (false, false) => by(self.incoming),
            (false, true) => by(self.incoming).min(by(self.outgoing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::{JointConfig, MajorityConfig, VoteResult};
    use proptest::prelude::*;

    fn voters() -> impl Strategy<Value = Vec<usize>> {
        proptest::collection::vec(0..PLACES_MAX, 0..13)
    }

    proptest! {
        /// What etcd's cases are run on, and this, are the same.
        #[test]
        fn places_decide_as_the_configuration_does(
            incoming in voters(),
            outgoing in voters(),
            values in proptest::collection::vec(0_u64..6, PLACES_MAX),
            least in 0_u64..6,
        ) {
            let outgoing = if incoming.is_empty() { Vec::new() } else { outgoing };
            let ids = |places: &[usize]| places.iter().map(|place| *place as u64).collect::<MajorityConfig>();
            let config = JointConfig { incoming: ids(&incoming), outgoing: ids(&outgoing) };
            let voters = Voters {
                incoming: incoming.iter().copied().collect(),
                outgoing: outgoing.iter().copied().collect(),
            };
            let value = |id: u64| values[usize::try_from(id).expect("a place")];
            let is_won = config.vote_result(|id| Some(value(id) >= least)) == VoteResult::Won;
            prop_assert_eq!(voters.is_quorum(|place| values[place] >= least), is_won && !incoming.is_empty());
            let reached = config.committed_index(|id| Some(value(id)));
            prop_assert_eq!(voters.reached(|place| values[place]), if incoming.is_empty() { 0 } else { reached });
            prop_assert_eq!(voters.is_joint(), config.is_joint());
        }
    }
}
