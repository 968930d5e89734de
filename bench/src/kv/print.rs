//! The tables.

use super::outcome::{Outcome, Round};
use crate::floor::Floors;
use crate::report::{Observation, Ratio, table};

/// More foreign CPU than this, and a number isn't worth much.
const FOREIGN_MAX: f64 = 0.1;

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
            let latency = &median.latency_us;
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

/// A line while it runs.
pub(crate) fn progress(round: usize, rounds: u16, scenario: &str, target: &str, it: &Round) -> String {
    let mut line = format!(
        "round {}/{rounds}  {scenario:<10}  {target:<10}  {:>9}/s  p50 {:>8}  p99 {:>8}",
        round + 1,
        rate(it.operations_per_second),
        time(it.latency_us.p50),
        time(it.latency_us.p99),
    );
    for (code, count) in &it.errors {
        line.push_str(&format!("  {code} x{count}"));
    }
    line
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

/// Microseconds for people.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.0} us"),
        us if us < 100_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// Operations a second for people.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        it if it < 1_000.0 => format!("{it:.0}"),
        it if it < 1_000_000.0 => format!("{:.1}k", it / 1e3),
        it => format!("{:.2}M", it / 1e6),
    }
}

/// A number for people.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}
