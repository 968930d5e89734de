//! What a node says to bytes, commands, configurations and folders that make no sense.

use crate::common::{PATIENCE, TestCluster, lone, program, run, text};
use flotilla_services::hands::Stopwatch;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

/// Sends bytes and reads until the answer is there; then whether the node closed the connection.
fn say(cluster: &TestCluster, bytes: &[u8], expected: &str) {
    let mut stream = TcpStream::connect(cluster.nodes.address(1)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = vec![0; expected.len()];
    let read = stream.read_exact(&mut answer);
    assert!(
        read.is_ok() && answer == expected.as_bytes(),
        "{}: {}",
        bytes.escape_ascii(),
        answer.escape_ascii()
    );
    if expected.starts_with("-ERR Protocol error") {
        assert_eq!(
            stream.read(&mut [0; 16]).unwrap_or(0),
            0,
            "after a protocol error the connection is closed"
        );
    } else {
        stream.write_all(b"PING\r\n").unwrap();
        let mut pong = [0; 7];
        stream.read_exact(&mut pong).unwrap();
        assert_eq!(&pong, b"+PONG\r\n", "after any other error it goes on");
    }
}

#[test]
fn replies_byte_for_byte() {
    let cluster = lone();
    let say = |bytes: &str, expected: &str| say(&cluster, bytes.as_bytes(), expected);
    say("PING\r\n", "+PONG\r\n");
    say("*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n", "$2\r\nhi\r\n");
    say("SET k v\r\nGET k\r\nGET none\r\nSTRLEN k\r\n", "+OK\r\n$1\r\nv\r\n$-1\r\n:1\r\n");
    say("MGET k {k}none\r\n", "*2\r\n$1\r\nv\r\n$-1\r\n");
    say("TYPE k\r\nDEL k {k}none\r\nEXISTS k\r\n", "+string\r\n:1\r\n:0\r\n");
    say(
        "SET n 41\r\nINCR n\r\nDECRBY n 2\r\nAPPEND n x\r\nINCR n\r\n",
        "+OK\r\n:42\r\n:40\r\n:3\r\n-ERR value is not an integer or out of range\r\n",
    );
    say("SET k v XX GET\r\nSET k v NX\r\nSET k w NX GET\r\n", "$-1\r\n+OK\r\n$1\r\nv\r\n");
    // Errors of a command: the connection goes on.
    say("FOO a b\r\n", "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' \r\n");
    say("GET\r\n", "-ERR wrong number of arguments for 'get' command\r\n");
    say("SET k v EX 0\r\n", "-ERR invalid expire time in 'set' command\r\n");
    say("SET k v EX abc\r\n", "-ERR value is not an integer or out of range\r\n");
    say("SET k v NX XX\r\n", "-ERR syntax error\r\n");
    say("INCRBY k 99999999999999999999\r\n", "-ERR value is not an integer or out of range\r\n");
    say("CLUSTER NONSENSE\r\n", "-ERR unknown subcommand 'NONSENSE'. Try CLUSTER HELP.\r\n");
    // Errors of the protocol: it is closed.
    say("*1\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'\r\n");
    say("*1\r\n$x\r\n", "-ERR Protocol error: invalid bulk length\r\n");
    say("*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n");
    say("*1\r\n$1000000000\r\n", "-ERR Protocol error: invalid bulk length\r\n");
    say("GET \"k\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n");
    let long = format!("{}\r\n", "x".repeat(70_000));
    say(&long, "-ERR Protocol error: too big inline request\r\n");
}

#[test]
fn a_long_command_may_come_byte_by_byte() {
    let cluster = lone();
    let mut stream = TcpStream::connect(cluster.nodes.address(1)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = b"*30001\r\n$3\r\nDEL\r\n".to_vec();
    (0..30_000).for_each(|_| command.extend_from_slice(b"$1\r\na\r\n"));
    // Two of them, and what follows is found where it begins.
    for _ in 0..2 {
        let (most, last) = command.split_at(command.len() - 40);
        stream.write_all(most).unwrap();
        last.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
        stream.write_all(b"PING\r\n").unwrap();
        let mut said = [0; 11];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b":0\r\n+PONG\r\n");
    }
}

#[test]
fn a_client_that_never_reads_is_cut_off_and_disturbs_nobody() {
    let cluster = lone();
    cluster.set("big", &"x".repeat(1 << 20));
    let mut greedy = TcpStream::connect(cluster.nodes.address(1)).unwrap();
    greedy.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut other = cluster.connect(1);
    let clock = Stopwatch::start();
    // It asks for far more than it may leave unread.
    let asks = b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n".repeat(400);
    let mut slowest = std::time::Duration::ZERO;
    while greedy.write_all(&asks).is_ok() {
        assert!(clock.elapsed() < PATIENCE, "it is never cut off");
        let asked = Stopwatch::start();
        assert!(other.execute(&[b"GET", b"none"]).is_ok());
        slowest = slowest.max(asked.elapsed());
    }
    let used = memory_bytes(&cluster);
    assert!(used < 600 << 20, "the node uses {used} bytes");
    assert!(slowest < std::time::Duration::from_secs(5), "another client waited for {slowest:?}");
    assert!(other.execute(&[b"PING"]).is_ok());
}

/// The resident memory of the cluster's only node.
fn memory_bytes(cluster: &TestCluster) -> u64 {
    let config = cluster.nodes.config(1).to_str().unwrap().to_owned();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let of_node = |path: &std::path::PathBuf| {
        std::fs::read(path.join("cmdline")).is_ok_and(|line| text(&line).contains(&config))
    };
    let status =
        std::fs::read_to_string(processes.into_iter().find(of_node).unwrap().join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Starts a node with a configuration; its exit status and the last line it wrote.
fn refusal(config: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    std::fs::write(&path, config.replace("$DIR", folder.path().to_str().unwrap())).unwrap();
    let output = run(Command::new(program()).args(["serve", "--die-with-parent", "--config"]).arg(&path));
    let words = text(&output.stderr).replace(folder.path().to_str().unwrap(), "$DIR");
    (output.status.code().unwrap_or(-1), words.lines().last().unwrap_or_default().to_owned())
}

const GOOD: &str = "cluster = \"c\"\nnode = 1\ndata = \"$DIR/data\"\n[[nodes]]\nid = 1\nhost = \"127.0.0.1\"\nport = 0\npeer_port = 0\n";

#[test]
fn configurations_are_refused_in_one_line_with_status_2() {
    let good = GOOD.replacen("port = 0", "port = 6001", 1).replace("peer_port = 0", "peer_port = 16001");
    for (config, parts) in [
        (
            good.replace("node = 1", "nodee = 1"),
            ["$DIR/node.toml, line 2", "there is no key `nodee`: did you mean `node`?"],
        ),
        (good.replace("node = 1", "node = 7"), ["node = 7", "isn't the id of any"]),
        (good.replace("port = 6001", "port = 99999"), ["$DIR/node.toml, line", "99999"]),
        (good.replace("127.0.0.1", ""), ["$DIR/node.toml", "host"]),
        (format!("{good}\n[[nodes]\n"), ["$DIR/node.toml, line", "expected"]),
    ] {
        let (status, line) = refusal(&config);
        assert!(status == 2 && parts.iter().all(|part| line.contains(part)), "status {status}: {line}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    std::fs::write(&path, good.replace("$DIR", folder.path().to_str().unwrap())).unwrap();
    let mut serve = Command::new(program());
    serve.args(["serve", "--die-with-parent", "--config"]).arg(&path);
    let told = run(serve.env("FLOTILLA_LOG_SYNK", "dsync"));
    let words = "flotilla: the environment's FLOTILLA_LOG_SYNK: there is no such setting: did you mean `FLOTILLA_LOG_SYNC`?\n";
    assert_eq!((told.status.code(), text(&told.stderr).as_str()), (Some(2), words));
    let told = run(serve.env_remove("FLOTILLA_LOG_SYNK").args(["--set", "groups=many"]));
    let words = "flotilla: --set groups: \"many\" isn't a whole number\n";
    assert_eq!((told.status.code(), text(&told.stderr).as_str()), (Some(2), words));
    let missing = run(Command::new(program()).args(["serve", "--config", "/no/such/file.toml"]));
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("/no/such/file.toml"), "{}", text(&missing.stderr));
    assert_eq!(run(Command::new(program()).arg("--nonsense")).status.code(), Some(2));
}

#[test]
fn ports_and_folders_that_are_taken_are_refused_in_one_line_with_status_1() {
    let cluster = lone();
    let config = std::fs::read_to_string(cluster.nodes.config(1)).unwrap();
    let serve = |text: &str| refusal(text);
    let (status, line) = serve(&config);
    assert!(status == 1 && line.contains("is in use by a running node"), "{status}: {line}");

    let elsewhere = config.replace(cluster.data(1).to_str().unwrap(), "$DIR/data");
    let (status, line) = serve(&elsewhere);
    assert!(
        status == 1 && line.contains(&format!("can't listen on {}", cluster.nodes.address(1))),
        "{status}: {line}"
    );

    drop(cluster);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    std::fs::write(&path, elsewhere.replace("$DIR", folder.path().to_str().unwrap())).unwrap();
    let mut short = Command::new("sh");
    short.args(["-c", "ulimit -n 12; exec \"$0\" serve --die-with-parent --config \"$1\""]);
    let told = run(short.arg(program()).arg(&path));
    let line = text(&told.stderr).lines().last().unwrap_or_default().to_owned();
    assert_eq!(told.status.code(), Some(1), "{line}");
    assert!(line.contains("the limit of open files is 12") && line.contains("needs 200"), "{line}");

    let foreign = elsewhere.replace("host = \"127.0.0.1\"", "host = \"192.0.2.1\"");
    let (status, line) = serve(&foreign);
    assert!(status == 1 && line.contains("none of this machine's addresses"), "{status}: {line}");

    let unwritable = elsewhere.replace("$DIR/data", "/proc/flotilla");
    let (status, line) = serve(&unwritable);
    assert!(status == 1 && line.contains("can't create the data folder /proc/flotilla"), "{status}: {line}");
}

#[test]
fn the_folder_of_another_cluster_or_node_is_refused() {
    let mut cluster = crate::common::start(|options| options.nodes = 1);
    cluster.nodes.kill(1);
    let path = cluster.nodes.config(1).to_path_buf();
    let config = std::fs::read_to_string(&path).unwrap();
    for (from, to, words) in [
        ("cluster = \"local\"", "cluster = \"other\"", "was created with cluster = local"),
        ("groups = 1", "groups = 2", "was created with groups = 1, and the configuration says 2"),
    ] {
        assert!(config.contains(from), "{config}");
        let (status, line) = refusal(&config.replace(from, to));
        assert!(status == 1 && line.contains(words), "{status}: {line}");
    }
}
