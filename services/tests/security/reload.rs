//! Settings that change while a node runs: SIGHUP.

use super::authorities::Authority;
use super::common::{PATIENCE, TestCluster, start};
use super::http::{status, until};
use flotilla_services::client::{ClientTls, Connection, Security};
use flotilla_services::config::{Config, Demand, UserEntry};
use flotilla_services::hands::spawn;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn cover(ca: &Path) -> Security {
    Security { tls: Some(ClientTls::read(ca, None).unwrap()), ..Security::default() }
}

/// Tells a node to read its file again, and waits until it says what came of it.
fn reload(cluster: &TestCluster, node: u32, words: &str) -> String {
    let before = cluster.words(node).matches(words).count();
    cluster.nodes.hang_up(node);
    let log = until(|| cluster.words(node), |log| log.matches(words).count() > before);
    log.lines().rfind(|line| line.contains(words)).unwrap().to_owned()
}

#[test]
fn certificates_are_renewed_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(folder.path(), "old"), Authority::new(folder.path(), "new"));
    let ca = folder.path().join("ca.crt");
    fs::copy(&old.cert, &ca).unwrap();
    let settings = || {
        let mut settings = old.settings(Demand::Required, true);
        settings.ca.clone_from(&ca);
        settings
    };
    let files = settings();
    let mut cluster =
        start(|options| (options.tls, options.security) = (Some(files.clone()), cover(&old.cert)));

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (over, count) = (Arc::clone(&stop), Arc::clone(&done));
    let address = cluster.nodes.address(1);
    let mut loaded = Connection::open_secured(&address, PATIENCE, &cover(&old.cert)).unwrap();
    let load = spawn(move || {
        while !over.load(Ordering::Relaxed) {
            assert_eq!(loaded.execute(&[b"PING"]).unwrap().to_string(), "PONG");
            count.fetch_add(1, Ordering::Relaxed);
        }
    });

    // Both authorities first, then certificates of the new one: nodes that don't know it yet still know the old ones.
    let both = [fs::read(&old.cert).unwrap(), fs::read(&new.cert).unwrap()].concat();
    fs::write(&ca, both).unwrap();
    (1..=3).for_each(|node| drop(reload(&cluster, node, "settings reloaded")));
    new.certify("node", &["127.0.0.1", "localhost"]);
    for node in 1..=3 {
        reload(&cluster, node, "settings reloaded");
        let address = cluster.nodes.address(node);
        let mut trusting = Connection::open_secured(&address, PATIENCE, &cover(&new.cert)).unwrap();
        assert_eq!(trusting.execute(&[b"PING"]).unwrap().to_string(), "PONG");
        assert!(
            Connection::open_secured(&address, PATIENCE, &cover(&old.cert)).is_err(),
            "the old one is still shown"
        );
    }
    // A node that comes back has only the new one: the others believe it, and it them.
    cluster.nodes.kill(3);
    cluster.nodes.restart(3).unwrap();
    for node in 1..=3 {
        until(
            || status(&cluster, node),
            |it| it.ready && it.nodes.iter().all(|node| node.links_up == node.links),
        );
    }

    // A file that is none changes nothing.
    fs::write(&files.cert, "nonsense").unwrap();
    let line = reload(&cluster, 1, "settings weren't reloaded");
    assert!(line.contains("node.crt"), "{line}");
    Connection::open_secured(&cluster.nodes.address(1), PATIENCE, &cover(&new.cert)).unwrap();

    let so_far = done.load(Ordering::Relaxed);
    until(|| done.load(Ordering::Relaxed), |count| *count > so_far);
    stop.store(true, Ordering::Relaxed);
    load.join().unwrap();
}

#[test]
fn limits_users_and_the_log_change_while_a_node_runs() {
    let cluster = start(|options| (options.nodes, options.cores) = (1, 2));
    let path = cluster.nodes.config(1).to_owned();
    let change = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::read(&path).unwrap();
        change(&mut config);
        fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
    };
    let ask = |words: &[&[u8]]| match cluster.connect(1).execute(words) {
        Ok(reply) => reply.to_string(),
        Err(error) => error.to_string(),
    };
    let rules = flotilla_services::config::Rules::new("on nopass ~* +ping +get");
    let ann = UserEntry { name: "ann".to_owned(), password_sha256: None, rules };
    change(&|config| {
        (config.limits.connections_max, config.limits.value_bytes_max) = (7, 2048);
        config.users = vec![ann.clone()];
        config.log_level = Some("debug".to_owned());
    });
    let line = reload(&cluster, 1, "settings reloaded");
    assert!(line.contains("limits") && line.contains("users") && line.contains("log_level"), "{line}");
    for core in cluster.nodes.addresses() {
        let mut connection = Connection::open(&core, PATIENCE).unwrap();
        let said = until(
            || connection.execute(&[b"CONFIG", b"GET", b"maxclients"]).unwrap().to_string(),
            |said| said.contains("\"7\""),
        );
        assert!(said.contains("maxclients"), "{said}");
        assert_eq!(connection.execute(&[b"AUTH", b"ann", b"any"]).unwrap().to_string(), "OK");
    }
    assert!(ask(&[b"SET", b"key", &[b'x'; 5000]]).contains("invalid bulk length"));
    // One more than there may be.
    let mut many: Vec<_> = (0..7).map(|_| cluster.connect(1)).collect();
    many.iter_mut().for_each(|it| drop(it.execute(&[b"PING"]).unwrap()));
    let told = cluster.connect(1).execute(&[b"PING"]);
    assert!(!matches!(&told, Ok(reply) if reply.to_string() == "PONG"), "{told:?}");
    drop(many);

    // What needs a restart is named, and then nothing of the file is taken.
    change(&|config| (config.limits.connections_max, config.shards) = (9, 128));
    let line = reload(&cluster, 1, "settings weren't reloaded");
    assert!(line.contains("shards") && line.contains("restart"), "{line}");
    // Nor if it is no file at all.
    fs::write(&path, "cluster = \"local\"\nnonsense = 1\n").unwrap();
    let line = reload(&cluster, 1, "settings weren't reloaded");
    assert!(line.contains("line 2") && line.contains("nonsense"), "{line}");
    let said = until(|| ask(&[b"CONFIG", b"GET", b"maxclients"]), |said| said.contains("maxclients"));
    assert!(said.contains("\"7\""), "{said}");
}
