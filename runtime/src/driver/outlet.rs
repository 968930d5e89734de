//! A socket that is written to without waiting.
//!
//! [`Outlet::send`] hands bytes to the kernel at once, in the turn that made them. Only what the kernel doesn't
//! take is kept, and a task of its own brings it after.

use super::poller::Socket;
use super::wire::Tls;
use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

/// The sending half of a connection.
#[derive(Debug)]
pub(super) struct Outlet {
    socket: Rc<Socket>,
    /// Everything is sealed by this, if it is there.
    tls: OnceCell<Rc<Tls>>,
    /// What the kernel hasn't taken yet, behind what it has.
    rest: RefCell<Vec<u8>>,
    /// Bytes at the front of `rest` that the kernel has.
    taken: Cell<usize>,
    writing: Cell<bool>,
    /// Shut the sending direction down once the rest is out.
    ending: Cell<bool>,
    broken: Cell<bool>,
}

impl Outlet {
    pub(super) fn new(socket: Rc<Socket>) -> Rc<Self> {
        Rc::new(Self {
            socket,
            tls: OnceCell::new(),
            rest: RefCell::default(),
            taken: Cell::new(0),
            writing: Cell::new(false),
            ending: Cell::new(false),
            broken: Cell::new(false),
        })
    }

    /// Bytes that wait for the other side to read.
    pub(super) fn waiting(&self) -> usize {
        self.rest.borrow().len() - self.taken.get()
    }

    /// From here on everything is sealed.
    pub(super) fn cover(&self, tls: Rc<Tls>) {
        self.tls.set(tls).expect("a connection is covered once");
    }

    /// What everything is sealed by.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.get().map(|tls| &**tls)
    }

    /// Sends what can be sent now and keeps the rest.
    pub(super) fn send(self: &Rc<Self>, bytes: &[u8]) {
        match self.tls.get() {
            None => self.send_as_it_is(bytes),
            Some(tls) => match tls.seal(bytes) {
                Ok(sealed) => self.send_as_it_is(&sealed),
                Err(_) => self.cut(),
            },
        }
    }

    /// Sends both, one behind the other, as [`Self::send`] does; long ones needn't be put together first.
    pub(super) fn send_both(self: &Rc<Self>, first: &[u8], second: &[u8]) {
        if self.tls.get().is_some() {
            self.send(first);
            return self.send(second);
        }
        let may_go = !self.broken.get() && !self.writing.get();
        let sent = if may_go { self.socket.send_both(first, second) } else { Ok(0) };
        let Ok(sent) = sent else { return self.cut() };
        self.send_as_it_is(&first[sent.min(first.len())..]);
        self.send_as_it_is(&second[sent.saturating_sub(first.len())..]);
    }

    /// Sends what TLS has to say by itself.
    pub(super) fn send_unsent(self: &Rc<Self>) {
        if let Some(tls) = self.tls.get() {
            self.send_as_it_is(&tls.unsent());
        }
    }

    fn send_as_it_is(self: &Rc<Self>, bytes: &[u8]) {
        if self.broken.get() {
            return;
        }
        let mut sent = 0;
        while !self.writing.get() && sent < bytes.len() {
            match self.socket.send(&bytes[sent..]) {
                Ok(0) => self.bring_after(),
                Ok(count) => sent += count,
                Err(_) => return self.cut(),
            }
        }
        if sent < bytes.len() {
            self.rest.borrow_mut().extend_from_slice(&bytes[sent..]);
        }
    }

    /// No more will be sent: the other side gets an end of file after the last byte.
    pub(super) fn end(self: &Rc<Self>) {
        if let Some(tls) = self.tls.get().filter(|_| !self.ending.get()) {
            self.send_as_it_is(&tls.farewell());
        }
        self.ending.set(true);
        if !self.writing.get() {
            self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Breaks the connection off: both sides get an end of file (or a reset) now.
    pub(super) fn cut(&self) {
        self.broken.set(true);
        *self.rest.borrow_mut() = Vec::new();
        self.taken.set(0);
        self.socket.shutdown(Shutdown::Both);
    }

    fn bring_after(self: &Rc<Self>) {
        self.writing.set(true);
        let outlet = Rc::clone(self);
        // It waits before it looks at the rest, which the caller has put there by then.
        self.socket
            .poller()
            .tasks()
            .spawn("replies that wait", async move {
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
        loop {
            self.socket.until_writable().await;
            let mut rest = self.rest.borrow_mut();
            let taken = self.taken.get() + self.socket.send(&rest[self.taken.get()..])?;
            self.taken.set(taken);
            if taken == rest.len() {
                *rest = Vec::new();
                self.taken.set(0);
                return Ok(());
            }
            if taken > rest.len() / 2 {
                rest.drain(..taken);
                self.taken.set(0);
            }
        }
    }
}
