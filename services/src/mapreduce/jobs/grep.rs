//! The lines that match, in the order of the input.
//!
//! The regular expression looks at a megabyte at a time, not at lines: between matches it runs at the speed of memory.

use crate::mapreduce::job::{Done, Emit, InputFormat, Job, Record, Values};
use memchr::{memchr, memmem, memrchr};
use regex::bytes::{Regex, RegexBuilder};

#[derive(Debug)]
pub(super) struct Grep {
    pattern: Pattern,
}

#[derive(Debug)]
enum Pattern {
    Literal(Box<memmem::Finder<'static>>),
    Regex(Regex),
}

impl Grep {
    pub(super) fn new(pattern: &str) -> Result<Self, String> {
        let pattern = if regex::escape(pattern) == pattern && !pattern.is_empty() {
            Pattern::Literal(Box::new(memmem::Finder::new(pattern).into_owned()))
        } else {
            let regex = RegexBuilder::new(pattern).multi_line(true).build();
            Pattern::Regex(regex.map_err(|error| format!("--arg pattern: {error}"))?)
        };
        Ok(Self { pattern })
    }

    /// The next match at or after `from`: where it begins and ends.
    fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        match &self.pattern {
            Pattern::Literal(finder) => {
                finder.find(&text[from..]).map(|at| (from + at, from + at + finder.needle().len()))
            }
            Pattern::Regex(regex) => regex.find_at(text, from).map(|found| (found.start(), found.end())),
        }
    }

    fn matches(&self, line: &[u8]) -> bool {
        self.find(line, 0).is_some()
    }
}

impl Job for Grep {
    fn input(&self) -> InputFormat {
        InputFormat::Blocks
    }

    fn map(&self, record: &Record<'_>, out: &mut dyn Emit) -> Done {
        let text = record.bytes;
        let mut from = 0;
        while from < text.len()
            && let Some((start, end)) = self.find(text, from)
        {
            if start == text.len() {
                // Behind the last line feed there is no line.
                break;
            }
            let line_start = memrchr(b'\n', &text[from..start]).map_or(from, |feed| from + feed + 1);
            let line_end = memchr(b'\n', &text[start..]).map_or(text.len(), |feed| start + feed);
            let line = &text[line_start..line_end];
            // A match over several lines (`\s` is also a line feed) says nothing about the line that it begins in.
            if end <= line_end || self.matches(line) {
                out.emit(b"", line);
            }
            from = line_end + 1;
        }
        Ok(())
    }

    fn reduce(&self, _: &[u8], _: &mut dyn Values, _: &mut dyn Emit) -> Done {
        Ok(())
    }

    fn map_only(&self) -> bool {
        true
    }

    fn has_keys(&self) -> bool {
        false
    }

    fn write(&self, _: &[u8], value: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(value);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lines(Vec<Vec<u8>>);
    impl Emit for Lines {
        fn emit(&mut self, _: &[u8], value: &[u8]) {
            self.0.push(value.to_vec());
        }
        fn counter(&mut self, _: &str, _: u64) {}
    }

    #[test]
    fn lines_match_as_if_each_were_looked_at_alone() {
        let text = "one two\n\nthree\n  two one\nend\ntwo\nonetwo";
        let patterns = ["two", "^two", "two$", "e\\s+t", "^$", "o.*e", "[a-z]+ [a-z]+", "zzz", "", "e$\\s^"];
        for pattern in patterns {
            let grep = Grep::new(pattern).unwrap();
            let mut found = Lines(Vec::new());
            grep.map(&Record { bytes: text.as_bytes(), input: "", offset: 0 }, &mut found).unwrap();
            let alone = RegexBuilder::new(pattern).multi_line(true).build().unwrap();
            let expected: Vec<Vec<u8>> =
                text.lines().filter(|line| alone.is_match(line.as_bytes())).map(|line| line.into()).collect();
            assert_eq!(found.0, expected, "{pattern}");
        }
        assert!(Grep::new("(").is_err());
    }
}
