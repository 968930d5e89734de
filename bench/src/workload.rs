//! What is asked of a server: keys, values, the mix of reads and writes, and how the asking is paced.

use std::time::{Duration, Instant};

use flotilla_runtime::SplitMix64;
use flotilla_runtime::random::mix;
use serde::{Deserialize, Serialize};

use crate::distribution::{Distribution, Keys};

/// Bytes of every key: `key:` and twelve digits, as redis-benchmark has them.
pub(crate) const KEY_BYTES: usize = 16;

/// A whole load, the same for every target.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Which operations.
    pub(crate) operations: Operations,
    /// Logical clients.
    pub(crate) clients: usize,
    /// Requests a client keeps in flight.
    pub(crate) pipeline: usize,
    /// Arrivals a second, or none for a closed loop: as fast as the replies come.
    pub(crate) rate: Option<f64>,
    /// Of an open loop: arrivals come in bursts.
    pub(crate) bursts: Option<Bursts>,
    /// Event loops of the load generator.
    pub(crate) threads: usize,
    /// Not measured.
    pub(crate) warmup: Duration,
    /// Measured.
    pub(crate) seconds: Duration,
}

/// Which operations, in which proportion.
#[derive(Clone, Debug)]
pub(crate) struct Operations {
    /// The number of the first key.
    pub(crate) first_key: u64,
    /// How many keys there are.
    pub(crate) keys: u64,
    /// How often each key is asked for.
    pub(crate) distribution: Distribution,
    /// Percent of reads; the others are writes.
    pub(crate) reads_percent: u8,
    /// What a read and a write are.
    pub(crate) flavour: Flavour,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// Where the sequence starts.
    pub(crate) seed: u64,
    /// Write every key once, in order, and stop.
    pub(crate) fill: bool,
}

/// What reads and writes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// GET and SET.
    #[default]
    Plain,
    /// GET, and SET of a key that wasn't there.
    Insert,
    /// Up to a hundred keys in order with their values, and SET of a key that wasn't there.
    Scan,
    /// GET; a write is a GET and then a SET of the same key, and counts once, with the time of both.
    ReadModifyWrite,
}

impl Flavour {
    /// How many keys a scan from `key` returns at most: 1 to 100, as evenly as YCSB has it.
    pub(crate) fn scan_limit(key: u64) -> u64 {
        1 + mix(key) % 100
    }
}

/// Arrivals that come in bursts: all of a period's in its first part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bursts {
    /// From one burst to the next.
    pub(crate) period: Duration,
    /// Which part of the period has all its arrivals, above 0 and at most 1.
    pub(crate) duty: f64,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// The key's number.
    pub(crate) key: u64,
    /// A read, or else a write.
    pub(crate) read: bool,
}

/// The sequence of operations of one thread.
#[derive(Debug)]
pub(crate) struct Source {
    operations: Operations,
    keys: Keys,
    /// Keys inserted so far, by this thread.
    inserted: u64,
    /// This thread's number, and how many there are.
    thread: (u64, u64),
    random: SplitMix64,
    /// Filling: the next key, and the end.
    fill: std::ops::Range<u64>,
    /// Filling: keys whose write failed.
    again: Vec<u64>,
}

impl Source {
    /// The sequence of thread `thread` out of `threads`.
    pub(crate) fn new(operations: &Operations, thread: usize, threads: usize) -> Self {
        let part = |index: usize| operations.keys * index as u64 / threads as u64;
        Self {
            keys: Keys::new(operations.distribution, operations.keys),
            inserted: 0,
            thread: (thread as u64, threads as u64),
            random: SplitMix64::new(
                operations.seed.wrapping_add(thread as u64).wrapping_mul(0x2545_f491_4f6c_dd1d),
            ),
            fill: part(thread)..part(thread + 1),
            again: Vec::new(),
            operations: operations.clone(),
        }
    }

    /// The next operation; none once the fill is done.
    pub(crate) fn next(&mut self) -> Option<Operation> {
        if self.operations.fill {
            let key = self.again.pop().or_else(|| self.fill.next())?;
            return Some(Operation { key: self.operations.first_key + key, read: false });
        }
        let inserts = matches!(self.operations.flavour, Flavour::Insert | Flavour::Scan);
        let key = self.keys.next(&mut self.random, self.inserted * self.thread.1);
        let read = match self.operations.reads_percent {
            0 => false,
            100 => true,
            percent => self.random.below(100) < u64::from(percent),
        };
        if inserts && !read {
            let key = self.operations.keys + self.inserted * self.thread.1 + self.thread.0;
            self.inserted += 1;
            return Some(Operation { key: self.operations.first_key + key, read });
        }
        Some(Operation { key: self.operations.first_key + key, read })
    }

