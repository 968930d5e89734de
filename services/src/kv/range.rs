//! `FLOTILLA.RANGE`: keys in their order.

use super::keyspace::{Entry, Keyspace};
use super::number;
use crate::command::Rejected;
use crate::resp::ReplyWriter;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound;

/// Keys that are returned unless a command says otherwise.
const KEYS_USUAL: usize = 1000;

/// What `FLOTILLA.RANGE start end [LIMIT n] [WITHVALUES]` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeOptions<'a> {
    /// Where it begins.
    pub from: Bound<&'a [u8]>,
    /// Where it ends.
    pub to: Bound<&'a [u8]>,
    /// The most keys.
    pub most: usize,
    /// Keys and values in turn.
    pub with_values: bool,
}

impl<'a> RangeOptions<'a> {
    /// Reads it. The ends are as those of Redis' `ZRANGE BYLEX`: `[key` with the key, `(key` without it, `-` and `+` for all.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(args: &[&'a [u8]]) -> Result<Self, Rejected> {
        let (from, to) = (bound(args[1])?, bound(args[2])?);
        // "+" as the beginning, or "-" as the end: nothing.
        let is_empty = args[1] == b"+" || args[2] == b"-" || is_backwards(from, to);
        let mut options = Self { from, to, most: KEYS_USUAL, with_values: false };
        let mut place = 3;
        while place < args.len() {
            match &args[place].to_ascii_uppercase()[..] {
                b"WITHVALUES" => options.with_values = true,
                b"LIMIT" if place + 1 < args.len() => {
                    let most = number::integer(args[place + 1]).ok_or_else(Rejected::not_an_integer)?;
                    options.most = usize::try_from(most).map_err(|_| Rejected::not_an_integer())?;
                    place += 1;
                }
                _ => return Err(Rejected::syntax()),
            }
            place += 1;
        }
        if is_empty {
            (options.from, options.to, options.most) = (Bound::Unbounded, Bound::Unbounded, 0);
        }
        Ok(options)
    }
}

pub(super) fn bound(arg: &[u8]) -> Result<Bound<&[u8]>, Rejected> {
    match arg.split_first() {
        Some((b'-' | b'+', [])) => Ok(Bound::Unbounded),
        Some((b'[', key)) => Ok(Bound::Included(key)),
        Some((b'(', key)) => Ok(Bound::Excluded(key)),
        _ => Err(Rejected::new("ERR an end of a range is [key, (key, - or +")),
    }
}

/// Whether there can be nothing between: the map would panic.
pub(super) fn is_backwards(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
        _ => false,
    }
}

/// Answers from several shards, whose keys are merged.
pub fn read_range<'a>(
    clock_ms: u64,
    shards: impl Iterator<Item = &'a Keyspace>,
    options: &RangeOptions<'_>,
    reply: &mut ReplyWriter<'_>,
) {
    let mut sources: Vec<_> = shards.map(|shard| shard.range(clock_ms, options.from, options.to)).collect();
    let mut next: BinaryHeap<Reverse<(&[u8], usize)>> = BinaryHeap::new();
    let mut entries: Vec<Option<&Entry>> = vec![None; sources.len()];
    let mut found: Vec<(&[u8], &Entry)> = Vec::new();
    for (place, source) in sources.iter_mut().enumerate().filter(|_| options.most > 0) {
        if let Some((key, entry)) = source.next() {
            next.push(Reverse((key, place)));
            entries[place] = Some(entry);
        }
    }
    while found.len() < options.most
        && let Some(Reverse((key, place))) = next.pop()
    {
        found.extend(entries[place].map(|entry| (key, entry)));
        if let Some((key, entry)) = sources[place].next() {
            next.push(Reverse((key, place)));
            entries[place] = Some(entry);
        }
    }
    reply.array(found.len() * (1 + usize::from(options.with_values)));
    for (key, entry) in found {
        reply.bulk(key);
        if options.with_values {
            match entry.value.as_string() {
                Some(bytes) => reply.bulk(bytes),
                None => reply.null(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Value;
    use crate::resp::Protocol;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ask(shards: &[Keyspace], line: &str) -> Result<String, String> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let options = RangeOptions::parse(&args).map_err(|rejected| rejected.to_string())?;
        let mut out = Vec::new();
        read_range(0, shards.iter(), &options, &mut ReplyWriter::new(&mut out, Protocol::Resp2));
        Ok(String::from_utf8(out).unwrap().replace("\r\n", " "))
    }

    #[test]
    fn ends_and_limits() {
        let mut shards = vec![Keyspace::default(), Keyspace::default()];
        for (place, key) in ["a", "b", "c", "d"].iter().enumerate() {
            shards[place % 2].insert(key.as_bytes(), Value::String(b"v".to_vec()), None);
        }
        for (line, said) in [
            ("range - +", "*4 $1 a $1 b $1 c $1 d "),
            ("range [b (d", "*2 $1 b $1 c "),
            ("range (b +", "*2 $1 c $1 d "),
            ("range - [c limit 2", "*2 $1 a $1 b "),
            ("range - + limit 1 withvalues", "*2 $1 a $1 v "),
            ("range [c (c", "*0 "),
            ("range (c (b", "*0 "),
            ("range + -", "*0 "),
            ("range - + limit 0", "*0 "),
        ] {
            assert_eq!(ask(&shards, line).unwrap(), said, "{line}");
        }
        assert!(ask(&shards, "range b c").is_err() && ask(&shards, "range - + limit").is_err());
        assert!(ask(&shards, "range - + limit -1").is_err());
    }

    proptest! {
        #[test]
        fn the_keys_of_all_shards_in_order(keys: Vec<(u8, u8)>, from: u8, to: u8, most in 0_usize..40) {
            let mut shards = vec![Keyspace::default(); 5];
            let mut all = BTreeSet::new();
            for (place, key) in keys {
                let key = format!("{key}").into_bytes();
                if all.insert(key.clone()) {
                    shards[usize::from(place % 5)].insert(&key, Value::String(Vec::new()), None);
                }
            }
            let (from, to) = (format!("{from}"), format!("{to}"));
            let inside = all.iter().filter(|key| ***key >= *from.as_bytes() && ***key <= *to.as_bytes());
            let keys: Vec<_> = inside.take(most).map(|key| String::from_utf8(key.clone()).unwrap()).collect();
            let expected: String = keys.iter().map(|key| format!("${} {key} ", key.len())).collect();
            let said = ask(&shards, &format!("range [{from} [{to} limit {most}")).unwrap();
            prop_assert_eq!(said, format!("*{} {expected}", keys.len()));
        }
    }
}
