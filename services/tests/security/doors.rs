//! Protected mode, and certificates that can't be used.

use super::authorities::Authority;
use super::common::{PATIENCE, program, text};
use flotilla_services::acl::PasswordHash;
use flotilla_services::client::{Connection, Reply};
use flotilla_services::hands::{Stopwatch, pause};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An address of this machine that isn't its loopback interface's, if it has one.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: the system only says from where it would.
    socket.connect("192.0.2.255:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

fn config(folder: &Path, host: &str, top: &str) -> (PathBuf, u16) {
    let ports = [0, 0].map(|_| TcpListener::bind((host, 0)).unwrap());
    let [port, peer_port] = ports.each_ref().map(|it| it.local_addr().unwrap().port());
    drop(ports);
    let data = folder.join("data");
    let text = format!(
        "cluster = \"doors\"\nnode = 1\ndata = {data:?}\nadmin.listen = \"off\"\n{top}\n[[nodes]]\nid = 1\nhost = \"{host}\"\nport = {port}\npeer_port = {peer_port}\n"
    );
    let path = folder.join("node.toml");
    std::fs::write(&path, text).unwrap();
    (path, port)
}

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(config: &Path) -> Node {
    let mut command = Command::new(program());
    command.args(["serve", "--die-with-parent", "--config"]).arg(config);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready"), "{line}");
    Node(child)
}

fn first_words(host: &str, port: u16) -> String {
    let mut connection = Connection::open(&format!("{host}:{port}"), PATIENCE).unwrap();
    match connection.execute(&[b"PING"]).unwrap() {
        Reply::Error(error) => {
            // Closed behind it.
            assert!(!error.starts_with("DENIED") || connection.receive().is_err());
            error
        }
        reply => reply.to_string(),
    }
}

#[test]
fn without_a_password_nobody_is_served_from_elsewhere() {
    let Some(host) = outer_address().map(|address| address.to_string()) else {
        eprintln!("skipped: this machine has no address but the loopback interface's");
        return;
    };
    let hash = PasswordHash::of(b"open sesame").hex();
    for (top, words) in [
        ("", "DENIED Flotilla is running in protected mode"),
        ("protected_mode = false", "PONG"),
        (&*format!("requirepass_sha256 = \"{hash}\""), "NOAUTH Authentication required."),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (path, port) = config(folder.path(), &host, top);
        let _node = serve(&path);
        let said = first_words(&host, port);
        assert!(said.starts_with(words), "{top}: {said}");
    }
    // Whoever is on this machine is served.
    let folder = tempfile::tempdir().unwrap();
    let (path, port) = config(folder.path(), "0.0.0.0", "");
    let _node = serve(&path);
    assert_eq!(first_words("127.0.0.1", port), "PONG");
    assert!(first_words(&host, port).starts_with("DENIED"));
    // Until there is a password.
    let mut local = Connection::open(&format!("127.0.0.1:{port}"), PATIENCE).unwrap();
    let set = local.execute(&[b"ACL", b"SETUSER", b"default", b"resetpass", b">now"]).unwrap();
    assert_eq!(set.to_string(), "OK");
    assert_eq!(first_words(&host, port), "NOAUTH Authentication required.");
}

#[test]
fn bad_certificates_end_the_start_with_one_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let one = Authority::new(folder.path(), "one");
    let (cert, key) = one.certify("node", &["127.0.0.1"]);
    let (_, other_key) = one.certify("other", &["127.0.0.1"]);
    let junk = folder.path().join("junk.pem");
    std::fs::write(&junk, "junk").unwrap();
    let missing = folder.path().join("missing.pem");
    for (cert, key, ca, words) in [
        (&missing, &key, &one.cert, "can't read the certificate in"),
        (&cert, &missing, &one.cert, "can't read the private key in"),
        (&cert, &junk, &one.cert, "there is no private key in"),
        (&cert, &key, &junk, "there is no authority's certificate in"),
        (&cert, &other_key, &one.cert, "they must belong together"),
    ] {
        let top = format!(
            "[tls]\ncert = {cert:?}\nkey = {key:?}\nca = {ca:?}\nclients = \"required\"\npeers = true"
        );
        let (path, _) = config(folder.path(), "127.0.0.1", &top);
        let mut child = Command::new(program())
            .args(["serve", "--config"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let clock = Stopwatch::start();
        while child.try_wait().unwrap().is_none() {
            assert!(clock.elapsed() < PATIENCE, "it goes on with {words}");
            pause(std::time::Duration::from_millis(5));
        }
        let told = child.wait_with_output().unwrap();
        let said = text(&told.stderr);
        assert_eq!(told.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains("node.toml") && said.lines().count() == 1, "{said}");
    }
}
