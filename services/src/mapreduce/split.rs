//! How the input is cut: files into splits at whatever byte, splits into tasks, and a split's bytes into whole records.
//!
//! A record belongs to the split in which it begins. So a split that doesn't begin at the beginning of its file first
//! skips to behind the first line feed at or after the byte before it, and reads on past its end to the end of its
//! last line.

use super::MrError;
use super::job::InputFormat;
use super::run::ReadAt;
use super::spec::{InputFile, Split};

/// No task reads more.
const TASK_BYTES_MAX: u64 = 128 << 20;
/// No split but the last of a file is shorter.
const SPLIT_BYTES_MIN: u64 = 256 << 10;
/// Bytes read at once.
pub const BLOCK_BYTES: usize = 1 << 20;
/// No record is longer.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Cuts the input into tasks, each a list of splits.
///
/// Tasks get smaller towards the end: the first are long, so that what is put together by key is so over much; the last
/// are short, so that workers end together. `split_bytes` is what the smallest of a large job read.
pub fn plan(inputs: &[InputFile], format: InputFormat, split_bytes: u64, workers: u64) -> Vec<Vec<Split>> {
    if format == InputFormat::WholeFiles {
        let whole = |(file, input): (u32, &InputFile)| vec![Split { file, start: 0, end: input.bytes }];
        return (0..).zip(inputs).map(whole).collect();
    }
    let total: u64 = inputs.iter().map(|input| input.bytes).sum();
    let (mut left, mut tasks, mut task, mut room) = (total, Vec::new(), Vec::new(), 0);
    for (file, input) in (0..).zip(inputs) {
        let mut start = 0;
        while start < input.bytes {
            if room == 0 {
                if !task.is_empty() {
                    tasks.push(std::mem::take(&mut task));
                }
                let share = left / (3 * workers.max(1));
                room = share.clamp(
                    split_bytes.min(left / workers.max(1)).max(SPLIT_BYTES_MIN),
                    TASK_BYTES_MAX.max(split_bytes),
                );
            }
            let unit = match format {
                InputFormat::Fixed(bytes) => u64::from(bytes.max(1)),
                _ => 1,
            };
            let mut end = input.bytes.min(start + room.next_multiple_of(unit));
            if input.bytes - end < SPLIT_BYTES_MIN / 4 {
                end = input.bytes;
            }
            task.push(Split { file, start, end });
            room = room.saturating_sub(end - start);
            left -= end - start;
            start = end;
        }
    }
    tasks.extend((!task.is_empty()).then_some(task));
    tasks
}

/// Tasks that a job over keys has at most: as each reads whole shards, more than enough for workers to end together.
const SHARD_TASKS_MAX: u16 = 256;

/// Spreads the shards of the store over tasks. Nobody knows how much is in which.
pub fn plan_shards(shards: u16) -> Vec<Vec<Split>> {
    let all: Vec<Split> =
        (0..shards).map(|shard| Split { file: u32::from(shard), start: 0, end: 0 }).collect();
    all.chunks(usize::from(shards.div_ceil(SHARD_TASKS_MAX).max(1))).map(<[Split]>::to_vec).collect()
}

/// Reads the records of a split, as many whole ones at a time as fit into a block.
#[derive(Debug)]
pub struct BlockReader<'a, R> {
    file: R,
    path: &'a str,
    format: InputFormat,
    /// Bytes of the file.
    length: u64,
    /// The next byte to read.
    at: u64,
    end: u64,
    skipping: bool,
    buffer: &'a mut Vec<u8>,
    /// Bytes of the buffer that were handed out, and those that are filled.
    taken: usize,
    filled: usize,
    finished: bool,
}

impl<'a, R: ReadAt> BlockReader<'a, R> {
    /// Begins. `buffer` is reused from split to split.
    pub fn new(
        file: R,
        path: &'a str,
        length: u64,
        split: Split,
        format: InputFormat,
        buffer: &'a mut Vec<u8>,
    ) -> Self {
        let lines = matches!(format, InputFormat::Lines | InputFormat::Blocks);
        let skipping = lines && split.start > 0;
        let at = if skipping { split.start - 1 } else { split.start };
        let whole = format == InputFormat::WholeFiles;
        let wanted = if whole { usize::try_from(length).unwrap_or(usize::MAX).max(1) } else { BLOCK_BYTES };
        if buffer.len() < wanted {
            buffer.resize(wanted, 0);
        }
        let end = split.end.min(length);
        Self { file, path, format, length, at, end, skipping, buffer, taken: 0, filled: 0, finished: false }
    }

