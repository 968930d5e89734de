//! Users, passwords and rights.

use super::common::{PATIENCE, TestCluster, client, output, program, start, text};
use flotilla_services::acl::{PasswordHash, Secret};
use flotilla_services::client::{Client, ClientError, ClientOptions, Connection, Reply, Security};
use flotilla_services::config::{Redirect, Rules, UserEntry};
use flotilla_services::local::LocalOptions;
use std::process::Command;

const ROOT: &str = "a password for whoever may do everything";
const ANN: &str = "anns own password";

fn login(user: Option<&str>, password: &str) -> Security {
    let (user, password) = (user.map(str::to_owned), Some(Secret::new(password)));
    Security { user, password, tls: None }
}

fn guarded(options: &mut LocalOptions) {
    options.requirepass_sha256 = Some(PasswordHash::of(ROOT.as_bytes()));
    options.users = vec![UserEntry {
        name: "ann".to_owned(),
        password_sha256: Some(PasswordHash::of(ANN.as_bytes())),
        rules: Rules::new(
            "on ~ann:* %R~shared:* +@read +@write +@connection +@transaction -@dangerous +cluster|slots +cluster|info",
        ),
    }];
    options.security = login(None, ROOT);
}

fn connect(cluster: &TestCluster, node: u32, security: &Security) -> Connection {
    Connection::open_secured(&cluster.nodes.address(node), PATIENCE, security).unwrap()
}

fn said(connection: &mut Connection, line: &str) -> String {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    match connection.execute(&args).unwrap() {
        Reply::Error(error) => error,
        reply => reply.to_string(),
    }
}

