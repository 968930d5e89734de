//! Commands on a shard's data: which function each one is.

use super::expiry::Expiry;
use super::keyspace::Keyspace;
use super::{Time, number};
use crate::command::{Spec, code};
use crate::resp::ReplyWriter;

impl Keyspace {
    /// Applies a write from the log. `args` were checked before they were logged.
    pub fn write(&mut self, clock_ms: u64, command: u16, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        match command {
            code::SET => self.set(clock_ms, args, reply),
            code::SETNX
            | code::SETEX
            | code::PSETEX
            | code::GETSET
            | code::MSET
            | code::MSETNX
            | code::GETDEL
            | code::GETEX => self.set_otherwise(clock_ms, command, args, reply),
            code::APPEND | code::SETRANGE => self.extend(clock_ms, command, args, reply),
            code::INCR => self.add(clock_ms, args[1], Some(1), reply),
            code::DECR => self.add(clock_ms, args[1], Some(-1), reply),
            code::INCRBY => self.add(clock_ms, args[1], number::integer(args[2]), reply),
            code::DECRBY => {
                let delta = number::integer(args[2]).and_then(i64::checked_neg);
                self.add(clock_ms, args[1], delta, reply);
            }
            code::INCRBYFLOAT => self.add_float(clock_ms, args, reply),
            code::SETBIT => self.set_bit(clock_ms, args, reply),
            code::BITOP => self.combine_bits(clock_ms, args, reply),
            code::BITFIELD => self.bit_field(clock_ms, args, reply),
            code::DEL | code::UNLINK => {
                let removed = args[1..].iter().filter(|key| self.remove(clock_ms, key).is_some()).count();
                reply.length_of(removed);
            }
            code::RENAME | code::RENAMENX => self.rename(clock_ms, command, args, reply),
            code::COPY => self.copy(clock_ms, args, reply),
            code::EXPIRE | code::PEXPIRE | code::EXPIREAT | code::PEXPIREAT => {
                Expiry::change(self, clock_ms, command, args, reply);
            }
            code::RESTORE => self.restore_dump(clock_ms, args, reply),
            code::PERSIST => {
                let had = self.get(clock_ms, args[1]).is_some_and(|entry| entry.deadline_ms().is_some());
                if had {
                    self.set_deadline(args[1], None);
                }
                reply.integer(i64::from(had));
            }
            code::EXEC => self.execute_all(clock_ms, args, reply),
            code::FLOTILLA_SESSION => self.open_session(args[1], reply),
            code::FLOTILLA_ONCE => self.once(clock_ms, args, reply),
            code::FLOTILLA_LOAD => self.load(clock_ms, args, reply),
            code::FLOTILLA_LOADFROM => self.load_from(clock_ms, args, reply),
            code::FLOTILLA_PUBLISH => self.publish(clock_ms, args, |_| true, reply),
            code::FLOTILLA_CAS => self.compare_and_set(clock_ms, args, reply),
            code::FLUSHALL | code::FLUSHDB => {
                self.clear();
                reply.simple("OK");
            }
            other => unreachable!("{other} is no write: codes are frozen, and only writes are logged"),
        }
    }

    /// Executes a read in the state at hand. `args` were checked before.
    pub fn read(&self, time: Time, spec: &Spec, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let clock_ms = time.clock_ms;
        match spec.code {
            code::GET => self.read_value(clock_ms, args[1], reply),
            code::MGET => self.read_values(clock_ms, args, reply),
            code::EXISTS | code::TOUCH => {
                reply.length_of(args[1..].iter().filter(|key| self.get(clock_ms, key).is_some()).count());
            }
            code::STRLEN | code::GETRANGE | code::SUBSTR => self.read_string(clock_ms, spec, args, reply),
            code::TYPE => {
                reply.simple(self.get(clock_ms, args[1]).map_or("none", |entry| entry.value.type_name()));
            }
            code::TTL | code::PTTL | code::EXPIRETIME | code::PEXPIRETIME => {
                self.read_expiry(time, spec.code, args[1], reply);
            }
            code::GETBIT => self.read_bit(clock_ms, args, reply),
            code::BITCOUNT => self.count_bits(clock_ms, args, reply),
            code::BITPOS => self.find_bit(clock_ms, args, reply),
            code::BITFIELD_RO => self.read_bit_field(clock_ms, args, reply),
            code::LCS => self.common_subsequence(clock_ms, args, reply),
            code::DUMP => self.dump(clock_ms, args[1], reply),
            code::OBJECT => self.describe_object(clock_ms, args, reply),
            code::FLOTILLA_WALK => self.walk(clock_ms, args, reply),
            code::FLOTILLA_GETV => self.read_version(clock_ms, args[1], reply),
            code::WATCH => {
                reply.array(args.len() - 1);
                args[1..].iter().for_each(|key| reply.unsigned(self.version(clock_ms, key)));
            }
            other => unreachable!("{other} is no read with a key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shard;
    use crate::command::{Kind, all, code};

    /// Whoever puts a command into the list must put it here, too.
    #[test]
    fn every_command_with_a_key_is_there() {
        let payload = "\u{0}\u{1}x";
        let lines = [
            "append k v",
            "bitcount k",
            "bitfield k get u8 0",
            "bitfield_ro k get u8 0",
            "bitop or k k",
            "bitpos k 1",
            "copy k l",
            "decr n",
            "decrby n 1",
            "del k",
            "dump k",
            "exists k",
            "expire k 1",
            "expireat k 1",
            "expiretime k",
            "flotilla.cas c 0 v",
            "flotilla.getv k",
            "flotilla.load l v 1700000000 1 0 keep",
            "flotilla.loadfrom l k 1700000000 1 0 keep 1",
            "flotilla.publish k",
            "flotilla.session k",
            "flotilla.walk k - +",
            "get k",
            "getbit k 1",
            "getdel k",
            "getex k",
            "getrange k 0 1",
            "getset k v",
            "incr n",
            "incrby n 1",
            "incrbyfloat n 1",
            "lcs k k",
            "mget k",
            "mset k v",
            "msetnx k v",
            "object encoding k",
            "persist k",
            "pexpire k 1",
            "pexpireat k 1",
            "pexpiretime k",
            "psetex k 1 v",
            "pttl k",
            "rename k l",
            "renamenx l k",
            "set k v",
            "setbit k 1 1",
            "setex k 1 v",
            "setnx k v",
            "setrange k 0 v",
            "strlen k",
            "substr k 0 1",
            "touch k",
            "ttl k",
            "type k",
            "unlink k",
            "watch k",
        ];
        let mut shard = Shard::default();
        let mut seen: Vec<&str> = Vec::new();
        for line in lines {
            shard.say("set k v");
            let said = shard.say(line);
            assert!(
                !said.starts_with("-ERR wrong number") && !said.starts_with("-ERR syntax"),
                "{line}: {said}"
            );
            seen.push(line.split(' ').next().unwrap());
        }
        shard.execute(&[b"restore", b"r", b"0", payload.as_bytes()]);
        seen.push("restore");
        let data = all().iter().filter(|spec| matches!(spec.kind, Kind::Read | Kind::Write));
        for spec in data.filter(|spec| spec.first_key > 0) {
            assert!(seen.contains(&spec.name), "{} isn't tried", spec.name);
        }
        assert!(all().iter().any(|spec| spec.code == code::EXEC), "has its own tests");
    }
}
