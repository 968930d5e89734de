//! The shard machine of one core: everything between a client's bytes and its reply, sans-IO.
//!
//! ```text
//! net.read → frame.decode → router.route → [mesh.cross | MOVED] → shard.propose → raft.append
//!    → log.batch → log.sync ∥ peer.send → raft.commit → kv.apply → reply.encode → net.write
//! ```
//!
//! | file | stages |
//! |---|---|
//! | `client.rs` | frame.decode, router.route: where a command goes, what is answered on the spot |
//! | `access.rs` | what a connection may do, and users that change |
//! | `connections.rs` | pipelines: replies in the order of the commands |
//! | `transaction.rs` | `MULTI`, `EXEC`, `WATCH`: what a connection queues and watches |
//! | `keyless.rs`, `scan.rs`, `gather.rs` | commands that concern whole groups, and their replies in parts |
//! | `admission.rs` | which writes are taken: those that won't wait for too long |
//! | `group.rs` | shard.propose: the state of one group, its waiting writers and readers |
//! | `apply.rs` | kv.apply: what a committed entry does |
//! | `backup.rs` | shards that are read as they were at one moment |
//! | `follower_read.rs` | reads of groups that another node leads |
//! | `expiring.rs` | keys whose time has come, and how soon they go |
//! | `handover.rs` | leaderships on their way to other nodes, and who waits meanwhile |
//! | `held.rs` | commands that wait, as copies |
//! | `remote.rs`, `peer_frames.rs` | mesh.cross and forwarding: a command that another core or node must execute |
//! | `returned.rs` | commands that another node gave back undone, and that go where their group is led |
//! | `member.rs` | who has replicas of the groups, and how an operator changes that |
//! | `control.rs` | the controller's group: who serves what |
//! | `migration/` | shards on their way between groups |
//! | `graveyard.rs` | data that nobody needs goes back to the memory |
//! | `snapshot/` | a group's state as a file, so that its log can be forgotten, and for followers that are far behind |
//! | `shards.rs` | the shards in a group's hands, and how each stands |
//! | `routes.rs` | where every shard is |
//! | `topology.rs` | who leads what, as clients are told |
//! | `inspect.rs` | a look inside, for the simulator and `INFO` |
//! | `questions.rs`, `stages.rs`, `slow.rs` | what operators are told over HTTP, what writes wait for, commands that took long |
//! | `reload.rs` | settings that change while the node runs |
//!
//! `step` takes things in, `apply` applies what was committed; nothing leaves before `flush`, which answers, and lets
//! [`flotilla_consensus::Multi`] cut the frame and send the messages of the turn.

mod access;
mod admission;
mod apply;
mod backlog;
mod backup;
mod client;
mod clocks;
mod connections;
mod control;
mod expiring;
mod follower_read;
mod gather;
mod graveyard;
mod group;
mod handover;
mod held;
mod inspect;
mod keyless;
mod member;
mod migration;
mod peer_frames;
mod questions;
mod reload;
mod remote;
mod returned;
mod routes;
mod scan;
mod shards;
mod slow;
mod snapshot;
mod stages;
#[cfg(test)]
mod testing;
mod topology;
mod transaction;

pub use inspect::{GroupInspection, Inspection, ShardStanding};
pub use member::MemberChange;
pub use remote::Message;
pub use routes::Located;

use crate::acl::Acl;
use crate::admin::report::SnapshotReport;
use crate::command::slowlog::{Setting, Slowlog};
use crate::config::Config;
use crate::controller::Configuration;
use backlog::Backlog;
use backup::Backups;
use connections::Connections;
use flotilla_consensus::{
    GroupId, Membership, Multi, MultiConfig, RaftConfig, has_left, raft::LeaseConfig, raft::Member,
};
use flotilla_runtime::machine::{MICROSECOND, MILLISECOND, SECOND};
use flotilla_runtime::{
    BlockPool, CoreBoot, CoreId, Effect, Effects, Event, FileId, FileKind, Machine, Nanos, NodeId, Now,
    PeerId, Slice, Vitals,
};
use flotilla_storage::{Identity, LogConfig, Recovered, Recovery, StorageError};
use graveyard::Graveyard;
use group::Group;
use migration::Migration;
use questions::Questions;
use remote::Remote;
use routes::Routes;
use snapshot::{Restored, Snapshots};
use stages::Stages;
use std::collections::BTreeMap;
use std::rc::Rc;
use topology::Leaders;

