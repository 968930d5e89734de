//! Categories of commands, and to which of them every command and subcommand belongs: those of Redis 7.0.

/// A set of categories, a bit each, in the order of [`NAMES`].
pub(super) type Categories = u32;

/// In the order in which `ACL CAT` tells them.
pub(super) const NAMES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

const KEYSPACE: Categories = 1;
const READ: Categories = 1 << 1;
const WRITE: Categories = 1 << 2;
const STRING: Categories = 1 << 7;
const BITMAP: Categories = 1 << 8;
const ADMIN: Categories = 1 << 13;
const FAST: Categories = 1 << 14;
const SLOW: Categories = 1 << 15;
const DANGEROUS: Categories = 1 << 17;
const CONNECTION: Categories = 1 << 18;
const TRANSACTION: Categories = 1 << 19;
const SCRIPTING: Categories = 1 << 20;

/// The category of a name, in any case.
pub(super) fn by_name(name: &[u8]) -> Option<Categories> {
    let place = NAMES.iter().position(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
    Some(1 << place)
}

/// What a command is that nobody has put into a category: nothing that a user is given by accident.
pub(super) const UNKNOWN: Categories = ADMIN | DANGEROUS | SLOW;

/// The categories of every command, sorted by name.
pub(super) const COMMANDS: &[(&str, Categories)] = &[
    ("acl", SLOW),
    ("append", FAST | STRING | WRITE),
    ("asking", CONNECTION | FAST),
    ("auth", CONNECTION | FAST),
    ("bitcount", BITMAP | READ | SLOW),
    ("bitfield", BITMAP | SLOW | WRITE),
    ("bitfield_ro", BITMAP | FAST | READ),
    ("bitop", BITMAP | SLOW | WRITE),
    ("bitpos", BITMAP | READ | SLOW),
    ("client", SLOW),
    ("cluster", SLOW),
    ("command", CONNECTION | SLOW),
    ("config", SLOW),
    ("copy", KEYSPACE | SLOW | WRITE),
    ("dbsize", FAST | KEYSPACE | READ),
    ("debug", ADMIN | DANGEROUS | SLOW),
    ("decr", FAST | STRING | WRITE),
    ("decrby", FAST | STRING | WRITE),
    ("del", KEYSPACE | SLOW | WRITE),
    ("discard", FAST | TRANSACTION),
    ("dump", KEYSPACE | READ | SLOW),
    ("echo", CONNECTION | FAST),
    ("exec", SLOW | TRANSACTION),
    ("exists", FAST | KEYSPACE | READ),
    ("expire", FAST | KEYSPACE | WRITE),
    ("expireat", FAST | KEYSPACE | WRITE),
    ("expiretime", FAST | KEYSPACE | READ),
    ("flotilla.backup", ADMIN | DANGEROUS | SLOW),
    ("flotilla.cas", FAST | STRING | WRITE),
    ("flotilla.cluster", ADMIN | DANGEROUS | SLOW),
    ("flotilla.getv", FAST | READ | STRING),
    ("flotilla.load", ADMIN | DANGEROUS | KEYSPACE | SLOW | WRITE),
    ("flotilla.loadfrom", ADMIN | DANGEROUS | KEYSPACE | SLOW | WRITE),
    ("flotilla.member", ADMIN | DANGEROUS | SLOW),
    ("flotilla.once", SLOW | WRITE),
    ("flotilla.publish", ADMIN | DANGEROUS | KEYSPACE | SLOW | WRITE),
    ("flotilla.range", DANGEROUS | KEYSPACE | READ | SLOW),
    ("flotilla.session", FAST | WRITE),
    ("flotilla.transfer", ADMIN | DANGEROUS | SLOW),
    ("flotilla.walk", DANGEROUS | KEYSPACE | READ | SLOW),
    ("flushall", DANGEROUS | KEYSPACE | SLOW | WRITE),
    ("flushdb", DANGEROUS | KEYSPACE | SLOW | WRITE),
    ("function", SLOW),
    ("get", FAST | READ | STRING),
    ("getbit", BITMAP | FAST | READ),
    ("getdel", FAST | STRING | WRITE),
    ("getex", FAST | STRING | WRITE),
    ("getrange", READ | SLOW | STRING),
    ("getset", FAST | STRING | WRITE),
    ("hello", CONNECTION | FAST),
    ("incr", FAST | STRING | WRITE),
    ("incrby", FAST | STRING | WRITE),
    ("incrbyfloat", FAST | STRING | WRITE),
    ("info", DANGEROUS | SLOW),
    ("keys", DANGEROUS | KEYSPACE | READ | SLOW),
    ("lastsave", ADMIN | DANGEROUS | FAST),
    ("latency", SLOW),
    ("lcs", READ | SLOW | STRING),
    ("lolwut", FAST | READ),
    ("mget", FAST | READ | STRING),
    ("move", FAST | KEYSPACE | WRITE),
    ("mset", SLOW | STRING | WRITE),
    ("msetnx", SLOW | STRING | WRITE),
    ("multi", FAST | TRANSACTION),
    ("object", SLOW),
    ("persist", FAST | KEYSPACE | WRITE),
    ("pexpire", FAST | KEYSPACE | WRITE),
    ("pexpireat", FAST | KEYSPACE | WRITE),
    ("pexpiretime", FAST | KEYSPACE | READ),
    ("ping", CONNECTION | FAST),
    ("psetex", SLOW | STRING | WRITE),
    ("pttl", FAST | KEYSPACE | READ),
    ("quit", CONNECTION | FAST),
    ("randomkey", KEYSPACE | READ | SLOW),
    ("readonly", CONNECTION | FAST),
    ("readwrite", CONNECTION | FAST),
    ("rename", KEYSPACE | SLOW | WRITE),
    ("renamenx", FAST | KEYSPACE | WRITE),
    ("reset", CONNECTION | FAST),
    ("restore", DANGEROUS | KEYSPACE | SLOW | WRITE),
    ("scan", KEYSPACE | READ | SLOW),
    ("select", CONNECTION | FAST),
    ("set", SLOW | STRING | WRITE),
    ("setbit", BITMAP | SLOW | WRITE),
    ("setex", SLOW | STRING | WRITE),
    ("setnx", FAST | STRING | WRITE),
    ("setrange", SLOW | STRING | WRITE),
    ("slowlog", SLOW),
    ("strlen", FAST | READ | STRING),
    ("substr", READ | SLOW | STRING),
    ("swapdb", DANGEROUS | FAST | KEYSPACE | WRITE),
    ("time", FAST),
    ("touch", FAST | KEYSPACE | READ),
    ("ttl", FAST | KEYSPACE | READ),
    ("type", FAST | KEYSPACE | READ),
    ("unlink", FAST | KEYSPACE | WRITE),
    ("unwatch", FAST | TRANSACTION),
    ("wait", CONNECTION | SLOW),
    ("watch", FAST | TRANSACTION),
];

/// The subcommands that rights can be given for one by one, with their categories, sorted.
pub(super) const SUBCOMMANDS: &[(&str, &str, Categories)] = &[
    ("acl", "cat", SLOW),
    ("acl", "deluser", ADMIN | DANGEROUS | SLOW),
    ("acl", "dryrun", ADMIN | DANGEROUS | SLOW),
    ("acl", "genpass", SLOW),
    ("acl", "getuser", ADMIN | DANGEROUS | SLOW),
    ("acl", "help", SLOW),
    ("acl", "list", ADMIN | DANGEROUS | SLOW),
    ("acl", "load", ADMIN | DANGEROUS | SLOW),
    ("acl", "log", ADMIN | DANGEROUS | SLOW),
    ("acl", "save", ADMIN | DANGEROUS | SLOW),
    ("acl", "setuser", ADMIN | DANGEROUS | SLOW),
    ("acl", "users", ADMIN | DANGEROUS | SLOW),
    ("acl", "whoami", SLOW),
    ("client", "getname", CONNECTION | SLOW),
    ("client", "getredir", CONNECTION | SLOW),
    ("client", "help", CONNECTION | SLOW),
    ("client", "id", CONNECTION | SLOW),
    ("client", "info", CONNECTION | SLOW),
    ("client", "kill", ADMIN | CONNECTION | DANGEROUS | SLOW),
    ("client", "list", ADMIN | CONNECTION | DANGEROUS | SLOW),
    ("client", "no-evict", ADMIN | CONNECTION | DANGEROUS | SLOW),
    ("client", "no-touch", CONNECTION | SLOW),
    ("client", "reply", CONNECTION | SLOW),
    ("client", "setinfo", CONNECTION | SLOW),
    ("client", "setname", CONNECTION | SLOW),
    ("client", "tracking", CONNECTION | SLOW),
    ("client", "trackinginfo", CONNECTION | SLOW),
    ("cluster", "countkeysinslot", SLOW),
    ("cluster", "getkeysinslot", SLOW),
    ("cluster", "info", SLOW),
    ("cluster", "keyslot", SLOW),
    ("cluster", "myid", SLOW),
    ("cluster", "nodes", SLOW),
    ("cluster", "shards", SLOW),
    ("cluster", "slots", SLOW),
    ("command", "count", CONNECTION | SLOW),
    ("command", "docs", CONNECTION | SLOW),
    ("command", "getkeys", CONNECTION | SLOW),
    ("command", "info", CONNECTION | SLOW),
    ("command", "list", CONNECTION | SLOW),
    ("config", "get", ADMIN | DANGEROUS | SLOW),
    ("config", "resetstat", ADMIN | DANGEROUS | SLOW),
    ("config", "set", ADMIN | DANGEROUS | SLOW),
    ("flotilla.cluster", "join", ADMIN | DANGEROUS | SLOW),
    ("flotilla.cluster", "leave", ADMIN | DANGEROUS | SLOW),
    ("flotilla.cluster", "move", ADMIN | DANGEROUS | SLOW),
    ("flotilla.cluster", "query", SLOW),
    ("flotilla.cluster", "status", SLOW),
    ("flotilla.member", "add", ADMIN | DANGEROUS | SLOW),
    ("flotilla.member", "list", SLOW),
    ("flotilla.member", "promote", ADMIN | DANGEROUS | SLOW),
    ("flotilla.member", "remove", ADMIN | DANGEROUS | SLOW),
    ("flotilla.member", "replace", ADMIN | DANGEROUS | SLOW),
    ("flotilla.member", "set", ADMIN | DANGEROUS | SLOW),
    ("flotilla.member", "status", SLOW),
    ("function", "flush", SCRIPTING | SLOW | WRITE),
    ("latency", "history", ADMIN | DANGEROUS | SLOW),
    ("latency", "latest", ADMIN | DANGEROUS | SLOW),
    ("latency", "reset", ADMIN | DANGEROUS | SLOW),
    ("object", "encoding", KEYSPACE | READ | SLOW),
    ("object", "freq", KEYSPACE | READ | SLOW),
    ("object", "help", KEYSPACE | SLOW),
    ("object", "idletime", KEYSPACE | READ | SLOW),
    ("object", "refcount", KEYSPACE | READ | SLOW),
    ("slowlog", "get", ADMIN | DANGEROUS | SLOW),
    ("slowlog", "len", ADMIN | DANGEROUS | SLOW),
    ("slowlog", "reset", ADMIN | DANGEROUS | SLOW),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::all;

    #[test]
    fn every_command_is_in_a_category() {
        let listed: Vec<&str> = COMMANDS.iter().map(|(name, _)| *name).collect();
        let there: Vec<&str> = all().iter().map(|spec| spec.name).collect();
        assert_eq!(listed, there, "give a new command its categories: those of Redis, or ADMIN | DANGEROUS");
        assert!(SUBCOMMANDS.is_sorted_by_key(|(command, name, _)| (*command, *name)));
        assert!(SUBCOMMANDS.iter().all(|(command, ..)| there.contains(command)));
    }

    #[test]
    fn names_are_those_of_the_bits() {
        assert_eq!(by_name(b"KeySpace"), Some(KEYSPACE));
        assert_eq!(by_name(b"admin"), Some(ADMIN));
        assert_eq!(by_name(b"scripting"), Some(SCRIPTING));
        assert_eq!(by_name(b"nonsense"), None);
    }
}
