//! A socket that is written to without waiting.
//!
//! [`Outlet::send`] hands bytes to the kernel at once, in the turn that made them. Only what the kernel doesn't
//! take is kept, and a task of its own brings it after.

use super::fd;
use futures_lite::AsyncWriteExt;
use rustix::net::{SendFlags, send};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;

/// The sending half of a connection.
#[derive(Debug)]
pub(super) struct Outlet {
    socket: TcpStream,
    /// What the kernel hasn't taken yet.
    rest: RefCell<Vec<u8>>,
    writing: Cell<bool>,
    /// Shut the sending direction down once the rest is out.
    ending: Cell<bool>,
    broken: Cell<bool>,
}

impl Outlet {
    pub(super) fn new(socket: TcpStream) -> Rc<Self> {
        Rc::new(Self {
            socket,
            rest: RefCell::default(),
            writing: Cell::new(false),
            ending: Cell::new(false),
            broken: Cell::new(false),
        })
    }

    /// Bytes that wait for the other side to read.
    pub(super) fn waiting(&self) -> usize {
        self.rest.borrow().len()
    }

    /// Sends what can be sent now and keeps the rest.
    pub(super) fn send(self: &Rc<Self>, bytes: &[u8]) {
        if self.broken.get() {
            return;
        }
        let mut sent = 0;
        while !self.writing.get() && sent < bytes.len() {
            match send(&self.socket, &bytes[sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.bring_after(),
                Err(_) => return self.cut(),
            }
        }
        if sent < bytes.len() {
            self.rest.borrow_mut().extend_from_slice(&bytes[sent..]);
        }
    }

    /// No more will be sent: the other side gets an end of file after the last byte.
    pub(super) fn end(&self) {
        self.ending.set(true);
        if !self.writing.get() {
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Breaks the connection off: both sides get an end of file (or a reset) now.
    pub(super) fn cut(&self) {
        self.broken.set(true);
        *self.rest.borrow_mut() = Vec::new();
        // It fails only if the connection is gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn bring_after(self: &Rc<Self>) {
        self.writing.set(true);
        let outlet = Rc::clone(self);
        glommio::spawn_local(async move {
            // First of all let the caller put the rest where this task finds it.
            futures_lite::future::yield_now().await;
            if outlet.write_rest().await.is_err() {
                outlet.cut();
            }
            outlet.writing.set(false);
            if outlet.ending.get() {
                outlet.end();
            }
        })
        .detach();
    }

    async fn write_rest(&self) -> io::Result<()> {
        let mut stream = fd::stream(self.socket.try_clone()?);
        loop {
            let bytes = std::mem::take(&mut *self.rest.borrow_mut());
            if bytes.is_empty() {
                return Ok(());
            }
            // The part being written isn't counted as waiting; keep it small enough not to matter.
            for part in bytes.chunks(256 * 1024) {
                stream.write_all(part).await?;
            }
        }
    }
}
