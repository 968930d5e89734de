//! What happened, as one number and as the last lines.

use std::collections::VecDeque;

const LINES: usize = 200;

/// The trace of one simulation.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    print: bool,
}

impl Trace {
    /// An empty one; with `print` every line is shown at once.
    pub fn new(print: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: VecDeque::new(), print }
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    /// Something that happens all the time: only its digest counts.
    pub fn event(&mut self, time: u64, who: usize, what: u64, digest: u64) {
        self.mix(time);
        self.mix((who as u64) << 8 | what);
        self.mix(digest);
        if self.print {
            println!("{:>12.6} ms  {what}@{who} {digest:016x}", time as f64 / 1e6);
        }
    }

    /// Something worth a line.
    pub fn line(&mut self, time: u64, text: impl FnOnce() -> String) {
        let line = format!("{:>12.6} ms  {}", time as f64 / 1e6, text());
        line.bytes().for_each(|byte| self.mix(u64::from(byte)));
        if self.print {
            println!("{line}");
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Equal for equal simulations.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    pub fn tail(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
