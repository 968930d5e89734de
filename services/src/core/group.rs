//! The state of one group: its shards' data, and who waits for it.
//!
//! **Writes.** A writer waits under the (index, term) of its entry. When the entry applied at that index has
//! that term, the command's own result is its reply; with any other term it certainly didn't happen, and the
//! client is sent to the new leader. A leader that was deposed keeps its writers waiting until their indices are
//! decided, so nobody is told a falsehood.
//!
//! **Reads** wait for their ticket (see [`flotilla_consensus::ReadTicket`]). A read is served in the state after
//! every write that came before it on its connection and before every one that came after, so a pipeline behaves
//! as if it had been sent one by one.

use super::Core;
use super::handover::Handover;
use super::held::Held;
use super::migration::Awaited;
use super::remote::{Message, Origin};
use super::scan::Remembered;
use super::shards::{Shard, Shards};
use super::topology::CONTROLLER;
use crate::command::{Spec, by_code, code};
use crate::config::Config;
use crate::controller::Controller;
use crate::controller::archive::SCHEMA_CHANGE_V1;
use crate::entry::{self, Args, CODE_ADVANCE_TIME, SCHEMA_COMMAND_V1};
use crate::kv::Time;
use crate::migration::SCHEMA_STEP_V1;
use crate::resp::ReplyWriter;
use crate::slot::Slot;
use flotilla_consensus::{Proposal, Raft, ReadState, ReadTicket, Refused, Role};
use flotilla_runtime::machine::{MILLISECOND, SECOND};
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{Effect, Effects, Nanos, Now, SplitMix64};
use flotilla_storage::RecordHeader;
use std::collections::{BTreeMap, VecDeque};

/// A deposed leader's writer is cut off (outcome unknown) if its entry's fate isn't known by then, and so is a writer whose
/// command was handed on and never answered.
pub(super) const UNDECIDED_FOR_MAX: Nanos = 10 * SECOND;
/// Keys of a shard that are removed because their time has come, per entry: bounds the time that applying takes.
const EXPIRED_PER_ENTRY_MAX: usize = 1000;
/// How often a leader looks for keys whose time has come.
const EXPIRY_INTERVAL: Nanos = 100 * MILLISECOND;

/// A write that waits for its entry to be applied.
#[derive(Debug)]
struct Writer {
    proposal: Proposal,
    origin: Origin,
    slot: Option<Slot>,
}

/// A read that waits for its ticket.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) ticket: ReadTicket,
    /// The least applied index that it may see.
    pub(super) after: u64,
    pub(super) command: Held,
}

/// One group's replica: data, and waiting clients.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its number from 0; the Raft group's id is one more.
    pub(super) number: u32,
    shards_total: u16,
    pub(super) shards: Shards,
    /// The controller's own state, if this is its group.
    pub(super) controller: Option<Box<Controller>>,
    /// Some shard isn't where it should be, perhaps: its leader looks.
    pub(super) is_in_motion: bool,
    /// Nodes without a part in the group are told who leads it then.
    pub(super) announce_at: Nanos,
    /// Commands that wait for their shard.
    pub(super) early: Awaited,
    /// Shards and bytes that have come since this replica was started.
    pub(super) moved_in: u64,
    pub(super) moved_bytes: u64,
    pub(super) applied: u64,
    /// The group's logical clock: the latest time in its log.
    pub(super) clock_ms: u64,
    /// The latest time that this replica has put into an entry.
    stamped_ms: u64,
    /// The (term, leads) of the last look.
    standing: (u64, bool),
    writers: VecDeque<Writer>,
    undecided: BTreeMap<(u64, u64), (Origin, Option<Slot>, Nanos)>,
    readers: VecDeque<Reader>,
    /// Readers that must see every write proposed before them.
    readers_in_order: VecDeque<Reader>,
    /// Readers of a follower, which wait for the leader's word.
    pub(super) follower_readers: VecDeque<Reader>,
    pub(super) handover: Handover,
    next_expiry_look: Nanos,
    /// The node's clock in the last turn: what a key has left is told by it.
    local_ms: u64,
    /// Where walks over the keys stand.
    pub(super) remembered: Remembered,
    rng: SplitMix64,
}

