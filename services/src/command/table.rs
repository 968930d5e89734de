//! Every command: its name, its shape, and what kind of thing it does.
//!
//! **The codes are frozen.** A write's code is in the replicated log and on disks; a code is never given to another
//! command, and a command that changes its meaning gets a new one. 0 is [`crate::entry::CODE_ADVANCE_TIME`].

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

    /// Its keys among the arguments, `args[0]` being the name.
    pub fn keys<'a>(&self, args: &[&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
        let count = i32::try_from(args.len()).unwrap_or(i32::MAX);
        let last = if self.last_key < 0 { count + self.last_key } else { self.last_key };
        let (first, step) = (self.first_key, self.step.max(1));
        let places = (first..=last).step_by(usize::try_from(step).unwrap_or(1)).filter(move |_| first > 0);
        let keys: smallvec::SmallVec<[&'a [u8]; 8]> = places
            .filter_map(|place| usize::try_from(place).ok().and_then(|place| args.get(place)).copied())
            .collect();
        keys.into_iter()
    }
}

const W: Kind = Kind::Write;
const R: Kind = Kind::Read;
const WRITE: &[&str] = &["write", "denyoom"];
const WRITE_FAST: &[&str] = &["write", "denyoom", "fast"];
const READ: &[&str] = &["readonly"];
const READ_FAST: &[&str] = &["readonly", "fast"];
const PLAIN: &[&str] = &["noscript", "loading", "stale", "fast"];

macro_rules! commands {
    ($($code:literal $name:literal $arity:literal $flags:ident $first:literal $last:literal $step:literal $kind:expr, $summary:literal;)*) => {
        &[$(Spec {
            name: $name, code: $code, arity: $arity, flags: $flags,
            first_key: $first, last_key: $last, step: $step, kind: $kind, summary: $summary,
        }),*]
    };
}

