//! A machine that appends to its log, and nothing else: so many appenders, each of which appends again when its last entry
//! is durable.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_runtime::{CoreBoot, Effect, Effects, Event, FileKind, Machine, Nanos, Now};
use flotilla_storage::{
    Identity, Log, LogConfig, Lsn, Progress, RECORD_HEADER_BYTES, RecordHeader, RecordKind, Recovery,
};

use crate::recorder::{Latencies, latencies};

/// Bytes of a record whose frame is one block of 4096.
pub(crate) const ONE_BLOCK: usize = 4096 - 96 - RECORD_HEADER_BYTES;
pub(crate) const IDENTITY: Identity = Identity { cluster: 1, node: 1, core: 0 };

/// What to append.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) appenders: usize,
    /// Of an entry's payload.
    pub(crate) bytes: usize,
    pub(crate) groups: u64,
    pub(crate) commits: usize,
    /// Not measured; begins with the first durable entry.
    pub(crate) warmup: Duration,
    /// Measured.
    pub(crate) time: Duration,
    /// Every entry stays needed, and it is over after so many bytes of entries; else segments are used again.
    pub(crate) keep: Option<u64>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) latencies: Latencies,
    pub(crate) appends: u64,
    /// From the end of the warm-up to the last append counted.
    pub(crate) nanos: Nanos,
    /// The warm-up is over.
    pub(crate) has_begun: bool,
    /// The load has run as long as it should.
    pub(crate) is_over: bool,
}

impl Measured {
    fn new() -> Self {
        Self { latencies: latencies(), appends: 0, nanos: 0, has_begun: false, is_over: false }
    }
}

/// Handed out of the core's thread.
pub(crate) type Shared = Arc<Mutex<Measured>>;

pub(crate) fn shared() -> Shared {
    Arc::new(Mutex::new(Measured::new()))
}

/// See the module.
pub(crate) struct Appender {
    plan: Plan,
    log: Log,
    payload: Vec<u8>,
    /// Appended and not durable: the frame, and when.
    waiting: VecDeque<(Lsn, Nanos)>,
    free: usize,
    /// The last index of every group.
    last: Vec<u64>,
    next_group: usize,
    appended_bytes: u64,
    begun: Option<Nanos>,
    measured: Measured,
    shared: Shared,
    is_stopping: bool,
}

impl Appender {
    /// On what recovery finds in the boot's files.
    pub(crate) fn new(plan: Plan, boot: CoreBoot, shared: Shared) -> Result<Self, String> {
        let mut recovery = Recovery::new(IDENTITY);
        for (file, image) in boot.files.into_iter().filter(|(file, _)| file.kind == FileKind::Segment) {
            recovery.segment(file, image).map_err(|error| error.to_string())?;
        }
        let recovered = recovery.finish().map_err(|error| error.to_string())?;
        let config = LogConfig { commits_in_flight: plan.commits, ..LogConfig::new(IDENTITY) };
        Ok(Self {
            log: Log::open(config, boot.pool, recovered.tail),
            payload: vec![0x5a; plan.bytes],
            waiting: VecDeque::new(),
            free: plan.appenders,
            last: vec![0; usize::try_from(plan.groups).map_err(|error| error.to_string())?],
            next_group: 0,
            appended_bytes: 0,
            begun: None,
            measured: Measured::new(),
            shared,
            is_stopping: false,
            plan,
        })
    }

    fn append(&mut self, now: Nanos) {
        let place = self.next_group;
        self.next_group = (place + 1) % self.last.len();
        self.last[place] += 1;
        let header = RecordHeader {
            group: place as u64,
            kind: RecordKind::Entry,
            schema: 9,
            index: self.last[place],
            term: 1,
            length: u32::try_from(self.payload.len()).expect("entries are small"),
        };
        self.log.append(&header, &self.payload);
        self.appended_bytes += self.payload.len() as u64;
        self.waiting.push_back((self.log.open_lsn(), now));
    }

    fn advanced(&mut self, now: Nanos, lsn: Lsn) {
        let begun = *self.begun.get_or_insert(now);
        let measure = now.saturating_sub(begun) >= nanos(self.plan.warmup) && !self.measured.is_over;
        if measure && !self.measured.has_begun {
            self.measured.has_begun = true;
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).has_begun = true;
        }
        while let Some((_, at)) = self.waiting.pop_front_if(|(frame, _)| *frame <= lsn) {
            self.free += 1;
            if measure {
                self.measured.latencies.saturating_record(now - at);
                self.measured.appends += 1;
            }
        }
        let from = begun + nanos(self.plan.warmup);
        if measure {
            self.measured.nanos = now - from;
        }
        let over = match self.plan.keep {
            Some(bytes) => self.appended_bytes >= bytes,
            None => now >= from + nanos(self.plan.time),
        };
        if self.plan.keep.is_none() {
            // What is durable isn't needed any more: its segments are used again.
            for (group, last) in self.last.iter().enumerate() {
                self.log.release(group as u64, last.saturating_sub(self.waiting.len() as u64));
            }
        }
        if over && !self.measured.is_over {
            self.measured.is_over = true;
            *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = self.measured.clone();
        }
    }
}

fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Machine for Appender {
    type Message = ();

    fn step(&mut self, now: Now, event: Event<'_, ()>, out: &mut Effects<()>) {
        match event {
            Event::Tick => self.log.tick(now.monotonic, out),
            Event::Disk { op, result } => {
                if let Some(Progress::Advanced(lsn)) = self.log.disk(op, &result, out) {
                    self.advanced(now.monotonic, lsn);
                }
            }
            Event::Shutdown => self.is_stopping = true,
            _ => {}
        }
    }

    fn flush(&mut self, now: Now, out: &mut Effects<()>) {
        while self.free > 0 && !self.is_stopping && !self.measured.is_over {
            self.free -= 1;
            self.append(now.monotonic);
        }
        self.log.flush(now.monotonic, out);
        if self.is_stopping && self.waiting.is_empty() {
            out.push(Effect::Drained);
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        self.log.deadline()
    }
}
