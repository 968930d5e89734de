//! What happened: every latency in a histogram, every error by its name.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::thread::ScopedJoinHandle;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::workload::Phases;

/// Three significant digits up to an hour, in nanoseconds.
pub(crate) type Latencies = Histogram<u64>;

const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Parts of the measured time.
pub(crate) const SLICES: usize = 10;

/// An empty histogram.
pub(crate) fn latencies() -> Latencies {
    // Only wrong bounds can fail here, and these are constant.
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are valid")
}

/// Counts of one load, of one thread or of all.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    /// GETs that were answered.
    pub(crate) reads: Latencies,
    /// SETs that were answered.
    pub(crate) writes: Latencies,
    /// Operations that failed while they counted, by the error's code.
    pub(crate) errors: BTreeMap<String, u64>,
    /// GETs that found nothing.
    pub(crate) misses: u64,
    /// `MOVED` replies that were followed.
    pub(crate) redirects: u64,
    /// Connections that broke.
    pub(crate) disconnects: u64,
    /// Replies while CPU time was counted, whenever they were due.
    pub(crate) replies_in_window: u64,
    /// Replies in each tenth of that time: whether it was a steady state.
    pub(crate) slices: [u64; SLICES],
    /// When the last operation that counts was answered, on the run's clock.
    pub(crate) last_reply_ns: u64,
    /// Operations that were given up. Their latencies so far are in the histograms.
    pub(crate) unanswered: u64,
}

impl Recorder {
    /// Nothing happened yet.
    pub(crate) fn new() -> Self {
        Self {
            reads: latencies(),
            writes: latencies(),
            errors: BTreeMap::new(),
            misses: 0,
            redirects: 0,
            disconnects: 0,
            replies_in_window: 0,
            slices: [0; SLICES],
            last_reply_ns: 0,
            unanswered: 0,
        }
    }

    /// An operation that was meant for `intended_ns` was answered now.
    pub(crate) fn done(&mut self, phases: &Phases, open: bool, read: bool, intended_ns: u64, now_ns: u64) {
        if phases.counts(now_ns) {
            self.replies_in_window += 1;
            self.slices[phases.slice(now_ns, SLICES)] += 1;
        }
        if phases.counts(if open { intended_ns } else { now_ns }) {
            self.last_reply_ns = self.last_reply_ns.max(now_ns);
            self.record(read, now_ns.saturating_sub(intended_ns));
        }
    }

    /// An operation wasn't answered in time: an error, and its latency so far counts too.
    pub(crate) fn gave_up(&mut self, read: bool, latency_ns: u64) {
        self.unanswered += 1;
        self.failed("unanswered");
        self.record(read, latency_ns);
    }

    fn record(&mut self, read: bool, latency_ns: u64) {
        let latencies = if read { &mut self.reads } else { &mut self.writes };
        latencies.saturating_record(latency_ns.max(1));
    }

    /// Operations that count and were answered.
    pub(crate) fn operations(&self) -> u64 {
        self.reads.len() + self.writes.len() - self.unanswered
    }

    /// An operation failed.
    pub(crate) fn failed(&mut self, code: &str) {
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                self.errors.insert(code.to_owned(), 1);
            }
        }
    }

    /// Waits for all threads of a load and adds up what they counted.
    ///
    /// # Errors
    /// The first of a thread's.
    ///
    /// # Panics
    /// If a thread did.
    pub(crate) fn of_all(threads: Vec<ScopedJoinHandle<'_, Result<Self>>>) -> Result<Self> {
        let mut all = Self::new();
        for thread in threads {
            match thread.join() {
                Ok(recorder) => all.merge(&recorder?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    }

    /// Takes in another thread's counts.
    fn merge(&mut self, other: &Self) {
        self.reads += &other.reads;
        self.writes += &other.writes;
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_insert(0) += count;
        }
        self.misses += other.misses;
        self.redirects += other.redirects;
        self.disconnects += other.disconnects;
        self.replies_in_window += other.replies_in_window;
        self.slices.iter_mut().zip(other.slices).for_each(|(mine, theirs)| *mine += theirs);
        self.last_reply_ns = self.last_reply_ns.max(other.last_reply_ns);
        self.unanswered += other.unanswered;
    }

    /// How much more was answered in the second half of the measured time than in the first, of all that was.
    pub(crate) fn drift(&self) -> f64 {
        let half = |slices: &[u64]| slices.iter().sum::<u64>() as f64;
        let (first, second) = (half(&self.slices[..SLICES / 2]), half(&self.slices[SLICES / 2..]));
        (second - first) / (first + second).max(1.0)
    }

    /// Reads and writes together.
    pub(crate) fn all(&self) -> Latencies {
        let mut all = self.reads.clone();
        all += &self.writes;
        all
    }
}

/// The percentiles of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    /// Half were faster.
    pub(crate) p50: f64,
    /// One in ten was slower.
    pub(crate) p90: f64,
    /// One in a hundred was slower.
    pub(crate) p99: f64,
    /// One in a thousand was slower.
    pub(crate) p99_9: f64,
    /// One in ten thousand was slower.
    pub(crate) p99_99: f64,
    /// The slowest.
    pub(crate) max: f64,
    /// For Little's law, not for judging.
    pub(crate) mean: f64,
}

