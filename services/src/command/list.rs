//! The list of commands.

use super::table::{Kind, Spec};

const W: Kind = Kind::Write;
const R: Kind = Kind::Read;
const WRITE: &[&str] = &["write", "denyoom"];
const WRITE_FAST: &[&str] = &["write", "denyoom", "fast"];
const READ: &[&str] = &["readonly"];
const READ_FAST: &[&str] = &["readonly", "fast"];
const PLAIN: &[&str] = &["noscript", "loading", "stale", "fast"];
const CONTROL: &[&str] = &["noscript", "loading", "stale", "fast", "allow_busy"];

macro_rules! commands {
    ($($constant:ident $code:literal $name:literal $arity:literal $flags:ident $first:literal $last:literal $step:literal $kind:expr, $summary:literal;)*) => {
        /// What stands for each command in the log, and wherever one is looked for.
        #[allow(missing_docs, reason = "named as the commands")]
        pub mod code {
            $(pub const $constant: u16 = $code;)*
        }

        /// In the order of their names.
        pub(super) static TABLE: &[Spec] = &[$(Spec {
            name: $name, code: $code, arity: $arity, flags: $flags,
            first_key: $first, last_key: $last, step: $step, kind: $kind, summary: $summary,
        }),*];
    };
}

commands! {
    ACL 135 "acl" -2 PLAIN 0 0 0 Kind::Server, "Shows and changes users and their rights.";
    APPEND 1 "append" 3 WRITE_FAST 1 1 1 W, "Appends a string to the value of a key.";
    ASKING 100 "asking" 1 PLAIN 0 0 0 Kind::Connection, "Accepted and without effect: migrations are atomic.";
    AUTH 101 "auth" -2 PLAIN 0 0 0 Kind::Connection, "Authenticates the connection.";
    BITCOUNT 77 "bitcount" -2 READ 1 1 1 R, "The number of set bits in the string value of a key.";
    BITFIELD 28 "bitfield" -2 WRITE 1 1 1 W, "Integers of any width within the string value of a key.";
    BITFIELD_RO 79 "bitfield_ro" -2 READ_FAST 1 1 1 R, "Integers of any width within the string value of a key.";
    BITOP 27 "bitop" -4 WRITE 2 -1 1 W, "Combines the string values of keys bit by bit.";
    BITPOS 78 "bitpos" -3 READ 1 1 1 R, "The place of the first bit of that value in a string.";
    CLIENT 102 "client" -2 PLAIN 0 0 0 Kind::Connection, "Commands about client connections.";
    CLUSTER 103 "cluster" -2 PLAIN 0 0 0 Kind::Cluster, "Commands about the cluster.";
    COMMAND 104 "command" -1 PLAIN 0 0 0 Kind::Server, "Information about all commands.";
    CONFIG 105 "config" -2 PLAIN 0 0 0 Kind::Server, "Shows settings.";
    COPY 31 "copy" -3 WRITE 1 2 1 W, "Copies the value of a key to another one in its slot.";
    DBSIZE 60 "dbsize" 1 READ_FAST 0 0 0 R, "The number of keys.";
    DEBUG 129 "debug" -2 PLAIN 0 0 0 Kind::Server, "Refused.";
    DECR 2 "decr" 2 WRITE_FAST 1 1 1 W, "Decrements the integer value of a key by one.";
    DECRBY 3 "decrby" 3 WRITE_FAST 1 1 1 W, "Decrements the integer value of a key by a number.";
    DEL 4 "del" -2 WRITE 1 -1 1 W, "Deletes keys.";
    DISCARD 122 "discard" 1 CONTROL 0 0 0 Kind::Connection, "Ends a transaction without executing it.";
    DUMP 82 "dump" 2 READ 1 1 1 R, "The value of a key as RESTORE takes it.";
    ECHO 106 "echo" 2 PLAIN 0 0 0 Kind::Connection, "Returns its argument.";
    EXEC 32 "exec" 1 CONTROL 0 0 0 W, "Executes the commands since MULTI, all at once.";
    EXISTS 61 "exists" -2 READ_FAST 1 -1 1 R, "How many of the keys exist.";
    EXPIRE 5 "expire" -3 WRITE_FAST 1 1 1 W, "Sets the time to live of a key in seconds.";
    EXPIREAT 6 "expireat" -3 WRITE_FAST 1 1 1 W, "Sets when a key expires, in seconds since 1970.";
    EXPIRETIME 62 "expiretime" 2 READ_FAST 1 1 1 R, "When a key expires, in seconds since 1970.";
    FLOTILLA_BACKUP 136 "flotilla.backup" -2 PLAIN 0 0 0 Kind::Server, "Reads a whole shard as it is at one moment.";
    FLOTILLA_CAS 33 "flotilla.cas" -4 WRITE_FAST 1 1 1 W, "Sets the string value of a key that has a version; its new version.";
    FLOTILLA_CLUSTER 130 "flotilla.cluster" -2 PLAIN 0 0 0 Kind::Server, "Shows and changes which groups serve the shards.";
    FLOTILLA_GETV 83 "flotilla.getv" 2 READ_FAST 1 1 1 R, "The version and the string value of a key.";
    FLOTILLA_LOAD 38 "flotilla.load" 7 WRITE_FAST 1 1 1 W, "Makes a key from a backup.";
    FLOTILLA_LOADFROM 39 "flotilla.loadfrom" 8 WRITE_FAST 1 2 1 W, "Makes a key from a backup, with the value of another one in its slot.";
    FLOTILLA_MEMBER 119 "flotilla.member" -2 PLAIN 0 0 0 Kind::Server, "Shows and changes who has replicas of the groups on this core.";
    FLOTILLA_ONCE 36 "flotilla.once" -5 WRITE 0 0 0 W, "Executes a write of a session, unless it has been executed.";
    FLOTILLA_PUBLISH 40 "flotilla.publish" 2 WRITE 1 1 1 W, "Sets the pairs that were put aside under a key, once.";
    FLOTILLA_RANGE 84 "flotilla.range" -3 READ 0 0 0 R, "Keys in their order, and their values.";
    FLOTILLA_SESSION 37 "flotilla.session" 2 WRITE_FAST 1 1 1 W, "Opens a session in the shard of a key.";
    FLOTILLA_TRANSFER 120 "flotilla.transfer" 3 PLAIN 0 0 0 Kind::Server, "Makes a node the leader of a group.";
    FLOTILLA_WALK 86 "flotilla.walk" -4 READ 1 1 1 R, "Keys of a shard in their order, and their values.";
    FLUSHALL 7 "flushall" -1 WRITE 0 0 0 W, "Deletes every key.";
    FLUSHDB 8 "flushdb" -1 WRITE 0 0 0 W, "Deletes every key.";
    FUNCTION 107 "function" -2 PLAIN 0 0 0 Kind::Server, "FUNCTION FLUSH: accepted and without effect.";
    GET 63 "get" 2 READ_FAST 1 1 1 R, "The string value of a key.";
    GETBIT 76 "getbit" 3 READ_FAST 1 1 1 R, "A bit of the string value of a key.";
    GETDEL 9 "getdel" 2 WRITE_FAST 1 1 1 W, "The string value of a key, which is deleted.";
    GETEX 10 "getex" -2 WRITE_FAST 1 1 1 W, "The string value of a key, whose expiry is changed.";
    GETRANGE 64 "getrange" 4 READ 1 1 1 R, "A part of the string value of a key.";
    GETSET 11 "getset" 3 WRITE_FAST 1 1 1 W, "The old string value of a key that is given a new one.";
    HELLO 108 "hello" -1 PLAIN 0 0 0 Kind::Connection, "Greets the server and chooses the protocol.";
    INCR 12 "incr" 2 WRITE_FAST 1 1 1 W, "Increments the integer value of a key by one.";
    INCRBY 13 "incrby" 3 WRITE_FAST 1 1 1 W, "Increments the integer value of a key by a number.";
    INCRBYFLOAT 14 "incrbyfloat" 3 WRITE_FAST 1 1 1 W, "Increments the floating point value of a key by a number.";
    INFO 109 "info" -1 PLAIN 0 0 0 Kind::Server, "Information about the node.";
    KEYS 65 "keys" 2 READ 0 0 0 R, "The keys that match a pattern.";
    LASTSAVE 110 "lastsave" 1 PLAIN 0 0 0 Kind::Server, "Now: every acknowledged write is on disk.";
    LATENCY 126 "latency" -2 PLAIN 0 0 0 Kind::Server, "LATENCY RESET and LATEST: nothing is recorded here.";
    LCS 80 "lcs" -3 READ 1 2 1 R, "The longest common subsequence of two string values.";
    LOLWUT 128 "lolwut" -1 PLAIN 0 0 0 Kind::Server, "A ship, and the version.";
    MGET 66 "mget" -2 READ_FAST 1 -1 1 R, "The string values of keys in one slot.";
    MOVE 125 "move" 3 PLAIN 1 1 1 Kind::Server, "Refused: there is only database 0.";
    MSET 15 "mset" -3 WRITE 1 -1 2 W, "Sets the string values of keys in one slot.";
    MSETNX 16 "msetnx" -3 WRITE 1 -1 2 W, "Sets the string values of keys in one slot, if none exists.";
    MULTI 121 "multi" 1 CONTROL 0 0 0 Kind::Connection, "Begins a transaction.";
    OBJECT 81 "object" -2 READ 2 2 1 R, "What the value of a key is made of.";
    PERSIST 17 "persist" 2 WRITE_FAST 1 1 1 W, "Removes the expiry of a key.";
    PEXPIRE 18 "pexpire" -3 WRITE_FAST 1 1 1 W, "Sets the time to live of a key in milliseconds.";
    PEXPIREAT 19 "pexpireat" -3 WRITE_FAST 1 1 1 W, "Sets when a key expires, in milliseconds since 1970.";
    PEXPIRETIME 67 "pexpiretime" 2 READ_FAST 1 1 1 R, "When a key expires, in milliseconds since 1970.";
    PING 111 "ping" -1 PLAIN 0 0 0 Kind::Connection, "Returns PONG, or its argument.";
    PSETEX 20 "psetex" 4 WRITE 1 1 1 W, "Sets a string value and its time to live in milliseconds.";
    PTTL 68 "pttl" 2 READ_FAST 1 1 1 R, "The time to live of a key in milliseconds.";
    QUIT 112 "quit" -1 PLAIN 0 0 0 Kind::Connection, "Closes the connection.";
    RANDOMKEY 69 "randomkey" 1 READ 0 0 0 R, "Some key.";
    READONLY 113 "readonly" 1 PLAIN 0 0 0 Kind::Connection, "Accepted: reads are linearizable all the same.";
    READWRITE 114 "readwrite" 1 PLAIN 0 0 0 Kind::Connection, "Ends READONLY.";
    RENAME 29 "rename" 3 WRITE 1 2 1 W, "Gives a key another name in its slot.";
    RENAMENX 30 "renamenx" 3 WRITE_FAST 1 2 1 W, "Gives a key another name in its slot, if that is free.";
    RESET 115 "reset" 1 PLAIN 0 0 0 Kind::Connection, "Forgets everything about the connection.";
    RESTORE 34 "restore" -4 WRITE 1 1 1 W, "Makes a key from what DUMP returned.";
    SCAN 70 "scan" -2 READ 0 0 0 R, "Iterates over the keys.";
    SELECT 116 "select" 2 PLAIN 0 0 0 Kind::Connection, "There is only database 0.";
    SET 21 "set" -3 WRITE 1 1 1 W, "Sets the string value of a key, with conditions and expiry.";
    SETBIT 26 "setbit" 4 WRITE 1 1 1 W, "Sets a bit of the string value of a key; its old value.";
    SETEX 22 "setex" 4 WRITE 1 1 1 W, "Sets a string value and its time to live in seconds.";
    SETNX 23 "setnx" 3 WRITE_FAST 1 1 1 W, "Sets the string value of a key that doesn't exist.";
    SETRANGE 24 "setrange" 4 WRITE 1 1 1 W, "Overwrites a part of the string value of a key.";
    SLOWLOG 127 "slowlog" -2 PLAIN 0 0 0 Kind::Server, "The commands that took longest to answer.";
    STRLEN 71 "strlen" 2 READ_FAST 1 1 1 R, "The length of the string value of a key.";
    SUBSTR 72 "substr" 4 READ 1 1 1 R, "A part of the string value of a key.";
    SWAPDB 124 "swapdb" 3 PLAIN 0 0 0 Kind::Server, "Refused: there is only database 0.";
    TIME 117 "time" 1 PLAIN 0 0 0 Kind::Server, "The node's time.";
    TOUCH 73 "touch" -2 READ_FAST 1 -1 1 R, "How many of the keys exist.";
    TTL 74 "ttl" 2 READ_FAST 1 1 1 R, "The time to live of a key in seconds.";
    TYPE 75 "type" 2 READ_FAST 1 1 1 R, "The type of the value of a key.";
    UNLINK 25 "unlink" -2 WRITE_FAST 1 -1 1 W, "Deletes keys.";
    UNWATCH 123 "unwatch" 1 CONTROL 0 0 0 Kind::Connection, "Watches no key any more.";
    WAIT 118 "wait" 3 PLAIN 0 0 0 Kind::Server, "How many other replicas have every acknowledged write, at least.";
    WATCH 85 "watch" -2 CONTROL 1 -1 1 R, "EXEC will do nothing if one of the keys has changed.";
}
