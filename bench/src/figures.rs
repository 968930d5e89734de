//! Figures gathered round by round, until they become the ratios and observations of a report.

use std::time::Instant;

use serde::Serialize;

use crate::compare::result::{Cell, Compared, TargetInfo, Unmeasured};
use crate::error::Result;
use crate::floor::{self, Floor, Floors, RoundFloors};
use crate::machine::Machine;
use crate::report::{self, Goal, Observation, Ratio, Report, SCHEMA, note, number, table};
use crate::turn::SUBJECT;

/// Every figure in every round, in the order in which they were first seen.
#[derive(Default)]
pub(crate) struct Figures {
    ratios: Vec<(String, Vec<f64>, Goal)>,
    observations: Vec<(String, Vec<f64>)>,
    unmeasured: Vec<Unmeasured>,
}

impl Figures {
    /// A figure with a goal.
    pub(crate) fn ratio(&mut self, name: &str, value: f64, goal: Goal) {
        match self.ratios.iter_mut().find(|(known, ..)| known == name) {
            Some((_, rounds, _)) => rounds.push(value),
            None => self.ratios.push((name.to_owned(), vec![value], goal)),
        }
    }

    /// A figure without one.
    pub(crate) fn observe(&mut self, name: &str, value: f64) {
        match self.observations.iter_mut().find(|(known, _)| known == name) {
            Some((_, rounds)) => rounds.push(value),
            None => self.observations.push((name.to_owned(), vec![value])),
        }
    }

    /// A figure with a goal that this machine can't tell, and why.
    pub(crate) fn unmeasured(&mut self, figure: &str, goal: Goal, why: &str) {
        let (figure, goal, why) = (figure.to_owned(), goal.to_string(), why.to_owned());
        self.unmeasured.push(Unmeasured { figure, goal, why });
    }

    /// As they are in a result file: those with a goal and those without, with intervals; and those that weren't measured.
    pub(crate) fn compared(mut self) -> (Vec<Compared>, Vec<Unmeasured>) {
        let unmeasured = std::mem::take(&mut self.unmeasured);
        let (ratios, observations) = self.finish();
        let with_goal = ratios.into_iter().filter_map(|Ratio { name, goal, holds, rounds, .. }| {
            let compared = Compared::new("", &name, "", rounds)?;
            Some(Compared { goal: Some(goal), holds: Some(holds), ..compared })
        });
        let without = observations.into_iter().filter_map(|it| Compared::new("", &it.name, "", it.rounds));
        (with_goal.chain(without).collect(), unmeasured)
    }

    /// The medians.
    fn finish(self) -> (Vec<Ratio>, Vec<Observation>) {
        let ratios =
            self.ratios.into_iter().filter_map(|(name, rounds, goal)| Ratio::new(&name, rounds, goal));
        let observed = self.observations.into_iter();
        let observations = observed.filter_map(|(name, rounds)| Observation::new(&name, rounds));
        (ratios.collect(), observations.collect())
    }
}

/// What the commands that gather figures say besides them.
#[derive(Serialize)]
struct More {
    elapsed_seconds: f64,
    /// Figures without a goal.
    observations: Vec<Observation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unmeasured: Vec<Unmeasured>,
}

/// Everything that a command which gathers figures has found out.
pub(crate) struct Found<Floors, Outcome> {
    pub(crate) machine: Machine,
    pub(crate) floors: Floors,
    pub(crate) figures: Figures,
    pub(crate) results: Vec<Outcome>,
    /// When it began.
    pub(crate) from: Instant,
}

impl<Floors: Serialize, Outcome: Serialize> Found<Floors, Outcome> {
    /// Prints it: one JSON object, or for people what `shown` makes of the floors and results, and then the figures.
    pub(crate) fn print(self, json: bool, shown: impl FnOnce(&Floors, &[Outcome]) -> String) -> Result<()> {
        let Self { machine, floors, mut figures, results, from } = self;
        let unmeasured = std::mem::take(&mut figures.unmeasured);
        let (ratios, observations) = figures.finish();
        let elapsed_seconds = from.elapsed().as_secs_f64();
        if json {
            let (command, more) =
                (report::command_line(), More { elapsed_seconds, observations, unmeasured });
            let schema = SCHEMA;
            return report::print_json(&Report { schema, command, machine, floors, results, ratios, more });
        }
        report::print(&format!("\n{}\n", shown(&floors, &results)))?;
        report::print(&figures_table(&ratios, &observations))?;
        for it in &unmeasured {
            report::print(&format!("{}\n", it.told()))?;
        }
        note(&format!("{elapsed_seconds:.1} s in all"));
        Ok(())
    }
}

/// What a layer's command has found out.
pub(crate) struct Measured {
    pub(crate) machine: Machine,
    pub(crate) targets: Vec<TargetInfo>,
    /// Of each round; empty where they say nothing.
    pub(crate) floors: Vec<RoundFloors>,
    pub(crate) figures: Figures,
    pub(crate) cells: Vec<Cell>,
    /// When it began.
    pub(crate) from: Instant,
}

