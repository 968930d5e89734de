//! Why there is no TLS with somebody: what, where, what to do.

use super::cover::Cover;
use crate::hands::Stopwatch;
use rustls::{AlertDescription, CertificateError, Error};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The same is told so often.
const PERIOD_OF_THE_SAME: Duration = Duration::from_secs(60);
/// Reasons that are remembered. Others can provoke as many as they like.
const REASONS_MAX: usize = 64;
const ALL: &str = "all workers and clients of a cluster have certificates of one authority";
const GIVE: &str = "give it --tls-ca, --tls-cert and --tls-key";

/// There is no TLS with somebody, and waiting doesn't mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoTls(pub String);

impl NoTls {
    /// Whether an error is one of these.
    pub fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|it| it.is::<Self>())
    }
}

impl From<NoTls> for io::Error {
    fn from(error: NoTls) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, error)
    }
}

/// What is told to whoever comes without TLS where it must be spoken.
pub(super) const TLS_ONLY: &str =
    "it speaks TLS only: give --tls-ca, --tls-cert and --tls-key, of the authority that its workers have";
/// And to whoever comes with it where it isn't spoken.
pub(super) const PLAIN_ONLY: &str =
    "it speaks no TLS: start that worker with --tls-ca, --tls-cert and --tls-key, too";

/// Who comes without TLS to a coordinator that says that it speaks it.
pub fn needs_cover(address: &str) -> NoTls {
    NoTls(format!("no connection with {address}: {TLS_ONLY}"))
}

/// Who comes with it to one that says that it doesn't.
pub fn has_no_cover(address: &str) -> NoTls {
    NoTls(format!("no TLS with {address}: {PLAIN_ONLY}"))
}

/// Who has no certificate to show.
fn needs_certificate(address: &str) -> NoTls {
    NoTls(format!(
        "{address} wants to see a certificate: give --tls-cert and --tls-key, signed by an authority that its workers know"
    ))
}

fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref::<Error>()
}

/// Why a handshake that we have begun with `address` failed, if it is for a reason that stays.
pub(super) fn of_caller(address: &str, error: &io::Error, cover: &Cover) -> Option<String> {
    let said = match (cause(error)?, cover.cert()) {
        (Error::InvalidMessage(_), _) => has_no_cover(address).0,
        (Error::InvalidCertificate(error), _) => {
            format!("no TLS with {address}: its certificate {}", wrong(error, cover.ca()))
        }
        (Error::AlertReceived(_), None) => needs_certificate(address).0,
        (Error::AlertReceived(alert), Some(cert)) => {
            let cert = cert.display();
            format!("no TLS with {address}: it refuses the certificate in {cert}: {}", refused(*alert))
        }
        (error, _) => format!("no TLS with {address}: {error}"),
    };
    Some(said)
}

/// Why a handshake that somebody has begun with us failed.
pub(super) fn of_called(error: &io::Error, cover: &Cover) -> Option<String> {
    if error.kind() == io::ErrorKind::TimedOut {
        return Some("its handshake takes too long".to_owned());
    }
    let ours = cover.cert().unwrap_or_else(|| Path::new("none")).display();
    Some(match cause(error)? {
        Error::NoCertificatesPresented => format!("it shows no certificate: {GIVE}"),
        Error::InvalidCertificate(error) => format!("its certificate {}", wrong(error, cover.ca())),
        Error::AlertReceived(alert) => {
            format!("it refuses the certificate in {ours}: {}", refused(*alert))
        }
        error => error.to_string(),
    })
}

/// What is wrong with a certificate, and what to do.
pub(super) fn wrong(error: &CertificateError, ca: &Path) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("isn't signed by an authority in {}: {ALL}", ca.display())
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired: renew it (or look at the clocks)".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "isn't valid yet: look at the clocks of both machines".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "isn't for that host: it needs the host among its subject alternative names (see --tls-peer-hosts)"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "isn't for this: its extendedKeyUsage needs serverAuth and clientAuth".to_owned()
        }
        other => format!("can't be used: {other}"),
    }
}

/// What the other side says is wrong with ours.
fn refused(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            format!("it doesn't know its authority: {ALL}")
        }
        AlertDescription::CertificateExpired => "it has expired: renew it (or look at the clocks)".to_owned(),
        AlertDescription::UnsupportedCertificate => {
            "its extendedKeyUsage needs serverAuth and clientAuth".to_owned()
        }
        other => format!("{other:?}; the log of the other side says why"),
    }
}

/// Says what others can provoke as often as they like, and the same once a minute.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<BTreeMap<String, Stopwatch>>);

impl Complaints {
    /// Whether a reason is to be told.
    pub fn is_to_be_told(&self, reason: &str) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, since| since.elapsed() < PERIOD_OF_THE_SAME);
        let is_new = told.len() < REASONS_MAX && !told.contains_key(reason);
        if is_new {
            told.insert(reason.to_owned(), Stopwatch::start());
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_and_strangers_fill_no_memory() {
        let complaints = Complaints::default();
        assert!(complaints.is_to_be_told("a") && !complaints.is_to_be_told("a"));
        let told = (0..1000).filter(|number| complaints.is_to_be_told(&number.to_string())).count();
        assert_eq!(told, REASONS_MAX - 1);
    }
}
