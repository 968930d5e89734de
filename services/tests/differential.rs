//! The same commands to a node and to a real redis-server: the replies must be the same, byte for byte of what they mean.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

mod common;

use common::{PATIENCE, client, lone};
use flotilla_runtime::SplitMix64;
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

/// Lines of commands, in which K is a key, V a value, N and M whole numbers, F one with a point, P a place in a string, Q a
/// place of a bit, B a bit, T a time (far away or long over), J something that makes no sense there.
const LINES: &[&str] = &[
    "SET K V",
    "SET K V NX",
    "SET K V XX",
    "SET K V GET",
    "SET K V NX GET",
    "SET K V PXAT T",
    "SET K V KEEPTTL",
    "SET K V EXAT 4102444800 XX",
    "SET K V EX N",
    "SET K V J",
    "SETNX K V",
    "GETSET K V",
    "GETDEL K",
    "GETEX K",
    "GETEX K PERSIST",
    "GETEX K PXAT T",
    "GETEX K EX J",
    "GET K",
    "GET",
    "GET K V",
    "MGET K K",
    "MSET K V K V",
    "MSET K V K",
    "MSETNX K V K V",
    "APPEND K V",
    "STRLEN K",
    "GETRANGE K N M",
    "GETRANGE K P P",
    "SUBSTR K P N",
    "SETRANGE K P V",
    "SETRANGE K N V",
    "SETRANGE K J V",
    "INCR K",
    "DECR K",
    "INCRBY K N",
    "DECRBY K M",
    "INCRBY K J",
    "INCRBY K F",
    "INCRBYFLOAT K F",
    "INCRBYFLOAT K N",
    "INCRBYFLOAT K J",
    "SETEX K N V",
    "PSETEX K 100000000 V",
    "PSETEX K J V",
    "LCS K K",
    "LCS K K LEN",
    "LCS K K IDX",
    "LCS K K IDX MINMATCHLEN 2 WITHMATCHLEN",
    "LCS K K LEN IDX",
    "LCS K K J",
    "SETBIT K Q B",
    "SETBIT K Q 2",
    "SETBIT K J 1",
    "GETBIT K Q",
    "GETBIT K N",
    "BITCOUNT K",
    "BITCOUNT K N M",
    "BITCOUNT K N M BIT",
    "BITCOUNT K N M BYTE",
    "BITCOUNT K N",
    "BITPOS K B",
    "BITPOS K B N",
    "BITPOS K B N M",
    "BITPOS K B N M BIT",
    "BITPOS K 2",
    "BITPOS K J",
    "BITOP AND K K K",
    "BITOP OR K K K",
    "BITOP XOR K K",
    "BITOP NOT K K",
    "BITOP NOT K K K",
    "BITOP J K K",
    "BITFIELD K GET u8 Q SET i5 Q N INCRBY u4 #P M",
    "BITFIELD K OVERFLOW SAT INCRBY i8 P N OVERFLOW FAIL INCRBY u3 Q M",
    "BITFIELD K GET u64 0",
    "BITFIELD K GET J 0",
    "BITFIELD K SET i64 P N",
    "BITFIELD K INCRBY i64 0 9223372036854775807",
    "BITFIELD_RO K GET i13 Q",
    "BITFIELD_RO K SET u8 0 1",
    "DEL K",
    "DEL K K",
    "UNLINK K",
    "EXISTS K K",
    "TOUCH K K",
    "TYPE K",
    "RENAME K K",
    "RENAMENX K K",
    "COPY K K",
    "COPY K K REPLACE",
    "COPY K K J",
    "PERSIST K",
    "EXPIRE K N",
    "EXPIRE K J",
    "PEXPIREAT K T",
    "PEXPIREAT K T NX",
    "PEXPIREAT K T XX",
    "PEXPIREAT K T GT",
    "PEXPIREAT K T LT",
    "PEXPIREAT K T NX GT",
    "PEXPIREAT K T J",
    "EXPIREAT K 4102444800",
    "EXPIREAT K 9223372036854775807",
    "PEXPIRETIME K",
    "EXPIRETIME K",
    "ECHO V",
    "PING V",
    "PING V V",
    "NONSENSE K V",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH K",
    "UNWATCH",
];

fn pick<'a>(rng: &mut SplitMix64, of: &[&'a str]) -> &'a str {
    of[usize::try_from(rng.next() % of.len() as u64).unwrap()]
}

fn word(rng: &mut SplitMix64, word: &str) -> String {
    let number = rng.next();
    match word {
        "K" => format!("{{t}}{}", number % 5),
        "V" => pick(
            rng,
            &[
                "",
                "1",
                "-7",
                "foobar",
                "3.5",
                "10",
                "ohmytext",
                "mynewtext",
                "\u{ff}\u{0}x",
                "9223372036854775806",
            ],
        )
        .to_owned(),
        "N" | "M" => {
            pick(rng, &["0", "1", "-1", "3", "-3", "17", "100", "-100", "9223372036854775807", "4294967296"])
                .to_owned()
        }
        "F" => pick(rng, &["0.1", "-0.1", "1.25", "3.0", "-2.5", "0.000001", "1e2", "+.5"]).to_owned(),
        "P" | "#P" => format!("{}{}", &word[..word.len() - 1], number % 6),
        "Q" => (number % 40).to_string(),
        "B" => (number % 2).to_string(),
        "T" => pick(rng, &["4102444800000", "4102444801000", "4102444802000", "1"]).to_owned(),
        "J" => pick(rng, &["junk", "", "1.5", "99999999999999999999", "+1", "-"]).to_owned(),
        other => other.to_owned(),
    }
}

#[test]
fn the_replies_are_those_of_redis() {
    let Some(redis) = RealRedis::start() else { return };
    let cluster = lone();
    let mut rng = SplitMix64::new(7);
    let (mut ours, mut theirs) = (cluster.connect(1), redis.connect());
    let mut differing: Vec<String> = Vec::new();
    let mut goes_apart = false;
    for round in 0..300 {
        // Now and then all begins anew, and time-dependent leftovers are gone.
        if round % 10 == 0 {
            for connection in [&mut ours, &mut theirs] {
                connection.execute(&[b"RESET"]).unwrap();
                connection.execute(&[b"FLUSHALL"]).unwrap();
            }
            goes_apart = false;
        }
        let lines: Vec<Vec<String>> = (0..100)
            .map(|_| pick(&mut rng, LINES).split(' ').map(|it| word(&mut rng, it)).collect())
            .collect();
        let commands: Vec<Vec<&[u8]>> =
            lines.iter().map(|line| line.iter().map(String::as_bytes).collect()).collect();
        for connection in [&mut ours, &mut theirs] {
            connection.send(commands.iter().map(Vec::as_slice)).unwrap();
        }
        for line in lines {
            let (our, their) = (ours.receive().unwrap(), theirs.receive().unwrap());
            // What follows a difference may differ because of that.
            if our != their && !std::mem::replace(&mut goes_apart, true) {
                differing.push(format!("{line:?}: {our}, Redis: {their}"));
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
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
