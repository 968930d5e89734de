//! CPU time: of processes, and of the whole machine, from `/proc`.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// Readings at one moment.
#[derive(Clone, Debug)]
pub(crate) struct CpuReading {
    servers: Vec<Option<f64>>,
    client: f64,
    busy: f64,
}

/// CPU seconds between two readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CpuUsed {
    /// User and system time of the servers under load; none when their processes aren't known.
    pub(crate) servers: Option<f64>,
    /// Of this process.
    pub(crate) client: f64,
    /// Of everything else on the machine.
    pub(crate) foreign: f64,
}

impl CpuReading {
    /// Reads the clocks of `servers`, of this process and of the machine.
    pub(crate) fn take(servers: &[u32]) -> Self {
        Self {
            servers: servers.iter().map(|pid| process_seconds(&pid.to_string())).collect(),
            client: process_seconds("self").unwrap_or(0.0),
            busy: machine_seconds().unwrap_or(0.0),
        }
    }

    /// What was used since `earlier`. A server that ended in between counts as unknown.
    pub(crate) fn since(&self, earlier: &Self) -> CpuUsed {
        let each = self.servers.iter().zip(&earlier.servers).map(|(now, then)| Some((*now)? - (*then)?));
        let servers = match self.servers.is_empty() {
            true => None,
            false => each.sum::<Option<f64>>(),
        };
        let client = self.client - earlier.client;
        let foreign = (self.busy - earlier.busy - client - servers.unwrap_or(0.0)).max(0.0);
        CpuUsed { servers, client, foreign }
    }
}

fn process_seconds(pid: &str) -> Option<f64> {
    parse_process(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// User and system time, of all threads. The name may hold spaces and parentheses: fields start after the last one.
fn parse_process(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / clock_ticks_per_second() as f64)
}

fn machine_seconds() -> Option<f64> {
    parse_machine(&fs::read_to_string("/proc/stat").ok()?)
}

/// All time but idle, waiting for I/O, and the guests', which user time has already.
fn parse_machine(stat: &str) -> Option<f64> {
    let mut words = stat.lines().next()?.split_whitespace();
    if words.next() != Some("cpu") {
        return None;
    }
    let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| ticks.get(index)).sum();
    Some(busy as f64 / clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read_whatever_the_name() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 90 0 0 0 250 150 7 8 20 0 1 0 100 1000 10";
        assert_eq!(parse_process(stat), Some(400.0 / clock_ticks_per_second() as f64));
        assert_eq!(parse_process("nonsense"), None);
        let machine = "cpu  10 20 30 1000 500 1 2 3 99 0\ncpu0 1\n";
        assert_eq!(parse_machine(machine), Some(66.0 / clock_ticks_per_second() as f64));
    }

    #[test]
    fn this_process_uses_cpu() {
        let before = CpuReading::take(&[std::process::id(), 0]);
        let until = std::time::Instant::now() + std::time::Duration::from_millis(50);
        while std::time::Instant::now() < until {}
        let used = CpuReading::take(&[std::process::id()]).since(&before);
        assert!(used.client > 0.0 && used.servers.is_some_and(|seconds| seconds > 0.0));
        assert_eq!(CpuReading::take(&[0]).since(&CpuReading::take(&[0])).servers, None);
    }
}
