//! The page: one HTML file without scripts, that fetches nothing.

use std::fmt::Write;

use super::figures::{self, Figure};
use crate::compare::result::{Compared, ResultFile};
use crate::error::Result;
use crate::floor::summary;
use crate::report::{number, time as duration};

const STYLE: &str = include_str!("style.css");

/// The whole page.
///
/// # Errors
/// The plotting library's.
pub(super) fn html(results: &[ResultFile]) -> Result<String> {
    let mut body = String::new();
    for result in results {
        body.push_str(&section(result)?);
    }
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Flotilla beside its peers</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Flotilla beside its peers</h1>\n\
         <p class=\"soft\">Made by <code>flotilla-bench report</code>. The method is in docs/benchmarking.md of the \
         sources; each plot has its data and a command that measures it again.</p>\n{body}</main>\n</body>\n</html>\n"
    ))
}

fn section(result: &ResultFile) -> Result<String> {
    let mut out = format!("<section>\n<h2>{}</h2>\n", escape(&heading(result)));
    out.push_str(&noise(result));
    out.push_str(&facts(result));
    if !result.targets.is_empty() {
        let items = result.targets.iter().map(|target| {
            format!(
                "<dt>{}</dt><dd>{} process{}; {}</dd>",
                escape(&target.title()),
                target.processes,
                if target.processes == 1 { "" } else { "es" },
                escape(&target.durability)
            )
        });
        let items: String = items.collect();
        let head = if result.what == "kv" { "What a reply to a write means" } else { "What was measured" };
        let _ = writeln!(out, "<h3>{head}</h3>\n<dl>{items}</dl>");
    }
    out.push_str("<div class=\"figures\">\n");
    for figure in figures::of(result)? {
        out.push_str(&plot(&figure));
    }
    out.push_str("</div>\n");
    out.push_str(&ratios(result));
    out.push_str("</section>\n");
    Ok(out)
}

/// What a section, or a table, is about.
pub(super) fn heading(result: &ResultFile) -> String {
    let what = match result.what.as_str() {
        "kv" => "Key/value stores",
        "wal" => "The write-ahead log",
        "raft" => "Agreement",
        "mapreduce" => "MapReduce",
        "mesh" => "From core to core",
        "runtime" => "A core's runtime",
        "reshard" => "Moving shards",
        "nodes" => "Operating nodes",
        "simulator" => "The simulator",
        other => other,
    };
    match result.sets().as_slice() {
        sets if sets.is_empty() || result.what != "kv" => what.to_owned(),
        sets => format!("{what}: {}", sets.join(", ")),
    }
}

fn noise(result: &ResultFile) -> String {
    let mut out = String::new();
    if !result.noise.marks.is_empty() {
        let items: String =
            result.noise.marks.iter().map(|mark| format!("<li>{}</li>", escape(mark))).collect();
        let _ = writeln!(
            out,
            "<div class=\"noisy\" role=\"note\"><strong>Noisy run:</strong> its numbers say little.<ul>{items}</ul></div>"
        );
    }
    let told = result.cells.iter().filter_map(|cell| {
        let remarks = cell.remarks();
        (!remarks.is_empty()).then(|| format!("{} ({remarks})", cell.title()))
    });
    let told: Vec<String> = told.collect();
    if !told.is_empty() {
        let list = escape(&told.join(", "));
        let _ = writeln!(out, "<p class=\"soft\">To be read with care: {list}.</p>");
    }
    out
}

fn facts(result: &ResultFile) -> String {
    let machine = &result.machine;
    let virtualized = if machine.virtualized { ", virtual" } else { "" };
    let mut facts = vec![
        ("command", result.command.clone()),
        ("when", format!("{}, {:.0} s", date(result.unix_seconds), result.elapsed_seconds)),
        (
            "machine",
            format!(
                "{} × {}{virtualized}, {} MiB; servers and load generator share it",
                machine.cpus, machine.cpu, machine.memory_mib
            ),
        ),
        ("kernel", machine.kernel.clone()),
        ("file system", format!("{} on {}", machine.filesystem, machine.device)),
        ("floors", floors(result)),
        ("noise", noise_figures(result)),
    ];
    if let Some(source) = &result.source {
        facts.insert(1, ("source", source.clone()));
    }
    let rows = facts.iter().map(|(name, text)| {
        let text = escape(text);
        let text = if *name == "command" { format!("<code>{text}</code>") } else { text };
        format!("<dt>{name}</dt><dd>{text}</dd>")
    });
    format!("<dl>{}</dl>\n", rows.collect::<String>())
}