/// A node that is asked to stop waits at most so long for what its clients wait for.
const DRAIN_MAX: Nanos = 3 * SECOND;

/// The first byte of a peer frame: whose it is.
pub(crate) mod channel {
    /// Raft's messages.
    pub(crate) const RAFT: u8 = 1;
    /// A command for the core that leads its group, or the answer to one.
    pub(crate) const COMMAND: u8 = 2;
    /// What leaders of groups say to each other about shards.
    pub(crate) const MIGRATION: u8 = 3;
}

/// Why a core can't start. One line: what, where, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// Its log can't be trusted.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// One core: its clients, its groups, its log.
pub struct Core {
    pub(crate) config: Rc<Config>,
    pub(crate) id: CoreId,
    pub(crate) multi: Multi,
    /// The state of each group, in the order of `multi`'s replicas.
    pub(crate) groups: Vec<Group>,
    pub(crate) connections: Connections,
    pub(crate) acl: Acl,
    pub(crate) remote: Remote,
    pub(crate) leaders: Leaders,
    pub(crate) routes: Routes,
    /// The newest configuration that this core knows.
    pub(crate) configuration: Rc<Configuration>,
    /// The other cores of this node haven't been told of it.
    is_configuration_news: bool,
    /// The term in which this replica of the controller has proposed the first configuration.
    founded_in: Option<u64>,
    migration: Migration,
    graveyard: Graveyard,
    pub(crate) started: Nanos,
    pub(crate) recovered: String,
    damage: Vec<String>,
    snapshots: Snapshots,
    backups: Backups,
    pool: BlockPool,
    /// When the first client that waits for a verdict or a peer will have waited for too long; perhaps earlier.
    pub(crate) cut_off_at: Option<Nanos>,
    /// How fast keys go whose time has come.
    expiry_pace: expiring::Pace,
    /// Asked to stop: finish what was begun, but not beyond this instant.
    draining: Option<Nanos>,
    /// Reused by every flush.
    settling: Vec<usize>,
    backlog: Backlog,
    /// Clients' writes are refused: the log can't grow.
    is_out_of_room: bool,
    /// What the driver counts.
    vitals: Rc<Vitals>,
    tally: Tally,
    clocks: clocks::Clocks,
    stages: Stages,
    /// What operators ask.
    questions: Questions,
    /// Commands that took long.
    pub(crate) slowlog: Slowlog,
    /// Settings that a client has changed: the other cores haven't been told yet.
    setting_news: Vec<(Setting, i64)>,
}

/// What happened since the core was started, for operators.
#[derive(Debug, Default)]
struct Tally {
    /// Entries proposed for clients.
    proposals: u64,
    /// Entries applied.
    applied: u64,
    /// Leaderships that began and ended.
    leader_changes: u64,
    /// Snapshots that were taken.
    snapshots: SnapshotReport,
}

