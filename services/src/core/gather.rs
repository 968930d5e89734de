//! A reply that is put together from those of several groups.

use crate::command::{Spec, code};
use crate::kv::RangeOptions;
use crate::resp::{Protocol, ReplyWriter};
use flotilla_runtime::SplitMix64;

/// The parts that are here, and how many are missing.
#[derive(Debug)]
pub(super) struct Gathering {
    command: u16,
    /// Of `FLOTILLA.RANGE`: the most keys, and how many elements of the reply make one.
    most: usize,
    per_key: usize,
    missing: u32,
    parts: Vec<Vec<u8>>,
}

impl Gathering {
    pub(super) fn new(spec: &Spec, args: &[&[u8]], groups: u32) -> Self {
        let (most, per_key) = match spec.code {
            code::FLOTILLA_RANGE => RangeOptions::parse(args)
                .map_or((0, 1), |options| (options.most, 1 + usize::from(options.with_values))),
            _ => (usize::MAX, 1),
        };
        Self { command: spec.code, most, per_key, missing: groups, parts: Vec::new() }
    }

    /// Takes a group's reply; returns whether it was the last.
    pub(super) fn add(&mut self, reply: Vec<u8>) -> bool {
        self.parts.push(reply);
        self.missing -= 1;
        self.missing == 0
    }

    /// The reply, once all parts are here. If one is an error, that is what the client gets.
    pub(super) fn whole(&mut self, protocol: Protocol, rng: &mut SplitMix64) -> Vec<u8> {
        let mut parts = std::mem::take(&mut self.parts);
        if let Some(error) = parts.iter().position(|part| part.first() == Some(&b'-')) {
            return parts.swap_remove(error);
        }
        let mut out = Vec::new();
        let mut reply = ReplyWriter::new(&mut out, protocol);
        match self.command {
            code::DBSIZE => {
                let numbers = parts.iter().filter_map(|part| line(part)).map(|(number, _)| number);
                reply.integer(numbers.sum());
            }
            code::KEYS => {
                let arrays: Vec<_> = parts.iter().filter_map(|part| line(part)).collect();
                let length = arrays.iter().filter_map(|(length, _)| usize::try_from(*length).ok()).sum();
                reply.array(length);
                arrays.iter().for_each(|(_, elements)| reply.raw(elements));
            }
            code::FLOTILLA_RANGE => {
                let mut keys: Vec<(&[u8], &[u8])> = parts.iter().flat_map(|part| self.keys(part)).collect();
                keys.sort_unstable();
                keys.truncate(self.most);
                reply.array(keys.len() * self.per_key);
                keys.iter().for_each(|(_, elements)| reply.raw(elements));
            }
            code::RANDOMKEY => {
                parts.retain(|part| part.first() == Some(&b'$') && part.get(1) != Some(&b'-'));
                if parts.is_empty() {
                    reply.null();
                } else {
                    let place = usize::try_from(rng.next() % parts.len() as u64).unwrap_or(0);
                    reply.raw(&parts[place]);
                }
            }
            // FLUSHALL, SCAN: they all say the same, or there is only one.
            _ => return parts.pop().unwrap_or_default(),
        }
        out
    }

    /// The keys of an array of bulk strings, each with the bytes of itself and of what belongs to it.
    fn keys<'a>(&self, array: &'a [u8]) -> Vec<(&'a [u8], &'a [u8])> {
        let Some((_, mut rest)) = line(array) else { return Vec::new() };
        let mut keys = Vec::new();
        while !rest.is_empty() {
            let begin = rest;
            let mut key = None;
            for _ in 0..self.per_key {
                let bulk = line(rest)
                    .and_then(|(length, behind)| behind.split_at_checked(usize::try_from(length).ok()? + 2));
                let Some((bulk, behind)) = bulk else { return keys };
                key.get_or_insert(&bulk[..bulk.len() - 2]);
                rest = behind;
            }
            let Some(key) = key else { return keys };
            keys.push((key, &begin[..begin.len() - rest.len()]));
        }
        keys
    }
}

/// The number in a reply's first line, and what is behind that.
fn line(reply: &[u8]) -> Option<(i64, &[u8])> {
    let end = reply.iter().position(|byte| *byte == b'\r')?;
    let number = std::str::from_utf8(reply.get(1..end)?).ok()?.parse().ok()?;
    Some((number, reply.get(end + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::lookup;

    fn whole(line: &str, parts: &[&str]) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut gathering = Gathering::new(lookup(args[0]).unwrap(), &args, parts.len() as u32);
        for (place, part) in parts.iter().enumerate() {
            assert_eq!(gathering.add(part.as_bytes().to_vec()), place + 1 == parts.len());
        }
        String::from_utf8(gathering.whole(Protocol::Resp2, &mut SplitMix64::new(1))).unwrap()
    }

    #[test]
    fn parts_become_one() {
        assert_eq!(whole("dbsize", &[":3\r\n", ":0\r\n", ":39\r\n"]), ":42\r\n");
        assert_eq!(
            whole("keys *", &["*1\r\n$1\r\na\r\n", "*0\r\n", "*2\r\n$1\r\nb\r\n$0\r\n\r\n"]),
            "*3\r\n$1\r\na\r\n$1\r\nb\r\n$0\r\n\r\n"
        );
        assert_eq!(whole("randomkey", &["$-1\r\n", "$1\r\na\r\n"]), "$1\r\na\r\n");
        assert_eq!(whole("randomkey", &["$-1\r\n"]), "$-1\r\n");
        assert_eq!(whole("flushall", &["+OK\r\n", "-BUSY no\r\n", "+OK\r\n"]), "-BUSY no\r\n");
    }

    #[test]
    fn a_range_is_in_order_and_no_longer_than_asked() {
        let one = "*4\r\n$1\r\na\r\n$2\r\nva\r\n$1\r\nc\r\n$2\r\nvc\r\n";
        let other = "*2\r\n$2\r\nab\r\n$0\r\n\r\n";
        assert_eq!(
            whole("flotilla.range - + limit 2 withvalues", &[one, other]),
            "*4\r\n$1\r\na\r\n$2\r\nva\r\n$2\r\nab\r\n$0\r\n\r\n"
        );
    }
}
