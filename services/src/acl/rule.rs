//! Users as rules make them: the words of `ACL SETUSER` and of the configuration.

use super::secret::PasswordHash;
use super::selector::{Denied, Selector};
use crate::command::Spec;
use crate::kv::number;

/// Selectors in parentheses that a user may have.
const SELECTORS_MAX: usize = 64;

/// What is wrong with a rule: Redis' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It isn't a rule.
    #[error("Syntax error")]
    Syntax,
    /// No such command or category.
    #[error("Unknown command or category name in ACL")]
    Unknown,
    /// All keys are allowed already.
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    AfterAllKeys,
    /// All channels are allowed already.
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    AfterAllChannels,
    /// Not one of the user's.
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    /// Not a hash.
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
    )]
    NotAHash,
    /// `+command|subcommand|argument`.
    #[error("Allowing first-arg of a subcommand is not supported")]
    FirstArgOfSubcommand,
    /// More than there may be.
    #[error("A user can't have more than {SELECTORS_MAX} selectors")]
    TooManySelectors,
}

/// Rules that can't be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// One of them is wrong. The rule is shown without the secret that may be in it.
    #[error("Error in ACL SETUSER modifier '{rule}': {error}")]
    Rule {
        /// Which one.
        rule: String,
        /// What is wrong with it.
        error: RuleError,
    },
    /// `(` without `)`.
    #[error("Unmatched parenthesis in acl selector starting at '{0}'.")]
    Unmatched(String),
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub(super) is_on: bool,
    /// Any password will do.
    pub(super) no_password: bool,
    /// Accepted and shown: `RESTORE` checks every payload anyway.
    pub(super) skips_sanitizing: bool,
    pub(super) passwords: Vec<PasswordHash>,
    pub(super) root: Selector,
    pub(super) others: Vec<Selector>,
}

impl User {
    /// A user as `ACL SETUSER name` makes one: off, without a password, allowed nothing.
    pub fn new() -> Self {
        Self {
            is_on: false,
            no_password: false,
            skips_sanitizing: false,
            passwords: Vec::new(),
            root: Selector::default(),
            others: Vec::new(),
        }
    }

    /// The default user where nothing else is said: on, without a password, allowed everything.
    pub fn unlimited() -> Self {
        Self { is_on: true, no_password: true, root: Selector::unlimited(), ..Self::new() }
    }

    /// Whether there is nothing that it may not do.
    pub fn is_unlimited(&self) -> bool {
        self.root.is_unlimited()
    }

    /// Whether connections are this user without a word.
    pub fn is_open(&self) -> bool {
        self.is_on && self.no_password
    }

    /// Any password will do.
    pub fn has_no_password(&self) -> bool {
        self.no_password
    }

    /// Sets its only password.
    pub fn set_password(&mut self, password: PasswordHash) {
        (self.no_password, self.passwords) = (false, vec![password]);
    }

    /// Whether it may log in with this password. All of its passwords are compared, whichever fits.
    pub(super) fn accepts(&self, password: PasswordHash) -> bool {
        let fits = self.passwords.iter().fold(false, |fits, known| fits | (*known == password));
        self.is_on && (self.no_password | fits)
    }

