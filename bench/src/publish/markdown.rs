//! The README's tables, from the same results as the page.

use super::layers::title;
use super::page::{date, floors, heading};
use crate::compare::result::{Cell, Compared, ResultFile, TargetInfo, Unit};
use crate::report::{number, rate, time};

/// The end of a table in a document.
const END: &str = "<!-- end of numbers -->";

/// The beginning of a table in a document.
pub(super) fn mark(what: &str) -> String {
    format!("<!-- numbers: compare {what} -->")
}

/// All results, each with its heading.
pub(super) fn text(results: &[ResultFile]) -> String {
    let one = |result: &ResultFile| format!("### {}\n\n{}", heading(result), of(result, Extent::Whole));
    results.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// `document` with what is between its marks replaced, and how many results found theirs.
pub(super) fn fill(document: &str, results: &[ResultFile]) -> (String, usize) {
    let (mut text, mut filled) = (document.to_owned(), 0);
    let mut whats: Vec<&str> = results.iter().map(|result| result.what.as_str()).collect();
    whats.dedup();
    for what in whats {
        let mark = mark(what);
        let Some(from) = text.find(&mark).map(|at| at + mark.len()) else { continue };
        let Some(to) = text[from..].find(END).map(|at| at + from) else { continue };
        let own = results.iter().filter(|result| result.what == what);
        let tables: Vec<String> = own.map(|result| of(result, Extent::Brief)).collect();
        text.replace_range(from..to, &format!("\n{}", tables.join("\n")));
        filled += 1;
    }
    (text, filled)
}

/// How much of a result is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// All of it.
    Whole,
    /// In a document that links to the method: without curves, ratios, and what a reply means.
    Brief,
}

fn of(result: &ResultFile, extent: Extent) -> String {
    let mut out = String::new();
    if !result.noise.marks.is_empty() {
        out.push_str(&format!(
            "**A noisy run, whose numbers say little:** {}.\n\n",
            result.noise.marks.join("; ")
        ));
    }
    if !result.cells.is_empty() {
        out.push_str(&cells(result, extent));
        out.push('\n');
    }
    out.push_str(&goals(result));
    let machine = &result.machine;
    let virtualized = if machine.virtualized { " (virtual)" } else { "" };
    out.push_str(&format!(
        "\n{}{} of `{}`: {} CPUs{virtualized}, {}, kernel {}, {}; {}. Floors: {}.\n",
        turns(result),
        date(result.unix_seconds),
        result.command,
        machine.cpus,
        machine.cpu,
        machine.kernel,
        machine.filesystem,
        versions(result),
        floors(result),
    ));
    out
}

/// How long a key/value store was looked at, and that a closed loop's latencies are what they are.
fn turns(result: &ResultFile) -> String {
    let times = result.cells.iter().map(|cell| (cell.load.seconds, cell.load.warmup_seconds));
    let Some((seconds, warmup)) = times.min_by(|one, other| one.0.total_cmp(&other.0)) else {
        return String::new();
    };
    if result.what != "kv" {
        return String::new();
    }
    let rounds = result.cells.iter().map(|cell| cell.rounds.len()).max().unwrap_or(0);
    format!(
        "Closed loops: a client waits for its replies, and its latencies count from when it asked. Every cell {} s in each of {rounds} rounds, behind {} s \
         that aren't measured; four times as long, or sixteen, where fewer requests were answered than are under way.\n\n",
        number(seconds),
        number(warmup),
    )
}

fn versions(result: &ResultFile) -> String {
    let named = result.targets.iter().filter(|it| !it.version.is_empty()).map(TargetInfo::title);
    let all: Vec<String> = named.collect();
    if all.is_empty() { "versions as the peers' scripts pin them".to_owned() } else { all.join(", ") }
}

