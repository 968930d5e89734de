//! The tables.

use super::outcome::{Outcome, Round};
use crate::cpu::FOREIGN_MAX;
use crate::floor::Floors;
use crate::report::{Observation, Ratio, note, number, rate, table, time};

/// Everything for a terminal.
pub(crate) fn text(
    outcomes: &[Outcome],
    floors: &Floors,
    ratios: &[Ratio],
    observations: &[Observation],
) -> String {
    let mut text = format!(
        "\nfloors  4 KiB overwrite + fdatasync p50 {} p99 {}   loopback round trip p50 {} p99 {}   bare replicated write p50 {} p99 {}\n\n",
        time(floors.sync_4k_overwrite.p50_us),
        time(floors.sync_4k_overwrite.p99_us),
        time(floors.tcp_round_trip_64b.p50_us),
        time(floors.tcp_round_trip_64b.p99_us),
        time(floors.bare_replicated_write.p50_us),
        time(floors.bare_replicated_write.p99_us),
    );
    text.push_str(&results(outcomes));
    text.push_str(
        "\nmedians of the rounds; cpu: user + system seconds for 100 000 operations; foreign: share of the machine's \
         CPU that went elsewhere\n",
    );
    for (target, durability) in durabilities(outcomes) {
        text.push_str(&format!("{target}: {durability}\n"));
    }
    let mut rows: Vec<Vec<String>> = Vec::new();
    for it in ratios {
        let holds = if it.holds { "yes" } else { "no" };
        rows.push(vec![
            it.name.clone(),
            number(it.value),
            it.goal.clone(),
            holds.to_owned(),
            each(&it.rounds),
        ]);
    }
    for it in observations {
        rows.push(vec![it.name.clone(), number(it.value), "-".into(), "-".into(), each(&it.rounds)]);
    }
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(&["ratio", "value", "goal", "holds", "rounds"], &rows));
    }
    for warning in warnings(outcomes) {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}

fn results(outcomes: &[Outcome]) -> String {
    let rows: Vec<Vec<String>> = outcomes
        .iter()
        .filter_map(|it| {
            let median = it.median.as_ref()?;
            let latency = median.latency_us.as_ref()?;
            let mut row = vec![it.scenario.to_owned(), it.target.clone(), rate(median.operations_per_second)];
            for value in [latency.p50, latency.p90, latency.p99, latency.p99_9, latency.p99_99, latency.max] {
                row.push(time(value));
            }
            row.push(it.rounds.iter().map(Round::failures).sum::<u64>().to_string());
            row.push(median.server_cpu_s_per_100k.map_or_else(|| "?".to_owned(), number));
            row.push(number(median.client_cpu_s_per_100k));
            row.push(format!("{:.0} %", 100.0 * median.foreign_cpu_share));
            Some(row)
        })
        .collect();
    let head = [
        "load",
        "target",
        "ops/s",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "errors",
        "server cpu",
        "client cpu",
        "foreign",
    ];
    table(&head, &rows)
}

/// Tells of a turn, while it runs.
pub(crate) fn progress(round: usize, rounds: u16, load: &str, target: &str, it: &Round) {
    let mut line = format!(
        "round {}/{rounds}  {load:<20}  {target:<18}  {:>9}/s  p50 {:>8}  p99 {:>8}  drift {:>4.0} %",
        round + 1,
        rate(it.operations_per_second),
        time(it.latency(|it| it.p50)),
        time(it.latency(|it| it.p99)),
        100.0 * it.drift.unwrap_or(0.0),
    );
    for (code, count) in &it.errors {
        line.push_str(&format!("  {code} x{count}"));
    }
    note(&line);
}

fn durabilities(outcomes: &[Outcome]) -> Vec<(String, String)> {
    let mut seen: Vec<(String, String)> = Vec::new();
    for it in outcomes {
        let name = format!("{} {}", it.target, it.version).trim_end().to_owned();
        if !seen.iter().any(|(target, _)| *target == name) {
            seen.push((name, it.durability.clone()));
        }
    }
    seen
}

fn warnings(outcomes: &[Outcome]) -> Vec<String> {
    let mut warnings = Vec::new();
    let noisy =
        |it: &&Outcome| it.median.as_ref().is_some_and(|median| median.foreign_cpu_share > FOREIGN_MAX);
    let count = outcomes.iter().filter(noisy).count();
    if count > 0 {
        warnings
            .push(format!("something else kept the CPUs busy during {count} of {} results", outcomes.len()));
    }
    for it in outcomes {
        let misses: u64 = it.rounds.iter().map(|round| round.misses).sum();
        if misses > 0 {
            warnings.push(format!("{} on {}: {misses} GETs found nothing", it.scenario, it.target));
        }
    }
    warnings
}

fn each(rounds: &[f64]) -> String {
    rounds.iter().copied().map(number).collect::<Vec<_>>().join(" ")
}
