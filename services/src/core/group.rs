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
use super::admission::Admission;
use super::expiring::Expiring;
use super::handover::Handover;
use super::held::Held;
use super::migration::{Awaited, Departing};
use super::remote::{Message, Origin};
use super::scan::Remembered;
use super::shards::{Shard, Shards};
use super::topology::CONTROLLER;
use crate::command::{Spec, code};
use crate::config::Config;
use crate::controller::Controller;
use crate::entry::{self, SCHEMA_COMMAND_V1};
use crate::kv::Time;
use crate::slot::Slot;
use flotilla_consensus::{Proposal, Raft, ReadState, ReadTicket, Refused, Role};
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::planted::{Bug, planted};
use flotilla_runtime::{Effect, Effects, Nanos, Now, SplitMix64};
use std::collections::{BTreeMap, VecDeque};

/// A deposed leader's writer is cut off (outcome unknown) if its entry's fate isn't known by then, and so is a writer whose
/// command was handed on and never answered.
pub(super) const UNDECIDED_FOR_MAX: Nanos = 10 * SECOND;

/// A write that waits for its entry to be applied.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) proposal: Proposal,
    pub(super) origin: Origin,
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
    /// Leader: shards that will go with an entry of its log which isn't applied yet. What comes for them waits.
    pub(super) departing: Departing,
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
    /// The entry that brought the members which the order of preference is for.
    pub(super) members_at: u64,
    pub(super) writers: VecDeque<Writer>,
    pub(super) admission: Admission,
    pub(super) undecided: BTreeMap<(u64, u64), (Origin, Option<Slot>, Nanos)>,
    readers: VecDeque<Reader>,
    /// Readers that must see every write proposed before them.
    readers_in_order: VecDeque<Reader>,
    /// Readers of a follower, which wait for the leader's word.
    pub(super) follower_readers: VecDeque<Reader>,
    pub(super) handover: Handover,
    pub(super) expiring: Expiring,
    /// The node's clock in the last turn: what a key has left is told by it.
    local_ms: u64,
    /// Where walks over the keys stand.
    pub(super) remembered: Remembered,
    rng: SplitMix64,
    /// One of its writes is followed through its stages.
    pub(super) is_followed: bool,
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
            departing: Departing::default(),
            moved_in: 0,
            moved_bytes: 0,
            applied: raft.log().snapshot().0,
            clock_ms: 0,
            stamped_ms: 0,
            standing: (0, false),
            members_at: raft.membership().0,
            writers: VecDeque::new(),
            admission: Admission::new(config.limits.write_wait_ms_max),
            undecided: BTreeMap::new(),
            readers: VecDeque::new(),
            readers_in_order: VecDeque::new(),
            follower_readers: VecDeque::new(),
            handover: Handover::default(),
            expiring: Expiring::default(),
            local_ms: 0,
            remembered: Remembered::default(),
            rng: SplitMix64::new(seed ^ u64::from(number)),
            is_followed: false,
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

    /// The time that an entry of this leader says.
    pub(super) fn stamp(&mut self, now: Now) -> u64 {
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
        if !self.groups[place].admission.admits(now.monotonic) {
            return Err(Refused::Busy);
        }
        let unix_ms = self.groups[place].stamp(now);
        let bytes_max = entry::archive_bytes_max(call.args);
        let proposal = self.multi.propose(now.monotonic, place, SCHEMA_COMMAND_V1, bytes_max, |writer| {
            entry::write(writer, unix_ms, call.spec.code, call.args);
        })?;
        let group = &mut self.groups[place];
        group.admission.took(now.monotonic, proposal.index, bytes_max);
        group.wait_for(proposal, call.origin, call.slot);
        self.tally.proposals += 1;
        self.follow(now, place, proposal);
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
        let ticket = match self.multi.read(now.monotonic, place) {
            Err(_) if planted(Bug::ReadsAsLeader) => self.multi.read_at_follower(now.monotonic, place)?,
            ticket => ticket?,
        };
        let in_order = call.in_order || expires;
        let waits = in_order && !planted(Bug::PipelineOverlap);
        let after = if waits { ticket.position } else { ticket.index };
        let reader = Reader { ticket, after, command: Held::new(call) };
        let group = &mut self.groups[place];
        if in_order { &mut group.readers_in_order } else { &mut group.readers }.push_back(reader);
        Ok(())
    }

    /// Leaders log the time when keys have expired; writers without a verdict are cut off at last.
    pub(super) fn tick_groups(&mut self, now: Now, out: &mut Effects<Message>) {
        if self.cut_off_at.is_some_and(|at| at <= now.monotonic) {
            self.cut_off_undecided(now, out);
        }
        self.tick_expiry(now);
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
        self.settle_members(now, place);
        let (before, share) = (self.groups[place].applied, self.backlog.share(place) as u64);
        let commit = self.multi.raft(place).commit();
        while self.groups[place].applied < commit.min(before + share) {
            if let Err(reason) = self.apply_next(now, place, out) {
                return out.push(Effect::Halt { reason });
            }
        }
        self.go_on_expiring(now, place);
        let applied = self.groups[place].applied;
        self.multi.note_applied(place, applied);
        self.backlog.took(place, (applied - before) as usize, applied < commit);
        let group = &mut self.groups[place];
        match group.writers.is_empty() {
            true => group.admission.emptied(now.monotonic),
            false => group.admission.applied(now.monotonic, group.applied),
        }
        self.serve_confirmed(now, place, out);
        self.serve_follower_readers(now, place, out);
        self.settle_migration(now, place, out);
        self.settle_snapshots(now, place, out);
        let is_busy = self.goes_by_heartbeats(place);
        self.multi.hold(now.monotonic, place, is_busy);
    }

    /// Whether something is under way with the group that is looked after whenever something happens to it, which its heartbeats see
    /// to if nothing else does.
    fn goes_by_heartbeats(&self, place: usize) -> bool {
        let (group, raft) = (&self.groups[place], self.multi.raft(place));
        let has_waiting = !group.writers.is_empty()
            || !group.readers.is_empty()
            || !group.readers_in_order.is_empty()
            || !group.undecided.is_empty()
            || group.handover.waiting() > 0;
        let is_in_motion = group.standing.1 && group.is_in_motion && group.number != CONTROLLER;
        let is_unfounded = group.controller.as_ref().is_some_and(|it| it.newest().number == 0);
        has_waiting
            || is_in_motion
            || is_unfounded
            || self.is_snapshot_due(place)
            || group.applied < raft.commit()
            || self.snapshots.is_busy(place, raft.log().snapshot().0)
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
        self.tally.leader_changes += u64::from(led != standing.1);
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
            for reader in readers {
                reader.command.call(|call| self.give_back(now, call, out));
            }
        }
    }

    /// Serves the readers that came before the entry at `index` was proposed: if we proposed it in their term, its
    /// commit confirms that we led when they came.
    pub(super) fn serve_before(
        &mut self,
        now: Now,
        place: usize,
        index: u64,
        term: u64,
        out: &mut Effects<Message>,
    ) {
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
                reader.command.call(|call| self.give_back(now, call, out));
            }
        }
    }

    /// Serves the readers whose round is confirmed and whose index is applied.
    fn serve_confirmed(&mut self, now: Now, place: usize, out: &mut Effects<Message>) {
        loop {
            let raft = self.multi.raft(place);
            let group = &mut self.groups[place];
            let applied = group.applied;
            let due = |reader: &mut Reader| match raft.read_state(&reader.ticket) {
                ReadState::ServeAt(index) => {
                    let index = if planted(Bug::ReadsAsLeader) { 0 } else { index };
                    reader.after.max(index) <= applied || planted(Bug::ReadBeforeApplied)
                }
                _ => false,
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
        if spec.code == code::FLOTILLA_BACKUP {
            return self.serve_backup(now, place, &reader.command, out);
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
        if let Some((conn, nanos)) = self.was_slow(origin) {
            self.note_slow(conn, spec, &reader.command.args(), nanos);
        }
    }
}