    /// An operation failed: a fill must do it again.
    pub(crate) fn give_back(&mut self, operation: Operation) {
        if self.operations.fill {
            self.again.push(operation.key - self.operations.first_key);
        }
    }
}

/// Writes key number `key` into its sixteen bytes.
pub(crate) fn key_into(bytes: &mut [u8], mut key: u64) {
    bytes[..4].copy_from_slice(b"key:");
    for digit in bytes[4..KEY_BYTES].iter_mut().rev() {
        *digit = b'0' + (key % 10) as u8;
        key /= 10;
    }
}

/// A value: letters that no server compresses away, the same for every target.
pub(crate) fn value(bytes: usize) -> Vec<u8> {
    let mut random = SplitMix64::new(0x76a1);
    (0..bytes)
        .map(|_| {
            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[random.below(64) as usize]
        })
        .collect()
}

/// An open loop's fixed arrivals: when operation number `n` was meant to start, whatever became of those before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    rate: f64,
    bursts: Option<Bursts>,
    /// Threads take turns, so that their arrivals interleave evenly.
    thread: usize,
    threads: usize,
}

impl Schedule {
    /// The arrivals of thread `thread` out of `threads`, which share `rate` a second.
    pub(crate) fn new(rate: f64, thread: usize, threads: usize) -> Self {
        assert!(rate > 0.0 && thread < threads);
        Self { rate, bursts: None, thread, threads }
    }

    /// The same arrivals on average, in bursts.
    pub(crate) fn in_bursts(self, bursts: Option<Bursts>) -> Self {
        Self { bursts, ..self }
    }

    /// Nanoseconds from the start to this thread's arrival number `index`.
    pub(crate) fn arrival_ns(&self, index: u64) -> u64 {
        let overall = index as f64 * self.threads as f64 + self.thread as f64;
        let even_ns = overall * 1e9 / self.rate;
        let Some(bursts) = self.bursts else { return even_ns as u64 };
        let period_ns = bursts.period.as_nanos() as f64;
        let begun_ns = (even_ns / period_ns).floor() * period_ns;
        (begun_ns + (even_ns - begun_ns) * bursts.duty) as u64
    }
}

/// The parts of a run on one clock: nanoseconds since its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phases {
    /// Zero on the clock.
    pub(crate) start: Instant,
    /// From here on operations count.
    pub(crate) measure_ns: u64,
    /// From here on none is started.
    pub(crate) end_ns: u64,
    /// From here on those in flight are given up.
    pub(crate) give_up_ns: u64,
}

/// How long replies are waited for after the end. In an open loop a reply that comes late is a long latency, and
/// leaving it out would flatter.
const DRAIN: Duration = Duration::from_secs(10);
/// A fill takes as long as it takes, up to this.
const FILL_MAX: Duration = Duration::from_secs(300);

impl Phases {
    /// The phases of `load`, starting `lead` from now, when all threads and connections are up.
    pub(crate) fn of(load: &Load, lead: Duration) -> Self {
        let end = if load.operations.fill { FILL_MAX } else { load.warmup + load.seconds };
        Self {
            start: Instant::now() + lead,
            measure_ns: load.warmup.as_nanos() as u64,
            end_ns: end.as_nanos() as u64,
            give_up_ns: (end + DRAIN).as_nanos() as u64,
        }
    }

    /// Which of `parts` equal parts of the measured time `ns` is in.
    pub(crate) fn slice(&self, ns: u64, parts: usize) -> usize {
        let length_ns = (self.end_ns - self.measure_ns).max(1);
        let part = ns.saturating_sub(self.measure_ns).saturating_mul(parts as u64) / length_ns;
        (part as usize).min(parts - 1)
    }

    /// Now on this clock.
    pub(crate) fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The instant of a reading of this clock.
    pub(crate) fn instant(&self, ns: u64) -> Instant {
        self.start + Duration::from_nanos(ns)
    }

    /// Whether an operation counts: a closed loop's by when it was done, an open loop's by when it was meant.
    pub(crate) fn counts(&self, ns: u64) -> bool {
        (self.measure_ns..self.end_ns).contains(&ns)
    }
}

/// The load as it appears in the JSON report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadSummary {
    pub(crate) loop_kind: String,
    pub(crate) clients: usize,
    pub(crate) pipeline: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    threads: usize,
    keys: u64,
    distribution: String,
    pub(crate) reads_percent: u8,
    pub(crate) value_bytes: usize,
    pub(crate) warmup_seconds: f64,
    pub(crate) seconds: f64,
}

