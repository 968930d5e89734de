//! What goes wrong on a [`FaultFs`](super::FaultFs), and when: rules that count operations, and the room that is left.

use rustix::io::Errno;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// A file is made.
    Create,
    /// Bytes are written. What a program writes in one go comes in requests of at most 1 MiB.
    Write,
    /// A file's or a folder's content becomes durable, by `fsync`, by `fdatasync`, or with a write that is durable by
    /// itself (`O_DSYNC`, `RWF_DSYNC`): that one is a write first and a sync then.
    Sync,
    /// Space is set aside.
    Fallocate,
    /// A file gets a new name; the rule's pattern is for the old one.
    Rename,
    /// A file is removed.
    Remove,
    /// Bytes are read.
    Read,
}

/// Which of the operations that match, counted from 1 at the moment when the rule is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// This one only.
    Nth(u64),
    /// This one and all behind it.
    From(u64),
}

/// What happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing was done. A sync that fails loses what it should have made durable, as on ext4.
    Error(Errno),
    /// Only so many bytes are written or read.
    Short(usize),
    /// It is done as asked, but only after this time.
    Delay(Duration),
}

/// A rule that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(usize);

#[derive(Debug)]
struct Rule {
    operation: Operation,
    pattern: String,
    when: When,
    fault: Fault,
    seen: u64,
    fired: u64,
    is_active: bool,
}

/// The rules, what they have seen, and the room that is left.
#[derive(Debug, Default)]
pub(super) struct Script {
    rules: Vec<Rule>,
    counts: BTreeMap<(Operation, String), u64>,
    /// Bytes that files may still grow by; `None`: no limit.
    room: Option<u64>,
}

impl Script {
    pub(super) fn add(&mut self, operation: Operation, pattern: &str, when: When, fault: Fault) -> RuleId {
        let pattern = pattern.to_owned();
        self.rules.push(Rule { operation, pattern, when, fault, seen: 0, fired: 0, is_active: true });
        RuleId(self.rules.len() - 1)
    }

    /// No rule applies any more, and there is room.
    pub(super) fn heal(&mut self) {
        self.rules.iter_mut().for_each(|rule| rule.is_active = false);
        self.room = None;
    }

    pub(super) fn fired(&self, rule: RuleId) -> u64 {
        self.rules[rule.0].fired
    }

    pub(super) fn count(&self, operation: Operation, pattern: &str) -> u64 {
        let counted = self.counts.iter().filter(|((of, name), _)| *of == operation && matches(pattern, name));
        counted.map(|(_, count)| count).sum()
    }

    /// An operation is about to happen: counts it, and says what goes wrong with it.
    pub(super) fn happens(&mut self, operation: Operation, name: &str) -> Option<Fault> {
        *self.counts.entry((operation, name.to_owned())).or_insert(0) += 1;
        let mut fault = None;
        let concerned =
            |rule: &&mut Rule| rule.is_active && rule.operation == operation && matches(&rule.pattern, name);
        for rule in self.rules.iter_mut().filter(concerned) {
            rule.seen += 1;
            let due = match rule.when {
                When::Nth(number) => rule.seen == number,
                When::From(number) => rule.seen >= number,
            };
            if due && fault.is_none() {
                rule.fired += 1;
                fault = Some(rule.fault);
            }
        }
        fault
    }

    pub(super) fn set_room(&mut self, room: Option<u64>) {
        self.room = room;
    }

    pub(super) fn room(&self) -> Option<u64> {
        self.room
    }

    /// Takes room for a file that grows; returns how many of the bytes fit.
    pub(super) fn take_room(&mut self, bytes: u64) -> u64 {
        let Some(room) = &mut self.room else { return bytes };
        let taken = bytes.min(*room);
        *room -= taken;
        taken
    }

    pub(super) fn give_room(&mut self, bytes: u64) {
        if let Some(room) = &mut self.room {
            *room += bytes;
        }
    }
}

/// Whether a name has the form of a pattern, in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [("*", ""), ("a*", "a"), ("a*c", "abc"), ("*.log", "x.log"), ("a*b*c", "abbc")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("a", "ab"), ("a*c", "ab"), ("ab*b", "ab"), ("*.log", "x.logs")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn rules_count_what_concerns_them() {
        let mut script = Script::default();
        script.happens(Operation::Write, "a");
        let second = script.add(Operation::Write, "a*", When::Nth(2), Fault::Error(Errno::IO));
        let all = script.add(Operation::Sync, "*", When::From(2), Fault::Short(3));
        let faults: Vec<_> = ["a", "b", "ab", "a"].map(|name| script.happens(Operation::Write, name)).into();
        assert_eq!(faults, [None, None, Some(Fault::Error(Errno::IO)), None]);
        let faults: Vec<_> = ["a", "b", "c"].map(|name| script.happens(Operation::Sync, name)).into();
        assert_eq!(faults, [None, Some(Fault::Short(3)), Some(Fault::Short(3))]);
        assert_eq!((script.fired(second), script.fired(all)), (1, 2));
        assert_eq!((script.count(Operation::Write, "a"), script.count(Operation::Write, "a*")), (3, 4));
        script.heal();
        assert_eq!(script.happens(Operation::Sync, "a"), None);
    }

    #[test]
    fn room_is_taken_and_given_back() {
        let mut script = Script::default();
        assert_eq!(script.take_room(1 << 40), 1 << 40);
        script.set_room(Some(10));
        assert_eq!((script.take_room(4), script.take_room(8), script.take_room(1)), (4, 6, 0));
        script.give_room(3);
        assert_eq!(script.room(), Some(3));
    }
}
