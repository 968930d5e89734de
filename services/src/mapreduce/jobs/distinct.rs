//! Each word, or each line, once.

use crate::mapreduce::job::{Combiner, Done, Emit, InputFormat, Job, Record, Values};
use crate::mapreduce::words::words;

#[derive(Debug)]
pub(super) struct Distinct {
    pub(super) of_lines: bool,
}

impl Job for Distinct {
    fn input(&self) -> InputFormat {
        if self.of_lines { InputFormat::Lines } else { InputFormat::Blocks }
    }

    fn combiner(&self) -> Combiner {
        Combiner::Sum
    }

    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done {
        if self.of_lines {
            out.count(record.bytes, 1);
        } else {
            words(record.bytes, |start, end| out.count_span(record.bytes, start, end));
        }
        Ok(())
    }

    fn reduce(&self, key: &[u8], _: &mut dyn Values, out: &mut dyn Emit) -> Done {
        out.counter("distinct", 1);
        out.emit(key, b"");
        Ok(())
    }

    fn write(&self, key: &[u8], _: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(key);
        out.push(b'\n');
    }
}
