//! `CLIENT`: what connections are, and their end.

use super::connection::ConnectionState;
use super::server::NodeView;
use super::small::help;
use super::{unknown_subcommand, upper, wrong_arity};
use crate::kv::number;
use crate::resp::ReplyWriter;

/// Whether a client wants to have its replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quiet {
    /// It does.
    #[default]
    No,
    /// Not that to the next command.
    Next,
    /// Not that to this command.
    Now,
    /// None.
    Always,
}

/// Which connections `CLIENT KILL` is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    id: Option<u64>,
    user: Option<Vec<u8>>,
    nobody: bool,
    spares_asker: bool,
}

impl Kill {
    /// Whether it is for the connection `id` of that user, if `asker` asks.
    pub fn concerns(&self, id: u64, user: &[u8], asker: u64) -> bool {
        !self.nobody
            && self.id.is_none_or(|wanted| wanted == id)
            && self.user.as_deref().is_none_or(|wanted| wanted == user)
            && !(self.spares_asker && id == asker)
    }

    fn parse(args: &[&[u8]], view: &dyn NodeView) -> Result<Self, String> {
        let mut kill = Self { id: None, user: None, nobody: false, spares_asker: true };
        if !args.len().is_multiple_of(2) {
            return Err("ERR syntax error".to_owned());
        }
        for pair in args[2..].chunks_exact(2) {
            match (&pair[0].to_ascii_uppercase()[..], &pair[1].to_ascii_uppercase()[..]) {
                (b"ID", id) => {
                    let id = number::integer(id).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
                    kill.id = Some(id.ok_or("ERR client-id should be greater than 0")?);
                }
                (b"TYPE", b"NORMAL") => {}
                (b"TYPE", b"MASTER" | b"SLAVE" | b"REPLICA" | b"PUBSUB") => kill.nobody = true,
                (b"TYPE", _) => {
                    return Err(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(pair[1])));
                }
                (b"USER", _) if view.users().user(pair[1]).is_some() => kill.user = Some(pair[1].to_vec()),
                (b"USER", _) => {
                    return Err(format!("ERR No such user '{}'", String::from_utf8_lossy(pair[1])));
                }
                // Addresses aren't known here.
                (b"ADDR" | b"LADDR", _) => kill.nobody = true,
                (b"SKIPME", b"YES") => kill.spares_asker = true,
                (b"SKIPME", b"NO") => kill.spares_asker = false,
                _ => return Err("ERR syntax error".to_owned()),
            }
        }
        Ok(kill)
    }
}

