use super::super::ShardReader;
use super::super::testing::Shard;
use super::*;
use proptest::prelude::*;

fn open(shard: &mut Shard) -> u64 {
    shard.say("flotilla.session k").trim_start_matches(':').parse().unwrap()
}

#[test]
fn srv_03_a_write_that_is_sent_again_takes_effect_once() {
    let mut shard = Shard::default();
    let session = open(&mut shard);
    for _ in 0..3 {
        assert_eq!(shard.say(&format!("flotilla.once {session} 1 0 incr k")), ":1");
    }
    assert_eq!(shard.say(&format!("flotilla.once {session} 2 1 append k x")), ":2");
    // Its own error is a reply like any other.
    let words = "-ERR value is not an integer or out of range";
    assert_eq!(shard.say(&format!("flotilla.once {session} 3 2 incr k")), words);
    shard.say("set k 5");
    assert_eq!(shard.say(&format!("flotilla.once {session} 3 2 incr k")), words);
    assert_eq!(shard.say("get k"), "$1 5");
}

#[test]
fn writes_are_executed_in_order_and_replies_are_kept_until_they_are_acknowledged() {
    let mut shard = Shard::default();
    let session = open(&mut shard);
    let once = |shard: &mut Shard, write: u64, acknowledged: u64| {
        shard.say(&format!("flotilla.once {session} {write} {acknowledged} incr k"))
    };
    assert_eq!(once(&mut shard, 2, 0), "-SESSIONGAP write 2 is too early: the session's last is 0");
    for write in 1..=4 {
        assert_eq!(once(&mut shard, write, 0), format!(":{write}"));
    }
    for write in 1..=4 {
        assert_eq!(once(&mut shard, write, 0), format!(":{write}"), "again");
    }
    assert_eq!(once(&mut shard, 4, 2), ":4");
    assert_eq!(once(&mut shard, 3, 2), ":3");
    assert_eq!(once(&mut shard, 2, 0), "-SESSIONOLD write 2 took effect, and was acknowledged");
    assert_eq!(shard.say("get k"), "$1 4");
}

#[test]
fn bad_writes_of_a_session_get_clear_words() {
    let mut shard = Shard::default();
    let session = open(&mut shard);
    for (line, words) in [
        ("1 0 get k", "ERR GET can't be a write of a session: no write of keys"),
        ("1 0 flushall", "ERR FLUSHALL can't be a write of a session: no write of keys"),
        ("1 0 flotilla.session k", "ERR FLOTILLA.SESSION can't be a write of a session: no write of keys"),
        ("1 0 exec", "ERR EXEC can't be a write of a session: no write of keys"),
        (
            "1 0 flotilla.once 1 1 0 incr k",
            "ERR FLOTILLA.ONCE can't be a write of a session: no write of keys",
        ),
        ("1 0 frobnicate k", "ERR unknown command 'frobnicate', with args beginning with: 'k' "),
        ("1 0 incr", "ERR wrong number of arguments for 'incr' command"),
        ("x 0 incr k", "ERR value is not an integer or out of range"),
        ("0 0 incr k", "ERR writes are numbered from 1, and only earlier ones can be acknowledged"),
        ("3 3 incr k", "ERR writes are numbered from 1, and only earlier ones can be acknowledged"),
        ("999 0 incr k", "ERR more than 256 writes of the session are unacknowledged"),
        ("1 0", "ERR wrong number of arguments for 'flotilla.once' command"),
    ] {
        assert_eq!(shard.say(&format!("flotilla.once {session} {line}")), format!("-{words}"), "{line}");
    }
    assert_eq!(shard.say("flotilla.once 77 1 0 incr k"), "-SESSIONLOST there is no session 77 in this shard");
    assert_eq!(shard.say("exists k"), ":0");
}

#[test]
fn the_session_unused_for_longest_goes_and_is_told() {
    let mut shard = Shard::default();
    let first = open(&mut shard);
    let second = open(&mut shard);
    shard.say(&format!("flotilla.once {first} 1 0 incr k"));
    for _ in 0..SESSIONS_MAX - 1 {
        open(&mut shard);
    }
    assert_eq!(shard.keys.sessions(), SESSIONS_MAX);
    assert!(shard.say(&format!("flotilla.once {second} 1 0 incr k")).starts_with("-SESSIONLOST"));
    assert_eq!(shard.say(&format!("flotilla.once {first} 2 1 incr k")), ":2");
}

