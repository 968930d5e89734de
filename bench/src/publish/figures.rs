//! What is plotted: each figure with the data and the command behind it.

use super::layers;
use super::plot::{AxisSpec, COLOURS, Scale, Series, bars, lines};
use crate::compare::result::{Cell, ResultFile};
use crate::compare::stats::interval;
use crate::error::Result;
use crate::kv::outcome::Round;
use crate::recorder::median;
use crate::report::{number, rate, time};

/// One plot and what belongs to it.
pub(super) struct Figure {
    pub(super) title: String,
    pub(super) note: String,
    pub(super) svg: String,
    /// Colours and names; empty where the plot tells names itself.
    pub(super) legend: Vec<(usize, String)>,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    /// A command that measures this alone.
    pub(super) command: String,
}

const CLIENTS: AxisSpec =
    AxisSpec { label: "clients", scale: Scale::Fours, format: |clients| format!("{clients:.0}") };
const THROUGHPUT: AxisSpec =
    AxisSpec { label: "operations per second", scale: Scale::Log, format: |it| short(&rate(it)) };
const LATENCY: AxisSpec = AxisSpec { label: "latency", scale: Scale::Log, format: |it| short(&time(it)) };
const PERCENTILE: AxisSpec =
    AxisSpec { label: "percentile of operations", scale: Scale::Nines, format: percentile };

/// Colours belong to systems, whatever else is in the plot.
const SYSTEMS: [&str; COLOURS - 1] = [
    "flotilla",
    "etcd",
    "redis-none",
    "redis-everysec",
    "redis",
    "redis-wait",
    "flotilla-64-groups",
    "zookeeper",
];

/// The colour of a system; the last one is everybody else's. A layer's targets have theirs in their order.
fn colour(result: &ResultFile, target: &str) -> usize {
    let place = match result.what.as_str() {
        "kv" => SYSTEMS.iter().position(|system| *system == target),
        _ => result.targets.iter().position(|it| it.name == target),
    };
    place.unwrap_or(COLOURS).min(COLOURS - 1)
}

/// All figures of a comparison.
pub(super) fn of(result: &ResultFile) -> Result<Vec<Figure>> {
    if result.what != "kv" {
        return layers::of(result);
    }
    let mut figures = Vec::new();
    for (verb, reads) in [("SET", 0), ("GET", 100)] {
        let cells: Vec<&Cell> = closed(result).filter(|cell| cell.load.reads_percent == reads).collect();
        for (pipeline, bytes) in shapes(&cells) {
            figures.extend(scaling(result, verb, &cells, pipeline, bytes)?);
        }
        for clients in numbers(&cells, |cell| cell.load.clients) {
            figures.extend(percentiles(result, verb, &cells, clients)?);
        }
        figures.extend(cpu(result, verb, &cells)?);
        figures.extend(curve(result, verb, "median", |cell| cell.median.latency(|it| it.p50))?);
        figures.extend(curve(result, verb, "99th percentile", |cell| cell.median.latency(|it| it.p99))?);
        if reads == 0 {
            figures.extend(written(result, &cells)?);
        }
    }
    figures.extend(memory(result)?);
    figures.extend(named(result)?);
    Ok(figures)
}

fn closed(result: &ResultFile) -> impl Iterator<Item = &Cell> {
    result.cells.iter().filter(|cell| cell.set == "grid")
}

