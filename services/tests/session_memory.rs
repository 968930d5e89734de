//! What sessions cost: one of a client that does nothing, and one whose writes and replies are large.

#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

use flotilla_services::command::code;
use flotilla_services::kv::{Keyspace, SESSION_BYTES, SESSIONS_MAX};
use flotilla_services::resp::ReplyWriter;

use std::sync::{Mutex, PoisonError};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Allocations are counted by one test at a time.
static COUNTING: Mutex<()> = Mutex::new(());

const MIB: usize = 1 << 20;

/// SRV-05: what a session remembers holds neither what was written nor what was read. The limits are the course's: the value
/// itself and nothing beside it after an overwrite; half as much again after two appends.
#[test]
fn srv_05_large_values_leave_no_garbage() {
    let _one = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut keys = Keyspace::default();
    let mut said = Vec::new();
    let mut reply = ReplyWriter::new(&mut said, flotilla_services::resp::Protocol::Resp2);
    keys.write(0, code::FLOTILLA_SESSION, &[b"FLOTILLA.SESSION", b"key"], &mut reply);
    let session = said[1..said.len() - 2].to_vec();
    let value = vec![b'x'; 10 * MIB];
    let before = dhat::HeapStats::get().curr_bytes;
    let mut write = 0_u64;
    let mut once = |command: &[&[u8]]| {
        write += 1;
        let (number, last) = (write.to_string(), (write - 1).to_string());
        let head: [&[u8]; 4] = [b"FLOTILLA.ONCE", &session, number.as_bytes(), last.as_bytes()];
        let whole = [&head, command].concat();
        keys.write(0, code::FLOTILLA_ONCE, &whole, &mut ReplyWriter::discard());
        dhat::HeapStats::get().curr_bytes - before
    };
    for _ in 0..3 {
        let after_put = once(&[b"SET", b"key", &value]);
        let after_get = once(&[b"SET", b"key", &value, b"GET"]);
        println!("{after_put} bytes after a SET of 10 MiB, {after_get} after one with GET");
        assert!(after_put.max(after_get) < 10 * MIB + 4096);
    }
    once(&[b"SET", b"key", b""]);
    for _ in 0..2 {
        once(&[b"APPEND", b"key", &value]);
    }
    let after_appends = dhat::HeapStats::get().curr_bytes - before;
    println!("{after_appends} bytes after two APPENDs of 10 MiB");
    assert!((20 * MIB..=30 * MIB).contains(&after_appends));
    assert!(once(&[b"GETDEL", b"key"]) < 4096);
}

/// The course's limit, and ours: 200 bytes.
#[test]
fn srv_06_an_idle_client_takes_little_memory() {
    let _one = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
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
