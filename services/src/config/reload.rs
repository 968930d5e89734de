//! What of a configuration can change while the node runs.

use super::{Config, ConfigError};
use std::path::Path;
use toml::Value;

/// Keys, or tables of them, whose values are taken over by SIGHUP. `tls.peers` isn't: all nodes must agree on it.
const RELOADABLE: &[&str] = &[
    "limits.",
    "log.snapshot_after_bytes",
    "log.snapshot_bytes_per_second",
    "log.migration_bytes_per_second",
    "log.migration_bytes_per_second_under_load",
    "log_level",
    "protected_mode",
    "requirepass_sha256",
    "tls.cert",
    "tls.key",
    "tls.ca",
    "tls.clients",
    "tls.client_certificates",
    "tls.peer_hosts",
    "users",
];

/// The keys whose values differ, in order.
fn differing(one: &Config, other: &Config) -> Vec<String> {
    let value = |config: &Config| Value::try_from(config).expect("a configuration is plain data");
    let mut keys = Vec::new();
    compare("", Some(&value(one)), Some(&value(other)), &mut keys);
    keys.sort();
    keys.dedup();
    keys
}

fn compare(path: &str, one: Option<&Value>, other: Option<&Value>, keys: &mut Vec<String>) {
    if one == other {
        return;
    }
    let names = |value: Option<&Value>| -> Vec<String> {
        value.and_then(Value::as_table).map_or_else(Vec::new, |table| table.keys().cloned().collect())
    };
    let inner = [names(one), names(other)].concat();
    if inner.is_empty() {
        return keys.push(path.to_owned());
    }
    for name in inner {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let value = |of: Option<&Value>| of.and_then(|table| table.get(&name)).cloned();
        compare(&below, value(one).as_ref(), value(other).as_ref(), keys);
    }
}

pub(super) fn is_reloadable(key: &str) -> bool {
    // A list is taken over as a whole.
    let key = key.split("[]").next().unwrap_or(key);
    RELOADABLE.iter().any(|known| key == *known || (known.ends_with('.') && key.starts_with(known)))
}

impl Config {
    /// The keys whose values are others in `new`, which was read from `path`.
    ///
    /// # Errors
    /// One of them can't change while the node runs.
    pub fn changes(&self, new: &Self, path: &Path) -> Result<Vec<String>, ConfigError> {
        let speaks = |config: &Self| config.tls.as_ref().is_some_and(|tls| tls.peers);
        let mut keys = differing(self, new);
        // Where there was no TLS, or is none any more, this is no change by itself.
        keys.retain(|key| key != "tls.peers" || speaks(self) != speaks(new));
        match keys.iter().find(|key| !is_reloadable(key)) {
            None => Ok(keys),
            Some(key) => Err(ConfigError::NeedsRestart { path: path.to_owned(), key: key.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::GOOD;
    use super::*;

    fn changes(from: &str, to: &str) -> Result<Vec<String>, String> {
        let parse = |text: &str| toml::from_str::<Config>(text).unwrap();
        parse(from).changes(&parse(to), Path::new("node.toml")).map_err(|error| error.to_string())
    }

    fn with(text: &str) -> String {
        GOOD.replace("[[nodes]]", &format!("{text}\n[[nodes]]"))
    }

    #[test]
    fn changes_are_named_and_what_needs_a_restart_is_refused() {
        assert_eq!(changes(GOOD, GOOD), Ok(Vec::new()));
        // Said aloud, or left at what it is anyway.
        assert_eq!(changes(GOOD, &with("[limits]\nconnections_max = 10000")), Ok(Vec::new()));
        let keys = changes(
            GOOD,
            &with("log_level = \"debug\"\n[limits]\nconnections_max = 5\n[[users]]\nname = \"ann\""),
        );
        assert_eq!(keys.unwrap(), ["limits.connections_max", "log_level", "users"]);
        let tls =
            |peers: bool| with(&format!("[tls]\ncert = \"a\"\nkey = \"b\"\nca = \"c\"\npeers = {peers}"));
        assert!(changes(GOOD, &tls(false)).unwrap().contains(&"tls.cert".to_owned()));
        assert!(changes(&tls(false), GOOD).is_ok());
        for (to, key) in [
            (tls(true), "tls.peers"),
            (with("groups = 2"), "groups"),
            (with("[log]\nsegment_bytes = 134217728"), "log.segment_bytes"),
            (with("[raft]\nheartbeat_ms = 51"), "raft.heartbeat_ms"),
            (with("[admin]\nlisten = \"off\""), "admin.listen"),
            (GOOD.replace("7000", "7001"), "nodes"),
        ] {
            let error = changes(GOOD, &to).unwrap_err();
            assert!(error.starts_with(&format!("node.toml: {key} ")) && error.contains("restart"), "{error}");
        }
    }
}
