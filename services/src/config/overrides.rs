//! What is said elsewhere than in the file: variables of the environment, and flags, which go before them.
//!
//! `FLOTILLA_LOG_SEGMENT_BYTES=1048576` and `--set log.segment_bytes=1048576` say what the file's `[log]` says with
//! `segment_bytes = 1048576`. Text is taken as it is; lists, as `nodes`, in the words of TOML.

use super::ConfigError;
use super::file::suggest;
use super::keys::{Key, Kind, keys};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use toml::Value;

/// How the names of our variables begin.
const PREFIX: &str = "FLOTILLA_";
/// Variables with that beginning that are no settings: what is logged, whose password the command line's tools show, and what tests are told.
const OTHERS: &[&str] = &[
    "FLOTILLA_LOG",
    "FLOTILLA_PASSWORD",
    "FLOTILLA_ACCEPTANCE",
    "FLOTILLA_FUZZ_TIMES",
    "FLOTILLA_KEYS",
    "FLOTILLA_LOG_SEEDS",
    "FLOTILLA_MODE",
    "FLOTILLA_SHUTDOWNS",
    "FLOTILLA_SKIP",
    "FLOTILLA_STRESS_SECONDS",
];
/// Beginnings of such.
const OTHERS_BEGIN: &[&str] = &["FLOTILLA_REQUIRE_", "FLOTILLA_WRITE_"];

/// Settings that go before those of a file.
#[derive(Clone, Default)]
pub struct Overrides(Vec<Override>);

#[derive(Clone)]
struct Override {
    key: String,
    value: Value,
    /// The variable or the flag.
    from: String,
}

impl fmt::Debug for Overrides {
    /// No values: there may be hashes of passwords among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|it| &it.from)).finish()
    }
}

impl Overrides {
    /// Of the environment's variables, and of flags, each as `key=value`.
    ///
    /// # Errors
    /// [`ConfigError::Override`] for a name that is no setting's, and a value that isn't of its kind.
    pub fn gather(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[String],
    ) -> Result<Self, ConfigError> {
        let known: Vec<Key> = keys().into_iter().filter(|key| !key.is_in_list()).collect();
        let mut all = Vec::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX) && !is_other(name)) else {
                continue;
            };
            let from = format!("the environment's {name}");
            let refused = |what: String| ConfigError::Override { from: from.clone(), what };
            let Some(key) = known.iter().find(|key| variable(&key.name) == name) else {
                let names: Vec<String> = known.iter().map(|key| variable(&key.name)).collect();
                return Err(refused(format!("there is no such setting{}", suggest(name, &names))));
            };
            let text = value.to_str().ok_or_else(|| refused("it isn't UTF-8".to_owned()))?;
            let value = value_of(key, text).map_err(refused)?;
            all.push(Override { key: key.name.clone(), value, from });
        }
        // The environment has no order of its own.
        all.sort_by(|one, other| one.key.cmp(&other.key));
        for flag in flags {
            let (name, text) = flag.split_once('=').ok_or_else(|| ConfigError::Override {
                from: format!("--set {flag}"),
                what: "say KEY=VALUE, as log.sync=dsync".to_owned(),
            })?;
            let from = format!("--set {name}");
            let refused = |what: String| ConfigError::Override { from: from.clone(), what };
            let Some(key) = known.iter().find(|key| key.name == name) else {
                let names: Vec<String> = known.iter().map(|key| key.name.clone()).collect();
                return Err(refused(format!("there is no such key{}", suggest(name, &names))));
            };
            let value = value_of(key, text).map_err(refused)?;
            all.push(Override { key: key.name.clone(), value, from });
        }
        Ok(Self(all))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each by itself.
    pub(super) fn each(&self) -> impl Iterator<Item = Self> {
        self.0.iter().map(|it| Self(vec![it.clone()]))
    }

    /// Where they come from.
    pub(super) fn from(&self) -> String {
        self.0.iter().map(|it| it.from.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The file's settings with these in place of theirs. Where the file has something else than a section: its name, and that.
    pub(super) fn put_into(&self, mut table: toml::Table) -> Result<toml::Table, (String, Value)> {
        for it in &self.0 {
            let (section, name) = it.key.split_once('.').unwrap_or(("", &it.key));
            let place = match section {
                "" => &mut table,
                _ => match table.entry(section).or_insert_with(|| Value::Table(toml::Table::new())) {
                    Value::Table(section) => section,
                    other => return Err((section.to_owned(), other.clone())),
                },
            };
            place.insert(name.to_owned(), it.value.clone());
        }
        Ok(table)
    }

    /// An error names whatever gave the key its value.
    pub(super) fn blame(&self, error: ConfigError) -> ConfigError {
        let ConfigError::Invalid { path, key, value, what } = error else { return error };
        let gives = |it: &&Override| key == it.key || key.starts_with(&format!("{}.", it.key));
        let path = self.0.iter().rev().find(gives).map_or(path, |it| PathBuf::from(&it.from));
        ConfigError::Invalid { path, key, value, what }
    }
}

/// All variables that go before keys of the file.
pub fn variables() -> Vec<String> {
    keys().iter().filter(|key| !key.is_in_list()).map(|key| variable(&key.name)).collect()
}

/// The variable that goes before a key of the file.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn is_other(name: &str) -> bool {
    OTHERS.contains(&name)
        || OTHERS_BEGIN.iter().any(|begin| name.starts_with(begin))
        // What Kubernetes tells of every service whose name begins so.
        || name.contains("_SERVICE_")
        || name.contains("_PORT_")
        || name.ends_with("_PORT")
}

