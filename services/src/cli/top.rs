//! `flotilla top`: what the nodes' admin ports tell, in a terminal.

use super::words::{self, bytes};
use super::{Failure, interrupted};
use crate::admin::report::STAGES;
use crate::admin::status::{CoreStatus, GroupStatus, Status, Times};
use crate::hands::{Stopwatch, pause};
use clap::Args;
use flotilla_runtime::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// No page of a node is larger.
const PAGE_BYTES_MAX: u64 = 64 << 20;
/// Clears a terminal and goes to its corner.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";
/// Rows of groups, of moving shards and of jobs.
const ROWS_MAX: usize = 24;

/// Options of `flotilla top`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Admin ports to ask, as the nodes' `[admin] listen` has them.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:27000", value_delimiter = ',')]
    admin: Vec<String>,
    /// Show it once, and end: status 1 if a node doesn't answer.
    #[arg(long)]
    once: bool,
    /// As JSON: an object a look.
    #[arg(long)]
    json: bool,
    /// Seconds between two looks; rates are those of this time.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = seconds)]
    interval: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    words::seconds(text, 0.1..=3600.0)
}

/// What one node has said.
#[derive(Clone, Debug, Serialize)]
struct Node {
    admin: String,
    /// Why it said nothing.
    error: Option<String>,
    status: Option<Status>,
    /// Of the time since the look before; none at the first.
    rates: Option<Rates>,
    /// Median and 99th percentile of a write's stages since the node was started, in milliseconds.
    stages_ms: BTreeMap<String, [f64; 2]>,
}

/// What happened between two looks, a second.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Rates {
    commands: f64,
    errors: f64,
    syncs: f64,
    /// Of one CPU.
    cpu: f64,
    /// Median and 99th percentile, in milliseconds; none where nothing was read, or written.
    reads_ms: Option<[f64; 2]>,
    writes_ms: Option<[f64; 2]>,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let stop = interrupted()?;
    let mut before: Option<(Vec<Node>, Stopwatch)> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut nodes: Vec<Node> = options.admin.iter().map(|admin| look(admin)).collect();
        let clock = Stopwatch::start();
        let is_first = before.is_none();
        if let Some((then, since)) = &before {
            compare(then, &mut nodes, since.elapsed().as_secs_f64());
        }
        if !(is_first && options.once) {
            show(options, &nodes)?;
        }
        if options.once && !is_first {
            let silent = nodes.iter().find_map(|node| Some((&node.admin, node.error.as_ref()?)));
            return match silent {
                None => Ok(()),
                Some((admin, error)) => Err(Failure::Failed(format!("{admin} doesn't answer: {error}"))),
            };
        }
        before = Some((nodes, clock));
        let rest = Stopwatch::start();
        while rest.elapsed().as_secs_f64() < options.interval && !stop.load(Ordering::Relaxed) {
            pause(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn show(options: &Options, nodes: &[Node]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let text = match options.json {
        true => {
            let line = serde_json::json!({ "nodes": nodes });
            format!("{line}\n")
        }
        false => table(nodes),
    };
    let clear = if !options.json && !options.once && out.is_terminal() { CLEAR } else { "" };
    // Whoever reads it has gone.
    write!(out, "{clear}{text}").and_then(|()| out.flush()).map_err(|_| Failure::Failed(String::new()))
}

fn look(admin: &str) -> Node {
    let asked = get(admin, "/status").and_then(|text| {
        serde_json::from_str::<Status>(&text).map_err(|error| format!("its status makes no sense: {error}"))
    });
    let (status, error) = match asked {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error)),
    };
    let stages = status.iter().flat_map(|status| &status.stages);
    let since_start =
        |(stage, times): (&String, &Times)| Some((stage.clone(), quantiles(&[], &times.counts)?));
    let stages_ms = stages.filter_map(since_start).collect();
    Node { admin: admin.to_owned(), error, status, rates: None, stages_ms }
}

fn get(admin: &str, path: &str) -> Result<String, String> {
    let words = |error: std::io::Error| error.to_string();
    let address = admin.to_socket_addrs().map_err(words)?.next().ok_or("it has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(words)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(words)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {admin}\r\n\r\n").map_err(words)?;
    let mut answer = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer).map_err(words)?;
    let (head, text) = answer.split_once("\r\n\r\n").ok_or("what it says is no HTTP")?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(text.to_owned()),
        Some(status) => Err(format!("HTTP status {status}: {}", text.trim())),
        None => Err("what it says is no HTTP".to_owned()),
    }
}

