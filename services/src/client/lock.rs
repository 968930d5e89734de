//! A lock that is a key: whoever managed to write its name into it holds it.
//!
//! Nothing but [`Versions::get`] and [`Versions::put`]. A reply that is lost leaves it open whether a write was done; the
//! key's value tells, since the name is nobody else's.

use super::versions::{PutError, Versions};
use super::{ClientError, Cluster};
use std::time::Duration;

/// Between two looks at a lock that another holds.
const PAUSE: Duration = Duration::from_millis(5);
/// What is in the key of a lock that nobody holds.
const NOBODY: &[u8] = b"";

/// One client's view of one lock.
#[derive(Debug)]
pub struct Lock {
    versions: Versions,
    key: Vec<u8>,
    owner: Vec<u8>,
    lease: Option<Duration>,
}

/// The lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a lock that is held must be released"]
pub struct Held {
    /// Grows from holder to holder: who guards something else with the lock can refuse what comes with an older one.
    pub token: u64,
}

impl Lock {
    /// The lock of that name. `owner` must be no other client's. With a `lease`, the lock is free again after that time,
    /// whatever its holder does.
    pub fn new(
        cluster: Cluster,
        name: &[u8],
        owner: &[u8],
        lease: Option<Duration>,
        timeout: Duration,
    ) -> Self {
        let versions = Versions::new(cluster, timeout);
        Self { versions, key: name.to_vec(), owner: owner.to_vec(), lease }
    }

    /// Waits until it is free, and takes it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn acquire(&mut self) -> Result<Held, ClientError> {
        loop {
            if let Some(held) = self.try_acquire()? {
                return Ok(held);
            }
            crate::hands::pause(PAUSE);
        }
    }

    /// Takes it if it is free.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn try_acquire(&mut self) -> Result<Option<Held>, ClientError> {
        let version = match self.versions.get(&self.key)? {
            None => 0,
            Some((value, version)) if value == NOBODY => version,
            // A write of ours whose reply was lost.
            Some((value, version)) if value == self.owner => return Ok(Some(Held { token: version })),
            Some(_) => return Ok(None),
        };
        match self.versions.put(&self.key, &self.owner, version, self.lease) {
            Ok(token) => Ok(Some(Held { token })),
            Err(PutError::Maybe | PutError::Version { .. } | PutError::NoKey) => Ok(None),
            Err(PutError::Client(error)) => Err(error),
        }
    }

    /// Gives it back; returns whether it was still held (a lease may be over).
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn release(&mut self, held: Held) -> Result<bool, ClientError> {
        match self.versions.put(&self.key, NOBODY, held.token, None) {
            Ok(_) => Ok(true),
            Err(PutError::Version { .. } | PutError::NoKey) => Ok(false),
            Err(PutError::Client(error)) => Err(error),
            // Sent again until it was certainly done or can't be: it depends on the version, so once is all.
            Err(PutError::Maybe) => match self.versions.get(&self.key)? {
                Some((value, version)) if value == self.owner && version == held.token => self.release(held),
                _ => Ok(true),
            },
        }
    }
}
