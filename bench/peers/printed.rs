//! What a peer's program prints of a load, and what it reads of itself for that: one JSON object, as `bench/src/turn.rs` reads
//! it. Each program includes this file as a module.

use std::time::Instant;

/// What this process has used so far.
pub struct Usage {
    cpu_seconds: f64,
    written_bytes: u64,
    at: Instant,
}

impl Usage {
    pub fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
        let ticks = |place: usize| fields[place].parse::<f64>().expect("a number of ticks");
        // User and system time, in ticks of 10 ms.
        let cpu_seconds = (ticks(11) + ticks(12)) / 100.0;
        Self { cpu_seconds, written_bytes: field("/proc/self/io", "write_bytes:"), at: Instant::now() }
    }
}

/// Prints what was seen in the measured time, which began when `before` was read. `latencies`: nanoseconds, and how often.
pub fn print(operations: u64, seconds: f64, before: &Usage, latencies: impl Iterator<Item = (u64, u64)>) {
    let now = Usage::now();
    // On a busy machine the thread that reads it comes late: what it missed was as what it saw.
    let missed = seconds / before.at.elapsed().as_secs_f64();
    let latencies: Vec<String> = latencies.map(|(value, count)| format!("[{value},{count}]")).collect();
    println!(
        "{{\"operations\": {operations}, \"seconds\": {seconds}, \"cpu_seconds\": {}, \"written_bytes\": {}, \
         \"peak_memory_bytes\": {}, \"latencies_ns\": [{}]}}",
        (now.cpu_seconds - before.cpu_seconds) * missed,
        ((now.written_bytes - before.written_bytes) as f64 * missed).round(),
        field("/proc/self/status", "VmHWM:") * 1024,
        latencies.join(",")
    );
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
