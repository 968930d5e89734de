//! `flotilla exec`: one command.

use super::Failure;
use super::login::Login;
use crate::client::{Connection, Reply};
use clap::Args;
use std::time::Duration;

/// Options of `flotilla exec`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// A core's client address; a MOVED answer is followed.
    #[arg(long, short, default_value = "127.0.0.1:7000", value_name = "HOST:PORT")]
    addr: String,
    #[command(flatten)]
    login: Login,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let command: Vec<&[u8]> = options.command.iter().map(String::as_bytes).collect();
    let mut address = options.addr.clone();
    let security = options.login.security()?;
    for _ in 0..5 {
        let connection = Connection::open_secured(&address, Duration::from_secs(5), &security);
        let mut connection = connection.map_err(Failure::failed)?;
        let reply = connection.execute(&command).map_err(Failure::failed)?;
        match &reply {
            Reply::Error(error) if error.starts_with("MOVED ") => {
                address = error.rsplit(' ').next().unwrap_or_default().to_owned();
            }
            Reply::Error(error) => return Err(Failure::Failed(error.clone())),
            _ => {
                println!("{reply}");
                return Ok(());
            }
        }
    }
    Err(Failure::Failed(format!(
        "sent from node to node, last to {address}: is the cluster electing a leader?"
    )))
}
