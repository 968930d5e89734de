//! The largest values, and what is larger.

use crate::common::{PATIENCE, lone, start, text};
use flotilla_services::client::{Connection, Reply};
use flotilla_services::slot::Slot;

fn refused(connection: &mut Connection, command: &[&[u8]]) -> bool {
    // The node may close before it has read all of it.
    match connection.execute(command) {
        Ok(Reply::Error(error)) => {
            assert_eq!(error, "ERR Protocol error: invalid bulk length");
            true
        }
        Ok(_) => false,
        Err(_) => true,
    }
}

#[test]
fn a_value_may_be_as_large_as_the_configuration_says_and_outlives_the_leader() {
    let most = 40 << 20;
    let mut cluster = start(|options| {
        options.limits.value_bytes_max = most;
        // Less than the value: a single reply may be of any size.
        options.limits.client_output_bytes_max = 1 << 20;
        options.log.segment_bytes = 80 << 20;
    });
    let value: Vec<u8> = (0..most).map(|place| (place / 4096 * 7 + place) as u8).collect();
    let mut client = cluster.nodes.client();
    let ok = Reply::Status("OK".to_owned());
    assert_eq!(client.execute(b"k", &[b"SET", b"k", &value], PATIENCE).unwrap(), ok);
    // A key as well.
    assert_eq!(client.execute(&value, &[b"SET", &value, b"v"], PATIENCE).unwrap(), ok);
    assert!(refused(&mut cluster.connect(1), &[b"SET", b"k", &[&value[..], b"x"].concat()]));
    client.refresh().unwrap();
    let leader = client.address_of(Slot::of_key(b"k")).unwrap();
    let leader = cluster.nodes.node_at(&leader).unwrap();
    cluster.nodes.kill(leader);
    assert!(client.execute(b"k", &[b"GET", b"k"], PATIENCE).unwrap() == Reply::Bulk(value.clone()));
    cluster.nodes.restart(leader).unwrap();
    assert_eq!(client.execute(&value, &[b"GET", &value], PATIENCE).unwrap(), Reply::Bulk(b"v".to_vec()));
    let length = client.execute(b"k", &[b"STRLEN", b"k"], PATIENCE).unwrap();
    assert_eq!(length, Reply::Integer(i64::try_from(most).unwrap()));
}

#[test]
fn what_is_too_large_harms_nobody() {
    let cluster = lone();
    let mut other = cluster.connect(1);
    other.execute(&[b"SET", b"k", b"v"]).unwrap();
    let large = vec![b'x'; (16 << 20) + 1];
    for command in [[b"SET".as_slice(), b"k", &large], [b"SET", &large, b"v"], [b"APPEND", b"k", &large]] {
        assert!(refused(&mut cluster.connect(1), &command));
    }
    let grown: &[(&[&[u8]], &str)] = &[
        (
            &[b"SETRANGE", b"k", b"536870912", b"x"],
            "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        ),
        (&[b"SETBIT", b"k", b"4294967296", b"1"], "ERR bit offset is not an integer or out of range"),
        (
            &[b"BITFIELD", b"k", b"SET", b"u8", b"4294967290", b"1"],
            "ERR bit offset is not an integer or out of range",
        ),
    ];
    for (command, words) in grown {
        assert_eq!(
            other.execute(command).unwrap(),
            Reply::Error((*words).to_owned()),
            "{}",
            text(command[0])
        );
    }
    assert_eq!(other.execute(&[b"GET", b"k"]).unwrap(), Reply::Bulk(b"v".to_vec()));
    // A queue of commands is bounded by the log.
    let mut it = cluster.connect(1);
    it.execute(&[b"MULTI"]).unwrap();
    let value = &large[..16 << 20];
    let said: Vec<Reply> = (0..3).map(|_| it.execute(&[b"SET", b"{t}a", value]).unwrap()).collect();
    assert_eq!(said[0], Reply::Status("QUEUED".to_owned()));
    assert!(
        matches!(&said[2], Reply::Error(error) if error.contains("too large for the log")),
        "{}",
        said[2]
    );
    assert!(matches!(it.execute(&[b"EXEC"]).unwrap(), Reply::Error(error) if error.starts_with("EXECABORT")));
}
