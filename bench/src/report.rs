//! What every command hands back: one JSON object with `--json`, tables for people.

use std::io::Write;

use serde::Serialize;

use crate::error::{BenchError, Result};
use crate::machine::Machine;
use crate::recorder::median;

/// The version of the JSON object. It changes when a field changes its meaning or goes away.
pub(crate) const SCHEMA: &str = "flotilla-bench/2";

/// The JSON object: the same envelope for every command.
#[derive(Debug, Serialize)]
pub(crate) struct Report<Floors, Outcome, More> {
    pub(crate) schema: &'static str,
    /// The command line, to run it again.
    pub(crate) command: String,
    pub(crate) machine: Machine,
    /// What nothing can beat on this machine, measured in the same run.
    pub(crate) floors: Floors,
    pub(crate) results: Vec<Outcome>,
    /// The figures with a goal.
    pub(crate) ratios: Vec<Ratio>,
    /// Whatever else the command has to say.
    #[serde(flatten)]
    pub(crate) more: More,
}

/// This process's command line.
pub(crate) fn command_line() -> String {
    let quote = |word: String| match word.contains([' ', '\'', '"']) {
        true => format!("'{}'", word.replace('\'', r"'\''")),
        false => word,
    };
    let own = std::env::args().skip(1).map(quote);
    std::iter::once("flotilla-bench".to_owned()).chain(own).collect::<Vec<_>>().join(" ")
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// What its text says.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (way, goal) = text.split_once(' ')?;
        let goal = goal.parse().ok()?;
        match way {
            ">=" => Some(Self::AtLeast(goal)),
            "<=" => Some(Self::AtMost(goal)),
            _ => None,
        }
    }

    /// Whether this value is on its side.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(out, ">= {goal}"),
            Self::AtMost(goal) => write!(out, "<= {goal}"),
        }
    }
}

/// A figure of one thing over another, taken within each round and then its median.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) goal: String,
    pub(crate) holds: bool,
    pub(crate) rounds: Vec<f64>,
}

impl Ratio {
    /// None without a single round.
    pub(crate) fn new(name: &str, rounds: Vec<f64>, goal: Goal) -> Option<Self> {
        let value = median(rounds.iter().copied());
        let holds = goal.holds(value);
        value.is_finite().then(|| Self {
            name: name.to_owned(),
            value,
            goal: goal.to_string(),
            holds,
            rounds,
        })
    }
}

/// A ratio nobody has set a goal for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Observation {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) rounds: Vec<f64>,
}

impl Observation {
    /// None without a single round.
    pub(crate) fn new(name: &str, rounds: Vec<f64>) -> Option<Self> {
        let value = median(rounds.iter().copied());
        value.is_finite().then(|| Self { name: name.to_owned(), value, rounds })
    }
}

/// Prints the object.
pub(crate) fn print_json(report: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(report)
        .map_err(|error| BenchError::io("writing JSON")(std::io::Error::other(error)))?;
    text.push('\n');
    print(&text)
}

/// Prints to standard output. Whoever closed it has read enough.
pub(crate) fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(BenchError::io("printing")(error))
        }
        _ => Ok(()),
    }
}

/// Tells people how it is going, on standard error.
pub(crate) fn note(text: &str) {
    // Nobody to tell, nothing to do.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A table: the first column to the left, the others to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Microseconds for people.
pub(crate) fn time(us: f64) -> String {
    match us {
        us if us.is_nan() => "-".to_owned(),
        us if us < 10.0 => format!("{us:.2} us"),
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
    match value.abs() {
        it if it < 10.0 => format!("{value:.2}"),
        it if it < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_its_rounds() {
        let ratio = Ratio::new("it", vec![2.0, 100.0, 2.6], Goal::AtLeast(2.5)).unwrap();
        assert_eq!((ratio.value, ratio.holds, ratio.goal.as_str()), (2.6, true, ">= 2.5"));
        assert!(!Ratio::new("it", vec![2.6], Goal::AtMost(2.5)).unwrap().holds);
        assert!(Ratio::new("it", vec![], Goal::AtMost(2.5)).is_none());
        assert!(Ratio::new("it", vec![f64::INFINITY], Goal::AtLeast(1.0)).is_none(), "nothing to divide by");
    }

    #[test]
    fn tables_line_up() {
        let text = table(
            &["name", "value"],
            &[vec!["a".into(), "1".into()], vec!["longer".into(), "123456".into()]],
        );
        assert_eq!(text, "name     value\na            1\nlonger  123456\n");
    }
}
