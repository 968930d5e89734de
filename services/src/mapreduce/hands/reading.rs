//! What a map attempt reads: the records of its splits, from files or from the store.

use super::execute::Attempt;
use super::files::ReadFile;
use super::store::input::{Pages, put_line};
use crate::mapreduce::MrError;
use crate::mapreduce::job::{Emit, InputFormat};
use crate::mapreduce::map::{SplitOf, map_split};
use crate::mapreduce::spec::{KeysIn, Split};
use crate::mapreduce::split::BlockReader;
use std::io::{self, Write};

/// How records are cut that go to a command: whole blocks of lines.
pub(super) const STREAMED: InputFormat = InputFormat::Blocks;

impl Attempt<'_> {
    fn splits(&self, number: u32) -> &[Split] {
        self.spec.tasks.get(number as usize).map(Vec::as_slice).unwrap_or_default()
    }

    /// Maps all splits of a task into `out`; returns records and bytes read.
    pub(super) fn map_into<E: Emit>(
        &self,
        number: u32,
        out: &mut E,
        buffer: &mut Vec<u8>,
        mut between: impl FnMut(&mut E) -> Result<(), MrError>,
    ) -> Result<(u64, u64), MrError> {
        if let Some(keys) = &self.spec.keys_in {
            return self.map_keys(keys, number, out, buffer, between);
        }
        let (mut records, mut bytes) = (0, 0);
        for split in self.splits(number) {
            let input = &self.spec.inputs[split.file as usize];
            let file = ReadFile::open_input(input)?;
            let of = SplitOf {
                file: split.file,
                input: &input.path,
                skip: &self.given.skip,
                position: self.position,
            };
            let mut reader =
                BlockReader::new(&file, &input.path, input.bytes, *split, self.job.input(), buffer);
            records += map_split(&**self.job, &of, &mut reader, out, |out, read| {
                self.goes_on(read)?;
                between(out)
            })?;
            file.check(input)?;
            bytes += split.end - split.start;
        }
        Ok((records, bytes))
    }

    /// The same for keys: each value is read as a file would be.
    fn map_keys<E: Emit>(
        &self,
        keys: &KeysIn,
        number: u32,
        out: &mut E,
        buffer: &mut Vec<u8>,
        mut between: impl FnMut(&mut E) -> Result<(), MrError>,
    ) -> Result<(u64, u64), MrError> {
        let (mut records, mut bytes) = (0, 0);
        self.each_key(keys, number, |shard, key, value| {
            let shown = String::from_utf8_lossy(key);
            self.position.set_key(&shown);
            let of = SplitOf { file: shard, input: &shown, skip: &self.given.skip, position: self.position };
            let length = value.len() as u64;
            let whole = Split { file: shard, start: 0, end: length };
            let mut reader = BlockReader::new(value, &shown, length, whole, self.job.input(), buffer);
            records += map_split(&**self.job, &of, &mut reader, out, |out, read| {
                self.goes_on(read)?;
                between(out)
            })?;
            bytes += key.len() as u64 + length;
            Ok(())
        })?;
        Ok((records, bytes))
    }

    fn each_key(
        &self,
        keys: &KeysIn,
        number: u32,
        mut take: impl FnMut(u32, &[u8], &[u8]) -> Result<(), MrError>,
    ) -> Result<(), MrError> {
        let Some(store) = self.store else { return Err(MrError::Rejected("there is no store".to_owned())) };
        for split in self.splits(number) {
            let shard = u16::try_from(split.file).unwrap_or(u16::MAX);
            let mut pages = Pages::new(store, keys, shard);
            while let Some(page) = pages.next_page()? {
                self.goes_on(1)?;
                for (key, value) in page {
                    take(split.file, &key, &value)?;
                }
            }
        }
        Ok(())
    }

    /// Hands the records of a task to a command, line by line.
    pub(super) fn feed(
        &self,
        number: u32,
        buffer: &mut Vec<u8>,
        out: &mut dyn Write,
    ) -> Result<(u64, u64), MrError> {
        if let Some(keys) = &self.spec.keys_in {
            return self.feed_keys(keys, number, out);
        }
        struct Raw<'a>(&'a mut dyn Write, u64, Option<io::Error>);
        impl Emit for Raw<'_> {
            fn emit(&mut self, _: &[u8], value: &[u8]) {
                if self.2.is_none() {
                    self.2 = self.0.write_all(value).err();
                }
                self.1 += memchr::memchr_iter(b'\n', value).count() as u64;
                if !value.ends_with(b"\n") {
                    self.1 += 1;
                    if self.2.is_none() {
                        self.2 = self.0.write_all(b"\n").err();
                    }
                }
            }
            fn counter(&mut self, _: &str, _: u64) {}
        }
        let mut raw = Raw(out, 0, None);
        let (_, bytes) = self.map_into(number, &mut raw, buffer, |raw| match raw.2.take() {
            // Whoever closes its input has read enough; its exit status tells the rest.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                raw.2 = Some(error);
                Ok(())
            }
            Some(error) => Err(MrError::io("writing to", "the mapper")(error)),
            None => Ok(()),
        })?;
        Ok((raw.1, bytes))
    }

    /// Hands keys to a command: a line for each line of a value, the key before it.
    fn feed_keys(&self, keys: &KeysIn, number: u32, out: &mut dyn Write) -> Result<(u64, u64), MrError> {
        let (mut records, mut bytes, mut lines, mut closed) = (0, 0, Vec::new(), false);
        self.each_key(keys, number, |_, key, value| {
            lines.clear();
            let text = value.strip_suffix(b"\n").unwrap_or(value);
            for line in text.split(|byte| *byte == b'\n') {
                put_line(&mut lines, key, line);
                records += 1;
            }
            bytes += (key.len() + value.len()) as u64;
            self.goes_on((key.len() + value.len()) as u64)?;
            match out.write_all(&lines) {
                _ if closed => Ok(()),
                // Whoever closes its input has read enough; its exit status tells the rest.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    closed = true;
                    Ok(())
                }
                Err(error) => Err(MrError::io("writing to", "the mapper")(error)),
                Ok(()) => Ok(()),
            }
        })?;
        Ok((records, bytes))
    }
}
