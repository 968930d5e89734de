//! The numbers, in Prometheus' text format 0.0.4. `docs/metrics.md` explains each; a test compares the two.
//!
//! Names and units are those of the conventions: `_total` counts since the start, `_seconds`, `_bytes`. What could have many values
//! is no label: there is none by key, client or group.

use super::report::{CoreReport, GroupReport, NodeReport, STAGES, ShardReport, seconds, summed};
use super::status::word_of;
use crate::command;
use flotilla_runtime::Histogram;
use flotilla_runtime::vitals::BUCKETS;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// The page that `/metrics` is.
#[derive(Default)]
struct Page {
    text: String,
}

/// Name, kind, help, and what a core has of it.
type Family = (&'static str, &'static str, &'static str, fn(&CoreReport) -> u64);

/// A label's name and its value.
type Label<'a> = (&'a str, &'a dyn Display);

impl Page {
    /// A family begins.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes everything");
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(&value.to_string())))
            .collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    /// A family of one sample.
    fn single(&mut self, name: &'static str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A family with a sample for each core.
    fn by_core<V: Display>(
        &mut self,
        (name, kind, help): (&'static str, &str, &str),
        cores: &[CoreReport],
        value: impl Fn(&CoreReport) -> V,
    ) {
        self.family(name, kind, help);
        for core in cores {
            self.sample(name, &[("core", &core.core)], value(core));
        }
    }

    /// Families of whole numbers, each with a sample for each core.
    fn families(&mut self, cores: &[CoreReport], families: &[Family]) {
        for (name, kind, help, value) in families {
            self.by_core((name, kind, help), cores, value);
        }
    }

    /// The samples of a histogram, `labels` before its own.
    fn histogram(&mut self, name: &str, labels: &[Label<'_>], histogram: &Histogram) {
        let (bucket, mut so_far) = (format!("{name}_bucket"), 0);
        for (at, count) in histogram.counts().iter().enumerate().take(BUCKETS) {
            so_far += count;
            let bound = Histogram::bound_nanos(at)
                .map_or_else(|| "+Inf".to_owned(), |nanos| seconds(nanos).to_string());
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), so_far);
        }
        self.sample(&format!("{name}_sum"), labels, seconds(histogram.sum_nanos()));
        self.sample(&format!("{name}_count"), labels, so_far);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const HISTOGRAM: &str = "histogram";

/// The whole page.
pub fn render(node: &NodeReport) -> String {
    let mut page = Page::default();
    about_the_node(&mut page, node);
    clients(&mut page, &node.cores);
    commands(&mut page, &node.cores);
    cores(&mut page, &node.cores);
    log(&mut page, &node.cores);
    snapshots(&mut page, &node.cores);
    raft(&mut page, node);
    data(&mut page, node);
    others(&mut page, &node.cores);
    page.text
}

fn about_the_node(page: &mut Page, node: &NodeReport) {
    page.family("flotilla_build_info", GAUGE, "Always 1; the version is its label.");
    page.sample("flotilla_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    page.family("flotilla_node_info", GAUGE, "Always 1; node and cluster are its labels.");
    page.sample("flotilla_node_info", &[("cluster", &node.cluster), ("node", &node.node)], 1);
    let uptime = seconds(node.uptime_nanos());
    page.single("flotilla_uptime_seconds", GAUGE, "Since the node was started.", uptime);
    let behind = node.cores.iter().map(|core| core.clock_behind_ms).max().unwrap_or(0);
    let help = "How far the node's clock is behind the latest time in the log.";
    page.single("flotilla_clock_behind_seconds", GAUGE, help, seconds(behind * 1_000_000));
    let ready = u8::from(node.why_not_ready().is_empty());
    page.single("flotilla_ready", GAUGE, "1 if the node serves, as /readyz says.", ready);
    page.family("flotilla_core_up", GAUGE, "1 if the core answered, 0 if it didn't in time.");
    for core in &node.cores {
        page.sample("flotilla_core_up", &[("core", &core.core)], 1);
    }
    for core in &node.silent {
        page.sample("flotilla_core_up", &[("core", core)], 0);
    }
    let process = &node.process;
    let cpu = process.cpu_seconds();
    page.single("process_cpu_seconds_total", COUNTER, "CPU time of user and system.", cpu);
    page.single("process_resident_memory_bytes", GAUGE, "Memory in use.", process.resident_bytes);
    page.single("process_virtual_memory_bytes", GAUGE, "Address space.", process.virtual_bytes);
    page.single("process_open_fds", GAUGE, "Open files and sockets.", process.open_files);
    page.single("process_max_fds", GAUGE, "How many there may be.", process.open_files_max);
    page.single("process_threads", GAUGE, "Threads.", process.threads);
    let started = process.started_unix_seconds;
    page.single("process_start_time_seconds", GAUGE, "When the process was started, since 1970.", started);
}

fn clients(page: &mut Page, cores: &[CoreReport]) {
    const REFUSED: &str = "Clients turned away, since there were limits.connections_max.";
    const CUT_OFF: &str =
        "Clients cut off, since they didn't read their replies or sent no end of a command.";
    const TLS: &str = "Connections under TLS, of clients and nodes, that didn't come about.";
    const IN: &str = "Bytes from clients, without what TLS adds.";
    const OUT: &str = "Bytes to clients, without what TLS adds.";
    page.families(
        cores,
        &[
            ("flotilla_connections", GAUGE, "Clients.", |it| it.connections),
            ("flotilla_connections_opened_total", COUNTER, "Clients so far.", |it| it.connections_opened),
            ("flotilla_connections_refused_total", COUNTER, REFUSED, |it| it.connections_refused),
            ("flotilla_connections_cut_off_total", COUNTER, CUT_OFF, |it| it.connections_cut_off),
            ("flotilla_tls_failures_total", COUNTER, TLS, |it| it.tls_failures),
            ("flotilla_client_received_bytes_total", COUNTER, IN, |it| it.client_bytes_in),
            ("flotilla_client_sent_bytes_total", COUNTER, OUT, |it| it.client_bytes_out),
        ],
    );
}

fn commands(page: &mut Page, cores: &[CoreReport]) {
    page.family(
        "flotilla_commands_total",
        COUNTER,
        "Commands of clients, by name; those never used are left out.",
    );
    for (place, spec) in command::all().iter().enumerate() {
        let count: u64 = cores.iter().filter_map(|core| core.commands.get(place)).sum();
        if count > 0 {
            page.sample("flotilla_commands_total", &[("command", &spec.name)], count);
        }
    }
    page.family(
        "flotilla_command_errors_total",
        COUNTER,
        "Errors that clients were told, by their first word.",
    );
    let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
    for (error, count) in cores.iter().flat_map(|core| &core.errors) {
        *errors.entry(error).or_default() += count;
    }
    for (error, count) in errors {
        page.sample("flotilla_command_errors_total", &[("error", &error)], count);
    }
    let help = "From a command's arrival to its reply, of those that can't be answered on the spot.";
    page.family("flotilla_command_seconds", HISTOGRAM, help);
    for (place, class) in ["read", "write"].iter().enumerate() {
        let times = summed(cores.iter().map(|core| &core.command_times[place]));
        page.histogram("flotilla_command_seconds", &[("class", class)], &times);
    }
    const REFUSED: &str = "Writes refused with BUSY: see limits.write_wait_ms_max.";
    page.families(
        cores,
        &[
            ("flotilla_commands_waiting", GAUGE, "Commands whose replies are due.", |it| it.waiting),
            ("flotilla_writes_refused_total", COUNTER, REFUSED, |it| it.writes_refused),
        ],
    );
    let help = "What a write waits for, and what is done for it.";
    page.family("flotilla_stage_seconds", HISTOGRAM, help);
    for (place, stage) in STAGES.iter().enumerate() {
        let times = summed(cores.iter().map(|core| &core.stages[place]));
        page.histogram("flotilla_stage_seconds", &[("stage", stage)], &times);
    }
}

fn cores(page: &mut Page, cores: &[CoreReport]) {
    let help = "Time that the core worked, rather than waited.";
    page.by_core(("flotilla_core_busy_seconds_total", COUNTER, help), cores, |it| {
        seconds(it.turns.sum_nanos())
    });
    page.family("flotilla_core_turn_seconds", HISTOGRAM, "How long cores worked between two waits.");
    page.histogram("flotilla_core_turn_seconds", &[], &summed(cores.iter().map(|core| &core.turns)));
    let help = "Tasks that held their core for more than 5 ms.";
    page.by_core(("flotilla_core_stalls_total", COUNTER, help), cores, |it| it.stalls);
}

fn log(page: &mut Page, cores: &[CoreReport]) {
    const BYTES: &str = "Bytes written, the padding to whole blocks included.";
    const SEGMENTS: &str = "Segments of the log whose content is needed.";
    const ROOM: &str = "1 while writes are refused, since there is no room for another segment.";
    page.families(
        cores,
        &[
            ("flotilla_log_frames_total", COUNTER, "Frames written.", |it| it.log.frames),
            ("flotilla_log_records_total", COUNTER, "Records in them.", |it| it.log.records),
            ("flotilla_log_written_bytes_total", COUNTER, BYTES, |it| it.log.bytes),
            ("flotilla_log_syncs_total", COUNTER, "Group commits, each with a sync.", |it| it.log.commits),
            ("flotilla_log_segments", GAUGE, SEGMENTS, |it| it.segments),
            ("flotilla_log_waiting_bytes", GAUGE, "Bytes of records that wait for the disk.", |it| {
                it.log_waiting_bytes
            }),
            ("flotilla_log_out_of_room", GAUGE, ROOM, |it| u64::from(it.is_out_of_room)),
        ],
    );
    page.family("flotilla_log_sync_seconds", HISTOGRAM, "How long a group commit took: writes and sync.");
    page.histogram("flotilla_log_sync_seconds", &[], &summed(cores.iter().map(|core| &core.commit_times)));
}

fn snapshots(page: &mut Page, cores: &[CoreReport]) {
    const GIVEN_UP: &str = "Snapshots begun and given up, for an error of the disk or no room on it.";
    page.families(
        cores,
        &[
            ("flotilla_snapshots_total", COUNTER, "Snapshots taken of groups.", |it| it.snapshots.taken),
            ("flotilla_snapshots_given_up_total", COUNTER, GIVEN_UP, |it| it.snapshots.given_up),
            ("flotilla_snapshot_written_bytes_total", COUNTER, "Bytes of snapshots taken.", |it| {
                it.snapshots.bytes
            }),
            ("flotilla_snapshot_last_bytes", GAUGE, "Bytes of the last of them.", |it| {
                it.snapshots.last_bytes
            }),
        ],
    );
    let help = "From the begin of the last of them until it was durable under its name.";
    page.by_core(("flotilla_snapshot_last_seconds", GAUGE, help), cores, |it| {
        seconds(it.snapshots.last_nanos)
    });
}

fn raft(page: &mut Page, node: &NodeReport) {
    let cores = &node.cores;
    page.family("flotilla_raft_groups", GAUGE, "Replicas, by what they are.");
    for core in cores {
        for role in ["leader", "follower", "candidate", "repairing", "outside"] {
            let count = core.groups.iter().filter(|group| group.role == role).count();
            page.sample("flotilla_raft_groups", &[("core", &core.core), ("role", &role)], count);
        }
    }
    let leaderless = node.groups().filter(|(_, it)| it.leader.is_none() && it.role != "outside").count();
    let help = "Replicas here that know no leader.";
    page.single("flotilla_raft_groups_without_leader", GAUGE, help, leaderless);
    fn sum(core: &CoreReport, of: impl Fn(&GroupReport) -> u64) -> u64 {
        core.groups.iter().map(of).sum()
    }
    const ELECTIONS: &str = "Times that replicas here asked for votes.";
    const CHANGES: &str = "Leaderships that began or ended here.";
    const PROPOSALS: &str = "Entries proposed here for clients.";
    const APPLIED: &str = "Committed entries that were applied here.";
    const UNCOMMITTED: &str = "Entries of groups led here that aren't committed yet.";
    page.families(
        cores,
        &[
            ("flotilla_raft_elections_total", COUNTER, ELECTIONS, |it| sum(it, |group| group.elections)),
            ("flotilla_raft_leader_changes_total", COUNTER, CHANGES, |it| it.leader_changes),
            ("flotilla_raft_proposals_total", COUNTER, PROPOSALS, |it| it.proposals),
            ("flotilla_raft_applied_entries_total", COUNTER, APPLIED, |it| it.applied),
            ("flotilla_raft_uncommitted_entries", GAUGE, UNCOMMITTED, |it| {
                let uncommitted = |group: &GroupReport| group.last.saturating_sub(group.commit);
                sum(it, |group| if group.role == "leader" { uncommitted(group) } else { 0 })
            }),
            ("flotilla_raft_log_bytes", GAUGE, "Bytes of entries in memory.", |it| {
                sum(it, |group| group.log_bytes)
            }),
        ],
    );
    let help = "Of groups led here: the most entries that the node isn't known to have yet in one of them.";
    page.family("flotilla_raft_replication_lag_entries", GAUGE, help);
    let mut lags: BTreeMap<u32, u64> = BTreeMap::new();
    for (_, group) in node.groups() {
        for other in &group.others {
            let Some(matched) = other.matched else { continue };
            let lag = lags.entry(other.node).or_default();
            *lag = (*lag).max(group.last.saturating_sub(matched));
        }
    }
    for (peer, lag) in lags {
        page.sample("flotilla_raft_replication_lag_entries", &[("peer", &peer)], lag);
    }
}

fn data(page: &mut Page, node: &NodeReport) {
    let cores = &node.cores;
    fn shards(core: &CoreReport) -> impl Iterator<Item = &ShardReport> {
        core.groups.iter().flat_map(|group| &group.shards)
    }
    let help = "Keys in replicas here.";
    page.by_core(("flotilla_keys", GAUGE, help), cores, |it| shards(it).map(|shard| shard.keys).sum::<u64>());
    let help = "Bytes of keys and values in replicas here.";
    page.by_core(("flotilla_data_bytes", GAUGE, help), cores, |it| {
        shards(it).map(|shard| shard.bytes).sum::<u64>()
    });
    page.family("flotilla_shards", GAUGE, "Shards in replicas here, by how they stand.");
    for core in cores {
        for state in ["serving", "copying", "leaving", "arriving"] {
            let is_it = |shard: &&ShardReport| state == word_of(shard.standing);
            page.sample(
                "flotilla_shards",
                &[("core", &core.core), ("state", &state)],
                shards(core).filter(is_it).count(),
            );
        }
    }
    let help = "Shards that aren't yet where the newest configuration known here says.";
    page.single("flotilla_shards_misplaced", GAUGE, help, node.misplaced().count());
    page.single(
        "flotilla_configuration",
        GAUGE,
        "The number of that configuration.",
        node.configuration.number,
    );
    let moved = |it: &CoreReport| it.groups.iter().map(|group| group.moved_in).sum::<u64>();
    page.by_core(
        ("flotilla_shards_moved_in_total", COUNTER, "Shards that came from other groups."),
        cores,
        moved,
    );
    let moved = |it: &CoreReport| it.groups.iter().map(|group| group.moved_bytes).sum::<u64>();
    page.by_core(("flotilla_shards_moved_in_bytes_total", COUNTER, "Bytes of those."), cores, moved);
}

fn others(page: &mut Page, cores: &[CoreReport]) {
    let mut links: BTreeMap<u32, [u64; 2]> = BTreeMap::new();
    for (peer, it) in cores.iter().flat_map(|core| &core.links) {
        let sum = links.entry(*peer).or_default();
        *sum = [sum[0] + it.up, sum[1] + it.all];
    }
    let help = "The lowest version of the nodes' protocol that is spoken with the node.";
    page.family("flotilla_peer_protocol_version", GAUGE, help);
    let mut versions: BTreeMap<u32, u16> = BTreeMap::new();
    for (peer, version) in
        cores.iter().flat_map(|core| &core.links).filter_map(|(peer, it)| Some((peer, it.version?)))
    {
        versions.entry(*peer).and_modify(|lowest| *lowest = version.min(*lowest)).or_insert(version);
    }
    for (peer, version) in versions {
        page.sample("flotilla_peer_protocol_version", &[("peer", &peer)], version);
    }
    for (place, name, help) in [
        (0, "flotilla_peer_links_up", "Links to the node's cores that stand."),
        (1, "flotilla_peer_links", "Links to the node's cores that should stand."),
    ] {
        page.family(name, GAUGE, help);
        for (peer, sums) in &links {
            page.sample(name, &[("peer", peer)], sums[place]);
        }
    }
    for (place, name, help) in [
        (0, "flotilla_peer_sent_frames_total", "Frames sent to other nodes."),
        (1, "flotilla_peer_sent_bytes_total", "Their bytes."),
        (2, "flotilla_peer_dropped_frames_total", "Frames dropped: no link, or one that doesn't keep up."),
    ] {
        page.by_core((name, COUNTER, help), cores, |it| it.peer_out[place]);
    }
    for (place, name, help) in [
        (0, "flotilla_peer_received_frames_total", "Frames from other nodes."),
        (1, "flotilla_peer_received_bytes_total", "Their bytes."),
    ] {
        page.by_core((name, COUNTER, help), cores, |it| it.peer_in[place]);
    }
    for (place, name, help) in [
        (0, "flotilla_mesh_sent_messages_total", "Messages to other cores of the node."),
        (1, "flotilla_mesh_received_messages_total", "Messages from other cores of the node."),
        (2, "flotilla_mesh_full_total", "Messages that waited, since the ring was full."),
        (3, "flotilla_mesh_rings_total", "Sleeping cores that were woken."),
    ] {
        page.by_core((name, COUNTER, help), cores, |it| it.mesh[place]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative_and_labels_are_escaped() {
        let (mut page, mut histogram) = (Page::default(), Histogram::default());
        [100, 3000, 3000, u64::MAX >> 1].into_iter().for_each(|nanos| histogram.record(nanos));
        page.histogram("x_seconds", &[("a", &"b\"\\\n")], &histogram);
        let lines: Vec<&str> = page.text.lines().collect();
        assert_eq!(lines[0], r#"x_seconds_bucket{a="b\"\\\n",le="0.000001024"} 1"#);
        assert_eq!(lines[2], r#"x_seconds_bucket{a="b\"\\\n",le="0.000004096"} 3"#);
        assert_eq!(lines[BUCKETS - 1], r#"x_seconds_bucket{a="b\"\\\n",le="+Inf"} 4"#);
        assert_eq!(lines[BUCKETS + 1], r#"x_seconds_count{a="b\"\\\n"} 4"#);
    }
}
