//! An operator asks the node, over HTTP: the core that is asked gathers what all of them have to say.
//!
//! A core that doesn't answer within a second is named in the answer, which doesn't wait for it.

use super::remote::Message;
use super::shards::Status;
use super::topology::CONTROLLER;
use super::{Core, group};
use crate::admin::report::{
    CoreReport, FollowerReport, GroupReport, Links, NodeLine, NodeReport, ShardReport, Standing,
};
use crate::admin::{self, Topic};
use crate::mapreduce::coordinator::store;
use crate::slot::Slot;
use flotilla_consensus::Role;
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::{CoreId, Effect, Effects, Nanos, NodeId, Now, PeerId, QuestionId};
use std::collections::{BTreeMap, BTreeSet};

/// How long the other cores have.
const PATIENCE: Nanos = SECOND;
/// The log of the MapReduce jobs is looked at up to so many bytes and entries.
const JOBS_BYTES_MAX: usize = 2 << 20;
const JOBS_ENTRIES_MAX: usize = 1000;

/// A question that waits for the other cores.
#[derive(Debug)]
struct Gathering {
    topic: Topic,
    reports: Vec<CoreReport>,
    missing: BTreeSet<u16>,
    until: Nanos,
}

/// The questions that a core has been asked.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    waiting: BTreeMap<QuestionId, Gathering>,
}

impl Questions {
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.waiting.values().map(|it| it.until).min()
    }
}

impl Core {
    /// An operator asks.
    pub(super) fn asked(&mut self, now: Now, question: QuestionId, path: &str, out: &mut Effects<Message>) {
        let topic = match Topic::of(path) {
            None => return out.push(Effect::Answer { question, answer: admin::not_found() }),
            Some(Topic::Page) => return out.push(Effect::Answer { question, answer: admin::page() }),
            Some(topic) => topic,
        };
        let others: BTreeSet<u16> = (0..self.config.me().cores).filter(|core| *core != self.id.0).collect();
        for core in &others {
            out.push(Effect::Mesh {
                to: CoreId(*core),
                message: Message::Ask { question: question.0, topic },
            });
        }
        let reports = vec![self.report(now, topic)];
        let gathering = Gathering { topic, reports, missing: others, until: now.monotonic + PATIENCE };
        self.questions.waiting.insert(question, gathering);
        self.answer_operators(now, out);
    }

    /// Another core asks for one.
    pub(super) fn asked_by(
        &self,
        now: Now,
        from: CoreId,
        (question, topic): (u64, Topic),
        out: &mut Effects<Message>,
    ) {
        let report = Box::new(self.report(now, topic));
        out.push(Effect::Mesh { to: from, message: Message::Told { question, report } });
    }

    /// Another core has answered.
    pub(super) fn told(&mut self, now: Now, question: u64, report: CoreReport, out: &mut Effects<Message>) {
        if let Some(gathering) = self.questions.waiting.get_mut(&QuestionId(question))
            && gathering.missing.remove(&report.core)
        {
            gathering.reports.push(report);
            self.answer_operators(now, out);
        }
    }

    /// Answers the questions to which everybody has said something, or had the time to.
    pub(super) fn answer_operators(&mut self, now: Now, out: &mut Effects<Message>) {
        let is_due = |_: &QuestionId, it: &mut Gathering| it.missing.is_empty() || it.until <= now.monotonic;
        let due: Vec<_> = self.questions.waiting.extract_if(.., is_due).collect();
        for (question, gathering) in due {
            let Gathering { topic, mut reports, missing, .. } = gathering;
            reports.sort_by_key(|report| report.core);
            let report = self.node_report(reports, missing.into_iter().collect());
            out.push(Effect::Answer { question, answer: admin::answer(topic, report) });
        }
    }

    fn node_report(&self, cores: Vec<CoreReport>, silent: Vec<u16>) -> NodeReport {
        let config = &self.config;
        let line = |node: &crate::config::NodeEntry| NodeLine {
            id: node.id,
            host: node.host.clone(),
            port: node.port,
            cores: node.cores,
        };
        let numbers = (0..config.groups_total()).chain([CONTROLLER]);
        NodeReport {
            node: config.node,
            cluster: config.cluster.clone(),
            shards: config.shards,
            nodes: config.nodes.iter().map(line).collect(),
            cores,
            silent,
            configuration: (*self.configuration).clone(),
            routes: self.routes.all().to_vec(),
            leaders: numbers.filter_map(|number| Some((number, self.leaders.of(number)?.0))).collect(),
            process: self.vitals.process.get(),
        }
    }