/// A row for each load, a column for each system; then a row for each system's CPU, memory and bytes written.
fn cells(result: &ResultFile, extent: Extent) -> String {
    let targets: Vec<&String> = result.targets.iter().map(|target| &target.name).collect();
    let column = |name: &&String| {
        // What a layer's load runs as, its row says.
        if result.what != "kv" {
            return (*name).clone();
        }
        let nodes = result.targets.iter().find(|target| target.name == **name).map_or(0, |it| it.processes);
        let plural = if nodes == 1 { "" } else { "es" };
        format!("{name}, {nodes} process{plural}")
    };
    let head: Vec<String> = std::iter::once("load".to_owned()).chain(targets.iter().map(column)).collect();
    let mut names: Vec<&str> = Vec::new();
    for cell in &result.cells {
        let is_told = extent == Extent::Whole || cell.set != "curves";
        if is_told && !names.contains(&cell.name.as_str()) {
            names.push(&cell.name);
        }
    }
    let find = |name: &str, target: &str| {
        result.cells.iter().find(|cell| cell.name == name && cell.target == target)
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for name in &names {
        let Some(any) = result.cells.iter().find(|cell| cell.name == *name) else { continue };
        let cell = |target: &&String| find(name, target).map_or_else(|| "-".to_owned(), shown);
        rows.push(std::iter::once(load(any)).chain(targets.iter().map(cell)).collect());
    }
    for name in &names {
        let Some(any) = result.cells.iter().find(|cell| cell.name == *name) else { continue };
        if any.load.clients == 64 && any.load.pipeline == 1 && any.set == "grid" {
            let cpu = |target: &&String| {
                find(name, target).and_then(Cell::cpu_us).map_or_else(|| "-".to_owned(), time)
            };
            let title = format!("CPU per operation, all nodes: {}", load(any));
            rows.push(std::iter::once(title).chain(targets.iter().map(cpu)).collect());
            let written = |target: &&String| {
                let cell = find(name, target);
                let bytes = cell.and_then(|cell| cell.median_of(|round| round.written_per_byte));
                bytes.map_or_else(|| "-".to_owned(), number)
            };
            if any.load.reads_percent == 0 {
                let title = format!("bytes written per byte stored, all nodes: {}", load(any));
                rows.push(std::iter::once(title).chain(targets.iter().map(written)).collect());
            }
        }
    }
    if extent == Extent::Brief {
        return table(&head, &rows);
    }
    let means = if result.what == "kv" { "What a reply to a write means" } else { "What was measured" };
    let durabilities: Vec<String> =
        result.targets.iter().map(|target| format!("* {}: {}\n", target.name, target.durability)).collect();
    let ratios = ratios(result);
    format!("{}\n{means}:\n\n{}\n{ratios}", table(&head, &rows), durabilities.concat())
}

/// A load for people.
fn load(cell: &Cell) -> String {
    let load = &cell.load;
    if cell.set != "grid" && cell.set != "curves" {
        return title(cell);
    }
    let verb = if load.reads_percent == 100 { "GET" } else { "SET" };
    let clients = if load.clients == 1 { "1 client".to_owned() } else { format!("{} clients", load.clients) };
    let pipelined = match load.pipeline {
        1 => String::new(),
        more => format!(" × {more} pipelined"),
    };
    let open = match cell.peak_share {
        Some(share) => format!(", open loop at {:.0} % of its peak", 100.0 * share),
        None => String::new(),
    };
    format!("{verb} {} B, {clients}{pipelined}{open}", load.value_bytes)
}

fn shown(cell: &Cell) -> String {
    let remarks = cell.remarks();
    let star = if remarks.is_empty() { String::new() } else { format!(" ({remarks})") };
    let speed = match cell.unit {
        Unit::Operation => format!("{}/s", rate(cell.median.operations_per_second)),
        unit => format!("{} {}", unit.rate(cell.median.operations_per_second), unit.per_second()),
    };
    let latency = match &cell.median.latency_us {
        Some(latency) => format!(", p50 {}, p99 {}", time(latency.p50), time(latency.p99)),
        None => String::new(),
    };
    format!("{speed}{latency}{star}")
}

/// Throughput over that of each other system.
fn ratios(result: &ResultFile) -> String {
    let own = result.ratios.iter().filter(|it| it.figure == "throughput");
    let rows = own.map(|it: &Compared| {
        let name = result.cells.iter().find(|cell| cell.name == it.cell).map_or_else(String::new, load);
        vec![name, it.against.clone(), number(it.value), it.interval()]
    });
    let head = ["load", "Flotilla's throughput over that of", "ratio", "interval"].map(str::to_owned);
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() { String::new() } else { table(&head, &rows) }
}

fn goals(result: &ResultFile) -> String {
    let rows = result.ratios.iter().filter(|it| it.cell.is_empty()).map(|it| {
        let goal = it.goal.clone().unwrap_or_else(|| "-".to_owned());
        vec![it.figure.replace('_', " "), number(it.value), it.interval(), goal, it.verdict().to_owned()]
    });
    let head = ["ratio", "value", "interval", "goal", "holds"].map(str::to_owned);
    let unmeasured = result.unmeasured.iter().map(|it| {
        let (none, why) = (|| "-".to_owned(), format!("not measured: {}", it.why));
        vec![it.figure.replace('_', " "), none(), why, it.goal.clone(), none()]
    });
    let rows: Vec<_> = rows.chain(unmeasured).collect();
    if rows.is_empty() { String::new() } else { table(&head, &rows) }
}

fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | ").replace('\n', " "));
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(head) + &rule + &rows
}
