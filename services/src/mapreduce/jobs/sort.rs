//! Lines in the order of their bytes.

use crate::mapreduce::job::{Done, Emit, Job, Record, Values};

#[derive(Debug)]
pub(super) struct Sort;

impl Job for Sort {
    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done {
        out.emit(record.bytes, b"");
        Ok(())
    }

    fn reduce(&self, key: &[u8], values: &mut dyn Values, out: &mut dyn Emit) -> Done {
        while values.next().is_some() {
            out.emit(key, b"");
        }
        Ok(())
    }

    fn write(&self, key: &[u8], _: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(key);
        out.push(b'\n');
    }

    fn sample_key<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        Some(record)
    }
}
