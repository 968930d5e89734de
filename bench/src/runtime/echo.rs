//! A node whose cores send back whatever comes.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use flotilla_runtime::driver::{self, CoreOptions, NodeHandle, NodeOptions};
use flotilla_runtime::{CoreBoot, Effect, Effects, Event, Machine, Nanos, NodeId, Now};

use crate::error::{BenchError, Result};
use crate::report;

/// A server for `flotilla-bench runtime`: prints its address
#[derive(Clone, Debug, Args)]
pub(crate) struct EchoArgs {
    /// Cores; the first one's address is printed
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    cores: u16,
    /// Microseconds for which a core looks for more before it sleeps; the default is a node's
    #[arg(long, default_value_t = 100)]
    busy_poll_us: u64,
}

/// Sends everything back.
struct Echo;

impl Machine for Echo {
    type Message = ();

    fn step(&mut self, _: Now, event: Event<'_, ()>, out: &mut Effects<()>) {
        match event {
            Event::Client { conn, bytes, taken } => {
                taken.bytes = bytes.len();
                out.push(Effect::Reply { conn, bytes: bytes.to_vec() });
            }
            Event::Shutdown => out.push(Effect::Drained),
            _ => {}
        }
    }

    fn flush(&mut self, _: Now, _: &mut Effects<()>) {}

    fn deadline(&self) -> Option<Nanos> {
        None
    }
}

/// Serves until it is killed. What its cores need of a disk is in the working folder, which is its parent's to remove.
pub(crate) fn serve(args: &EchoArgs) -> Result<()> {
    let io = BenchError::io;
    let mut options = NodeOptions::new(NodeId(1), 1, 1);
    options.busy_poll = Duration::from_micros(args.busy_poll_us);
    let mut addresses = Vec::new();
    for core in 0..args.cores {
        let port = || TcpListener::bind("127.0.0.1:0").map_err(io("binding a port"));
        let (clients, peers) = (port()?, port()?);
        addresses.push(clients.local_addr().map_err(io("binding a port"))?);
        let folder = PathBuf::from(format!("core-{core}"));
        std::fs::create_dir_all(&folder).map_err(io("making a folder"))?;
        options.cores.push(CoreOptions { clients, peers, folder });
    }
    let build = |_: CoreBoot| Ok(Echo);
    let ready = || {
        // Who can't be told reads no address, and says so.
        let _ = report::print(&format!("{}\n", addresses[0]));
    };
    driver::run(options, build, NodeHandle::new(), ready).map_err(|error| BenchError::Failed {
        scenario: "echo".to_owned(),
        target: "flotilla".to_owned(),
        reason: error.to_string(),
    })
}
