//! A transaction: commands on keys of one slot that are applied as one entry of the log.
//!
//! It is a command like any other, `EXEC`, whose arguments are the whole transaction:
//!
//! | argument | |
//! |---|---|
//! | 0 | `EXEC` |
//! | 1 | how many keys are watched, u32 |
//! | then, for each of them | the key; its version when it was watched, u64 |
//! | then, for each command | its code u16 and the number of its arguments u32; the arguments, its name included |
//!
//! Code 0 stands for a command that touches no key: its only argument is the reply, which whoever proposed the transaction
//! knew already. Numbers are little-endian.

use super::Time;
use super::keyspace::Keyspace;
use crate::command::{Kind, by_code, check};
use crate::entry::Args;
use crate::resp::ReplyWriter;
use crate::slot::{CrossSlot, Slot};
use smallvec::SmallVec;
use std::borrow::Cow;

/// The code of a reply that is known already.
const CODE_REPLY: u16 = 0;

/// A transaction as it is read from its arguments.
pub(crate) struct Transaction<'a, 'b> {
    watched: SmallVec<[(&'a [u8], u64); 4]>,
    commands: SmallVec<[Command<'a, 'b>; 8]>,
}

/// A command's code and arguments.
type Command<'a, 'b> = (u16, &'b [&'a [u8]]);

impl<'a, 'b> Transaction<'a, 'b> {
    /// Reads it; `None` if the arguments are no transaction.
    pub(crate) fn parse(args: &'b [&'a [u8]]) -> Option<Self> {
        let count = u32::from_le_bytes((*args.get(1)?).try_into().ok()?) as usize;
        let end = count.checked_mul(2)?.checked_add(2)?;
        let mut watched = SmallVec::new();
        for pair in args.get(2..end)?.chunks_exact(2) {
            watched.push((pair[0], u64::from_le_bytes(pair[1].try_into().ok()?)));
        }
        let (mut rest, mut commands) = (&args[end..], SmallVec::new());
        while let Some((header, behind)) = rest.split_first() {
            let (code, count) = header.split_at_checked(2)?;
            let code = u16::from_le_bytes(code.try_into().ok()?);
            let count = u32::from_le_bytes(count.try_into().ok()?) as usize;
            let (args, behind) = behind.split_at_checked(count)?;
            let is_known = match by_code(code) {
                _ if code == CODE_REPLY => args.len() == 1,
                Some(spec) => matches!(spec.kind, Kind::Read | Kind::Write) && spec.first_key > 0,
                None => false,
            };
            if !is_known {
                return None;
            }
            commands.push((code, args));
            rest = behind;
        }
        Some(Self { watched, commands })
    }

    /// Whether its commands may be logged.
    pub(crate) fn is_checked(&self) -> bool {
        let mut specs = self.commands.iter().map(|(code, args)| (by_code(*code), args));
        specs.all(|(spec, args)| spec.is_none_or(|spec| check(spec, args).is_ok()))
    }

    /// The slot of all its keys.
    ///
    /// # Errors
    /// [`CrossSlot`].
    pub(crate) fn slot(&self) -> Result<Option<Slot>, CrossSlot> {
        let watched = self.watched.iter().map(|(key, _)| Ok(Some(Slot::of_key(key))));
        let of_commands = self.commands.iter().map(|(code, args)| match by_code(*code) {
            Some(spec) => crate::slot::slot_of_command(spec, args),
            None => Ok(None),
        });
        let mut found = None;
        for slot in watched.chain(of_commands) {
            let Some(slot) = slot? else { continue };
            if *found.get_or_insert(slot) != slot {
                return Err(CrossSlot);
            }
        }
        Ok(found)
    }
}

/// Puts the arguments of a transaction together.
pub(crate) struct TransactionBuilder<'a> {
    args: Vec<Cow<'a, [u8]>>,
    has_commands: bool,
}

impl<'a> TransactionBuilder<'a> {
    /// One that is applied only if these keys have these versions.
    pub(crate) fn new(watched: &'a [(Vec<u8>, u64)]) -> Self {
        let count = u32::try_from(watched.len()).expect("watched keys are bounded by the pipeline");
        let mut args: Vec<Cow<'a, [u8]>> = vec![Cow::Borrowed(b"EXEC"), count.to_le_bytes().to_vec().into()];
        for (key, version) in watched {
            args.push(Cow::Borrowed(key));
            args.push(version.to_le_bytes().to_vec().into());
        }
        Self { args, has_commands: false }
    }

    fn begin(&mut self, code: u16, args: usize) {
        let count = u32::try_from(args).expect("arguments are bounded");
        self.args.push([&code.to_le_bytes()[..], &count.to_le_bytes()].concat().into());
    }

