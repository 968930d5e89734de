//! How a client shows who it is, and under what cover it speaks.

use super::{ClientError, Reply};
use crate::acl::Secret;
use flotilla_runtime::tls::{self, Authorities, Identity, TlsError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A client's name, password and certificates. By default it has none, and speaks without TLS.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Who it is; without, the default user, if there is a password.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Its cover.
    pub tls: Option<ClientTls>,
}

/// What a client needs for TLS.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    /// Trusts the authorities in `ca`, and shows the certificate in `identity`, with the key beside it, if it is asked.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(ca: &Path, identity: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        let identity = identity.map(|(cert, key)| Identity::read(cert, key)).transpose()?;
        let config = tls::client(identity.as_ref(), &Authorities::read(ca)?)?;
        Ok(Self { config })
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// The host of `host:port`, as certificates name it.
pub(super) fn name_of(address: &str) -> Result<ServerName<'static>, TlsError> {
    tls::host_name(address.rsplit_once(':').map_or(address, |(host, _)| host))
}

impl Security {
    /// The command that says who it is, if there is something to say.
    pub(super) fn greeting(&self) -> Option<Vec<&[u8]>> {
        let password = self.password.as_ref().map_or(&b""[..], Secret::reveal);
        match &self.user {
            Some(user) => Some(vec![b"AUTH", user.as_bytes(), password]),
            None => self.password.is_some().then(|| vec![&b"AUTH"[..], password]),
        }
    }
}

/// What came back to the greeting.
pub(super) fn greeted(address: &str, reply: Reply) -> Result<(), ClientError> {
    match reply {
        Reply::Error(error) => Err(ClientError::Refused(format!("{address}: {error}"))),
        _ => Ok(()),
    }
}
