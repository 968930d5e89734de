//! A shard is in one group's hands at a time, and none is lost on the way.

use super::{Checks, Seat, name};
use flotilla_services::core::{GroupInspection, ShardStanding};

impl Checks {
    /// What the log of a group says about its shards fits what the logs of the others say.
    pub(super) fn shards(&mut self, seat: Seat, group: &GroupInspection<'_>) -> Result<(), String> {
        if group.repairing || !group.is_plain() {
            return Ok(());
        }
        for (shard, config, standing) in group.shards() {
            match standing {
                ShardStanding::Leaving(to) => {
                    let journey = self.journeys.entry((shard, config)).or_insert((group.group, to));
                    if *journey != (group.group, to) {
                        return Err(format!(
                            "shards: {} sends shard {shard} with configuration {config} from group {} to {to}, and it went \
                             from {} to {}",
                            name(seat),
                            group.group,
                            journey.0,
                            journey.1
                        ));
                    }
                }
                // As it was founded; two of them would be seen by what they show as founders.
                ShardStanding::Serving if config <= 1 => {}
                // A copy of what its source serves still.
                ShardStanding::Arriving(_) => {}
                ShardStanding::Serving => {
                    let journey = self.journeys.get(&(shard, config)).copied();
                    if journey.is_none_or(|(_, to)| to != group.group) {
                        return Err(format!(
                            "shards: {} serves shard {shard} in group {} with configuration {config}, and nobody's log let it \
                             go there: {journey:?}",
                            name(seat),
                            group.group
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
