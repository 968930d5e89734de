//! Who may do what: users, their passwords and their rights, in the words of Redis 7.
//!
//! | file | what |
//! |---|---|
//! | `secret.rs` | hashes of passwords, compared in constant time and never shown by accident |
//! | `category.rs` | categories, and what is in them |
//! | `unit.rs` | commands and subcommands as bits |
//! | `selector.rs` | one set of rights, and whether a command is within it |
//! | `rule.rs` | users, and the rules that make them |
//! | `describe.rs` | users as rules again |
//! | `journal.rs` | what was refused lately |
//!
//! A command is checked once, on the core that its client is connected to, before it is routed
//! (`core/access.rs`): cores and nodes take each other's word. Users are the node's: each of its cores has them all.

mod category;
mod describe;
mod journal;
mod rule;
mod secret;
mod selector;
#[cfg(test)]
mod tests;
mod unit;

pub use journal::{ENTRIES_MAX, Journal, Reason, Refusal};
pub use rule::{RuleError, RulesError, User, without_passwords};
pub use secret::{PasswordHash, Secret};
pub use selector::Denied;
pub use unit::categories;

use crate::command::{Spec, code};
use crate::resp::ReplyWriter;
use secret::Randomness;
use std::collections::BTreeMap;
use unit::Unit;

/// Whom a connection is until it says otherwise.
pub const DEFAULT_USER: &[u8] = b"default";

/// The users of a node, and what they were refused.
pub struct Acl {
    users: BTreeMap<Vec<u8>, User>,
    /// What was refused lately.
    pub journal: Journal,
    randomness: Randomness,
}

/// A name that can't be a user's: Redis' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Usernames can't contain spaces or null characters")]
pub struct BadName;

impl Acl {
    /// The users of a configuration, which was checked. `seed` is for passwords that are to be drawn.
    pub fn new(users: BTreeMap<Vec<u8>, User>, seed: u64) -> Self {
        let mut whole = [0; 32];
        whole[..8].copy_from_slice(&seed.to_le_bytes());
        let mut this = Self { users, journal: Journal::default(), randomness: Randomness::new(whole) };
        this.users.entry(DEFAULT_USER.to_vec()).or_insert_with(User::unlimited);
        this
    }

    /// Draws passwords from so much randomness as they have.
    pub fn draw_from(&mut self, seed: [u8; 32]) {
        self.randomness = Randomness::new(seed);
    }

    /// A user.
    pub fn user(&self, name: &[u8]) -> Option<&User> {
        self.users.get(name)
    }

    /// Whom connections are at first.
    pub fn default_user(&self) -> &User {
        self.users.get(DEFAULT_USER).expect("there is always one, and it can't be removed")
    }

    /// Every user, by name.
    pub fn users(&self) -> impl Iterator<Item = (&[u8], &User)> {
        self.users.iter().map(|(name, user)| (&name[..], user))
    }

    /// Whether there is such a user, with that password.
    pub fn authenticates(&self, name: &[u8], password: &[u8]) -> bool {
        // Hashed even if there is no such user: how long it takes tells nothing.
        let password = PasswordHash::of(password);
        self.users.get(name).is_some_and(|user| user.accepts(password))
    }

    /// What a user becomes by these rules. Nothing is changed yet.
    ///
    /// # Errors
    /// [`RulesError`] or [`BadName`], in words.
    pub fn changed(&self, name: &[u8], rules: &[&[u8]]) -> Result<User, String> {
        check_name(name).map_err(|error| error.to_string())?;
        let mut user = self.users.get(name).cloned().unwrap_or_default();
        user.apply(rules).map_err(|error| error.to_string())?;
        Ok(user)
    }

    /// Puts a user in place of the one of that name.
    pub fn put(&mut self, name: &[u8], user: User) {
        self.users.insert(name.to_vec(), user);
    }

    /// Removes a user. The default one stays.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        name != DEFAULT_USER && self.users.remove(name).is_some()
    }

    /// A new password of so many bits as the argument says.
    ///
    /// # Errors
    /// Redis' words for an argument that makes no sense.
    pub fn generate(&mut self, bits: Option<&&[u8]>) -> Result<String, &'static str> {
        let bits = rule::bits(bits)?;
        Ok(self.randomness.hex(bits.div_ceil(4)))
    }
}

/// Whether a name can be a user's.
///
/// # Errors
/// [`BadName`].
pub fn check_name(name: &[u8]) -> Result<(), BadName> {
    let is_bad = name.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 0);
    if is_bad { Err(BadName) } else { Ok(()) }
}

/// Whether a command needs no rights: with it one gets them.
pub fn is_for_everybody(spec: &Spec) -> bool {
    matches!(spec.code, code::AUTH | code::HELLO | code::QUIT | code::RESET)
}

/// A command's name, with its subcommand if there is one.
pub fn full_name(spec: &Spec, args: &[&[u8]]) -> String {
    Unit::of(spec, args).name()
}

/// Writes `ACL GETUSER`'s reply.
pub fn write_user(user: &User, reply: &mut ReplyWriter<'_>) {
    user.write(reply);
}

/// `ACL CAT`: the categories, or the commands of one.
pub fn write_categories(name: Option<&&[u8]>, reply: &mut ReplyWriter<'_>) {
    let Some(name) = name else {
        reply.array(category::NAMES.len());
        return category::NAMES.iter().for_each(|name| reply.bulk(name.as_bytes()));
    };
    let Some(category) = category::by_name(name) else {
        let name = String::from_utf8_lossy(&name[..name.len().min(128)]).into_owned();
        return reply.error(&format!("ERR Unknown category '{name}'"));
    };
    let units: Vec<Unit> = Unit::all().filter(|unit| unit.categories() & category != 0).collect();
    reply.array(units.len());
    units.into_iter().for_each(|unit| reply.bulk(unit.name().as_bytes()));
}
