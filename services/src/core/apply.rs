//! What a committed entry does to its group, and who is told.
//!
//! The order is the log's, and every replica goes through it alike; on the one that proposed an entry somebody waits for it.

use super::Core;
use super::group::Group;
use super::remote::{Message, Origin};
use super::shards::Status;
use crate::command::{by_code, code};
use crate::entry::{self, ArchivedCommandV1, Args, CODE_ADVANCE_TIME, Content};
use crate::resp::ReplyWriter;
use crate::slot::{Slot, slot_of_command};
use flotilla_consensus::Proposal;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{Effects, Now};
use flotilla_storage::RecordHeader;

/// Keys of a shard that are removed because their time has come, per entry: bounds the time that applying takes. Part of the
/// replicated state machine: every node has the same.
const EXPIRED_PER_ENTRY_MAX: usize = 1000;

impl Core {
    /// Applies the next committed entry.
    ///
    /// # Errors
    /// This version doesn't know what the entry says. Nothing was done: whoever went on without it would hold other data than
    /// the others, and nobody would notice.
    pub(super) fn apply_next(
        &mut self,
        now: Now,
        place: usize,
        out: &mut Effects<Message>,
    ) -> Result<(), String> {
        let index = self.groups[place].applied + 1;
        let found = self.multi.raft(place).log().entry(index).expect("committed entries are in the log");
        let (term, record) = (found.term, found.record.clone());
        let (header, payload) = RecordHeader::decode(&record).expect("only whole records enter the log");
        let content = entry::content(header.schema, payload).map_err(|unknown| {
            format!(
                "entry {index} of group {} has {unknown}: a newer version of Flotilla has written it, or one before the \
                 first release. Nothing was applied since; start this node with that version or a later one",
                header.group
            )
        })?;
        self.serve_before(now, place, index, term, out);
        let origin = self.claim(place, index, term, out);
        self.groups[place].applied = index;
        self.tally.applied += 1;
        match content {
            Content::Nothing => assert!(origin.is_none(), "nobody waits for an entry without a command"),
            Content::Command(command) => self.apply_command(place, command, origin, out),
            Content::Step(step) => self.apply_step(place, index, step, out),
            Content::Change(change) => self.apply_change(place, &change, origin, out),
        }
        Ok(())
    }

    fn apply_command(
        &mut self,
        place: usize,
        command: &ArchivedCommandV1<'_>,
        origin: Option<Origin>,
        out: &mut Effects<Message>,
    ) {
        let group = &mut self.groups[place];
        let args: Args<'_> = command.args.iter().map(|arg| &arg.0[..]).collect();
        group.clock_ms = group.clock_ms.max(command.unix_ms.to_native());
        let code = command.code.to_native();
        let slot = by_code(code).and_then(|spec| slot_of_command(spec, &args).ok()?);
        if let Some(slot) = slot {
            match (group.serving(slot).map(|shard| shard.restored), origin) {
                // A leader proposes nothing for a shard whose departure is in its log. But the entries of one that was deposed
                // may stand behind the departure in another's: they haven't happened, here or anywhere.
                (None, Some(origin)) => return self.redirect(origin, Some(slot), out),
                (None, None) => return,
                // It has happened, and what it came to is in the snapshot.
                (Some(restored), Some(origin)) if group.applied <= restored => {
                    return self.abandon(origin, out);
                }
                _ => {}
            }
        }
        match origin {
            None => run(group, code, slot, &args, &mut ReplyWriter::discard()),
            Some(origin) => {
                self.answer(origin, out, |groups, reply| run(&mut groups[place], code, slot, &args, reply));
                if let Some((conn, nanos)) = self.was_slow(origin)
                    && let Some(spec) = by_code(code)
                {
                    self.note_slow(conn, spec, &args, nanos);
                }
            }
        }
    }