/// What nothing can beat on the machine, as medians of the rounds.
pub(super) fn floors(result: &ResultFile) -> String {
    if result.floors.is_empty() {
        return "not measured".to_owned();
    }
    let floors = summary(&result.floors);
    format!(
        "4 KiB overwrite and fdatasync {}, loopback round trip {}, bare replicated write {} (medians)",
        duration(floors.sync_4k_overwrite.p50_us),
        duration(floors.tcp_round_trip_64b.p50_us),
        duration(floors.bare_replicated_write.p50_us)
    )
}

fn noise_figures(result: &ResultFile) -> String {
    let noise = &result.noise;
    let percent =
        |share: Option<f64>| share.map_or_else(|| "?".to_owned(), |share| format!("{:.1} %", 100.0 * share));
    format!(
        "other programs {}, hypervisor {}, sync {:.2} and loopback {:.2} times between rounds, throughput {} between rounds",
        percent(noise.foreign_cpu_share),
        percent(noise.stolen_cpu_share),
        noise.sync_ratio,
        noise.loopback_ratio,
        percent(noise.spread)
    )
}

fn plot(figure: &Figure) -> String {
    let mut out = format!("<figure>\n<h3>{}</h3>\n", escape(&figure.title));
    // For those who hear the page.
    let label = format!("<svg role=\"img\" aria-label=\"{}\" ", escape(&figure.title));
    out.push_str(&figure.svg.replacen("<svg ", &label, 1));
    if !figure.legend.is_empty() {
        let items = figure.legend.iter().map(|(colour, name)| {
            format!("<li><i style=\"background:var(--c{colour})\"></i>{}</li>", escape(name))
        });
        let _ = writeln!(out, "<ul class=\"legend\">{}</ul>", items.collect::<String>());
    }
    let _ = write!(
        out,
        "<figcaption>{}</figcaption>\n<details><summary>Data and command</summary>{}<p><code>{}</code></p></details>\n\
         </figure>\n",
        escape(&figure.note),
        table(&figure.head, &figure.rows),
        escape(&figure.command)
    );
    out
}

fn ratios(result: &ResultFile) -> String {
    if result.ratios.is_empty() && result.unmeasured.is_empty() {
        return String::new();
    }
    let row = |it: &Compared| {
        vec![
            format!("{} {}", it.cell, it.figure).trim().to_owned(),
            if it.against.is_empty() { "-".to_owned() } else { it.against.clone() },
            number(it.value),
            it.interval(),
            it.goal.clone().unwrap_or_else(|| "-".to_owned()),
            it.verdict().to_owned(),
        ]
    };
    let head = ["Flotilla's", "over that of", "ratio", "interval", "goal", "holds"].map(str::to_owned);
    let mut rows: Vec<Vec<String>> = result.ratios.iter().map(row).collect();
    rows.extend(result.unmeasured.iter().map(|it| {
        let (none, why) = (|| "-".to_owned(), format!("not measured: {}", it.why));
        vec![it.figure.clone(), none(), none(), why, it.goal.clone(), none()]
    }));
    format!(
        "<details{}><summary>Ratios, with intervals</summary>\
         <p class=\"soft\">Taken within each round, then the median; of throughput more is better, of latency and CPU less.</p>\
         {}</details>\n",
        if result.cells.is_empty() { " open" } else { "" },
        table(&head, &rows)
    )
}

fn table(head: &[String], rows: &[Vec<String>]) -> String {
    // Words wrap; what is beside numbers doesn't.
    let cell = |text: &String| match text.len() > 40 {
        true => format!("<td class=\"wide\">{}</td>", escape(text)),
        false => format!("<td>{}</td>", escape(text)),
    };
    let head: String = head.iter().map(|text| format!("<th>{}</th>", escape(text))).collect();
    let rows: String =
        rows.iter().map(|row| format!("<tr>{}</tr>", row.iter().map(cell).collect::<String>())).collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>\n"
    )
}

/// `2026-11-23 17:04 UTC`
pub(super) fn date(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!(
            "{}-{:02}-{:02} {:02}:{:02} UTC",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute()
        ),
        Err(_) => "at no known time".to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
