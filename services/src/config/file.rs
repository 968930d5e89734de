//! A file as it is read, and what is said of one that can't be used.

use super::{Config, Overrides};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A configuration that can't be used: one line that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It isn't TOML, or has a key that doesn't exist or has the wrong type.
    #[error("{path}, line {line}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and which keys there are.
        what: String,
    },
    /// A variable of the environment or a flag names no key, or gives it what it can't have.
    #[error("{from}: {what}")]
    Override {
        /// The variable or flag.
        from: String,
        /// What is wrong, and what can be.
        what: String,
    },
    /// A value that can't change while the node runs.
    #[error("{path}: {key} changes only with a restart of the node")]
    NeedsRestart {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that makes no sense.
    #[error("{path}: {key} = {value}: {what}")]
    Invalid {
        /// The file; with [`Overrides`], what gave the key its value.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// Why it can't be, and what can.
        what: String,
    },
}

impl Config {
    /// The configuration that a file's text makes together with what is said elsewhere.
    pub(super) fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let config = match toml::from_str(text) {
            // What the file lacks may come from elsewhere; any other mistake stays one.
            Err(error) if overrides.is_empty() || !is_of_absence(&error) => {
                return Err(malformed(path, text, &error));
            }
            Ok(config) if overrides.is_empty() => config,
            _ => Self::merged(path, text, overrides)?,
        };
        config.check(path).map_err(|error| overrides.blame(error))?;
        Ok(config)
    }

    fn merged(path: &Path, text: &str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let table: toml::Table = toml::from_str(text).map_err(|error| malformed(path, text, &error))?;
        let put = |overrides: &Overrides| overrides.put_into(table.clone());
        put(overrides).map_err(|(key, other)| {
            let what = format!("must be a section, [{key}]");
            ConfigError::Invalid { path: path.to_owned(), key, value: other.to_string(), what }
        })?;
        let with = |overrides: &Overrides| {
            Self::deserialize(toml::Value::Table(put(overrides).unwrap_or_else(|_| table.clone())))
        };
        with(overrides).map_err(|error| {
            // The file by itself has no mistake but of absence, so another one came with one of these.
            let is_culprit = |one: &Overrides| with(one).err().filter(|error| !is_of_absence(error));
            match overrides.each().find_map(|one| Some((is_culprit(&one)?, one.from()))) {
                Some((error, from)) => ConfigError::Override { from, what: in_words(error.message()) },
                // Either the file lacks it too, or it is a part of what only these begin.
                None => match toml::from_str::<Self>(text) {
                    Err(own) => malformed(path, text, &own),
                    Ok(_) => {
                        ConfigError::Override { from: overrides.from(), what: in_words(error.message()) }
                    }
                },
            }
        })
    }
}

fn is_of_absence(error: &toml::de::Error) -> bool {
    error.message().starts_with("missing field")
}

fn malformed(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start);
    let line = text[..at.min(text.len())].matches('\n').count() + 1;
    ConfigError::Malformed { path: path.to_owned(), line, what: in_words(error.message()) }
}

/// What the parser says, with the name that is nearest to one that doesn't exist.
fn in_words(said: &str) -> String {
    let said = said.replace('\n', " ");
    let names: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
    match names.split_first() {
        Some((unknown, known)) if said.starts_with("unknown field") => {
            let known = known.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
            format!("there is no key `{unknown}`{}", suggest(unknown, &known))
        }
        Some((unknown, known)) if said.starts_with("unknown variant") => {
            let known = known.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
            format!("{unknown:?} isn't among the values{}", suggest(unknown, &known))
        }
        _ => said,
    }
}

/// The end of a sentence about a name that doesn't exist: the nearest of those that do, or all of them.
pub(super) fn suggest(unknown: &str, known: &[String]) -> String {
    let distance = |name: &String| strsim::damerau_levenshtein(&unknown.to_lowercase(), &name.to_lowercase());
    let near = known.iter().min_by_key(|name| distance(name));
    match near {
        // What is at all like it: every third letter may be wrong.
        Some(name) if 3 * distance(name) <= name.len().max(6) => format!(": did you mean `{name}`?"),
        _ => {
            let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            let verb = if names.len() == 1 { "is" } else { "are" };
            format!(" here; there {verb} {}", names.join(", "))
        }
    }
}
