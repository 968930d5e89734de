//! How a job is going, on one line that is written over; and what came of it.

use crate::cli::words::bytes;
use crate::hands::Stopwatch;
use crate::mapreduce::coordinator::JobStatus;
use std::io::{IsTerminal, Write};

const BAR: usize = 24;
/// Failed attempts that are told of without being asked for.
const FAILURES_SHOWN: usize = 5;

/// Shows progress on standard error, if that is a terminal.
#[derive(Debug)]
pub(super) struct Progress {
    clock: Stopwatch,
    shown: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { clock: Stopwatch::start(), shown: std::io::stderr().is_terminal() }
    }

    pub(super) fn show(&self, status: &JobStatus) {
        if !self.shown {
            return;
        }
        let percent =
            |(done, all): (u64, u64)| if all == 0 { 100.0 } else { done as f64 * 100.0 / all as f64 };
        // Of keys nobody knows how many bytes they will be.
        let mapped = if status.input_bytes.1 == 0 { status.maps } else { status.input_bytes };
        let (maps, reduces) = (percent(mapped), percent(status.reduces));
        let part = if status.reduces.1 == 0 { maps } else { maps * 0.6 + reduces * 0.4 };
        let filled = (part / 100.0 * BAR as f64) as usize;
        let bar = "█".repeat(filled.min(BAR)) + &"░".repeat(BAR.saturating_sub(filled));
        let seconds = self.clock.elapsed().as_secs_f64();
        let left =
            if part > 1.0 { format!("{:.0} s left", seconds * (100.0 - part) / part) } else { String::new() };
        let shuffle = bytes(status.shuffle_bytes);
        // Nobody to see it, nothing to do.
        let _ = write!(
            std::io::stderr(),
            "\r{bar} map {maps:3.0} %  shuffle {shuffle}  reduce {reduces:3.0} %  {left}\x1b[K"
        );
    }

    pub(super) fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.clock.elapsed().as_secs_f64()
    }
}

/// For people. `seconds`: how long it took, if that is known.
pub(super) fn summary(status: &JobStatus, seconds: Option<f64>) -> String {
    let (took, rate) = seconds.map_or_else(Default::default, |seconds| {
        let rate = bytes((status.input_bytes.0 as f64 / seconds.max(1e-6)) as u64);
        (format!(" in {seconds:.2} s"), format!(", {rate}/s"))
    });
    let mut lines = vec![
        format!("{} {}{took}: {}", status.name, status.state, status.output),
        format!("  input      {} in {} records{rate}", bytes(status.input_bytes.0), status.records_in),
        format!("  map tasks  {} of {}", status.maps.0, status.maps.1),
        format!("  shuffle    {}", bytes(status.shuffle_bytes)),
        format!("  reduces    {} of {}", status.reduces.0, status.reduces.1),
        format!("  output     {} in {} records", bytes(status.output_bytes), status.records_out),
    ];
    lines.extend(status.counters.iter().map(|(name, n)| format!("  {name:<10} {n}")));
    if !status.failures.is_empty() {
        lines.push(format!("  {} attempts failed:", status.failures.len()));
        let shown = status.failures.iter().take(FAILURES_SHOWN);
        lines.extend(
            shown.map(|failure| format!("    {} {}: {}", failure.task, failure.attempt, failure.what)),
        );
        if status.failures.len() > FAILURES_SHOWN {
            lines.push("    …".to_owned());
        }
    }
    for at in &status.skipped {
        lines.push(format!("  skipped    the record at byte {} of {}", at.offset, at.input));
    }
    lines.join("\n")
}
