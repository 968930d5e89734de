//! How the tools of the command line show who they are, and under what cover they speak.

use super::Failure;
use crate::acl::Secret;
use crate::client::{ClientTls, Security, Seeds};
use clap::Args;
use std::path::PathBuf;

/// The environment variable that the password is taken from. A command line is for everybody to see.
const PASSWORD: &str = "FLOTILLA_PASSWORD";

/// The authorities, and the own certificate with its key.
pub(super) type TlsFiles = (PathBuf, Option<(PathBuf, PathBuf)>);

/// Options of every command that speaks with a cluster.
#[derive(Debug, Args)]
pub(super) struct Login {
    /// The user [default: the default user]. The password is taken from the environment variable FLOTILLA_PASSWORD, unless
    /// `--password-file` is given.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The file whose first line is the password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Speak TLS, with whoever the authorities in this file (PEM) vouch for.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The certificate to show to who asks for one: a cluster may, its MapReduce workers do (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "tls_ca")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Login {
    /// What a client needs.
    ///
    /// # Errors
    /// A file that can't be used.
    pub(super) fn security(&self) -> Result<Security, Failure> {
        let password = match &self.password_file {
            Some(path) => {
                let text = std::fs::read(path).map_err(|error| {
                    Failure::Usage(format!("can't read the password in {}: {error}", path.display()))
                })?;
                let line = text.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
                Some(Secret::new(line))
            }
            None => std::env::var_os(PASSWORD).map(|text| Secret::new(text.into_encoded_bytes())),
        };
        let identity = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let tls = self.tls_ca.as_deref().map(|ca| ClientTls::read(ca, identity)).transpose();
        let tls = tls.map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Security { user: self.user.clone(), password, tls })
    }

    /// The files of the authorities, and of the own certificate and its key.
    pub(super) fn files(&self) -> Option<TlsFiles> {
        let ca = self.tls_ca.clone()?;
        Some((ca, self.tls_cert.clone().zip(self.tls_key.clone())))
    }

    /// What a client needs, for these addresses.
    ///
    /// # Errors
    /// As [`Self::security`].
    pub(super) fn seeds(&self, addresses: &[String]) -> Result<Seeds, Failure> {
        Ok(Seeds { addresses: addresses.to_vec(), security: self.security()? })
    }
}