/// The numbers that occur, each once, in their order.
pub(super) fn numbers(cells: &[&Cell], of: fn(&Cell) -> usize) -> Vec<usize> {
    let mut all: Vec<usize> = cells.iter().map(|cell| of(cell)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn shapes(cells: &[&Cell]) -> Vec<(usize, usize)> {
    let bytes = numbers(cells, |cell| cell.load.value_bytes);
    let pipelines = numbers(cells, |cell| cell.load.pipeline);
    bytes.iter().flat_map(|bytes| pipelines.iter().map(|pipeline| (*pipeline, *bytes))).collect()
}

/// The cells' targets, in the order of the result.
fn series<'a>(
    result: &'a ResultFile,
    cells: &'a [&'a Cell],
    points: impl Fn(&'a Cell) -> Vec<(f64, f64)> + 'a,
) -> Vec<Series> {
    let of = |name: &String| {
        let own = cells.iter().copied().filter(|cell| cell.target == *name);
        let mut points: Vec<(f64, f64)> = own.flat_map(&points).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        Series { name: name.clone(), colour: colour(result, name), points, range: None }
    };
    let names = result.targets.iter().map(|target| &target.name);
    names.map(of).filter(|series| !series.points.is_empty()).collect()
}

fn legend(series: &[Series]) -> Vec<(usize, String)> {
    series.iter().map(|each| (each.colour, each.name.clone())).collect()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The load of a cell, for this tool's `kv` or for `compare`.
fn grid_command(clients: &str, pipeline: usize, bytes: usize) -> String {
    format!(
        "flotilla-bench compare kv --sets grid --clients {clients} --pipeline {pipeline} --value-bytes {bytes}"
    )
}

fn scaling(
    result: &ResultFile,
    verb: &str,
    cells: &[&Cell],
    pipeline: usize,
    bytes: usize,
) -> Result<Option<Figure>> {
    let own = |cell: &&&Cell| cell.load.pipeline == pipeline && cell.load.value_bytes == bytes;
    let cells: Vec<&Cell> = cells.iter().filter(own).copied().collect();
    let clients: Vec<String> =
        numbers(&cells, |cell| cell.load.clients).iter().map(ToString::to_string).collect();
    let pipelined = match pipeline {
        1 => String::new(),
        more => format!(", {more} in flight each"),
    };
    let about = About {
        title: format!("{verb}, {bytes} B{pipelined}: throughput by clients"),
        note: "Closed loop: every client waits for its replies. Medians of the rounds.",
        command: grid_command(&clients.join(","), pipeline, bytes),
    };
    by_clients(result, &cells, about, CLIENTS, THROUGHPUT, |cell| Some(cell.median.operations_per_second))
}

/// What is told of a figure.
pub(super) struct About {
    pub(super) title: String,
    pub(super) note: &'static str,
    pub(super) command: String,
}

/// A line for each target: a value over the number of clients, or of whatever is under way at once.
pub(super) fn by_clients(
    result: &ResultFile,
    cells: &[&Cell],
    about: About,
    clients: AxisSpec,
    axis: AxisSpec,
    value: impl Fn(&Cell) -> Option<f64>,
) -> Result<Option<Figure>> {
    let series = series(result, cells, |cell| {
        value(cell).map(|value| (cell.load.clients as f64, value)).into_iter().collect()
    });
    let Some(svg) = lines(clients, axis, &series, true)? else { return Ok(None) };
    let row = |cell: &&Cell| {
        let median = &cell.median;
        vec![
            cell.target.clone(),
            cell.load.clients.to_string(),
            rate(median.operations_per_second),
            time(median.latency(|it| it.p50)),
            time(median.latency(|it| it.p99)),
            time(median.latency(|it| it.p99_9)),
            cell.cpu_us().map_or_else(|| "-".to_owned(), time),
        ]
    };
    let unit = cells.first().map(|cell| cell.unit).unwrap_or_default();
    let cpu = format!("cpu/{}", unit.one());
    Ok(Some(Figure {
        title: about.title,
        note: about.note.to_owned(),
        svg,
        legend: legend(&series),
        head: strings(&["target", clients.label, unit.per_second(), "p50", "p99", "p99.9", &cpu]),
        rows: cells.iter().map(row).collect(),
        command: about.command,
    }))
}

fn percentiles(result: &ResultFile, verb: &str, cells: &[&Cell], clients: usize) -> Result<Option<Figure>> {
    let bytes = cells.iter().map(|cell| cell.load.value_bytes).min().unwrap_or(0);
    let own = |cell: &&&Cell| {
        cell.load.clients == clients && cell.load.pipeline == 1 && cell.load.value_bytes == bytes
    };
    let cells: Vec<&Cell> = cells.iter().filter(own).copied().collect();
    let noun = if clients == 1 { "client" } else { "clients" };
    let title = format!("{verb}, {bytes} B, {clients} {noun}: latency by percentile");
    by_percentile(result, &cells, title, grid_command(&clients.to_string(), 1, bytes))
}

/// A line for each target that has latencies.
pub(super) fn by_percentile(
    result: &ResultFile,
    cells: &[&Cell],
    title: String,
    command: String,
) -> Result<Option<Figure>> {
    let cells: Vec<&Cell> = cells.iter().filter(|cell| !cell.quantiles.is_empty()).copied().collect();
    let series = series(result, &cells, |cell| cell.quantiles.clone());
    let Some(svg) = lines(PERCENTILE, LATENCY, &series, false)? else { return Ok(None) };
    let shown = [0.5, 0.9, 0.99, 0.999, 0.9999];
    let row = |cell: &&Cell| {
        let at = |wanted: f64| {
            let found = cell.quantiles.iter().find(|(quantile, _)| *quantile >= wanted - 1e-6);
            found.map_or_else(|| "-".to_owned(), |(_, us)| time(*us))
        };
        std::iter::once(cell.target.clone()).chain(shown.map(at)).collect()
    };
    Ok(Some(Figure {
        title,
        note: "Closed loop, all rounds together; to the right are the slowest operations.".to_owned(),
        svg,
        legend: legend(&series),
        head: std::iter::once("target".to_owned()).chain(shown.map(percentile)).collect(),
        rows: cells.iter().map(row).collect(),
        command,
    }))
}

/// The cells with 64 clients, or the nearest below, one request in flight and the smallest value.
fn usual<'a>(cells: &[&'a Cell]) -> Vec<&'a Cell> {
    let clients = numbers(cells, |cell| cell.load.clients);
    let clients = clients.iter().rfind(|clients| **clients <= 64).or_else(|| clients.first()).copied();
    let bytes = cells.iter().map(|cell| cell.load.value_bytes).min();
    let own = |cell: &&&Cell| {
        Some(cell.load.clients) == clients && cell.load.pipeline == 1 && Some(cell.load.value_bytes) == bytes
    };
    cells.iter().filter(own).copied().collect()
}