    /// A command on keys, which was checked.
    pub(crate) fn command(&mut self, code: u16, args: &[&'a [u8]]) {
        self.has_commands = true;
        self.begin(code, args.len());
        self.args.extend(args.iter().map(|arg| Cow::Borrowed(*arg)));
    }

    /// A reply that is known already.
    pub(crate) fn reply(&mut self, bytes: Vec<u8>) {
        self.begin(CODE_REPLY, 1);
        self.args.push(bytes.into());
    }

    /// Whether there is anything in it but replies.
    pub(crate) fn has_commands(&self) -> bool {
        self.has_commands
    }

    /// The arguments.
    pub(crate) fn args(&self) -> Args<'_> {
        self.args.iter().map(|arg| &**arg).collect()
    }
}

impl Keyspace {
    /// Applies a transaction, unless a key has changed that is watched: then the reply is null.
    pub(super) fn execute_all(&mut self, clock_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let transaction = Transaction::parse(args).expect("only whole transactions are logged");
        let is_unchanged = |(key, version): &(&[u8], u64)| self.version(clock_ms, key) == *version;
        if !transaction.watched.iter().all(is_unchanged) {
            return reply.null_array();
        }
        reply.array(transaction.commands.len());
        for (code, args) in transaction.commands {
            match by_code(code) {
                Some(spec) if spec.is_write() => self.write(clock_ms, code, args, reply),
                Some(spec) => self.read(Time { clock_ms, now_ms: clock_ms }, spec, args, reply),
                None => reply.raw(args[0]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;
    use super::*;
    use crate::command::{code, lookup};

    fn transaction(watched: &[(&str, u64)], lines: &[&'static str]) -> Vec<Vec<u8>> {
        let watched: Vec<_> =
            watched.iter().map(|(key, version)| (key.as_bytes().to_vec(), *version)).collect();
        let mut builder = TransactionBuilder::new(&watched);
        for line in lines {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            match lookup(args[0]) {
                Some(spec) => builder.command(spec.code, &args),
                None => builder.reply(format!("{line}\r\n").into_bytes()),
            }
        }
        builder.args().iter().map(|arg| arg.to_vec()).collect()
    }

    fn execute(shard: &mut Shard, args: &[Vec<u8>]) -> String {
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        shard.write(code::EXEC, &args)
    }

    #[test]
    fn all_or_nothing() {
        let mut shard = Shard::default();
        shard.say("set {t}a 1");
        let commands = ["incr {t}a", "+PONG", "get {t}a", "incr {t}b", "append {t}b x", "incr {t}b"];
        let expected = "*6 :2 +PONG $1 2 :1 :2 -ERR value is not an integer or out of range";
        let args = transaction(&[("{t}a", 1), ("{t}b", 0)], &commands);
        assert_eq!(execute(&mut shard, &args), expected);
        assert_eq!(execute(&mut shard, &args), "*-1", "both keys have changed");
        assert_eq!(shard.say("get {t}a"), "$1 2");
    }

    #[test]
    fn a_key_that_ended_has_changed() {
        let mut shard = Shard::default();
        shard.say("set k v px 50");
        let args = transaction(&[("k", 1)], &["+PONG"]);
        assert_eq!(execute(&mut shard, &args), "*1 +PONG");
        shard.advance(50);
        assert_eq!(execute(&mut shard, &args), "*-1");
        assert_eq!(execute(&mut shard, &transaction(&[("k", 0)], &["+PONG"])), "*1 +PONG");
    }

    #[test]
    fn keys_are_in_one_slot() {
        let slot = |watched: &[(&str, u64)], lines: &[&'static str]| {
            let args = transaction(watched, lines);
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            Transaction::parse(&args).unwrap().slot()
        };
        assert_eq!(slot(&[], &["+PONG"]), Ok(None));
        assert_eq!(slot(&[("a", 1)], &["+PONG", "get a"]), Ok(Some(Slot::of_key(b"a"))));
        assert_eq!(slot(&[("a", 1)], &["get b"]), Err(CrossSlot));
        assert_eq!(slot(&[], &["get a", "get b"]), Err(CrossSlot));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(args: Vec<Vec<u8>>, cut in 0_usize..20) {
            let refs: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            let _ = Transaction::parse(&refs).map(|found| (found.slot(), found.is_checked()));
            let good = transaction(&[("a", 1)], &["set a b", "+PONG"]);
            let refs: Vec<&[u8]> = good.iter().map(Vec::as_slice).take(cut).collect();
            let _ = Transaction::parse(&refs);
        }
    }
}
