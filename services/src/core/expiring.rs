//! Keys whose time has come go, by entries that say what time it is: what is over by a logged time is over on every replica,
//! and for ever.
//!
//! Leaders look for such keys ten times a second. An entry removes a bounded number of keys of each shard, so that applying it
//! takes a bounded time. If it has left some that are due, another one follows before the next look, one at a time and after a
//! pause in proportion to what was removed: others have their part of the core's time, however many keys end together.

use super::Core;
use crate::entry::{self, CODE_ADVANCE_TIME, SCHEMA_COMMAND_V1};
use flotilla_consensus::Refused;
use flotilla_runtime::machine::{MICROSECOND, MILLISECOND};
use flotilla_runtime::{Nanos, Now};

/// How often a leader looks for keys whose time has come.
const INTERVAL: Nanos = 100 * MILLISECOND;
/// The pause for each key that was removed: longer than that takes, so that others have their part of the core's time. A core's groups
/// together remove up to 500 000 a second; one whose entries are applied within 8 ms, at least 100 000 of a shard.
const PAUSE_PER_KEY: Nanos = 2 * MICROSECOND;

/// Where one group's replica stands.
#[derive(Debug, Default)]
pub(super) struct Expiring {
    /// When its leader looks next.
    next_look: Nanos,
    /// That is before its usual time: keys are left that are due.
    is_behind: bool,
    /// The newest entry that this replica has proposed.
    proposed: u64,
    /// Entries that were applied in this turn have left keys that are due: how many they have removed.
    unfinished: Option<u64>,
}

impl Expiring {
    /// An entry has removed so many keys, and left some that are due.
    pub(super) fn left_some(&mut self, removed: usize) {
        *self.unfinished.get_or_insert(0) += removed as u64;
    }
}

/// What the groups of a core share.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The pauses of all groups end.
    paused_until: Nanos,
    /// When the first group that is behind looks.
    look_at: Option<Nanos>,
}

impl Pace {
    /// So many keys were removed: when the next entry may follow. No pause makes a group look less often than usual.
    fn after(&mut self, now: Nanos, removed: u64) -> Nanos {
        let until = self.paused_until.max(now).saturating_add(removed.saturating_mul(PAUSE_PER_KEY));
        self.paused_until = until.min(now + INTERVAL);
        self.paused_until
    }

    fn look_by(&mut self, at: Nanos) {
        self.look_at = Some(self.look_at.map_or(at, |first| first.min(at)));
    }

    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.look_at
    }
}

impl Core {
    /// Logs the leader's time, so that what has expired by it has expired on every replica and for ever.
    pub(super) fn advance_time(&mut self, now: Now, place: usize) -> Result<(), Refused> {
        let unix_ms = self.groups[place].stamp(now);
        let bytes_max = entry::archive_bytes_max(&[]);
        let proposal = self.multi.propose(now.monotonic, place, SCHEMA_COMMAND_V1, bytes_max, |writer| {
            entry::write(writer, unix_ms, CODE_ADVANCE_TIME, &[]);
        })?;
        self.groups[place].expiring.proposed = proposal.index;
        Ok(())
    }

    /// Leaders look for keys whose time has come.
    pub(super) fn tick_expiry(&mut self, now: Now) {
        // Those that are behind and whose turn it isn't yet say so below.
        self.expiry_pace.look_at = None;
        for place in 0..self.groups.len() {
            let group = &mut self.groups[place];
            if !group.is_leading() {
                continue;
            }
            if now.monotonic < group.expiring.next_look {
                if group.expiring.is_behind {
                    self.expiry_pace.look_by(group.expiring.next_look);
                }
                continue;
            }
            (group.expiring.next_look, group.expiring.is_behind) = (now.monotonic + INTERVAL, false);
            let due = group.shards.serving().filter_map(|shard| shard.keys.next_deadline()).min();
            if due.is_some_and(|deadline| deadline <= now.unix_ms) {
                // Refused: somebody else leads, or the log is full and time can wait.
                let _ = self.advance_time(now, place);
            }
        }
    }