fn compare(before: &[Node], nodes: &mut [Node], seconds: f64) {
    for (then, now) in before.iter().zip(nodes) {
        let (Some(then), Some(status)) = (&then.status, &now.status) else { continue };
        if status.uptime_seconds >= then.uptime_seconds {
            now.rates = Some(rates(then, status, seconds.max(1e-3)));
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of a second")]
fn rates(then: &Status, now: &Status, seconds: f64) -> Rates {
    let sum = |status: &Status, of: fn(&CoreStatus) -> u64| -> u64 { status.cores.iter().map(of).sum() };
    let each = |of| sum(now, of).saturating_sub(sum(then, of)) as f64 / seconds;
    Rates {
        commands: each(|core| core.commands_total),
        errors: each(|core| core.errors_total),
        syncs: each(|core| core.log_syncs_total),
        cpu: (now.cpu_seconds - then.cpu_seconds).max(0.0) / seconds,
        reads_ms: quantiles(&added(then, |core| &core.reads), &added(now, |core| &core.reads)),
        writes_ms: quantiles(&added(then, |core| &core.writes), &added(now, |core| &core.writes)),
    }
}

fn added(status: &Status, of: fn(&CoreStatus) -> &Times) -> Vec<u64> {
    let mut sum: Vec<u64> = Vec::new();
    for core in &status.cores {
        let counts = &of(core).counts;
        sum.resize(sum.len().max(counts.len()), 0);
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    sum
}

/// Median and 99th percentile of what was counted between the two, in milliseconds: the middle of a bucket, in proportion.
#[allow(clippy::cast_precision_loss, reason = "counts of a second")]
fn quantiles(then: &[u64], now: &[u64]) -> Option<[f64; 2]> {
    let before = then.iter().chain(std::iter::repeat(&0));
    let counts: Vec<u64> = now.iter().zip(before).map(|(now, then)| now.saturating_sub(*then)).collect();
    let all: u64 = counts.iter().sum();
    let at = |part: f64| {
        let mut left = all as f64 * part;
        for (bucket, count) in counts.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && left <= count {
                let low = bucket.checked_sub(1).and_then(Histogram::bound_nanos).unwrap_or(0) as f64;
                let high = Histogram::bound_nanos(bucket).map_or(2.0 * low, |high| high as f64);
                return (low + (high - low) * left / count) / 1e6;
            }
            left -= count;
        }
        0.0
    };
    (all > 0).then(|| [at(0.5), at(0.99)])
}

fn pair(ms: Option<[f64; 2]>) -> String {
    ms.map_or_else(|| "-".to_owned(), |[median, most]| format!("{median:.2}/{most:.2}"))
}

/// Columns as wide as what is in them.
fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row<const COUNT: usize>(words: [&str; COUNT]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn table(nodes: &[Node]) -> String {
    let answer: Vec<(&Node, &Status)> =
        nodes.iter().filter_map(|node| Some((node, node.status.as_ref()?))).collect();
    let newest = answer.iter().map(|(_, status)| *status).max_by_key(|status| status.configuration);
    let mut text = match newest {
        None => "flotilla top: nobody answers\n".to_owned(),
        Some(status) => format!(
            "flotilla top: cluster {}, {} of {} nodes asked answer, configuration {}\n",
            status.cluster,
            answer.len(),
            nodes.len(),
            status.configuration,
        ),
    };
    text.push('\n');
    text.push_str(&columns(&node_rows(nodes)));
    for (node, status) in &answer {
        if !status.ready {
            let _ = writeln!(text, "node {}: {}", status.node, status.reasons.join("; "));
        }
        if !node.stages_ms.is_empty() {
            let stages = STAGES.iter().filter_map(|stage| node.stages_ms.get_key_value(*stage));
            let shown: Vec<String> =
                stages.map(|(stage, ms)| format!("{stage} {}", pair(Some(*ms)))).collect();
            let _ = writeln!(
                text,
                "node {}: writes since its start waited, ms 50/99%: {}",
                status.node,
                shown.join(", ")
            );
        }
    }
    if let Some(status) = newest {
        text.push('\n');
        text.push_str(&columns(&group_rows(&answer)));
        for it in status.migrations.iter().take(ROWS_MAX) {
            let _ = writeln!(
                text,
                "shard {} from group {} to {}: {}, {}",
                it.shard,
                it.from,
                it.to,
                it.state,
                bytes(it.bytes)
            );
        }
        for it in status.jobs.iter().filter(|job| job.state == "running").take(ROWS_MAX) {
            let ((maps, all_maps), (reduces, all)) = (it.maps, it.reduces);
            let _ = writeln!(
                text,
                "{} {}: {maps} of {all_maps} map tasks, {reduces} of {all} reduce tasks",
                it.job, it.name
            );
        }
    }
    text
}

fn node_rows(nodes: &[Node]) -> Vec<Vec<String>> {
    let mut rows = vec![row([
        "NODE",
        "STATE",
        "UP",
        "CLIENTS",
        "CMD/S",
        "ERR/S",
        "READ ms 50/99%",
        "WRITE ms 50/99%",
        "SYNC/S",
        "CPU",
        "MEMORY",
        "KEYS",
        "DATA",
        "LED",
        "LINKS",
    ])];
    for node in nodes {
        let Some(status) = &node.status else {
            let error = node.error.clone().unwrap_or_default();
            rows.push(vec!["?".to_owned(), format!("{} doesn't answer: {error}", node.admin)]);
            continue;
        };
        let sum = |of: fn(&CoreStatus) -> u64| status.cores.iter().map(of).sum::<u64>();
        let rate = |of: fn(&Rates) -> f64| {
            node.rates.as_ref().map_or_else(|| "-".to_owned(), |rates| format!("{:.0}", of(rates)))
        };
        let links = status.nodes.iter().fold((0, 0), |(up, all), it| (up + it.links_up, all + it.links));
        rows.push(vec![
            status.node.to_string(),
            if status.draining {
                "stopping"
            } else if status.ready {
                "ready"
            } else {
                "NOT READY"
            }
            .to_owned(),
            format!("{:.0}s", status.uptime_seconds),
            sum(|core| core.connections).to_string(),
            rate(|rates| rates.commands),
            rate(|rates| rates.errors),
            pair(node.rates.as_ref().and_then(|rates| rates.reads_ms)),
            pair(node.rates.as_ref().and_then(|rates| rates.writes_ms)),
            rate(|rates| rates.syncs),
            node.rates.as_ref().map_or_else(|| "-".to_owned(), |rates| format!("{:.0}%", 100.0 * rates.cpu)),
            bytes(status.resident_bytes),
            sum(|core| core.keys).to_string(),
            bytes(sum(|core| core.data_bytes)),
            format!("{}/{}", sum(|core| core.led), sum(|core| core.groups)),
            format!("{}/{}", links.0, links.1),
        ]);
    }
    rows
}

/// The groups as their leaders tell of them; else as the first who has a replica does.
fn group_rows(answer: &[(&Node, &Status)]) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<(usize, &str), (&Status, &GroupStatus)> = BTreeMap::new();
    for (_, status) in answer {
        for group in &status.groups {
            let key = (group.group.len(), group.group.as_str());
            if group.role == "leader" || !groups.contains_key(&key) {
                groups.insert(key, (status, group));
            }
        }
    }
    let mut rows =
        vec![row(["GROUP", "LEADER", "TERM", "COMMITTED", "SHARDS", "KEYS", "DATA", "WAITING", "BEHIND"])];
    let more = groups.len().saturating_sub(ROWS_MAX);
    for (status, group) in groups.values().take(ROWS_MAX) {
        let behind = group
            .others
            .iter()
            .filter_map(|it| Some(format!("node {}: {}", it.node, it.lag.filter(|lag| *lag > 0)?)));
        let is_known = group.role == "leader";
        rows.push(vec![
            group.group.clone(),
            match group.leader {
                Some(node) if is_known => format!("node {node}"),
                Some(node) => format!("node {node}, says {}", status.node),
                None => "NONE".to_owned(),
            },
            group.term.to_string(),
            group.commit.to_string(),
            group.shards.to_string(),
            group.keys.to_string(),
            bytes(group.data_bytes),
            group.waiting.to_string(),
            behind.collect::<Vec<_>>().join(", "),
        ]);
    }
    if more > 0 {
        rows.push(vec![format!("and {more} more")]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        assert_eq!(quantiles(&[5, 5], &[5, 5]), None);
        let mut now = vec![5, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        now[9] = 100;
        let [median, most] = quantiles(&[5, 5], &now).unwrap();
        // Between 2^18 and 2^19 ns.
        assert!((0.262..0.525).contains(&median) && median < most && most < 0.525, "{median} {most}");
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [row(["a", "long one", "c"]), row(["longer", "b", ""])];
        assert_eq!(columns(&rows), "a       long one  c\nlonger  b\n");
    }
}
