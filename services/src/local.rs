//! A whole cluster on this machine, each node a process of its own: for the demo, `flotilla dev`, benchmarks and
//! tests.

use crate::acl::PasswordHash;
use crate::client::{ClientError, Cluster, Connection, Reply, Security, Seeds};
use crate::config::{
    AdminSettings, Config, Limits, LogSettings, MapReduceSettings, NodeEntry, RaftSettings, Redirect,
    TlsSettings, UserEntry, usual_priority,
};
use crate::hands::{Stopwatch, pause};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The `flotilla` program.
    pub program: PathBuf,
    /// Where the nodes' folders and files go.
    pub folder: PathBuf,
    /// How many nodes.
    pub nodes: u32,
    /// How many of them, the last, aren't there from the start: [`LocalCluster::restart`] brings them up.
    pub spares: u32,
    /// Cores of each.
    pub cores: u16,
    /// Raft groups.
    pub groups: u32,
    /// Groups without a shard, that may join.
    pub spare_groups: u32,
    /// Shards.
    pub shards: u16,
    /// Whether groups can join and leave at all.
    pub controller: bool,
    /// The first client port; 0: any that are free.
    pub port: u16,
    /// What a node does with a command that it doesn't lead.
    pub redirect: Redirect,
    /// Bounds.
    pub limits: Limits,
    /// The log.
    pub log: LogSettings,
    /// Timeouts.
    pub raft: RaftSettings,
    /// Workers of every node.
    pub mapreduce: MapReduceSettings,
    /// The hash of the default user's password.
    pub requirepass_sha256: Option<PasswordHash>,
    /// Users.
    pub users: Vec<UserEntry>,
    /// Certificates.
    pub tls: Option<TlsSettings>,
    /// How [`LocalCluster::client`] shows who it is.
    pub security: Security,
    /// Flags of `flotilla serve` for every node, besides the usual ones: see [`LocalCluster::set_flags`].
    pub flags: Vec<String>,
    /// A node that hasn't announced itself ready by then is killed.
    pub ready_within: Duration,
}

impl LocalOptions {
    /// Three nodes of one core, one group.
    pub fn new(program: PathBuf, folder: PathBuf) -> Self {
        Self {
            program,
            folder,
            nodes: 3,
            spares: 0,
            cores: 1,
            groups: 1,
            spare_groups: 0,
            shards: 64,
            controller: true,
            port: 0,
            redirect: Redirect::Moved,
            limits: Limits::default(),
            log: LogSettings::default(),
            raft: RaftSettings::default(),
            mapreduce: MapReduceSettings::default(),
            requirepass_sha256: None,
            users: Vec::new(),
            tls: None,
            security: Security::default(),
            flags: Vec::new(),
            ready_within: READY_WITHIN,
        }
    }
}

/// Something about a local cluster went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// A process or a file.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A node ended instead of getting ready.
    #[error("node {node} didn't start ({status}); its last words: {last_words}")]
    NotStarted {
        /// Which one.
        node: u32,
        /// How its process ended.
        status: String,
        /// The end of its log.
        last_words: String,
    },
    /// A node neither got ready nor ended.
    #[error("node {node} isn't ready after {seconds} s; it was killed")]
    NotReady {
        /// Which one.
        node: u32,
        /// How long it was given.
        seconds: u64,
    },
    /// A node isn't a voter yet.
    #[error("node {node} isn't a whole member of every group after {seconds:.0} s: {what}")]
    NotWhole {
        /// Which one.
        node: u32,
        /// How long it was given.
        seconds: f64,
        /// What it says, or why it says nothing.
        what: String,
    },
    /// The cluster doesn't serve.
    #[error("the cluster has no leader for every slot after {0:.0} s")]
    NoLeader(f64),
}

/// Making the segments of a log takes a slow disk a while.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running local cluster. Dropped, it is killed.
#[derive(Debug)]
pub struct LocalCluster {
    options: LocalOptions,
    nodes: Vec<LocalNode>,
}

#[derive(Debug)]
struct LocalNode {
    entry: NodeEntry,
    admin: String,
    config: PathBuf,
    log: PathBuf,
    /// Of `flotilla serve`, besides the usual ones.
    flags: Vec<String>,
    process: Option<Child>,
}

