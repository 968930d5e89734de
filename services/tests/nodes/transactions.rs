//! `MULTI`, `EXEC` and `WATCH` on real nodes: what a client sees, and that what was applied was applied as one.

use crate::common::{PATIENCE, TestCluster, lone, start, wide};
use flotilla_services::client::{Connection, Reply};
use flotilla_services::config::Redirect;
use flotilla_services::hands::{Stopwatch, spawn};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Executes lines, one after the other; what was said.
fn say(connection: &mut Connection, lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| shown(&connection.execute(&words(line)).unwrap())).collect()
}

/// Sends all lines at once.
fn pipeline(connection: &mut Connection, lines: &[&str]) -> Vec<String> {
    let commands: Vec<Vec<&[u8]>> = lines.iter().map(|line| words(line)).collect();
    connection.send(commands.iter().map(Vec::as_slice)).unwrap();
    lines.iter().map(|_| shown(&connection.receive().unwrap())).collect()
}

fn words(line: &str) -> Vec<&[u8]> {
    line.split(' ').map(str::as_bytes).collect()
}

fn shown(reply: &Reply) -> String {
    match reply {
        Reply::Status(text) => text.clone(),
        Reply::Error(text) => format!("-{text}"),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Null => "nil".to_owned(),
        Reply::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
    }
}

#[test]
fn a_transaction_is_queued_and_executed() {
    let cluster = lone();
    let mut it = cluster.connect(1);
    assert_eq!(
        say(&mut it, &["multi", "set {t}a 1", "incr {t}a", "get {t}b", "ping", "exec", "get {t}a"]),
        ["OK", "QUEUED", "QUEUED", "QUEUED", "QUEUED", "[OK 2 nil PONG]", "2"]
    );
    assert_eq!(say(&mut it, &["multi", "set {t}a 9", "discard", "get {t}a"]), ["OK", "QUEUED", "OK", "2"]);
    assert_eq!(say(&mut it, &["multi", "exec"]), ["OK", "[]"]);
    assert_eq!(say(&mut it, &["multi", "echo hi", "unwatch", "exec"]), ["OK", "QUEUED", "QUEUED", "[hi OK]"]);
    // An error of one command doesn't undo the others.
    assert_eq!(
        say(&mut it, &["multi", "set {t}c x", "incr {t}c", "set {t}c 1 ex 0", "strlen {t}c", "exec"])[5],
        "[OK -ERR value is not an integer or out of range -ERR invalid expire time in 'set' command 1]"
    );
    // Nor is it lost when there are no others.
    assert_eq!(
        say(&mut it, &["multi", "set {t}c 1 ex 0", "exec", "get {t}c"]),
        ["OK", "QUEUED", "[-ERR invalid expire time in 'set' command]", "x"]
    );
    assert_eq!(
        say(&mut it, &["watch {t}c", "multi", "incrby {t}c x", "exec"])[3],
        "[-ERR value is not an integer or out of range]"
    );
}

#[test]
fn mistakes_have_the_words_of_redis() {
    let cluster = lone();
    let mut it = cluster.connect(1);
    assert_eq!(say(&mut it, &["exec", "discard"]), ["-ERR EXEC without MULTI", "-ERR DISCARD without MULTI"]);
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    for (line, refusal) in [
        ("foo", "-ERR unknown command 'foo', with args beginning with: "),
        ("get", "-ERR wrong number of arguments for 'get' command"),
        ("set elsewhere 1", "-CROSSSLOT Keys in request don't hash to the same slot"),
        ("mget {t}a b", "-CROSSSLOT Keys in request don't hash to the same slot"),
        ("flushall", "-ERR Command not allowed inside a transaction: FLUSHALL isn't of one slot"),
    ] {
        let said = say(&mut it, &["multi", "set {t}a 1", line, "set {t}a 2", "exec", "exists {t}a"]);
        assert_eq!(said[2..], [refusal, "QUEUED", aborted, "0"], "{line}");
    }
    assert_eq!(
        say(&mut it, &["multi", "multi", "watch {t}a", "set {t}a 1", "exec"])[1..],
        ["-ERR MULTI calls can not be nested", "-ERR WATCH inside MULTI is not allowed", "QUEUED", "[OK]"]
    );
    assert_eq!(
        say(&mut it, &["multi", "set {t}a 5", "reset", "get {t}a", "exec"])[2..],
        ["RESET", "1", "-ERR EXEC without MULTI"]
    );
    // A watched key of another slot.
    let said = say(&mut it, &["watch other", "multi", "set {t}a 5", "exec", "multi", "exec"]);
    assert_eq!(said[3..], ["-CROSSSLOT Keys in request don't hash to the same slot", "OK", "[]"]);
}