    /// What this core has to say.
    fn report(&self, now: Now, topic: Topic) -> CoreReport {
        let (vitals, wal, connections) = (&self.vitals, self.multi.wal(), &self.connections);
        let mut groups: Vec<GroupReport> =
            (0..self.groups.len()).map(|place| self.group_report(place)).collect();
        groups.sort_by_key(|group| group.number);
        let counts = connections.counts();
        CoreReport {
            core: self.id.0,
            clock_behind_ms: self.clock_behind_ms(now),
            uptime_nanos: now.monotonic.saturating_sub(self.started),
            is_draining: self.draining.is_some(),
            connections: connections.len() as u64,
            connections_opened: connections.opened_total,
            connections_refused: vitals.clients_refused.get(),
            connections_cut_off: vitals.clients_cut_off.get(),
            tls_failures: vitals.tls_failures.get(),
            client_bytes_in: vitals.client_bytes_in.get(),
            client_bytes_out: vitals.client_bytes_out.get(),
            commands: counts.commands.clone(),
            errors: counts.errors.clone(),
            waiting: connections.waiting() as u64,
            command_times: counts.times,
            writes_refused: self.groups.iter().map(|group| group.admission.refused_total).sum(),
            stages: self.stage_times(),
            turns: *vitals.turns.borrow(),
            stalls: vitals.stalls.get(),
            log: wal.counters(),
            commit_times: *self.multi.commit_times(),
            segments: wal.live_segments() as u64,
            log_waiting_bytes: wal.backlog_bytes() as u64,
            is_out_of_room: self.is_out_of_room,
            proposals: self.tally.proposals,
            applied: self.tally.applied,
            leader_changes: self.tally.leader_changes,
            snapshots: self.tally.snapshots,
            groups,
            links: self.links(),
            peer_out: [
                vitals.peer_frames_out.get(),
                vitals.peer_bytes_out.get(),
                vitals.peer_frames_dropped.get(),
            ],
            peer_in: [vitals.peer_frames_in.get(), vitals.peer_bytes_in.get()],
            mesh: [
                vitals.mesh_messages_out.get(),
                vitals.mesh_messages_in.get(),
                vitals.mesh_full.get(),
                vitals.mesh_rings.get(),
            ],
            jobs: if topic == Topic::Status { self.job_entries() } else { Vec::new() },
        }
    }

    fn links(&self) -> BTreeMap<u32, Links> {
        let others = self.config.nodes.iter().filter(|node| node.id != self.config.node);
        let links = |node: &crate::config::NodeEntry| {
            let peers = (0..node.cores).map(|core| PeerId { node: NodeId(node.id), core: CoreId(core) });
            let up: Vec<PeerId> = peers.filter(|peer| self.remote.is_up(*peer)).collect();
            let versions = self.vitals.peer_versions.borrow();
            let version = up.iter().filter_map(|peer| versions.get(peer).copied()).min();
            (node.id, Links { up: up.len() as u64, all: u64::from(node.cores), version })
        };
        others.map(links).collect()
    }

    fn group_report(&self, place: usize) -> GroupReport {
        let (raft, group) = (self.multi.raft(place), &self.groups[place]);
        let membership = raft.membership().1;
        let me = self.config.node_id();
        let others = membership.peers.values().filter(|peer| peer.node != me);
        let is_leading = raft.role() == Role::Leader;
        let follower = |peer: &PeerId| FollowerReport {
            node: peer.node.0,
            votes: membership.is_voter(peer.node),
            matched: if is_leading { raft.matched(peer.node).map(|(matched, _)| matched) } else { None },
        };
        let shard = |shard: &super::shards::Shard| ShardReport {
            number: shard.number,
            standing: match shard.status {
                Status::Serving => match self.migration.copies_to(place, shard.number) {
                    Some(to) => Standing::Copying(to),
                    None => Standing::Serving,
                },
                Status::Leaving { to } => Standing::Leaving(to),
                Status::Arriving { from } => Standing::Arriving(from),
            },
            keys: shard.keys.len(),
            bytes: shard.keys.bytes() + shard.pending.len() as u64,
        };
        GroupReport {
            number: group.number,
            role: super::inspect::role_of(raft, self.config.node),
            term: raft.term(),
            leader: raft.leader().map(|node| node.0),
            last: raft.log().last_index(),
            durable: raft.durable(),
            commit: raft.commit(),
            applied: group.applied,
            log_bytes: raft.log().bytes() as u64,
            elections: raft.campaigns(),
            others: others.map(follower).collect(),
            shards: group.shards.iter().map(shard).collect(),
            moved_in: group.moved_in,
            moved_bytes: group.moved_bytes,
            waiting: group.waiting() as u64,
        }
    }

