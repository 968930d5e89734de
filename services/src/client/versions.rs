//! Values with versions, and writes that depend on them.

use super::{ClientError, Cluster, Reply};
use std::time::Duration;

/// Why a write wasn't done, or may not have been.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// The key has another version: nothing was done.
    #[error("the key has version {found}")]
    Version {
        /// That version.
        found: u64,
    },
    /// There is no such key, and the version that was given isn't 0: nothing was done.
    #[error("there is no such key")]
    NoKey,
    /// A reply was lost. The write was done once or not at all; the key's value tells.
    #[error("the write may have been done: the reply to an earlier try was lost")]
    Maybe,
    /// It was refused, or nobody could be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// A cluster's keys, read and written with their versions.
#[derive(Debug)]
pub struct Versions {
    cluster: Cluster,
    timeout: Duration,
}

impl Versions {
    /// Every call takes at most `timeout`.
    pub fn new(cluster: Cluster, timeout: Duration) -> Self {
        Self { cluster, timeout }
    }

    /// A key's value and version; `None` if there is no such key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&mut self, key: &[u8]) -> Result<Option<(Vec<u8>, u64)>, ClientError> {
        let reply = self.cluster.execute(key, &[b"FLOTILLA.GETV", key], self.timeout)?;
        match reply {
            Reply::Null => Ok(None),
            Reply::Array(items) => match <[Reply; 2]>::try_from(items) {
                Ok([Reply::Integer(version), Reply::Bulk(value)]) => {
                    Ok(Some((value, u64::try_from(version).unwrap_or(0))))
                }
                Ok(_) | Err(_) => Err(self.unexpected("FLOTILLA.GETV")),
            },
            _ => Err(self.unexpected("FLOTILLA.GETV")),
        }
    }

    /// Sets a key if it has this version (0: if there is none) and returns its new one. With `lease`, the key is gone after
    /// that time.
    ///
    /// # Errors
    /// [`PutError`]. A write whose reply is lost is sent again; that is safe, since it can't be done twice.
    pub fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        version: u64,
        lease: Option<Duration>,
    ) -> Result<u64, PutError> {
        let version = version.to_string();
        let lease = lease.map(|lease| lease.as_millis().to_string());
        let mut command: Vec<&[u8]> = vec![b"FLOTILLA.CAS", key, version.as_bytes(), value];
        if let Some(lease) = &lease {
            command.extend([b"PX".as_slice(), lease.as_bytes()]);
        }
        let (result, was_lost) = self.cluster.execute_telling(key, &command, self.timeout);
        let refused = match result {
            Ok(Reply::Integer(version)) => return Ok(u64::try_from(version).unwrap_or(0)),
            Ok(_) => return Err(self.unexpected("FLOTILLA.CAS").into()),
            Err(_) if was_lost => return Err(PutError::Maybe),
            Err(ClientError::Refused(text)) => text,
            Err(error) => return Err(error.into()),
        };
        let found = refused.strip_prefix("VERSION ").and_then(|text| text.rsplit(' ').next()?.parse().ok());
        Err(match found {
            Some(found) => PutError::Version { found },
            None if refused.starts_with("NOKEY") => PutError::NoKey,
            None => ClientError::Refused(refused).into(),
        })
    }

    fn unexpected(&self, command: &str) -> ClientError {
        ClientError::Protocol {
            address: "the cluster".to_owned(),
            what: format!("{command} was answered with something else"),
        }
    }
}
