//! One set of rights: these commands, on these keys. A user has a root selector, and further ones in parentheses; whoever
//! satisfies one of them may.

use super::category;
use super::rule::RuleError;
use super::unit::{Unit, Units};
use crate::command::{Spec, code, glob, lookup};
use std::collections::BTreeMap;

/// What a command does to a key, or what a pattern allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyAccess {
    pub(super) reads: bool,
    pub(super) writes: bool,
}

impl KeyAccess {
    const NEITHER: Self = Self { reads: false, writes: false };
    const READ: Self = Self { reads: true, writes: false };
    const WRITE: Self = Self { reads: false, writes: true };
    const BOTH: Self = Self { reads: true, writes: true };

    fn includes(self, wanted: Self) -> bool {
        (self.reads || !wanted.reads) && (self.writes || !wanted.writes)
    }
}

/// Keys that match a pattern may be accessed so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPattern {
    pub(super) pattern: Vec<u8>,
    pub(super) allows: KeyAccess,
}

/// Why a command may not be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// Not this command.
    Command,
    /// Not on the key in this place of the arguments.
    Key(usize),
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selector {
    /// Began with `+@all`: it is told as all but what isn't in.
    pub(super) begins_with_all: bool,
    pub(super) commands: Units,
    /// Commands that aren't in but with one of these first arguments: `+select|0`.
    pub(super) first_args: BTreeMap<Unit, Vec<Vec<u8>>>,
    pub(super) all_keys: bool,
    pub(super) keys: Vec<KeyPattern>,
    /// Channels are kept and shown; there is nothing to publish with yet.
    pub(super) all_channels: bool,
    pub(super) channels: Vec<Vec<u8>>,
}

impl Selector {
    /// Every command on every key.
    pub(super) fn unlimited() -> Self {
        Self {
            begins_with_all: true,
            commands: Units::everything(),
            all_keys: true,
            all_channels: true,
            ..Self::default()
        }
    }

    /// Whether there is nothing that it doesn't allow.
    pub(super) fn is_unlimited(&self) -> bool {
        self.begins_with_all && self.all_keys && self.commands == Units::everything()
    }