fn value_of(key: &Key, text: &str) -> Result<Value, String> {
    match &key.kind {
        Kind::Text | Kind::Choice(_) => Ok(Value::String(text.to_owned())),
        Kind::Number => {
            let number = text.trim().replace('_', "").parse();
            number.map(Value::Integer).map_err(|_| format!("{text:?} isn't a whole number"))
        }
        Kind::Flag => match text.trim() {
            "true" => Ok(Value::Boolean(true)),
            "false" => Ok(Value::Boolean(false)),
            _ => Err(format!("{text:?} is neither true nor false")),
        },
        Kind::List => {
            let parsed: Result<toml::Table, _> = toml::from_str(&format!("it = {text}"));
            let value = parsed.ok().and_then(|mut table| table.remove("it")).filter(Value::is_array);
            value.ok_or_else(|| "it isn't a list in TOML's words, as [1, 2] or [{ id = 1 }]".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::GOOD;
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    fn with(text: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let overrides = Overrides::gather(variables, &flags);
        let config = overrides.and_then(|overrides| Config::parse(Path::new("node.toml"), text, &overrides));
        config.map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_goes_before_the_file_and_flags_before_both() {
        let file = GOOD.replace("[[nodes]]", "shards = 8\n[log]\ncommits_in_flight = 2\n[[nodes]]");
        let log = |variables, flags| with(&file, variables, flags).unwrap().log.commits_in_flight;
        assert_eq!(log(&[], &[]), 2);
        assert_eq!(log(&[("FLOTILLA_LOG_COMMITS_IN_FLIGHT", "3")], &[]), 3);
        assert_eq!(log(&[("FLOTILLA_LOG_COMMITS_IN_FLIGHT", "3")], &["log.commits_in_flight=4"]), 4);
        let config = with(
            &file,
            &[
                ("FLOTILLA_SHARDS", "1_024"),
                ("FLOTILLA_REDIRECT", "forward"),
                ("FLOTILLA_RAFT_LEASE_READS", "true"),
                ("FLOTILLA_CPUS", "[3]"),
                ("FLOTILLA_LOG_LEVEL", "warn,flotilla_runtime=debug"),
                ("FLOTILLA_USERS", "[{ name = \"ann\" }]"),
                ("FLOTILLA_TLS_CERT", "/a"),
                ("FLOTILLA_TLS_KEY", "/b"),
                ("FLOTILLA_TLS_CA", "/c"),
            ],
            &["data=/elsewhere", "admin.listen=off"],
        );
        let config = config.unwrap();
        assert_eq!((config.shards, config.log.commits_in_flight, &config.cpus[..]), (1024, 2, &[3][..]));
        assert!(config.redirect == crate::config::Redirect::Forward && config.raft.lease_reads);
        assert_eq!(config.log_level.as_deref(), Some("warn,flotilla_runtime=debug"));
        assert_eq!((config.users[0].name.as_str(), config.tls.unwrap().key), ("ann", PathBuf::from("/b")));
        assert_eq!((config.data, config.admin.listen.as_deref()), (PathBuf::from("/elsewhere"), Some("off")));
    }

    #[test]
    fn one_file_may_serve_all_nodes() {
        let file = GOOD.replace("node = 1\n", "");
        assert!(with(&file, &[], &[]).unwrap_err().contains("missing field `node`"));
        assert!(with(&file, &[("FLOTILLA_SHARDS", "9")], &[]).unwrap_err().contains("missing field `node`"));
        assert_eq!(with(&file, &[("FLOTILLA_NODE", "1")], &[]).unwrap().node, 1);
        let said = with(&file, &[("FLOTILLA_NODE", "2")], &[]).unwrap_err();
        assert_eq!(said, "the environment's FLOTILLA_NODE: node = 2: isn't the id of any of the [[nodes]]");
    }

    #[test]
    fn mistakes_name_the_variable_or_the_flag() {
        for (variable, value, said) in [
            ("FLOTILLA_LOG_SYNK", "dsync", "there is no such setting: did you mean `FLOTILLA_LOG_SYNC`?"),
            ("FLOTILLA_NODES_ID", "1", "there is no such setting: did you mean `FLOTILLA_NODES`?"),
            ("FLOTILLA_SHARDS", "many", "\"many\" isn't a whole number"),
            ("FLOTILLA_SHARDS", "70000", "invalid value: integer `70000`, expected u16"),
            ("FLOTILLA_SHARDS", "0", "shards = 0: 1 to 16384, and at least one a group"),
            ("FLOTILLA_CONTROLLER", "yes", "\"yes\" is neither true nor false"),
            ("FLOTILLA_LOG_SYNC", "dsink", "\"dsink\" isn't among the values: did you mean `dsync`?"),
            ("FLOTILLA_NODES", "1", "it isn't a list in TOML's words, as [1, 2] or [{ id = 1 }]"),
            ("FLOTILLA_CPUS", "[1, 2]", "cpus = [1, 2]: one CPU for each core of this node, or none"),
            ("FLOTILLA_USERS", "[{ nam = \"ann\" }]", "there is no key `nam`: did you mean `name`?"),
            ("FLOTILLA_REQUIREPASS_SHA256", "geheim", "must be the SHA-256"),
        ] {
            let found =
                with(GOOD, &[(variable, value), ("FLOTILLA_LOG_COMMITS_IN_FLIGHT", "2")], &[]).unwrap_err();
            let begin = format!("the environment's {variable}: ");
            assert!(found.starts_with(&begin) && found.contains(said), "{found}");
            assert!(!found.contains("geheim"), "{found}");
        }
        for (flag, said) in [
            ("shards", "--set shards: say KEY=VALUE, as log.sync=dsync"),
            ("shard=1", "--set shard: there is no such key: did you mean `shards`?"),
            ("shards=x", "--set shards: \"x\" isn't a whole number"),
            ("groups=0", "--set groups: groups = 0: 1 to 1024"),
        ] {
            assert_eq!(with(GOOD, &[], &[flag]).unwrap_err(), said);
        }
        // What is only said there, and not whole, is missing there.
        let said = with(GOOD, &[("FLOTILLA_TLS_CERT", "/a")], &[]).unwrap_err();
        assert_eq!(said, "the environment's FLOTILLA_TLS_CERT: missing field `key`");
        // A mistake in the file is the file's, whatever else it lacks.
        let file = GOOD.replace("node = 1\n", "raft = 3\n").replace("host = ", "hose = ");
        let said = with(&file, &[], &["raft.heartbeat_ms=5"]).unwrap_err();
        assert!(said.starts_with("node.toml"), "{said}");
        let file = GOOD.replace("node = 1\n", "raft = 3\n");
        let said = with(&file, &[], &["raft.heartbeat_ms=5", "node=1"]).unwrap_err();
        assert!(said.starts_with("node.toml"), "{said}");
        let file = GOOD.replace("[[nodes]]", "shards = \"x\"\n[[nodes]]");
        let said = with(&file, &[("FLOTILLA_GROUPS", "2")], &[]).unwrap_err();
        assert!(said.starts_with("node.toml, line 4: "), "{said}");
    }

    #[test]
    fn other_variables_are_left_alone() {
        let others = [
            ("FLOTILLA_LOG", "debug"),
            ("FLOTILLA_PASSWORD", "x"),
            ("FLOTILLA_REQUIRE_FUSE", "1"),
            ("FLOTILLA_PORT_7000_TCP", "tcp://10.0.0.1:7000"),
            ("FLOTILLA_SERVICE_HOST", "10.0.0.1"),
            ("FLOTILLA_ADMIN_PORT", "tcp://10.0.0.2:27000"),
            ("FLOTILLA_ADMIN_SERVICE_PORT_HTTP", "27000"),
            ("SHARDS", "x"),
        ];
        assert_eq!(with(GOOD, &others, &[]).unwrap(), with(GOOD, &[], &[]).unwrap());
    }

    #[test]
    fn every_variable_is_one_key_s_and_shows_no_value() {
        let known: Vec<Key> = keys().into_iter().filter(|key| !key.is_in_list()).collect();
        let names: std::collections::BTreeSet<String> = known.iter().map(|key| variable(&key.name)).collect();
        assert_eq!(names.len(), known.len());
        assert!(names.iter().all(|name| !is_other(name)), "{names:?}");
        let flags = ["requirepass_sha256=0123".to_owned()];
        let shown = format!("{:?}", Overrides::gather([], &flags).unwrap());
        assert_eq!(shown, "[\"--set requirepass_sha256\"]");
    }
}