#[test]
fn watched_keys_stop_a_transaction() {
    let cluster = lone();
    let (mut it, mut other) = (cluster.connect(1), cluster.connect(1));
    let watched = ["watch {t}a {t}b", "get {t}a", "multi", "set {t}a mine"];
    for (meanwhile, outcome) in [
        ("get {t}a", "[OK]"),
        ("set {t}other x", "[OK]"),
        ("set {t}a theirs", "nil"),
        ("set {t}b theirs", "nil"),
        ("expire {t}a 1000", "nil"),
        ("del {t}a", "nil"),
        ("flushall", "nil"),
    ] {
        say(&mut other, &["set {t}a x", "set {t}b x"]);
        say(&mut it, &watched);
        say(&mut other, &[meanwhile]);
        assert_eq!(say(&mut it, &["exec"]), [outcome], "{meanwhile}");
        // It is watched no more.
        assert_eq!(say(&mut it, &["multi", "set {t}a again", "exec"])[2], "[OK]");
    }
    for end in ["unwatch", "discard", "exec"] {
        say(&mut it, &["watch {t}a"]);
        if end != "unwatch" {
            say(&mut it, &["multi"]);
        }
        say(&mut it, &[end]);
        say(&mut other, &["set {t}a theirs"]);
        assert_eq!(say(&mut it, &["multi", "get {t}a", "exec"])[2], "[theirs]", "{end}");
    }
    // Removed and made again: not the same key.
    say(&mut it, &["watch {t}a", "multi", "get {t}a"]);
    say(&mut other, &["del {t}a", "set {t}a theirs"]);
    assert_eq!(say(&mut it, &["exec"]), ["nil"]);
}

#[test]
fn a_transaction_in_one_packet() {
    let cluster = lone();
    let mut it = cluster.connect(1);
    let lines = ["set {t}a 1", "watch {t}a", "get {t}a", "multi", "incr {t}a", "exec", "get {t}a"];
    assert_eq!(pipeline(&mut it, &lines), ["OK", "OK", "1", "OK", "QUEUED", "[2]", "2"]);
    let lines = ["watch {t}a", "set {t}a 5", "multi", "incr {t}a", "exec", "incr {t}a"];
    assert_eq!(pipeline(&mut it, &lines), ["OK", "OK", "OK", "QUEUED", "nil", "6"]);
}

#[test]
fn a_client_that_wants_no_replies() {
    let cluster = lone();
    let mut it = cluster.connect(1);
    let commands = [
        "client reply skip",
        "set a 1",
        "get a",
        "client reply off",
        "incr a",
        "get a",
        "dbsize",
        "client reply on",
        "get a",
        "client reply skip",
        "keys *",
        "get a",
    ];
    let packed: Vec<Vec<&[u8]>> = commands.iter().map(|line| words(line)).collect();
    it.send(packed.iter().map(Vec::as_slice)).unwrap();
    let said: Vec<String> = (0..4).map(|_| shown(&it.receive().unwrap())).collect();
    assert_eq!(said, ["1", "OK", "2", "2"]);
}

#[test]
fn elsewhere_a_transaction_is_redirected() {
    let cluster = wide();
    let mut moved = 0;
    for node in 1..=3 {
        let mut it = cluster.connect(node);
        let said = say(&mut it, &["multi", "set {t}a 1", "exec"]);
        match &*said[1] {
            "QUEUED" => assert_eq!(said[2], "[OK]"),
            refusal => {
                assert!(refusal.starts_with("-MOVED "), "{refusal}");
                assert!(said[2].starts_with("-EXECABORT"), "{}", said[2]);
                moved += 1;
            }
        }
        assert!(say(&mut it, &["watch {t}a"])[0] == "OK" || said[1] != "QUEUED");
    }
    assert_eq!(moved, 2);
}

fn forwarding() -> TestCluster {
    start(|options| (options.cores, options.groups, options.redirect) = (2, 4, Redirect::Forward))
}

/// A connection to a node that lives.
fn somebody(addresses: &[String], first: usize) -> Connection {
    let clock = Stopwatch::start();
    for place in first.. {
        if let Ok(connection) = Connection::open(&addresses[place % addresses.len()], PATIENCE) {
            return connection;
        }
        assert!(clock.elapsed() < PATIENCE);
    }
    unreachable!("it ends by itself")
}

/// Moves money between two accounts with `WATCH`; returns how often that went well. `None`: the connection broke.
fn transfer(it: &mut Connection, tag: u64, amount: i64) -> Option<bool> {
    let (from, to) = (format!("{{{tag}}}from"), format!("{{{tag}}}to"));
    let mut ask = |line: &str| it.execute(&words(line)).ok();
    let watched = ask(&format!("WATCH {from} {to}"))?;
    let balance = ask(&format!("GET {from}"))?;
    let (Reply::Status(_), Reply::Bulk(balance)) = (watched, balance) else { return Some(false) };
    let balance: i64 = String::from_utf8(balance).unwrap().parse().unwrap();
    let left = balance - amount;
    ask("MULTI")?;
    // Only right if nothing has changed since.
    ask(&format!("SET {from} {left}"))?;
    ask(&format!("INCRBY {to} {amount}"))?;
    Some(matches!(ask("EXEC")?, Reply::Array(_)))
}

