//! How `flotilla mr` speaks with the store, and with whoever coordinates.

use super::super::Failure;
use super::super::login::Login;
use crate::client::{Security, Seeds};
use crate::mapreduce::hands::talk::cover::{Cover, Files};
use clap::{ArgAction, Args};

/// Options of every command that speaks with a coordinator.
#[derive(Debug, Args)]
pub(super) struct Access {
    #[command(flatten)]
    login: Login,
    /// Speak TLS with workers only, and none with the store: for nodes whose clients speak none (`tls.clients = "off"`).
    #[arg(long, requires = "tls_ca")]
    plain_store: bool,
    /// Whether a worker's certificate must be for the host that it listens at; else any that an authority has signed will do. As
    /// `tls.peer_hosts` of the nodes.
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    tls_peer_hosts: bool,
}

/// The store, and under what cover to speak with workers.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) seeds: Seeds,
    pub(super) cover: Option<Cover>,
}

impl Access {
    /// What these options say, for a cluster that has these addresses.
    ///
    /// # Errors
    /// A file that can't be used.
    pub(super) fn way(&self, addresses: &[String]) -> Result<Way, Failure> {
        let mut seeds = self.login.seeds(addresses)?;
        if self.plain_store {
            seeds.security = Security { tls: None, ..seeds.security };
        }
        let files =
            self.login.files().map(|(ca, identity)| Files { ca, identity, checks_host: self.tls_peer_hosts });
        let cover = files.map(Cover::read).transpose();
        Ok(Way { seeds, cover: cover.map_err(|error| Failure::Usage(error.to_string()))? })
    }
}