/// A figure's median over the rounds, and the interval that holds it. None where not every round has it.
pub(super) fn over_rounds(cell: &Cell, figure: impl Fn(&Round) -> Option<f64>) -> Option<(f64, (f64, f64))> {
    let values: Vec<f64> = cell.rounds.iter().map(figure).collect::<Option<_>>()?;
    let value = median(values.iter().copied());
    value.is_finite().then(|| (value, interval(&values)))
}

/// A bar for each cell that has the figure: its value and interval.
pub(super) fn bar_figure(
    result: &ResultFile,
    cells: &[&Cell],
    about: About,
    axis: AxisSpec,
    value: impl Fn(&Cell) -> Option<(f64, (f64, f64))>,
) -> Result<Option<Figure>> {
    let of = |cell: &&Cell| {
        let (middle, range) = value(cell)?;
        let (name, colour) = (cell.target.clone(), colour(result, &cell.target));
        Some(Series { name, colour, points: vec![(0.0, middle)], range: Some(range) })
    };
    let place = |cell: &&Cell| result.targets.iter().position(|target| target.name == cell.target);
    let mut cells = cells.to_vec();
    cells.sort_by_key(place);
    let series: Vec<Series> = cells.iter().filter_map(of).collect();
    let Some(svg) = bars(axis, &series)? else { return Ok(None) };
    let row = |each: &Series| {
        let shown = |value: f64| (axis.format)(value);
        let interval = match each.range {
            Some((low, high)) if low < high => format!("{} to {}", shown(low), shown(high)),
            _ => "-".to_owned(),
        };
        vec![each.name.clone(), shown(each.points[0].1), interval]
    };
    Ok(Some(Figure {
        title: about.title,
        note: about.note.to_owned(),
        head: strings(&["target", axis.label, "interval"]),
        rows: series.iter().map(row).collect(),
        legend: Vec::new(),
        svg,
        command: about.command,
    }))
}

/// The load of these cells alone.
fn cells_command(cells: &[&Cell]) -> String {
    let load = cells.first().map(|cell| (cell.load.clients, cell.load.pipeline, cell.load.value_bytes));
    let (clients, pipeline, bytes) = load.unwrap_or((64, 1, 64));
    grid_command(&clients.to_string(), pipeline, bytes)
}

const CPU_NOTE: &str =
    "User and system time, kernel threads that work for the servers included; of all nodes together.";

fn cpu(result: &ResultFile, verb: &str, cells: &[&Cell]) -> Result<Option<Figure>> {
    let cells = usual(cells);
    let Some(first) = cells.first() else { return Ok(None) };
    let title =
        format!("{verb}, {} B, {} clients: CPU per operation", first.load.value_bytes, first.load.clients);
    let axis = AxisSpec {
        label: "CPU time of all server processes",
        scale: Scale::Linear,
        format: |it| short(&time(it)),
    };
    let about = About { title, note: CPU_NOTE, command: cells_command(&cells) };
    bar_figure(result, &cells, about, axis, |cell| over_rounds(cell, Round::cpu_us))
}

