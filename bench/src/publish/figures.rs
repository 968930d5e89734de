//! What is plotted: each figure with the data and the command behind it.

use super::plot::{AxisSpec, COLOURS, Scale, Series, bars, lines};
use crate::compare::result::{Cell, ResultFile};
use crate::error::Result;
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

/// The colour of a system; the last one is everybody else's.
pub(super) fn colour(target: &str) -> usize {
    SYSTEMS.iter().position(|system| *system == target).unwrap_or(COLOURS - 1)
}

/// All figures of a comparison of key/value stores.
pub(super) fn of(result: &ResultFile) -> Result<Vec<Figure>> {
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
        figures.extend(curve(result, verb, "median", |cell| cell.median.latency_us.p50)?);
        figures.extend(curve(result, verb, "99th percentile", |cell| cell.median.latency_us.p99)?);
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
fn numbers(cells: &[&Cell], of: fn(&Cell) -> usize) -> Vec<usize> {
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
        Series { name: name.clone(), colour: colour(name), points }
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
    let series =
        series(result, &cells, |cell| vec![(cell.load.clients as f64, cell.median.operations_per_second)]);
    let Some(svg) = lines(CLIENTS, THROUGHPUT, &series, true)? else { return Ok(None) };
    let clients: Vec<String> =
        numbers(&cells, |cell| cell.load.clients).iter().map(ToString::to_string).collect();
    let pipelined = match pipeline {
        1 => String::new(),
        more => format!(", {more} in flight each"),
    };
    Ok(Some(Figure {
        title: format!("{verb}, {bytes} B{pipelined}: throughput by clients"),
        note: "Closed loop: every client waits for its replies. Medians of the rounds.".to_owned(),
        svg,
        legend: legend(&series),
        head: strings(&["target", "clients", "ops/s", "p50", "p99", "p99.9"]),
        rows: cells
            .iter()
            .map(|cell| {
                let latency = &cell.median.latency_us;
                vec![
                    cell.target.clone(),
                    cell.load.clients.to_string(),
                    rate(cell.median.operations_per_second),
                    time(latency.p50),
                    time(latency.p99),
                    time(latency.p99_9),
                ]
            })
            .collect(),
        command: grid_command(&clients.join(","), pipeline, bytes),
    }))
}

fn percentiles(result: &ResultFile, verb: &str, cells: &[&Cell], clients: usize) -> Result<Option<Figure>> {
    let bytes = cells.iter().map(|cell| cell.load.value_bytes).min().unwrap_or(0);
    let own = |cell: &&&Cell| {
        cell.load.clients == clients && cell.load.pipeline == 1 && cell.load.value_bytes == bytes
    };
    let cells: Vec<&Cell> = cells.iter().filter(own).copied().collect();
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
    let noun = if clients == 1 { "client" } else { "clients" };
    Ok(Some(Figure {
        title: format!("{verb}, {bytes} B, {clients} {noun}: latency by percentile"),
        note: "Closed loop, all rounds together; to the right are the slowest operations.".to_owned(),
        svg,
        legend: legend(&series),
        head: std::iter::once("target".to_owned()).chain(shown.map(percentile)).collect(),
        rows: cells.iter().map(row).collect(),
        command: grid_command(&clients.to_string(), 1, bytes),
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

/// A bar for each cell that has the figure.
fn bar_figure(
    result: &ResultFile,
    cells: &[&Cell],
    title: String,
    note: &str,
    axis: AxisSpec,
    value: impl Fn(&Cell) -> Option<f64>,
) -> Result<Option<Figure>> {
    let series = series(result, cells, |cell| value(cell).map(|value| (0.0, value)).into_iter().collect());
    let Some(svg) = bars(axis, &series)? else { return Ok(None) };
    let load = cells.first().map(|cell| (cell.load.clients, cell.load.pipeline, cell.load.value_bytes));
    let (clients, pipeline, bytes) = load.unwrap_or((64, 1, 64));
    let rows = series.iter().map(|each| vec![each.name.clone(), (axis.format)(each.points[0].1)]);
    Ok(Some(Figure {
        title,
        note: note.to_owned(),
        head: strings(&["target", axis.label]),
        rows: rows.collect(),
        legend: Vec::new(),
        svg,
        command: grid_command(&clients.to_string(), pipeline, bytes),
    }))
}

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
    let note =
        "User and system time, kernel threads that work for the servers included; of all nodes together.";
    bar_figure(result, &cells, title, note, axis, Cell::cpu_us)
}

fn written(result: &ResultFile, cells: &[&Cell]) -> Result<Option<Figure>> {
    let cells = usual(cells);
    let title = "Bytes written to disks for each byte stored".to_owned();
    let axis = AxisSpec { label: "bytes per byte of keys and values", scale: Scale::Linear, format: number };
    let note = "SET as above; of all nodes together, so three copies are at least 3. What the kernel counted as \
                written by the servers' processes, preparation of log segments included.";
    bar_figure(result, &cells, title, note, axis, |cell| cell.median_of(|round| round.written_per_byte))
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
    let figure = bar_figure(result, &cells, "Memory".to_owned(), note, axis, |cell| {
        let bytes = cell.rounds.last().and_then(|round| round.memory_bytes);
        bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))
    })?;
    Ok(figure.map(|figure| Figure { command: result.command.clone(), ..figure }))
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
            time(cell.median.latency_us.p50),
            time(cell.median.latency_us.p99),
            time(cell.median.latency_us.p99_9),
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
        let (axis, value): (_, fn(&Cell) -> Option<f64>) = match is_open {
            true => {
                let axis = AxisSpec {
                    label: "99th percentile of latency",
                    scale: Scale::Linear,
                    format: |it| short(&time(it)),
                };
                (axis, |cell| Some(cell.median.latency_us.p99))
            }
            false => {
                let axis = AxisSpec {
                    label: "operations per second",
                    scale: Scale::Linear,
                    format: |it| short(&rate(it)),
                };
                (axis, |cell| Some(cell.median.operations_per_second))
            }
        };
        let Some(figure) = bar_figure(result, &cells, title(name), about(name), axis, value)? else {
            continue;
        };
        let row = |cell: &&Cell| {
            vec![
                cell.target.clone(),
                rate(cell.median.operations_per_second),
                time(cell.median.latency_us.p50),
                time(cell.median.latency_us.p99),
                cell.cpu_us().map_or_else(|| "?".to_owned(), time),
            ]
        };
        figures.push(Figure {
            head: strings(&["target", "ops/s", "p50", "p99", "cpu/op"]),
            rows: cells.iter().map(row).collect(),
            command: format!("flotilla-bench compare kv --sets {set}"),
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
fn short(text: &str) -> String {
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
        let mut colours: Vec<usize> = SYSTEMS.iter().map(|system| colour(system)).collect();
        colours.dedup();
        assert_eq!(colours, (0..COLOURS - 1).collect::<Vec<_>>());
        assert_eq!(colour("anybody"), COLOURS - 1);
        let style = include_str!("style.css");
        for number in 0..COLOURS {
            let given = style.matches(&format!("--c{number}: #")).count();
            assert_eq!(given, 2, "colour {number} in light and in dark");
        }
    }
}
