//! Certificates and keys, from PEM files to what connections are made with.
//!
//! TLS 1.3 and 1.2, with the cipher suites that rustls deems safe; its cryptography is `ring`. Whoever a certificate is for is
//! checked against the authorities in one file: there is no way to go without.

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Certificates that can't be used: what, where, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file that can't be read, or isn't PEM.
    #[error("can't read the {what} in {path}: {reason}: it must be a PEM file that this process may read")]
    Unreadable {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is nothing in it.
    #[error("there is no {what} in {path}: it must have a PEM section of that kind")]
    Empty {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// A certificate and a key that aren't of one kind, or broken.
    #[error(
        "the certificate in {cert} can't be used with the key in {key}: {reason}: they must belong together"
    )]
    Mismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Authorities that can't be.
    #[error("the authorities in {path} can't be used: {reason}")]
    BadAuthority {
        /// Where they are.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A host that certificates can't name.
    #[error("{host:?} is no name or address that a certificate can be for")]
    BadHost {
        /// The host.
        host: String,
    },
}

/// Whether the other side must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Certificates {
    /// It isn't asked.
    #[default]
    NotAsked,
    /// If it has one, it must be right.
    Optional,
    /// Without one it is refused.
    Required,
}

/// A certificate with what leads to its authority, and its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    cert_path: PathBuf,
    key_path: PathBuf,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("cert", &self.cert_path).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let unreadable = |error: rustls::pki_types::pem::Error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                TlsError::Empty { what: "private key", path: key.to_owned() }
            }
            error => {
                TlsError::Unreadable { what: "private key", path: key.to_owned(), reason: words(&error) }
            }
        };
        Ok(Self {
            chain: certificates(cert, "certificate")?,
            key: PrivateKeyDer::from_pem_file(key).map_err(unreadable)?,
            cert_path: cert.to_owned(),
            key_path: key.to_owned(),
        })
    }

    fn mismatch(&self, error: &rustls::Error) -> TlsError {
        let (cert, key) = (self.cert_path.clone(), self.key_path.clone());
        TlsError::Mismatch { cert, key, reason: error.to_string() }
    }
}

/// Authorities whose signature counts.
#[derive(Clone, Debug)]
pub struct Authorities {
    roots: Arc<RootCertStore>,
    path: PathBuf,
}

impl Authorities {
    /// Reads a file of certificates.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(path: &Path) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path, "authority's certificate")? {
            let bad = |error: rustls::Error| TlsError::BadAuthority {
                path: path.to_owned(),
                reason: error.to_string(),
            };
            roots.add(certificate).map_err(bad)?;
        }
        Ok(Self { roots: Arc::new(roots), path: path.to_owned() })
    }

    fn verifier(&self, certificates: Certificates) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider());
        let built = match certificates {
            Certificates::NotAsked => return Ok(Arc::new(NoClientAuth)),
            Certificates::Optional => builder.allow_unauthenticated().build(),
            Certificates::Required => builder.build(),
        };
        let bad = |error: rustls::server::VerifierBuilderError| TlsError::BadAuthority {
            path: self.path.clone(),
            reason: error.to_string(),
        };
        built.map(|verifier| verifier as Arc<dyn ClientCertVerifier>).map_err(bad)
    }
}

/// What a listener answers TLS with.
///
/// # Errors
/// [`TlsError`].
pub fn server(
    identity: &Identity,
    authorities: &Authorities,
    certificates: Certificates,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has suites for both versions")
        .with_client_cert_verifier(authorities.verifier(certificates)?);
    let config = builder.with_single_cert(identity.chain.clone(), identity.key.clone_key());
    config.map(Arc::new).map_err(|error| identity.mismatch(&error))
}

/// What a connection is opened with: to whoever an authority vouches for, under the name that was looked for.
///
/// # Errors
/// [`TlsError`].
pub fn client(identity: Option<&Identity>, authorities: &Authorities) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has suites for both versions")
        .with_root_certificates(Arc::clone(&authorities.roots));
    authenticated(builder, identity)
}

/// The same to nodes: unless `checks_host`, whatever name is in a certificate that an authority has signed.
///
/// # Errors
/// [`TlsError`].
pub fn peer_client(
    identity: &Identity,
    authorities: &Authorities,
    checks_host: bool,
) -> Result<Arc<ClientConfig>, TlsError> {
    if checks_host {
        return client(Some(identity), authorities);
    }
    let verifier = AnyName { authorities: authorities.verifier(Certificates::Required)? };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    authenticated(builder, Some(identity))
}

fn authenticated(
    builder: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let Some(identity) = identity else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let config = builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key());
    config.map(Arc::new).map_err(|error| identity.mismatch(&error))
}

/// Accepts every certificate that an authority has signed, whatever name is in it. It is checked as that of who opens a
/// connection is: a node does both.
#[derive(Debug)]
struct AnyName {
    authorities: Arc<dyn ClientCertVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        self.authorities.verify_client_cert(end_entity, intermediates, now)?;
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// A host as certificates name it.
///
/// # Errors
/// [`TlsError::BadHost`].
pub fn host_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    // `[::1]`, as in addresses.
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let bad = |_| TlsError::BadHost { host: host.to_owned() };
    ServerName::try_from(bare.to_owned()).map_err(bad)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error| TlsError::Unreadable { what, path: path.to_owned(), reason: words(&error) };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect();
    let found = found.map_err(unreadable)?;
    if found.is_empty() { Err(TlsError::Empty { what, path: path.to_owned() }) } else { Ok(found) }
}

/// The system's words, if it was the system.
fn words(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of its own and a certificate that it has signed itself.
    fn files(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let (cert, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (cert, key)
    }

    #[test]
    fn bad_files_are_named_with_what_is_wrong_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let ((cert, key), (_, other_key)) = (files(folder.path(), "one"), files(folder.path(), "two"));
        let missing = folder.path().join("nowhere.pem");
        let junk = folder.path().join("junk.pem");
        std::fs::write(&junk, "not PEM at all").unwrap();
        let said = |cert: &Path, key: &Path| Identity::read(cert, key).unwrap_err().to_string();
        for (words, what) in [
            (said(&missing, &key), "can't read the certificate in"),
            (said(&cert, &missing), "can't read the private key in"),
            (said(&junk, &key), "there is no certificate in"),
            (said(&cert, &junk), "there is no private key in"),
            (said(&cert, &cert), "there is no private key in"),
            (
                Authorities::read(&missing).unwrap_err().to_string(),
                "can't read the authority's certificate in",
            ),
            (Authorities::read(&junk).unwrap_err().to_string(), "there is no authority's certificate in"),
        ] {
            assert!(words.contains(what) && words.contains(".") && !words.contains('\n'), "{words}");
        }
        let authorities = Authorities::read(&cert).unwrap();
        let identity = Identity::read(&cert, &other_key).unwrap();
        let mismatch = server(&identity, &authorities, Certificates::Required).unwrap_err().to_string();
        assert!(
            mismatch.contains("one.crt")
                && mismatch.contains("two.key")
                && mismatch.contains("belong together"),
            "{mismatch}"
        );
        let identity = Identity::read(&cert, &key).unwrap();
        assert!(server(&identity, &authorities, Certificates::Optional).is_ok());
        assert!(peer_client(&identity, &authorities, false).is_ok());
        assert!(!format!("{identity:?}").contains("PRIVATE"), "{identity:?}");
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for host in ["node-1.example", "10.0.0.1", "::1", "[::1]"] {
            assert!(host_name(host).is_ok(), "{host}");
        }
        assert_eq!(host_name("no host"), Err(TlsError::BadHost { host: "no host".to_owned() }));
    }
}