fn written(result: &ResultFile, cells: &[&Cell]) -> Result<Option<Figure>> {
    let cells = usual(cells);
    let title = "Bytes written to disks for each byte stored".to_owned();
    let axis = AxisSpec { label: "bytes per byte of keys and values", scale: Scale::Linear, format: number };
    let note = "SET as above; of all nodes together, so three copies are at least 3. What the kernel counted as \
                written by the servers' processes, preparation of log segments included.";
    let about = About { title, note, command: cells_command(&cells) };
    bar_figure(result, &cells, about, axis, |cell| over_rounds(cell, |round| round.written_per_byte))
}

fn memory(result: &ResultFile) -> Result<Option<Figure>> {
    // The last round of each target's last cell: everything has been written by then.
    let last = |name: &String| result.cells.iter().rfind(|cell| cell.target == *name);
    let cells: Vec<&Cell> = result.targets.iter().filter_map(|target| last(&target.name)).collect();
    let axis = AxisSpec {
        label: "resident memory of all server processes",
        scale: Scale::Linear,
        format: |mebibytes| format!("{mebibytes:.0} MiB"),
    };
    let note = "After the last load. etcd keeps its history of versions, the others don't; ZooKeeper's is its Java heap, collected or not.";
    let about = About { title: "Memory".to_owned(), note, command: result.command.clone() };
    bar_figure(result, &cells, about, axis, |cell| {
        let mebibytes = cell.rounds.last()?.memory_bytes? as f64 / f64::from(1 << 20);
        Some((mebibytes, (mebibytes, mebibytes)))
    })
}

fn curve(result: &ResultFile, verb: &str, which: &str, latency: fn(&Cell) -> f64) -> Result<Option<Figure>> {
    let reads = if verb == "GET" { 100 } else { 0 };
    let own =
        |cell: &&Cell| cell.set == "curves" && cell.load.rate.is_some() && cell.load.reads_percent == reads;
    let cells: Vec<&Cell> = result.cells.iter().filter(own).collect();
    let series = series(result, &cells, |cell| vec![(cell.median.operations_per_second, latency(cell))]);
    let Some(svg) = lines(THROUGHPUT, LATENCY, &series, true)? else { return Ok(None) };
    let rows = cells.iter().map(|cell| {
        vec![
            cell.target.clone(),
            cell.peak_share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share)),
            cell.load.rate.map_or_else(String::new, rate),
            rate(cell.median.operations_per_second),
            time(cell.median.latency(|it| it.p50)),
            time(cell.median.latency(|it| it.p99)),
            time(cell.median.latency(|it| it.p99_9)),
        ]
    });
    Ok(Some(Figure {
        title: format!("{verb}, open loop: {which} of latency by load"),
        note: "Requests arrive on a schedule, at fractions of each system's own peak, whether or not the earlier ones are \
               answered; a latency counts from when its request was due."
            .to_owned(),
        svg,
        legend: legend(&series),
        head: strings(&["target", "of its peak", "asked for", "answered", "p50", "p99", "p99.9"]),
        rows: rows.collect(),
        command: "flotilla-bench compare kv --sets curves".to_owned(),
    }))
}

/// Loads that have names: a bar each.
fn named(result: &ResultFile) -> Result<Vec<Figure>> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for cell in result.cells.iter().filter(|cell| !matches!(cell.set.as_str(), "grid" | "curves")) {
        if !names.contains(&(cell.set.as_str(), cell.name.as_str())) {
            names.push((&cell.set, &cell.name));
        }
    }
    let mut figures = Vec::new();
    for (set, name) in names {
        let cells: Vec<&Cell> = result.cells.iter().filter(|cell| cell.name == name).collect();
        let is_open = cells.iter().any(|cell| cell.load.rate.is_some());
        let (axis, value): (_, fn(&Round) -> Option<f64>) = match is_open {
            true => {
                let axis = AxisSpec {
                    label: "99th percentile of latency",
                    scale: Scale::Linear,
                    format: |it| short(&time(it)),
                };
                (axis, |round| Some(round.latency(|it| it.p99)))
            }
            false => {
                let axis = AxisSpec {
                    label: "operations per second",
                    scale: Scale::Linear,
                    format: |it| short(&rate(it)),
                };
                (axis, |round| Some(round.operations_per_second))
            }
        };
        let command = format!("flotilla-bench compare kv --sets {set}");
        let told = About { title: title(name), note: about(name), command };
        let Some(figure) = bar_figure(result, &cells, told, axis, |cell| over_rounds(cell, value))? else {
            continue;
        };
        let row = |cell: &&Cell| {
            vec![
                cell.target.clone(),
                rate(cell.median.operations_per_second),
                time(cell.median.latency(|it| it.p50)),
                time(cell.median.latency(|it| it.p99)),
                cell.cpu_us().map_or_else(|| "?".to_owned(), time),
            ]
        };
        figures.push(Figure {
            head: strings(&["target", "ops/s", "p50", "p99", "cpu/op"]),
            rows: cells.iter().map(row).collect(),
            ..figure
        });
    }
    Ok(figures)
}

