//! What a client that has a session costs while it does nothing.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

use flotilla_services::command::code;
use flotilla_services::kv::{Keyspace, SESSION_BYTES, SESSIONS_MAX};
use flotilla_services::resp::ReplyWriter;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// The course's limit, and ours: 200 bytes.
#[test]
fn srv_06_an_idle_client_takes_little_memory() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut keys = Keyspace::default();
    let value = [b'x'; 1000];
    keys.write(0, code::SET, &[b"SET", b"key", &value], &mut ReplyWriter::discard());
    let before = dhat::HeapStats::get().curr_bytes;
    for _ in 0..SESSIONS_MAX {
        let mut said = Vec::new();
        let protocol = flotilla_services::resp::Protocol::Resp2;
        let mut reply = ReplyWriter::new(&mut said, protocol);
        keys.write(0, code::FLOTILLA_SESSION, &[b"FLOTILLA.SESSION", b"key"], &mut reply);
        let number = &said[1..said.len() - 2];
        let once: [&[u8]; 7] = [b"FLOTILLA.ONCE", number, b"1", b"0", b"SET", b"key", &value];
        keys.write(0, code::FLOTILLA_ONCE, &once, &mut ReplyWriter::discard());
    }
    let each = (dhat::HeapStats::get().curr_bytes - before) / SESSIONS_MAX;
    println!("{each} bytes for each of {SESSIONS_MAX} sessions");
    assert_eq!(keys.sessions(), SESSIONS_MAX);
    assert!(each <= 200, "{each}");
    assert!(SESSION_BYTES.abs_diff(each) < 64, "what a session counts is about what it takes: {each}");
}
