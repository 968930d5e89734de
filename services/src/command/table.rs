//! What is known of every command: its name, its shape, and what kind of thing it does. The list is `list.rs`.
//!
//! **The codes are frozen.** A write's code is in the replicated log and on disks; a code is never given to another
//! command, and a command that changes its meaning gets a new one. 0 is [`crate::entry::CODE_ADVANCE_TIME`].

use super::list::TABLE;

/// What a command works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads data.
    Read,
    /// Changes data.
    Write,
    /// Concerns the connection.
    Connection,
    /// Concerns the node.
    Server,
    /// Concerns the cluster.
    Cluster,
}

/// One command.
#[derive(Debug)]
pub struct Spec {
    /// In lower case.
    pub name: &'static str,
    /// What stands for it in the log.
    pub code: u16,
    /// Arguments, the name included; negative: at least so many.
    pub arity: i32,
    /// As `COMMAND` shows them.
    pub flags: &'static [&'static str],
    /// The place of the first key, 0 for none.
    pub first_key: i32,
    /// The place of the last key; negative: from the end.
    pub last_key: i32,
    /// From key to key.
    pub step: i32,
    /// What it works on.
    pub kind: Kind,
    /// For `COMMAND DOCS`.
    pub summary: &'static str,
}

impl Spec {
    /// Whether it goes through the log.
    pub fn is_write(&self) -> bool {
        self.kind == Kind::Write
    }

    /// Its place among all commands.
    pub fn place(&self) -> usize {
        usize::from(PLACES[usize::from(self.code)])
    }

    /// The places of its keys among so many arguments, the name included.
    pub fn key_places(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let args = i32::try_from(count).unwrap_or(i32::MAX);
        let last = if self.last_key < 0 { args + self.last_key } else { self.last_key };
        let (first, step) = (self.first_key, self.step.max(1));
        let places = (first..=last).step_by(usize::try_from(step).unwrap_or(1)).filter(move |_| first > 0);
        places.filter_map(|place| usize::try_from(place).ok()).filter(move |place| *place < count)
    }

    /// Its keys among the arguments, `args[0]` being the name.
    pub fn keys<'a>(&self, args: &[&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
        let keys: smallvec::SmallVec<[&'a [u8]; 8]> =
            self.key_places(args.len()).map(|place| args[place]).collect();
        keys.into_iter()
    }
}

/// Every command.
pub fn all() -> &'static [Spec] {
    TABLE
}

/// Finds a command by name, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let mut place = bucket(name);
    loop {
        let spec = TABLE.get(usize::from(BUCKETS[place]))?;
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        place = (place + 1) % BUCKETS_MAX;
    }
}

/// Finds a command by what stands for it in the log.
pub fn by_code(code: u16) -> Option<&'static Spec> {
    let place = *PLACES.get(usize::from(code))?;
    TABLE.get(usize::from(place))
}

/// Several times as many as commands, so that most are found at the first look.
const BUCKETS_MAX: usize = 1024;

/// Where a name is looked for first. Most names differ in length, first, third or last letter.
const fn bucket(name: &[u8]) -> usize {
    if name.is_empty() {
        return 0;
    }
    let third = if name.len() > 2 { name[2] } else { 0 };
    let letters = [name[0], third, name[name.len() / 2], name[name.len() - 1]];
    let mut mixed = name.len();
    let mut place = 0;
    while place < letters.len() {
        mixed = mixed.wrapping_mul(37) ^ (letters[place] | 0x20) as usize;
        place += 1;
    }
    (mixed ^ (mixed >> 10)) % BUCKETS_MAX
}

/// The place in the table of the command whose name belongs into each bucket, or into an earlier one that was taken; past
/// the table's end for none.
static BUCKETS: [u8; BUCKETS_MAX] = {
    let mut buckets = [u8::MAX; BUCKETS_MAX];
    let mut place = 0;
    while place < TABLE.len() {
        let mut at = bucket(TABLE[place].name.as_bytes());
        while buckets[at] != u8::MAX {
            at = (at + 1) % BUCKETS_MAX;
        }
        buckets[at] = short(place);
        place += 1;
    }
    buckets
};

/// The place in the table of every code; past its end for none.
static PLACES: [u8; 256] = {
    let mut places = [u8::MAX; 256];
    let mut place = 0;
    while place < TABLE.len() {
        places[TABLE[place].code as usize] = short(place);
        place += 1;
    }
    places
};

const fn short(place: usize) -> u8 {
    assert!(place < u8::MAX as usize);
    #[allow(clippy::cast_possible_truncation, reason = "asserted right above; try_from isn't const")]
    let short = place as u8;
    short
}

/// Redis' words for a command that isn't there.
pub fn unknown_command(args: &[&[u8]]) -> String {
    // As C does: a text ends before its first zero byte.
    let shown = |arg: &[u8], most: usize| {
        let end = arg.iter().position(|byte| *byte == 0).unwrap_or(arg.len()).min(most);
        String::from_utf8_lossy(&arg[..end]).into_owned()
    };
    let mut rest = String::new();
    for arg in &args[1..] {
        if rest.len() >= 128 {
            break;
        }
        rest.push_str(&format!("'{}' ", shown(arg, 128 - rest.len())));
    }
    format!("ERR unknown command '{}', with args beginning with: {rest}", shown(args[0], 128))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_is_sorted_and_its_codes_are_unique() {
        assert!(TABLE.is_sorted_by_key(|spec| spec.name));
        let codes: BTreeSet<u16> = TABLE.iter().map(|spec| spec.code).collect();
        assert_eq!((codes.len(), codes.contains(&0)), (TABLE.len(), false));
        for spec in TABLE {
            assert!(std::ptr::eq(lookup(spec.name.to_uppercase().as_bytes()).unwrap(), spec));
            assert!(std::ptr::eq(by_code(spec.code).unwrap(), spec));
        }
    }

    #[test]
    fn keys_are_found_where_the_table_says() {
        let keys = |args: &[&'static [u8]]| lookup(args[0]).unwrap().keys(args).collect::<Vec<_>>();
        assert_eq!(keys(&[b"mset", b"a", b"1", b"b", b"2"]), [b"a", b"b"]);
        assert_eq!(keys(&[b"del", b"a", b"b"]), [b"a", b"b"]);
        assert_eq!(keys(&[b"set", b"a", b"b"]), [b"a"]);
        assert!(keys(&[b"ping", b"a"]).is_empty() && keys(&[b"scan", b"0"]).is_empty());
    }

    #[test]
    fn an_unknown_command_is_named_as_in_redis() {
        let text = unknown_command(&[b"foo", b"bar", b"baz"]);
        assert_eq!(text, "ERR unknown command 'foo', with args beginning with: 'bar' 'baz' ");
        let text = unknown_command(&[b"fo\0o", b"\0bar", b"ba\0z"]);
        assert_eq!(text, "ERR unknown command 'fo', with args beginning with: '' 'ba' ");
        let (long, head) = ([b'x'; 300], "x".repeat(128));
        let text = unknown_command(&[&long, &long, &long]);
        assert_eq!(text, format!("ERR unknown command '{head}', with args beginning with: '{head}' "));
    }
}
