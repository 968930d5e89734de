//! CPU time, of processes and of the whole machine; bytes that processes wrote, and their memory. From `/proc`.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// More foreign CPU than this, of the machine's, and a number isn't worth much.
pub(crate) const FOREIGN_MAX: f64 = 0.10;

/// Readings at one moment.
#[derive(Clone, Debug)]
pub(crate) struct CpuReading {
    servers: Vec<Option<f64>>,
    client: f64,
    busy: f64,
    stolen: f64,
    written: Vec<Option<u64>>,
    resident: Vec<Option<u64>>,
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
    /// What the hypervisor gave to others instead.
    pub(crate) stolen: f64,
    /// Bytes that the servers had written to disks.
    pub(crate) written: Option<u64>,
    /// Bytes of memory that the servers hold at the end.
    pub(crate) resident: Option<u64>,
}

impl CpuUsed {
    /// Nothing was measured.
    pub(crate) const NONE: Self =
        Self { servers: None, client: 0.0, foreign: 0.0, stolen: 0.0, written: None, resident: None };
}

impl CpuReading {
    /// Reads the clocks of `servers`, of this process and of the machine.
    pub(crate) fn take(servers: &[u32]) -> Self {
        let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            servers: servers.iter().map(|pid| process_seconds(&pid.to_string())).collect(),
            client: process_seconds("self").unwrap_or(0.0),
            busy: parse_machine(&machine, &BUSY).unwrap_or(0.0),
            stolen: parse_machine(&machine, &[STOLEN]).unwrap_or(0.0),
            written: servers.iter().map(|pid| written_bytes(*pid)).collect(),
            resident: servers.iter().map(|pid| resident_bytes(*pid)).collect(),
        }
    }

    /// What was used since `earlier`. A server that ended in between counts as unknown.
    pub(crate) fn since(&self, earlier: &Self) -> CpuUsed {
        let known = !self.servers.is_empty();
        let each = self.servers.iter().zip(&earlier.servers).map(|(now, then)| Some((*now)? - (*then)?));
        let servers = if known { each.sum::<Option<f64>>() } else { None };
        let each =
            self.written.iter().zip(&earlier.written).map(|(now, then)| now.as_ref()?.checked_sub((*then)?));
        let written = if known { each.sum::<Option<u64>>() } else { None };
        let resident = if known { self.resident.iter().copied().sum::<Option<u64>>() } else { None };
        let stolen = (self.stolen - earlier.stolen).max(0.0);
        let client = self.client - earlier.client;
        let foreign = (self.busy - earlier.busy - client - servers.unwrap_or(0.0)).max(0.0);
        CpuUsed { servers, client, foreign, stolen, written, resident }
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

/// Bytes that the process caused to be sent to a disk, by whatever thread; none without the permission to look.
fn written_bytes(pid: u32) -> Option<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/io")).ok()?, "write_bytes:")
}

fn resident_bytes(pid: u32) -> Option<u64> {
    Some(field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS:")? * 1024)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Of the machine's times in `/proc/stat`: all but idle, waiting for I/O, what was stolen, and the guests', which user time
/// has already.
const BUSY: [usize; 5] = [0, 1, 2, 5, 6];
/// Time that the hypervisor gave to others.
const STOLEN: usize = 7;

/// The share of the machine's CPU time that this process doesn't get, looked at for so long: what other programs use, and
/// what the hypervisor gives to others.
pub(crate) fn busy_share(lasting: std::time::Duration) -> f64 {
    let before = (std::time::Instant::now(), CpuReading::take(&[]));
    std::thread::sleep(lasting);
    let used = CpuReading::take(&[]).since(&before.1);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    (used.foreign + used.stolen) / before.0.elapsed().as_secs_f64() / cpus
}

fn parse_machine(stat: &str, kinds: &[usize]) -> Option<f64> {
    let mut words = stat.lines().next()?.split_whitespace();
    if words.next() != Some("cpu") {
        return None;
    }
    let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    let busy: u64 = kinds.iter().filter_map(|&index| ticks.get(index)).sum();
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
        assert_eq!(parse_machine(machine, &BUSY), Some(63.0 / clock_ticks_per_second() as f64));
        assert_eq!(parse_machine(machine, &[STOLEN]), Some(3.0 / clock_ticks_per_second() as f64));
        assert_eq!(field("rchar: 1\nwrite_bytes: 4096\n", "write_bytes:"), Some(4096));
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
    }

    #[test]
    fn this_process_uses_cpu() {
        let before = CpuReading::take(&[std::process::id(), 0]);
        let until = std::time::Instant::now() + std::time::Duration::from_millis(50);
        while std::time::Instant::now() < until {}
        let used = CpuReading::take(&[std::process::id()]).since(&before);
        assert!(used.client > 0.0 && used.servers.is_some_and(|seconds| seconds > 0.0));
        assert!(used.resident.is_some_and(|bytes| bytes > 1 << 20), "{used:?}");
        assert_eq!(CpuReading::take(&[0]).since(&CpuReading::take(&[0])).servers, None);
    }
}
