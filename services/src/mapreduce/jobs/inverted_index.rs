//! In which files each word is: their number, and their names in order.

use crate::mapreduce::job::{Combiner, Done, Emit, InputFormat, Job, Record, Values};
use crate::mapreduce::words::words;

#[derive(Debug)]
pub(super) struct InvertedIndex;

impl Job for InvertedIndex {
    fn input(&self) -> InputFormat {
        InputFormat::Blocks
    }

    fn combiner(&self) -> Combiner {
        Combiner::Distinct
    }

    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done {
        let name = name(record.input).as_bytes();
        words(record.bytes, |start, end| out.emit_span(record.bytes, start, end, name));
        Ok(())
    }

    fn reduce(&self, key: &[u8], values: &mut dyn Values, out: &mut dyn Emit) -> Done {
        let (mut count, mut names) = (0_u64, Vec::new());
        while let Some(name) = values.next() {
            if count > 0 {
                names.push(b',');
            }
            names.extend_from_slice(name);
            count += 1;
        }
        let mut value = format!("{count} ").into_bytes();
        value.append(&mut names);
        out.emit(key, &value);
        Ok(())
    }
}

/// Files have whole paths, of which the last part tells enough; anything else is a key, which is a name as it is.
fn name(input: &str) -> &str {
    match input.strip_prefix('/') {
        Some(path) => path.rsplit('/').next().unwrap_or(path),
        None => input,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_by_their_last_name_and_keys_by_their_whole() {
        assert_eq!(name("/data/books/one.txt"), "one.txt");
        assert_eq!(name("doc/2026/one"), "doc/2026/one");
    }
}
