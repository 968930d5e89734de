//! The little of etcd's gRPC interface that the benchmark speaks, its messages written out by hand.
//!
//! Field numbers are those of etcd's `rpc.proto`; fields that are never set or read are left out, as protobuf allows.

use prost::Message;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Uri};

/// `etcdserverpb.PutRequest`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`: that it came is enough.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutResponse {}

/// `etcdserverpb.RangeRequest` of one key, or of so many up to another. `serializable` is left out and so false: the read is linearizable.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) key: Vec<u8>,
    /// The first key that isn't meant any more; empty for one key.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub(crate) limit: i64,
}

impl RangeRequest {
    /// Of one key.
    pub(crate) fn one(key: Vec<u8>) -> Self {
        Self { key, range_end: Vec::new(), limit: 0 }
    }

    /// Of so many keys at most, in order, from `key` up to `range_end`.
    pub(crate) fn of(key: Vec<u8>, range_end: Vec<u8>, limit: i64) -> Self {
        Self { key, range_end, limit }
    }
}

/// `etcdserverpb.RangeResponse`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    pub(crate) kvs: Vec<KeyValue>,
}

/// `mvccpb.KeyValue`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) value: Vec<u8>,
}

/// `etcdserverpb.StatusRequest`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusRequest {}

/// `etcdserverpb.StatusResponse`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
}

/// `etcdserverpb.ResponseHeader`
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
}

/// A client on one HTTP/2 connection. Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    grpc: Grpc<Channel>,
    put: Uri,
    range: Uri,
    status: Uri,
}

impl Client {
    /// Connects to a member.
    pub(crate) async fn connect(address: &str) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{address}: {error}");
        let endpoint = Channel::from_shared(format!("http://{address}")).map_err(|error| wrong(&error))?;
        let channel = endpoint.tcp_nodelay(true).connect().await.map_err(|error| wrong(&error))?;
        Ok(Self {
            grpc: Grpc::new(channel),
            put: Uri::from_static("/etcdserverpb.KV/Put"),
            range: Uri::from_static("/etcdserverpb.KV/Range"),
            status: Uri::from_static("/etcdserverpb.Maintenance/Status"),
        })
    }

    /// Writes a key.
    pub(crate) async fn put(&mut self, request: PutRequest) -> Result<PutResponse, Status> {
        let path = self.put.clone();
        self.call(&path, request).await
    }

    /// Reads a key, linearizably.
    pub(crate) async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let path = self.range.clone();
        self.call(&path, request).await
    }

    /// Who leads.
    pub(crate) async fn status(&mut self) -> Result<StatusResponse, Status> {
        let path = self.status.clone();
        self.call(&path, StatusRequest {}).await
    }

    async fn call<Request, Response>(&mut self, path: &Uri, request: Request) -> Result<Response, Status>
    where
        Request: Message + Send + Sync + 'static,
        Response: Message + Default + Send + Sync + 'static,
    {
        let path = path.path_and_query().cloned().ok_or_else(|| Status::internal("a path is constant"))?;
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = Prost(std::marker::PhantomData);
        Ok(self.grpc.unary(tonic::Request::new(request), path, codec).await?.into_inner())
    }
}

/// Messages to bytes and back.
struct Prost<Request, Response>(std::marker::PhantomData<(Request, Response)>);

impl<Request, Response> Codec for Prost<Request, Response>
where
    Request: Message + Send + Sync + 'static,
    Response: Message + Default + Send + Sync + 'static,
{
    type Encode = Request;
    type Decode = Response;
    type Encoder = Prost<Request, ()>;
    type Decoder = Prost<(), Response>;

    fn encoder(&mut self) -> Self::Encoder {
        Prost(std::marker::PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Prost(std::marker::PhantomData)
    }
}

impl<Request: Message> Encoder for Prost<Request, ()> {
    type Item = Request;
    type Error = Status;

    fn encode(&mut self, item: Request, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<Response: Message + Default> Decoder for Prost<(), Response> {
    type Item = Response;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Response>, Status> {
        Response::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_etcds_bytes() {
        let put = PutRequest { key: b"k".to_vec(), value: b"v".to_vec() };
        assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x01v");
        assert_eq!(RangeRequest::one(b"k".to_vec()).encode_to_vec(), b"\x0a\x01k");
        let scan = RangeRequest::of(b"k".to_vec(), b"l".to_vec(), 9);
        assert_eq!(scan.encode_to_vec(), b"\x0a\x01k\x12\x01l\x18\x09");
        // A range response with header (1), one pair (2) of key (1), version (4) and value (5), and count (4).
        let wire = b"\x0a\x02\x10\x07\x12\x08\x0a\x01k\x20\x01\x2a\x01v\x20\x01";
        let range = RangeResponse::decode(&wire[..]).unwrap();
        assert_eq!(range.kvs, [KeyValue { value: b"v".to_vec() }]);
        let status = StatusResponse::decode(&b"\x0a\x02\x10\x07\x12\x01x\x20\x07"[..]).unwrap();
        assert_eq!((status.leader, status.version.as_str()), (7, "x"));
        assert_eq!(status.header.unwrap().member_id, 7);
    }
}
