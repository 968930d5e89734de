//! The figures of a layer: its loads, each on its targets.

use super::figures::{About, Figure, bar_figure, by_clients, by_percentile, numbers, over_rounds, short};
use super::plot::{AxisSpec, Scale};
use crate::compare::result::{Cell, ResultFile, Unit};
use crate::error::Result;
use crate::kv::outcome::Round;
use crate::report::{number, rate, time};

const IN_FLIGHT: AxisSpec =
    AxisSpec { label: "under way at once", scale: Scale::Fours, format: |it| format!("{it:.0}") };

/// Of a job: less written for each byte read isn't drawn.
const WRITTEN_MIN: f64 = 0.05;

/// Throughput and latencies of every load; how both sets of loads and CPU time scale; CPU time, memory and bytes written of each
/// set's largest load.
pub(super) fn of(result: &ResultFile) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for set in result.sets() {
        let all: Vec<&Cell> = result.cells.iter().filter(|cell| cell.set == set).collect();
        if numbers(&all, |cell| cell.load.clients).len() > 1 {
            figures.extend(scaling(result, set, &all)?);
        }
        let mut names: Vec<&str> = Vec::new();
        for cell in &all {
            if !names.contains(&&*cell.name) {
                names.push(&cell.name);
            }
        }
        for name in &names {
            let cells: Vec<&Cell> = all.iter().filter(|cell| cell.name == **name).copied().collect();
            figures.extend(throughput(result, &cells)?);
            let about = about(result, &cells, "latency by percentile", "");
            figures.extend(by_percentile(result, &cells, about.title, about.command)?);
            // The largest of a set, and each of those that have no size: MapReduce's are jobs.
            if names.last() == Some(name) || result.what == "mapreduce" {
                figures.extend(costs(result, &cells)?);
            }
        }
    }
    Ok(figures)
}

/// What is told of a figure of one load.
fn about(result: &ResultFile, cells: &[&Cell], what: &str, note: &'static str) -> About {
    let Some(cell) = cells.first() else {
        return About { title: what.to_owned(), note, command: result.command.clone() };
    };
    About { title: format!("{}: {what}", title(cell)), note, command: command(result, cell) }
}

fn throughput(result: &ResultFile, cells: &[&Cell]) -> Result<Option<Figure>> {
    let Some(first) = cells.first() else { return Ok(None) };
    let axis =
        AxisSpec { label: first.unit.per_second(), scale: Scale::Linear, format: |it| short(&rate(it)) };
    let note = match result.what.as_str() {
        "mapreduce" => "Input read in a second. The median of the rounds, and the interval that holds it.",
        _ => "The median of the rounds, and the interval that holds it.",
    };
    let about = about(result, cells, "throughput", note);
    let figure = bar_figure(result, cells, about, axis, |cell| {
        over_rounds(cell, |round| Some(round.operations_per_second))
    })?;
    let unknown = || "-".to_owned();
    let row = |cell: &&Cell| {
        let memory = cell.median_of(|round| round.memory_bytes.map(mebibytes));
        let values = over_rounds(cell, |round| Some(round.operations_per_second));
        vec![
            cell.target.clone(),
            cell.unit.rate(cell.median.operations_per_second),
            values.map_or_else(unknown, |(_, (low, high))| {
                format!("{} to {}", cell.unit.rate(low), cell.unit.rate(high))
            }),
            time(cell.median.latency(|it| it.p50)),
            time(cell.median.latency(|it| it.p99)),
            cell.cpu_us().map_or_else(unknown, time),
            memory.map_or_else(unknown, |it| format!("{it:.0} MiB")),
            cell.median_of(|round| round.written_per_byte).map_or_else(unknown, number),
        ]
    };
    let head = ["target", first.unit.per_second(), "interval", "p50", "p99", "cpu", "memory", "written/byte"];
    Ok(figure.map(|figure| Figure {
        head: head.map(str::to_owned).into(),
        rows: cells.iter().map(row).collect(),
        ..figure
    }))
}

/// What the set's loads come to with more and more under way.
fn scaling(result: &ResultFile, set: &str, cells: &[&Cell]) -> Result<Vec<Figure>> {
    let Some(first) = cells.first() else { return Ok(Vec::new()) };
    let speed = AxisSpec { label: first.unit.per_second(), scale: Scale::Log, format: speeds(first.unit) };
    let cpu = AxisSpec { label: "CPU time", scale: Scale::Log, format: |it| short(&time(it)) };
    let (name, note) = (set_title(&result.what, set), "Medians of the rounds.");
    let about = |what: String| {
        let title = format!("{name}: {what} by what is under way");
        About { title, note, command: command(result, first) }
    };
    let throughput = by_clients(result, cells, about("throughput".to_owned()), IN_FLIGHT, speed, |cell| {
        Some(cell.median.operations_per_second)
    })?;
    let one = format!("CPU time per {}", first.unit.one());
    let cpu = by_clients(result, cells, about(one), IN_FLIGHT, cpu, |cell| {
        // Less than a tick of its clock can't be drawn.
        cell.cpu_us().filter(|us| *us > 0.0)
    })?;
    Ok(throughput.into_iter().chain(cpu).collect())
}

