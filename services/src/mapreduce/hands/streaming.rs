//! Commands in place of functions: Hadoop Streaming's contract.
//!
//! A mapper gets the lines of its splits on standard input; each line that it writes is a pair, the key up to the first tab
//! (or the one that the job says). A reducer gets pairs sorted by key, as lines, and what it writes is the output. Commands
//! go through `sh -c`, so pipes work. An exit status other than 0 is a failed attempt, whose last words on standard error
//! are kept; lines there of the form `reporter:counter:GROUP,NAME,N` and `reporter:status:TEXT` are for the job.
//!
//! A value is kept with the tab before it, so that a line comes out as it went in, with a tab or without.

use super::reading::STREAMED;
use crate::mapreduce::collect::Collector;
use crate::mapreduce::job::{Done, Emit, InputFormat, Job, Record, Values};
use crate::mapreduce::reduce::Output;
use crate::mapreduce::run::{ReadAt, RunWriter, SegmentReader};
use crate::mapreduce::spec::{JobSpec, Streaming};
use crate::mapreduce::{MrError, reduce::reduce as reduce_segments};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Last words of a command that are kept.
const LAST_WORDS_BYTES: usize = 2000;

/// Records and bytes read.
type Fed = (u64, u64);

/// The job behind commands: lines as they are.
#[derive(Debug)]
pub struct Lines;

impl Job for Lines {
    fn input(&self) -> InputFormat {
        STREAMED
    }

    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done {
        out.emit(b"", record.bytes);
        Ok(())
    }

    /// Every value is a line with its key: for the reducer's standard input.
    fn reduce(&self, key: &[u8], values: &mut dyn Values, out: &mut dyn Emit) -> Done {
        while let Some(value) = values.next() {
            out.emit(key, value);
        }
        Ok(())
    }

    fn write(&self, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(key);
        out.extend_from_slice(value);
        out.push(b'\n');
    }
}

/// A mapper command, and where its pairs go.
#[derive(Debug)]
pub struct Mapper<'a, W> {
    /// The job's commands.
    pub commands: &'a Streaming,
    /// The job.
    pub spec: &'a JobSpec,
    /// The attempt's run file.
    pub run: &'a mut RunWriter<W>,
    /// The attempt's counters.
    pub counters: &'a mut BTreeMap<String, u64>,
}

impl<W: Write> Mapper<'_, W> {
    /// Runs the mapper over what `feed` writes.
    ///
    /// # Errors
    /// The command's failure, or what reading and writing said.
    pub fn map(
        &mut self,
        collector: &mut Collector,
        feed: impl FnOnce(&mut dyn Write) -> Result<Fed, MrError> + Send,
    ) -> Result<Fed, MrError> {
        let fields = self.commands.key_fields;
        let mut taken = Ok(());
        let mut counters = BTreeMap::new();
        let fed = run_command(self.spec, &self.commands.mapper, &mut counters, feed, |line| {
            let (key, value) = key_and_value(line, fields);
            collector.emit(key, value);
            if taken.is_ok() && collector.is_full() {
                taken = self.spill(collector);
            }
        });
        for (name, n) in counters {
            *self.counters.entry(name).or_default() += n;
        }
        taken?;
        fed
    }

    fn spill(&mut self, collector: &mut Collector) -> Result<(), MrError> {
        if self.commands.combiner.is_some() {
            return self.combine(collector);
        }
        collector.write_into(self.run).map_err(|error| MrError::io("writing to", &self.spec.work)(error))
    }

    /// Sends what is collected, sorted, through the combiner and writes what comes back.
    ///
    /// # Errors
    /// As [`Self::map`].
    pub fn combine(&mut self, collector: &mut Collector) -> Result<(), MrError> {
        let Some(combiner) = &self.commands.combiner else { return Ok(()) };
        let (mut sorted, fields) = (Vec::new(), self.commands.key_fields);
        let drained = collector.drain(|_, key, value| {
            Lines.write(key, value, &mut sorted);
            Ok::<(), std::convert::Infallible>(())
        });
        drained.unwrap_or_else(|never| match never {});
        let feed = |out: &mut dyn Write| match out.write_all(&sorted) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(MrError::io("writing to", "the combiner")(error))
            }
            _ => Ok((0, 0)),
        };
        run_command(self.spec, combiner, self.counters, feed, |line| {
            let (key, value) = key_and_value(line, fields);
            collector.emit(key, value);
        })?;
        collector.write_into(self.run).map_err(|error| MrError::io("writing to", &self.spec.work)(error))
    }
}

/// Runs the mapper of a job without reducers: what it writes is the output.
///
/// # Errors
/// As [`Mapper::map`].
pub fn map_to_output<W: Write>(
    commands: &Streaming,
    spec: &JobSpec,
    out: &mut Output<'_, W>,
    counters: &mut BTreeMap<String, u64>,
    feed: impl FnOnce(&mut dyn Write) -> Result<Fed, MrError> + Send,
) -> Result<Fed, MrError> {
    run_command(spec, &commands.mapper, counters, feed, |line| out.emit(line, b""))
}

/// Runs the reducer over sorted pairs.
///
/// # Errors
/// As [`Mapper::map`], and what the run files say.
pub fn reduce<R: ReadAt + Send, W: Write + Send>(
    commands: &Streaming,
    spec: &JobSpec,
    sources: Vec<SegmentReader<R>>,
    out: &mut Output<'_, W>,
    counters: &mut BTreeMap<String, u64>,
    progress: impl FnMut(u64) -> bool + Send,
) -> Result<(), MrError> {
    let Some(reducer) = &commands.reducer else { return Ok(()) };
    let feed = |into: &mut dyn Write| {
        let mut lines = Output::new(&Lines, into);
        reduce_segments(&Lines, sources, &mut lines, progress)?;
        match lines.finish() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(MrError::io("writing to", "the reducer")(error))
            }
            _ => Ok((0, 0)),
        }
    };
    run_command(spec, reducer, counters, feed, |line| out.emit(line, b"")).map(drop)
}

