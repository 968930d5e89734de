//! Commands: the table, what can be said of one from its arguments alone, and those that touch no key.

mod canonical;
mod check;
mod client;
mod cluster;
mod connection;
mod glob;
mod list;
mod server;
pub mod slowlog;
mod small;
mod table;

pub use canonical::canonical;
pub use check::{Rejected, STRING_BYTES_MAX, check, check_arity};
pub use client::{Kill, Quiet};
pub use connection::ConnectionState;
pub use glob::glob;
pub use list::code;
pub use server::{NodeView, changed_settings};
pub use table::{Kind, Spec, all, by_code, lookup, unknown_command};

use crate::resp::ReplyWriter;

/// Runs a command that touches no key. Returns whether the connection is to be closed behind the reply.
pub fn run_plain(
    spec: &'static Spec,
    args: &[&[u8]],
    state: &mut ConnectionState,
    view: &dyn NodeView,
    reply: &mut ReplyWriter<'_>,
) -> bool {
    match spec.kind {
        Kind::Connection => return connection::run(spec.name, args, state, view, reply),
        Kind::Cluster => cluster::run(args, view, reply),
        Kind::Server | Kind::Read | Kind::Write => server::run(spec.name, args, view, reply),
    }
    false
}

/// The n-th argument in upper case, for comparing with a keyword.
fn upper(args: &[&[u8]], place: usize) -> Vec<u8> {
    args.get(place).map(|arg| arg.to_ascii_uppercase()).unwrap_or_default()
}

/// Redis' words for a subcommand that isn't there.
fn unknown_subcommand(args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    let command = String::from_utf8_lossy(args[0]).to_uppercase();
    let sub = String::from_utf8_lossy(args.get(1).copied().unwrap_or_default()).into_owned();
    reply.error(&format!("ERR unknown subcommand '{sub}'. Try {command} HELP."));
}

/// Redis' words for a wrong number of arguments.
fn wrong_arity(name: &str, reply: &mut ReplyWriter<'_>) {
    reply.error(&format!("ERR wrong number of arguments for '{name}' command"));
}
