//! What happened: as one number, as the last lines worth one, and, if it is recorded, as a line for every event.

use std::collections::VecDeque;

/// Lines kept.
const LINES: usize = 60;

/// How much of a simulation is kept for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The lines about faults, elections and restarts.
    Faults,
    /// A line for every event as well.
    Everything,
    /// The same, printed at once.
    Printed,
}

/// The trace of one simulation.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    detail: Detail,
}

impl Trace {
    /// An empty one.
    pub fn new(detail: Detail) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: VecDeque::new(), detail }
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    /// Something that happens all the time: its digest counts, and the text is made only if somebody will see it.
    pub fn event(&mut self, time: u64, who: usize, digest: u64, text: impl FnOnce() -> String) {
        self.mix(time);
        self.mix(who as u64);
        self.mix(digest);
        if self.detail != Detail::Faults {
            let line = shown(time, &text());
            self.keep(line);
        }
    }

    /// Something worth a line.
    pub fn line(&mut self, time: u64, text: impl FnOnce() -> String) {
        let line = shown(time, &text());
        line.bytes().for_each(|byte| self.mix(u64::from(byte)));
        self.keep(line);
    }

    fn keep(&mut self, line: String) {
        if self.detail == Detail::Printed {
            println!("{line}");
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Equal for equal simulations, however much of them is kept.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    pub fn tail(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

fn shown(time: u64, text: &str) -> String {
    format!("{:>12.6} ms  {text}", time as f64 / 1e6)
}
