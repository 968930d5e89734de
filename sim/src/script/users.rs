//! Commands to chosen nodes, and what became of them.
//!
//! Every command has a connection of its own, on which nothing is delayed or lost: what happens to it is the node's doing.

use super::{Happening, Script};
use flotilla_consensus::Role;
use flotilla_runtime::machine::Taken;
use flotilla_runtime::{ConnId, Event};
use flotilla_services::client::{Reply, parse_reply};

/// A command that was given to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallId(usize);

/// How a command ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A reply came.
    Reply(Reply),
    /// The connection broke without one: it may have happened or not.
    Lost,
}

impl Answer {
    /// Whether it says that the command was done.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Reply(reply) if !matches!(reply, Reply::Error(_)))
    }

    /// Whether it says that the command wasn't done, and is for another node.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Reply(Reply::Error(text)) if is_for_another(text))
    }
}

/// Whether an error says that nothing was done, and that somebody else, or later, might.
pub fn is_for_another(error: &str) -> bool {
    ["MOVED ", "CLUSTERDOWN ", "TRYAGAIN ", "BUSY "].iter().any(|word| error.starts_with(word))
}

#[derive(Debug)]
pub(super) struct Call {
    input: Vec<u8>,
    answer: Option<Answer>,
    /// Where its entry went, if the node took it as the leader.
    placed: Option<(u64, u64)>,
}

impl Script {
    /// Gives a command to a node, whether it leads or not. One that is down loses it.
    pub fn ask(&mut self, node: usize, args: &[&str]) -> CallId {
        let id = self.calls.len();
        self.calls.push(Call { input: Vec::new(), answer: None, placed: None });
        if !self.is_up(node) {
            self.calls[id].answer = Some(Answer::Lost);
            return CallId(id);
        }
        let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            bytes.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
        }
        let this = &mut self.nodes[node];
        this.last_conn += 1;
        let conn = ConnId(this.last_conn);
        this.conns.insert(conn.0, id);
        let before = self.last_entry(node);
        let mut taken = Taken::default();
        self.step(node, Event::Opened { conn, is_local: true });
        self.step(node, Event::Client { conn, bytes: &bytes, taken: &mut taken });
        let after = self.last_entry(node);
        if after > before && self.role(node) == Some(Role::Leader) {
            self.calls[id].placed = Some(after);
        }
        CallId(id)
    }

    /// What became of a command, if anything did.
    pub fn answer(&self, call: CallId) -> Option<&Answer> {
        self.calls[call.0].answer.as_ref()
    }

    /// The (index, term) of a command's entry, if its node proposed it.
    pub fn placed(&self, call: CallId) -> Option<(u64, u64)> {
        self.calls[call.0].placed
    }

    /// Waits for the answer to a command.
    ///
    /// # Errors
    /// There is none within so many milliseconds, or a rule broke.
    pub fn answered(&mut self, call: CallId, limit_ms: u64) -> Result<Answer, String> {
        self.wait(limit_ms, "the answer to a command", |script| script.answer(call).is_some())?;
        Ok(self.answer(call).cloned().unwrap_or(Answer::Lost))
    }

    /// The labs' `one`: gives a write to whoever leads among the connected until it is done, and waits until so many nodes
    /// have applied it; returns its index and reply. Without `again`, the first try must do.
    ///
    /// # Errors
    /// It isn't done by so many within ten seconds, or a rule broke.
    pub fn one(&mut self, args: &[&str], on: usize, again: bool) -> Result<(u64, Reply), String> {
        let end = self.now_ms() + 10_000;
        loop {
            let left = end.saturating_sub(self.now_ms());
            self.wait(left, "a leader for a command", |script| left > 0 && script.leader().is_some())?;
            let call = self.leader().map(|leader| self.ask(leader, args));
            if let Some(call) = call
                && let Some((index, term)) = self.placed(call)
            {
                let is_done = |script: &Self| {
                    script.answer(call).is_some_and(Answer::is_done) && script.having(index, term) >= on
                };
                let patience = left.min(2_000);
                let done = self.wait(patience, "a command is done", is_done);
                if let (Ok(()), Some(Answer::Reply(reply))) = (&done, self.answer(call)) {
                    return Ok((index, reply.clone()));
                }
                self.unbroken()?;
                if !again {
                    done?;
                }
            }
            // Whoever leads hasn't learned yet what it may do, or not any more.
            self.run_for(if again { 50 } else { 1 })?;
        }
    }

    /// Bytes came back from a node.
    pub(super) fn replied(&mut self, node: usize, conn: u64, bytes: &[u8]) -> Result<(), String> {
        let Some(id) = self.nodes[node].conns.get(&conn) else { return Ok(()) };
        let call = &mut self.calls[*id];
        call.input.extend_from_slice(bytes);
        if let Some((reply, length)) = parse_reply(&call.input)? {
            if length != call.input.len() || call.answer.is_some() {
                return Err(format!("node {} answers one command twice", node + 1));
            }
            call.answer = Some(Answer::Reply(reply));
            let life = self.nodes[node].life;
            self.at(self.now + 1, Happening::Gone { node, life, conn });
        }
        Ok(())
    }

    /// The node closes a connection.
    pub(super) fn closed(&mut self, node: usize, conn: u64) {
        if let Some(id) = self.nodes[node].conns.get(&conn) {
            self.calls[*id].answer.get_or_insert(Answer::Lost);
        }
        let life = self.nodes[node].life;
        self.at(self.now + 1, Happening::Gone { node, life, conn });
    }

    /// The client hangs up.
    pub fn hang_up(&mut self, node: usize, call: CallId) {
        let conn = self.nodes[node].conns.iter().find(|(_, id)| **id == call.0).map(|(conn, _)| *conn);
        if let Some(conn) = conn {
            self.calls[call.0].answer.get_or_insert(Answer::Lost);
            self.gone(node, conn);
        }
    }

    pub(super) fn gone(&mut self, node: usize, conn: u64) {
        if self.nodes[node].conns.remove(&conn).is_some() {
            self.step(node, Event::Closed { conn: ConnId(conn) });
        }
    }

    pub(super) fn lose_calls(&mut self, node: usize) {
        for id in std::mem::take(&mut self.nodes[node].conns).into_values() {
            self.calls[id].answer.get_or_insert(Answer::Lost);
        }
    }
}
