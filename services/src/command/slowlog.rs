//! `SLOWLOG`: the commands that took longest to answer, as Redis keeps them.
//!
//! Redis takes the time that its one thread worked. Here it is the time from a command's arrival to its reply, so what it waited
//! for (its turn, the disk, a quorum) is in it.

use super::small::help;
use super::table::Spec;
use super::{unknown_subcommand, upper};
use crate::kv::number;
use crate::resp::ReplyWriter;
use std::collections::VecDeque;

/// Arguments of an entry that are kept; the last one says how many more there were.
const ARGUMENTS_MAX: usize = 32;
/// Bytes of each that are kept.
const ARGUMENT_BYTES_MAX: usize = 128;
/// Entries that can be asked for.
const LENGTH_MAX: i64 = 100_000;
/// Entries that `GET` shows if nobody says how many.
const SHOWN: usize = 10;

/// A setting that `CONFIG SET` may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Microseconds; 0: every command is logged; negative: none.
    SlowerThan,
    /// Entries.
    MaxLength,
}

impl Setting {
    /// The setting of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "slowlog-log-slower-than" => Some(Self::SlowerThan),
            "slowlog-max-len" => Some(Self::MaxLength),
            _ => None,
        }
    }

    /// A value for it.
    ///
    /// # Errors
    /// Why not, in Redis' words.
    pub fn value(self, text: &[u8]) -> Result<i64, String> {
        let value = number::integer(text).ok_or("argument couldn't be parsed into an integer")?;
        let (least, most) = match self {
            Self::SlowerThan => (-1, i64::MAX),
            Self::MaxLength => (0, LENGTH_MAX),
        };
        match (least..=most).contains(&value) {
            true => Ok(value),
            false => Err(format!("argument must be between {least} and {most} inclusive")),
        }
    }
}

#[derive(Debug)]
struct Entry {
    id: u64,
    unix_seconds: u64,
    micros: u64,
    args: Vec<Vec<u8>>,
    connection: u64,
    name: Vec<u8>,
}

/// Who has waited.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its connection's id.
    pub connection: u64,
    /// Its name.
    pub name: &'a [u8],
}

/// The slow commands of a core.
#[derive(Debug)]
pub struct Slowlog {
    slower_than_micros: i64,
    length_max: usize,
    last: u64,
    /// The newest first.
    entries: VecDeque<Entry>,
}

impl Default for Slowlog {
    /// As in Redis: 10 ms, 128 entries.
    fn default() -> Self {
        Self { slower_than_micros: 10_000, length_max: 128, last: 0, entries: VecDeque::new() }
    }
}

impl Slowlog {
    /// Whether a command that took so long is logged.
    #[inline]
    pub fn is_slow(&self, nanos: u64) -> bool {
        self.slower_than_micros >= 0 && nanos / 1000 >= self.slower_than_micros.unsigned_abs()
    }

    /// Takes a command down.
    pub fn log(&mut self, asker: Asker<'_>, spec: &Spec, args: &[&[u8]], (unix_ms, nanos): (u64, u64)) {
        self.last += 1;
        let (connection, name) = (asker.connection, asker.name.to_vec());
        let (unix_seconds, micros) = (unix_ms / 1000, nanos / 1000);
        let args = shortened(spec, args);
        self.entries.push_front(Entry { id: self.last - 1, unix_seconds, micros, args, connection, name });
        self.entries.truncate(self.length_max);
    }

    /// Changes a setting to a value that [`Setting::value`] has allowed.
    pub fn set(&mut self, setting: Setting, value: i64) {
        match setting {
            Setting::SlowerThan => self.slower_than_micros = value,
            Setting::MaxLength => self.length_max = usize::try_from(value).unwrap_or(0),
        }
        self.entries.truncate(self.length_max);
    }

