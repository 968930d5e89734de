//! Whether the machine was quiet enough for its numbers to mean something.
//!
//! A run is **noisy** when one of these holds; `docs/benchmarking.md` says the same to readers:
//!
//! | what | more than |
//! |---|---|
//! | CPU that neither the target nor the load generator used, median of all turns | 10 % of the machine |
//! | CPU that the hypervisor gave to others, median of all turns | 2 % of the machine |
//! | the disk's sync, or a loopback round trip: the slowest round's median over the fastest's | 1.5 |
//! | a closed loop's throughput from round to round, range over median, in the middle cell of those | 25 % |
//! | cells whose throughput drifted by more than 10 % within their measured time | a quarter of them |

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::result::Cell;
use super::stats::spread;
use crate::cpu::{FOREIGN_MAX, busy_share};
use crate::error::{BenchError, Result};
use crate::floor::RoundFloors;
use crate::recorder::median;

const STOLEN_MAX: f64 = 0.02;
const FLOOR_RATIO_MAX: f64 = 1.5;
const SPREAD_MAX: f64 = 0.25;
/// A turn whose second half differs from the first by more than this of both isn't steady.
pub(crate) const DRIFT_MAX: f64 = 0.10;
const UNSTEADY_MAX: f64 = 0.25;
/// Of the one CPU that the load generator's event loop can use: beyond it the numbers are its own and not the target's.
pub(crate) const CLIENT_CPU_MAX: f64 = 0.9;
/// How long is looked before a strict run starts.
const LOOK: Duration = Duration::from_secs(1);

/// What was seen, and what it means.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Noise {
    /// Of the machine's CPU, the median of all turns; none where turns aren't watched.
    pub(crate) foreign_cpu_share: Option<f64>,
    pub(crate) stolen_cpu_share: Option<f64>,
    /// The slowest round's median over the fastest's.
    pub(crate) sync_ratio: f64,
    pub(crate) loopback_ratio: f64,
    /// Range over median of a closed loop's throughput, in the middle cell of those: an open loop's is what was asked for.
    pub(crate) spread: Option<f64>,
    /// Cells that weren't in a steady state, as `cell on target`.
    pub(crate) unsteady: Vec<String>,
    /// Why the run is noisy; empty when it isn't.
    pub(crate) marks: Vec<String>,
}

impl Noise {
    /// Judges a run.
    pub(crate) fn of(cells: &[Cell], floors: &[RoundFloors]) -> Self {
        let rounds = || cells.iter().flat_map(|cell| &cell.rounds);
        let watched = (!cells.is_empty()).then_some(());
        let closed = cells.iter().filter(|cell| cell.load.rate.is_none());
        let spread = median(closed.map(|cell| spread(&cell.throughputs())));
        let mut noise = Self {
            foreign_cpu_share: watched.map(|()| median(rounds().map(|round| round.foreign_cpu_share))),
            stolen_cpu_share: watched.map(|()| median(rounds().map(|round| round.stolen_cpu_share))),
            sync_ratio: ratio(floors.iter().map(|round| round.sync.p50_us)),
            loopback_ratio: ratio(floors.iter().map(|round| round.round_trip.p50_us)),
            spread: Some(spread).filter(|spread| spread.is_finite()),
            unsteady: cells.iter().filter(|cell| !cell.is_steady()).map(Cell::title).collect(),
            marks: Vec::new(),
        };
        noise.marks = noise.judge(cells.len());
        noise
    }

    fn judge(&self, cells: usize) -> Vec<String> {
        let mut marks = Vec::new();
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        if let Some(share) = self.foreign_cpu_share.filter(|share| *share > FOREIGN_MAX) {
            marks.push(format!("other programs used {} of the machine's CPU", percent(share)));
        }
        if let Some(share) = self.stolen_cpu_share.filter(|share| *share > STOLEN_MAX) {
            marks.push(format!("the hypervisor gave {} of the machine's CPU to others", percent(share)));
        }
        for (what, ratio) in
            [("the disk's sync", self.sync_ratio), ("a loopback round trip", self.loopback_ratio)]
        {
            if ratio > FLOOR_RATIO_MAX {
                marks.push(format!("{what} took {ratio:.1} times as long in one round as in another"));
            }
        }
        if let Some(spread) = self.spread.filter(|spread| *spread > SPREAD_MAX) {
            marks.push(format!("throughput differs from round to round by {}", percent(spread)));
        }
        if self.unsteady.len() as f64 > UNSTEADY_MAX * cells as f64 {
            marks.push(format!("{} of {cells} results are of no steady state", self.unsteady.len()));
        }
        marks
    }
}

/// The largest over the smallest.
fn ratio(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    match least.is_finite() {
        true => values.fold(0.0, f64::max) / least,
        false => 1.0,
    }
}

/// Looks before anything is started: an error if the machine is busy.
///
/// # Errors
/// [`BenchError::Noisy`].
pub(crate) fn check_idle() -> Result<()> {
    let share = busy_share(LOOK);
    match share > FOREIGN_MAX {
        true => Err(BenchError::Noisy(format!(
            "others use {:.0} % of the machine's CPU before anything is started, programs here and what the hypervisor \
             gave away; at most {:.0} %",
            100.0 * share,
            100.0 * FOREIGN_MAX
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::result::tests::cell;
    use crate::floor::Floor;

    fn floors(sync_us: &[f64]) -> Vec<RoundFloors> {
        let of = |p50_us| Floor { p50_us, p99_us: 2.0 * p50_us };
        let round = |us: &f64| RoundFloors { sync: of(*us), round_trip: of(10.0), replicated: of(200.0) };
        sync_us.iter().map(round).collect()
    }

    #[test]
    fn a_quiet_run_has_no_marks() {
        let cells = vec![cell("set_1", "flotilla", &[100.0, 101.0]), cell("set_1", "etcd", &[50.0, 51.0])];
        let noise = Noise::of(&cells, &floors(&[100.0, 120.0]));
        assert_eq!(noise.marks, Vec::<String>::new());
        assert!((noise.sync_ratio - 1.2).abs() < 1e-9);
        assert_eq!(Noise::of(&[], &[]).marks, Vec::<String>::new(), "nothing was seen");
    }

    #[test]
    fn every_rule_can_mark() {
        let cells = || vec![cell("set_1", "flotilla", &[100.0, 101.0])];
        let marks = |cells: &[Cell], sync_us: &[f64]| Noise::of(cells, &floors(sync_us)).marks.join("; ");
        assert!(marks(&cells(), &[100.0, 160.0]).contains("the disk's sync took 1.6 times"));
        let mut busy = cells();
        busy[0].rounds.iter_mut().for_each(|round| round.foreign_cpu_share = 0.2);
        assert!(marks(&busy, &[1.0]).contains("other programs used 20 %"));
        let mut stolen = cells();
        stolen[0].rounds.iter_mut().for_each(|round| round.stolen_cpu_share = 0.03);
        assert!(marks(&stolen, &[1.0]).contains("hypervisor gave 3 %"));
        let mut fading = cells();
        fading[0].rounds.iter_mut().for_each(|round| round.drift = Some(-0.2));
        assert!(marks(&fading, &[1.0]).contains("1 of 1 results"));
        let mut uneven = vec![cell("set_1", "flotilla", &[100.0, 140.0])];
        assert!(marks(&uneven, &[1.0]).contains("from round to round by 33 %"));
        uneven[0].load.rate = Some(120.0);
        assert_eq!(Noise::of(&uneven, &[]).spread, None, "an open loop tells nothing of it");
        uneven.extend(cells());
        assert_eq!(marks(&uneven, &[1.0]), "");
    }
}