impl Core {
    /// Builds the core from what survived its last life.
    ///
    /// # Errors
    /// [`BootError`] if the log is damaged or another's: nothing was changed on disk.
    pub fn build(config: &Config, boot: CoreBoot) -> Result<Self, BootError> {
        let CoreBoot { core, files, pool, seed, now, vitals } = boot;
        let identity = Identity { cluster: config.cluster_id(), node: config.node, core: core.0 };
        let mut recovery = Recovery::new(identity);
        for (file, image) in files.iter().filter(|(file, _)| file.kind == FileKind::Segment) {
            recovery.segment(*file, image.clone())?;
        }
        let mut recovered = recovery.finish()?;
        let lengths: BTreeMap<FileId, u64> =
            files.iter().map(|(file, image)| (*file, image.len() as u64)).collect();
        let unfit = recovered.tail.fit(config.log.segment_bytes, |file| lengths[&file]);
        let hosted = topology::groups_of(config, core);
        let (mut snapshots, restored) = restore(&files, &hosted, &mut recovered, config)?;
        snapshots.remove_at_start(unfit);
        drop(files);
        let (summary, damage) = (recovered.summary(), recovered.damage());
        let multi_config = MultiConfig {
            me: config.node_id(),
            groups: hosted,
            raft: RaftConfig {
                heartbeat: config.raft.heartbeat_ms * MILLISECOND,
                election_timeout: config.raft.election_timeout_ms * MILLISECOND,
                lease: config
                    .raft
                    .lease_reads
                    .then_some(LeaseConfig { clock_drift_max_ppm: config.raft.clock_drift_max_ppm }),
                append_bytes_max: config.raft.append_bytes_max,
                spare_sync_wait: config.raft.spare_sync_wait_us * MICROSECOND,
                rests: true,
                // Less than a segment by more than what the log adds.
                entry_bytes_max: usize::try_from(config.log.segment_bytes / 16 * 15).unwrap_or(usize::MAX),
                ..RaftConfig::default()
            },
            log: LogConfig {
                segment_bytes: config.log.segment_bytes,
                commits_in_flight: config.log.commits_in_flight,
                ..LogConfig::new(identity)
            },
            channel: channel::RAFT,
        };
        let mut multi = Multi::open(multi_config, pool.clone(), recovered, seed, now.monotonic);
        topology::introduce_everybody(config, &mut multi);
        for place in 0..multi.len() {
            let raft = multi.raft(place);
            let order = topology::preference_among(config, raft.group(), raft.membership().1);
            multi.prefer(now.monotonic, place, order);
        }
        let mut groups: Vec<Group> =
            (0..multi.len()).map(|place| Group::new(config, multi.raft(place), seed)).collect();
        for (place, restored) in restored.into_iter().enumerate() {
            if let Some(restored) = restored {
                drop(groups[place].restore(restored, multi.raft(place).log().snapshot().0));
            }
        }
        let mut this = Self {
            id: core,
            groups,
            connections: Connections::new(config, seed),
            acl: Acl::new(config.all_users(), seed),
            remote: Remote::new(seed, config.link_bytes_max()),
            leaders: Leaders::new(config.groups_total()),
            routes: Routes::new(config),
            configuration: Rc::new(Configuration::empty(config.shards)),
            is_configuration_news: false,
            founded_in: None,
            migration: Migration::default(),
            graveyard: Graveyard::default(),
            started: now.monotonic,
            recovered: summary,
            damage,
            snapshots,
            backups: Backups::default(),
            pool,
            cut_off_at: None,
            expiry_pace: expiring::Pace::default(),
            draining: None,
            settling: Vec::new(),
            backlog: Backlog::default(),
            is_out_of_room: false,
            vitals,
            tally: Tally::default(),
            clocks: clocks::Clocks::default(),
            stages: Stages::default(),
            questions: Questions::default(),
            slowlog: Slowlog::default(),
            setting_news: Vec::new(),
            multi,
            config: Rc::new(config.clone()),
        };
        for place in 0..this.groups.len() {
            this.learn_routes(place);
            this.learn_from_controller(place);
        }
        Ok(this)
    }

    /// Passwords are drawn from this from here on, and not from the seed.
    pub fn draw_passwords_from(&mut self, secret: [u8; 32]) {
        self.acl.draw_from(secret);
    }

    /// A line about what recovery found.
    pub fn recovered(&self) -> &str {
        &self.recovered
    }