#[test]
fn nobody_gets_in_without_a_word_and_everybody_gets_what_is_his() {
    let cluster = start(|options| {
        options.nodes = 1;
        guarded(options);
    });
    let mut nobody = Connection::open(&cluster.nodes.address(1), PATIENCE).unwrap();
    assert_eq!(said(&mut nobody, "GET ann:1"), "NOAUTH Authentication required.");
    assert_eq!(said(&mut nobody, "PING"), "NOAUTH Authentication required.");
    assert!(said(&mut nobody, "HELLO 3").starts_with("NOAUTH HELLO must be called"));
    assert!(said(&mut nobody, "AUTH wrong").starts_with("WRONGPASS invalid username-password pair"));
    assert!(said(&mut nobody, "AUTH ann wrong").starts_with("WRONGPASS"));
    assert!(said(&mut nobody, "AUTH ghost wrong").starts_with("WRONGPASS"));
    assert!(said(&mut nobody, "HELLO 2 AUTH ann wrong").starts_with("WRONGPASS"));
    assert_eq!(said(&mut nobody, "AUTH a b c"), "ERR syntax error");
    assert_eq!(said(&mut nobody, "RESET"), "RESET");
    let mut long = Connection::open(&cluster.nodes.address(1), PATIENCE).unwrap();
    assert_eq!(
        said(&mut long, "MGET a b c d e f g h i j k"),
        "ERR Protocol error: unauthenticated multibulk length"
    );
    let mut wide = Connection::open(&cluster.nodes.address(1), PATIENCE).unwrap();
    assert_eq!(
        said(&mut wide, &format!("SET k {}", "x".repeat(20_000))),
        "ERR Protocol error: unauthenticated bulk length"
    );

    let mut ann = connect(&cluster, 1, &login(Some("ann"), ANN));
    assert_eq!(said(&mut ann, "SET ann:1 v"), "OK");
    assert_eq!(said(&mut ann, "MGET ann:1"), r#"1) "v""#);
    let of_keys = "NOPERM this user has no permissions to access one of the keys used as arguments";
    assert_eq!(said(&mut ann, "SET other v"), of_keys);
    assert_eq!(said(&mut ann, "SET shared:1 v"), of_keys);
    assert_eq!(said(&mut ann, "GET shared:1"), Reply::Null.to_string());
    assert_eq!(said(&mut ann, "KEYS *"), "NOPERM this user has no permissions to run the 'keys' command");
    assert_eq!(
        said(&mut ann, "CLIENT LIST"),
        "NOPERM this user has no permissions to run the 'client|list' command"
    );
    assert_eq!(
        said(&mut ann, "ACL WHOAMI"),
        "NOPERM this user has no permissions to run the 'acl|whoami' command"
    );
    // What is wrong with a command is said only to who may execute it.
    assert_eq!(said(&mut ann, "SET other v NONSENSE"), of_keys);
    assert_eq!(said(&mut ann, "FLOTILLA.ONCE 1 1 0 SET other v"), of_keys);
    assert_eq!(said(&mut ann, "MULTI"), "OK");
    assert_eq!(said(&mut ann, "SET ann:1 w"), "QUEUED");
    assert_eq!(said(&mut ann, "SET other w"), of_keys);
    assert!(said(&mut ann, "EXEC").starts_with("EXECABORT"));
    assert_eq!(said(&mut ann, "GET ann:1"), r#""v""#);

    // Rights that are taken away between MULTI and EXEC are gone.
    let mut root = connect(&cluster, 1, &login(None, ROOT));
    said(&mut ann, "MULTI");
    said(&mut ann, "SET ann:1 w");
    said(&mut ann, "GET ann:1");
    assert_eq!(said(&mut root, "ACL SETUSER ann -set"), "OK");
    let told = said(&mut ann, "EXEC");
    assert!(told.contains("NOPERM ACLs rules changed") && told.contains(r#""v""#), "{told}");
    let log = said(&mut root, "ACL LOG 1");
    assert!(log.contains("multi") && log.contains("set") && log.contains("ann"), "{log}");

    assert_eq!(said(&mut root, "ACL WHOAMI"), r#""default""#);
    assert_eq!(said(&mut root, "AUTH ann wrong").split(' ').next(), Some("WRONGPASS"));
    assert_eq!(said(&mut root, "ACL WHOAMI"), r#""default""#);
    assert!(said(&mut root, "ACL DRYRUN ann SET other v").contains("has no permissions to run the"));
    assert!(said(&mut root, "ACL DRYRUN ann GET other").contains("has no permissions to access the"));
    assert!(said(&mut root, "ACL SAVE").contains("users are listed in the node's TOML file"));
    assert!(said(&mut root, "CLIENT LIST").contains("user=ann"));
    // Nothing shows a password, nor its hash to who asks for settings; nor does the log.
    said(&mut root, "ACL SETUSER bob on >geheim-eins +@nonsense");
    said(&mut root, "ACL SETUSER bob on >geheim-zwei");
    said(&mut root, "AUTH bob geheim-drei");
    said(&mut root, "AUHT geheim-vier");
    let shown = said(&mut root, "CONFIG GET *") + &said(&mut root, "INFO") + &said(&mut root, "CLIENT LIST");
    let shown = shown + &said(&mut root, "ACL LOG") + &said(&mut root, "ACL LIST") + &cluster.words(1);
    for secret in [ROOT, ANN, "geheim"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let settings = said(&mut root, "CONFIG GET *");
    assert!(!settings.contains(&PasswordHash::of(ROOT.as_bytes()).hex()[..8]), "{settings}");
}

#[test]
fn redis_cli_and_the_programs_own_tools_log_in() {
    let cluster = start(|options| {
        options.nodes = 1;
        guarded(options);
    });
    let exec = |user: Option<&str>, password: &str, words: &[&str]| {
        let mut command = Command::new(program());
        command.args(["exec", "--addr", &cluster.nodes.address(1)]).env("FLOTILLA_PASSWORD", password);
        user.iter().for_each(|user| {
            command.args(["--user", user]);
        });
        super::common::run(command.args(words))
    };
    let told = exec(Some("ann"), ANN, &["SET", "ann:1", "v"]);
    assert_eq!((told.status.code(), &*text(&told.stdout)), (Some(0), "OK\n"), "{}", text(&told.stderr));
    let told = exec(None, "wrong", &["PING"]);
    assert!(
        told.status.code() == Some(1) && text(&told.stderr).contains("WRONGPASS"),
        "{}",
        text(&told.stderr)
    );
    let told = exec(Some("ann"), ANN, &["SET", "other", "v"]);
    assert!(told.status.code() == Some(1) && text(&told.stderr).contains("NOPERM"), "{}", text(&told.stderr));
    let secret = cluster.folder.path().join("secret");
    std::fs::write(&secret, format!("{ROOT}\n")).unwrap();
    let mut command = Command::new(program());
    command
        .args(["exec", "--addr", &cluster.nodes.address(1), "--password-file"])
        .arg(&secret)
        .args(["DBSIZE"]);
    assert_eq!(output(&mut command), "(integer) 1\n");

    let Some(redis_cli) = client("redis-cli") else { return };
    let cli = |args: &[&str]| {
        output(Command::new(&redis_cli).args(["--no-auth-warning", "-p", &cluster.port(1)]).args(args))
    };
    assert_eq!(cli(&["--user", "ann", "--pass", ANN, "get", "ann:1"]), "v\n");
    assert_eq!(cli(&["--pass", ROOT, "acl", "whoami"]), "default\n");
    assert!(cli(&["ping"]).starts_with("NOAUTH Authentication required."));
    assert!(cli(&["--user", "ann", "--pass", ANN, "get", "other"]).starts_with("NOPERM"));
    assert!(cli(&["-3", "--pass", ROOT, "acl", "getuser", "ann"]).contains("~ann:* %R~shared:*"));
}

#[test]
fn redis_py_logs_in() {
    let Some(python) = client("python").filter(|path| path.to_string_lossy().contains("test-clients")) else {
        return;
    };
    let cluster = start(guarded);
    let script = format!(
        "import redis\n\
         r = redis.RedisCluster(host='127.0.0.1', port={port}, username='ann', password='{ANN}', protocol=3)\n\
         assert r.set('ann:1', 'x') and r.get('ann:1') == b'x'\n\
         try:\n    r.get('other'); raise SystemExit('it may')\n\
         except redis.exceptions.NoPermissionError: pass\n\
         try:\n    redis.Redis(port={port}, username='ann', password='wrong').ping(); raise SystemExit('it may')\n\
         except redis.exceptions.AuthenticationError: pass\n",
        port = cluster.port(1),
    );
    output(Command::new(python).args(["-c", &script]));
}

#[test]
fn the_native_client_logs_in_with_few_rights() {
    let cluster = start(guarded);
    let addresses = cluster.nodes.addresses();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let options = ClientOptions { timeout: PATIENCE, ..ClientOptions::default() };
    futures_lite::future::block_on(async {
        let ann = Client::connect_secured(&addresses, options, login(Some("ann"), ANN)).await.unwrap();
        assert_eq!(ann.increment(b"ann:counter", 2).await.unwrap(), 2);
        assert_eq!(ann.get(b"ann:counter").await.unwrap(), Some(b"2".to_vec()));
        let refused = ann.set(b"other", b"v").await;
        assert!(
            matches!(&refused, Err(ClientError::Refused(error)) if error.starts_with("NOPERM")),
            "{refused:?}"
        );
        let wrong = Client::connect_secured(&addresses, options, login(Some("ann"), "wrong")).await;
        assert!(
            matches!(&wrong, Err(ClientError::Refused(error)) if error.contains("WRONGPASS")),
            "{wrong:?}"
        );
    });
}

/// Users that change reach every core of the node before whoever asked is answered; no other node.
#[test]
fn changes_concern_every_core_of_the_node() {
    let cluster = start(|options| {
        (options.nodes, options.cores, options.groups, options.redirect) = (3, 2, 4, Redirect::Forward);
        guarded(options);
    });
    let port: u16 = cluster.port(1).parse().unwrap();
    let at = |core: u16, security: &Security| {
        Connection::open_secured(&format!("127.0.0.1:{}", port + core), PATIENCE, security)
    };
    let root = login(None, ROOT);
    let mut other_core = at(1, &root).unwrap();
    assert_eq!(said(&mut other_core, "ACL SETUSER bob on >hush ~bob:* +@all -@dangerous"), "OK");
    let bob = login(Some("bob"), "hush");
    let (mut here, mut there) = (at(0, &bob).unwrap(), at(1, &bob).unwrap());
    // Wherever a key is led, whether here, on the other core or on another node that doesn't know him.
    for number in 0..16 {
        let (key, forbidden) = (format!("bob:{number}"), format!("key:{number}"));
        assert_eq!(said(&mut here, &format!("SET {key} {number}")), "OK");
        assert_eq!(said(&mut there, &format!("GET {key}")), format!("\"{number}\""));
        assert!(said(&mut here, &format!("SET {forbidden} v")).starts_with("NOPERM"));
        assert!(said(&mut there, &format!("GET {forbidden}")).starts_with("NOPERM"));
    }
    let elsewhere = Connection::open_secured(&cluster.nodes.address(2), PATIENCE, &bob);
    assert!(
        matches!(&elsewhere, Err(ClientError::Refused(error)) if error.contains("WRONGPASS")),
        "{elsewhere:?}"
    );
    // Nothing is taken from who is gone.
    assert_eq!(said(&mut other_core, "ACL DELUSER bob ghost"), "(integer) 1");
    for connection in [&mut here, &mut there] {
        assert!(connection.execute(&[b"PING"]).is_err());
    }
    assert_eq!(said(&mut other_core, "ACL DELUSER default"), "ERR The 'default' user cannot be removed");
    assert!(said(&mut other_core, "ACL SETUSER x +nonsense").contains("Unknown command or category"));
    assert!(said(&mut other_core, "ACL SETUSER x on >secret &").contains("OK"));
    // Who deletes itself is told, and closed.
    said(&mut other_core, "ACL SETUSER self on >me +acl");
    let mut own = at(1, &login(Some("self"), "me")).unwrap();
    assert_eq!(said(&mut own, "ACL DELUSER self"), "(integer) 1");
    assert!(own.execute(&[b"PING"]).is_err());
}
