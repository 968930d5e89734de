//! What is measured: a Flotilla cluster or a peer, started here or running already, behind one face.

pub(crate) mod built;
pub(crate) mod flotilla;
pub(crate) mod peer;
pub(crate) mod process;

use std::time::Duration;

use crate::cpu::{CpuReading, CpuUsed};
use crate::engine::{self, slots::SlotMap};
use crate::error::{BenchError, Result};
use crate::etcd::{self, EtcdCluster};
use crate::interrupt::Interrupt;
use crate::recorder::Recorder;
use crate::workload::{Load, Phases};
use crate::zookeeper::{self, Ensemble};
use process::Process;

/// How it is spoken to.
#[derive(Debug)]
pub(crate) enum Driver {
    /// Redis' protocol, with or without a cluster.
    Resp(SlotMap),
    /// gRPC.
    Etcd(EtcdCluster),
    /// ZooKeeper's own protocol.
    ZooKeeper(Ensemble),
}

/// Something under load.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its name in results.
    pub(crate) name: String,
    /// It is what ratios are of, and not a peer.
    pub(crate) is_subject: bool,
    /// What it says it is.
    pub(crate) version: String,
    /// What a reply to a write promises.
    pub(crate) durability: String,
    /// Its processes, where known.
    pub(crate) pids: Vec<u32>,
    /// How it is spoken to.
    pub(crate) driver: Driver,
    /// Those of its processes that end with this value.
    #[expect(dead_code, reason = "held for its Drop")]
    pub(crate) processes: Vec<Process>,
}

impl Target {
    /// Has every key of `fill` written, each once.
    ///
    /// # Errors
    /// As of [`run`](Self::run); and [`BenchError::Failed`] if some couldn't be.
    pub(crate) fn fill(&self, fill: &Load, interrupt: &Interrupt) -> Result<()> {
        let (recorder, _) = self.run(fill, interrupt)?;
        let (done, all) = (recorder.operations(), fill.operations.keys);
        let reason = || format!("wrote {done} of {all} keys; errors: {:?}", recorder.errors);
        if done < all { Err(self.failed("fill", reason())) } else { Ok(()) }
    }

    /// A load on it means nothing.
    pub(crate) fn failed(&self, scenario: &str, reason: String) -> BenchError {
        BenchError::Failed { scenario: scenario.to_owned(), target: self.name.clone(), reason }
    }

    /// Puts `load` on it; what happened, and what it cost while it was measured.
    pub(crate) fn run(&self, load: &Load, interrupt: &Interrupt) -> Result<(Recorder, CpuUsed)> {
        // Opening connections isn't part of the warm-up.
        let lead = match &self.driver {
            Driver::Resp(_) => Duration::from_millis(5),
            Driver::Etcd(cluster) => {
                Duration::from_millis(2) * load.clients.min(cluster.connections_max) as u32
            }
            // A session is a write, and they share syncs.
            Driver::ZooKeeper(_) => {
                Duration::from_millis(20) + Duration::from_millis(1) * load.clients as u32
            }
        };
        let phases = Phases::of(load, lead);
        let watch = || {
            if load.operations.fill {
                return Ok(CpuUsed::NONE);
            }
            interrupt.sleep_until(phases.instant(phases.measure_ns))?;
            let before = CpuReading::take(&self.pids);
            interrupt.sleep_until(phases.instant(phases.end_ns))?;
            Ok(CpuReading::take(&self.pids).since(&before))
        };
        match &self.driver {
            Driver::Resp(map) => engine::run(load, phases, map, interrupt, watch),
            Driver::Etcd(cluster) => etcd::run(load, phases, cluster, interrupt, watch),
            Driver::ZooKeeper(ensemble) => zookeeper::run(load, phases, ensemble, interrupt, watch),
        }
    }
}
