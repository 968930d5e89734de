//! `SET`, and the commands that are another way to say it.

use super::expiry::Expiry;
use super::keyspace::{Keyspace, Value};
use super::string::WRONG_TYPE;
use crate::command::{Rejected, code};
use crate::resp::ReplyWriter;

/// The options of `SET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOptions {
    /// `Some(true)`: only if the key exists; `Some(false)`: only if it doesn't.
    pub exists: Option<bool>,
    /// Reply with the old value.
    pub get: bool,
    /// When the key ends.
    pub expiry: Expiry,
}

impl SetOptions {
    /// Reads them.
    ///
    /// # Errors
    /// Redis' words.
    pub fn parse(args: &[&[u8]]) -> Result<Self, Rejected> {
        Self::parse_at(args, 0)
    }

    fn parse_at(args: &[&[u8]], clock_ms: u64) -> Result<Self, Rejected> {
        let mut options = Self { exists: None, get: false, expiry: Expiry::None };
        let mut place = 3;
        while place < args.len() {
            match &args[place].to_ascii_uppercase()[..] {
                b"NX" if options.exists != Some(true) => options.exists = Some(false),
                b"XX" if options.exists != Some(false) => options.exists = Some(true),
                b"GET" => options.get = true,
                b"KEEPTTL" if options.expiry == Expiry::None || options.expiry == Expiry::Keep => {
                    options.expiry = Expiry::Keep;
                }
                _ => {
                    let expiry = Expiry::parse_option("set", args, place, clock_ms);
                    let Some(expiry) = expiry.filter(|_| options.expiry == Expiry::None) else {
                        return Err(Rejected::syntax());
                    };
                    options.expiry = expiry?;
                    place += 1;
                }
            }
            place += 1;
        }
        Ok(options)
    }
}

impl Keyspace {
    pub(super) fn set(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let key = args[1];
        if args.len() == 3 {
            self.insert(key, Value::String(args[2].to_vec()), None);
            return reply.simple("OK");
        }
        let options = match SetOptions::parse_at(args, clock_ms) {
            Ok(options) => options,
            // A relative time that overflows only now.
            Err(rejected) => return reply.error(&rejected.to_string()),
        };
        let old = self.get(clock_ms, key);
        let former = old.and_then(|entry| entry.deadline_ms());
        let allowed = options.exists.is_none_or(|wanted| wanted == old.is_some());
        if options.get {
            match old.map(|entry| entry.value.as_string()) {
                None => reply.null(),
                Some(Some(bytes)) => reply.bulk(bytes),
                Some(None) => return reply.error(WRONG_TYPE),
            }
        } else if allowed {
            reply.simple("OK");
        } else {
            reply.null();
        }
        if allowed {
            self.store(clock_ms, key, Value::String(args[2].to_vec()), options.expiry.deadline(former));
        }
    }

    /// Stores a value; one that is over already isn't stored at all.
    pub(super) fn store(&mut self, clock_ms: u64, key: &[u8], value: Value, deadline_ms: Option<u64>) {
        if deadline_ms.is_some_and(|deadline| deadline <= clock_ms) {
            self.remove(clock_ms, key);
        } else {
            self.insert(key, value, deadline_ms);
        }
    }

    pub(super) fn set_otherwise(
        &mut self,
        clock_ms: u64,
        command: u16,
        args: &[&[u8]],
        reply: &mut ReplyWriter<'_>,
    ) {
        let key = args[1];
        match command {
            code::SETNX => {
                let absent = self.get(clock_ms, key).is_none();
                if absent {
                    self.insert(key, Value::String(args[2].to_vec()), None);
                }
                reply.integer(i64::from(absent));
            }
            code::SETEX | code::PSETEX => match Expiry::of_setex(command, args[2], clock_ms) {
                Ok(expiry) => {
                    self.store(clock_ms, key, Value::String(args[3].to_vec()), expiry.deadline(None));
                    reply.simple("OK");
                }
                Err(rejected) => reply.error(&rejected.to_string()),
            },
            code::MSET => {
                self.set_pairs(args);
                reply.simple("OK");
            }
            code::MSETNX => {
                let all_absent = args[1..].iter().step_by(2).all(|key| self.get(clock_ms, key).is_none());
                if all_absent {
                    self.set_pairs(args);
                }
                reply.integer(i64::from(all_absent));
            }
            _ => self.get_and_change(clock_ms, command, args, reply),
        }
    }

    fn set_pairs(&mut self, args: &[&[u8]]) {
        for pair in args[1..].chunks_exact(2) {
            self.insert(pair[0], Value::String(pair[1].to_vec()), None);
        }
    }

    /// `GETSET`, `GETDEL`, `GETEX`: reply with the value, and change it or its expiry.
    fn get_and_change(&mut self, clock_ms: u64, command: u16, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let key = args[1];
        let old = self.get(clock_ms, key);
        let expiry = match command {
            code::GETEX if old.is_some_and(|entry| entry.value.as_string().is_some()) => {
                Expiry::parse_getex_at(args, clock_ms)
            }
            _ => Ok(Expiry::Keep),
        };
        let expiry = match expiry {
            Ok(expiry) => expiry,
            Err(rejected) => return reply.error(&rejected.to_string()),
        };
        match old.map(|entry| entry.value.as_string()) {
            None => reply.null(),
            Some(Some(bytes)) => reply.bulk(bytes),
            Some(None) => return reply.error(WRONG_TYPE),
        }
        match command {
            code::GETSET => self.insert(key, Value::String(args[2].to_vec()), None),
            code::GETDEL => {
                self.remove(clock_ms, key);
            }
            _ => match expiry {
                Expiry::At(at) if at <= clock_ms => {
                    self.remove(clock_ms, key);
                }
                Expiry::Keep => {}
                expiry => self.set_deadline(key, expiry.deadline(None)),
            },
        }
    }
}