    /// The log of the MapReduce jobs, if the group that has it is here: as a follower, it may be a little behind.
    fn job_entries(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let slot = Slot::of_key(store::PREFIX.as_bytes());
        let serves = |group: &&group::Group| group.serving(slot).is_some();
        let Some(group) = self.groups.iter().find(serves) else { return Vec::new() };
        let Some(shard) = group.serving(slot) else { return Vec::new() };
        let value = |key: &[u8]| shard.keys.get(group.clock_ms, key)?.value.as_string().cloned();
        let snapshot = value(&store::snapshot_key()).filter(|value| value.len() <= JOBS_BYTES_MAX);
        let first = snapshot.as_deref().and_then(store::place_behind).unwrap_or(0);
        let mut bytes = snapshot.as_ref().map_or(0, Vec::len);
        let mut entries: Vec<_> = snapshot.map(|value| (store::snapshot_key(), value)).into_iter().collect();
        for place in (first..).take(JOBS_ENTRIES_MAX) {
            let key = store::place_key(place);
            let Some(value) = value(&key) else { break };
            bytes += value.len();
            if bytes > JOBS_BYTES_MAX {
                break;
            }
            entries.push((key, value));
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use flotilla_runtime::machine::MILLISECOND;
    use flotilla_runtime::{Answer, BlockPool, CoreBoot, Event, Machine, Vitals};

    const QUESTION: QuestionId = QuestionId(7);

    fn first_of_two() -> (Core, Now) {
        let config = "cluster = \"one\"\nnode = 1\ndata = \"/nowhere\"\n[log]\nsegment_bytes = 1048576\n\
                      [[nodes]]\nid = 1\nhost = \"here\"\nport = 7001\npeer_port = 17001\ncores = 2\n";
        let config: Config = toml::from_str(config).unwrap();
        let now = Now { monotonic: SECOND, unix_ms: 1_700_000_000_000 };
        let (files, pool, vitals) = (Vec::new(), BlockPool::new(), Vitals::new());
        (Core::build(&config, CoreBoot { core: CoreId(0), files, pool, seed: 1, now, vitals }).unwrap(), now)
    }

    /// Hands an event to the core; the answers, and the topics that the other core is asked for.
    fn step(core: &mut Core, now: Now, event: Event<'_, Message>) -> (Vec<(u16, String)>, Vec<Topic>) {
        let (mut out, mut answers, mut asked) = (Effects::default(), Vec::new(), Vec::new());
        core.step(now, event, &mut out);
        for effect in out.drain() {
            match effect {
                Effect::Answer { question, answer: Answer { status, render, .. } } => {
                    assert_eq!(question, QUESTION);
                    answers.push((status, String::from_utf8(render()).unwrap()));
                }
                Effect::Mesh { to: CoreId(1), message: Message::Ask { topic, .. } } => asked.push(topic),
                _ => {}
            }
        }
        (answers, asked)
    }

    fn ask(path: &str) -> Event<'_, Message> {
        Event::Asked { question: QUESTION, path }
    }

    fn told(report: CoreReport) -> Event<'static, Message> {
        Event::Mesh {
            from: CoreId(1),
            message: Message::Told { question: QUESTION.0, report: Box::new(report) },
        }
    }

    #[test]
    fn what_needs_nobody_is_answered_at_once() {
        let (mut core, now) = first_of_two();
        let (answers, asked) = step(&mut core, now, ask("/"));
        assert!(answers[0].0 == 200 && answers[0].1.starts_with("<!doctype html>") && asked.is_empty());
        assert_eq!(step(&mut core, now, ask("/metric")).0[0].0, 404);
        assert_eq!(core.questions.deadline(), None);
    }

    #[test]
    fn an_answer_is_what_all_cores_say() {
        let (mut core, now) = first_of_two();
        assert_eq!(step(&mut core, now, ask("/healthz")), (Vec::new(), vec![Topic::Healthy]));
        let report = CoreReport { core: 1, ..CoreReport::default() };
        assert_eq!(step(&mut core, now, told(report.clone())).0, [(200, "ok\n".to_owned())]);
        // Said again, it is an answer to nothing.
        assert_eq!(step(&mut core, now, told(report)).0, []);
    }

    #[test]
    fn a_core_that_is_silent_is_named_and_not_waited_for() {
        let (mut core, mut now) = first_of_two();
        for (path, status) in [("/healthz", 503), ("/readyz", 503), ("/status", 200), ("/metrics", 200)] {
            assert_eq!(step(&mut core, now, ask(path)).0, []);
            now.monotonic += PATIENCE - MILLISECOND;
            assert_eq!(step(&mut core, now, Event::Tick).0, []);
            now.monotonic = core.questions.deadline().unwrap();
            let (answers, _) = step(&mut core, now, Event::Tick);
            assert_eq!(answers[0].0, status);
            let words = match path {
                "/status" => "\"core\":1,\"up\":false",
                "/metrics" => "flotilla_core_up{core=\"1\"} 0\n",
                _ => "core 1 didn't answer in time",
            };
            assert!(answers[0].1.contains(words), "{path}: {}", answers[0].1);
        }
    }

    #[test]
    fn a_node_that_is_being_stopped_is_not_ready() {
        let (mut core, now) = first_of_two();
        step(&mut core, now, Event::Shutdown);
        step(&mut core, now, ask("/readyz"));
        let (answers, _) = step(&mut core, now, told(CoreReport { core: 1, ..CoreReport::default() }));
        assert!(answers[0].0 == 503 && answers[0].1.contains("is being stopped"), "{answers:?}");
    }
}
