//! The key/value server of the MIT distributed-systems labs as their handout suggests it, in threads instead of goroutines:
//! a baseline that shows what the textbook costs, and what is bought with everything that Flotilla does instead.
//!
//! * One lock around all of Raft; a thread for each connection, one for each peer, one that applies.
//! * Every change of state writes the *whole* state (term, vote, log), as the labs' `persist()` does; here to a file, with an
//!   fsync, so that it promises what the others in the comparison do. A snapshot of all keys cuts the log when it is long.
//! * Messages describe themselves, as gob's do: JSON, a line each. One call to a peer at a time.
//! * Every GET goes through the log.
//! * What a good student would do is done: replication starts when a command arrives, not at the next heartbeat; one call
//!   carries all that a peer lacks; a follower's log goes back by whole terms; the election timeout is random.
//!
//! ```text
//! naive-kv ID DIR CLIENT_PORT PEER_PORT,PEER_PORT,PEER_PORT        ID from 0
//! ```
//!
//! It speaks enough RESP for a load generator: `PING`, `SET`, `GET`, `INFO`. A node that doesn't lead answers `-NOTLEADER`.

mod peers;
mod raft;
mod resp;
mod server;

use std::net::TcpListener;
use std::sync::Arc;

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let usage = || std::io::Error::other("usage: naive-kv ID DIR CLIENT_PORT PEER_PORT,PEER_PORT,PEER_PORT");
    let [id, folder, client_port, peer_ports] = &words[..] else { return Err(usage()) };
    let id: usize = id.parse().map_err(|_| usage())?;
    let ports: Vec<u16> =
        peer_ports.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| usage())?;
    if id >= ports.len() {
        return Err(usage());
    }
    let node = Arc::new(raft::Node::open(id, ports.len(), folder.into())?);
    let for_peers = TcpListener::bind(("127.0.0.1", ports[id]))?;
    let for_clients = TcpListener::bind(("127.0.0.1", client_port.parse().map_err(|_| usage())?))?;
    peers::start(&node, for_peers, &ports);
    server::serve(&node, &for_clients);
    Ok(())
}
