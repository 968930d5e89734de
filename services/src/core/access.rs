//! What a connection may do: checked once, here, before its command is routed. And users that change while the node runs.
//!
//! Every core has all users. Changes go through core 0 of the node, which tells the others before it answers: whoever gets
//! the answer meets the change on its own core, and no two cores can come to different ends. They are this node's, and last
//! as long as it runs; what is to stay is in the configuration.

use super::Core;
use super::connections::Does;
use super::remote::{Message, Origin, Outgoing};
use crate::acl::{self, Denied, Journal, Reason, Refusal, User};
use crate::command::{ConnectionState, Spec, check_arity, code, lookup};
use crate::kv::number;
use crate::resp::{Limits, ReplyWriter};
use flotilla_runtime::{ConnId, CoreId, Effect, Effects, Now};

/// What a client may send before it has said who it is.
pub(super) const UNKNOWN_CLIENT_LIMITS: Limits =
    Limits { args_max: 10, bulk_bytes_max: 16 << 10, inline_bytes_max: 64 << 10, is_unauthenticated: true };

/// What is said to whoever connects from elsewhere to a node without a password.
const DENIED: &str = "DENIED Flotilla is running in protected mode because no password is set for the default user. \
In this mode connections are only accepted from the loopback interface. If you want to connect from another computer, do \
one of the following: 1) Set a password for the default user, with 'requirepass_sha256' in the configuration, or for this \
run with 'ACL SETUSER default resetpass >password' from this computer. 2) List [[users]], the one named 'default' among them \
with a password or 'off'. 3) Set 'protected_mode = false' in the configuration, if nobody but you can reach this address.";

/// Entries that `ACL LOG` tells unless it is said how many.
const LOG_ENTRIES: usize = 10;

const SAVE: &str = "ERR This Redis instance is not configured to use an ACL file: users are listed in the node's TOML file \
([[users]]), and changes by ACL SETUSER and DELUSER last until the node ends";

const HELP: &[&str] = &[
    "ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CAT [<category>]",
    "    List all commands that belong to <category>, or all command categories",
    "    when no category is specified.",
    "DELUSER <username> [<username> ...]",
    "    Delete a list of users, on this node, until it ends.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Returns whether the user can execute the given command without executing the command.",
    "GETUSER <username>",
    "    Get the user's details.",
    "GENPASS [<bits>]",
    "    Generate a secure 256-bit user password. The optional `bits` argument can",
    "    be used to specify a different size.",
    "LIST",
    "    Show users details in config file format.",
    "LOG [<count> | RESET]",
    "    Show the ACL log entries of this core.",
    "SETUSER <username> <attribute> [<attribute> ...]",
    "    Create or modify a user with the specified attributes, on this node, until it ends.",
    "USERS",
    "    List all the registered usernames.",
    "WHOAMI",
    "    Return the current connection username.",
    "HELP",
    "    Print this help.",
];

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything: no command is looked at.
    Free,
    /// What its user may: every command is looked at.
    Checked,
    /// Nothing but say who it is.
    Locked,
}

impl Core {
    /// A client connects, from this machine or from another.
    pub(super) fn open(&mut self, now: Now, conn: ConnId, is_local: bool) {
        self.connections.open(conn);
        let default = self.acl.default_user();
        let (is_open, has_no_password) = (default.is_open(), default.has_no_password());
        if let Some(connection) = self.connections.map.get_mut(&conn) {
            connection.state.is_authenticated = is_open;
        }
        self.learn_access(now, conn);
        if !is_local && has_no_password && self.config.protected_mode {
            self.connections.reply(conn, |reply| reply.error(DENIED));
            self.connections.end(conn);
        }
    }

    fn access_of(&self, state: &ConnectionState) -> Access {
        if !state.is_authenticated && !self.acl.default_user().is_open() {
            return Access::Locked;
        }
        match self.acl.user(state.user()) {
            None => Access::Locked,
            Some(user) if user.is_unlimited() => Access::Free,
            Some(_) => Access::Checked,
        }
    }

    /// Finds out anew what a connection may do, after it said who it is.
    pub(super) fn learn_access(&mut self, now: Now, conn: ConnId) {
        let Some(connection) = self.connections.map.get(&conn) else { return };
        let access = self.access_of(&connection.state);
        let Some(connection) = self.connections.map.get_mut(&conn) else { return };
        connection.access = access;
        if let Some(user) = connection.state.refused.take() {
            let (reason, object) = (Reason::Auth, b"AUTH".to_vec());
            let in_transaction = connection.queue.is_some();
            let client = connection.state.describe();
            self.acl.journal.note(now.monotonic, Refusal { reason, in_transaction, object, user }, client);
        }
    }

