//! What nodes of a test speak TLS with.

#[path = "authority.rs"]
mod authority;

pub(crate) use authority::Authority;
use flotilla_services::config::{Demand, TlsSettings};

impl Authority {
    /// Settings for nodes at the loopback address.
    pub(crate) fn settings(&self, clients: Demand, peers: bool) -> TlsSettings {
        let (cert, key) = self.certify("node", &["127.0.0.1", "localhost"]);
        TlsSettings {
            cert,
            key,
            ca: self.cert.clone(),
            clients,
            client_certificates: Demand::Off,
            peers,
            peer_hosts: true,
        }
    }
}
