//! `flotilla cluster`: what an operator tells a running cluster.

mod members;
mod nodes;
mod rebalance;

use super::Failure;
use super::login::Login;
use super::progress::{self, Progress};
use crate::client::{Connection, Reply};
use crate::hands::{Stopwatch, pause};
use clap::{Args, Subcommand};
use std::time::Duration;

/// A transfer takes milliseconds, or an election timeout if nothing comes of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often progress is shown.
const INTERVAL: Duration = Duration::from_millis(250);

/// Subcommands of `flotilla cluster`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Let groups serve shards; shards move to them until the loads are even.
    Join(Groups),
    /// Let groups serve no shard any more; theirs move to the others.
    Leave(Groups),
    /// Move one shard to a group.
    Move(Move),
    /// Show a configuration: which group is to serve which shard.
    Query(Query),
    /// Show where the shards are and what is on its way.
    Status(Common),
    /// Show which node has which groups' replicas, and which it leads.
    Nodes(Common),
    /// Spread the groups' replicas evenly over nodes, with the fewest moves, while the cluster serves.
    Rebalance(rebalance::Rebalance),
    /// Let a node take the place of another, which may be dead.
    Replace(rebalance::Replace),
    /// Let a node have no replica any more; the others get its own.
    Remove(rebalance::Remove),
    /// Make a node the leader of a group; clients notice nothing.
    TransferLeader(TransferLeader),
}

/// Whom they all ask, and how they tell what came of it.
#[derive(Debug, Args)]
pub(super) struct Asking {
    /// The client address of any core of the cluster; not of a node that is to go.
    #[arg(long, short, default_value = "127.0.0.1:7000", value_name = "HOST:PORT")]
    addr: String,
    #[command(flatten)]
    login: Login,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Options of those that concern shards.
#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    asking: Asking,
    /// Return only when every shard is where it is to be.
    #[arg(long)]
    wait: bool,
    /// Give up waiting after so many seconds.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
}

