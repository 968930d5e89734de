//! `flotilla dev`, as somebody at a terminal sees it.

use crate::common::{PATIENCE, output, program};
use flotilla_services::hands::spawn;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// The next line that says so.
fn line_with(lines: &Receiver<String>, words: &str) -> String {
    loop {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("nobody says {words:?}"));
        if line.contains(words) {
            return line;
        }
    }
}

#[test]
fn shards_that_move_are_told() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut command = Command::new(program());
    command.args(["dev", "--nodes", "1", "--spare-groups", "1", "--port", &port]);
    let mut dev = command.stdout(Stdio::piped()).spawn().unwrap();
    let (tell, lines) = channel();
    let from = BufReader::new(dev.stdout.take().unwrap());
    let reader = spawn(move || from.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
    let admin = line_with(&lines, "status of node 1");
    let admin = admin.trim().strip_prefix("http://").and_then(|it| it.split('/').next()).unwrap().to_owned();
    let mut asked = TcpStream::connect(admin).unwrap();
    asked.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut said = String::new();
    asked.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    line_with(&lines, "Ctrl-C stops them.");
    let address = format!("127.0.0.1:{port}");
    let join = ["cluster", "join", "1", "--addr", &address, "--wait"];
    let said = output(Command::new(program()).args(join));
    assert!(said.contains("configuration 2"), "{said}");
    let said = line_with(&lines, "configuration 2: ");
    assert!(said.contains("all 64 shards are where it says"), "{said}");
    kill_process(Pid::from_child(&dev), Signal::INT).unwrap();
    assert!(dev.wait().unwrap().success());
    reader.join().unwrap();
}