impl Group {
    pub(super) fn new(config: &Config, raft: &Raft, seed: u64) -> Self {
        let number = super::topology::number_of(raft.group());
        Self {
            number,
            shards_total: config.shards,
            shards: Shards::founded(founded_shards(config, number)),
            controller: (number == CONTROLLER).then(|| Box::new(Controller::new(config.shards))),
            is_in_motion: true,
            announce_at: 0,
            early: Awaited::default(),
            moved_in: 0,
            moved_bytes: 0,
            applied: raft.log().snapshot().0,
            clock_ms: 0,
            stamped_ms: 0,
            standing: (0, false),
            writers: VecDeque::new(),
            undecided: BTreeMap::new(),
            readers: VecDeque::new(),
            readers_in_order: VecDeque::new(),
            follower_readers: VecDeque::new(),
            handover: Handover::default(),
            next_expiry_look: 0,
            local_ms: 0,
            remembered: Remembered::default(),
            rng: SplitMix64::new(seed ^ u64::from(number)),
        }
    }

    /// Shards of the cluster.
    pub(super) fn shards_total(&self) -> u16 {
        self.shards_total
    }

    /// A random number, for what only looks.
    pub(super) fn random(&mut self) -> u64 {
        self.rng.next()
    }

    /// The shard that a slot is in, if it is served here.
    pub(super) fn serving(&self, slot: Slot) -> Option<&Shard> {
        self.shards.get(slot.shard(self.shards_total)).filter(|shard| shard.is_serving())
    }

    /// Whether a key that a read looks at has expired by now, and that isn't logged yet.
    pub(super) fn read_decides_expiry(&self, now: Now, slot: Slot, spec: &Spec, args: &[&[u8]]) -> bool {
        let keys = self.serving(slot).map(|shard| &shard.keys);
        keys.is_some_and(|keys| keys.read_decides_expiry(self.clock_ms, now.unix_ms, spec, args))
    }

    pub(super) fn is_leading(&self) -> bool {
        self.standing.1
    }

    pub(super) fn keys(&self) -> u64 {
        self.shards.serving().map(|shard| shard.keys.len()).sum()
    }

    /// Clients that wait for this group.
    pub(super) fn waiting(&self) -> usize {
        let readers = self.readers.len() + self.readers_in_order.len() + self.follower_readers.len();
        self.writers.len() + self.undecided.len() + readers + self.handover.waiting() + self.early.len()
    }

    /// The writers whose entries a snapshot has skipped: nobody will ever know what became of them.
    pub(super) fn undecided_upto(&mut self, index: u64) -> Vec<Origin> {
        let skipped = self.undecided.extract_if(..=(index, u64::MAX), |_, _| true);
        skipped.map(|(_, (origin, ..))| origin).collect()
    }

    /// The origin is answered when the entry is applied.
    pub(super) fn wait_for(&mut self, proposal: Proposal, origin: Origin, slot: Option<Slot>) {
        self.writers.push_back(Writer { proposal, origin, slot });
    }

    fn stamp(&mut self, now: Now) -> u64 {
        self.stamped_ms = self.stamped_ms.max(self.clock_ms).max(now.unix_ms);
        self.stamped_ms
    }
}

/// The shards that a group serves when the cluster is founded.
pub(super) fn founded_shards(config: &Config, number: u32) -> std::ops::Range<u16> {
    if number >= config.groups {
        return 0..0;
    }
    let (first, last) = super::topology::shards_of(config, number);
    first..last + 1
}

/// Where a command of a client that waits goes.
pub(super) struct Call<'a> {
    pub(super) origin: Origin,
    pub(super) spec: &'static Spec,
    pub(super) slot: Option<Slot>,
    pub(super) args: &'a [&'a [u8]],
    /// Whether earlier writes of the same client are still on their way.
    pub(super) in_order: bool,
}

impl Core {
    /// Proposes a write in the group at `place`; its origin is answered when it is applied.
    pub(super) fn propose(&mut self, now: Now, place: usize, call: &Call<'_>) -> Result<(), Refused> {
        let unix_ms = self.groups[place].stamp(now);
        let bytes_max = entry::archive_bytes_max(call.args);
        let proposal = self.multi.propose(now.monotonic, place, SCHEMA_COMMAND_V1, bytes_max, |writer| {
            entry::write(writer, unix_ms, call.spec.code, call.args);
        })?;
        self.groups[place].wait_for(proposal, call.origin, call.slot);
        Ok(())
    }

