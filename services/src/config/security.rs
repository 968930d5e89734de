//! Who may use the node, and under what cover: users and TLS.

use super::{Config, ConfigError};
use crate::acl::{DEFAULT_USER, PasswordHash, User, check_name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Rules of a user in the words of `ACL SETUSER`, with spaces between them. `Debug` doesn't show them: there may be hashes of
/// passwords among them.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(transparent)]
pub struct Rules(String);

impl Rules {
    /// These.
    pub fn new(rules: impl Into<String>) -> Self {
        Self(rules.into())
    }

    fn words(&self) -> Vec<&[u8]> {
        self.0.split_whitespace().map(str::as_bytes).collect()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

/// A user that is there from the start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// A user; `default` is whom connections are at first.
    pub name: String,
    /// The SHA-256 of its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub password_sha256: Option<PasswordHash>,
    /// What it may do, in the words of `ACL SETUSER` ([rules](security.md#users)); without `on` it can't log in.
    #[serde(default)]
    pub rules: Rules,
}

impl UserEntry {
    fn user(&self) -> Result<User, String> {
        check_name(self.name.as_bytes()).map_err(|error| error.to_string())?;
        if self.name.is_empty() {
            return Err("a user has a name".to_owned());
        }
        let words = self.rules.words();
        if words.iter().any(|word| word.starts_with(b">") || word.starts_with(b"<")) {
            return Err(
                "a password in clear has no place in a file: give its hash as password_sha256".to_owned()
            );
        }
        let mut user = User::new();
        if let Some(password) = self.password_sha256 {
            user.set_password(password);
        }
        // The words of a command, but it is a file that is read.
        user.apply(&words).map_err(|error| error.to_string().replace("ACL SETUSER modifier", "the rule"))?;
        Ok(user)
    }
}

/// What is said to clients that connect without TLS, or with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// It isn't spoken.
    #[default]
    Off,
    /// Whoever wants to.
    Optional,
    /// Nothing else is.
    Required,
}

/// Certificates, and who must have one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM file: the node's certificate, followed by those between it and the authority's.
    pub cert: PathBuf,
    /// PEM file: the certificate's private key.
    pub key: PathBuf,
    /// PEM file: the authorities that others' certificates are signed by.
    pub ca: PathBuf,
    /// TLS with clients, on the same ports: `"off"`, `"optional"`, or `"required"`.
    #[serde(default)]
    pub clients: Demand,
    /// Whether clients show certificates: `"off"`, `"optional"`, or `"required"`.
    #[serde(default)]
    pub client_certificates: Demand,
    /// Mutual TLS between nodes; the same in every node's file.
    #[serde(default)]
    pub peers: bool,
    /// A node's certificate must be for its `nodes[].host`; else any that an authority has signed will do.
    #[serde(default = "yes")]
    pub peer_hosts: bool,
}

pub(super) fn yes() -> bool {
    true
}

impl Config {
    /// The users that are there from the start, by name.
    pub fn all_users(&self) -> BTreeMap<Vec<u8>, User> {
        let entry = |it: &UserEntry| Some((it.name.clone().into_bytes(), it.user().ok()?));
        let mut users: BTreeMap<Vec<u8>, User> = self.users.iter().filter_map(entry).collect();
        if let Some(password) = self.requirepass_sha256 {
            let mut user = User::unlimited();
            user.set_password(password);
            users.insert(DEFAULT_USER.to_vec(), user);
        }
        users
    }

    /// Whether clients from elsewhere are turned away because nobody has said who may come.
    pub fn is_protected(&self) -> bool {
        let users = self.all_users();
        let default = users.get(DEFAULT_USER);
        self.protected_mode && default.is_none_or(User::has_no_password)
    }