    /// Whether a command is refused; then it is answered, and a transaction that it belongs to is broken.
    pub(super) fn is_refused(&mut self, now: Now, conn: ConnId, spec: &Spec, args: &[&[u8]]) -> bool {
        if acl::is_for_everybody(spec) || check_arity(spec, args).is_err() {
            return false;
        }
        let Some(connection) = self.connections.map.get(&conn) else { return true };
        let refusal = match connection.access {
            Access::Locked => Some("NOAUTH Authentication required.".to_owned()),
            _ => {
                self.denied(now, conn, (spec, args), connection.queue.is_some()).map(|denied| match denied {
                    Denied::Command => {
                        let name = acl::full_name(spec, args);
                        format!("NOPERM this user has no permissions to run the '{name}' command")
                    }
                    Denied::Key(_) => {
                        "NOPERM this user has no permissions to access one of the keys used as arguments"
                            .to_owned()
                    }
                })
            }
        };
        let Some(mut refusal) = refusal else { return false };
        self.connections.break_queue(conn);
        let connection = self.connections.map.get_mut(&conn).filter(|_| spec.code == code::EXEC);
        if let Some(connection) = connection.filter(|connection| connection.queue.is_some()) {
            (connection.queue, connection.watching) = (None, None);
            refusal = format!("EXECABORT Transaction discarded because of: {refusal}");
        }
        self.connections.reply(conn, |reply| reply.error(&refusal));
        true
    }

