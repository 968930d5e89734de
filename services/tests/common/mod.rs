//! Real clusters and real programs for the tests: nodes as processes, synced logs, sockets.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as they do")]

pub(crate) mod cutter;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod mover;

use flotilla_services::client::{Connection, Reply};
use flotilla_services::hands::{Stopwatch, pause};
use flotilla_services::local::{LocalCluster, LocalOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// The longest that anything may take, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Two clusters that look for free ports at the same time would find the same ones.
static STARTING: Mutex<()> = Mutex::new(());

/// A cluster and its folder; both are gone when it is dropped.
pub(crate) struct TestCluster {
    pub(crate) nodes: LocalCluster,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_flotilla"))
}

pub(crate) fn start(change: impl FnOnce(&mut LocalOptions)) -> TestCluster {
    let folder = tempfile::tempdir().unwrap();
    let mut options = LocalOptions::new(program(), folder.path().to_path_buf());
    change(&mut options);
    let one_at_a_time = STARTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let nodes = LocalCluster::start(options).unwrap_or_else(|error| panic!("{error}"));
    drop(one_at_a_time);
    nodes.wait_until_founded(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
    TestCluster { nodes, folder }
}

/// Three nodes of two cores and four groups: every kind of redirection happens.
pub(crate) fn wide() -> TestCluster {
    start(|options| (options.cores, options.groups) = (2, 4))
}

/// One node: a plain client finds every key there.
pub(crate) fn lone() -> TestCluster {
    start(|options| options.nodes = 1)
}

impl TestCluster {
    pub(crate) fn connect(&self, node: u32) -> Connection {
        Connection::open(&self.nodes.address(node), PATIENCE).unwrap()
    }

    pub(crate) fn port(&self, node: u32) -> String {
        self.nodes.address(node).rsplit(':').next().unwrap().to_owned()
    }

    pub(crate) fn data(&self, node: u32) -> PathBuf {
        self.folder.path().join(format!("node-{node}"))
    }

    pub(crate) fn words(&self, node: u32) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("node-{node}.log"))).unwrap_or_default()
    }

    /// What a node says about itself.
    pub(crate) fn info(&self, node: u32) -> String {
        let Ok(mut connection) = Connection::open(&self.nodes.address(node), PATIENCE) else {
            return String::new();
        };
        match connection.execute(&[b"INFO", b"everything"]) {
            Ok(Reply::Bulk(bytes)) => text(&bytes),
            other => format!("{other:?}"),
        }
    }

    /// Sets a key through whoever leads it; acknowledged when this returns.
    pub(crate) fn set(&self, key: &str, value: &str) {
        let mut client = self.nodes.client();
        let reply = client.execute(key.as_bytes(), &[b"SET", key.as_bytes(), value.as_bytes()], PATIENCE);
        assert!(matches!(reply, Ok(Reply::Status(_))), "{reply:?}");
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let reply = self.nodes.client().execute(key.as_bytes(), &[b"GET", key.as_bytes()], PATIENCE).unwrap();
        match reply {
            Reply::Null => None,
            Reply::Bulk(bytes) => Some(String::from_utf8(bytes).unwrap()),
            other => panic!("GET {key}: {other}"),
        }
    }
}

/// Runs a program to its end, within the limit.
pub(crate) fn run(command: &mut Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let clock = Stopwatch::start();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(clock.elapsed() < 3 * PATIENCE, "{command:?} doesn't end");
        pause(Duration::from_millis(2));
    };
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn drain(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    flotilla_services::hands::spawn(move || {
        let mut bytes = Vec::new();
        from.expect("it is a pipe").read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// A client program, or `None` (said aloud) where it isn't installed and nobody insists.
pub(crate) fn client(name: &str) -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-clients/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(venv)
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|path| path.exists());
    if found.is_none() {
        let insisted = std::env::var_os("FLOTILLA_REQUIRE_CLIENTS").is_some();
        assert!(!insisted, "{name} is required: run services/tests/clients/setup.sh");
        eprintln!("skipped: {name} is not installed (services/tests/clients/setup.sh installs it)");
    }
    found
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The output of a program that must succeed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out
}