    /// Applies all rules, or none.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn apply(&mut self, rules: &[&[u8]]) -> Result<(), RulesError> {
        let mut changed = self.clone();
        for rule in merge_selectors(rules)? {
            changed.apply_one(&rule).map_err(|error| RulesError::Rule { rule: shown(&rule), error })?;
        }
        *self = changed;
        Ok(())
    }

    fn apply_one(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match &rule.to_ascii_lowercase()[..] {
            b"" => {}
            b"on" => self.is_on = true,
            b"off" => self.is_on = false,
            b"skip-sanitize-payload" => self.skips_sanitizing = true,
            b"sanitize-payload" => self.skips_sanitizing = false,
            b"nopass" => (self.no_password, self.passwords) = (true, Vec::new()),
            b"resetpass" => (self.no_password, self.passwords) = (false, Vec::new()),
            b"clearselectors" => self.others.clear(),
            b"reset" => *self = Self::new(),
            _ => return self.apply_with_argument(rule),
        }
        Ok(())
    }

    fn apply_with_argument(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        let hash = |hex: &[u8]| PasswordHash::parse(hex).ok_or(RuleError::NotAHash);
        match rule.split_first() {
            Some((b'>', password)) => self.add_password(PasswordHash::of(password)),
            Some((b'#', hex)) => self.add_password(hash(hex)?),
            Some((b'<', password)) => self.remove_password(PasswordHash::of(password))?,
            Some((b'!', hex)) => self.remove_password(hash(hex)?)?,
            Some((b'(', rest)) if rest.ends_with(b")") => {
                if self.others.len() == SELECTORS_MAX {
                    return Err(RuleError::TooManySelectors);
                }
                let mut selector = Selector::default();
                let rules = rest[..rest.len() - 1].split(|byte| *byte == b' ');
                rules.filter(|rule| !rule.is_empty()).try_for_each(|rule| selector.apply(rule))?;
                self.others.push(selector);
            }
            _ => self.root.apply(rule)?,
        }
        Ok(())
    }

    fn add_password(&mut self, password: PasswordHash) {
        if !self.passwords.contains(&password) {
            self.passwords.push(password);
        }
        self.no_password = false;
    }

    fn remove_password(&mut self, password: PasswordHash) -> Result<(), RuleError> {
        let place = self.passwords.iter().position(|known| *known == password);
        self.passwords.remove(place.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// Whether it may execute a command with at least as many arguments as that must have.
    ///
    /// # Errors
    /// [`Denied`]: the command, if no selector allows it, else the last key that none does.
    pub fn check(&self, spec: &Spec, args: &[&[u8]]) -> Result<(), Denied> {
        let mut worst = match self.root.check(spec, args) {
            Ok(()) => return Ok(()),
            Err(denied) => denied,
        };
        for selector in &self.others {
            match selector.check(spec, args) {
                Ok(()) => return Ok(()),
                Err(denied) => worst = worst.max(denied),
            }
        }
        Err(worst)
    }
}

impl Default for User {
    fn default() -> Self {
        Self::new()
    }
}

/// A rule as errors and logs may show it.
fn shown(rule: &[u8]) -> String {
    match rule.first() {
        Some(kind @ (b'>' | b'<' | b'#' | b'!')) => format!("{}(redacted)", char::from(*kind)),
        _ => String::from_utf8_lossy(&rule[..rule.len().min(128)]).into_owned(),
    }
}

/// Puts a selector that is spread over several words together.
fn merge_selectors(rules: &[&[u8]]) -> Result<Vec<Vec<u8>>, RulesError> {
    let mut merged: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    for rule in rules {
        match open.as_mut() {
            Some(selector) => {
                selector.push(b' ');
                selector.extend_from_slice(rule);
                if rule.ends_with(b")") {
                    merged.extend(open.take());
                }
            }
            None if rule.starts_with(b"(") && !rule.ends_with(b")") => open = Some(rule.to_vec()),
            None => merged.push(rule.to_vec()),
        }
    }
    match open {
        Some(selector) => {
            Err(RulesError::Unmatched(shown(selector.split(|byte| *byte == b' ').next().unwrap_or(b"("))))
        }
        None => Ok(merged),
    }
}

/// The rules with every password replaced by its hash: what may leave the connection that they came over.
pub fn without_passwords<'a>(rules: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let hashed =
        |kind: char, password: &[u8]| format!("{kind}{}", PasswordHash::of(password).hex()).into_bytes();
    let replaced = |rule: &'a [u8]| match rule.split_first() {
        Some((b'>', password)) => hashed('#', password),
        Some((b'<', password)) => hashed('!', password),
        _ => rule.to_vec(),
    };
    rules.into_iter().map(replaced).collect()
}

/// The number of bits that `ACL GENPASS` is to draw.
pub(super) fn bits(arg: Option<&&[u8]>) -> Result<usize, &'static str> {
    const BITS_MAX: i64 = 4096;
    let bits = match arg {
        None => 256,
        Some(arg) => number::integer(arg).ok_or("ERR value is not an integer or out of range")?,
    };
    usize::try_from(bits).ok().filter(|_| (1..=BITS_MAX).contains(&bits)).ok_or(
        "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
    )
}
