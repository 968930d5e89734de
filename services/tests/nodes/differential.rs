//! What a node dumps a real redis-server restores, and the other way round.

use crate::common::{PATIENCE, client, lone};
use flotilla_services::client::{Connection, Reply};
use flotilla_services::hands::{Stopwatch, pause};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A real one, in a folder of its own.
struct RealRedis {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl RealRedis {
    fn start() -> Option<Self> {
        let program = client("redis-server")?;
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(program)
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { process, port, _folder: folder })
    }

    fn connect(&self) -> Connection {
        let clock = Stopwatch::start();
        loop {
            match Connection::open(&format!("127.0.0.1:{}", self.port), PATIENCE) {
                Ok(connection) => return connection,
                Err(error) => assert!(clock.elapsed() < PATIENCE, "{error}"),
            }
            pause(Duration::from_millis(5));
        }
    }
}

impl Drop for RealRedis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_dump_of_redis_is_restored_and_the_other_way_round() {
    let Some(redis) = RealRedis::start() else { return };
    let cluster = lone();
    let (mut ours, mut theirs) = (cluster.connect(1), redis.connect());
    let mixed: Vec<u8> = (0..40_000_u32).map(|number| ((number * number) >> 7) as u8).collect();
    let values: [&[u8]; 8] =
        [b"", b"1", b"-70000", b"3000000000", b"text", &[b'a'; 100_000], &mixed, &mixed[..5000]];
    for value in values {
        for (from, to) in [(0, 1), (1, 0)] {
            let both = [&mut ours, &mut theirs];
            both[from].execute(&[b"SET", b"k", value]).unwrap();
            let Reply::Bulk(payload) = both[from].execute(&[b"DUMP", b"k"]).unwrap() else {
                panic!("no dump")
            };
            let restored = both[to].execute(&[b"RESTORE", b"other", b"0", &payload, b"REPLACE"]).unwrap();
            assert_eq!(restored, Reply::Status("OK".to_owned()));
            assert_eq!(both[to].execute(&[b"GET", b"other"]).unwrap(), Reply::Bulk(value.to_vec()));
        }
    }
}