    /// The next whole records and the place of the first in the file; `None` at the end of the split.
    ///
    /// # Errors
    /// [`MrError::InputChanged`] if the file has become shorter, [`MrError::Io`].
    pub fn next_block(&mut self) -> Result<Option<(u64, &[u8])>, MrError> {
        loop {
            if self.finished {
                return Ok(None);
            }
            self.fill()?;
            let at_end = self.at == self.length;
            // The file's offset of buffer[0].
            let base = self.at - self.filled as u64;
            if self.skipping {
                match memchr::memchr(b'\n', &self.buffer[..self.filled]) {
                    Some(feed) => (self.taken, self.skipping) = (feed + 1, false),
                    None if at_end => return self.finish(),
                    None => {
                        self.taken = self.filled;
                        if self.at >= self.end {
                            // One line covers the whole split, and belongs to an earlier one.
                            return self.finish();
                        }
                        continue;
                    }
                }
            }
            let begin = base + self.taken as u64;
            if begin >= self.end {
                return self.finish();
            }
            let Some(stop) = self.whole_records(base, at_end)? else { continue };
            let from = self.taken;
            self.taken = stop;
            if base + stop as u64 >= self.end || (at_end && stop == self.filled) {
                self.finished = true;
            }
            return Ok(Some((begin, &self.buffer[from..stop])));
        }
    }

    fn finish(&mut self) -> Result<Option<(u64, &[u8])>, MrError> {
        self.finished = true;
        Ok(None)
    }

    /// Where in the buffer the last whole record of the split that is in it ends; `None` to read on.
    fn whole_records(&mut self, base: u64, at_end: bool) -> Result<Option<usize>, MrError> {
        let end_here = usize::try_from(self.end - base).unwrap_or(usize::MAX);
        let stop = match self.format {
            InputFormat::WholeFiles => at_end.then_some(self.filled),
            InputFormat::Fixed(bytes) => {
                let upto = self.filled.min(end_here);
                let whole = self.taken + (upto - self.taken) / bytes.max(1) as usize * bytes.max(1) as usize;
                if whole == self.taken && (at_end || end_here <= self.filled) {
                    Some(upto)
                } else {
                    (whole > self.taken).then_some(whole)
                }
            }
            _ if end_here <= self.filled => {
                // The last record is the one that holds the byte before the end.
                let last = end_here - 1;
                let feed = memchr::memchr(b'\n', &self.buffer[last..self.filled]);
                feed.map(|feed| last + feed + 1).or_else(|| at_end.then_some(self.filled))
            }
            _ => memchr::memrchr(b'\n', &self.buffer[self.taken..self.filled])
                .map(|feed| self.taken + feed + 1)
                .or_else(|| at_end.then_some(self.filled)),
        };
        if stop.is_none() && self.taken == 0 && self.filled == self.buffer.len() {
            if self.buffer.len() >= RECORD_BYTES_MAX {
                let what =
                    format!("a record of more than {RECORD_BYTES_MAX} bytes at byte {base} of {}", self.path);
                return Err(MrError::Rejected(what));
            }
            let double = self.buffer.len() * 2;
            self.buffer.resize(double, 0);
        }
        Ok(stop)
    }