#[test]
fn replies_are_bounded_and_a_long_one_is_not_kept() {
    let mut shard = Shard::default();
    let session = open(&mut shard);
    shard.execute(&[b"SET", b"k", &vec![b'x'; REPLY_BYTES_MAX]]);
    assert!(shard.say(&format!("flotilla.once {session} 1 0 getset k short")).len() > REPLY_BYTES_MAX);
    assert_eq!(
        shard.say(&format!("flotilla.once {session} 1 0 getset k short")),
        "-SESSIONREPLY write 1 took effect, but its reply was too long to be kept"
    );
    let mut sessions = Vec::new();
    for _ in 0..2 * SESSION_BYTES_MAX / (REPLY_BYTES_MAX / 2) {
        let session = open(&mut shard);
        shard.execute(&[b"SET", b"k", &vec![b'x'; REPLY_BYTES_MAX / 2]]);
        shard.say(&format!("flotilla.once {session} 1 0 getset k short"));
        sessions.push(session);
    }
    assert!(shard.keys.sessions.bytes <= SESSION_BYTES_MAX);
    assert!(shard.say(&format!("flotilla.once {session} 2 1 incr k")).starts_with("-SESSIONLOST"));
    let last = sessions.last().unwrap();
    assert!(shard.say(&format!("flotilla.once {last} 1 0 getset k short")).len() > 1000);
}

#[test]
fn sessions_survive_flushall_and_a_snapshot() {
    let mut shard = Shard::default();
    let session = open(&mut shard);
    shard.say(&format!("flotilla.once {session} 1 0 incr k"));
    shard.say(&format!("flotilla.once {session} 2 0 set k x get"));
    shard.say("flushall");
    for piece in [1, 7, 1 << 20] {
        let (mut reader, mut keys) = (ShardReader::default(), shard.keys.clone());
        keys.freeze();
        // What happens meanwhile is none of the snapshot's business.
        shard.keys = keys.clone();
        shard.say(&format!("flotilla.once {session} 3 0 incr other"));
        let mut out = Vec::new();
        while !keys.read_frozen(piece, &mut out) {
            reader.read(&out).unwrap();
            out.clear();
        }
        reader.read(&out).unwrap();
        shard.keys = reader.finish().unwrap();
        assert_eq!(shard.keys.state_hash(), keys.state_hash());
        assert_eq!(shard.say(&format!("flotilla.once {session} 1 0 incr k")), ":1");
        assert_eq!(shard.say(&format!("flotilla.once {session} 2 0 set k x get")), "$1 1");
        assert_eq!(shard.say("exists k"), ":0");
    }
    assert_ne!(open(&mut shard), session);
}

#[test]
fn a_reply_is_told_in_the_version_that_its_client_speaks() {
    let mut shard = Shard::default();
    let session = open(&mut shard);
    let line = format!("flotilla.once {session} 1 0 set k x get");
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    for (protocol, expected) in [(Protocol::Resp3, "_\r\n"), (Protocol::Resp2, "$-1\r\n")] {
        let mut out = Vec::new();
        shard.keys.write(0, code::FLOTILLA_ONCE, &args, &mut ReplyWriter::new(&mut out, protocol));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

proptest! {
    /// Whatever is repeated, out of order or acknowledged: each number takes effect once, in order.
    #[test]
    fn every_write_takes_effect_once_and_in_order(sent in prop::collection::vec((1_u64..40, 0_u64..40), 0..300)) {
        let mut shard = Shard::default();
        let session = open(&mut shard);
        let (mut last, mut acknowledged_max) = (0, 0);
        for (write, acknowledged) in sent {
            let acknowledged = acknowledged.min(write - 1);
            let said = shard.say(&format!("flotilla.once {session} {write} {acknowledged} incr k"));
            acknowledged_max = acknowledged_max.max(acknowledged.min(last));
            if write == last + 1 {
                last = write;
                prop_assert_eq!(said, format!(":{write}"));
            } else if write > last {
                prop_assert!(said.starts_with("-SESSIONGAP"), "{}", said);
            } else if write > acknowledged_max {
                prop_assert_eq!(said, format!(":{write}"));
            }
            let expected = if last == 0 { "$-1".to_owned() } else { format!("${} {last}", last.to_string().len()) };
            prop_assert_eq!(shard.say("get k"), expected);
        }
        let sessions = &shard.keys.sessions;
        let again = Sessions::decode(&sessions.encode());
        prop_assert_eq!(again.as_ref(), Some(sessions));
    }

    #[test]
    fn garbage_is_no_sessions(bytes: Vec<u8>) {
        let _ = Sessions::decode(&bytes);
    }
}