fn title(name: &str) -> String {
    let known = match name {
        "memtier" => "memtier's default mix",
        "memtier_gaussian_p16" => "memtier's mix, Gaussian, 16 in flight each",
        "hot_keys_set" => "Hot keys: SET, Zipfian",
        "hot_keys_get" => "Hot keys: GET, Zipfian",
        "large_set_64k" => "Large values: SET, 64 KiB, 16 clients",
        "large_get_64k" => "Large values: GET, 64 KiB, 16 clients",
        "large_set_1m" => "Large values: SET, 1 MiB, 4 clients",
        "large_get_1m" => "Large values: GET, 1 MiB, 4 clients",
        "burst_peak" => "The peak that bursts are measured by: SET, 64 clients",
        "bursts_at_25" => "Bursts of SETs",
        other => return other.to_uppercase().replace('_', " "),
    };
    known.to_owned()
}

fn about(name: &str) -> &'static str {
    match name {
        "ycsb_a" => "Half reads, half updates; Zipfian.",
        "ycsb_b" => "95 % reads, 5 % updates; Zipfian.",
        "ycsb_c" => "Reads only; Zipfian.",
        "ycsb_d" => "95 % reads of what is newest, 5 % inserts.",
        "ycsb_e" => "95 % scans of 1 to 100 keys, 5 % inserts. Redis and ZooKeeper can't scan by key.",
        "ycsb_f" => "Half reads; half read, modify and write, which counts once.",
        "memtier" => "One SET to ten GETs, 32 B, as memtier_benchmark does by default.",
        "memtier_gaussian_p16" => "The same with a Gaussian pattern of keys and 16 in flight each.",
        "large_set_1m" | "large_get_1m" => {
            "Closed loop. Medians of the rounds. ZooKeeper isn't made for values of this size."
        }
        "bursts_at_25" => {
            "Open loop: a quarter of the system's own peak on average, all of it in a tenth of the time."
        }
        _ => "Closed loop. Medians of the rounds.",
    }
}

/// `10 ms` of `10.00 ms`: ticks are round numbers.
pub(super) fn short(text: &str) -> String {
    let unit = text.trim_start_matches(|it: char| it.is_ascii_digit() || it == '.');
    let digits = &text[..text.len() - unit.len()];
    match digits.contains('.') {
        true => format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.')),
        false => text.to_owned(),
    }
}

/// `p99.9` of 0.999, without what floating point adds.
fn percentile(quantile: f64) -> String {
    let percent = format!("{:.4}", 100.0 * quantile);
    format!("p{}", percent.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::result::tests::{cell, result};

    #[test]
    fn percentiles_have_their_usual_names() {
        assert_eq!([0.5, 0.9, 0.999, 0.99999].map(percentile), ["p50", "p90", "p99.9", "p99.999"]);
    }

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            ["10.00 ms", "500 us", "2.50M", "100", "20.0k"].map(short),
            ["10 ms", "500 us", "2.5M", "100", "20k"]
        );
    }

    #[test]
    fn every_system_has_a_colour_of_its_own() {
        let mut kv = result(SYSTEMS.map(|system| cell("set", system, &[1.0])).into());
        let mut colours: Vec<usize> = SYSTEMS.iter().map(|system| colour(&kv, system)).collect();
        colours.dedup();
        assert_eq!(colours, (0..COLOURS - 1).collect::<Vec<_>>());
        assert_eq!(colour(&kv, "anybody"), COLOURS - 1);
        kv.what = "wal".to_owned();
        kv.targets.remove(1);
        assert_eq!(colour(&kv, SYSTEMS[2]), 1, "a layer's targets have other names, and their place");
        let style = include_str!("style.css");
        for number in 0..COLOURS {
            let given = style.matches(&format!("--c{number}: #")).count();
            assert_eq!(given, 2, "colour {number} in light and in dark");
        }
    }
}