    /// Begins a read in the group at `place`; its origin is answered once it is known to be linearizable.
    pub(super) fn begin_read(&mut self, now: Now, place: usize, call: &Call<'_>) -> Result<(), Refused> {
        let group = &self.groups[place];
        let expires =
            call.slot.is_some_and(|slot| group.read_decides_expiry(now, slot, call.spec, call.args));
        if expires {
            self.advance_time(now, place)?;
        }
        let ticket = self.multi.read(now.monotonic, place)?;
        let in_order = call.in_order || expires;
        let waits = in_order && !planted(Bug::PipelineOverlap);
        let after = if waits { ticket.position } else { ticket.index };
        let reader = Reader { ticket, after, command: Held::new(call) };
        let group = &mut self.groups[place];
        if in_order { &mut group.readers_in_order } else { &mut group.readers }.push_back(reader);
        Ok(())
    }

    /// Logs the leader's time, so that what has expired by it has expired on every replica and for ever.
    fn advance_time(&mut self, now: Now, place: usize) -> Result<(), Refused> {
        let unix_ms = self.groups[place].stamp(now);
        self.multi.propose(
            now.monotonic,
            place,
            SCHEMA_COMMAND_V1,
            entry::archive_bytes_max(&[]),
            |writer| {
                entry::write(writer, unix_ms, CODE_ADVANCE_TIME, &[]);
            },
        )?;
        Ok(())
    }

    /// Leaders log the time when keys have expired; writers without a verdict are cut off at last.
    pub(super) fn tick_groups(&mut self, now: Now, out: &mut Effects<Message>) {
        if self.cut_off_at.is_some_and(|at| at <= now.monotonic) {
            self.cut_off_undecided(now, out);
        }
        for place in 0..self.groups.len() {
            let group = &mut self.groups[place];
            if group.standing.1 && now.monotonic >= group.next_expiry_look {
                group.next_expiry_look = now.monotonic + EXPIRY_INTERVAL;
                let due = group.shards.serving().filter_map(|shard| shard.keys.next_deadline()).min();
                if due.is_some_and(|deadline| deadline <= now.unix_ms) {
                    // Refused: somebody else leads, or the log is full and time can wait.
                    let _ = self.advance_time(now, place);
                }
            }
        }
    }

    /// Cuts off those who have waited for a verdict, or for a peer, for too long, and notes when the next ones will have.
    fn cut_off_undecided(&mut self, now: Now, out: &mut Effects<Message>) {
        let has_waited = |since: Nanos| since + UNDECIDED_FOR_MAX <= now.monotonic;
        self.give_up_since(now.monotonic.saturating_sub(UNDECIDED_FOR_MAX));
        let (mut late, mut oldest) = (Vec::new(), self.remote.oldest());
        for group in &mut self.groups {
            late.extend(group.undecided.extract_if(.., |_, (_, _, since)| has_waited(*since)));
            let left = group.undecided.values().map(|(_, _, since)| *since);
            oldest = oldest.into_iter().chain(left).min();
        }
        self.cut_off_at = oldest.map(|since| since + UNDECIDED_FOR_MAX);
        for (_, (origin, _, _)) in late {
            self.abandon(origin, out);
        }
    }

    /// Takes note of who leads, applies what is committed, serves the readers whose time has come.
    pub(super) fn settle_group(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        self.groups[place].local_ms = now.unix_ms;
        self.note_standing(now, place, out);
        if planted(Bug::ExpiredByLocalClock) {
            let group = &mut self.groups[place];
            group.clock_ms = group.clock_ms.max(now.unix_ms);
        }
        self.settle_handover(now, place, out);
        while self.groups[place].applied < self.multi.raft(place).commit() {
            if let Err(reason) = self.apply_next(now, place, out) {
                return out.push(Effect::Halt { reason });
            }
        }
        self.serve_confirmed(now, place, out);
        self.serve_follower_readers(now, place, out);
        self.settle_migration(now, place, out);
        self.settle_snapshots(now, place, out);
    }