    /// Who waits for the entry of this index and term. Redirected are those who wait for another entry there, and for one
    /// behind it of an earlier term: terms never go back along a log, so nothing of that term is ever committed there.
    fn claim(&mut self, place: usize, index: u64, term: u64, out: &mut Effects<Message>) -> Option<Origin> {
        let group = &mut self.groups[place];
        let writer = group.writers.pop_front_if(|writer| writer.proposal.index <= index);
        let mut claimed = None;
        if let Some(writer) = writer {
            assert_eq!(
                writer.proposal,
                Proposal { index, term },
                "a leader's own entries are applied in order"
            );
            claimed = Some(writer.origin);
            if planted(Bug::WaitersLost)
                && group.writers.front().is_some_and(|it| it.proposal.index == index + 1)
            {
                claimed = None;
            }
        }
        if !group.undecided.is_empty() {
            let is_decided = |(at, proposed): &(u64, u64), _: &mut _| *at == index || *proposed < term;
            let decided: Vec<_> = group.undecided.extract_if((index, 0).., is_decided).collect();
            for ((at, proposed), (origin, slot, _)) in decided {
                let is_it = proposed == term || planted(Bug::WaiterByIndexOnly);
                if at == index && is_it {
                    claimed = Some(origin);
                } else {
                    self.redirect(origin, slot, out);
                }
            }
        }
        claimed
    }
}

