//! The node as JSON: what the status page and `flotilla top` show. Fields are only ever added.

use super::report::{CoreReport, GroupReport, NodeReport, STAGES, ShardReport, Standing, seconds, summed};
use crate::group_name::word_of as group_word;
use crate::mapreduce::coordinator::store::{JobLine, jobs_of};
use flotilla_runtime::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its number.
    pub node: u32,
    /// Its cluster.
    pub cluster: String,
    /// Which Flotilla it is.
    pub version: String,
    /// Since it was started.
    pub uptime_seconds: f64,
    /// It is being stopped.
    pub draining: bool,
    /// It serves.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// CPU time of the process.
    pub cpu_seconds: f64,
    /// Memory in use.
    pub resident_bytes: u64,
    /// Every node of the cluster, this one included.
    pub nodes: Vec<NodeStatus>,
    /// Its cores.
    pub cores: Vec<CoreStatus>,
    /// What writes waited for: samples, by stage.
    #[serde(default)]
    pub stages: BTreeMap<String, Times>,
    /// Its replicas.
    pub groups: Vec<GroupStatus>,
    /// The newest configuration that is known here, and who serves what.
    pub configuration: u64,
    /// Every shard of the cluster.
    pub shards: Vec<ShardStatus>,
    /// Shards on their way that this node has a part in, or knows to be elsewhere than they should be.
    pub migrations: Vec<MigrationStatus>,
    /// MapReduce jobs, as far as the replicas here know them: the newest first.
    pub jobs: Vec<JobLine>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its number.
    pub node: u32,
    /// Where it is.
    pub host: String,
    /// Its first core's port for clients.
    pub port: u16,
    /// Its cores.
    pub cores: u16,
    /// This is the one that answers.
    pub me: bool,
    /// Links from here to its cores that stand.
    pub links_up: u64,
    /// That should.
    pub links: u64,
    /// The lowest version of the nodes' protocol that is spoken over them; none if none stands.
    #[serde(default)]
    pub protocol: Option<u16>,
}

/// Times, as they were counted since the start: how often something took at most `bounds_seconds[i]` and more than the bound
/// before. The last count has no bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How often.
    pub counts: Vec<u64>,
    /// All together.
    pub sum_seconds: f64,
}

impl Times {
    fn of(histogram: &Histogram) -> Self {
        Self { counts: histogram.counts().to_vec(), sum_seconds: seconds(histogram.sum_nanos()) }
    }
}

/// A core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CoreStatus {
    /// Which.
    pub core: u16,
    /// It answered in time; if not, all else is 0.
    pub up: bool,
    /// Clients.
    pub connections: u64,
    /// Commands of clients so far.
    pub commands_total: u64,
    /// Errors that they were told.
    pub errors_total: u64,
    /// Bytes from them.
    pub received_bytes_total: u64,
    /// Bytes to them.
    pub sent_bytes_total: u64,
    /// How long it has worked.
    pub busy_seconds_total: f64,
    /// Keys in its replicas.
    pub keys: u64,
    /// Bytes of those and their values.
    pub data_bytes: u64,
    /// Bytes written to its log.
    pub log_bytes_total: u64,
    /// Group commits.
    pub log_syncs_total: u64,
    /// Replicas.
    pub groups: u64,
    /// Of those, it leads so many.
    pub led: u64,
    /// From a read to its reply.
    pub reads: Times,
    /// From a write to its reply.
    pub writes: Times,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group's number, or `controller`.
    pub group: String,
    /// The core that it lives on.
    pub core: u16,
    /// `leader`, `follower`, `candidate`, `repairing` or `outside`.
    pub role: String,
    /// The node that leads.
    pub leader: Option<u32>,
    /// The term.
    pub term: u64,
    /// The last entry.
    pub last: u64,
    /// Durable up to here.
    pub durable: u64,
    /// Committed up to here.
    pub commit: u64,
    /// Applied up to here.
    pub applied: u64,
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub data_bytes: u64,
    /// Shards that it serves.
    pub shards: u64,
    /// Clients that wait for it.
    pub waiting: u64,
    /// The other members; what they lack is known on the leader.
    pub others: Vec<FollowerStatus>,
}