    /// Entries were applied. If they have left keys that are due, their leader looks again soon.
    pub(super) fn go_on_expiring(&mut self, now: Now, place: usize) {
        let group = &mut self.groups[place];
        let Some(removed) = group.expiring.unfinished.take() else { return };
        // What is still under way will tell itself.
        if !group.is_leading() || group.applied < group.expiring.proposed {
            return;
        }
        let soon = self.expiry_pace.after(now.monotonic, removed);
        let look = group.expiring.next_look.min(soon);
        (group.expiring.next_look, group.expiring.is_behind) = (look, true);
        self.expiry_pace.look_by(look);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lone;
    use super::*;
    use crate::command::code;
    use crate::resp::ReplyWriter;
    use crate::slot::Slot;
    use flotilla_runtime::Machine;

    /// A shard with so many keys whose time has just come.
    fn with_expired(count: usize) -> Lone {
        let mut lone = Lone::leading();
        let end = (lone.now.unix_ms + 1000).to_string();
        let group = &mut lone.core.groups[0];
        let (clock_ms, number) = (group.clock_ms, Slot::of_key(b"{t}").shard(group.shards_total()));
        let shard = group.shards.get_mut(number).unwrap();
        for number in 0..count {
            let key = format!("{{t}}{number}");
            let args: [&[u8]; 5] = [b"SET", key.as_bytes(), b"value", b"PXAT", end.as_bytes()];
            shard.keys.write(clock_ms, code::SET, &args, &mut ReplyWriter::discard());
        }
        assert_eq!(group.keys(), count as u64);
        lone.now.unix_ms += 1000;
        lone
    }

    #[test]
    fn a_hundred_thousand_keys_a_second_of_one_shard_go_one_entry_after_the_other() {
        let mut lone = with_expired(50_000);
        let (begun, before) = (lone.now.monotonic, lone.core.groups[0].applied);
        while lone.core.groups[0].keys() > 0 {
            lone.turn_of(MILLISECOND);
            let group = &lone.core.groups[0];
            assert!(lone.now.monotonic - begun <= 600 * MILLISECOND, "{} are left", group.keys());
            assert!(group.applied + 1 >= group.expiring.proposed, "one is under way at a time");
            let next = Some(group.expiring.next_look).filter(|_| group.expiring.is_behind);
            assert!(next.is_none_or(|next| lone.core.deadline().is_some_and(|at| at <= next)));
        }
        assert_eq!(lone.core.groups[0].applied - before, 50);
        lone.turn_of(MILLISECOND);
        assert_eq!(lone.core.expiry_pace.deadline(), None, "nobody is behind");
    }

    #[test]
    fn a_few_keys_wait_for_the_next_look_and_cost_one_entry() {
        let mut lone = with_expired(1000);
        let before = lone.core.groups[0].applied;
        for _ in 0..30 {
            lone.turn();
            assert!(!lone.core.groups[0].expiring.is_behind);
        }
        assert_eq!((lone.core.groups[0].keys(), lone.core.groups[0].applied - before), (0, 1));
    }

    #[test]
    fn nothing_follows_while_an_entry_is_under_way() {
        let mut lone = Lone::leading();
        let now = lone.now;
        let go_on = |lone: &mut Lone| {
            lone.core.groups[0].expiring.left_some(1000);
            lone.core.go_on_expiring(now, 0);
            lone.core.groups[0].expiring.is_behind
        };
        lone.core.groups[0].expiring.proposed = lone.core.groups[0].applied + 1;
        assert!(!go_on(&mut lone));
        lone.core.groups[0].applied += 1;
        assert!(go_on(&mut lone));
    }

    #[test]
    fn the_groups_of_a_core_share_its_pace_and_nobody_looks_less_often_than_usual() {
        let mut pace = Pace::default();
        let removed = [1000, 1000, 500, 64_000, 1];
        let pauses = removed.map(|removed| pace.after(MILLISECOND, removed) - MILLISECOND);
        assert_eq!(pauses, [2, 4, 5, 100, 100].map(|milliseconds| milliseconds * MILLISECOND));
        assert_eq!(pace.after(2 * INTERVAL, 10), 2 * INTERVAL + 20 * MICROSECOND);
    }
}