    fn note_standing(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        let raft = self.multi.raft(place);
        let standing = (raft.term(), raft.role() == Role::Leader);
        let leader = raft.leader();
        let is_handing_over = self.is_handing_over(now, place);
        let group = &mut self.groups[place];
        // During a handover everybody goes on sending commands here: they are held.
        if !is_handing_over {
            self.leaders.learn(group.number, standing.0, leader, self.id, &self.config, out);
        }
        if standing == group.standing {
            return;
        }
        let led = std::mem::replace(&mut group.standing, standing).1;
        if led {
            for writer in group.writers.drain(..) {
                let Proposal { index, term } = writer.proposal;
                group.undecided.insert((index, term), (writer.origin, writer.slot, now.monotonic));
                self.cut_off_at.get_or_insert(now.monotonic + UNDECIDED_FOR_MAX);
            }
            let readers: Vec<Reader> =
                group.readers.drain(..).chain(group.readers_in_order.drain(..)).collect();
            if is_handing_over {
                let readers = readers.into_iter().map(|reader| reader.command);
                return self.groups[place].handover.strand(readers);
            }
            for Reader { command: Held { origin, slot, .. }, .. } in readers {
                self.redirect(origin, slot, out);
            }
        }
    }

    /// Applies the next committed entry.
    ///
    /// # Errors
    /// This version doesn't know what the entry says. Nothing was done: whoever went on without it would hold other data than
    /// the others, and nobody would notice.
    fn apply_next(&mut self, now: Now, place: usize, out: &mut Effects<Message>) -> Result<(), String> {
        let index = self.groups[place].applied + 1;
        let found = self.multi.raft(place).log().entry(index).expect("committed entries are in the log");
        let (term, record) = (found.term, found.record.clone());
        let (header, payload) = RecordHeader::decode(&record).expect("only whole records enter the log");
        let is_command = !matches!(header.schema, SCHEMA_STEP_V1 | SCHEMA_CHANGE_V1);
        let command = if is_command { entry::command(header.schema, payload) } else { Ok(None) };
        let command = command.map_err(|unknown| {
            format!(
                "entry {index} of group {} has {unknown}: a newer version of Flotilla has written it. Nothing was \
                 applied since; start this node with that version or a later one",
                header.group
            )
        })?;
        self.serve_before(now, place, index, term, out);
        let origin = self.claim(place, index, term, out);
        let group = &mut self.groups[place];
        group.applied = index;
        match header.schema {
            SCHEMA_STEP_V1 => {
                self.apply_step(place, index, payload, out);
                return Ok(());
            }
            SCHEMA_CHANGE_V1 => {
                self.apply_change(place, payload, origin, out);
                return Ok(());
            }
            _ => {}
        }
        let Some(command) = command else {
            assert!(origin.is_none(), "nobody waits for an entry without a command");
            return Ok(());
        };
        let args: Args<'_> = command.args.iter().map(|arg| &arg.0[..]).collect();
        group.clock_ms = group.clock_ms.max(command.unix_ms.to_native());
        let code = command.code.to_native();
        let slot = by_code(code).and_then(|spec| crate::slot::slot_of_command(spec, &args).ok().flatten());
        if let Some(slot) = slot {
            match (group.serving(slot).map(|shard| shard.restored), origin) {
                // It was proposed before the entry with which the shard went: it hasn't happened, here or anywhere.
                (None, Some(origin)) => {
                    let spec = by_code(code).expect("it has a slot, so it is in the table");
                    let call = Call { origin, spec, slot: Some(slot), args: &args, in_order: true };
                    self.reroute(now, &call, out);
                    return Ok(());
                }
                (None, None) => return Ok(()),
                // It has happened, and what it came to is in the snapshot.
                (Some(restored), Some(origin)) if index <= restored => {
                    self.abandon(origin, out);
                    return Ok(());
                }
                _ => {}
            }
        }
        match origin {
            None => run(group, code, &args, &mut ReplyWriter::discard()),
            Some(origin) => {
                self.answer(origin, out, |groups, reply| run(&mut groups[place], code, &args, reply));
            }
        }
        Ok(())
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

    /// Serves the readers that came before the entry at `index` was proposed: if we proposed it in their term, its
    /// commit confirms that we led when they came.
    fn serve_before(&mut self, now: Now, place: usize, index: u64, term: u64, out: &mut Effects<Message>) {
        loop {
            let group = &mut self.groups[place];
            let due = |reader: &mut Reader| reader.ticket.position < index;
            let reader = match group.readers.pop_front_if(due) {
                Some(reader) => Some(reader),
                None => group.readers_in_order.pop_front_if(due),
            };
            let Some(reader) = reader else { return };
            if reader.ticket.term == term {
                self.serve(now, place, &reader, out);
            } else {
                self.redirect(reader.command.origin, reader.command.slot, out);
            }
        }
    }

    /// Serves the readers whose round is confirmed and whose index is applied.
    fn serve_confirmed(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        loop {
            let raft = self.multi.raft(place);
            let group = &mut self.groups[place];
            let applied = group.applied;
            let due = |reader: &mut Reader| {
                (reader.after <= applied || planted(Bug::ReadBeforeApplied))
                    && matches!(raft.read_state(&reader.ticket), ReadState::ServeAt(_))
            };
            let reader = match group.readers.pop_front_if(due) {
                Some(reader) => Some(reader),
                None => group.readers_in_order.pop_front_if(due),
            };
            let Some(reader) = reader else { return };
            self.serve(now, place, &reader, out);
        }
    }

    pub(super) fn serve(&mut self, now: Now, place: usize, reader: &Reader, out: &mut Effects<Message>) {
        let Held { origin, spec, slot, .. } = reader.command;
        if slot.is_some_and(|slot| self.groups[place].serving(slot).is_none()) {
            // The shard went while the read waited: somebody else may have changed it since.
            return reader.command.call(|call| self.reroute(now, call, out));
        }
        self.answer(origin, out, |groups, reply| match slot {
            Some(slot) => {
                let group = &groups[place];
                let shard = group.serving(slot).expect("seen above");
                let time = Time { clock_ms: group.clock_ms, now_ms: group.local_ms };
                shard.keys.read(time, spec, &reader.command.args(), reply);
            }
            None if spec.code == code::FLOTILLA_CLUSTER => {
                super::control::query(groups[place].controller.as_deref(), &reader.command.args(), reply);
            }
            None => super::keyless::read(&mut groups[place], spec, &reader.command.args(), reply),
        });
    }
}

/// Applies one command to a group's data; `group.applied` is its index.
fn run(group: &mut Group, code: u16, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    let (clock_ms, index) = (group.clock_ms, group.applied);
    let slot = by_code(code).and_then(|spec| crate::slot::slot_of_command(spec, args).ok().flatten());
    if let Some(slot) = slot {
        let Some(shard) = group.shards.get_mut(slot.shard(group.shards_total)) else { return };
        if index > shard.restored || planted(Bug::PartsAppliedTwice) {
            shard.keys.write(clock_ms, code, args, reply);
        }
        return;
    }
    // No key (FLUSHALL, or the time has advanced): every shard that is served. The others are frozen.
    for shard in group.shards.iter_mut().filter(|shard| shard.is_serving() && index > shard.restored) {
        if code == CODE_ADVANCE_TIME {
            shard.keys.expire(clock_ms, EXPIRED_PER_ENTRY_MAX);
        } else {
            shard.keys.write(clock_ms, code, args, &mut ReplyWriter::discard());
        }
    }
    if code != CODE_ADVANCE_TIME {
        reply.simple("OK");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_runtime::{BlockPool, CoreBoot, CoreId, DiskReply, Event, Machine};

    /// The only node of its cluster, with a disk that does what it is asked.
    struct Lone {
        core: Core,
        now: Now,
        halted: Option<String>,
    }

    impl Lone {
        fn leading() -> Self {
            let config = "cluster = \"one\"\nnode = 1\ndata = \"/nowhere\"\n[log]\nsegment_bytes = 1048576\n\
                          [[nodes]]\nid = 1\nhost = \"here\"\nport = 7001\npeer_port = 17001\n";
            let config: Config = toml::from_str(config).unwrap();
            let now = Now { monotonic: SECOND, unix_ms: 1_700_000_000_000 };
            let boot = CoreBoot { core: CoreId(0), files: Vec::new(), pool: BlockPool::heap(), seed: 1, now };
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
}