    /// What is damaged, a line each: those groups get what they lost from the other nodes.
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    fn peer_frame(&mut self, now: Now, from: PeerId, frame: &[u8], out: &mut Effects<Message>) {
        match frame.split_first() {
            Some((&channel::RAFT, rest)) => {
                if let Err(error) = self.multi.receive(now.monotonic, from.node, rest) {
                    tracing::warn!(peer = from.node.0, %error, "a frame from a peer was dropped");
                }
            }
            Some((&channel::COMMAND, rest)) => self.remote_frame(now, from, rest, out),
            Some((&channel::MIGRATION, rest)) => self.migration_frame(now, from.node, rest, out),
            _ => tracing::warn!(peer = from.node.0, "a frame of an unknown channel was dropped"),
        }
    }

    /// Turns apply so few entries: for simulators.
    #[doc(hidden)]
    pub fn apply_at_most(&mut self, entries: usize) {
        self.backlog.keep_small(entries);
    }

    /// Applies and answers what became possible in this turn, group by group.
    fn settle(&mut self, now: Now, out: &mut Effects<Message>) {
        let mut dirty = std::mem::take(&mut self.settling);
        dirty.clear();
        dirty.extend_from_slice(self.multi.dirty());
        self.backlog.begin();
        for place in dirty.drain(..) {
            self.settle_group(now, place, out);
        }
        self.backlog.begin_waiting();
        while let Some(place) = self.backlog.next() {
            self.settle_group(now, place, out);
        }
        self.settling = dirty;
    }

    /// Tells the operator when writes begin to be refused for want of room, and when that is over.
    fn tell_of_room(&mut self) {
        let reason = self.multi.wal().no_room_for(0);
        if reason.is_some() != self.is_out_of_room {
            self.is_out_of_room = reason.is_some();
            let core = self.id.0;
            match reason {
                Some(reason) => {
                    tracing::warn!(
                        core,
                        reason,
                        "no further log segment: writes are refused until there is room; free some on the disk that has `data`"
                    );
                }
                None => tracing::info!(core, "there is room for the log again: writes are taken"),
            }
        }
    }
}

/// Reads the snapshots of the hosted groups. A group whose snapshot is lost, or part of whose log is, can be mended only if
/// others have replicas of it.
fn restore(
    files: &[(FileId, Slice)],
    hosted: &[(GroupId, Vec<Member>)],
    recovered: &mut Recovered,
    config: &Config,
) -> Result<(Snapshots, Vec<Option<Restored>>), StorageError> {
    // Where something was lost, it may be what took the replica in again.
    let candidates = hosted.iter().filter(|_| recovered.holes.is_empty());
    for (group, _) in candidates.collect::<Vec<_>>() {
        if recovered.groups.get(&group.0).is_some_and(|found| has_left(found, config.node_id())) {
            recovered.forget(group.0);
        }
    }
    let number_of = |payload: &Slice| (**payload).try_into().map_or(0, u64::from_le_bytes);
    let mark_of = |(group, _): &(GroupId, Vec<Member>)| {
        let mark = recovered.groups.get(&group.0).and_then(|found| found.snapshot.as_ref());
        mark.map(|(_, payload)| number_of(payload))
    };
    let marks: Vec<Option<u64>> = hosted.iter().map(mark_of).collect();
    let founded =
        |(group, _): &(GroupId, Vec<Member>)| group::founded_shards(config, topology::number_of(*group));
    let founded: Vec<_> = hosted.iter().map(founded).collect();
    let (snapshots, found) = snapshot::open(files, &marks, &founded);
    let mut restored = Vec::new();
    for ((group, founders), found) in hosted.iter().zip(found) {
        let is_alone = is_alone(recovered, *group, founders, config.node_id());
        let lost = match found {
            Ok(found) => {
                restored.push(found);
                // Without a hole it is a group that isn't founded yet.
                let damage = recovered.damage_of(group.0);
                let damage = damage.filter(|damage| damage.given_up || !recovered.holes.is_empty());
                damage.map(|_| recovered.damage().join("; "))
            }
            Err(error) => {
                restored.push(None);
                recovered.lose_snapshot(group.0, &error);
                Some(error.to_string())
            }
        };
        if let Some(what) = lost.filter(|_| is_alone)
            && !recovered.accept_what_is_left(group.0)
        {
            return Err(StorageError::Irreparable { group: group.0, what });
        }
    }
    Ok((snapshots, restored))
}

