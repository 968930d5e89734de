//! Where operators ask the node over HTTP.

use super::{Config, ConfigError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The admin port's distance from the client port of core 0, if nobody says otherwise.
const DISTANCE: u16 = 20_000;
/// No admin port.
const OFF: &str = "off";

/// The admin port's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSettings {
    /// Where operators ask over HTTP ([metrics.md](metrics.md)): one address for the node, or `"off"`. The usual one is the
    /// loopback interface only, at the client port of core 0 plus 20000; where that is above 65535 there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
}

impl AdminSettings {
    /// At this address.
    pub fn at(address: &str) -> Self {
        Self { listen: Some(address.to_owned()) }
    }

    /// Nowhere.
    pub fn off() -> Self {
        Self::at(OFF)
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Config {
    /// Host and port of the admin port. None if it is off, or if nobody says where it is and the usual port would be none.
    pub fn admin_address(&self) -> Option<String> {
        match self.admin.listen.as_deref() {
            Some(OFF) => None,
            Some(address) => Some(address.to_owned()),
            None => self.me().port.checked_add(DISTANCE).map(|port| format!("127.0.0.1:{port}")),
        }
    }

    pub(super) fn check_admin(
        &self,
        invalid: &dyn Fn(&str, String, &str) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let Some(address) = self.admin.listen.as_deref().filter(|address| *address != OFF) else {
            return Ok(());
        };
        let is_address = address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(char::is_whitespace)
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        match is_address {
            true => Ok(()),
            false => {
                Err(invalid("admin.listen", format!("{address:?}"), "an address as 127.0.0.1:27000, or off"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GOOD, error};
    use super::*;

    fn parse(listen: &str) -> Config {
        toml::from_str(&GOOD.replace("[[nodes]]", &format!("{listen}\n[[nodes]]"))).unwrap()
    }

    #[test]
    fn the_admin_port_is_at_home_unless_somebody_says_otherwise() {
        let port = parse("").me().port;
        assert_eq!(parse("").admin_address(), Some(format!("127.0.0.1:{}", port + 20_000)));
        assert_eq!(parse("[admin]").admin_address(), parse("").admin_address());
        assert_eq!(parse("[admin]\nlisten = \"off\"").admin_address(), None);
        assert_eq!(parse("[admin]\nlisten = \"[::1]:9\"").admin_address().as_deref(), Some("[::1]:9"));
        let high = GOOD.replace(&format!("port = {port}\n"), "port = 50000\n");
        assert_eq!(toml::from_str::<Config>(&high).unwrap().admin_address(), None);
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        for bad in ["", "on", "localhost", ":9", "here:0", "here:70000", "h ere:9"] {
            let said = error(&GOOD.replace("[[nodes]]", &format!("[admin]\nlisten = \"{bad}\"\n[[nodes]]")));
            assert!(said.contains("admin.listen") && said.contains("127.0.0.1:27000"), "{bad}: {said}");
        }
        let said = error(&GOOD.replace("[[nodes]]", "[admin]\nport = 9\n[[nodes]]"));
        assert!(said.contains("there is no key `port` here; there is `listen`"), "{said}");
    }
}
