//! Commands about the connection itself.

use super::client::{self, Kill, Quiet};
use super::server::NodeView;
use super::upper;
use crate::acl::DEFAULT_USER;
use crate::resp::{Protocol, ReplyWriter};
use std::rc::Rc;

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// What a connection is, and what its client told us about itself.
#[derive(Clone, Debug)]
pub struct ConnectionState {
    /// Its number.
    pub id: u64,
    /// `CLIENT SETNAME`.
    pub name: Vec<u8>,
    /// `HELLO`.
    pub protocol: Protocol,
    /// `CLIENT SETINFO LIB-NAME`.
    pub library: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub library_version: Vec<u8>,
    /// `READONLY`.
    pub read_only: bool,
    /// `CLIENT REPLY`.
    pub quiet: Quiet,
    /// Connections are to be closed.
    pub kill: Option<Kill>,
    /// Who it is; none: the default user.
    user: Option<Rc<[u8]>>,
    /// It has said who it is, or didn't need to when it was opened.
    pub is_authenticated: bool,
    /// Whom it just failed to be.
    pub refused: Option<Vec<u8>>,
}

impl ConnectionState {
    /// A fresh connection.
    pub fn new(id: u64) -> Self {
        Self {
            id,
            name: Vec::new(),
            protocol: Protocol::Resp2,
            library: Vec::new(),
            library_version: Vec::new(),
            read_only: false,
            quiet: Quiet::No,
            kill: None,
            user: None,
            is_authenticated: false,
            refused: None,
        }
    }

    /// Who it is.
    pub fn user(&self) -> &[u8] {
        self.user.as_deref().unwrap_or(DEFAULT_USER)
    }

    /// Becomes a user, if the password is right.
    fn log_in(&mut self, view: &dyn NodeView, user: &[u8], password: &[u8]) -> bool {
        let is_right = view.users().authenticates(user, password);
        if is_right {
            self.user = (user != DEFAULT_USER).then(|| Rc::from(user));
            self.is_authenticated = true;
        } else {
            self.refused = Some(user.to_vec());
        }
        is_right
    }

    /// A line as `CLIENT INFO` shows it.
    pub(crate) fn describe(&self) -> String {
        format!(
            "id={} name={} db=0 user={} resp={} lib-name={} lib-ver={}",
            self.id,
            String::from_utf8_lossy(&self.name),
            String::from_utf8_lossy(self.user()),
            self.protocol.number(),
            String::from_utf8_lossy(&self.library),
            String::from_utf8_lossy(&self.library_version),
        )
    }
}

/// Runs one; returns whether to close the connection.
pub(super) fn run(
    name: &str,
    args: &[&[u8]],
    state: &mut ConnectionState,
    view: &dyn NodeView,
    reply: &mut ReplyWriter<'_>,
) -> bool {
    match name {
        "ping" => match args.get(1) {
            Some(text) => reply.bulk(text),
            None => reply.simple("PONG"),
        },
        "echo" => reply.bulk(args[1]),
        "hello" => hello(args, state, view, reply),
        "client" => client::run(args, state, view, reply),
        "select" => match args[1] {
            b"0" => reply.simple("OK"),
            index if index.iter().all(u8::is_ascii_digit) && !index.is_empty() => {
                reply.error("ERR SELECT is not allowed in cluster mode");
            }
            _ => reply.error("ERR value is not an integer or out of range"),
        },
        "auth" => auth(args, state, view, reply),
        "quit" => {
            reply.simple("OK");
            return true;
        }
        "reset" => {
            *state = ConnectionState::new(state.id);
            state.is_authenticated = view.users().default_user().is_open();
            reply.simple("RESET");
        }
        "readonly" => {
            state.read_only = true;
            reply.simple("OK");
        }
        "readwrite" => {
            state.read_only = false;
            reply.simple("OK");
        }
        // ASKING: migrations are atomic, so there is nothing to ask for.
        _ => reply.simple("OK"),
    }
    false
}

fn auth(args: &[&[u8]], state: &mut ConnectionState, view: &dyn NodeView, reply: &mut ReplyWriter<'_>) {
    let is_right = match args {
        [_, _] if view.users().default_user().has_no_password() => {
            return reply.error(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
            );
        }
        [_, password] => state.log_in(view, DEFAULT_USER, password),
        [_, user, password] => state.log_in(view, user, password),
        _ => return reply.error("ERR syntax error"),
    };
    if is_right { reply.simple("OK") } else { reply.error(WRONG_PASSWORD) }
}

fn hello(args: &[&[u8]], state: &mut ConnectionState, view: &dyn NodeView, reply: &mut ReplyWriter<'_>) {
    let mut protocol = state.protocol;
    if let Some(version) = args.get(1) {
        protocol = match *version {
            b"2" => Protocol::Resp2,
            b"3" => Protocol::Resp3,
            other if other.iter().all(u8::is_ascii_digit) && !other.is_empty() => {
                return reply.error("NOPROTO unsupported protocol version");
            }
            _ => return reply.error("ERR Protocol version is not an integer or out of range"),
        };
    }
    let mut place = 2;
    let mut name = None;
    while place < args.len() {
        match &upper(args, place)[..] {
            b"AUTH" if place + 2 < args.len() => {
                if !state.log_in(view, args[place + 1], args[place + 2]) {
                    return reply.error(WRONG_PASSWORD);
                }
                place += 3;
            }
            b"SETNAME" if place + 1 < args.len() => {
                name = Some(args[place + 1].to_vec());
                place += 2;
            }
            option => {
                let option = String::from_utf8_lossy(option).into_owned();
                return reply.error(&format!("ERR Syntax error in HELLO option '{option}'"));
            }
        }
    }
    if !state.is_authenticated && !view.users().default_user().is_open() {
        return reply.error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        );
    }
    state.protocol = protocol;
    if let Some(name) = name {
        state.name = name;
    }
    reply.set_protocol(protocol);
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", "7.2.0")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(i64::from(protocol.number()));
    reply.bulk(b"id");
    reply.integer(i64::try_from(state.id).unwrap_or(i64::MAX));
    for (key, value) in [("mode", "cluster"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
}