pub(super) fn run(
    args: &[&[u8]],
    state: &mut ConnectionState,
    view: &dyn NodeView,
    reply: &mut ReplyWriter<'_>,
) {
    match (&upper(args, 1)[..], args.len()) {
        (b"ID", 2) => reply.unsigned(state.id),
        (b"GETNAME", 2) if state.name.is_empty() => reply.null(),
        (b"GETNAME", 2) => reply.bulk(&state.name),
        (b"SETNAME", 3) if args[2].iter().any(|byte| !(b'!'..=b'~').contains(byte)) => {
            reply.error("ERR Client names cannot contain spaces, newlines or special characters.");
        }
        (b"SETNAME", 3) => {
            state.name = args[2].to_vec();
            reply.simple("OK");
        }
        (b"SETINFO", 4) => set_info(args, state, reply),
        (b"INFO", 2) => {
            let own = view.connections().into_iter().find(|(id, _)| *id == state.id);
            reply.verbatim(&format!("{}\n", own.map_or_else(|| state.describe(), |(_, line)| line)));
        }
        (b"LIST", _) => list(args, view, reply),
        (b"KILL", 3) => reply.error("ERR No such client"),
        (b"KILL", 4..) => match Kill::parse(args, view) {
            // The reply is the number of those that are there.
            Ok(kill) => state.kill = Some(kill),
            Err(error) => reply.error(&error),
        },
        (b"NO-EVICT" | b"NO-TOUCH", 3) => match &upper(args, 2)[..] {
            b"ON" | b"OFF" => reply.simple("OK"),
            _ => reply.error("ERR syntax error"),
        },
        (b"REPLY", 3) => match &upper(args, 2)[..] {
            b"ON" => {
                state.quiet = Quiet::No;
                reply.simple("OK");
            }
            b"OFF" => state.quiet = Quiet::Always,
            b"SKIP" if state.quiet != Quiet::Always => state.quiet = Quiet::Next,
            b"SKIP" => {}
            _ => reply.error("ERR syntax error"),
        },
        (b"TRACKING", 3..) if &upper(args, 2)[..] == b"OFF" => reply.simple("OK"),
        (b"TRACKING", 3..) => reply.error("ERR client-side caching isn't supported"),
        (b"TRACKINGINFO", 2) => {
            reply.map(3);
            reply.bulk(b"flags");
            reply.set(1);
            reply.bulk(b"off");
            reply.bulk(b"redirect");
            reply.integer(-1);
            reply.bulk(b"prefixes");
            reply.array(0);
        }
        (b"GETREDIR", 2) => reply.integer(-1),
        (b"HELP", 2) => help(
            reply,
            &[
                "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
                "GETNAME, ID, INFO, SETINFO <LIB-NAME|LIB-VER> <value>, SETNAME <name>",
                "    About this connection.",
                "KILL [ID <id>] [TYPE normal] [USER <name>] [SKIPME yes|no]",
                "    Close connections of this core.",
                "LIST [ID <id> ...] [TYPE normal]",
                "    The connections of this core.",
                "NO-EVICT <ON|OFF>, NO-TOUCH <ON|OFF>",
                "    Accepted: nothing is evicted.",
                "REPLY <ON|OFF|SKIP>",
                "    Whether this connection gets its replies.",
                "HELP",
                "    Print this help.",
            ],
        ),
        (
            b"ID" | b"GETNAME" | b"SETNAME" | b"SETINFO" | b"INFO" | b"KILL" | b"NO-EVICT" | b"NO-TOUCH"
            | b"REPLY" | b"TRACKING" | b"TRACKINGINFO" | b"GETREDIR",
            _,
        ) => {
            wrong_arity(&format!("client|{}", String::from_utf8_lossy(args[1]).to_lowercase()), reply);
        }
        _ => unknown_subcommand(args, reply),
    }
}

fn set_info(args: &[&[u8]], state: &mut ConnectionState, reply: &mut ReplyWriter<'_>) {
    let (name, value) = (upper(args, 2), args[3]);
    let shown = String::from_utf8_lossy(&name).to_lowercase();
    if !matches!(&name[..], b"LIB-NAME" | b"LIB-VER") {
        return reply.error(&format!("ERR Unrecognized option '{}'", String::from_utf8_lossy(args[2])));
    }
    if value.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
        return reply.error(&format!("ERR {shown} cannot contain spaces, newlines or special characters."));
    }
    match &name[..] {
        b"LIB-NAME" => state.library = value.to_vec(),
        _ => state.library_version = value.to_vec(),
    }
    reply.simple("OK");
}

fn list(args: &[&[u8]], view: &dyn NodeView, reply: &mut ReplyWriter<'_>) {
    let mut wanted: Option<Vec<u64>> = None;
    match (&upper(args, 2)[..], args.len()) {
        (_, 2) => {}
        (b"TYPE", 4) => match &upper(args, 3)[..] {
            b"NORMAL" => {}
            b"MASTER" | b"SLAVE" | b"REPLICA" | b"PUBSUB" => wanted = Some(Vec::new()),
            _ => {
                let unknown = String::from_utf8_lossy(args[3]).into_owned();
                return reply.error(&format!("ERR Unknown client type '{unknown}'"));
            }
        },
        (b"ID", 4..) => {
            let ids = args[3..].iter().map(|id| number::integer(id).and_then(|id| u64::try_from(id).ok()));
            match ids.collect() {
                Some(ids) => wanted = Some(ids),
                None => return reply.error("ERR Invalid client ID"),
            }
        }
        _ => return reply.error("ERR syntax error"),
    }
    let lines = view.connections().into_iter();
    let lines = lines.filter(|(id, _)| wanted.as_ref().is_none_or(|wanted| wanted.contains(id)));
    reply.verbatim(&lines.map(|(_, line)| line + "\n").collect::<String>());
}
