//! What a committed entry does to its group, and who is told.
//!
//! The order is the log's, and every replica goes through it alike; on the one that proposed an entry somebody waits for it.

use super::Core;
use super::group::Group;
use super::remote::{Message, Origin};
use crate::command::{by_code, code};
use crate::entry::{self, ArchivedCommandV1, Args, CODE_ADVANCE_TIME, Content};
use crate::resp::ReplyWriter;
use crate::slot::{Slot, slot_of_command};
use flotilla_consensus::Proposal;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{Effects, Now};
use flotilla_storage::RecordHeader;

/// Keys of a shard that are removed because their time has come, per entry: bounds the time that applying takes.
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
    // No key (FLUSHALL, or the time has advanced): every shard that is served. The others are frozen.
    for shard in group.shards.iter_mut().filter(|shard| shard.is_serving() && index > shard.restored) {
        if command == CODE_ADVANCE_TIME {
            shard.keys.expire(clock_ms, EXPIRED_PER_ENTRY_MAX);
        } else {
            shard.keys.write(clock_ms, command, args, &mut ReplyWriter::discard());
        }
    }
    if command != CODE_ADVANCE_TIME {
        reply.simple("OK");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::entry::SCHEMA_COMMAND_V1;
    use flotilla_runtime::machine::{MILLISECOND, SECOND};
    use flotilla_runtime::{BlockPool, CoreBoot, CoreId, DiskReply, Effect, Event, Machine, Vitals};

    /// The only node of its cluster, with a disk that does what it is asked.
    struct Lone {
        core: Core,
        now: Now,
        halted: Option<String>,
    }

    impl Lone {
        fn leading() -> Self {
            let config = "cluster = \"one\"\nnode = 1\ndata = \"/nowhere\"\ncontroller = false\n[log]\nsegment_bytes = 1048576\n\
                          [[nodes]]\nid = 1\nhost = \"here\"\nport = 7001\npeer_port = 17001\n";
            let config: Config = toml::from_str(config).unwrap();
            let now = Now { monotonic: SECOND, unix_ms: 1_700_000_000_000 };
            let boot = CoreBoot {
                core: CoreId(0),
                files: Vec::new(),
                pool: BlockPool::new(),
                seed: 1,
                now,
                vitals: Vitals::new(),
            };
            let mut lone = Self { core: Core::build(&config, boot).unwrap(), now, halted: None };
            for _ in 0..1000 {
                lone.turn();
                // The empty entry that begins its term is applied, too.
                if lone.core.groups[0].is_leading() && lone.core.groups[0].applied > 0 {
                    return lone;
                }
            }
            panic!("nobody leads");
        }

        /// Lets ten milliseconds pass.
        fn turn(&mut self) {
            self.now.monotonic += 10 * MILLISECOND;
            let mut out = Effects::default();
            self.core.step(self.now, Event::Tick, &mut out);
            self.core.apply(self.now, &mut out);
            self.core.flush(self.now, &mut out);
            for effect in out.drain().collect::<Vec<_>>() {
                match effect {
                    Effect::Halt { reason } => {
                        self.halted = Some(reason);
                        return;
                    }
                    Effect::Write { op, .. } | Effect::Sync { op, .. } | Effect::CreateFile { op, .. } => {
                        let (result, mut none) = (Ok(DiskReply::Done), Effects::default());
                        self.core.step(self.now, Event::Disk { op, result }, &mut none);
                    }
                    _ => {}
                }
            }
        }

        /// Puts an entry into the log, and waits for what comes of it.
        fn log(&mut self, schema: u16, write: impl FnOnce(&mut flotilla_storage::PayloadWriter<'_>)) {
            self.core.multi.propose(self.now.monotonic, 0, schema, 100, write).unwrap();
            for _ in 0..20 {
                self.turn();
            }
        }
    }

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
