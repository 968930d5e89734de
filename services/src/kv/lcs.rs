//! `LCS`: the longest common subsequence of two strings.

use super::keyspace::Keyspace;
use super::number;
use crate::command::Rejected;
use crate::resp::ReplyWriter;

/// The cells of the table that is needed, of four bytes each: bounds memory, and the time for which the core does nothing
/// else.
const CELLS_MAX: usize = 16 << 20;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    length_only: bool,
    indices: bool,
    least_match: usize,
    with_lengths: bool,
}

/// The options of `LCS`.
pub(crate) fn parse(args: &[&[u8]]) -> Result<Options, Rejected> {
    let mut options = Options::default();
    let mut place = 3;
    while place < args.len() {
        match &args[place].to_ascii_uppercase()[..] {
            b"LEN" => options.length_only = true,
            b"IDX" => options.indices = true,
            b"WITHMATCHLEN" => options.with_lengths = true,
            b"MINMATCHLEN" if place + 1 < args.len() => {
                let least = number::integer(args[place + 1]).ok_or_else(Rejected::not_an_integer)?;
                options.least_match = usize::try_from(least).unwrap_or(0);
                place += 1;
            }
            _ => return Err(Rejected::syntax()),
        }
        place += 1;
    }
    if options.length_only && options.indices {
        return Err(Rejected::new("ERR If you want both the length and indexes, please just use IDX."));
    }
    Ok(options)
}

/// Bytes that are equal in both: where they begin, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    one: usize,
    other: usize,
    length: usize,
}

/// The matches, from the last to the first, and their bytes.
fn longest(one: &[u8], other: &[u8]) -> (Vec<Match>, Vec<u8>) {
    let width = other.len() + 1;
    let mut table = vec![0_u32; (one.len() + 1) * width];
    for (i, byte) in one.iter().enumerate() {
        for (j, compared) in other.iter().enumerate() {
            table[(i + 1) * width + j + 1] = if byte == compared {
                table[i * width + j] + 1
            } else {
                table[i * width + j + 1].max(table[(i + 1) * width + j])
            };
        }
    }
    let (mut i, mut j) = (one.len(), other.len());
    let (mut matches, mut bytes) = (Vec::<Match>::new(), Vec::new());
    while i > 0 && j > 0 {
        if one[i - 1] == other[j - 1] {
            (i, j) = (i - 1, j - 1);
            bytes.push(one[i]);
            match matches.last_mut().filter(|last| (last.one, last.other) == (i + 1, j + 1)) {
                Some(last) => *last = Match { one: i, other: j, length: last.length + 1 },
                None => matches.push(Match { one: i, other: j, length: 1 }),
            }
        } else if table[(i - 1) * width + j] > table[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    bytes.reverse();
    (matches, bytes)
}

impl Keyspace {
    pub(super) fn common_subsequence(&self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let (Ok(one), Ok(other)) = (self.bytes_at(clock_ms, args[1]), self.bytes_at(clock_ms, args[2]))
        else {
            return reply.error("ERR The specified keys must contain string values");
        };
        let (one, other) = (one.unwrap_or_default(), other.unwrap_or_default());
        if (one.len() + 1).saturating_mul(other.len() + 1) > CELLS_MAX {
            return reply.error("ERR LCS of strings whose lengths multiplied exceed 16 Mi isn't supported");
        }
        let options = parse(args).unwrap_or_default();
        let (matches, bytes) = longest(one, other);
        if !options.indices {
            return if options.length_only { reply.length_of(bytes.len()) } else { reply.bulk(&bytes) };
        }
        let shown: Vec<_> = matches.iter().filter(|found| found.length >= options.least_match).collect();
        reply.map(2);
        reply.bulk(b"matches");
        reply.array(shown.len());
        for found in shown {
            reply.array(if options.with_lengths { 3 } else { 2 });
            for begin in [found.one, found.other] {
                reply.array(2);
                reply.length_of(begin);
                reply.length_of(begin + found.length - 1);
            }
            if options.with_lengths {
                reply.length_of(found.length);
            }
        }
        reply.bulk(b"len");
        reply.length_of(bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;

    #[test]
    fn as_in_the_manual_of_redis() {
        let mut shard = Shard::default();
        shard.say("set a ohmytext");
        shard.say("set b mynewtext");
        assert_eq!(shard.say("lcs a b"), "$6 mytext");
        assert_eq!(shard.say("lcs a b len"), ":6");
        assert_eq!(
            shard.say("lcs a b idx withmatchlen"),
            "*4 $7 matches *2 *3 *2 :4 :7 *2 :5 :8 :4 *3 *2 :2 :3 *2 :0 :1 :2 $3 len :6"
        );
        assert_eq!(shard.say("lcs a b idx minmatchlen 4"), "*4 $7 matches *1 *2 *2 :4 :7 *2 :5 :8 $3 len :6");
        assert_eq!(shard.say("lcs a none"), "$0 ");
        shard.say("setrange c 20000000 x");
        assert!(shard.say("lcs a c").starts_with("-ERR LCS of strings"));
    }
}