    /// What `EXEC` says of a command that may not be executed any more.
    pub(super) fn refuse_in_transaction(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &Spec,
        args: &[&[u8]],
    ) -> Option<String> {
        if acl::is_for_everybody(spec) {
            return None;
        }
        let reason = match self.denied(now, conn, (spec, args), true)? {
            Denied::Command => "no permission to execute the command or subcommand",
            Denied::Key(_) => "no permission to touch the specified keys",
        };
        Some(format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason: {reason}"
        ))
    }

    /// Looks whether the connection's user may, and notes it if not.
    fn denied(
        &mut self,
        now: Now,
        conn: ConnId,
        (spec, args): (&Spec, &[&[u8]]),
        in_transaction: bool,
    ) -> Option<Denied> {
        let connection = self.connections.map.get(&conn)?;
        let name = connection.state.user();
        let denied = match self.acl.user(name) {
            Some(user) => user.check(spec, args).err()?,
            None => Denied::Command,
        };
        let (reason, object) = match denied {
            Denied::Command => (Reason::Command, acl::full_name(spec, args).into_bytes()),
            Denied::Key(place) => (Reason::Key, args[place].to_vec()),
        };
        let refusal = Refusal { reason, in_transaction, object, user: name.to_vec() };
        let client = connection.state.describe();
        self.acl.journal.note(now.monotonic, refusal, client);
        Some(denied)
    }

    /// `ACL`.
    pub(super) fn acl_command(
        &mut self,
        now: Now,
        conn: ConnId,
        spec: &'static Spec,
        args: &[&[u8]],
        out: &mut Effects<Message>,
    ) {
        if !changes_users(args) {
            let Some(connection) = self.connections.map.get(&conn) else { return };
            let (protocol, mut bytes) = (connection.state.protocol, Vec::new());
            let mut reply = ReplyWriter::new(&mut bytes, protocol);
            let user = connection.state.user().to_vec();
            self.acl_look(now, &user, args, &mut reply);
            return self.connections.reply(conn, |reply| reply.raw(&bytes));
        }
        // No password leaves the core that its client is connected to.
        let hashed = acl::without_passwords(args.iter().copied());
        let args: Vec<&[u8]> = hashed.iter().map(Vec::as_slice).collect();
        let sequence = self.connections.promise(conn, Does::Read);
        if self.id == CoreId(0) {
            return self.acl_for(now, Origin::Local { conn, sequence }, &args, out);
        }
        let protocol = self.connections.protocol(conn);
        self.send_to_core(now, CoreId(0), &Outgoing { conn, sequence, protocol, spec, args: &args }, out);
    }

    /// Changes users, on core 0, for a client of this node.
    pub(super) fn acl_for(&mut self, now: Now, origin: Origin, args: &[&[u8]], out: &mut Effects<Message>) {
        if matches!(origin, Origin::Peer { .. }) || self.id != CoreId(0) || !changes_users(args) {
            return self.abandon(origin, out);
        }
        let result = if args[1].eq_ignore_ascii_case(b"SETUSER") {
            self.acl.changed(args[2], &args[3..]).map(|user| {
                self.change_user(now, args[2], Some(Box::new(user)), out);
                None
            })
        } else if args[2..].contains(&acl::DEFAULT_USER) {
            Err("The 'default' user cannot be removed".to_owned())
        } else {
            let there = |name: &&&[u8]| self.acl.user(name).is_some();
            let mut removed: Vec<&[u8]> = args[2..].iter().filter(there).copied().collect();
            removed.sort_unstable();
            removed.dedup();
            removed.iter().for_each(|name| self.change_user(now, name, None, out));
            Ok(Some(removed.len()))
        };
        self.answer(origin, out, |_, reply| match result {
            Ok(None) => reply.simple("OK"),
            Ok(Some(removed)) => reply.length_of(removed),
            Err(error) => reply.error(&format!("ERR {error}")),
        });
    }

    fn change_user(&mut self, now: Now, name: &[u8], user: Option<Box<User>>, out: &mut Effects<Message>) {
        for core in (1..self.config.me().cores).map(CoreId) {
            let message = Message::User { name: name.to_vec(), user: user.clone() };
            out.push(Effect::Mesh { to: core, message });
        }
        self.user_changed(now, name, user);
    }

    /// A user is another, or gone: its connections with it.
    pub(super) fn user_changed(&mut self, now: Now, name: &[u8], user: Option<Box<User>>) {
        let is_gone = user.is_none();
        match user {
            Some(user) => self.acl.put(name, *user),
            None => {
                self.acl.remove(name);
            }
        }
        let all: Vec<ConnId> = self.connections.map.keys().copied().collect();
        for conn in all {
            let is_its = |connection: &super::connections::Connection| connection.state.user() == name;
            if is_gone && self.connections.map.get(&conn).is_some_and(is_its) {
                self.connections.end(conn);
            }
            self.learn_access(now, conn);
        }
    }

    /// The subcommands that change nothing of a user.
    fn acl_look(&mut self, now: Now, asker: &[u8], args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        match (&args[1].to_ascii_uppercase()[..], args.len()) {
            (b"WHOAMI", 2) => reply.bulk(asker),
            (b"USERS", 2) => {
                reply.array(self.acl.users().count());
                self.acl.users().for_each(|(name, _)| reply.bulk(name));
            }
            (b"LIST", 2) => {
                reply.array(self.acl.users().count());
                let line = |(name, user): (&[u8], &User)| [b"user ", name, b" ", &user.describe()].concat();
                self.acl.users().map(line).for_each(|line| reply.bulk(&line));
            }
            (b"GETUSER", 3) => match self.acl.user(args[2]) {
                Some(user) => acl::write_user(user, reply),
                None => reply.null(),
            },
            (b"CAT", 2 | 3) => acl::write_categories(args.get(2), reply),
            (b"GENPASS", 2 | 3) => match self.acl.generate(args.get(2)) {
                Ok(password) => reply.bulk(password.as_bytes()),
                Err(error) => reply.error(error),
            },
            (b"LOG", 2 | 3) => log(&mut self.acl.journal, now, args.get(2), reply),
            (b"DRYRUN", 4..) => self.dry_run(args, reply),
            (b"SAVE" | b"LOAD", 2) => reply.error(SAVE),
            (b"HELP", 2) => {
                reply.array(HELP.len());
                HELP.iter().for_each(|line| reply.simple(line));
            }
            (b"HELP", _) => reply.error("ERR wrong number of arguments for 'acl|help' command"),
            _ => {
                let sub = String::from_utf8_lossy(&args[1][..args[1].len().min(128)]).into_owned();
                reply.error(&format!(
                    "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try ACL HELP."
                ));
            }
        }
    }

    fn dry_run(&self, args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
        let shown = |arg: &[u8]| String::from_utf8_lossy(&arg[..arg.len().min(128)]).into_owned();
        let (name, command) = (args[2], &args[3..]);
        let Some(user) = self.acl.user(name) else {
            return reply.error(&format!("ERR User '{}' not found", shown(name)));
        };
        let Some(spec) = lookup(command[0]) else {
            return reply.error(&format!("ERR Command '{}' not found", shown(command[0])));
        };
        if let Err(rejected) = check_arity(spec, command) {
            return reply.error(&rejected.to_string());
        }
        let verdict = if acl::is_for_everybody(spec) { Ok(()) } else { user.check(spec, command) };
        match verdict {
            Ok(()) => reply.simple("OK"),
            Err(Denied::Command) => {
                let name = acl::full_name(spec, command);
                reply.bulk(format!("This user has no permissions to run the '{name}' command").as_bytes());
            }
            Err(Denied::Key(place)) => {
                let key = shown(command[place]);
                reply.bulk(format!("This user has no permissions to access the '{key}' key").as_bytes());
            }
        }
    }
}

/// Whether it is `ACL SETUSER` or `DELUSER`, with whom.
fn changes_users(args: &[&[u8]]) -> bool {
    let is = |word: &[u8]| args.get(1).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
    args.len() >= 3 && (is(b"SETUSER") || is(b"DELUSER"))
}

fn log(journal: &mut Journal, now: Now, argument: Option<&&[u8]>, reply: &mut ReplyWriter<'_>) {
    let most = match argument {
        None => LOG_ENTRIES,
        Some(argument) if argument.eq_ignore_ascii_case(b"RESET") => {
            journal.reset();
            return reply.simple("OK");
        }
        Some(argument) => match number::integer(argument) {
            Some(most) => usize::try_from(most).unwrap_or(0),
            None => return reply.error("ERR value is not an integer or out of range"),
        },
    };
    journal.write(now.monotonic, most, reply);
}
