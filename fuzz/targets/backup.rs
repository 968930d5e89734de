#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code, reason = "every target has one of them")]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::backup(data));