/// Another member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerStatus {
    /// Its node.
    pub node: u32,
    /// It has a vote.
    pub votes: bool,
    /// Entries that it isn't known to have.
    pub lag: Option<u64>,
}

/// A shard of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Which.
    pub shard: u16,
    /// The group that serves it.
    pub group: u32,
    /// The node that leads that, as far as it is known here.
    pub leader: Option<u32>,
    /// How it stands in a replica here: `serving`, `copying`, `leaving`, `arriving`; none if there is none.
    pub state: Option<String>,
}

/// A shard on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationStatus {
    /// Which.
    pub shard: u16,
    /// The group that it comes from.
    pub from: u32,
    /// The group that it goes to.
    pub to: u32,
    /// `waiting`, `copying`, `leaving`, `arriving`.
    pub state: String,
    /// Keys here: of the shard itself at its source, of what has come at its destination.
    pub keys: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Bytes that have come to a replica of the destination here; none if there is no such replica, or nothing has come.
    #[serde(default)]
    pub done_bytes: Option<u64>,
    /// Bytes that the shard has in a replica of its source here.
    #[serde(default)]
    pub all_bytes: Option<u64>,
}

/// How a shard stands, in a word.
pub fn word_of(standing: Standing) -> &'static str {
    match standing {
        Standing::Serving => "serving",
        Standing::Copying(_) => "copying",
        Standing::Leaving(_) => "leaving",
        Standing::Arriving(_) => "arriving",
    }
}

impl Status {
    /// What the cores have said.
    pub fn of(report: &NodeReport) -> Self {
        let reasons = report.why_not_ready();
        let process = &report.process;
        let standing = standings(report);
        let shard = |(shard, group): (u16, &u32)| ShardStatus {
            shard,
            group: *group,
            leader: report.leaders.get(group).copied(),
            state: standing.get(&shard).map(|it| word_of(*it).to_owned()),
        };
        let silent = report.silent.iter().map(|core| CoreReport { core: *core, ..CoreReport::default() });
        let mut cores: Vec<CoreStatus> = report.cores.iter().map(|core| CoreStatus::of(core, true)).collect();
        cores.extend(silent.map(|core| CoreStatus::of(&core, false)));
        cores.sort_by_key(|core| core.core);
        let mut groups: Vec<(u32, GroupStatus)> =
            report.groups().map(|(core, group)| (group.number, GroupStatus::of(core, group))).collect();
        groups.sort_by_key(|(number, _)| *number);
        let stage = |(place, name): (usize, &&str)| {
            let times = summed(report.cores.iter().map(|core| &core.stages[place]));
            ((*name).to_owned(), Times::of(&times))
        };
        let job_entries = report.cores.iter().flat_map(|core| &core.jobs);
        Self {
            node: report.node,
            cluster: report.cluster.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: seconds(report.uptime_nanos()),
            draining: report.is_draining(),
            ready: reasons.is_empty(),
            reasons,
            cpu_seconds: process.cpu_seconds(),
            resident_bytes: process.resident_bytes,
            nodes: nodes(report),
            cores,
            stages: STAGES.iter().enumerate().map(stage).collect(),
            groups: groups.into_iter().map(|(_, group)| group).collect(),
            configuration: report.configuration.number,
            shards: (0..).zip(&report.routes).map(shard).collect(),
            migrations: migrations(report),
            jobs: jobs_of(job_entries.map(|(key, value)| (&key[..], &value[..]))),
        }
    }
}

fn nodes(report: &NodeReport) -> Vec<NodeStatus> {
    let status = |node: &super::report::NodeLine| {
        let links = report.cores.iter().filter_map(|core| core.links.get(&node.id));
        let (links_up, links) = links.fold((0, 0), |(up, all), it| (up + it.up, all + it.all));
        let (host, me) = (node.host.clone(), node.id == report.node);
        let versions = report.cores.iter().filter_map(|core| core.links.get(&node.id)?.version);
        let (port, cores, protocol) = (node.port, node.cores, versions.min());
        NodeStatus { node: node.id, host, port, cores, me, links_up, links, protocol }
    };
    report.nodes.iter().map(status).collect()
}

