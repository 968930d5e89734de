//! The same load on etcd: gRPC over HTTP/2, every request in flight a task of its own.
//!
//! A client with a pipeline of P is P tasks that share the client's connection, which is what HTTP/2 multiplexing is
//! for. Clients get a connection each up to [`CONNECTIONS_MAX`], and share beyond. All go to the leader, so no request
//! pays a forward. Each thread runs its tasks on one single-threaded executor: the cheapest there is.

mod tasks;
mod wire;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::error::{BenchError, Result};
use crate::interrupt::Interrupt;
use crate::recorder::Recorder;
use crate::workload::{Load, Phases};
use wire::Client;

/// Connections of a load by default: as many as clients, up to this.
///
/// Measured with 64 clients on two CPUs: with a connection each, an operation costs etcd and its client together a
/// quarter to a half more CPU than with 1 to 8 connections, which differ by less than the noise. Fewer connections
/// carry several requests in one system call. This is the middle of etcd's best range, and its own `benchmark` tool
/// shares connections between clients the same way (`--conns`, `--clients`).
pub(crate) const CONNECTIONS_MAX: usize = 4;

/// An etcd cluster, as a load sees it.
#[derive(Clone, Debug)]
pub(crate) struct EtcdCluster {
    /// The leader's client address.
    pub(crate) leader: String,
    /// What the leader says it runs.
    pub(crate) version: String,
    /// Connections of a load, at most.
    pub(crate) connections_max: usize,
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().map_err(BenchError::io("creating an executor"))
}

/// Finds the leader among `members`; none while they have none.
pub(crate) fn find_leader(members: &[String], connections_max: usize) -> Result<Option<EtcdCluster>> {
    runtime()?.block_on(async {
        for member in members {
            let asking = async {
                let mut client = Client::connect(member).await.ok()?;
                let status = client.status().await.ok()?;
                let leads =
                    status.leader != 0 && status.header.is_some_and(|it| it.member_id == status.leader);
                leads.then_some(EtcdCluster {
                    leader: member.clone(),
                    version: status.version,
                    connections_max,
                })
            };
            if let Ok(Some(cluster)) = tokio::time::timeout(Duration::from_secs(1), asking).await {
                return Ok(Some(cluster));
            }
        }
        Ok(None)
    })
}

/// Runs `load` on `cluster`, calling `watch` meanwhile on this thread.
pub(crate) fn run<T>(
    load: &Load,
    phases: Phases,
    cluster: &EtcdCluster,
    interrupt: &Interrupt,
    watch: impl FnOnce() -> Result<T>,
) -> Result<(Recorder, T)> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..load.threads)
            .map(|thread| scope.spawn(move || tasks::run(load, phases, cluster, interrupt, thread)))
            .collect();
        let watched = watch();
        Ok((Recorder::of_all(threads)?, watched?))
    })
}
