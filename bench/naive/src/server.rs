//! Clients: a thread each, one command after the other.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::raft::{Command, Node};
use crate::resp::read_command;

/// How long a client waits for its entry to be applied.
const APPLIED_MAX: Duration = Duration::from_secs(5);

/// Serves for as long as the process lives.
pub fn serve(node: &Arc<Node>, listener: &TcpListener) {
    for socket in listener.incoming().flatten() {
        let node = Arc::clone(node);
        // Whatever goes wrong with a connection ends it, and no other.
        std::thread::spawn(move || drop(serve_one(&node, &socket)));
    }
}

fn serve_one(node: &Node, socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(socket), socket);
    while let Some(words) = read_command(&mut reader)? {
        let name = words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
        let reply = match (name.as_str(), &words[..]) {
            ("PING", _) => "+PONG\r\n".to_owned(),
            ("INFO", _) => bulk(concat!("redis_version:", env!("CARGO_PKG_VERSION"))),
            ("GET", [_, key]) => match run(node, Command::Get(key.clone())) {
                Ok(Some(value)) => bulk(&value),
                Ok(None) => "$-1\r\n".to_owned(),
                Err(error) => error,
            },
            ("SET", [_, key, value]) => match run(node, Command::Set(key.clone(), value.clone())) {
                Ok(_) => "+OK\r\n".to_owned(),
                Err(error) => error,
            },
            _ => "-ERR unknown command\r\n".to_owned(),
        };
        writer.write_all(reply.as_bytes())?;
    }
    Ok(())
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn run(node: &Node, command: Command) -> Result<Option<String>, String> {
    let (sender, answer) = channel();
    if !node.start(command, sender) {
        return Err("-NOTLEADER this node doesn't lead\r\n".to_owned());
    }
    match answer.recv_timeout(APPLIED_MAX) {
        Ok(Some(result)) => Ok(result),
        _ => Err("-UNKNOWN what became of it isn't known\r\n".to_owned()),
    }
}
