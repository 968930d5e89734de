//! When keys end.

use super::{Keyspace, number};
use crate::command::{Rejected, by_code, code};
use crate::resp::ReplyWriter;

/// What a command says about a key's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It has none (any more).
    None,
    /// It stays as it was.
    Keep,
    /// Milliseconds since 1970.
    At(u64),
}

impl Expiry {
    /// A time to live as a command gives it, counted from `clock_ms` (0: it is absolute).
    ///
    /// # Errors
    /// Redis' words, naming the command.
    pub fn absolute(command: &str, arg: &[u8], seconds: bool, clock_ms: u64) -> Result<Self, Rejected> {
        let invalid = || Rejected(format!("ERR invalid expire time in '{command}' command"));
        let time = number::integer(arg).ok_or_else(Rejected::not_an_integer)?;
        if time <= 0 {
            return Err(invalid());
        }
        let time = if seconds { time.checked_mul(1000).ok_or_else(invalid)? } else { time };
        let clock = i64::try_from(clock_ms).map_err(|_| invalid())?;
        let at = time.checked_add(clock).and_then(|at| u64::try_from(at).ok()).ok_or_else(invalid)?;
        Ok(Self::At(at))
    }

    /// The time of `SETEX` and `PSETEX`.
    ///
    /// # Errors
    /// Redis' words.
    pub fn of_setex(command: u16, arg: &[u8], clock_ms: u64) -> Result<Self, Rejected> {
        match command {
            code::SETEX => Self::absolute("setex", arg, true, clock_ms),
            _ => Self::absolute("psetex", arg, false, clock_ms),
        }
    }

    /// An option like `EX 10`, at `place` of the arguments; `None` if there is no such option.
    pub(super) fn parse_option(
        command: &str,
        args: &[&[u8]],
        place: usize,
        clock_ms: u64,
    ) -> Option<Result<Self, Rejected>> {
        let (seconds, base) = match &args[place].to_ascii_uppercase()[..] {
            b"EX" => (true, clock_ms),
            b"PX" => (false, clock_ms),
            b"EXAT" => (true, 0),
            b"PXAT" => (false, 0),
            _ => return None,
        };
        Some(match args.get(place + 1) {
            Some(time) => Self::absolute(command, time, seconds, base),
            None => Err(Rejected::syntax()),
        })
    }

    /// Checks the form of `GETEX`'s options. What its time is, nobody asks where there is no such key: so does Redis.
    ///
    /// # Errors
    /// Redis' words.
    pub fn check_getex(args: &[&[u8]]) -> Result<(), Rejected> {
        let is_known = match args {
            [_, _] => true,
            [_, _, option] => option.eq_ignore_ascii_case(b"PERSIST"),
            [_, _, option, _] => {
                [&b"EX"[..], b"PX", b"EXAT", b"PXAT"].iter().any(|known| option.eq_ignore_ascii_case(known))
            }
            _ => false,
        };
        if is_known { Ok(()) } else { Err(Rejected::syntax()) }
    }

    /// The options of `GETEX`: `Keep` without any.
    pub(super) fn parse_getex_at(args: &[&[u8]], clock_ms: u64) -> Result<Self, Rejected> {
        match args.len() {
            2 => Ok(Self::Keep),
            3 if args[2].eq_ignore_ascii_case(b"PERSIST") => Ok(Self::None),
            4 => Self::parse_option("getex", args, 2, clock_ms).unwrap_or_else(|| Err(Rejected::syntax())),
            _ => Err(Rejected::syntax()),
        }
    }

