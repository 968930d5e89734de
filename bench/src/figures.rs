//! Figures gathered round by round, until they become the ratios and observations of a report.

use std::time::Instant;

use serde::Serialize;

use crate::error::Result;
use crate::machine::Machine;
use crate::report::{self, Goal, Observation, Ratio, Report, SCHEMA, note, table};

/// Every figure in every round, in the order in which they were first seen.
#[derive(Default)]
pub(crate) struct Figures {
    ratios: Vec<(String, Vec<f64>, Goal)>,
    observations: Vec<(String, Vec<f64>)>,
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
}

/// Everything that such a command has found out.
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
        let Self { machine, floors, figures, results, from } = self;
        let (ratios, observations) = figures.finish();
        let elapsed_seconds = from.elapsed().as_secs_f64();
        if json {
            let (command, more) = (report::command_line(), More { elapsed_seconds, observations });
            let schema = SCHEMA;
            return report::print_json(&Report { schema, command, machine, floors, results, ratios, more });
        }
        report::print(&format!("\n{}\n", shown(&floors, &results)))?;
        report::print(&figures_table(&ratios, &observations))?;
        note(&format!("{elapsed_seconds:.1} s in all"));
        Ok(())
    }
}

/// A number for people.
pub(crate) fn number(value: f64) -> String {
    if value < 1000.0 { format!("{value:.2}") } else { format!("{value:.0}") }
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
