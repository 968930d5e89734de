//! TLS with clients.

use super::authorities::Authority;
use super::common::{PATIENCE, TestCluster, client, output, program, run, start, text};
use flotilla_services::client::{Client, ClientOptions, ClientTls, Connection, Security};
use flotilla_services::config::Demand;
use flotilla_services::hands::{Stopwatch, pause};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn cover(ca: &Path) -> Security {
    Security { tls: Some(ClientTls::read(ca, None).unwrap()), ..Security::default() }
}

fn with_tls(authority: &Authority, demand: Demand, nodes: u32) -> TestCluster {
    start(|options| {
        options.nodes = nodes;
        options.tls = Some(authority.settings(demand, false));
        options.security = cover(&authority.cert);
    })
}

/// Waits until a node's log says something.
pub(crate) fn wait_for_words(cluster: &TestCluster, node: u32, words: &str) -> String {
    let clock = Stopwatch::start();
    loop {
        let log = cluster.words(node);
        if let Some(line) = log.lines().find(|line| line.contains(words)) {
            return line.to_owned();
        }
        assert!(clock.elapsed() < PATIENCE, "node {node} never says {words:?}: {log}");
        pause(Duration::from_millis(5));
    }
}

#[test]
fn clients_that_people_use_speak_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "harbour");
    let cluster = with_tls(&authority, Demand::Required, 3);
    // A value of many records, and a pipeline.
    let mut connection =
        Connection::open_secured(&cluster.nodes.address(1), PATIENCE, &cover(&authority.cert)).unwrap();
    let ping: &[&[u8]] = &[b"PING"];
    connection.send(std::iter::repeat_n(ping, 1000)).unwrap();
    (0..1000).for_each(|_| assert_eq!(connection.receive().unwrap().to_string(), "PONG"));
    let big = vec![b'x'; 3 << 20];
    let mut whole = cluster.nodes.client();
    whole.execute(b"big", &[b"SET", b"big", &big], PATIENCE).unwrap();
    let back = whole.execute(b"big", &[b"GET", b"big"], PATIENCE).unwrap();
    assert!(matches!(back, flotilla_services::client::Reply::Bulk(bytes) if bytes == big));

    futures_lite::future::block_on(async {
        let addresses = cluster.nodes.addresses();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let options = ClientOptions { timeout: PATIENCE, ..ClientOptions::default() };
        let native = Client::connect_secured(&addresses, options, cover(&authority.cert)).await.unwrap();
        native.set(b"native", b"client").await.unwrap();
        assert_eq!(native.get(b"native").await.unwrap(), Some(b"client".to_vec()));
    });

    let mut exec = Command::new(program());
    exec.args(["exec", "--addr", &cluster.nodes.address(2), "--tls-ca"])
        .arg(&authority.cert)
        .args(["GET", "native"]);
    assert_eq!(output(&mut exec), "\"client\"\n");
    let mut plain = Command::new(program());
    let told = run(plain.args(["exec", "--addr", &cluster.nodes.address(2), "PING"]));
    assert!(text(&told.stderr).contains("speaks TLS only"), "{}", text(&told.stderr));

    for (words, dir) in [(&["backup"][..], "backup"), (&["restore", "--existing", "replace"], "backup")] {
        let tool = || {
            let mut command = Command::new(program());
            command.args(words).args(["--nodes", &cluster.nodes.address(2)]).arg(folder.path().join(dir));
            command
        };
        let told = run(&mut tool());
        assert!(told.status.code() == Some(1) && text(&told.stderr).contains("speaks TLS only"), "{told:?}");
        output(tool().arg("--tls-ca").arg(&authority.cert));
    }
    let back = whole.execute(b"big", &[b"GET", b"big"], PATIENCE).unwrap();
    assert!(matches!(back, flotilla_services::client::Reply::Bulk(bytes) if bytes == big));

    if let Some(redis_cli) = client("redis-cli") {
        let cli = |args: &[&str]| {
            let mut command = Command::new(&redis_cli);
            command.args(["-c", "-p", &cluster.port(3), "--tls", "--cacert"]).arg(&authority.cert).args(args);
            output(&mut command)
        };
        assert_eq!(cli(&["set", "greeting", "ahoy"]), "OK\n");
        assert_eq!(cli(&["get", "greeting"]), "ahoy\n");
    }
    if let Some(python) = client("python").filter(|path| path.to_string_lossy().contains("test-clients")) {
        let script = format!(
            "import redis\n\
             r = redis.RedisCluster(host='127.0.0.1', port={}, ssl=True, ssl_ca_certs={:?})\n\
             assert r.set('py', 'x' * 100000) and len(r.get('py')) == 100000\n",
            cluster.port(1),
            authority.cert,
        );
        output(Command::new(python).args(["-c", &script]));
    }
}

