//! Calls between nodes: a thread for each peer, a line of JSON there and one back.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::raft::{Command, Entry, Node, Reply, Request, Role};

const HEARTBEAT: Duration = Duration::from_millis(100);
const REPLY_MAX: Duration = Duration::from_secs(1);

/// Answers the others, calls the others, applies, holds elections.
pub fn start(node: &Arc<Node>, listener: TcpListener, ports: &[u16]) {
    let of = Arc::clone(node);
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let node = Arc::clone(&of);
            std::thread::spawn(move || answer(&node, &socket));
        }
    });
    for (peer, port) in ports.iter().enumerate().filter(|(peer, _)| *peer != node.id) {
        let (node, port) = (Arc::clone(node), *port);
        std::thread::spawn(move || replicate(&node, peer, port));
    }
    let (of, ports) = (Arc::clone(node), ports.to_vec());
    std::thread::spawn(move || elect(&of, &ports));
    let node = Arc::clone(node);
    std::thread::spawn(move || node.apply());
}

fn answer(node: &Node, socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let (mut reader, mut writer) = (BufReader::new(socket), socket);
    let mut line = String::new();
    while matches!(reader.read_line(&mut line), Ok(1..)) {
        let Ok(request) = serde_json::from_str(&line) else { return };
        let mut reply = serde_json::to_vec(&node.handle(request)).expect("it has a form");
        reply.push(b'\n');
        if writer.write_all(&reply).is_err() {
            return;
        }
        line.clear();
    }
}

/// A connection that is opened when it is needed.
struct Wire {
    port: u16,
    socket: Option<BufReader<TcpStream>>,
}

impl Wire {
    fn call(&mut self, request: &Request) -> Option<Reply> {
        let reply = self.try_call(request);
        if reply.is_none() {
            self.socket = None;
        }
        reply
    }

    fn try_call(&mut self, request: &Request) -> Option<Reply> {
        if self.socket.is_none() {
            let socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            socket.set_nodelay(true).ok()?;
            socket.set_read_timeout(Some(REPLY_MAX)).ok()?;
            self.socket = Some(BufReader::new(socket));
        }
        let reader = self.socket.as_mut()?;
        let mut line = serde_json::to_vec(request).ok()?;
        line.push(b'\n');
        reader.get_mut().write_all(&line).ok()?;
        let mut answer = String::new();
        match reader.read_line(&mut answer) {
            Ok(1..) => serde_json::from_str(&answer).ok(),
            _ => None,
        }
    }
}

/// Sends a peer what it lacks, at once, and a heartbeat when it lacks nothing.
fn replicate(node: &Node, peer: usize, port: u16) {
    let mut wire = Wire { port, socket: None };
    let (mut told, mut sent) = (0, Instant::now());
    loop {
        let mut state = node.lock();
        while state.role != Role::Leader
            || (state.next[peer] > state.last_index() && told == state.commit && sent.elapsed() < HEARTBEAT)
        {
            let waited = node.to_send.wait_timeout(state, HEARTBEAT / 2);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let (term, leader, prev_index) = (state.persistent.term, node.id, state.next[peer] - 1);
        let (request, end) = match state.term_at(prev_index) {
            Some(prev_term) => {
                let from = (prev_index - state.persistent.base_index) as usize;
                let entries = state.persistent.log[from..].to_vec();
                let (end, commit) = (prev_index + entries.len() as u64, state.commit);
                told = commit;
                (Request::Append { term, leader, prev_index, prev_term, entries, commit }, end)
            }
            None => {
                let index = state.applied;
                let index_term = state.term_at(index).expect("applied entries are in the log");
                (Request::Snapshot { term, leader, index, index_term, keys: state.keys.clone() }, index)
            }
        };
        drop(state);
        sent = Instant::now();
        let Some(reply) = wire.call(&request) else {
            std::thread::sleep(HEARTBEAT / 2);
            continue;
        };
        let mut state = node.lock();
        if reply.term > state.persistent.term {
            state.become_follower(reply.term);
        } else if state.role == Role::Leader && state.persistent.term == term {
            if reply.success {
                state.matched[peer] = state.matched[peer].max(end);
                state.next[peer] = end + 1;
                node.advance(&mut state);
            } else {
                state.next[peer] = reply.retry_from.clamp(1, state.next[peer]);
            }
        }
    }
}

/// Asks for votes when the leader is silent.
fn elect(node: &Arc<Node>, ports: &[u16]) {
    let mut timeout = node.election_timeout();
    loop {
        std::thread::sleep(Duration::from_millis(10));
        let mut state = node.lock();
        if state.role == Role::Leader || state.heard.elapsed() < timeout {
            continue;
        }
        timeout = node.election_timeout();
        state.heard = Instant::now();
        state.role = Role::Candidate;
        state.persistent.term += 1;
        state.persistent.voted_for = Some(node.id);
        state.persist();
        let (term, last_index) = (state.persistent.term, state.last_index());
        let last_term = state.term_at(last_index).unwrap_or(0);
        drop(state);
        let calls: Vec<_> = ports
            .iter()
            .enumerate()
            .filter(|(peer, _)| *peer != node.id)
            .map(|(_, port)| {
                let (port, candidate) = (*port, node.id);
                std::thread::spawn(move || {
                    Wire { port, socket: None }.call(&Request::Vote {
                        term,
                        candidate,
                        last_index,
                        last_term,
                    })
                })
            })
            .collect();
        let replies: Vec<Reply> = calls.into_iter().filter_map(|call| call.join().ok().flatten()).collect();
        let votes = 1 + replies.iter().filter(|reply| reply.success).count();
        let newest = replies.iter().map(|reply| reply.term).max().unwrap_or(0);
        let mut state = node.lock();
        if newest > state.persistent.term {
            state.become_follower(newest);
        } else if votes > node.nodes / 2 && state.persistent.term == term && state.role == Role::Candidate {
            state.role = Role::Leader;
            // An entry of its own term, so that those before it can be committed.
            state.persistent.log.push(Entry { term, command: Command::Nothing });
            state.persist();
            let last = state.last_index();
            state.next = vec![last; node.nodes];
            state.matched = vec![0; node.nodes];
            state.matched[node.id] = last;
            node.to_send.notify_all();
        }
    }
}