/// Key and the rest of a line: the rest begins with a tab, or is empty.
fn key_and_value(line: &[u8], fields: u32) -> (&[u8], &[u8]) {
    let mut tabs = memchr::memchr_iter(b'\t', line);
    match tabs.nth(fields.max(1) as usize - 1) {
        Some(tab) => line.split_at(tab),
        None => (line, &[]),
    }
}

/// Runs a command to its end: `feed` writes its standard input, `take` gets the lines of its standard output.
fn run_command(
    spec: &JobSpec,
    command: &str,
    counters: &mut BTreeMap<String, u64>,
    feed: impl FnOnce(&mut dyn Write) -> Result<Fed, MrError> + Send,
    mut take: impl FnMut(&[u8]),
) -> Result<Fed, MrError> {
    let mut child = start(spec, command)?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(MrError::Rejected(format!("{command}: no pipes")));
    };
    let (fed, read, words) = std::thread::scope(|scope| {
        let words = scope.spawn(move || last_words(stderr));
        let feeding = scope.spawn(move || {
            let mut input = BufWriter::with_capacity(1 << 16, stdin);
            let fed = feed(&mut input)?;
            match input.flush() {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(MrError::io("writing to", "a command")(error))
                }
                // Who closes its input has read enough; its exit status tells the rest.
                _ => Ok(fed),
            }
        });
        let read = read_lines(stdout, &mut take);
        (feeding.join(), read, words.join())
    });
    let status = child.wait().map_err(MrError::io("waiting for", command))?;
    let (said, counted) = words.unwrap_or_default();
    for (name, n) in counted {
        *counters.entry(name).or_default() += n;
    }
    let fed = match fed {
        Ok(fed) => fed?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    if !status.success() {
        let what = format!("{command}: {status}{}{said}", if said.is_empty() { "" } else { ": " });
        return Err(MrError::User { what, at: None });
    }
    read.map_err(MrError::io("reading from", command))?;
    Ok(fed)
}

fn start(spec: &JobSpec, command: &str) -> Result<Child, MrError> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(streaming) = &spec.streaming {
        shell.envs(&streaming.env);
        if streaming.has_files {
            let usual = || Path::new(&spec.work).join(super::plan::FILES);
            shell.current_dir(streaming.folder.clone().unwrap_or_else(usual));
        }
    }
    shell.spawn().map_err(MrError::io("starting", command))
}

fn each_line(lines: &[u8], take: &mut impl FnMut(&[u8])) {
    let mut from = 0;
    while from < lines.len() {
        let end = memchr::memchr(b'\n', &lines[from..]).map_or(lines.len(), |feed| from + feed);
        take(&lines[from..end]);
        from = end + 1;
    }
}

/// Takes the lines of what a command writes.
fn read_lines(mut from: impl Read, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let (mut piece, mut filled) = (vec![0; 1 << 16], 0);
    loop {
        if filled == piece.len() {
            piece.resize(filled * 2, 0);
        }
        match from.read(&mut piece[filled..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(0) => {
                each_line(&piece[..filled], take);
                return Ok(());
            }
            Ok(count) => {
                filled += count;
                if let Some(feed) = memchr::memrchr(b'\n', &piece[..filled]) {
                    each_line(&piece[..feed + 1], take);
                    piece.copy_within(feed + 1..filled, 0);
                    filled -= feed + 1;
                }
            }
        }
    }
}

/// Reads standard error: counters, and the end of everything else.
fn last_words(stderr: impl Read) -> (String, BTreeMap<String, u64>) {
    let (mut said, mut counters) = (Vec::new(), BTreeMap::new());
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if let Some(counter) = text.strip_prefix("reporter:counter:") {
            let mut fields = counter.rsplitn(2, ',');
            let n = fields.next().and_then(|n| n.trim().parse::<u64>().ok());
            if let (Some(n), Some(name)) = (n, fields.next()) {
                *counters.entry(name.replace(',', ".")).or_default() += n;
            }
        } else if !text.starts_with("reporter:status:") {
            said.extend_from_slice(&line);
            let too_many = said.len().saturating_sub(LAST_WORDS_BYTES);
            said.drain(..too_many);
        }
        line.clear();
    }
    (String::from_utf8_lossy(&said).trim_end().to_owned(), counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_at_the_tab_that_ends_the_key() {
        assert_eq!(key_and_value(b"a\tb\tc", 1), (&b"a"[..], &b"\tb\tc"[..]));
        assert_eq!(key_and_value(b"a\tb\tc", 2), (&b"a\tb"[..], &b"\tc"[..]));
        assert_eq!(key_and_value(b"a b", 1), (&b"a b"[..], &b""[..]));
        assert_eq!(key_and_value(b"", 1), (&b""[..], &b""[..]));
    }

    #[test]
    fn counters_are_read_and_words_are_kept() {
        let text =
            b"reporter:counter:group,name,3\nwhat\nreporter:status:fine\nreporter:counter:group,name,4\nis\n";
        let (said, counters) = last_words(&text[..]);
        assert_eq!(said, "what\nis");
        assert_eq!(counters, BTreeMap::from([("group.name".to_owned(), 7)]));
    }
}
