//! Commands that a client may send and that have little to say here.

use super::{unknown_subcommand, upper};
use crate::resp::ReplyWriter;

/// Runs one; returns whether it is one.
pub(super) fn run(name: &str, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> bool {
    match (name, &upper(args, 1)[..]) {
        ("swapdb", _) => reply.error("ERR SWAPDB is not allowed in cluster mode"),
        ("move", _) => reply.error("ERR MOVE is not allowed in cluster mode"),
        ("debug", _) => reply.error(
            "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.",
        ),
        ("latency", b"LATEST" | b"HISTORY") => reply.array(0),
        ("latency", b"RESET") => reply.integer(0),
        ("latency", _) => unknown_subcommand(args, reply),
        ("object", _) => help(
            reply,
            &[
                "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
                "ENCODING <key>",
                "    Return the kind of internal representation that Redis has for the value of a key.",
                "REFCOUNT <key>",
                "    Return 1 for a key that exists.",
                "HELP",
                "    Print this help.",
            ],
        ),
        ("lolwut", _) => {
            let version = env!("CARGO_PKG_VERSION");
            reply.verbatim(&format!("  |\\   |\\   |\\\n _|_\\__|_\\__|_\\_\n \\  1  |  2  | 3 /\n~~~~~~~~~~~~~~~~~~~\nFlotilla ver. {version}\n"));
        }
        _ => return false,
    }
    true
}

/// Lines of help, as Redis sends them.
pub(super) fn help(reply: &mut ReplyWriter<'_>, lines: &[&str]) {
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line));
}
