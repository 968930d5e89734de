//! One node: takes its data folder, its ports and its cores, and runs until it is told to stop.

use crate::config::{Config, ConfigError, Demand, Sync};
use crate::core::Core;
use crate::hands::{Stopwatch, pause};
use flotilla_runtime::driver::{
    self, ClientTls, CoreOptions, Limits, NodeError, NodeHandle, NodeOptions, PeerAddress, PeerTls,
    Placement, Reload, SyncMode, TlsOptions, Versions,
};
use flotilla_runtime::tls::{self, Authorities, Certificates, Identity, TlsError};
use flotilla_runtime::{CoreId, NodeId, PeerId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Why a node can't start, or had to stop. One line: what, where, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A folder or file of the node.
    #[error("{what} {path}: {source}{hint}")]
    Folder {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The folder is in use.
    #[error(
        "the data folder {path} is in use by a running node (lock file {lock}): stop that node, or give this one a folder of its own"
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The lock.
        lock: PathBuf,
    },
    /// The folder is another node's.
    #[error(
        "the data folder {path} was created with {key} = {found}, and the configuration says {expected}: use that node's own folder, or an empty one for a new node"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What differs.
        key: &'static str,
        /// In the folder.
        found: String,
        /// In the configuration.
        expected: String,
    },
    /// The machine's clock.
    #[error(
        "the system clock says that it is {days} days after 1970-01-01, before this program was written: keys would expire by it, and certificates not be valid; set it (timedatectl set-ntp true, chronyc makestep, date -s)"
    )]
    Calendar {
        /// Days since then.
        days: u64,
    },
    /// A host name.
    #[error("the host {host:?} of node {node} has no address: {source}")]
    Unresolved {
        /// The name.
        host: String,
        /// Whose it is.
        node: u32,
        /// What the resolver said.
        source: io::Error,
    },
    /// A port.
    #[error("can't listen on {address} ({what}): {source}: {}", cure_of_port(source))]
    Port {
        /// The address.
        address: SocketAddr,
        /// For whom.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Certificates.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// The node had to stop.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// What a data folder says about itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FolderIdentity {
    pub(crate) cluster: String,
    pub(crate) node: u32,
    pub(crate) cores: u16,
    pub(crate) groups: u32,
    pub(crate) shards: u16,
    /// Drawn when the folder was made: a wiped node isn't its former self.
    pub(crate) incarnation: u64,
}

/// The file in a data folder that says whose it is.
pub(crate) const IDENTITY_FILE: &str = "identity.toml";
/// The file in a data folder that a running node holds locked.
pub(crate) const LOCK_FILE: &str = "lock";

/// Runs a node, which speaks these versions of the nodes' protocol, until `stop` is used (then it drains) or it fails. Calls `ready` once it serves.
/// When it returns, the process is to end: what the cores hold in memory isn't freed first.
///
/// # Errors
/// [`ServeError`].
pub fn serve(
    config: &Config,
    versions: Versions,
    stop: NodeHandle,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    check_calendar(crate::hands::unix_ms())?;
    let tls = cover(config)?;
    warn_of_open_doors(config);
    let (_lock, incarnation) = claim_folder(config)?;
    let options = NodeOptions { tls, versions, ..options(config, incarnation)? };
    let for_cores = config.clone();
    let build = move |boot: flotilla_runtime::CoreBoot| {
        let core = boot.core.0;
        let mut built = Core::build(&for_cores, boot).map_err(|error| error.to_string())?;
        built.draw_passwords_from(random_bytes().map_err(|error| error.to_string())?);
        tracing::info!(core, found = built.recovered(), "the log is recovered");
        for damage in built.damage() {
            tracing::error!(core, "{damage}; this replica doesn't vote until the others have given it back");
        }
        Ok(built)
    };
    driver::run(options, build, stop, ready)?;
    Ok(())
}

/// The folder of one core inside a node's data folder.
pub fn core_folder(data: &Path, core: u16) -> PathBuf {
    data.join(format!("core-{core}"))
}

/// What mends it that nobody can listen on a port.
fn cure_of_port(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "choose a port from 1024 on, or give the unit AmbientCapabilities=CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => {
            "the host of this node in `nodes` is none of this machine's addresses"
        }
        _ => "choose another port, or stop who uses it",
    }
}

/// 2026-01-01, in milliseconds since 1970.
const WRITTEN_UNIX_MS: u64 = 1_767_225_600_000;

/// A machine without a battery wakes up in 1970.
fn check_calendar(unix_ms: u64) -> Result<(), ServeError> {
    match unix_ms >= WRITTEN_UNIX_MS {
        true => Ok(()),
        false => Err(ServeError::Calendar { days: unix_ms / 86_400_000 }),
    }
}

/// What mends it that something can't be written.
fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            ": mount it writable; under systemd, a folder other than /var/lib/flotilla also needs ReadWritePaths= in the unit"
        }
        io::ErrorKind::PermissionDenied => ": make the folder the node's user's own (chown)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": free some space there",
        _ => ": the node must be able to write there",
    }
}

