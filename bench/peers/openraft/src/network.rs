//! No network: a request is a call of the other replica.

use crate::Types;
use openraft::error::{InstallSnapshotError, RPCError, RaftError};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{BasicNode, Raft};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Who is where.
#[derive(Clone, Default)]
pub struct Router(Arc<Mutex<BTreeMap<u64, Raft<Types>>>>);

impl Router {
    pub fn add(&self, id: u64, raft: Raft<Types>) {
        self.0.lock().expect("one thread").insert(id, raft);
    }
}

impl RaftNetworkFactory<Types> for Router {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Link {
        Link { router: self.clone(), target, raft: None }
    }
}

/// The way to one replica.
pub struct Link {
    router: Router,
    target: u64,
    raft: Option<Raft<Types>>,
}

impl Link {
    fn raft(&mut self) -> Raft<Types> {
        if self.raft.is_none() {
            self.raft = self.router.0.lock().expect("one thread").get(&self.target).cloned();
        }
        self.raft.clone().expect("all are started before the first one speaks")
    }
}

type Failure<E = openraft::error::Infallible> = RPCError<u64, BasicNode, RaftError<u64, E>>;

fn failed<E: std::error::Error>(error: RaftError<u64, E>, target: u64) -> RPCError<u64, BasicNode, RaftError<u64, E>> {
    RPCError::RemoteError(openraft::error::RemoteError::new(target, error))
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failure> {
        let target = self.target;
        self.raft().append_entries(request).await.map_err(|error| failed(error, target))
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failure<InstallSnapshotError>> {
        let target = self.target;
        self.raft().install_snapshot(request).await.map_err(|error| failed(error, target))
    }

    async fn vote(&mut self, request: VoteRequest<u64>, _: RPCOption) -> Result<VoteResponse<u64>, Failure> {
        let target = self.target;
        self.raft().vote(request).await.map_err(|error| failed(error, target))
    }
}
