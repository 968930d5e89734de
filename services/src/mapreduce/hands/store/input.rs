//! The keys of a shard, page by page.
//!
//! Each page is read where the shard is by then, and begins behind the last key of the one before. So a key that is there from
//! the beginning of the walk to its end is met exactly once, wherever its shard goes meanwhile and whoever leads it.

use super::{OWN, Store, route, unexpected};
use crate::client::Reply;
use crate::mapreduce::MrError;
use crate::mapreduce::spec::KeysIn;

const WHAT: &str = "reading keys";

/// Keys and their values.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A walk through a shard.
#[derive(Debug)]
pub struct Pages<'a> {
    store: &'a Store,
    keys: &'a KeysIn,
    route: Vec<u8>,
    /// Where the next page begins; `None`: there is no other.
    from: Option<Vec<u8>>,
    to: Vec<u8>,
    limits: [String; 2],
}

impl<'a> Pages<'a> {
    /// At the beginning of a shard.
    pub fn new(store: &'a Store, keys: &'a KeysIn, shard: u16) -> Self {
        let end = |key: &Option<String>, open: &str| match key {
            Some(key) => format!("[{key}").into_bytes(),
            None => open.as_bytes().to_vec(),
        };
        let (from, to) = (end(&keys.first, "-"), end(&keys.last, "+"));
        let limits = [1000, 1 << 20].map(|limit: usize| limit.to_string());
        Self { store, keys, route: route(shard, keys.shards), from: Some(from), to, limits }
    }

    /// Pages of so many keys and bytes.
    pub fn limit(&mut self, keys: usize, bytes: usize) {
        self.limits = [keys, bytes].map(|limit| limit.to_string());
    }

    /// The next page, which may be empty; `None` behind the last. The engine's own keys are left out.
    ///
    /// # Errors
    /// [`MrError::Store`].
    pub fn next_page(&mut self) -> Result<Option<Pairs>, MrError> {
        let Some(from) = &self.from else { return Ok(None) };
        let [keys, bytes] = self.limits.each_ref().map(|limit| limit.as_bytes());
        let mut command: Vec<&[u8]> =
            vec![b"FLOTILLA.WALK", &self.route, from, &self.to, b"LIMIT", keys, b"BYTES", bytes];
        if let Some(pattern) = &self.keys.pattern {
            command.extend([b"MATCH", pattern.as_bytes()]);
        }
        let reply = self.store.repeat(WHAT, &self.route, &command)?;
        let Some((next, mut pairs)) = page_of(&reply) else { return Err(unexpected(WHAT, &reply)) };
        pairs.retain(|(key, _)| !OWN.iter().any(|own| key.starts_with(own)));
        self.from = next.map(|key| [b"(", key].concat());
        Ok(Some(pairs))
    }
}

/// What a page says: the key to go on behind, and its pairs.
pub(super) fn page_of(reply: &Reply) -> Option<(Option<&[u8]>, Pairs)> {
    let Reply::Array(parts) = reply else { return None };
    let [next, Reply::Array(items)] = &parts[..] else { return None };
    let next = match next {
        Reply::Bulk(key) => Some(&key[..]),
        Reply::Null => None,
        _ => return None,
    };
    let pairs = items.chunks(2).map(|pair| match pair {
        [Reply::Bulk(key), Reply::Bulk(value)] => Some((key.clone(), value.clone())),
        _ => None,
    });
    Some((next, pairs.collect::<Option<_>>()?))
}

/// A line for a command: the key, a tab, a line of its value. What would be taken for the one or the other is written `\t`, `\n`,
/// `\\`.
pub(crate) fn put_line(out: &mut Vec<u8>, key: &[u8], line: &[u8]) {
    for byte in key {
        match byte {
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\t');
    out.extend_from_slice(line);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_one_key_whatever_is_in_it() {
        let mut out = Vec::new();
        put_line(&mut out, b"a\tb\nc\\", b"x\ty");
        assert_eq!(out, b"a\\tb\\nc\\\\\tx\ty\n");
    }
}
