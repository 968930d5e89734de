//! Certificates that workers and their clients speak TLS with.
//!
//! A worker's must be for the host that it listens at, and good for both ends of a connection: it is the called for some and the
//! caller for others. Who only submits jobs needs one as well, for whoever reaches a coordinator lets workers run commands.
//!
//! Files that have changed are read again, so that renewing certificates needs no restart. What doesn't fit, as there is between
//! the replacement of a certificate and that of its key, leaves the old ones in use.

use super::trouble;
use crate::hands::Stopwatch;
use flotilla_runtime::tls::{self, Authorities, Certificates, Identity, TlsError};
use rustls::{ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two looks at whether files have changed.
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// Where certificates are (PEM).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The authorities that others' certificates are signed by.
    pub ca: PathBuf,
    /// The own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A worker's certificate must be for its host; else any that an authority has signed will do.
    pub checks_host: bool,
}

/// What TLS is spoken with. Clones share it.
#[derive(Clone, Debug)]
pub struct Cover {
    files: Arc<Files>,
    current: Arc<Mutex<Current>>,
}

#[derive(Debug)]
struct Current {
    configs: Configs,
    stamps: Vec<Stamp>,
    looked: Stopwatch,
}

#[derive(Clone, Debug)]
struct Configs {
    client: Arc<ClientConfig>,
    /// Who has no certificate can't be called.
    server: Option<Arc<ServerConfig>>,
}

/// A file as it was when it was read: device, inode, size, and when it was changed, in seconds and nanoseconds.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

impl Files {
    fn read(&self) -> Result<Configs, TlsError> {
        let authorities = Authorities::read(&self.ca)?;
        let Some((cert, key)) = &self.identity else {
            return Ok(Configs { client: tls::client(None, &authorities)?, server: None });
        };
        let identity = Identity::read(cert, key)?;
        let server = tls::server(&identity, &authorities, Certificates::Required)?;
        let client = tls::peer_client(&identity, &authorities, self.checks_host)?;
        Ok(Configs { client, server: Some(server) })
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &PathBuf| {
            let it = std::fs::metadata(path).ok()?;
            Some((it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec()))
        };
        let own = self.identity.iter().flat_map(|(cert, key)| [cert, key]);
        own.chain([&self.ca]).map(stamp).collect()
    }
}

impl Cover {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(files: Files) -> Result<Self, TlsError> {
        // Looked at before they are read: what changes in between is seen the next time.
        let stamps = files.stamps();
        let current = Current { configs: files.read()?, stamps, looked: Stopwatch::start() };
        Ok(Self { files: Arc::new(files), current: Arc::new(Mutex::new(current)) })
    }

    /// The authorities' file.
    pub fn ca(&self) -> &Path {
        &self.files.ca
    }

    /// The own certificate's file.
    pub fn cert(&self) -> Option<&Path> {
        self.files.identity.as_ref().map(|(cert, _)| cert.as_path())
    }

    fn configs(&self) -> Configs {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_AFTER {
            current.looked = Stopwatch::start();
            self.renew(&mut current);
        }
        current.configs.clone()
    }

    /// Looks at the files at once.
    #[cfg(test)]
    pub(super) fn look(&self) {
        self.renew(&mut self.current.lock().expect("no test panics with it"));
    }

    fn renew(&self, current: &mut Current) {
        let stamps = self.files.stamps();
        if stamps == current.stamps {
            return;
        }
        current.stamps = stamps;
        match self.files.read() {
            Ok(configs) => {
                current.configs = configs;
                tracing::info!(ca = %self.files.ca.display(), "certificates are read again");
            }
            Err(error) => {
                tracing::warn!(%error, "certificates have changed and can't be used: the old ones stay");
            }
        }
    }

    /// What connections are opened with.
    pub(super) fn client(&self) -> Arc<ClientConfig> {
        self.configs().client
    }

    /// What they are answered with, if there is a certificate.
    pub(super) fn server(&self) -> Option<Arc<ServerConfig>> {
        self.configs().server
    }

    /// Shakes hands with itself as others will, with who listens at `host`: so what they would refuse is told at the start.
    ///
    /// # Errors
    /// What is wrong, where, and what to do.
    pub fn rehearse(&self, host: &str) -> Result<(), String> {
        let Configs { client, server: Some(server) } = self.configs() else {
            return Err(
                "a worker that speaks TLS needs a certificate: give --tls-cert and --tls-key".to_owned()
            );
        };
        let name = tls::host_name(host).map_err(|error| error.to_string())?;
        let sides = ClientConnection::new(client, name)
            .and_then(|caller| ServerConnection::new(server).map(|called| (caller.into(), called.into())));
        let (mut caller, mut called): (rustls::Connection, rustls::Connection) =
            sides.map_err(|error| error.to_string())?;
        while caller.is_handshaking() || called.is_handshaking() {
            let moved = pass(&mut caller, &mut called)
                .and_then(|there| pass(&mut called, &mut caller).map(|back| there + back));
            match moved {
                Ok(0) => return Err("the handshake stands still".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(self.complain(&error, host)),
            }
        }
        Ok(())
    }

    fn complain(&self, error: &Error, host: &str) -> String {
        let cert = self.cert().unwrap_or_else(|| Path::new("none")).display();
        match error {
            Error::InvalidCertificate(error) => format!(
                "others would refuse the certificate in {cert} of a worker at {host}: it {}",
                trouble::wrong(error, self.ca())
            ),
            error => format!("others would refuse the certificate in {cert} of a worker at {host}: {error}"),
        }
    }
}

/// Hands over what one side has to say to the other; how many bytes that was.
fn pass(from: &mut rustls::Connection, to: &mut rustls::Connection) -> Result<usize, Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).expect("a vector takes everything");
    }
    let mut left = &wire[..];
    while !left.is_empty() {
        to.read_tls(&mut left).map_err(|error| Error::General(error.to_string()))?;
        to.process_new_packets()?;
    }
    Ok(wire.len())
}
