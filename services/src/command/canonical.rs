//! Commands that Redis takes and replicas don't, in words that both take.
//!
//! What a replica makes of a command in its log is frozen: those of a release before apply it too, and must come to the same. So what
//! Redis takes besides is said otherwise before it is checked, queued or logged. Nothing here depends on data.

use super::check::STRING_BYTES_MAX;
use super::list::code;
use super::table::{Spec, lookup};
use crate::entry::Args;
use crate::kv::number;

/// What `FLOTILLA.ONCE` has before its command.
const ONCE_ARGS: usize = 4;

/// The command in other words, if it has to be said otherwise; `args[0]` is its name.
pub fn canonical<'a>(spec: &Spec, args: &[&'a [u8]]) -> Option<Args<'a>> {
    match spec.code {
        // Shorter ones give no time twice.
        code::SET if args.len() > 6 => with_one_end(args, 3),
        code::GETEX if args.len() > 3 => with_one_end(args, 2),
        code::SETRANGE => within_bounds(args),
        code::FLOTILLA_ONCE => {
            let (before, write) = args.split_at_checked(ONCE_ARGS)?;
            // One within another is refused, however deep.
            let spec = lookup(write.first()?).filter(|spec| spec.code != code::FLOTILLA_ONCE)?;
            let write = canonical(spec, write)?;
            Some(before.iter().copied().chain(write).collect())
        }
        _ => None,
    }
}

/// Of an option that says when a key ends the last counts, if it is always the same one. `from` is the place of the first option.
fn with_one_end<'a>(args: &[&'a [u8]], from: usize) -> Option<Args<'a>> {
    let (before, mut rest) = args.split_at_checked(from)?;
    let mut said: Args<'a> = before.into();
    // The place among those of the one that was said first.
    let mut end: Option<usize> = None;
    while let Some((&option, behind)) = rest.split_first() {
        let takes_a_time =
            [&b"EX"[..], b"PX", b"EXAT", b"PXAT"].iter().any(|it| option.eq_ignore_ascii_case(it));
        let time = behind.first().filter(|_| takes_a_time);
        rest = &behind[usize::from(time.is_some())..];
        match end {
            Some(place) if said[place].eq_ignore_ascii_case(option) => {
                if let Some(time) = time {
                    said[place + 1] = *time;
                } else if takes_a_time {
                    // Without a time: to be refused.
                    said.push(option);
                }
                continue;
            }
            None if time.is_some() || option.eq_ignore_ascii_case(b"PERSIST") => end = Some(said.len()),
            _ => {}
        }
        said.push(option);
        said.extend(time.copied());
    }
    (said.len() < args.len()).then_some(said)
}

/// `SETRANGE` of nothing does nothing, wherever.
fn within_bounds<'a>(args: &[&'a [u8]]) -> Option<Args<'a>> {
    let [name, key, offset, value] = args else { return None };
    let place = usize::try_from(number::integer(offset)?).ok()?;
    let beginning: &[u8] = b"0";
    let is_beyond = value.is_empty() && place > STRING_BYTES_MAX;
    is_beyond.then(|| [*name, *key, beginning, *value].into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    /// A line in other words; `""` is an empty one.
    fn said(line: &str) -> Option<String> {
        let words = line.split(' ').map(|word| if word == "\"\"" { "" } else { word });
        let args: Vec<&[u8]> = words.map(str::as_bytes).collect();
        let words = canonical(lookup(args[0]).unwrap(), &args)?;
        Some(words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn of_a_time_that_is_given_twice_the_last_counts() {
        for (line, words) in [
            ("set k v EX 10 EX 20", "set k v EX 20"),
            ("set k v ex 0 nx Ex x get EX 20", "set k v ex 20 nx get"),
            ("set k v pxat 1 pxat 2 pxat 3", "set k v pxat 3"),
            ("set k v exat 1 exat 2", "set k v exat 2"),
            ("set k v ex ex ex 5", "set k v ex 5"),
            ("getex k px 1 px 2", "getex k px 2"),
            ("getex k persist PERSIST", "getex k persist"),
            ("flotilla.once 64 1 0 set k v ex 1 ex 2", "flotilla.once 64 1 0 set k v ex 2"),
        ] {
            assert_eq!(said(line).as_deref(), Some(words), "{line}");
        }
    }

    #[test]
    fn what_redis_refuses_is_refused() {
        for line in [
            "set k v ex 10 px 20",
            "set k v ex 10 px 20 ex 30",
            "set k v ex 10 ex",
            "set k v ex 10 ex 20 ex",
            "set k v ex 10 keepttl ex 20",
            "set k v ex 10 20 30",
            "getex k persist ex 10 persist",
            "getex k ex 10 persist",
            "getex k ex 10 ex",
            "getex k keepttl keepttl",
        ] {
            let words = said(line).unwrap_or_else(|| line.to_owned());
            let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            let refused = check(lookup(args[0]).unwrap(), &args).unwrap_err();
            assert_eq!(refused.to_string(), "ERR syntax error", "{line}: {words}");
        }
    }

    #[test]
    fn nothing_may_be_written_beyond_the_longest_string() {
        assert_eq!(said("setrange k 536870913 \"\"").as_deref(), Some("setrange k 0 "));
        assert_eq!(said("setrange k 9223372036854775807 \"\"").as_deref(), Some("setrange k 0 "));
        for line in
            ["setrange k 536870912 \"\"", "setrange k 536870913 v", "setrange k -1 \"\"", "setrange k x \"\""]
        {
            assert_eq!(said(line), None, "{line}");
        }
    }

    #[test]
    fn what_can_be_taken_as_it_is_stays_so() {
        for line in [
            "set k v",
            "set k v ex 10 nx get",
            "set k v keepttl keepttl nx nx",
            "getex k ex 10",
            "setrange k",
            "set",
            "getex",
            "flotilla.once",
            "flotilla.once 64 1 0 flotilla.once 64 1 0 set k v ex 1 ex 2",
            "flotilla.once 64 1 0 none k",
        ] {
            assert_eq!(said(line), None, "{line}");
        }
    }
}