    /// Applies one rule.
    pub(super) fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match &rule.to_ascii_lowercase()[..] {
            b"allkeys" | b"~*" => (self.all_keys, self.keys) = (true, Vec::new()),
            b"resetkeys" => (self.all_keys, self.keys) = (false, Vec::new()),
            b"allchannels" | b"&*" => (self.all_channels, self.channels) = (true, Vec::new()),
            b"resetchannels" => (self.all_channels, self.channels) = (false, Vec::new()),
            b"allcommands" | b"+@all" => self.set_everything(true),
            b"nocommands" | b"-@all" => self.set_everything(false),
            _ => match rule.split_first() {
                Some((b'~', pattern)) => self.add_keys(pattern, KeyAccess::BOTH)?,
                Some((b'%', rest)) => self.add_keys_with_access(rest)?,
                Some((b'&', pattern)) => self.add_channels(pattern)?,
                Some((sign @ (b'+' | b'-'), name)) => match name.split_first() {
                    Some((b'@', category)) => self.set_category(category, *sign == b'+')?,
                    _ => self.set_command(name, *sign == b'+')?,
                },
                _ => return Err(RuleError::Syntax),
            },
        }
        Ok(())
    }

    fn set_everything(&mut self, is_allowed: bool) {
        self.begins_with_all = is_allowed;
        self.commands = if is_allowed { Units::everything() } else { Units::default() };
        self.first_args.clear();
    }

    fn add_keys_with_access(&mut self, rest: &[u8]) -> Result<(), RuleError> {
        let end = rest.iter().position(|byte| *byte == b'~').ok_or(RuleError::Syntax)?;
        let mut allows = KeyAccess::NEITHER;
        for letter in &rest[..end] {
            match letter.to_ascii_uppercase() {
                b'R' if !allows.reads => allows.reads = true,
                b'W' if !allows.writes => allows.writes = true,
                _ => return Err(RuleError::Syntax),
            }
        }
        if allows == KeyAccess::NEITHER {
            return Err(RuleError::Syntax);
        }
        self.add_keys(&rest[end + 1..], allows)
    }

    fn add_keys(&mut self, pattern: &[u8], allows: KeyAccess) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::AfterAllKeys);
        }
        no_spaces(pattern)?;
        match self.keys.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => {
                known.allows.reads |= allows.reads;
                known.allows.writes |= allows.writes;
            }
            None => self.keys.push(KeyPattern { pattern: pattern.to_vec(), allows }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::AfterAllChannels);
        }
        no_spaces(pattern)?;
        if !self.channels.iter().any(|known| known == pattern) {
            self.channels.push(pattern.to_vec());
        }
        Ok(())
    }

    fn set_category(&mut self, name: &[u8], is_allowed: bool) -> Result<(), RuleError> {
        let category = category::by_name(name).ok_or(RuleError::Unknown)?;
        self.commands.set_category(category, is_allowed);
        self.first_args.retain(|unit, _| unit.categories() & category == 0);
        Ok(())
    }

    fn set_command(&mut self, name: &[u8], is_allowed: bool) -> Result<(), RuleError> {
        if let Some(unit) = Unit::by_name(name) {
            self.set_unit(unit, is_allowed);
            return Ok(());
        }
        // With `+`, what follows the last bar may be a first argument.
        let bar = name.iter().rposition(|byte| *byte == b'|').filter(|_| is_allowed);
        let bar = bar.ok_or(RuleError::Unknown)?;
        let command = Unit::by_name(&name[..bar]).ok_or(RuleError::Unknown)?;
        if command.is_subcommand() {
            return Err(RuleError::FirstArgOfSubcommand);
        }
        if name.len() == bar + 1 {
            return Err(RuleError::Syntax);
        }
        if command.subcommands().next().is_some() {
            return Err(RuleError::Unknown);
        }
        if self.commands.has(command) {
            // Allowed with any argument.
            return Ok(());
        }
        let first_args = self.first_args.entry(command).or_default();
        let argument = name[bar + 1..].to_ascii_lowercase();
        if !first_args.contains(&argument) {
            first_args.push(argument);
        }
        Ok(())
    }

    fn set_unit(&mut self, unit: Unit, is_allowed: bool) {
        self.commands.set(unit, is_allowed);
        self.first_args.remove(&unit);
        unit.subcommands().for_each(|unit| self.commands.set(unit, is_allowed));
    }

    /// Whether a command may be executed; it has as many arguments as it must.
    pub(super) fn check(&self, spec: &Spec, args: &[&[u8]]) -> Result<(), Denied> {
        if !self.allows_command(spec, args) {
            return Err(Denied::Command);
        }
        if spec.code == code::FLOTILLA_ONCE {
            return self.check_within(spec, args);
        }
        if self.all_keys {
            return Ok(());
        }
        let tells_all =
            matches!(spec.code, code::FLOTILLA_RANGE | code::FLOTILLA_BACKUP | code::FLOTILLA_WALK);
        if tells_all && !self.has_all_keys(|it| it.reads) {
            // They tell names and values of whatever is between two keys, or in a shard.
            return Err(Denied::Key(1));
        }
        if spec.code == code::FLOTILLA_PUBLISH && !self.has_all_keys(|it| it.writes) {
            // What it sets isn't among its arguments.
            return Err(Denied::Key(1));
        }
        let places = spec.key_places(args.len()).enumerate();
        for (number, place) in places {
            let wanted = access_of(spec, args, number);
            let fits = |it: &KeyPattern| it.allows.includes(wanted) && glob(&it.pattern, args[place]);
            if !self.keys.iter().any(fits) {
                return Err(Denied::Key(place));
            }
        }
        Ok(())
    }

    fn allows_command(&self, spec: &Spec, args: &[&[u8]]) -> bool {
        let unit = Unit::of(spec, args);
        let is_first_arg = || {
            let allowed = self.first_args.get(&unit).zip(args.get(1));
            allowed.is_some_and(|(all, arg)| all.iter().any(|one| one.eq_ignore_ascii_case(arg)))
        };
        self.commands.has(unit) || is_first_arg()
    }

    /// The command inside `FLOTILLA.ONCE session write acknowledged COMMAND…`. One that isn't there is refused elsewhere.
    fn check_within(&self, spec: &Spec, args: &[&[u8]]) -> Result<(), Denied> {
        let first = usize::try_from(-spec.arity).unwrap_or(1) - 1;
        match args.get(first..).filter(|inner| !inner.is_empty()) {
            Some(inner) => match lookup(inner[0]).filter(|inner| inner.code != code::FLOTILLA_ONCE) {
                Some(inner_spec) => self.check(inner_spec, inner).map_err(|denied| match denied {
                    Denied::Command => Denied::Command,
                    Denied::Key(place) => Denied::Key(first + place),
                }),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }

    fn has_all_keys(&self, may: impl Fn(&KeyAccess) -> bool) -> bool {
        self.keys.iter().any(|it| may(&it.allows) && it.pattern == b"*")
    }
}

fn no_spaces(pattern: &[u8]) -> Result<(), RuleError> {
    let is_bad = pattern.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 0);
    if is_bad { Err(RuleError::Syntax) } else { Ok(()) }
}

/// What a command does to its key of that number. Reading a key means that something of its value is told.
fn access_of(spec: &Spec, args: &[&[u8]], number: usize) -> KeyAccess {
    let says = |word: &[u8]| args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(word));
    match (spec.code, number) {
        (code::EXISTS | code::STRLEN | code::TYPE | code::TOUCH | code::WATCH | code::OBJECT, _) => {
            KeyAccess::NEITHER
        }
        (code::SET, _) => {
            if says(b"GET") {
                KeyAccess::BOTH
            } else {
                KeyAccess::WRITE
            }
        }
        (code::BITFIELD, _) => {
            let writes = args
                .iter()
                .skip(2)
                .any(|arg| arg.eq_ignore_ascii_case(b"SET") || arg.eq_ignore_ascii_case(b"INCRBY"));
            if writes { KeyAccess::BOTH } else { KeyAccess::READ }
        }
        (code::COPY, 0) => KeyAccess::READ,
        (code::COPY, _) | (code::BITOP, 0) | (code::RENAME | code::RENAMENX, 1) => KeyAccess::WRITE,
        (code::BITOP, _) => KeyAccess::READ,
        (code::MOVE, _) => KeyAccess::BOTH,
        (
            code::APPEND
            | code::DEL
            | code::EXPIRE
            | code::EXPIREAT
            | code::FLOTILLA_LOAD
            | code::FLOTILLA_PUBLISH
            | code::FLOTILLA_SESSION
            | code::MSET
            | code::MSETNX
            | code::PERSIST
            | code::PEXPIRE
            | code::PEXPIREAT
            | code::PSETEX
            | code::RESTORE
            | code::SETEX
            | code::SETNX
            | code::SETRANGE
            | code::UNLINK,
            _,
        ) => KeyAccess::WRITE,
        _ if spec.is_write() => KeyAccess::BOTH,
        _ => KeyAccess::READ,
    }
}