/// In the order of their names.
static TABLE: &[Spec] = commands! {
    1 "append" 3 WRITE_FAST 1 1 1 W, "Appends a string to the value of a key.";
    100 "asking" 1 PLAIN 0 0 0 Kind::Connection, "Accepted and without effect: migrations are atomic.";
    101 "auth" -2 PLAIN 0 0 0 Kind::Connection, "Authenticates the connection.";
    102 "client" -2 PLAIN 0 0 0 Kind::Connection, "Commands about client connections.";
    103 "cluster" -2 PLAIN 0 0 0 Kind::Cluster, "Commands about the cluster.";
    104 "command" -1 PLAIN 0 0 0 Kind::Server, "Information about all commands.";
    105 "config" -2 PLAIN 0 0 0 Kind::Server, "Shows settings.";
    60 "dbsize" 1 READ_FAST 0 0 0 R, "The number of keys that this core leads.";
    2 "decr" 2 WRITE_FAST 1 1 1 W, "Decrements the integer value of a key by one.";
    3 "decrby" 3 WRITE_FAST 1 1 1 W, "Decrements the integer value of a key by a number.";
    4 "del" -2 WRITE 1 -1 1 W, "Deletes keys.";
    106 "echo" 2 PLAIN 0 0 0 Kind::Connection, "Returns its argument.";
    61 "exists" -2 READ_FAST 1 -1 1 R, "How many of the keys exist.";
    5 "expire" -3 WRITE_FAST 1 1 1 W, "Sets the time to live of a key in seconds.";
    6 "expireat" -3 WRITE_FAST 1 1 1 W, "Sets when a key expires, in seconds since 1970.";
    62 "expiretime" 2 READ_FAST 1 1 1 R, "When a key expires, in seconds since 1970.";
    119 "flotilla.member" -2 PLAIN 0 0 0 Kind::Server, "Shows and changes who has replicas of the groups on this core.";
    120 "flotilla.transfer" 3 PLAIN 0 0 0 Kind::Server, "Makes a node the leader of a group.";
    7 "flushall" -1 WRITE 0 0 0 W, "Deletes every key that this core leads.";
    8 "flushdb" -1 WRITE 0 0 0 W, "Deletes every key that this core leads.";
    107 "function" -2 PLAIN 0 0 0 Kind::Server, "FUNCTION FLUSH: accepted and without effect.";
    63 "get" 2 READ_FAST 1 1 1 R, "The string value of a key.";
    9 "getdel" 2 WRITE_FAST 1 1 1 W, "The string value of a key, which is deleted.";
    10 "getex" -2 WRITE_FAST 1 1 1 W, "The string value of a key, whose expiry is changed.";
    64 "getrange" 4 READ 1 1 1 R, "A part of the string value of a key.";
    11 "getset" 3 WRITE_FAST 1 1 1 W, "The old string value of a key that is given a new one.";
    108 "hello" -1 PLAIN 0 0 0 Kind::Connection, "Greets the server and chooses the protocol.";
    12 "incr" 2 WRITE_FAST 1 1 1 W, "Increments the integer value of a key by one.";
    13 "incrby" 3 WRITE_FAST 1 1 1 W, "Increments the integer value of a key by a number.";
    14 "incrbyfloat" 3 WRITE_FAST 1 1 1 W, "Increments the floating point value of a key by a number.";
    109 "info" -1 PLAIN 0 0 0 Kind::Server, "Information about the node.";
    65 "keys" 2 READ 0 0 0 R, "The keys that match a pattern, of those that this core leads.";
    110 "lastsave" 1 PLAIN 0 0 0 Kind::Server, "Now: every acknowledged write is on disk.";
    66 "mget" -2 READ_FAST 1 -1 1 R, "The string values of keys in one slot.";
    15 "mset" -3 WRITE 1 -1 2 W, "Sets the string values of keys in one slot.";
    16 "msetnx" -3 WRITE 1 -1 2 W, "Sets the string values of keys in one slot, if none exists.";
    17 "persist" 2 WRITE_FAST 1 1 1 W, "Removes the expiry of a key.";
    18 "pexpire" -3 WRITE_FAST 1 1 1 W, "Sets the time to live of a key in milliseconds.";
    19 "pexpireat" -3 WRITE_FAST 1 1 1 W, "Sets when a key expires, in milliseconds since 1970.";
    67 "pexpiretime" 2 READ_FAST 1 1 1 R, "When a key expires, in milliseconds since 1970.";
    111 "ping" -1 PLAIN 0 0 0 Kind::Connection, "Returns PONG, or its argument.";
    20 "psetex" 4 WRITE 1 1 1 W, "Sets a string value and its time to live in milliseconds.";
    68 "pttl" 2 READ_FAST 1 1 1 R, "The time to live of a key in milliseconds.";
    112 "quit" -1 PLAIN 0 0 0 Kind::Connection, "Closes the connection.";
    69 "randomkey" 1 READ 0 0 0 R, "Some key of those that this core leads.";
    113 "readonly" 1 PLAIN 0 0 0 Kind::Connection, "Accepted: reads are linearizable all the same.";
    114 "readwrite" 1 PLAIN 0 0 0 Kind::Connection, "Ends READONLY.";
    115 "reset" 1 PLAIN 0 0 0 Kind::Connection, "Forgets everything about the connection.";
    70 "scan" -2 READ 0 0 0 R, "Iterates over the keys that this core leads.";
    116 "select" 2 PLAIN 0 0 0 Kind::Connection, "There is only database 0.";
    21 "set" -3 WRITE 1 1 1 W, "Sets the string value of a key, with conditions and expiry.";
    22 "setex" 4 WRITE 1 1 1 W, "Sets a string value and its time to live in seconds.";
    23 "setnx" 3 WRITE_FAST 1 1 1 W, "Sets the string value of a key that doesn't exist.";
    24 "setrange" 4 WRITE 1 1 1 W, "Overwrites a part of the string value of a key.";
    71 "strlen" 2 READ_FAST 1 1 1 R, "The length of the string value of a key.";
    72 "substr" 4 READ 1 1 1 R, "A part of the string value of a key.";
    117 "time" 1 PLAIN 0 0 0 Kind::Server, "The node's time.";
    73 "touch" -2 READ_FAST 1 -1 1 R, "How many of the keys exist.";
    74 "ttl" 2 READ_FAST 1 1 1 R, "The time to live of a key in seconds.";
    75 "type" 2 READ_FAST 1 1 1 R, "The type of the value of a key.";
    25 "unlink" -2 WRITE_FAST 1 -1 1 W, "Deletes keys.";
    118 "wait" 3 PLAIN 0 0 0 Kind::Server, "How many other replicas have every acknowledged write, at least.";
};

/// Every command.
pub fn all() -> &'static [Spec] {
    TABLE
}

/// The longest name.
const NAME_BYTES_MAX: usize = 20;

/// Finds a command by name, in any case.
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let place = TABLE.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
    Some(&TABLE[place])
}

/// Finds a command by what stands for it in the log.
pub fn by_code(code: u16) -> Option<&'static Spec> {
    let place = *PLACES.get(usize::from(code))?;
    TABLE.get(usize::from(place))
}

/// The place in the table of every code; past its end for none.
static PLACES: [u8; 128] = {
    let mut places = [u8::MAX; 128];
    let mut place = 0;
    while place < TABLE.len() {
        #[allow(clippy::cast_possible_truncation, reason = "the table is short; try_from isn't const")]
        let short = place as u8;
        places[TABLE[place].code as usize] = short;
        place += 1;
    }
    places
};

/// Redis' words for a command that isn't there.
pub fn unknown_command(args: &[&[u8]]) -> String {
    let shown = |arg: &[u8]| String::from_utf8_lossy(&arg[..arg.len().min(128)]).into_owned();
    let mut rest = String::new();
    for arg in &args[1..] {
        if rest.len() >= 128 {
            break;
        }
        rest.push_str(&format!("'{}' ", shown(arg)));
    }
    format!("ERR unknown command '{}', with args beginning with: {rest}", shown(args[0]))
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
            assert!(spec.name.len() <= NAME_BYTES_MAX);
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
    }
}
