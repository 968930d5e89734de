//! What a core counts about itself, for whoever operates it.
//!
//! The driver counts what only it sees (bytes, turns, the mesh) in [`Vitals`], which it shares with the machine of the same core
//! and with nobody else: plain cells, no atomics. The machine counts the rest itself, and tells all of it when it is asked. No
//! decision may rest on any of this: in the simulator these counters stand still.

use crate::machine::PeerId;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// How many numbers a [`Histogram`] has.
pub const BUCKETS: usize = 26;

/// Bucket 0 ends at so many powers of two.
const FIRST_BITS: u32 = 10;

/// How long things took. Bucket `i` counts what took at most 2^(10+i) ns and more than bucket `i - 1` says; the last has no end.
/// Taking a value down is a shift, a count of zeros and two additions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum_nanos: u64,
}

impl Histogram {
    /// Takes down something that took so many nanoseconds.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        let bits = u64::BITS - (nanos.saturating_sub(1) >> FIRST_BITS).leading_zeros();
        self.counts[(bits as usize).min(BUCKETS - 1)] += 1;
        self.sum_nanos = self.sum_nanos.wrapping_add(nanos);
    }

    /// Counts what another has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(other.sum_nanos);
    }

    /// What each bucket has counted.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }

    /// All that was taken down, together, in nanoseconds.
    pub fn sum_nanos(&self) -> u64 {
        self.sum_nanos
    }

    /// How often something was taken down.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The longest that bucket `i` counts, in nanoseconds; `None` for the last.
    pub fn bound_nanos(bucket: usize) -> Option<u64> {
        let bits = FIRST_BITS + u32::try_from(bucket).ok()?;
        (bucket + 1 < BUCKETS).then(|| 1 << bits)
    }
}

/// Something that is counted.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// One more.
    #[inline]
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.set(self.0.get().wrapping_add(more));
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// What the kernel says of the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessFigures {
    /// CPU time so far, of user and system, in clock ticks, and how many of them are a second.
    pub cpu_ticks: u64,
    /// See above.
    pub ticks_per_second: u64,
    /// Memory that is in use, in bytes.
    pub resident_bytes: u64,
    /// Address space, in bytes.
    pub virtual_bytes: u64,
    /// Open files and sockets.
    pub open_files: u64,
    /// How many there may be.
    pub open_files_max: u64,
    /// When the process was started, in seconds since 1970.
    pub started_unix_seconds: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessFigures {
    /// CPU time so far.
    #[allow(clippy::cast_precision_loss, reason = "ticks of a process are far below 2^53")]
    pub fn cpu_seconds(&self) -> f64 {
        self.cpu_ticks as f64 / self.ticks_per_second.max(1) as f64
    }
}

/// What a core's driver counts. All since the core was started.
#[derive(Debug, Default)]
pub struct Vitals {
    /// Bytes read from clients, without what TLS adds.
    pub client_bytes_in: Counter,
    /// Bytes of replies, without what TLS adds.
    pub client_bytes_out: Counter,
    /// Clients that were turned away, since there were too many.
    pub clients_refused: Counter,
    /// Clients that were cut off, since they didn't read or sent what never ends.
    pub clients_cut_off: Counter,
    /// Connections under TLS that didn't come about.
    pub tls_failures: Counter,
    /// Frames sent to other nodes.
    pub peer_frames_out: Counter,
    /// Their bytes.
    pub peer_bytes_out: Counter,
    /// Frames that weren't sent: there was no link, or it didn't keep up.
    pub peer_frames_dropped: Counter,
    /// Frames from other nodes.
    pub peer_frames_in: Counter,
    /// Their bytes.
    pub peer_bytes_in: Counter,
    /// The version of the nodes' protocol that is spoken over each link that stands.
    pub peer_versions: RefCell<BTreeMap<PeerId, u16>>,
    /// Messages to other cores.
    pub mesh_messages_out: Counter,
    /// Messages from other cores.
    pub mesh_messages_in: Counter,
    /// Messages that found a full ring, and waited.
    pub mesh_full: Counter,
    /// Cores that slept and were woken by us.
    pub mesh_rings: Counter,
    /// How long the last [`Machine::apply`](crate::Machine::apply) and the [`Machine::flush`](crate::Machine::flush) behind it took, in
    /// nanoseconds: what was done in them only the machine knows.
    pub applied_nanos: Cell<u64>,
    /// See above.
    pub flushed_nanos: Cell<u64>,
    /// From a write to a segment to its end, if a sync follows.
    pub segment_writes: RefCell<Histogram>,
    /// The same for syncs of segments, and for writes that are durable by themselves.
    pub segment_syncs: RefCell<Histogram>,
    /// Tasks that held the core for more than 5 ms.
    pub stalls: Counter,
    /// How long the core worked between two waits.
    pub turns: RefCell<Histogram>,
    /// What the kernel says of the process: newest where the question came in, zeros elsewhere.
    pub process: Cell<ProcessFigures>,
}

impl Vitals {
    /// Everything at zero.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_that_says_so() {
        for nanos in [0, 1, 1023, 1024, 1025, 2048, 2049, 1 << 20, (1 << 34) - 1, 1 << 34, 1 << 40, u64::MAX]
        {
            let mut histogram = Histogram::default();
            histogram.record(nanos);
            let at = histogram.counts().iter().position(|count| *count == 1).unwrap();
            assert!(Histogram::bound_nanos(at).is_none_or(|bound| nanos <= bound), "{nanos} is in {at}");
            let below = at.checked_sub(1).map(|below| Histogram::bound_nanos(below).unwrap());
            assert!(below.is_none_or(|bound| nanos > bound), "{nanos} is in {at}");
            assert_eq!((histogram.count(), histogram.sum_nanos()), (1, nanos));
        }
        assert_eq!(Histogram::bound_nanos(0), Some(1024));
        assert_eq!(Histogram::bound_nanos(BUCKETS - 1), None);
    }

    #[test]
    fn histograms_add_up() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        one.record(5);
        [5000, 7].into_iter().for_each(|nanos| other.record(nanos));
        one.add(&other);
        assert_eq!((one.count(), one.sum_nanos(), one.counts()[0], one.counts()[3]), (3, 5012, 2, 1));
    }
}
