//! The end of a load, for a protocol in which clients take their leave.

use std::io;
use std::time::Duration;

use mio::{Events, Token};

use super::{EventLoop, TIMER};
use crate::engine::connection::Connection;
use crate::engine::protocol::Protocol;
use crate::error::{BenchError, Result};

/// How long servers may take to let the clients go.
const PART_MAX_NS: u64 = 5_000_000_000;

impl<P: Protocol> EventLoop<'_, P> {
    /// Takes leave on every connection and waits until the servers have hung up.
    ///
    /// A session that was merely dropped is ended by its servers when it expires, at the cost of whoever is measured then.
    pub(super) fn part(&mut self, events: &mut Events) -> Result<()> {
        for (index, connection) in self.connections.iter_mut().enumerate().filter(|(_, it)| it.is_open()) {
            if !self.protocol.append_farewell(index, &mut connection.out) {
                return Ok(());
            }
            if connection.flush().is_err() {
                connection.close();
            }
        }
        let until_ns = self.shared.phases.now_ns() + PART_MAX_NS;
        while self.connections.iter().any(Connection::is_open) && self.shared.phases.now_ns() < until_ns {
            self.shared.interrupt.check()?;
            match self.poll.poll(events, Some(Duration::from_millis(20))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(BenchError::io("waiting for sockets")(error));
                }
                _ => {}
            }
            for event in events.iter().filter(|event| event.token() != TIMER) {
                let Token(index) = event.token();
                let connection = &mut self.connections[index];
                let written = if event.is_writable() { connection.on_writable() } else { Ok(()) };
                // What comes together with the end is one event, and reading it doesn't show the end.
                let ended = event.is_read_closed() || event.is_error();
                if written.and_then(|()| discard(connection)).is_err() || ended {
                    connection.close();
                }
            }
        }
        Ok(())
    }
}

/// Reads what there is.
fn discard(connection: &mut Connection) -> io::Result<()> {
    loop {
        let more = connection.receive()?;
        let (received, filled) = connection.take_received();
        connection.give_received(received, filled);
        if !more {
            return Ok(());
        }
    }
}