#[test]
fn money_is_neither_made_nor_lost_though_leaders_die() {
    let mut cluster = forwarding();
    let addresses = cluster.nodes.addresses();
    let tags = [1_u64, 2, 3];
    let mut first = cluster.connect(1);
    for tag in tags {
        say(&mut first, &[&format!("mset {{{tag}}}from 1000000 {{{tag}}}to 0")]);
    }
    let done = Arc::new(AtomicU64::new(0));
    let enough = 400;
    let workers: Vec<_> = (0..4_usize)
        .map(|number| {
            let (addresses, done) = (addresses.clone(), Arc::clone(&done));
            spawn(move || {
                let mut it = somebody(&addresses, number);
                for round in 0_u64.. {
                    if done.load(Ordering::Relaxed) >= enough {
                        return;
                    }
                    let tag = tags[usize::try_from(round).unwrap() % tags.len()];
                    match transfer(&mut it, tag, 1 + i64::try_from(round % 7).unwrap()) {
                        Some(went_well) => {
                            done.fetch_add(u64::from(went_well), Ordering::Relaxed);
                        }
                        None => it = somebody(&addresses, number + 1),
                    }
                    // A look in between sees both sides of a transfer or none.
                    let look =
                        ["MULTI".to_owned(), format!("MGET {{{tag}}}from {{{tag}}}to"), "EXEC".to_owned()];
                    let mut seen = None;
                    for line in &look {
                        seen = it.execute(&words(line)).ok();
                    }
                    if let Some(Reply::Array(items)) = seen {
                        let Reply::Array(both) = &items[0] else { panic!("{}", items[0]) };
                        let sum: i64 = both.iter().map(|it| shown(it).parse::<i64>().unwrap()).sum();
                        assert_eq!(sum, 1_000_000);
                    }
                }
            })
        })
        .collect();
    let clock = Stopwatch::start();
    for (victim, after) in [(1, 80), (2, 200)] {
        while done.load(Ordering::Relaxed) < after {
            assert!(clock.elapsed() < PATIENCE, "{} transfers", done.load(Ordering::Relaxed));
            std::thread::yield_now();
        }
        cluster.nodes.kill(victim);
        cluster.nodes.restart(victim).unwrap();
    }
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    for tag in tags {
        let (from, to) = (format!("{{{tag}}}from"), format!("{{{tag}}}to"));
        let mut client = somebody(&addresses, 0);
        let clock = Stopwatch::start();
        let sum = loop {
            let said = say(&mut client, &[&format!("mget {from} {to}")]);
            let numbers: Vec<i64> =
                said[0].trim_matches(['[', ']']).split(' ').filter_map(|word| word.parse().ok()).collect();
            if numbers.len() == 2 {
                break numbers.iter().sum::<i64>();
            }
            assert!(clock.elapsed() < PATIENCE, "{said:?}");
        };
        assert_eq!(sum, 1_000_000);
    }
}

#[test]
fn keys_of_all_groups_are_listed_where_commands_are_forwarded() {
    let cluster = forwarding();
    let mut it = cluster.connect(2);
    let mut expected = Vec::new();
    for number in 0..500 {
        let key = format!("key:{number:03}");
        assert_eq!(say(&mut it, &[&format!("set {key} {number}")]), ["OK"]);
        expected.push(key);
    }
    assert_eq!(say(&mut it, &["dbsize"]), ["500"]);
    let Reply::Array(keys) = it.execute(&[b"KEYS", b"key:*"]).unwrap() else { panic!("not an array") };
    assert_eq!(keys.len(), 500);
    let ordered =
        say(&mut it, &["flotilla.range [key:010 (key:200 limit 5", "flotilla.range (key:498 + withvalues"]);
    assert_eq!(ordered, ["[key:010 key:011 key:012 key:013 key:014]", "[key:499 499]"]);
    // A walk, each step at another node, while keys come and go.
    let mut seen = std::collections::BTreeSet::new();
    let mut cursor = "0".to_owned();
    for step in 0.. {
        let mut any = cluster.connect(1 + step % 3);
        let Reply::Array(parts) = any.execute(&[b"SCAN", cursor.as_bytes(), b"COUNT", b"7"]).unwrap() else {
            panic!("not an array")
        };
        let [Reply::Bulk(next), Reply::Array(found)] = &parts[..] else { panic!("{parts:?}") };
        seen.extend(found.iter().map(shown));
        say(&mut any, &[&format!("set more:{step} x"), &format!("del more:{}", step / 2)]);
        cursor = String::from_utf8(next.clone()).unwrap();
        if cursor == "0" {
            break;
        }
        assert!(step < 1000);
    }
    assert!(expected.iter().all(|key| seen.contains(key)));
    assert_ne!(say(&mut it, &["randomkey"]), ["nil"]);
    assert_eq!(
        say(&mut it, &["flushall", "dbsize", "randomkey", "scan 0 count 10000"])[..3],
        ["OK", "0", "nil"]
    );
}