/// How an axis tells throughput.
fn speeds(unit: Unit) -> fn(f64) -> String {
    match unit {
        Unit::Megabyte => |it| Unit::Megabyte.rate(it),
        _ => |it| short(&rate(it)),
    }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// CPU time, memory and bytes written.
fn costs(result: &ResultFile, cells: &[&Cell]) -> Result<Vec<Figure>> {
    let Some(first) = cells.first() else { return Ok(Vec::new()) };
    let (is_job, one) = (result.what == "mapreduce", first.unit.one());
    let cpu_axis =
        AxisSpec { label: "CPU time of all processes", scale: Scale::Linear, format: |it| short(&time(it)) };
    let cpu = bar_figure(
        result,
        cells,
        about(
            result,
            cells,
            &format!("CPU time per {one}"),
            "User and system time of all processes, from the start of what is measured to its end.",
        ),
        cpu_axis,
        |cell| over_rounds(cell, Round::cpu_us),
    )?;
    let memory_axis = AxisSpec {
        label: if is_job { "anonymous memory, at its highest" } else { "resident memory, at its highest" },
        scale: Scale::Linear,
        format: |it| format!("{it:.0} MiB"),
    };
    let memory_note = match is_job {
        true => "Of all processes together, looked at every 10 ms; the files that they read aren't in it.",
        false => "Of all processes of the load together.",
    };
    let memory =
        bar_figure(result, cells, about(result, cells, "memory", memory_note), memory_axis, |cell| {
            over_rounds(cell, |round| round.memory_bytes.map(mebibytes))
        })?;
    let (written_title, written_note) = match is_job {
        true => (
            "bytes written for each byte read",
            "What the kernel counted as written, temporary files included.",
        ),
        false if result.what == "wal" => {
            ("bytes written for each byte stored", "What the kernel counted as written while the load ran.")
        }
        false => {
            ("bytes written for each byte stored", "Of all logs together, so three copies are at least 3.")
        }
    };
    let written_axis =
        AxisSpec { label: "bytes written for each byte", scale: Scale::Linear, format: number };
    let about_written = about(result, cells, written_title, written_note);
    // A job that only counts writes next to nothing: there is nothing to see.
    let most =
        cells.iter().filter_map(|cell| cell.median_of(|round| round.written_per_byte)).fold(0.0, f64::max);
    if is_job && most < WRITTEN_MIN {
        return Ok(cpu.into_iter().chain(memory).collect());
    }
    let written = bar_figure(result, cells, about_written, written_axis, |cell| {
        over_rounds(cell, |round| round.written_per_byte)
    })?;
    Ok(cpu.into_iter().chain(memory).chain(written).collect())
}

/// The part of the layer's command that measures this alone.
fn command(result: &ResultFile, cell: &Cell) -> String {
    let only = match result.what.as_str() {
        "wal" if cell.set == "recovery" => &cell.set,
        "wal" => &cell.name,
        "raft" | "mapreduce" => &cell.set,
        what => return format!("flotilla-bench compare {what}"),
    };
    format!("flotilla-bench {} --only {only}", result.what)
}

fn set_title<'a>(what: &str, set: &'a str) -> &'a str {
    match (what, set) {
        ("wal", _) => "Entries of 256 B",
        ("raft", "core") => "In memory",
        ("raft", "durable") => "On disk",
        ("raft", "tcp") => "Three processes over TCP",
        ("runtime", _) => "Echo of 64 B",
        _ => set,
    }
}

/// A load for people.
pub(super) fn title(cell: &Cell) -> String {
    let (name, count) = (cell.name.as_str(), cell.load.clients);
    let known = match name {
        "append_4k" => "One appender, a block of 4 KiB",
        "appenders_64_256b" => "64 appenders of 256 B",
        "appenders_1024_256b" => "1024 appenders of 256 B",
        "appenders_1024_4k" => "1024 appenders of 4 KiB",
        "recovery" => "Opening a log",
        "recovery_10k_groups" => "Opening a log of ten thousand groups",
        "groups" => "A thousand groups beside one, 1024 in flight",
        "groups_full" => "A thousand groups beside one, 64 000 in flight",
        "wc" => "Word count",
        "index" => "Inverted index",
        "grep" => "grep, a literal",
        "grep_regex" => "grep, a regular expression",
        "sort" => "Sort",
        "books" => "Word count of a few books",
        "beside" => "4000 commands a second, half of them writes",
        "killed" => "Word count, one of two workers killed midway",
        "slow" => "Word count, one of four workers a tenth as fast",
        "one_way_awake" => "One message after the other, both awake",
        "one_way_parked" => "One message after the other, to one who sleeps",
        "throughput_batches" => "Messages of 64 B in batches of 64",
        "echo_1" => "Echo of 64 B, one after the other",
        "echo_64" => "Echo of 64 B, 64 at a time",
        _ if name.starts_with("core_") => return format!("In memory, {count} in flight"),
        _ if name.starts_with("durable_") => return format!("On disk, {count} in flight"),
        _ if name.starts_with("tcp_") => return format!("Three processes over TCP, {count} in flight"),
        other => return other.replace('_', " "),
    };
    known.to_owned()
}
