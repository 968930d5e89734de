//! Commands about the node: what it is, and what it can do.

use super::glob::glob;
use super::slowlog::{self, Setting, Slowlog};
use super::table::{Kind, Spec, all, lookup};
use super::{unknown_subcommand, upper};
use crate::resp::ReplyWriter;
use crate::topology::Topology;

/// What commands may know about the node.
pub trait NodeView {
    /// Members and slots.
    fn topology(&self) -> Topology;
    /// The sections of `INFO`: name, and lines of key and value.
    fn info(&self) -> Vec<(&'static str, Vec<(String, String)>)>;
    /// The settings that `CONFIG GET` shows.
    fn settings(&self) -> Vec<(&'static str, String)>;
    /// Milliseconds since 1970.
    fn unix_ms(&self) -> u64;
    /// The connections of this core: their ids, and what `CLIENT LIST` says of them.
    fn connections(&self) -> Vec<(u64, String)>;
    /// The node's users.
    fn users(&self) -> &crate::acl::Acl;
    /// The slow commands of this core.
    fn slowlog(&self) -> &Slowlog;
    /// Keys of a slot that this member serves.
    fn keys_in_slot(&self, slot: u16, most: usize) -> Vec<Vec<u8>>;
}

pub(super) fn run(name: &str, args: &[&[u8]], view: &dyn NodeView, reply: &mut ReplyWriter<'_>) {
    match name {
        "command" => command(args, reply),
        "config" => config(args, view, reply),
        "info" => info(args, view, reply),
        "time" => {
            let unix_ms = view.unix_ms();
            reply.array(2);
            reply.bulk((unix_ms / 1000).to_string().as_bytes());
            reply.bulk((unix_ms % 1000 * 1000).to_string().as_bytes());
        }
        "lastsave" => reply.integer(i64::try_from(view.unix_ms() / 1000).unwrap_or(0)),
        // Every acknowledged write is on a majority's disks already.
        "wait" => reply.integer(majority_besides_us(&view.topology())),
        "slowlog" => slowlog::run(args, view.slowlog(), reply),
        "function" if &upper(args, 1)[..] == b"FLUSH" => reply.simple("OK"),
        _ if super::small::run(name, args, reply) => {}
        _ => unknown_subcommand(args, reply),
    }
}

fn majority_besides_us(topology: &Topology) -> i64 {
    let replicas = topology.ranges.first().map_or(0, |range| range.replicas.len() + 1);
    i64::try_from(replicas / 2).unwrap_or(0)
}

fn command(args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    match &upper(args, 1)[..] {
        b"" => {
            reply.array(all().len());
            all().iter().for_each(|spec| describe(spec, reply));
        }
        b"COUNT" => reply.integer(i64::try_from(all().len()).unwrap_or(0)),
        b"LIST" => {
            reply.array(all().len());
            all().iter().for_each(|spec| reply.bulk(spec.name.as_bytes()));
        }
        b"INFO" if args.len() == 2 => {
            reply.array(all().len());
            all().iter().for_each(|spec| describe(spec, reply));
        }
        b"INFO" => {
            reply.array(args.len() - 2);
            for name in &args[2..] {
                match lookup(name) {
                    Some(spec) => describe(spec, reply),
                    None => reply.null_array(),
                }
            }
        }
        b"DOCS" => {
            let wanted: Vec<&Spec> = if args.len() == 2 {
                all().iter().collect()
            } else {
                args[2..].iter().filter_map(|name| lookup(name)).collect()
            };
            reply.map(wanted.len());
            wanted.into_iter().for_each(|spec| document(spec, reply));
        }
        b"GETKEYS" => get_keys(args, reply),
        _ => unknown_subcommand(args, reply),
    }
}

fn get_keys(args: &[&[u8]], reply: &mut ReplyWriter<'_>) {
    let Some(spec) = args.get(2).and_then(|name| lookup(name)) else {
        return reply.error("ERR Invalid command specified");
    };
    let keys: Vec<&[u8]> = spec.keys(&args[2..]).collect();
    if keys.is_empty() {
        return reply.error("ERR The command has no key arguments");
    }
    reply.array(keys.len());
    keys.into_iter().for_each(|key| reply.bulk(key));
}

/// One command as `COMMAND` shows it: the ten fields of Redis 7.
fn describe(spec: &Spec, reply: &mut ReplyWriter<'_>) {
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.integer(i64::from(spec.arity));
    reply.set(spec.flags.len());
    spec.flags.iter().for_each(|flag| reply.simple(flag));
    for number in [spec.first_key, spec.last_key, spec.step] {
        reply.integer(i64::from(number));
    }
    let categories: Vec<&str> = crate::acl::categories(spec).collect();
    reply.set(categories.len());
    categories.into_iter().for_each(|name| reply.simple(&format!("@{name}")));
    for _ in 0..3 {
        reply.array(0);
    }
}

fn document(spec: &Spec, reply: &mut ReplyWriter<'_>) {
    reply.bulk(spec.name.as_bytes());
    reply.map(2);
    reply.bulk(b"summary");
    reply.bulk(spec.summary.as_bytes());
    reply.bulk(b"group");
    reply.bulk(match spec.kind {
        Kind::Read | Kind::Write => b"string",
        Kind::Connection => b"connection",
        Kind::Server => b"server",
        Kind::Cluster => b"cluster",
    });
}

fn config(args: &[&[u8]], view: &dyn NodeView, reply: &mut ReplyWriter<'_>) {
    match &upper(args, 1)[..] {
        b"GET" if args.len() >= 3 => {
            let wanted = |name: &str| {
                args[2..].iter().any(|pattern| glob(&pattern.to_ascii_lowercase(), name.as_bytes()))
            };
            let found: Vec<_> = view.settings().into_iter().filter(|(name, _)| wanted(name)).collect();
            reply.map(found.len());
            for (name, value) in found {
                reply.bulk(name.as_bytes());
                reply.bulk(value.as_bytes());
            }
        }
        b"SET" if args.len() >= 4 && args.len().is_multiple_of(2) => config_set(args, view, reply),
        b"RESETSTAT" => reply.simple("OK"),
        b"GET" | b"SET" => {
            super::wrong_arity(&format!("config|{}", String::from_utf8_lossy(args[1]).to_lowercase()), reply)
        }
        _ => unknown_subcommand(args, reply),
    }
}

/// The settings that a `CONFIG SET` changes, if it may.
pub fn changed_settings(args: &[&[u8]]) -> Vec<(Setting, i64)> {
    let changes = args.get(2..).unwrap_or_default().chunks_exact(2).map(|pair| {
        let setting = Setting::named(&String::from_utf8_lossy(pair[0]).to_lowercase())?;
        Some((setting, setting.value(pair[1]).ok()?))
    });
    changes.flatten().collect()
}

/// Most settings are those of the configuration file. To set one to what it is does no harm.
fn config_set(args: &[&[u8]], view: &dyn NodeView, reply: &mut ReplyWriter<'_>) {
    let settings = view.settings();
    for pair in args[2..].chunks_exact(2) {
        let name = String::from_utf8_lossy(pair[0]).to_lowercase();
        if let Some(setting) = Setting::named(&name) {
            if let Err(why) = setting.value(pair[1]) {
                return reply.error(&format!(
                    "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
                ));
            }
            continue;
        }
        match settings.iter().find(|(known, _)| *known == name) {
            None => {
                return reply
                    .error(&format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"));
            }
            Some((_, value)) if value.as_bytes() != pair[1] => {
                return reply.error(&format!(
                    "ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config"
                ));
            }
            Some(_) => {}
        }
    }
    reply.simple("OK");
}

fn info(args: &[&[u8]], view: &dyn NodeView, reply: &mut ReplyWriter<'_>) {
    let wanted: Vec<String> =
        args[1..].iter().map(|arg| String::from_utf8_lossy(arg).to_lowercase()).collect();
    let everything =
        wanted.is_empty() || wanted.iter().any(|name| ["all", "default", "everything"].contains(&&**name));
    let mut text = String::new();
    for (section, lines) in view.info() {
        if !everything && !wanted.contains(&section.to_lowercase()) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str(&format!("# {section}\r\n"));
        for (key, value) in lines {
            text.push_str(&format!("{key}:{value}\r\n"));
        }
    }
    reply.verbatim(&text);
}