    /// The settings as `CONFIG GET` shows them.
    pub fn settings(&self) -> [(&'static str, String); 2] {
        [
            ("slowlog-log-slower-than", self.slower_than_micros.to_string()),
            ("slowlog-max-len", self.length_max.to_string()),
        ]
    }

    /// Forgets all entries. Their numbers go on.
    pub fn reset(&mut self) {
        self.entries.clear();
    }
}

/// The arguments as they are kept: short, and without passwords.
fn shortened(spec: &Spec, args: &[&[u8]]) -> Vec<Vec<u8>> {
    let is_secret = matches!(spec.name, "auth" | "hello" | "acl");
    let kept = if args.len() > ARGUMENTS_MAX { ARGUMENTS_MAX - 1 } else { args.len() };
    let short = |(place, arg): (usize, &&[u8])| match arg.len() {
        _ if place > 0 && is_secret => b"(redacted)".to_vec(),
        length if length > ARGUMENT_BYTES_MAX => {
            let more = format!("... ({} more bytes)", length - ARGUMENT_BYTES_MAX);
            [&arg[..ARGUMENT_BYTES_MAX], more.as_bytes()].concat()
        }
        _ => arg.to_vec(),
    };
    let mut short: Vec<Vec<u8>> = args[..kept].iter().enumerate().map(short).collect();
    if kept < args.len() {
        short.push(format!("... ({} more arguments)", args.len() - kept).into_bytes());
    }
    short
}

/// Runs the command; `RESET` is left to the log's owner.
pub(super) fn run(args: &[&[u8]], log: &Slowlog, reply: &mut ReplyWriter<'_>) {
    match (&upper(args, 1)[..], args.get(2)) {
        (b"GET", count) if args.len() <= 3 => match count.map(|count| number::integer(count)) {
            None => get(log, SHOWN, reply),
            Some(None) => reply.error("ERR value is not an integer or out of range"),
            Some(Some(-1)) => get(log, usize::MAX, reply),
            Some(Some(count)) => match usize::try_from(count) {
                Ok(count) => get(log, count, reply),
                Err(_) => reply.error("ERR count should be greater than or equal to -1"),
            },
        },
        (b"LEN", None) => reply.length_of(log.entries.len()),
        (b"RESET", None) => reply.simple("OK"),
        (b"HELP", None) => help(
            reply,
            &[
                "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
                "GET [<count>]",
                "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
                "    Entries are made of:",
                "    id, timestamp, time in microseconds, arguments array, client IP and port,",
                "    client name",
                "LEN",
                "    Return the length of the slowlog.",
                "RESET",
                "    Reset the slowlog.",
                "HELP",
                "    Print this help.",
            ],
        ),
        _ => unknown_subcommand(args, reply),
    }
}

fn get(log: &Slowlog, most: usize, reply: &mut ReplyWriter<'_>) {
    let shown = most.min(log.entries.len());
    reply.array(shown);
    for entry in log.entries.iter().take(shown) {
        reply.array(6);
        reply.unsigned(entry.id);
        reply.unsigned(entry.unix_seconds);
        reply.unsigned(entry.micros);
        reply.array(entry.args.len());
        entry.args.iter().for_each(|arg| reply.bulk(arg));
        // The core isn't told addresses; `CLIENT LIST` has the same id.
        reply.bulk(format!("id={}", entry.connection).as_bytes());
        reply.bulk(&entry.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::lookup;
    use crate::resp::Protocol;

    fn said(log: &Slowlog, args: &[&[u8]]) -> String {
        let mut bytes = Vec::new();
        run(args, log, &mut ReplyWriter::new(&mut bytes, Protocol::Resp2));
        String::from_utf8(bytes).unwrap()
    }

    fn log(log: &mut Slowlog, args: &[&[u8]], micros: u64) {
        let asker = Asker { connection: 7, name: b"me" };
        log.log(asker, lookup(args[0]).unwrap(), args, (5_000, micros * 1000));
    }

    #[test]
    fn entries_are_those_of_redis_the_newest_first() {
        let mut slow = Slowlog::default();
        assert!(slow.is_slow(10_000_000) && !slow.is_slow(9_999_999));
        log(&mut slow, &[b"get", b"one"], 11_000);
        log(&mut slow, &[b"get", b"two"], 12_000);
        let newest = "*6\r\n:1\r\n:5\r\n:12000\r\n*2\r\n$3\r\nget\r\n$3\r\ntwo\r\n$4\r\nid=7\r\n$2\r\nme\r\n";
        assert_eq!(said(&slow, &[b"slowlog", b"get", b"1"]), format!("*1\r\n{newest}"));
        assert!(
            said(&slow, &[b"slowlog", b"GET", b"-1"]).starts_with(&format!("*2\r\n{newest}*6\r\n:0\r\n"))
        );
        assert_eq!(said(&slow, &[b"slowlog", b"len"]), ":2\r\n");
        slow.reset();
        log(&mut slow, &[b"get", b"three"], 12_000);
        assert!(said(&slow, &[b"slowlog", b"get"]).starts_with("*1\r\n*6\r\n:2\r\n"));
        assert!(said(&slow, &[b"slowlog", b"get", b"-2"]).starts_with("-ERR count should be"));
        assert!(said(&slow, &[b"slowlog", b"get", b"x"]).starts_with("-ERR value is not an integer"));
        assert!(said(&slow, &[b"slowlog", b"help"]).starts_with("*12\r\n+SLOWLOG <subcommand>"));
        assert!(said(&slow, &[b"slowlog", b"nonsense"]).starts_with("-ERR unknown subcommand"));
    }

    #[test]
    fn an_entry_is_short_and_has_no_secret() {
        let mut slow = Slowlog::default();
        let (long, many) = ([b'x'; 200], [&b"mget"[..]; 40]);
        log(&mut slow, &[b"set", b"key", &long], 1);
        assert!(
            said(&slow, &[b"slowlog", b"get"]).contains(&format!("{}... (72 more bytes)", "x".repeat(128)))
        );
        log(&mut slow, &many, 1);
        assert!(said(&slow, &[b"slowlog", b"get", b"1"]).contains("*32\r\n"));
        assert!(said(&slow, &[b"slowlog", b"get", b"1"]).contains("... (9 more arguments)"));
        log(&mut slow, &[b"auth", b"secret"], 1);
        let shown = said(&slow, &[b"slowlog", b"get", b"1"]);
        assert!(shown.contains("(redacted)") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn settings_bound_it() {
        let mut slow = Slowlog::default();
        assert_eq!(Setting::named("slowlog-max-len"), Some(Setting::MaxLength));
        assert!(Setting::MaxLength.value(b"-1").unwrap_err().contains("between 0 and 100000"));
        assert!(Setting::SlowerThan.value(b"-2").is_err() && Setting::SlowerThan.value(b"x").is_err());
        slow.set(Setting::MaxLength, 2);
        (0..5).for_each(|_| log(&mut slow, &[b"get", b"key"], 1));
        assert_eq!(said(&slow, &[b"slowlog", b"len"]), ":2\r\n");
        slow.set(Setting::SlowerThan, -1);
        assert!(!slow.is_slow(u64::MAX));
        slow.set(Setting::SlowerThan, 0);
        assert!(slow.is_slow(0));
        assert_eq!(slow.settings()[0].1, "0");
    }
}
