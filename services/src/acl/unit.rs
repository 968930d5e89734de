//! What a right is given for: a command, or a subcommand of one. Each has a bit.

use super::category::{self, COMMANDS, Categories, SUBCOMMANDS};
use crate::command::{Spec, all, code};

/// Words of a set: room for 384 commands and subcommands.
const WORDS: usize = 6;

/// A command or a subcommand, numbered: the commands in their order, then the subcommands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unit(u16);

impl Unit {
    fn at(place: usize) -> Self {
        assert!(place < WORDS * 64, "a set has room for {} commands", WORDS * 64);
        Self(u16::try_from(place).expect("less than 384"))
    }

    /// What a command is by its name and first argument; the members' (`GROUP number`) says first whose.
    pub(super) fn of(spec: &Spec, args: &[&[u8]]) -> Self {
        let names_group = spec.code == code::FLOTILLA_MEMBER
            && args.get(1).is_some_and(|word| word.eq_ignore_ascii_case(b"GROUP"));
        let sub = args.get(if names_group { 3 } else { 1 }).and_then(|name| subcommand(spec.name, name));
        sub.unwrap_or_else(|| Self::at(spec.place()))
    }

    /// By the name in a rule: `get`, `client|kill`; the command and its subcommand, if there is one.
    pub(super) fn by_name(name: &[u8]) -> Option<Self> {
        let mut parts = name.splitn(2, |byte| *byte == b'|');
        let spec = crate::command::lookup(parts.next()?)?;
        match parts.next() {
            None => Some(Self::at(spec.place())),
            Some(sub) => subcommand(spec.name, sub),
        }
    }

    /// As in rules and errors.
    pub(super) fn name(self) -> String {
        let place = usize::from(self.0);
        match place.checked_sub(all().len()) {
            None => all()[place].name.to_owned(),
            Some(place) => format!("{}|{}", SUBCOMMANDS[place].0, SUBCOMMANDS[place].1),
        }
    }

    pub(super) fn categories(self) -> Categories {
        let place = usize::from(self.0);
        match place.checked_sub(all().len()) {
            None => categories_of(&all()[place]),
            Some(place) => SUBCOMMANDS[place].2,
        }
    }

    /// Its subcommands, if it is a command that has some.
    pub(super) fn subcommands(self) -> impl Iterator<Item = Self> {
        let command = all().get(usize::from(self.0)).map_or("", |spec| spec.name);
        let within = SUBCOMMANDS.iter().enumerate().filter(move |(_, (of, ..))| *of == command);
        within.map(|(place, _)| Self::at(all().len() + place))
    }

    pub(super) fn is_subcommand(self) -> bool {
        usize::from(self.0) >= all().len()
    }

    /// Every command, each followed by its subcommands.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let commands = (0..all().len()).map(Self::at);
        commands.flat_map(|unit| std::iter::once(unit).chain(unit.subcommands()))
    }
}

fn subcommand(command: &str, name: &[u8]) -> Option<Unit> {
    let is_it =
        |(of, sub, _): &(&str, &str, Categories)| *of == command && sub.as_bytes().eq_ignore_ascii_case(name);
    let place = SUBCOMMANDS.iter().position(is_it)?;
    Some(Unit::at(all().len() + place))
}

fn categories_of(spec: &Spec) -> Categories {
    let found = COMMANDS.binary_search_by_key(&spec.name, |(name, _)| *name);
    found.map_or(category::UNKNOWN, |place| COMMANDS[place].1)
}

/// The categories of a command, as `COMMAND` tells them.
pub fn categories(spec: &Spec) -> impl Iterator<Item = &'static str> {
    let categories = categories_of(spec);
    category::NAMES
        .iter()
        .enumerate()
        .filter(move |(bit, _)| categories >> bit & 1 == 1)
        .map(|(_, name)| *name)
}

/// A set of commands and subcommands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Units([u64; WORDS]);

impl Units {
    pub(super) fn everything() -> Self {
        let mut units = Self::default();
        Unit::all().for_each(|unit| units.set(unit, true));
        units
    }

    pub(super) fn has(&self, unit: Unit) -> bool {
        self.0[usize::from(unit.0 / 64)] >> (unit.0 % 64) & 1 == 1
    }

    pub(super) fn set(&mut self, unit: Unit, is_in: bool) {
        let (word, bit) = (&mut self.0[usize::from(unit.0 / 64)], 1_u64 << (unit.0 % 64));
        if is_in { *word |= bit } else { *word &= !bit }
    }

    /// Puts all of a category in, or takes it out; a command takes its subcommands with it.
    pub(super) fn set_category(&mut self, category: Categories, is_in: bool) {
        for unit in Unit::all().filter(|unit| unit.categories() & category != 0) {
            self.set(unit, is_in);
            unit.subcommands().for_each(|unit| self.set(unit, is_in));
        }
    }

    /// How many of a category are in, and how many aren't.
    pub(super) fn count(&self, category: Categories) -> (usize, usize) {
        let of_it = Unit::all().filter(|unit| unit.categories() & category != 0);
        of_it.fold((0, 0), |(on, off), unit| if self.has(unit) { (on + 1, off) } else { (on, off + 1) })
    }
}