impl LoadSummary {
    /// A load that has no keys: so much under way at once, of so many bytes.
    pub(crate) fn without_keys(clients: usize, bytes: usize, warmup: Duration, seconds: Duration) -> Self {
        Self {
            loop_kind: "closed".to_owned(),
            clients,
            pipeline: 1,
            rate: None,
            threads: 0,
            keys: 0,
            distribution: "none".to_owned(),
            reads_percent: 0,
            value_bytes: bytes,
            warmup_seconds: warmup.as_secs_f64(),
            seconds: seconds.as_secs_f64(),
        }
    }
}

impl From<&Load> for LoadSummary {
    fn from(load: &Load) -> Self {
        Self {
            loop_kind: if load.rate.is_some() { "open" } else { "closed" }.to_owned(),
            clients: load.clients,
            pipeline: load.pipeline,
            rate: load.rate,
            threads: load.threads,
            keys: load.operations.keys,
            distribution: load.operations.distribution.to_string(),
            reads_percent: load.operations.reads_percent,
            value_bytes: load.operations.value_bytes,
            warmup_seconds: load.warmup.as_secs_f64(),
            seconds: load.seconds.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations() -> Operations {
        Operations {
            first_key: 0,
            keys: 1000,
            distribution: Distribution::Uniform,
            reads_percent: 30,
            value_bytes: 64,
            flavour: Flavour::Plain,
            seed: 1,
            fill: false,
        }
    }

    #[test]
    fn arrivals_are_even_and_never_move() {
        let schedule = Schedule::new(1000.0, 0, 1);
        assert_eq!(
            (0..4).map(|n| schedule.arrival_ns(n)).collect::<Vec<_>>(),
            [0, 1_000_000, 2_000_000, 3_000_000]
        );
        // No drift: the millionth arrival is where a million periods end, not a million roundings later.
        assert_eq!(Schedule::new(3.0, 0, 1).arrival_ns(3_000_000), 1_000_000 * 1_000_000_000);
    }

    #[test]
    fn bursts_keep_the_rate_and_leave_gaps() {
        let bursts = Bursts { period: Duration::from_secs(1), duty: 0.1 };
        let schedule = Schedule::new(100.0, 0, 1).in_bursts(Some(bursts));
        let arrivals: Vec<u64> = (0..300).map(|index| schedule.arrival_ns(index)).collect();
        assert!(arrivals.is_sorted());
        for second in 0..3 {
            let begins = second * 1_000_000_000;
            let inside = arrivals.iter().filter(|at| (begins..begins + 100_000_000).contains(*at)).count();
            assert_eq!(inside, 100, "all of second {second} come in its first tenth");
        }
    }

    #[test]
    fn inserts_are_new_keys_and_all_threads_insert_others() {
        let operations = Operations { flavour: Flavour::Insert, reads_percent: 50, ..operations() };
        let mut inserted: Vec<u64> = Vec::new();
        for thread in 0..3 {
            let mut source = Source::new(&operations, thread, 3);
            let drawn = (0..1000).map(|_| source.next().unwrap());
            inserted.extend(drawn.filter(|it| !it.read).map(|it| it.key));
        }
        let count = inserted.len();
        inserted.sort_unstable();
        inserted.dedup();
        assert_eq!(inserted.len(), count, "no key twice");
        assert!(inserted.iter().all(|key| *key >= 1000));
    }

    #[test]
    fn threads_share_one_schedule() {
        let mut arrivals: Vec<u64> = (0..4)
            .flat_map(|thread| (0..25).map(move |index| Schedule::new(100.0, thread, 4).arrival_ns(index)))
            .collect();
        arrivals.sort_unstable();
        let alone: Vec<u64> = (0..100).map(|index| Schedule::new(100.0, 0, 1).arrival_ns(index)).collect();
        assert_eq!(arrivals, alone);
    }

    #[test]
    fn the_mix_is_the_one_asked_for_and_repeats() {
        let draw = || {
            let mut source = Source::new(&operations(), 0, 1);
            (0..10_000).map(|_| source.next().unwrap()).collect::<Vec<_>>()
        };
        let drawn = draw();
        assert_eq!(drawn, draw());
        let reads = drawn.iter().filter(|operation| operation.read).count();
        assert!((2_800..3_200).contains(&reads), "{reads}");
        assert!(drawn.iter().all(|operation| operation.key < 1000));
    }

    #[test]
    fn a_fill_writes_every_key_once_over_all_threads() {
        let fill = Operations { fill: true, ..operations() };
        let mut keys = Vec::new();
        for thread in 0..3 {
            let mut source = Source::new(&fill, thread, 3);
            let first = source.next().unwrap();
            source.give_back(first);
            keys.extend(std::iter::from_fn(|| source.next()).map(|operation| operation.key));
        }
        keys.sort_unstable();
        assert_eq!(keys, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn keys_are_sixteen_bytes() {
        let mut bytes = [0; KEY_BYTES];
        key_into(&mut bytes, 1234);
        assert_eq!(&bytes, b"key:000000001234");
    }
}