    /// The deadline that a key gets which had `former`.
    pub(super) fn deadline(self, former: Option<u64>) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Keep => former,
            Self::At(at) => Some(at),
        }
    }

    /// `EXPIRE` and its like.
    pub(super) fn change(
        keys: &mut Keyspace,
        clock_ms: u64,
        command: u16,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
    ) {
        let time = number::integer(args[2]).unwrap_or(0);
        let time = if is_in_seconds(command) { time.checked_mul(1000) } else { Some(time) };
        let is_absolute = matches!(command, code::EXPIREAT | code::PEXPIREAT);
        let base = if is_absolute { 0 } else { i64::try_from(clock_ms).unwrap_or(i64::MAX) };
        let Some(at) = time.and_then(|time| time.checked_add(base)) else {
            return reply.error(&invalid_time(command).to_string());
        };
        let at = u64::try_from(at).unwrap_or(0);
        let Some(entry) = keys.get(clock_ms, args[1]) else { return reply.integer(0) };
        let former = entry.deadline_ms();
        let allowed = args[3..].iter().all(|option| match &option.to_ascii_uppercase()[..] {
            b"NX" => former.is_none(),
            b"XX" => former.is_some(),
            // No deadline counts as one that never comes.
            b"GT" => former.is_some_and(|former| at > former),
            _ => former.is_none_or(|former| at < former),
        });
        if !allowed {
            return reply.integer(0);
        }
        if at <= clock_ms {
            keys.remove(clock_ms, args[1]);
        } else {
            keys.set_deadline(args[1], Some(at));
        }
        reply.integer(1);
    }
}

fn is_in_seconds(command: u16) -> bool {
    matches!(command, code::EXPIRE | code::EXPIREAT)
}

fn invalid_time(command: u16) -> Rejected {
    let name = by_code(command).map_or("expire", |spec| spec.name);
    Rejected(format!("ERR invalid expire time in '{name}' command"))
}

/// Checks the arguments of `EXPIRE` and its like.
pub(crate) fn check_change(command: u16, args: &[&[u8]]) -> Result<(), Rejected> {
    let time = number::integer(args[2]).ok_or_else(Rejected::not_an_integer)?;
    let (mut exists, mut compares) = ((false, false), (false, false));
    for option in &args[3..] {
        match &option.to_ascii_uppercase()[..] {
            b"NX" => exists.0 = true,
            b"XX" => exists.1 = true,
            b"GT" => compares.0 = true,
            b"LT" => compares.1 = true,
            _ => return Err(Rejected(format!("ERR Unsupported option {}", String::from_utf8_lossy(option)))),
        }
    }
    if exists.0 && (exists.1 || compares.0 || compares.1) {
        return Err(Rejected::new("ERR NX and XX, GT or LT options at the same time are not compatible"));
    }
    if compares.0 && compares.1 {
        return Err(Rejected::new("ERR GT and LT options at the same time are not compatible"));
    }
    if is_in_seconds(command) && time.checked_mul(1000).is_none() {
        return Err(invalid_time(command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;

    #[test]
    fn getex_looks_at_its_time_only_where_there_is_a_key() {
        let mut shard = Shard::default();
        for time in ["0", "-1", "x", "9223372036854775807"] {
            assert_eq!(shard.say(&format!("getex none ex {time}")), shard.say("get none"));
        }
        assert_eq!(shard.say("set k v ex 100"), "+OK");
        assert_eq!(shard.say("getex k ex 0"), "-ERR invalid expire time in 'getex' command");
        assert_eq!(shard.say("getex k ex x"), "-ERR value is not an integer or out of range");
        assert_eq!(shard.say("getex none exx 1"), "-ERR syntax error");
        assert_eq!(shard.say("ttl k"), ":100", "what was refused has changed nothing");
        assert_eq!(shard.say("getex k persist"), "$1 v");
        assert_eq!(shard.say("ttl k"), ":-1");
    }

    #[test]
    fn of_an_end_that_is_given_twice_the_last_counts_and_only_that_is_looked_at() {
        let mut shard = Shard::default();
        assert_eq!(shard.say("set k v ex 0 ex 20"), "+OK");
        assert_eq!(shard.say("ttl k"), ":20");
        assert_eq!(shard.say("set k v ex 20 ex 0"), "-ERR invalid expire time in 'set' command");
        assert_eq!(shard.say("getex k px x px 50"), "$1 v");
        assert_eq!(shard.say("pttl k"), ":50");
        assert_eq!(shard.say("set k v keepttl keepttl"), "+OK");
        assert_eq!(shard.say("pttl k"), ":50");
        assert_eq!(shard.say("getex k persist persist"), "$1 v");
        assert_eq!(shard.say("ttl k"), ":-1");
        for line in [
            "set k v ex 10 px 10",
            "set k v ex 10 exat 10",
            "set k v ex 10 keepttl ex 10",
            "getex k ex 10 persist",
            "getex k persist px 1",
        ] {
            assert_eq!(shard.say(line), "-ERR syntax error", "{line}");
        }
    }
}