/// Whether nobody else has a replica of the group.
fn is_alone(recovered: &Recovered, group: GroupId, founders: &[Member], me: NodeId) -> bool {
    let recorded = recovered.groups.get(&group.0).and_then(|found| found.membership.as_ref());
    let recorded = recorded.and_then(|(_, payload)| Membership::decode(payload.get(8..)?));
    let assumed = || Membership::of_voters(founders.iter().map(|member| member.peer));
    let peers = recorded.unwrap_or_else(assumed).peers;
    peers.len() == 1 && peers.contains_key(&u64::from(me.0))
}

impl Machine for Core {
    type Message = Message;

    fn step(&mut self, now: Now, event: Event<'_, Message>, out: &mut Effects<Message>) {
        self.connections.time_is(now);
        match event {
            Event::Tick => {
                self.multi.tick(now.monotonic, out);
                self.tick_groups(now, out);
                self.compare_clocks(now);
                self.tick_snapshots(now, out);
                self.graveyard.tick(now.monotonic);
                self.tick_backups(now, out);
                self.tick_migration(now, out);
                self.tick_returned(now, out);
                self.answer_operators(now, out);
            }
            Event::Opened { conn, is_local } => self.open(now, conn, is_local),
            Event::Client { conn, bytes, taken } => self.client_bytes(now, conn, bytes, taken, out),
            Event::Closed { conn } => self.connections.close(conn),
            Event::PeerUp { peer } => {
                self.multi.link_changed(now.monotonic, peer, true);
                self.remote_link_changed(now, peer, true, out);
                self.snapshot_link_changed(peer);
            }
            Event::PeerDown { peer } => {
                self.multi.link_changed(now.monotonic, peer, false);
                self.remote_link_changed(now, peer, false, out);
                self.snapshot_link_changed(peer);
            }
            Event::Peer { from, frame } => self.peer_frame(now, from, frame, out),
            Event::Mesh { from, message } => self.mesh_message(now, from, message, out),
            Event::Disk { op, result } => {
                if !self.multi.disk(now.monotonic, op, &result, out) {
                    self.snapshot_disk(now, op, result, out);
                }
            }
            Event::Asked { question, path } => self.asked(now, question, path, out),
            Event::Reloaded { settings } => self.reloaded(now, settings),
            Event::Shutdown => {
                self.draining = Some(now.monotonic + DRAIN_MAX);
                self.retire(now);
            }
        }
    }

    fn apply(&mut self, now: Now, out: &mut Effects<Message>) {
        self.time_last_turn();
        self.connections.time_is(now);
        self.snapshot_mail(now, out);
        let applied = self.tally.applied;
        self.settle(now, out);
        self.stages.has_applied = self.tally.applied > applied;
    }

    fn flush(&mut self, now: Now, out: &mut Effects<Message>) {
        self.connections.time_is(now);
        self.spread_routes(out);
        self.spread_configuration(out);
        self.spread_settings(out);
        self.migrate(now, out);
        let frames = self.multi.wal().counters().frames;
        self.multi.flush(now.monotonic, out);
        self.stages.has_built = self.multi.wal().counters().frames > frames;
        self.follow_on(now);
        self.tell_of_room();
        self.remote.flush(out);
        self.connections.flush(out);
        if self.draining.is_some_and(|latest| latest <= now.monotonic || self.is_drained(now)) {
            out.push(Effect::Drained);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        let deadlines = [
            self.multi.deadline(),
            self.draining,
            self.snapshots.deadline(),
            self.graveyard.deadline(),
            self.backups.deadline(),
            self.migration.deadline(),
            self.remote.returned.deadline(),
            self.cut_off_at,
            self.expiry_pace.deadline(),
            self.questions.deadline(),
            self.backlog.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }
}