impl Percentiles {
    /// Reads them off a histogram of nanoseconds.
    pub(crate) fn of(latencies: &Latencies) -> Self {
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: latencies.max() as f64 / 1e3,
            mean: latencies.mean() / 1e3,
        }
    }

    /// Field by field the median over rounds.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(rounds.iter().map(field));
        Self {
            p50: of(|p| p.p50),
            p90: of(|p| p.p90),
            p99: of(|p| p.p99),
            p99_9: of(|p| p.p99_9),
            p99_99: of(|p| p.p99_99),
            max: of(|p| p.max),
            mean: of(|p| p.mean),
        }
    }
}

/// The median; of an even number of values the mean of the middle two, of none not a number.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// Writes HdrHistogram's percentile distribution, in milliseconds: what its plotter reads.
pub(crate) fn write_hgrm(latencies: &Latencies, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut total = 0;
    for step in latencies.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64 / 1e6, step.quantile_iterated_to());
        if quantile < 1.0 {
            writeln!(out, "{value:12.6} {quantile:2.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out, "{value:12.6} {quantile:2.12} {total:10}")?;
        }
    }
    let (mean, deviation) = (latencies.mean() / 1e6, latencies.stdev() / 1e6);
    writeln!(out, "#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]")?;
    let max = latencies.max() as f64 / 1e6;
    writeln!(out, "#[Max     = {max:12.6}, Total count    = {:12}]", latencies.len())?;
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", latencies.buckets(), 2048)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_recorded() {
        let mut recorder = Recorder::new();
        for latency_us in 1..=10_000 {
            recorder.record(latency_us % 2 == 0, latency_us * 1000);
        }
        let percentiles = Percentiles::of(&recorder.all());
        for (seen, wanted) in [
            (percentiles.p50, 5_000.0),
            (percentiles.p90, 9_000.0),
            (percentiles.p99, 9_900.0),
            (percentiles.p99_9, 9_990.0),
            (percentiles.p99_99, 9_999.0),
            (percentiles.max, 10_000.0),
        ] {
            assert!((seen / wanted - 1.0).abs() < 0.001, "{seen} instead of {wanted}");
        }
        assert_eq!(recorder.reads.len(), 5_000);
    }

    #[test]
    fn a_closed_loop_counts_by_replies_and_an_open_one_by_intentions() {
        let phases =
            Phases { start: std::time::Instant::now(), measure_ns: 100, end_ns: 200, give_up_ns: 900 };
        // (intended, answered): across the start, inside, across the end.
        let operations = [(90, 110), (120, 130), (190, 290)];
        let count = |open: bool| {
            let mut recorder = Recorder::new();
            for (intended_ns, now_ns) in operations {
                recorder.done(&phases, open, false, intended_ns, now_ns);
            }
            (recorder.operations(), recorder.writes.max(), recorder.last_reply_ns, recorder.replies_in_window)
        };
        assert_eq!(count(false), (2, 20, 130, 2));
        assert_eq!(count(true), (2, 100, 290, 2));
        let mut recorder = Recorder::new();
        recorder.gave_up(true, 5_000);
        assert_eq!((recorder.operations(), recorder.reads.len(), recorder.errors["unanswered"]), (0, 1, 1));
    }

    #[test]
    fn drift_tells_a_steady_load_from_one_that_fades() {
        let phases =
            Phases { start: std::time::Instant::now(), measure_ns: 100, end_ns: 200, give_up_ns: 900 };
        let mut steady = Recorder::new();
        (0..1000).for_each(|now_ns| steady.done(&phases, false, false, now_ns, now_ns));
        assert_eq!((steady.drift(), steady.replies_in_window), (0.0, 100));
        let mut fading = steady;
        (0..50).for_each(|_| fading.done(&phases, false, false, 100, 120));
        assert!((fading.drift() + 1.0 / 3.0).abs() < 1e-9, "{}", fading.drift());
        assert_eq!(Recorder::new().drift(), 0.0);
    }

    #[test]
    fn merging_adds_everything() {
        let (mut one, mut other) = (Recorder::new(), Recorder::new());
        one.record(true, 5);
        one.failed("BUSY");
        other.record(false, 7);
        other.failed("BUSY");
        other.failed("lost");
        one.merge(&other);
        assert_eq!(one.all().len(), 2);
        assert_eq!(one.errors.into_iter().collect::<Vec<_>>(), [("BUSY".into(), 2), ("lost".into(), 1)]);
    }

    #[test]
    fn the_median_resists_one_bad_round() {
        assert_eq!(median([1.0, 900.0, 2.0]), 2.0);
        assert_eq!(median([1.0, 2.0]), 1.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn hgrm_is_what_the_plotter_reads() {
        let mut recorder = Recorder::new();
        for latency_us in 1..=1000 {
            recorder.record(false, latency_us * 1000);
        }
        let mut out = Vec::new();
        write_hgrm(&recorder.all(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut lines = text.lines();
        assert_eq!(
            lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
        );
        assert_eq!(lines.next(), Some(""));
        let rows: Vec<Vec<f64>> = lines
            .by_ref()
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert!(
            rows.is_sorted_by(|one, next| one[..3] <= next[..3] && one[1] <= next[1] && one[2] <= next[2])
        );
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 1000.0, 3));
        assert!((last[0] - 1.0).abs() < 0.001, "the maximum is 1 ms");
        assert!(text.contains("Total count    =         1000]"));
    }
}
