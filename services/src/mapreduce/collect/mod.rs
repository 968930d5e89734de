//! What map functions emit, gathered until it is sorted and written: in a table where values of a key are put together
//! at once, or one pair behind the other.
//!
//! One collector serves all tasks of a worker, one after the other, so its memory is asked for once.

mod pairs;
mod table;

pub use pairs::Pairs;
pub use table::Table;

use super::job::{Combiner, Emit, Job};
use super::partition::Partitioner;
use super::run::RunWriter;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

/// Where the pairs of a job go, and how.
#[derive(Clone)]
pub struct Plan {
    /// The job's functions.
    pub job: Arc<dyn Job>,
    /// How keys are spread.
    pub partitioner: Partitioner,
    /// Over how many.
    pub partitions: u32,
    /// The collector asks to be emptied when it holds more.
    pub memory_bytes_max: usize,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl Plan {
    fn partition_of(&self, key: &[u8]) -> u32 {
        match self.job.partition(key, self.partitions) {
            Some(partition) => partition.min(self.partitions - 1),
            None => self.partitioner.of(key, self.partitions),
        }
    }
}

#[derive(Debug)]
enum Held {
    Pairs(Pairs),
    Table(Table),
}

/// Takes what a map function emits.
#[derive(Debug)]
pub struct Collector {
    plan: Plan,
    held: Held,
    counters: BTreeMap<String, u64>,
}

impl Collector {
    /// An empty one.
    pub fn new(plan: Plan) -> Self {
        let held = match plan.job.combiner() {
            Combiner::None => Held::Pairs(Pairs::with_room(plan.memory_bytes_max)),
            combiner => Held::Table(Table::new(combiner)),
        };
        Self { plan, held, counters: BTreeMap::new() }
    }

    /// Whether it should be written out before more comes.
    #[inline]
    pub fn is_full(&self) -> bool {
        let bytes = match &self.held {
            Held::Pairs(pairs) => pairs.bytes(),
            Held::Table(table) => table.bytes(),
        };
        bytes >= self.plan.memory_bytes_max
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        match &self.held {
            Held::Pairs(pairs) => pairs.is_empty(),
            Held::Table(table) => table.is_empty(),
        }
    }

    /// Sorts what is held and appends it, a segment for each partition; then nothing is held.
    ///
    /// # Errors
    /// As the writer.
    pub fn write_into<W: Write>(&mut self, run: &mut RunWriter<W>) -> io::Result<()> {
        let mut current = None;
        self.drain(|partition, key, value| {
            if current != Some(partition) {
                if current.is_some() {
                    run.end()?;
                }
                run.begin(partition);
                current = Some(partition);
            }
            run.push(key, value)
        })?;
        if current.is_some() {
            run.end()?;
        }
        Ok(())
    }

    /// Hands out what is held, by partition and then key; then nothing is held.
    ///
    /// # Errors
    /// The first that `take` has.
    pub fn drain<E>(&mut self, take: impl FnMut(u32, &[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        match &mut self.held {
            Held::Pairs(pairs) => pairs.drain(&self.plan, take),
            Held::Table(table) => table.drain(&self.plan, take),
        }
    }

    /// Forgets everything: an attempt has failed.
    pub fn clear(&mut self) {
        self.counters.clear();
        match &mut self.held {
            Held::Pairs(pairs) => pairs.clear(),
            Held::Table(table) => table.clear(),
        }
    }

    /// The job's counters since they were last taken.
    pub fn take_counters(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.counters)
    }
}

impl Emit for Collector {
    #[inline]
    fn emit(&mut self, key: &[u8], value: &[u8]) {
        match &mut self.held {
            Held::Pairs(pairs) => pairs.push(&self.plan, key, value),
            Held::Table(table) => table.emit(&*self.plan.job, key, value),
        }
    }

    #[inline]
    fn count(&mut self, key: &[u8], n: u64) {
        match &mut self.held {
            Held::Table(table) if table.sums() => table.add(key, n),
            _ => {
                let mut value = Vec::with_capacity(10);
                super::varint::put(&mut value, n);
                self.emit(key, &value);
            }
        }
    }

    #[inline]
    fn count_span(&mut self, block: &[u8], start: usize, end: usize) {
        match &mut self.held {
            Held::Table(table) if table.sums() => table.add_span(block, start, end),
            _ => self.count(&block[start..end], 1),
        }
    }

    #[inline]
    fn emit_span(&mut self, block: &[u8], start: usize, end: usize, value: &[u8]) {
        match &mut self.held {
            Held::Table(table) if table.is_set() => table.insert_span(block, start, end, value),
            _ => self.emit(&block[start..end], value),
        }
    }

    fn counter(&mut self, name: &str, n: u64) {
        match self.counters.get_mut(name) {
            Some(counter) => *counter += n,
            None => {
                self.counters.insert(name.to_owned(), n);
            }
        }
    }
}