fn claim_folder(config: &Config) -> Result<(File, u64), ServeError> {
    let data = &config.data;
    let folder = |what, path: &Path, source| ServeError::Folder {
        what,
        path: path.to_owned(),
        hint: cure(&source),
        source,
    };
    fs::create_dir_all(data).map_err(|error| folder("can't create the data folder", data, error))?;
    let lock_path = data.join(LOCK_FILE);
    let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
    let lock = lock.map_err(|error| folder("can't write the lock file", &lock_path, error))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| ServeError::Locked { path: data.clone(), lock: lock_path })?;
    let incarnation = check_identity(config)?;
    for core in 0..config.me().cores {
        let path = core_folder(data, core);
        fs::create_dir_all(&path).map_err(|error| folder("can't create the folder", &path, error))?;
    }
    Ok((lock, incarnation))
}

fn check_identity(config: &Config) -> Result<u64, ServeError> {
    let path = config.data.join(IDENTITY_FILE);
    let io = |what, source| ServeError::Folder { what, path: path.clone(), hint: cure(&source), source };
    let expected = FolderIdentity {
        cluster: config.cluster.clone(),
        node: config.node,
        cores: config.me().cores,
        groups: config.groups,
        shards: config.shards,
        incarnation: 0,
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let identity = FolderIdentity { incarnation: random_number()?, ..expected };
            write_durably(&path, &toml::to_string(&identity).expect("plain fields"))
                .map_err(|e| io("can't write", e))?;
            return Ok(identity.incarnation);
        }
        Err(error) => return Err(io("can't read", error)),
    };
    let found: FolderIdentity = toml::from_str(&text)
        .map_err(|error| io("can't understand", io::Error::other(error.message().to_owned())))?;
    let differs = |key, found: &dyn ToString, expected: &dyn ToString| ServeError::Foreign {
        path: config.data.clone(),
        key,
        found: found.to_string(),
        expected: expected.to_string(),
    };
    if found.cluster != expected.cluster {
        return Err(differs("cluster", &found.cluster, &expected.cluster));
    }
    for (key, found, expected) in [
        ("node", u64::from(found.node), u64::from(expected.node)),
        ("cores", u64::from(found.cores), u64::from(expected.cores)),
        ("groups", u64::from(found.groups), u64::from(expected.groups)),
        ("shards", u64::from(found.shards), u64::from(expected.shards)),
    ] {
        if found != expected {
            return Err(differs(key, &found, &expected));
        }
    }
    Ok(found.incarnation)
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(path.parent().expect("inside the data folder"))?.sync_all()
}

/// What connections are made with.
fn cover(config: &Config) -> Result<TlsOptions, ServeError> {
    let Some(settings) = &config.tls else { return Ok(TlsOptions::default()) };
    let identity = Identity::read(&settings.cert, &settings.key)?;
    let authorities = Authorities::read(&settings.ca)?;
    let asked = match settings.client_certificates {
        Demand::Off => Certificates::NotAsked,
        Demand::Optional => Certificates::Optional,
        Demand::Required => Certificates::Required,
    };
    let for_clients = tls::server(&identity, &authorities, asked)?;
    let clients = (settings.clients != Demand::Off)
        .then_some(ClientTls { config: for_clients, is_required: settings.clients == Demand::Required });
    if !settings.peers {
        return Ok(TlsOptions { clients, peers: None });
    }
    let others = config.nodes.iter().filter(|node| node.id != config.node);
    let names = others.map(|node| Ok((NodeId(node.id), tls::host_name(&node.host)?)));
    let peers = PeerTls {
        server: tls::server(&identity, &authorities, Certificates::Required)?,
        client: tls::peer_client(&identity, &authorities, settings.peer_hosts)?,
        names: names.collect::<Result<_, TlsError>>()?,
        checks_host: settings.peer_hosts,
    };
    Ok(TlsOptions { clients, peers: Some(peers) })
}

/// Tells the operator what is left open, or shut, by a configuration that doesn't say.
fn warn_of_open_doors(config: &Config) {
    let host = &config.me().host;
    let is_reachable = resolve(config.node, host, config.me().port).is_ok_and(|at| !at.ip().is_loopback());
    if is_reachable && config.is_protected() {
        tracing::warn!(
            %host,
            "protected mode: the default user has no password, so clients are accepted over the loopback interface only; see requirepass_sha256, users and protected_mode"
        );
    }
    if is_reachable && config.nodes.len() > 1 && config.tls.as_ref().is_none_or(|tls| !tls.peers) {
        tracing::warn!(
            %host,
            "whoever reaches the peers' ports can pose as a node: keep them on a network of their own, or see tls.peers"
        );
    }
}

fn random_number() -> Result<u64, ServeError> {
    Ok(u64::from_le_bytes(random_bytes()?))
}

fn random_bytes<const COUNT: usize>() -> Result<[u8; COUNT], ServeError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; COUNT];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| ServeError::Folder {
        what: "can't read",
        path: path.to_owned(),
        source,
        hint: "",
    })?;
    Ok(bytes)
}