impl Measured {
    /// Prints it: one JSON object, or tables for people.
    pub(crate) fn print(self, json: bool) -> Result<()> {
        let Self { machine, floors, figures, cells, from, .. } = self;
        let floors = (!floors.is_empty()).then(|| floor::summary(&floors));
        Found { machine, floors, figures, results: cells, from }.print(json, |floors, cells| {
            let floors = floors.as_ref().map_or_else(String::new, floors_line);
            floors + &cells_table(cells)
        })
    }
}

fn floors_line(floors: &Floors) -> String {
    let shown = |floor: Floor| format!("p50 {} us, p99 {} us", number(floor.p50_us), number(floor.p99_us));
    format!(
        "floors  4 KiB overwrite + fdatasync: {}; loopback round trip: {}; bare replicated write: {}\n\n",
        shown(floors.sync_4k_overwrite),
        shown(floors.tcp_round_trip_64b),
        shown(floors.bare_replicated_write)
    )
}

/// The targets of `cells`, each once and ours first, as `about` tells of them.
pub(crate) fn targets(cells: &[Cell], about: impl Fn(&str) -> TargetInfo) -> Vec<TargetInfo> {
    let mut names: Vec<&str> = Vec::new();
    for cell in cells {
        if !names.contains(&&*cell.target) {
            names.push(&cell.target);
        }
    }
    names.sort_by_key(|name| *name != SUBJECT);
    names.into_iter().map(about).collect()
}

/// Cells as a table for people.
pub(crate) fn cells_table(cells: &[Cell]) -> String {
    let head =
        ["load", "target", "throughput", "p50", "p99", "p99.9", "cpu", "memory", "written/byte", "errors"];
    table(&head, &cells.iter().map(row).collect::<Vec<_>>())
}

fn row(cell: &Cell) -> Vec<String> {
    let unknown = || "-".to_owned();
    let median = &cell.median;
    let failures: u64 = cell.rounds.iter().map(crate::kv::outcome::Round::failures).sum();
    vec![
        cell.name.clone(),
        cell.target.clone(),
        format!("{} {}", cell.unit.rate(median.operations_per_second), cell.unit.per_second()),
        report::time(median.latency(|it| it.p50)),
        report::time(median.latency(|it| it.p99)),
        report::time(median.latency(|it| it.p99_9)),
        cell.cpu_us().map_or_else(unknown, |us| format!("{}/{}", report::time(us), cell.unit.one())),
        cell.median_of(|round| round.memory_bytes.map(|bytes| bytes as f64))
            .map_or_else(unknown, |bytes| format!("{:.0} MiB", bytes / f64::from(1 << 20))),
        cell.median_of(|round| round.written_per_byte).map_or_else(unknown, number),
        failures.to_string(),
    ]
}

/// Both as a table for people.
fn figures_table(ratios: &[Ratio], observations: &[Observation]) -> String {
    let each = |rounds: &[f64]| rounds.iter().map(|it| number(*it)).collect::<Vec<_>>().join(" ");
    let mut rows: Vec<Vec<String>> = Vec::new();
    for it in ratios {
        let holds = if it.holds { "yes" } else { "no" };
        rows.push(vec![it.name.clone(), number(it.value), it.goal.clone(), holds.into(), each(&it.rounds)]);
    }
    for it in observations {
        rows.push(vec![it.name.clone(), number(it.value), "-".into(), "-".into(), each(&it.rounds)]);
    }
    table(&["figure", "value", "goal", "holds", "rounds"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::result::tests::cell;

    #[test]
    fn figures_get_intervals_and_keep_their_goals() {
        let mut figures = Figures::default();
        [1.0, 2.0, 3.0].into_iter().for_each(|value| figures.ratio("a", value, Goal::AtLeast(1.0)));
        figures.observe("b", 5.0);
        figures.observe("c", f64::NAN);
        figures.unmeasured("d", Goal::AtMost(2.0), "it is too small");
        let (all, unmeasured) = figures.compared();
        assert_eq!(unmeasured[0].told(), "d (<= 2) isn't measured: it is too small");
        assert_eq!(all.len(), 2, "where there was nothing to divide by there is nothing to tell");
        assert_eq!((all[0].figure.as_str(), all[0].low, all[0].high), ("a", 1.0, 3.0));
        assert_eq!((all[0].goal.as_deref(), all[0].holds, all[1].holds), (Some(">= 1"), Some(true), None));
    }

    #[test]
    fn targets_are_named_once_and_ours_first() {
        let cells = ["b", SUBJECT, "b", "a"].map(|target| cell("load", target, &[1.0]));
        let about = |name: &str| TargetInfo {
            name: name.to_owned(),
            version: String::new(),
            durability: String::new(),
            processes: 1,
        };
        let names: Vec<String> = targets(&cells, about).into_iter().map(|it| it.name).collect();
        assert_eq!(names, [SUBJECT, "b", "a"]);
        let text = cells_table(&cells);
        assert!(text.contains("ops/s") && text.lines().count() == 5, "{text}");
    }
}