    pub(super) fn check_security(
        &self,
        invalid: &dyn Fn(&str, String, &str) -> ConfigError,
    ) -> Result<(), ConfigError> {
        for entry in &self.users {
            let name = format!("{:?}", entry.name);
            entry.user().map_err(|what| invalid("users.name", name.clone(), &what))?;
            if self.users.iter().filter(|other| other.name == entry.name).count() > 1 {
                return Err(invalid("users.name", name, "every user is listed once"));
            }
            if self.requirepass_sha256.is_some() && entry.name.as_bytes() == DEFAULT_USER {
                let what = "has a password by requirepass_sha256 already: give it one of the two";
                return Err(invalid("users.name", name, what));
            }
        }
        if let Some(tls) = &self.tls
            && tls.clients == Demand::Off
            && tls.client_certificates != Demand::Off
        {
            let what = "clients show certificates only under TLS: set tls.clients";
            return Err(invalid("tls.client_certificates", format!("{:?}", tls.client_certificates), what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOOD, error};
    use super::*;

    const HASH: &str = "34344e4d60c2b6d639b7bd22e18f2b0b91bc34bf0ac5f9952744435093cfb4e6";

    fn with(text: &str) -> String {
        error(&GOOD.replace("[[nodes]]", &format!("{text}\n[[nodes]]")))
    }

    #[test]
    fn mistakes_of_users_are_named_without_their_secrets() {
        let user = |rest: &str| with(&format!("[[users]]\nname = \"ann\"\n{rest}"));
        assert_eq!(user(&format!("password_sha256 = \"{HASH}\"\nrules = \"on ~app:* +@read\"")), "accepted");
        for (rest, words) in [
            (
                "rules = \"on +nonsense\"",
                "users.name = \"ann\": Error in the rule '+nonsense': Unknown command",
            ),
            ("rules = \"on >geheim\"", "a password in clear has no place in a file"),
            ("rules = \"on #geheim\"", "Error in the rule '#(redacted)': The password hash must be"),
            ("rules = \"(on geheim\"", "Unmatched parenthesis"),
            ("password_sha256 = \"geheim\"", "must be the SHA-256 of the password"),
            ("password_sha256 = 4711", "must be the SHA-256 of the password"),
        ] {
            let said = user(rest);
            assert!(said.contains(words), "{rest}: {said}");
            assert!(!said.contains("geheim") || rest.contains("(on"), "{said}");
            assert!(!said.contains("4711"), "{said}");
        }
        let twice = with("[[users]]\nname = \"ann\"\n[[users]]\nname = \"ann\"");
        assert!(twice.contains("every user is listed once"), "{twice}");
        let both = error(&format!("requirepass_sha256 = \"{HASH}\"\n{GOOD}[[users]]\nname = \"default\"\n"));
        assert!(both.contains("give it one of the two"), "{both}");
    }

    #[test]
    fn a_configuration_shows_no_secret() {
        let text = format!(
            "requirepass_sha256 = \"{HASH}\"\n{GOOD}[[users]]\nname = \"ann\"\npassword_sha256 = \"{HASH}\"\nrules = \"on #{HASH}\"\n"
        );
        let config: Config = toml::from_str(&text).unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains(&HASH[..16]) && shown.contains("(redacted)"), "{shown}");
        // Written as a file it is the same again.
        assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn a_node_is_protected_until_the_default_user_has_a_password() {
        let parse = |text: String| toml::from_str::<Config>(&text).unwrap().is_protected();
        assert!(parse(GOOD.to_owned()));
        assert!(!parse(format!("protected_mode = false\n{GOOD}")));
        assert!(!parse(format!("requirepass_sha256 = \"{HASH}\"\n{GOOD}")));
        assert!(parse(format!("{GOOD}[[users]]\nname = \"ann\"\npassword_sha256 = \"{HASH}\"\n")));
        assert!(!parse(format!("{GOOD}[[users]]\nname = \"default\"\nrules = \"off\"\n")));
    }

    #[test]
    fn tls_needs_its_files_and_sense() {
        let files = "cert = \"a\"\nkey = \"b\"\nca = \"c\"";
        assert_eq!(with(&format!("[tls]\n{files}\nclients = \"optional\"\npeers = true")), "accepted");
        assert!(with("[tls]\ncert = \"a\"\nkey = \"b\"").contains("missing field `ca`"));
        assert!(
            with(&format!("[tls]\n{files}\nclients = \"yes\""))
                .contains("isn't among the values here; there are `off`")
        );
        let said = with(&format!("[tls]\n{files}\nclient_certificates = \"required\""));
        assert!(said.contains("set tls.clients"), "{said}");
    }
}
