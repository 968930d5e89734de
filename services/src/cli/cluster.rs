//! `flotilla cluster`: what an operator tells a running cluster.

use super::Failure;
use crate::client::{Connection, Reply};
use clap::{Args, Subcommand};
use std::time::Duration;

/// A transfer takes milliseconds, or an election timeout if nothing comes of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Subcommands of `flotilla cluster`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a node the leader of a group; clients notice nothing.
    TransferLeader(TransferLeader),
}

/// Options of `flotilla cluster transfer-leader`.
#[derive(Debug, Args)]
pub(super) struct TransferLeader {
    /// The client address of any core of the cluster.
    #[arg(long, short, default_value = "127.0.0.1:7000", value_name = "HOST:PORT")]
    addr: String,
    /// The group, counted from 0.
    #[arg(long, short)]
    group: u32,
    /// The node that is to lead it.
    #[arg(long, short)]
    node: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let Command::TransferLeader(options) = command;
    let TransferLeader { addr, group, node, json } = options;
    let mut connection = Connection::open(addr, PATIENCE).map_err(Failure::failed)?;
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