/// Whoever fails to shake hands is told of once in the log, and disturbs nobody.
#[test]
fn bad_handshakes_disturb_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) =
        (Authority::new(folder.path(), "harbour"), Authority::new(folder.path(), "stranger"));
    let cluster = with_tls(&authority, Demand::Optional, 1);
    let address = cluster.nodes.address(1);
    let mut served = Connection::open_secured(&address, PATIENCE, &cover(&authority.cert)).unwrap();
    // On the same port, with and without.
    let mut plain = Connection::open(&address, PATIENCE).unwrap();
    assert_eq!(plain.execute(&[b"SET", b"k", b"v"]).unwrap().to_string(), "OK");
    assert_eq!(served.execute(&[b"GET", b"k"]).unwrap().to_string(), "\"v\"");
    let refused =
        Connection::open_secured(&address, PATIENCE, &cover(&stranger.cert)).unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");
    let line = wait_for_words(&cluster, 1, "no TLS connection");
    assert!(line.contains("127.0.0.1:") && line.contains("nknown"), "{line}");
    for junk in [&b"\x16\x03\x01\x00\x05junk!"[..], b"\x16", &[0x16; 5000]] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(junk).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // It ends, whatever it says before.
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(served.execute(&[b"PING"]).unwrap().to_string(), "PONG");
    }
    // One that begins and goes silent holds nobody up.
    let mut silent = TcpStream::connect(&address).unwrap();
    silent.write_all(b"\x16\x03\x01\x02").unwrap();
    assert_eq!(served.execute(&[b"PING"]).unwrap().to_string(), "PONG");
    assert_eq!(plain.execute(&[b"PING"]).unwrap().to_string(), "PONG");
    assert!(cluster.words(1).matches("no TLS connection").count() <= 5, "{}", cluster.words(1));
}

#[test]
fn clients_show_certificates_where_they_must() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, stranger) =
        (Authority::new(folder.path(), "harbour"), Authority::new(folder.path(), "stranger"));
    let shown = |by: &Authority, name: &str| {
        let (cert, key) = by.certify(name, &["client"]);
        Security {
            tls: Some(ClientTls::read(&authority.cert, Some((&cert, &key))).unwrap()),
            ..Security::default()
        }
    };
    let own = shown(&authority, "client");
    let cluster = start(|options| {
        options.nodes = 1;
        let mut settings = authority.settings(Demand::Required, false);
        settings.client_certificates = Demand::Required;
        (options.tls, options.security) = (Some(settings), own.clone());
    });
    let ping = |security: &Security| {
        Connection::open_secured(&cluster.nodes.address(1), PATIENCE, security)?.execute(&[b"PING"])
    };
    assert_eq!(ping(&own).unwrap().to_string(), "PONG");
    assert!(ping(&cover(&authority.cert)).is_err(), "one without a certificate was served");
    assert!(ping(&shown(&stranger, "other")).is_err(), "one with a stranger's certificate was served");
    let line = wait_for_words(&cluster, 1, "no TLS connection");
    assert!(line.contains("peer sent no certificates") || line.contains("UnknownIssuer"), "{line}");
}
