//! Enough of the Redis protocol: arrays of bulk strings.

use std::io::{self, BufRead};

/// One command; none at the end of the connection.
pub fn read_command(reader: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let Some(count) = number(reader, '*')? else { return Ok(None) };
    let mut words = Vec::new();
    for _ in 0..count {
        let length = number(reader, '$')?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut bytes = vec![0; length + 2];
        reader.read_exact(&mut bytes)?;
        bytes.truncate(length);
        words.push(String::from_utf8(bytes).map_err(io::Error::other)?);
    }
    Ok(Some(words))
}

fn number(reader: &mut impl BufRead, kind: char) -> io::Result<Option<usize>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let digits = line.trim_end().strip_prefix(kind).ok_or(io::ErrorKind::InvalidData)?;
    digits.parse().map(Some).map_err(io::Error::other)
}
