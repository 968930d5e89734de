//! How often each word occurs.

use crate::mapreduce::job::{Combiner, Done, Emit, InputFormat, Job, Record, Values};
use crate::mapreduce::words::words;

#[derive(Debug)]
pub(super) struct WordCount;

impl Job for WordCount {
    fn input(&self) -> InputFormat {
        InputFormat::Blocks
    }

    fn combiner(&self) -> Combiner {
        Combiner::Sum
    }

    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done {
        words(record.bytes, |start, end| out.count_span(record.bytes, start, end));
        Ok(())
    }

    fn reduce(&self, key: &[u8], values: &mut dyn Values, out: &mut dyn Emit) -> Done {
        let mut sum = 0_u64;
        while let Some(n) = values.next_count() {
            sum += n;
        }
        out.emit(key, sum.to_string().as_bytes());
        Ok(())
    }
}