/// What a running node is to take over from another configuration: certificates are read again.
///
/// # Errors
/// [`ServeError::Tls`].
pub fn reload(config: &Config) -> Result<Reload, ServeError> {
    Ok(Reload { limits: limits(config), tls: cover(config)?, settings: Arc::new(config.clone()) })
}

/// The driver's bounds.
fn limits(config: &Config) -> Limits {
    let (usual, link_bytes_max) = (Limits::default(), config.link_bytes_max());
    Limits {
        peer_frame_bytes_max: usual.peer_frame_bytes_max.max(link_bytes_max),
        peer_output_bytes_max: usual.peer_output_bytes_max.max(link_bytes_max),
        connections_max: config.limits.connections_max,
        client_output_bytes_max: config.limits.client_output_bytes_max,
        client_input_bytes_max: config.limits.value_bytes_max.saturating_mul(4),
    }
}

fn options(config: &Config, incarnation: u64) -> Result<NodeOptions, ServeError> {
    let me = config.me();
    let mut cores = Vec::new();
    for core in 0..me.cores {
        cores.push(CoreOptions {
            clients: listen(resolve(me.id, &me.host, me.port + core)?, "clients")?,
            peers: listen(resolve(me.id, &me.host, me.peer_port + core)?, "peers")?,
            folder: core_folder(&config.data, core),
        });
    }
    let admin = config.admin_address().map(|address| open_admin_port(config.node, &address)).transpose()?;
    let mut peers = Vec::new();
    for node in config.nodes.iter().filter(|node| node.id != config.node) {
        for core in 0..node.cores {
            let peer = PeerId { node: NodeId(node.id), core: CoreId(core) };
            peers.push(PeerAddress { peer, address: resolve(node.id, &node.host, node.peer_port + core)? });
        }
    }
    let placement =
        if config.cpus.is_empty() { Placement::Floating } else { Placement::Pinned(config.cpus.clone()) };
    Ok(NodeOptions {
        cores,
        admin,
        peers,
        placement,
        busy_poll: Duration::from_micros(config.busy_poll_us),
        limits: limits(config),
        sync: match config.log.sync {
            Sync::Fdatasync => SyncMode::Fdatasync,
            Sync::Dsync => SyncMode::Dsync,
        },
        seed: random_number()?,
        ends_process: true,
        ..NodeOptions::new(NodeId(config.node), config.cluster_id(), incarnation)
    })
}

fn resolve(node: u32, host: &str, port: u16) -> Result<SocketAddr, ServeError> {
    let unresolved = |source| ServeError::Unresolved { host: host.to_owned(), node, source };
    let mut addresses = (host, port).to_socket_addrs().map_err(unresolved)?;
    addresses.next().ok_or_else(|| unresolved(io::Error::other("no address")))
}

fn open_admin_port(node: u32, address: &str) -> Result<TcpListener, ServeError> {
    let at = resolve_address(node, address)?;
    let listener = listen(at, "admin")?;
    tracing::info!(%at, "the admin port answers HTTP");
    if !at.ip().is_loopback() {
        tracing::warn!(%at, "the admin port has neither users nor TLS: keep it on a network of operators; see admin.listen");
    }
    Ok(listener)
}

fn resolve_address(node: u32, address: &str) -> Result<SocketAddr, ServeError> {
    let unresolved = |source| ServeError::Unresolved { host: address.to_owned(), node, source };
    let mut addresses = address.to_socket_addrs().map_err(unresolved)?;
    addresses.next().ok_or_else(|| unresolved(io::Error::other("no address")))
}

/// The kernel takes a moment to give back the sockets of a process that died with operations on its ring.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

fn listen(address: SocketAddr, what: &'static str) -> Result<TcpListener, ServeError> {
    let clock = Stopwatch::start();
    let bound = loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && clock.elapsed() < PORT_PATIENCE => {
                pause(Duration::from_millis(20));
            }
            other => break other,
        }
    };
    let listener = bound.map_err(|source| ServeError::Port { address, what, source })?;
    rustix::net::listen(&listener, BACKLOG).map_err(|error| ServeError::Port {
        address,
        what,
        source: error.into(),
    })?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_an_error_with_its_cure() {
        let error = check_calendar(3 * 86_400_000).unwrap_err().to_string();
        assert!(error.contains("3 days after 1970-01-01") && error.contains("timedatectl"), "{error}");
        assert!(check_calendar(WRITTEN_UNIX_MS).is_ok() && check_calendar(crate::hands::unix_ms()).is_ok());
    }

    #[test]
    fn what_can_t_be_written_has_its_cure() {
        let cure = |number| cure(&io::Error::from_raw_os_error(number));
        let (read_only, no_space, denied) = (30, 28, 13);
        assert!(cure(read_only).contains("ReadWritePaths") && cure(no_space).contains("free some space"));
        assert!(cure(denied).contains("chown"));
    }
}