    /// Moves what wasn't handed out to the front and reads on behind it.
    fn fill(&mut self) -> Result<(), MrError> {
        self.buffer.copy_within(self.taken..self.filled, 0);
        self.filled -= self.taken;
        self.taken = 0;
        let room = (self.buffer.len() - self.filled) as u64;
        let wanted = match self.format {
            // Not much more than the split itself.
            InputFormat::Lines | InputFormat::Blocks => {
                room.min((self.end + (64 << 10)).saturating_sub(self.at).max(64 << 10))
            }
            _ => room,
        };
        let bytes = wanted.min(self.length - self.at).min(room) as usize;
        let into = &mut self.buffer[self.filled..self.filled + bytes];
        self.file.read_exact_at(into, self.at).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                MrError::InputChanged { path: self.path.to_owned(), what: "it is shorter".to_owned() }
            }
            _ => MrError::io("reading", self.path)(error),
        })?;
        self.filled += bytes;
        self.at += bytes as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: u64) -> InputFile {
        InputFile { path: "f".to_owned(), bytes, modified_ns: 0 }
    }

    fn records(text: &[u8], splits: &[Split], format: InputFormat) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        for split in splits {
            let mut buffer = vec![0; 64];
            let mut reader = BlockReader::new(text, "f", text.len() as u64, *split, format, &mut buffer);
            // A small buffer, so that everything happens often.
            reader.buffer.truncate(64);
            while let Some((at, block)) = reader.next_block().unwrap() {
                assert!(!block.is_empty());
                found.push((at, block.to_vec()));
            }
        }
        found
    }

    #[test]
    fn every_record_is_in_exactly_one_split_wherever_the_cuts_are() {
        let mut text = Vec::new();
        for n in 0..120_usize {
            text.extend(std::iter::repeat_n(b'a' + (n % 26) as u8, n * 7 % 90));
            text.push(b'\n');
        }
        text.extend_from_slice(b"no line feed at the end");
        for step in [1_u64, 2, 3, 7, 64, 65, 1000, 100_000] {
            let mut splits = Vec::new();
            let mut start = 0;
            while start < text.len() as u64 {
                let end = (start + step).min(text.len() as u64);
                splits.push(Split { file: 0, start, end });
                start = end;
            }
            let found = records(&text, &splits, InputFormat::Blocks);
            let mut at = 0;
            for (offset, block) in &found {
                assert_eq!(*offset, at, "step {step}");
                at += block.len() as u64;
                assert!(block.ends_with(b"\n") || at == text.len() as u64);
            }
            assert_eq!(at, text.len() as u64, "step {step}");
        }
        let splits =
            [Split { file: 0, start: 0, end: 70 }, Split { file: 0, start: 70, end: text.len() as u64 }];
        let found = records(&text, &splits, InputFormat::Fixed(10));
        assert_eq!(found.iter().map(|(_, block)| block.len()).sum::<usize>(), text.len());
        let found =
            records(&text, &[Split { file: 0, start: 0, end: text.len() as u64 }], InputFormat::WholeFiles);
        assert_eq!(found, [(0, text)]);
    }

    #[test]
    fn tasks_cover_the_input_and_get_shorter() {
        let inputs = [file(1 << 30), file(0), file(5), file(300 << 20)];
        let tasks = plan(&inputs, InputFormat::Lines, 16 << 20, 2);
        let bytes = |task: &Vec<Split>| task.iter().map(|split| split.end - split.start).sum::<u64>();
        assert_eq!(tasks.iter().map(bytes).sum::<u64>(), (1 << 30) + 5 + (300 << 20));
        assert!(tasks.iter().all(|task| bytes(task) <= TASK_BYTES_MAX + SPLIT_BYTES_MIN));
        assert!(bytes(&tasks[0]) > 4 * bytes(&tasks[tasks.len() - 2]));
        assert!((10..60).contains(&tasks.len()), "{}", tasks.len());
        let small: Vec<InputFile> = (0..8).map(|_| file(400_000)).collect();
        assert!((3..=8).contains(&plan(&small, InputFormat::Lines, 16 << 20, 2).len()));
        assert_eq!(plan(&small, InputFormat::WholeFiles, 16 << 20, 2).len(), 8);
        assert!(plan(&[], InputFormat::Lines, 16 << 20, 2).is_empty());
        for shards in [1, 64, 257, 16384] {
            let tasks = plan_shards(shards);
            assert!(tasks.len() <= 256);
            let planned: Vec<u32> = tasks.iter().flatten().map(|split| split.file).collect();
            assert_eq!(planned, (0..u32::from(shards)).collect::<Vec<_>>());
        }
    }
}
