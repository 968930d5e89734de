//! HTTP, as a client with little faith speaks it.

#![allow(dead_code, reason = "each test program uses its part")]

use super::common::{PATIENCE, TestCluster};
use flotilla_services::admin::status::Status;
use flotilla_services::hands::{Stopwatch, pause};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes until the other side ends the connection; `None` if that is nothing whole.
pub(crate) fn read(mut stream: TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    // A connection that is cut off may end in an error.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, text) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), text: text.to_owned() })
}

/// Sends these bytes, and takes what comes.
pub(crate) fn say(address: &str, bytes: &[u8]) -> Answer {
    let mut stream = connect(address);
    stream.write_all(bytes).unwrap();
    read(stream).expect("an answer comes")
}

pub(crate) fn get(address: &str, path: &str) -> Answer {
    let answer = say(address, format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes());
    let length = answer.head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    assert_eq!(length.unwrap().parse::<usize>().unwrap(), answer.text.len());
    answer
}

pub(crate) fn status(cluster: &TestCluster, node: u32) -> Status {
    let answer = get(cluster.nodes.admin(node), "/status");
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.text).unwrap()
}

/// A program on the `PATH`, or `None`, said aloud.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: {name} is not on the PATH");
    }
    found
}

/// Asks again until the answer is as it should be.
pub(crate) fn until<T>(mut ask: impl FnMut() -> T, is_it: impl Fn(&T) -> bool) -> T
where
    T: std::fmt::Debug,
{
    let clock = Stopwatch::start();
    loop {
        let found = ask();
        if is_it(&found) {
            return found;
        }
        assert!(clock.elapsed() < PATIENCE, "it stays so: {found:?}");
        pause(Duration::from_millis(20));
    }
}
