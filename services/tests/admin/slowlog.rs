//! `SLOWLOG`, and the settings that it has.

use super::common::{PATIENCE, start};
use super::http::until;
use flotilla_services::client::{Connection, Reply};

#[test]
fn slow_commands_are_kept_and_how_slow_is_for_operators_to_say() {
    let cluster = start(|options| (options.nodes, options.cores, options.groups) = (1, 2, 2));
    let addresses = cluster.nodes.addresses();
    let mut connections: Vec<Connection> =
        addresses.iter().map(|address| Connection::open(address, PATIENCE).unwrap()).collect();
    let mut say = |core: usize, words: &[&[u8]]| connections[core].execute(words).unwrap();
    assert_eq!(
        say(0, &[b"CONFIG", b"GET", b"slowlog-log-slower-than"]).to_string().matches("10000").count(),
        1
    );
    // Nothing takes so long.
    assert_eq!(say(0, &[b"CONFIG", b"SET", b"slowlog-log-slower-than", b"60000000"]).to_string(), "OK");
    say(0, &[b"SLOWLOG", b"RESET"]);
    (0..20).for_each(|_| drop(say(0, &[b"SET", b"key", b"value"])));
    assert_eq!(say(0, &[b"SLOWLOG", b"LEN"]), Reply::Integer(0));
    // Everything does. The other core is told.
    let all = say(0, &[b"CONFIG", b"SET", b"slowlog-log-slower-than", b"0", b"slowlog-max-len", b"50"]);
    assert_eq!(all.to_string(), "OK");
    for name in ["slowlog-log-slower-than", "slowlog-max-len"] {
        let told =
            |reply: &Reply| !reply.to_string().contains("60000000") && !reply.to_string().contains("128");
        until(|| say(1, &[b"CONFIG", b"GET", name.as_bytes()]), told);
    }
    for core in 0..2 {
        say(core, &[b"CLIENT", b"SETNAME", b"me"]);
        // One of them executes it itself, the other hands it on.
        say(core, &[b"SET", b"key", b"value"]);
        say(core, &[b"GET", b"key"]);
        let log = say(core, &[b"SLOWLOG", b"GET", b"-1"]).to_string();
        for words in ["set", "get", "me", "id="] {
            assert!(log.to_lowercase().contains(words), "no {words}: {log}");
        }
    }
    assert!(say(0, &[b"SLOWLOG", b"GET", b"1"]).to_string().contains("SLOWLOG"));
    (0..100).for_each(|_| drop(say(0, &[b"GET", b"key"])));
    assert_eq!(say(0, &[b"SLOWLOG", b"LEN"]), Reply::Integer(50));
    for bad in [&b"-2"[..], b"soon"] {
        let refused = say(0, &[b"CONFIG", b"SET", b"slowlog-log-slower-than", bad]).to_string();
        assert!(refused.contains("slowlog-log-slower-than"), "{refused}");
    }
    let refused = say(0, &[b"CONFIG", b"SET", b"slowlog-max-len", b"3", b"port", b"1"]).to_string();
    assert!(refused.contains("immutable"), "{refused}");
    let kept = say(0, &[b"CONFIG", b"GET", b"slowlog-max-len"]).to_string();
    assert!(kept.contains("50"), "a refused change changes nothing: {kept}");
    say(0, &[b"CONFIG", b"SET", b"slowlog-log-slower-than", b"-1"]);
    say(0, &[b"SLOWLOG", b"RESET"]);
    say(0, &[b"GET", b"key"]);
    assert_eq!(say(0, &[b"SLOWLOG", b"LEN"]), Reply::Integer(0));
    assert!(say(0, &[b"SLOWLOG", b"HELP"]).to_string().contains("SLOWLOG <subcommand>"));
}
