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
    parse_times(stat, [11, 12])
}

fn parse_times(stat: &str, places: [usize; 2]) -> Option<f64> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((ticks(places[0])? + ticks(places[1])?) as f64 / clock_ticks_per_second() as f64)
}

/// Bytes that the process caused to be sent to a disk, by whatever thread; none without the permission to look.
fn written_bytes(pid: u32) -> Option<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/io")).ok()?, "write_bytes:")
}

/// Its memory that is in RAM.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    memory_bytes(pid, "VmRSS:")
}

/// The most memory that the process has had so far.
pub(crate) fn peak_bytes(pid: u32) -> Option<u64> {
    memory_bytes(pid, "VmHWM:")
}

/// Memory of the process that no file stands behind.
fn anonymous_bytes(pid: u32) -> Option<u64> {
    memory_bytes(pid, "RssAnon:")
}

fn memory_bytes(pid: u32, kind: &str) -> Option<u64> {
    Some(field(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, kind)? * 1024)
}

/// The processes that `pid` has started and that live.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<String> = lists.collect();
    all.iter().flat_map(|list| list.split_whitespace()).filter_map(|child| child.parse().ok()).collect()
}

/// A process and all that it has started, and those, as far as they live.
fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(parent) = all.get(next).copied() {
        all.extend(children(parent));
        next += 1;
    }
    all
}

/// The highest sum of anonymous memory of a process and those that it starts, looked at every 10 ms until it has ended or
/// `is_over`.
pub(crate) fn watch_peak(pid: u32, is_over: impl Fn() -> bool) -> u64 {
    let mut peak = 0;
    // A process that has ended has no memory, even while nobody has noticed its end.
    while anonymous_bytes(pid).is_some() && !is_over() {
        peak = peak.max(tree(pid).into_iter().filter_map(anonymous_bytes).sum::<u64>());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    peak
}

/// What all processes that this one has started have used so far: those that have ended, and those that live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    /// User and system time.
    pub(crate) seconds: f64,
    /// Bytes sent to disks; this process's own are among them.
    pub(crate) written: u64,
}

impl Family {
    /// Reads it.
    pub(crate) fn take() -> Self {
        let own = std::process::id();
        let tree = tree(own);
        let seconds = tree.iter().filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let ended = parse_times(&stat, [13, 14])?;
            // Its own time isn't its children's.
            Some(if *pid == own { ended } else { ended + parse_process(&stat)? })
        });
        let seconds = seconds.sum();
        Self { seconds, written: tree.into_iter().filter_map(written_bytes).sum() }
    }

    /// What was used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let seconds = (self.seconds - earlier.seconds).max(0.0);
        Self { seconds, written: self.written.saturating_sub(earlier.written) }
    }
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
    fn what_children_use_is_counted_while_they_live_and_after() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let before = Family::take();
        // The shell's own child does the work: 4 MiB to the disk and some CPU time.
        let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; dd if=/dev/zero of=x bs=1M count=4 conv=fsync' 2>/dev/null; \
                      echo; read line";
        let mut child = std::process::Command::new("sh")
            .args(["-c", script])
            .current_dir(folder.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        assert!(children(std::process::id()).contains(&child.id()));
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let alive = Family::take().since(&before);
        let looked = std::cell::Cell::new(false);
        assert!(watch_peak(child.id(), || looked.replace(true)) > 0, "a shell has memory");
        assert!(alive.seconds > 0.0 && alive.written >= 4 << 20, "{alive:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
        let ended = Family::take().since(&before);
        assert!(ended.seconds >= alive.seconds && ended.written >= alive.written, "{alive:?} {ended:?}");
        assert!(peak_bytes(std::process::id()) >= resident_bytes(std::process::id()).map(|it| it / 2));
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