impl LocalCluster {
    /// Writes the configurations and starts every node; returns when all have announced themselves ready.
    ///
    /// # Errors
    /// [`LocalError`]; nothing is left running then.
    pub fn start(options: LocalOptions) -> Result<Self, LocalError> {
        let entries = entries(&options)?;
        let mut cluster = Self { nodes: Vec::new(), options };
        for entry in &entries {
            let node = cluster.write_config(entry, &entries)?;
            cluster.nodes.push(node);
        }
        let founders = cluster.options.nodes - cluster.options.spares;
        for node in 1..=founders {
            cluster.spawn(node)?;
        }
        for node in 1..=founders {
            cluster.wait_ready(node)?;
        }
        Ok(cluster)
    }

    fn write_config(&self, entry: &NodeEntry, entries: &[NodeEntry]) -> Result<LocalNode, LocalError> {
        let admin = admin_address(&self.options, entry)?;
        let folder = &self.options.folder;
        let config = Config {
            cluster: "local".to_owned(),
            node: entry.id,
            data: folder.join(format!("node-{}", entry.id)),
            groups: self.options.groups,
            spare_groups: self.options.spare_groups,
            controller: self.options.controller,
            placement: Vec::new(),
            log_level: None,
            admin: AdminSettings::at(&admin),
            mapreduce: self.options.mapreduce.clone(),
            protected_mode: true,
            requirepass_sha256: self.options.requirepass_sha256,
            tls: self.options.tls.clone(),
            users: self.options.users.clone(),
            shards: self.options.shards,
            redirect: self.options.redirect,
            cpus: Vec::new(),
            busy_poll_us: crate::config::default_busy_poll_us(),
            limits: self.options.limits,
            log: self.options.log,
            raft: self.options.raft,
            nodes: entries.to_vec(),
        };
        let path = folder.join(format!("node-{}.toml", entry.id));
        let text = toml::to_string(&config).expect("a configuration is plain data");
        let io = |source| LocalError::Io { what: format!("can't write {}", path.display()), source };
        std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text)).map_err(io)?;
        let log = folder.join(format!("node-{}.log", entry.id));
        Ok(LocalNode {
            entry: entry.clone(),
            admin,
            config: path,
            log,
            flags: self.options.flags.clone(),
            process: None,
        })
    }

    fn node(&self, id: u32) -> &LocalNode {
        &self.nodes[id as usize - 1]
    }

    fn spawn(&mut self, id: u32) -> Result<(), LocalError> {
        let program = self.options.program.clone();
        let node = &mut self.nodes[id as usize - 1];
        let io = |source| LocalError::Io { what: format!("can't start {}", program.display()), source };
        let log = std::fs::File::options().create(true).append(true).open(&node.log).map_err(io)?;
        let mut command = Command::new(&program);
        command.args(["serve", "--die-with-parent", "--config"]).arg(&node.config).args(&node.flags);
        // What is set here for one node isn't meant for each of these.
        for name in crate::config::variables() {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        node.process = Some(command.spawn().map_err(io)?);
        Ok(())
    }

    fn wait_ready(&mut self, id: u32) -> Result<(), LocalError> {
        let node = &mut self.nodes[id as usize - 1];
        let process = node.process.as_mut().expect("spawned just before");
        let output = process.stdout.take().expect("its output is a pipe");
        let (announce, announced) = std::sync::mpsc::channel();
        crate::hands::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(output).read_line(&mut line);
            // Nobody waits any more: that was said already.
            let _ = announce.send(read.is_ok() && line.starts_with("ready"));
        });
        match announced.recv_timeout(self.options.ready_within) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(_) => {
                let seconds = self.options.ready_within.as_secs();
                self.kill(id);
                return Err(LocalError::NotReady { node: id, seconds });
            }
        }
        let status = process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        node.process = None;
        let words = std::fs::read_to_string(&node.log).unwrap_or_default();
        let last_words = words.lines().last().unwrap_or("none").to_owned();
        Err(LocalError::NotStarted { node: id, status, last_words })
    }

    /// Starts a node that was killed; returns when it has announced itself ready.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn restart(&mut self, id: u32) -> Result<(), LocalError> {
        self.spawn(id)?;
        self.wait_ready(id)
    }

    /// From its next start on a node has these flags of `flotilla serve` besides the usual ones, in place of those that it had.
    pub fn set_flags(&mut self, id: u32, flags: &[&str]) {
        self.nodes[id as usize - 1].flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// SIGKILL, and waits for the process to be gone.
    pub fn kill(&mut self, id: u32) {
        if let Some(mut process) = self.nodes[id as usize - 1].process.take() {
            // Both fail only if it is gone already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM: asks a node to drain; returns whether it ended well within `timeout`.
    pub fn stop(&mut self, id: u32, timeout: Duration) -> bool {
        if self.nodes[id as usize - 1].process.is_none() {
            return true;
        }
        self.terminate(id);
        let ended = self.wait_for_end(id, timeout);
        if ended.is_none() {
            self.kill(id);
        }
        ended.is_some_and(|status| status.success())
    }

    /// SIGTERM, and doesn't wait.
    pub fn terminate(&self, id: u32) {
        self.signal(id, Signal::TERM);
    }

    /// SIGHUP: the node is to read its file again.
    pub fn hang_up(&self, id: u32) {
        self.signal(id, Signal::HUP);
    }

    fn signal(&self, id: u32, signal: Signal) {
        let process = self.node(id).process.as_ref();
        let pid = process.and_then(|process| Pid::from_raw(i32::try_from(process.id()).unwrap_or(0)));
        if let Some(pid) = pid {
            // Fails only if it is gone already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for a node to end by itself; `None` if it doesn't within `timeout`, or doesn't run.
    pub fn wait_for_end(&mut self, id: u32, timeout: Duration) -> Option<ExitStatus> {
        let process = self.nodes[id as usize - 1].process.as_mut()?;
        let clock = Stopwatch::start();
        while clock.elapsed() < timeout {
            if let Ok(Some(status)) = process.try_wait() {
                self.nodes[id as usize - 1].process = None;
                return Some(status);
            }
            pause(Duration::from_millis(2));
        }
        None
    }

    /// The client addresses of every core.
    pub fn addresses(&self) -> Vec<String> {
        let of = |node: &LocalNode| {
            let NodeEntry { host, port, cores, .. } = node.entry.clone();
            (0..cores).map(move |core| format!("{host}:{}", port + core))
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// The node at a client address.
    pub fn node_at(&self, address: &str) -> Option<u32> {
        let port: u16 = address.rsplit(':').next()?.parse().ok()?;
        let owns = |node: &&LocalNode| (node.entry.port..node.entry.port + node.entry.cores).contains(&port);
        self.nodes.iter().find(owns).map(|node| node.entry.id)
    }

    /// A node's client address (core 0).
    pub fn address(&self, id: u32) -> String {
        let entry = &self.node(id).entry;
        format!("{}:{}", entry.host, entry.port)
    }

    /// Where a node's operators ask, over HTTP.
    pub fn admin(&self, id: u32) -> &str {
        &self.node(id).admin
    }

    /// A node's configuration file.
    pub fn config(&self, id: u32) -> &Path {
        &self.node(id).config
    }

    /// Whether a node's process runs.
    pub fn is_running(&mut self, id: u32) -> bool {
        let process = &mut self.nodes[id as usize - 1].process;
        process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// A client of the cluster.
    pub fn client(&self) -> Cluster {
        let security = self.options.security.clone();
        Cluster::new(Seeds { addresses: self.addresses(), security })
    }

    /// Waits until every slot has a leader that takes a write.
    ///
    /// # Errors
    /// [`LocalError::NoLeader`].
    pub fn wait_for_leaders(&self, timeout: Duration) -> Result<(), LocalError> {
        let clock = Stopwatch::start();
        let mut client = self.client();
        for group in 0..self.options.groups {
            // A key in the middle of each group's slots.
            let slot = (u64::from(group) * 2 + 1) * 8192 / u64::from(self.options.groups);
            let key = crate::slot::key_in(u16::try_from(slot).expect("less than 16384"));
            let left = timeout.saturating_sub(clock.elapsed());
            let set = client.execute(&key, &[b"SET", &key, b"1"], left);
            if !matches!(set, Ok(Reply::Status(_))) {
                return Err(LocalError::NoLeader(timeout.as_secs_f64()));
            }
            let _ = client.execute(&key, &[b"DEL", &key], left);
        }
        Ok(())
    }

    /// Waits until a new cluster serves and can do without any one of its nodes: a majority of the founders is enough to elect
    /// a leader, and whoever isn't whole by then counts as failed until the others have told it what it may have missed.
    ///
    /// # Errors
    /// [`LocalError::NoLeader`], [`LocalError::NotWhole`].
    pub fn wait_until_founded(&self, timeout: Duration) -> Result<(), LocalError> {
        let clock = Stopwatch::start();
        self.wait_for_leaders(timeout)?;
        for node in self.nodes.iter().filter(|node| !node.entry.joins) {
            let NodeEntry { id, host, port, cores, .. } = &node.entry;
            for core in 0..*cores {
                let address = format!("{host}:{}", port + core);
                loop {
                    let what = match replication_of(&address, timeout, &self.options.security) {
                        Ok(text) if text.contains("groups_repairing:0") => break,
                        Ok(text) => text,
                        Err(error) => error.to_string(),
                    };
                    if clock.elapsed() >= timeout {
                        return Err(LocalError::NotWhole { node: *id, seconds: timeout.as_secs_f64(), what });
                    }
                    pause(Duration::from_millis(2));
                }
            }
        }
        Ok(())
    }

    /// The process of a node that runs.
    pub fn pid(&self, id: u32) -> Option<u32> {
        self.nodes.iter().find(|node| node.entry.id == id)?.process.as_ref().map(Child::id)
    }

    /// User and system time of the running nodes so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let processes = self.nodes.iter().filter_map(|node| node.process.as_ref());
        processes.filter_map(|process| cpu_seconds_of(process.id())).sum()
    }
}

/// What a core says of its groups.
fn replication_of(address: &str, timeout: Duration, security: &Security) -> Result<String, ClientError> {
    match Connection::open_secured(address, timeout, security)?.execute(&[b"INFO", b"replication"])? {
        Reply::Bulk(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        other => Err(ClientError::Refused(other.to_string())),
    }
}

/// User and system time of a process so far, in seconds.
pub fn cpu_seconds_of(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    #[allow(clippy::cast_precision_loss, reason = "a small number of ticks")]
    Some(ticks / rustix::param::clock_ticks_per_second() as f64)
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for id in 1..=self.options.nodes.min(u32::try_from(self.nodes.len()).unwrap_or(0)) {
            self.kill(id);
        }
    }
}

fn entries(options: &LocalOptions) -> Result<Vec<NodeEntry>, LocalError> {
    let mut ports = Ports;
    let mut entries = Vec::new();
    for id in 1..=options.nodes {
        let port = match options.port {
            0 => ports.take(options.cores)?,
            first => first + u16::try_from(id - 1).unwrap_or(0) * options.cores,
        };
        let peer_port = ports.take(options.cores)?;
        let (host, joins) = ("127.0.0.1".to_owned(), id > options.nodes - options.spares);
        let (cores, priority) = (options.cores, usual_priority());
        entries.push(NodeEntry { id, host, port, peer_port, cores, priority, joins });
    }
    Ok(entries)
}

/// The usual place, where the ports are given and it is free; else any.
fn admin_address(options: &LocalOptions, entry: &NodeEntry) -> Result<String, LocalError> {
    let usual = entry.port.checked_add(20_000).filter(|_| options.port != 0);
    let usual = usual.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let port = match usual {
        Some(port) => port,
        None => Ports.take(1)?,
    };
    Ok(format!("127.0.0.1:{port}"))
}

/// Looks for ports that nobody listens on. No port is handed out twice by one process: a node that is down for a while
/// finds its own still free.
struct Ports;

/// How many ports were tried in this process.
static TRIED: AtomicU32 = AtomicU32::new(0);

impl Ports {
    fn take(&mut self, count: u16) -> Result<u16, LocalError> {
        for _ in 0..4000 {
            let tried = TRIED.fetch_add(u32::from(count), Ordering::Relaxed);
            // Below the range from which the system takes ports for outgoing connections.
            let first = 7100 + (std::process::id().wrapping_mul(997).wrapping_add(tried)) % 24_000;
            let first = u16::try_from(first).expect("less than 31 100");
            let free = (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
            if free {
                return Ok(first);
            }
        }
        let source = io::Error::other("no free ports between 7100 and 31100");
        Err(LocalError::Io { what: "can't find ports for a local cluster".to_owned(), source })
    }
}