/// Applies one command to a group's data; `group.applied` is its index.
fn run(group: &mut Group, command: u16, slot: Option<Slot>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    let (clock_ms, index) = (group.clock_ms, group.applied);
    if let Some(slot) = slot {
        let shards = group.shards_total();
        let Some(shard) = group.shards.get_mut(slot.shard(shards)) else { return };
        if command == code::FLOTILLA_PUBLISH && index > shard.restored {
            let is_ours = |key: &[u8]| Slot::of_key(key).shard(shards) == slot.shard(shards);
            shard.keys.publish(clock_ms, args, is_ours, reply);
        } else if index > shard.restored || planted(Bug::PartsAppliedTwice) {
            shard.keys.write(clock_ms, command, args, reply);
        }
        return;
    }
    let (mut expired, mut has_left_some) = (0, false);
    // No key (FLUSHALL, or the time has advanced): every shard that is served. The others are frozen.
    for shard in group.shards.iter_mut().filter(|shard| shard.is_serving() && index > shard.restored) {
        if command == CODE_ADVANCE_TIME {
            expired += shard.keys.expire(clock_ms, EXPIRED_PER_ENTRY_MAX);
            has_left_some |= shard.keys.next_deadline().is_some_and(|deadline| deadline <= clock_ms);
        } else {
            shard.keys.write(clock_ms, command, args, &mut ReplyWriter::discard());
        }
    }
    if has_left_some {
        group.expiring.left_some(expired);
    }
    if command != CODE_ADVANCE_TIME {
        // Another group serves a frozen shard in a moment, with all of its keys.
        match group.shards.iter().any(|shard| matches!(shard.status, Status::Leaving { .. })) {
            true => reply.error("TRYAGAIN a shard is on its way to another group, and keeps its keys"),
            false => reply.simple("OK"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Lone;
    use super::*;
    use crate::entry::SCHEMA_COMMAND_V1;
    use crate::resp::Protocol;
    use flotilla_runtime::Machine;
    use flotilla_runtime::machine::SECOND;

    #[test]
    fn an_entry_of_an_unknown_schema_halts_the_node_and_isn_t_passed_over() {
        let mut lone = Lone::leading();
        let before = lone.core.groups[0].applied;
        lone.log(77, |writer| writer.put(b"of the future"));
        let reason = lone.halted.expect("it must not go on");
        for part in ["group 1", "schema 77", "newer version"] {
            assert!(reason.contains(part), "{reason}");
        }
        assert_eq!(lone.core.groups[0].applied, before);
    }

    #[test]
    fn a_command_of_an_unknown_code_halts_the_node_too() {
        let mut lone = Lone::leading();
        lone.log(SCHEMA_COMMAND_V1, |writer| entry::write(writer, 1, u16::MAX, &[b"FUTURE", b"key"]));
        assert!(lone.halted.expect("it must not go on").contains("code 65535"));
    }

    #[test]
    fn what_is_known_halts_nobody() {
        let mut lone = Lone::leading();
        let before = lone.core.groups[0].applied;
        let set = crate::command::lookup(b"SET").unwrap().code;
        lone.log(SCHEMA_COMMAND_V1, |writer| entry::write(writer, 1, set, &[b"SET", b"key", b"value"]));
        assert_eq!((lone.halted, lone.core.groups[0].applied), (None, before + 1));
    }

    #[test]
    fn much_that_is_committed_at_once_is_applied_over_several_turns() {
        let mut lone = Lone::leading();
        let (before, turns_end) = (lone.core.groups[0].applied, lone.now.monotonic + SECOND);
        let set = crate::command::lookup(b"SET").unwrap().code;
        for _ in 0..3000 {
            let write = |writer: &mut flotilla_storage::PayloadWriter<'_>| {
                entry::write(writer, 1, set, &[b"SET", b"key", b"value"]);
            };
            lone.core.multi.propose(lone.now.monotonic, 0, SCHEMA_COMMAND_V1, 100, write).unwrap();
        }
        let mut applied = vec![before];
        while lone.core.groups[0].applied < before + 3000 && lone.now.monotonic < turns_end {
            lone.turn();
            applied.push(lone.core.groups[0].applied);
            let has_stopped = applied[applied.len() - 1] - applied[applied.len() - 2] == 1024;
            let is_due = lone.core.deadline().is_some_and(|deadline| deadline <= lone.now.monotonic);
            assert!(is_due || !has_stopped, "it goes on at once");
        }
        let steps: Vec<u64> =
            applied.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 0).collect();
        assert_eq!(steps, [1024, 1024, 952]);
    }

    #[test]
    fn whoever_empties_a_group_hears_of_a_shard_that_keeps_its_keys() {
        let mut lone = Lone::leading();
        let group = &mut lone.core.groups[0];
        let flush = |group: &mut Group| {
            let mut out = Vec::new();
            run(
                group,
                code::FLUSHALL,
                None,
                &[b"FLUSHALL"],
                &mut ReplyWriter::new(&mut out, Protocol::Resp2),
            );
            String::from_utf8(out).unwrap()
        };
        assert_eq!(flush(group), "+OK\r\n");
        group.shards.get_mut(0).unwrap().status = Status::Leaving { to: 7 };
        assert!(flush(group).starts_with("-TRYAGAIN "));
    }

    #[test]
    fn a_clock_behind_the_log_s_is_measured() {
        let mut lone = Lone::leading();
        let (set, ahead) = (crate::command::lookup(b"SET").unwrap().code, lone.now.unix_ms + 37_000);
        assert_eq!(lone.core.clock_behind_ms(lone.now), 0);
        lone.log(SCHEMA_COMMAND_V1, |writer| entry::write(writer, ahead, set, &[b"SET", b"key", b"value"]));
        assert_eq!(lone.core.clock_behind_ms(lone.now), 37_000);
        lone.now.unix_ms += 40_000;
        assert_eq!(lone.core.clock_behind_ms(lone.now), 0);
    }

    #[test]
    fn what_a_turn_did_is_timed_by_whoever_called_it() {
        let mut lone = Lone::leading();
        let count = |lone: &Lone, stage: &str| {
            let place = crate::admin::report::STAGES.iter().position(|it| *it == stage).unwrap();
            lone.core.stage_times()[place].count()
        };
        lone.turn();
        let before = ["build", "apply"].map(|stage| count(&lone, stage));
        lone.core.vitals.applied_nanos.set(5000);
        let set = crate::command::lookup(b"SET").unwrap().code;
        lone.log(SCHEMA_COMMAND_V1, |writer| entry::write(writer, 1, set, &[b"SET", b"key", b"value"]));
        assert_eq!(count(&lone, "apply"), before[1] + 1, "one entry was applied, in one turn");
        assert!(count(&lone, "build") > before[0]);
        let place = crate::admin::report::STAGES.iter().position(|it| *it == "apply").unwrap();
        assert!(lone.core.stage_times()[place].sum_nanos() >= 5000);
    }
}