/// How the shards stand in replicas here: where one leads, as that says.
fn standings(report: &NodeReport) -> BTreeMap<u16, Standing> {
    let mut standings = BTreeMap::new();
    let (led, followed): (Vec<_>, Vec<_>) = report.groups().partition(|(_, group)| group.role == "leader");
    for (_, group) in followed.into_iter().chain(led) {
        for shard in &group.shards {
            let is_more = shard.standing != Standing::Serving || !standings.contains_key(&shard.number);
            if is_more || group.role == "leader" {
                standings.insert(shard.number, shard.standing);
            }
        }
    }
    standings
}

/// What leaders here say of the shards on their way, and, of those that nobody here has a part in, that they are to go.
fn migrations(report: &NodeReport) -> Vec<MigrationStatus> {
    let mut found: BTreeMap<(u16, bool), MigrationStatus> = BTreeMap::new();
    for (_, group) in report.groups().filter(|(_, group)| group.role == "leader") {
        for ShardReport { number, standing, keys, bytes } in group.shards.iter().copied() {
            let (from, to) = match standing {
                Standing::Serving => continue,
                Standing::Copying(to) | Standing::Leaving(to) => (group.number, to),
                Standing::Arriving(from) => (from, group.number),
            };
            let state = word_of(standing).to_owned();
            let is_source = from == group.number;
            let (done_bytes, all_bytes, shard) = (None, None, number);
            let it = MigrationStatus { shard, from, to, state, keys, bytes, done_bytes, all_bytes };
            found.insert((number, is_source), it);
        }
    }
    for (shard, from, to) in report.misplaced() {
        if !found.contains_key(&(shard, true)) && !found.contains_key(&(shard, false)) {
            let (state, keys, bytes) = ("waiting".to_owned(), 0, 0);
            let it =
                MigrationStatus { shard, from, to, state, keys, bytes, done_bytes: None, all_bytes: None };
            found.insert((shard, true), it);
        }
    }
    // What the replicas here have of those: by group, shard, and whether it is arriving.
    let mut bytes = BTreeMap::new();
    for (_, group) in report.groups() {
        for shard in group
            .shards
            .iter()
            .filter(|shard| found.range((shard.number, false)..=(shard.number, true)).next().is_some())
        {
            let is_arriving = matches!(shard.standing, Standing::Arriving(_));
            bytes.entry((group.number, shard.number, is_arriving)).or_insert(shard.bytes);
        }
    }
    for it in found.values_mut() {
        it.done_bytes = bytes.get(&(it.to, it.shard, true)).copied();
        it.all_bytes = bytes.get(&(it.from, it.shard, false)).copied();
    }
    found.into_values().collect()
}

impl CoreStatus {
    fn of(core: &CoreReport, up: bool) -> Self {
        let shards = || core.groups.iter().flat_map(|group| &group.shards);
        Self {
            core: core.core,
            up,
            connections: core.connections,
            commands_total: core.commands.iter().sum(),
            errors_total: core.errors.values().sum(),
            received_bytes_total: core.client_bytes_in,
            sent_bytes_total: core.client_bytes_out,
            busy_seconds_total: seconds(core.turns.sum_nanos()),
            keys: shards().map(|shard| shard.keys).sum(),
            data_bytes: shards().map(|shard| shard.bytes).sum(),
            log_bytes_total: core.log.bytes,
            log_syncs_total: core.log.commits,
            groups: core.groups.len() as u64,
            led: core.groups.iter().filter(|group| group.role == "leader").count() as u64,
            reads: Times::of(&core.command_times[0]),
            writes: Times::of(&core.command_times[1]),
        }
    }
}

impl GroupStatus {
    fn of(core: u16, group: &GroupReport) -> Self {
        let lag = |matched: u64| group.last.saturating_sub(matched);
        let others = group.others.iter();
        Self {
            group: group_word(group.number),
            core,
            role: group.role.to_owned(),
            leader: group.leader,
            term: group.term,
            last: group.last,
            durable: group.durable,
            commit: group.commit,
            applied: group.applied,
            keys: group.shards.iter().map(|shard| shard.keys).sum(),
            data_bytes: group.shards.iter().map(|shard| shard.bytes).sum(),
            shards: group.shards.len() as u64,
            waiting: group.waiting,
            others: others
                .map(|it| FollowerStatus { node: it.node, votes: it.votes, lag: it.matched.map(lag) })
                .collect(),
        }
    }
}