/// Options of `flotilla cluster join` and `leave`.
#[derive(Debug, Args)]
pub(super) struct Groups {
    /// The groups, counted from 0. `3:2` joins group 3 with twice the usual weight.
    #[arg(required = true)]
    groups: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// Options of `flotilla cluster move`.
#[derive(Debug, Args)]
pub(super) struct Move {
    /// The shard, counted from 0.
    shard: u16,
    /// The group that is to serve it.
    group: u32,
    #[command(flatten)]
    common: Common,
}

/// Options of `flotilla cluster query`.
#[derive(Debug, Args)]
pub(super) struct Query {
    /// The configuration's number [default: the newest].
    number: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// Options of `flotilla cluster transfer-leader`.
#[derive(Debug, Args)]
pub(super) struct TransferLeader {
    #[command(flatten)]
    asking: Asking,
    /// The group, counted from 0.
    #[arg(long, short)]
    group: u32,
    /// The node that is to lead it.
    #[arg(long, short)]
    node: u32,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Join(it) => change(&it.common, "JOIN", &it.groups),
        Command::Leave(it) => change(&it.common, "LEAVE", &it.groups),
        Command::Move(it) => change(&it.common, "MOVE", &[it.shard.to_string(), it.group.to_string()]),
        Command::Query(it) => query(it),
        Command::Status(common) => status(common),
        Command::Nodes(common) => nodes::run(common),
        Command::Rebalance(it) => rebalance::rebalance(it),
        Command::Replace(it) => rebalance::replace(it),
        Command::Remove(it) => rebalance::remove(it),
        Command::TransferLeader(it) => transfer(it),
    }
}

fn ask(common: &Common, words: &[&str]) -> Result<Reply, Failure> {
    let security = common.asking.login.security()?;
    let args: Vec<&[u8]> =
        std::iter::once(&b"FLOTILLA.CLUSTER"[..]).chain(words.iter().map(|word| word.as_bytes())).collect();
    progress::execute(&common.asking.addr, &security, &args).map_err(Failure::failed)
}

fn change(common: &Common, what: &str, words: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = std::iter::once(what).chain(words.iter().map(String::as_str)).collect();
    let Reply::Integer(number) = ask(common, &words)? else {
        return Err(Failure::Failed("the answer is no configuration's number".to_owned()));
    };
    if common.wait {
        wait(common, number.unsigned_abs())?;
    }
    if common.asking.json {
        println!("{}", serde_json::json!({ "configuration": number, "complete": common.wait }));
    } else {
        let complete = if common.wait { ", and every shard is where it says" } else { "" };
        println!("configuration {number}{complete}");
    }
    Ok(())
}

/// Waits until this configuration, or a newer one, is what the shards follow, with a line of progress where somebody looks.
fn wait(common: &Common, number: u64) -> Result<(), Failure> {
    let clock = Stopwatch::start();
    let security = common.asking.login.security()?;
    let mut first: Option<Progress> = None;
    loop {
        let seen = progress::look(&common.asking.addr, &security).map_err(Failure::failed)?;
        if seen.configuration >= number && seen.is_complete() {
            return Ok(());
        }
        let first = first.get_or_insert_with(|| seen.clone());
        if !common.asking.json {
            eprintln!("  {}", seen.line(first, clock.elapsed()));
        }
        if clock.elapsed() > Duration::from_secs(common.timeout) {
            let line = seen.line(first, clock.elapsed());
            return Err(Failure::Failed(format!("not complete after {} s: {line}", common.timeout)));
        }
        pause(INTERVAL);
    }
}

fn query(options: &Query) -> Result<(), Failure> {
    let number = options.number.map(|number| number.to_string());
    let words: Vec<&str> = std::iter::once("QUERY").chain(number.as_deref()).collect();
    let lines = progress::lines(&ask(&options.common, &words)?);
    if !options.common.asking.json {
        lines.iter().for_each(|line| println!("{line}"));
        return Ok(());
    }
    let field = |line: &str, name: &str| {
        line.split(' ').skip_while(|word| *word != name).nth(1).unwrap_or_default().to_owned()
    };
    let number = |line: &str, name: &str| field(line, name).parse::<u64>().unwrap_or(0);
    let groups: Vec<_> = lines[1..]
        .iter()
        .map(|line| {
            let shards = progress::numbers(&field(line, "shards"));
            let nodes: Vec<u32> =
                field(line, "nodes").split(',').filter_map(|node| node.parse().ok()).collect();
            let (group, weight) = (number(line, "group"), number(line, "weight"));
            serde_json::json!({ "group": group, "weight": weight, "nodes": nodes, "shards": shards })
        })
        .collect();
    let configuration = number(&lines[0], "configuration");
    println!("{}", serde_json::json!({ "configuration": configuration, "groups": groups }));
    Ok(())
}

fn status(common: &Common) -> Result<(), Failure> {
    if common.wait {
        wait(common, 0)?;
    }
    let seen =
        progress::look(&common.asking.addr, &common.asking.login.security()?).map_err(Failure::failed)?;
    if common.asking.json {
        println!("{}", serde_json::to_string(&seen).expect("plain data"));
        return Ok(());
    }
    println!("configuration {}: {}", seen.configuration, seen.summary());
    for group in &seen.groups {
        println!("  {group}");
    }
    Ok(())
}

fn transfer(options: &TransferLeader) -> Result<(), Failure> {
    let TransferLeader { asking: Asking { addr, login, json }, group, node } = options;
    let security = login.security()?;
    let mut connection = Connection::open_secured(addr, PATIENCE, &security).map_err(Failure::failed)?;
    let (number, to) = (group.to_string(), node.to_string());
    let command: [&[u8]; 3] = [b"FLOTILLA.TRANSFER", number.as_bytes(), to.as_bytes()];
    match connection.execute(&command).map_err(Failure::failed)? {
        Reply::Error(error) => Err(Failure::Failed(format!("group {group}: {error}"))),
        _ if *json => {
            println!("{}", serde_json::json!({ "group": group, "leader": node }));
            Ok(())
        }
        _ => {
            println!("node {node} leads group {group}");
            Ok(())
        }
    }
}
