//! Who decides: configurations, and whether those who decide have said so.

use super::{Checks, Seat, Seen, name};
use flotilla_consensus::confchange::Configuration;
use flotilla_consensus::quorum::VoteResult;
use flotilla_services::core::GroupInspection;

impl Checks {
    /// A log has one change at a time; all have the same configurations, and majorities of consecutive ones meet. Returns the
    /// entry that brought the one in effect, if that was looked at: the same again needs no other look.
    pub(super) fn members(
        &mut self,
        seat: Seat,
        group: &GroupInspection<'_>,
        before: Seen,
    ) -> Result<Option<u64>, String> {
        if group.changes().iter().filter(|index| **index > group.commit).count() > 1 {
            return Err(format!("one change at a time: {} has {:?}", name(seat), group.changes()));
        }
        let (index, membership) = group.membership();
        if group.repairing {
            // It may have assumed the founders'.
            return Ok(None);
        }
        if before.configured == Some(index) {
            return Ok(before.configured);
        }
        let key = (group.group, index);
        match self.configurations.get(&key) {
            Some(known) if *known == membership.configuration => return Ok(Some(index)),
            Some(known) => {
                return Err(format!(
                    "configurations: {} has {} from {index}, others {known}",
                    name(seat),
                    membership.configuration
                ));
            }
            None => self.configurations.insert(key, membership.configuration.clone()),
        };
        let of_group = self.configurations.range((group.group, 0)..=(group.group, u64::MAX));
        let of_group: Vec<_> = of_group.map(|(_, configuration)| configuration).collect();
        for pair in of_group.windows(2) {
            if (0..1_u32 << 10).any(|votes| wins(pair[0], votes) && wins(pair[1], !votes)) {
                return Err(format!("configurations: {} and {} can both decide", pair[0], pair[1]));
            }
        }
        Ok(Some(index))
    }

    /// Whether those for whom `yes` holds decide in this replica's configuration, or in the one before: within a turn that
    /// one may have decided, and then been replaced.
    pub(super) fn is_quorum(&self, group: &GroupInspection<'_>, yes: impl Fn(u32) -> bool) -> bool {
        let (index, membership) = group.membership();
        let yes = |id: u64| Some(yes(u32::try_from(id).expect("few nodes")));
        let is_won = |of: &Configuration| of.voters.vote_result(yes) == VoteResult::Won;
        let before = self.configurations.range((group.group, 0)..(group.group, index)).next_back();
        is_won(&membership.configuration) || before.is_some_and(|(_, of)| is_won(of))
    }
}

fn wins(configuration: &Configuration, votes: u32) -> bool {
    configuration.voters.vote_result(|id| Some(votes >> id & 1 == 1)) == VoteResult::Won
}
