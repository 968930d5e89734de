//! Changes of a configuration: who votes, who only learns, and how one set of voters takes another's place.
//!
//! ```text
//!             simple (one voter at most)
//!              ┌────────┐
//!              ▼        │   enter_joint (any number)
//!            settled ───┴──────────────────────────▶ joint: both sets decide
//!              ▲                                        │
//!              └─────────── leave_joint ────────────────┘
//! ```
//!
//! Pure: a [`Changer`] takes a configuration and gives the next. It knows nothing of logs, leaders or addresses. Thesis
//! §4.2 and §4.3; the cases are etcd's (`confchange`), whose test data it reproduces.

use crate::quorum::{JointConfig, MajorityConfig};
use std::fmt;

/// Who is in a group, by number. 0 is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Who decides.
    pub voters: JointConfig,
    /// Those who get entries and have no say. Never a voter at the same time.
    pub learners: MajorityConfig,
    /// Voters of the outgoing set that become learners when the joint configuration is left.
    pub learners_next: MajorityConfig,
    /// The leader leaves the joint configuration by itself.
    pub auto_leave: bool,
}

/// One step of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It gets a vote.
    AddVoter(u64),
    /// It learns, and loses its vote if it had one.
    AddLearner(u64),
    /// It leaves.
    Remove(u64),
}

/// A change that can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The change before must be finished first.
    #[error("config is already joint")]
    AlreadyJoint,
    /// There is nothing to go out from.
    #[error("can't make a zero-voter config joint")]
    NoVoters,
    /// There is nothing to leave.
    #[error("can't leave a non-joint config")]
    NotJoint,
    /// The joint configuration must be left first.
    #[error("can't apply simple config change in joint config")]
    SimpleInJoint,
    /// Nobody would decide.
    #[error("removed all voters")]
    AllVotersRemoved,
    /// Two majorities that don't meet would be possible.
    #[error("more than one voter changed without entering joint config")]
    TooManyVoters,
}

impl Configuration {
    /// A configuration with these voters, and nobody else.
    pub fn of_voters(ids: impl IntoIterator<Item = u64>) -> Self {
        let voters = JointConfig { incoming: ids.into_iter().collect(), ..JointConfig::default() };
        Self { voters, ..Self::default() }
    }

    /// Whether `id` gets entries, in whatever role.
    pub fn contains(&self, id: u64) -> bool {
        // Who is among the next learners is still a voter.
        self.voters.contains(id) || self.learners.contains(id)
    }

    /// Everybody in it, ascending.
    pub fn ids(&self) -> MajorityConfig {
        self.voters.ids().ids().iter().chain(self.learners.ids()).copied().collect()
    }

    /// # Panics
    /// If it contradicts itself.
    fn check(self) -> Self {
        for id in self.learners.ids() {
            assert!(!self.voters.contains(*id), "{id} both learns and votes: {self}");
        }
        for id in self.learners_next.ids() {
            assert!(self.voters.outgoing.contains(*id), "{id} will learn, but isn't on its way out: {self}");
        }
        assert!(self.voters.is_joint() || !self.auto_leave, "only a joint configuration is left: {self}");
        self
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "voters={}", self.voters)?;
        if !self.learners.is_empty() {
            write!(f, " learners={}", self.learners)?;
        }
        if !self.learners_next.is_empty() {
            write!(f, " learners_next={}", self.learners_next)?;
        }
        if self.auto_leave {
            write!(f, " autoleave")?;
        }
        Ok(())
    }
}

/// Makes the next configuration from one that stands.
#[derive(Clone, Copy, Debug)]
pub struct Changer<'a>(pub &'a Configuration);

impl Changer<'_> {
    /// Changes that touch at most one voter: any two majorities, before and after, share a voter.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn simple(self, steps: &[Step]) -> Result<Configuration, ChangeError> {
        if self.0.voters.is_joint() {
            return Err(ChangeError::SimpleInJoint);
        }
        let mut next = self.0.clone();
        apply(&mut next, steps)?;
        if next.voters.incoming.differs_by(&self.0.voters.incoming) > 1 {
            return Err(ChangeError::TooManyVoters);
        }
        Ok(next.check())
    }

    /// Any changes: until it is left, the voters of before and those of after must agree.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn enter_joint(self, auto_leave: bool, steps: &[Step]) -> Result<Configuration, ChangeError> {
        if self.0.voters.is_joint() {
            return Err(ChangeError::AlreadyJoint);
        }
        if self.0.voters.incoming.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        let mut next = self.0.clone();
        next.voters.outgoing = next.voters.incoming.clone();
        apply(&mut next, steps)?;
        next.auto_leave = auto_leave;
        Ok(next.check())
    }

    /// From now on only the incoming voters decide.
    ///
    /// # Errors
    /// [`ChangeError::NotJoint`].
    pub fn leave_joint(self) -> Result<Configuration, ChangeError> {
        if !self.0.voters.is_joint() {
            return Err(ChangeError::NotJoint);
        }
        let mut next = self.0.clone();
        for id in next.learners_next.ids() {
            next.learners.insert(*id);
        }
        next.learners_next = MajorityConfig::default();
        next.voters.outgoing = MajorityConfig::default();
        next.auto_leave = false;
        Ok(next.check())
    }
}

fn apply(next: &mut Configuration, steps: &[Step]) -> Result<(), ChangeError> {
    for step in steps {
        let (Step::AddVoter(id) | Step::AddLearner(id) | Step::Remove(id)) = *step;
        let already_learns = matches!(step, Step::AddLearner(_)) && next.learners.contains(id);
        if id == 0 || already_learns {
            continue;
        }
        next.learners.remove(id);
        next.learners_next.remove(id);
        next.voters.incoming.remove(id);
        match step {
            Step::AddVoter(_) => drop(next.voters.incoming.insert(id)),
            // It can't be a learner while it still has a vote.
            Step::AddLearner(_) if next.voters.outgoing.contains(id) => drop(next.learners_next.insert(id)),
            Step::AddLearner(_) => drop(next.learners.insert(id)),
            Step::Remove(_) => {}
        }
    }
    if next.voters.incoming.is_empty() { Err(ChangeError::AllVotersRemoved) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::VoteResult;
    use proptest::prelude::*;

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..3, 0_u64..6).prop_map(|(what, id)| match what {
            0 => Step::AddVoter(id),
            1 => Step::AddLearner(id),
            _ => Step::Remove(id),
        });
        proptest::collection::vec(step, 0..5)
    }

    /// Whether some votes win in one configuration and all others win in the other.
    fn can_split(one: &Configuration, other: &Configuration) -> bool {
        let won = |config: &Configuration, bits: u64| {
            config.voters.vote_result(|id| Some(bits >> id & 1 == 1)) == VoteResult::Won
        };
        (0..64).any(|bits| won(one, bits) && won(other, !bits))
    }

    proptest! {
        /// The invariant on which everything rests: majorities of consecutive configurations share a voter.
        #[test]
        fn quorums_of_consecutive_configurations_intersect(
            changes in proptest::collection::vec((0..3, proptest::bool::ANY, steps()), 1..12)
        ) {
            let mut now = Configuration::of_voters([1, 2, 3]);
            for (what, auto_leave, steps) in changes {
                let next = match what {
                    0 => Changer(&now).simple(&steps),
                    1 => Changer(&now).enter_joint(auto_leave, &steps),
                    _ => Changer(&now).leave_joint(),
                };
                let Ok(next) = next else { continue };
                assert!(!can_split(&now, &next), "{now} then {next}");
                now = next;
            }
        }
    }
}
