//! What a core waits for: its sockets, its listeners and the bell that other threads ring, all in one epoll set.
//!
//! glommio would ask io_uring to watch each socket anew after every read, and wakes up with seven or eight system calls.
//! Here a descriptor is registered once, edge-triggered; a wake-up is one `epoll_wait`, whatever number of sockets it
//! tells of, and a read that came back short is known to have emptied its socket, so nothing is asked twice.
//!
//! The tasks that read are ordinary tasks of the executor. [`Poller::wait`] makes those whose descriptor is ready
//! runnable; it is called by the core's loop alone, which lets them run before it waits again.

use super::tasks::Tasks;
use super::timers::{Sleep, Timers};
use crate::sync::Arc;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

/// Events taken in one go.
const EVENTS_MAX: usize = 512;
/// The bell's token.
const BELL: u64 = 0;
/// That of what is only watched. Those of sockets and listeners come after it.
const WATCHED: u64 = 1;

/// What is known of one descriptor, and who waits for more.
#[derive(Debug)]
struct Source {
    readable: Cell<bool>,
    writable: Cell<bool>,
    /// The other side is done, or there was an error: no further event will tell of it, so reads go on to the end.
    ended: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Source {
    /// What a new descriptor can do is found out by trying.
    fn new() -> Rc<Self> {
        Rc::new(Self {
            readable: Cell::new(true),
            writable: Cell::new(true),
            ended: Cell::new(false),
            reader: RefCell::default(),
            writer: RefCell::default(),
        })
    }

    fn happened(&self, flags: EventFlags) {
        let over = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(over) {
            self.ended.set(true);
        }
        if flags.intersects(EventFlags::IN | over) {
            self.readable.set(true);
            wake(&self.reader);
        }
        if flags.intersects(EventFlags::OUT | over) {
            self.writable.set(true);
            wake(&self.writer);
        }
    }

    async fn until(ready: &Cell<bool>, waiting: &RefCell<Option<Waker>>) {
        poll_fn(|cx| {
            if ready.get() {
                return Poll::Ready(());
            }
            *waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn wake(waiting: &RefCell<Option<Waker>>) {
    let waker = waiting.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Wakes a core that waits, from any thread: a ring before it waits isn't lost.
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Any number will do. It fails only when it has been rung so often that it rings anyway.
        let _ = rustix::io::write(&self.0, &1_u64.to_le_bytes());
    }
}

/// A core's epoll set.
pub(super) struct Poller {
    epoll: OwnedFd,
    bell: Arc<Bell>,
    sources: RefCell<BTreeMap<u64, Rc<Source>>>,
    last_token: Cell<u64>,
    events: RefCell<Vec<Event>>,
    stirred: Cell<bool>,
    timers: Rc<Timers>,
    tasks: Rc<Tasks>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    /// An empty set, with the core's timers and tasks.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub(super) fn new(timers: Rc<Timers>, tasks: Rc<Tasks>) -> io::Result<Rc<Self>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = Arc::new(Bell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        epoll::add(&epoll, &bell.0, EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Rc::new(Self {
            epoll,
            bell,
            sources: RefCell::default(),
            last_token: Cell::new(WATCHED),
            events: RefCell::new(Vec::with_capacity(EVENTS_MAX)),
            // The tasks that are there before the first wait are to run.
            stirred: Cell::new(true),
            timers,
            tasks,
        }))
    }

    /// What other threads ring.
    pub(super) fn bell(&self) -> Waker {
        Waker::from(Arc::clone(&self.bell))
    }

    /// The core's timers.
    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// The core's tasks.
    pub(super) fn tasks(&self) -> &Rc<Tasks> {
        &self.tasks
    }

    /// Waits for at least so long.
    pub(super) fn sleep(&self, time: Duration) -> Sleep {
        self.timers.sleep(time)
    }

    /// Tells the core's loop that a task was made runnable: let it run before you wait.
    pub(super) fn stir(&self) {
        self.stirred.set(true);
    }

    /// Whether tasks were made runnable since the last call.
    pub(super) fn take_stirred(&self) -> bool {
        self.stirred.replace(false)
    }

    /// Waits until something is ready, at most for `patience` (whole milliseconds count), and makes those runnable who
    /// wait for it. Returns whether anything was.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        let mut events = self.events.borrow_mut();
        events.clear();
        let timeout = Timespec::try_from(patience).expect("nobody waits for centuries");
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => unreachable!("an epoll set that is open can be waited for: {error}"),
        }
        let happened = !events.is_empty();
        for event in events.drain(..) {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == BELL {
                let mut count = [0; 8];
                // Somebody rang, or the event is stale: either way the loop looks at everything that is rung for.
                let _ = rustix::io::read(&self.bell.0, &mut count);
                continue;
            }
            let source = self.sources.borrow().get(&token).cloned();
            if let Some(source) = source {
                self.stir();
                source.happened(flags);
            }
        }
        happened
    }

    /// Ends [`Self::wait`] whenever `fd` is readable, until it is closed: the caller looks at it after each.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn watch(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(WATCHED), EventFlags::IN)?)
    }

    fn add(&self, fd: impl AsFd, flags: EventFlags) -> io::Result<(u64, Rc<Source>)> {
        let token = self.last_token.get() + 1;
        self.last_token.set(token);
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags | EventFlags::ET)?;
        let source = Source::new();
        self.sources.borrow_mut().insert(token, Rc::clone(&source));
        Ok((token, source))
    }

    fn remove(&self, fd: impl AsFd, token: u64) {
        // It fails only if the descriptor was never added.
        let _ = epoll::delete(&self.epoll, fd);
        self.sources.borrow_mut().remove(&token);
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    token: u64,
    source: Rc<Source>,
    poller: Rc<Poller>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.poller.remove(&self.stream, self.token);
    }
}

impl Socket {
    /// Watches a connection, without delay for small writes.
    ///
    /// # Errors
    /// What the system says: the connection may be gone already.
    pub(super) fn new(stream: TcpStream, poller: &Rc<Poller>) -> io::Result<Rc<Self>> {
        stream.set_nodelay(true)?;
        let (token, source) = poller.add(&stream, EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP)?;
        Ok(Rc::new(Self { stream, token, source, poller: Rc::clone(poller) }))
    }

    /// Connects.
    ///
    /// # Errors
    /// What the system says. It has its own patience: the caller should be less patient.
    pub(super) async fn connect(to: SocketAddr, poller: &Rc<Poller>) -> io::Result<Rc<Self>> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family, SocketType::STREAM, flags, None)?;
        let pending = match connect(&fd, &to) {
            Ok(()) => false,
            Err(Errno::INPROGRESS) => true,
            Err(error) => return Err(error.into()),
        };
        let socket = Self::new(TcpStream::from(fd), poller)?;
        if pending {
            socket.source.writable.set(false);
            socket.until_writable().await;
            if let Some(error) = socket.stream.take_error()? {
                return Err(error);
            }
        }
        Ok(socket)
    }

    /// Reads what is there, waiting until something is; 0 at the end.
    ///
    /// # Errors
    /// What the system says: the connection is broken.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let source = &self.source;
        loop {
            Source::until(&source.readable, &source.reader).await;
            match recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, count)) => {
                    // A short read emptied the socket: the next byte is an event.
                    source.readable.set(count == buffer.len() || source.ended.get());
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => source.readable.set(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until something can be read, or the end is near.
    pub(super) async fn until_readable(&self) {
        Source::until(&self.source.readable, &self.source.reader).await;
    }

    /// Hands bytes to the kernel; returns how many it took, which may be none.
    ///
    /// # Errors
    /// What the system says: the connection is broken.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.tell(|stream, flags| send(stream, bytes, flags))
    }

    /// The same for two pieces, one behind the other.
    ///
    /// # Errors
    /// What the system says: the connection is broken.
    pub(super) fn send_both(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let both = [IoSlice::new(first), IoSlice::new(second)];
        self.tell(|stream, flags| sendmsg(stream, &both, &mut SendAncillaryBuffer::default(), flags))
    }

    fn tell(&self, send: impl Fn(&TcpStream, SendFlags) -> rustix::io::Result<usize>) -> io::Result<usize> {
        loop {
            match send(&self.stream, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.source.writable.set(false);
                    return Ok(0);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the kernel takes more, after a [`Self::send`] that it didn't take whole.
    pub(super) async fn until_writable(&self) {
        Source::until(&self.source.writable, &self.source.writer).await;
    }

    /// What watches it.
    pub(super) fn poller(&self) -> &Rc<Poller> {
        &self.poller
    }

    /// Shuts down one direction or both.
    pub(super) fn shutdown(&self, how: Shutdown) {
        // It fails only if the connection is gone already.
        let _ = self.stream.shutdown(how);
    }
}

/// A port that others connect to.
#[derive(Debug)]
pub(super) struct Listener {
    listener: TcpListener,
    token: u64,
    source: Rc<Source>,
    poller: Rc<Poller>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.poller.remove(&self.listener, self.token);
    }
}

impl Listener {
    /// Watches a listener.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new(listener: TcpListener, poller: &Rc<Poller>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (token, source) = poller.add(&listener, EventFlags::IN)?;
        Ok(Self { listener, token, source, poller: Rc::clone(poller) })
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// What the system says; out of descriptors, for example. Wait before you try again.
    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        loop {
            Source::until(&self.source.readable, &self.source.reader).await;
            match self.listener.accept() {
                Ok((stream, _)) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.source.readable.set(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::poll_once;
    use std::io::{Read, Write};

    const PATIENCE: Duration = Duration::from_millis(999);

    fn poller() -> Rc<Poller> {
        let stalls = super::super::stalls::Stalls::new(0, crate::Vitals::new());
        let tasks = Tasks::new(glommio::TaskQueueHandle::default(), stalls);
        Poller::new(Timers::new(super::super::clock::Clock::start()), tasks).unwrap()
    }

    fn pair(poller: &Rc<Poller>) -> (TcpStream, Rc<Socket>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (far, Socket::new(listener.accept().unwrap().0, poller).unwrap())
    }

    /// Polls `future` after each wait until it is done.
    fn drive<T>(poller: &Poller, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        for _ in 0..100 {
            if let Some(result) = futures_lite::future::block_on(poll_once(future.as_mut())) {
                return result;
            }
            poller.wait(PATIENCE);
        }
        panic!("never ready");
    }

    #[test]
    fn a_short_read_asks_nothing_twice_and_misses_nothing() {
        let poller = poller();
        let (mut far, near) = pair(&poller);
        let mut buffer = [0; 8];
        for text in [&b"one"[..], b"two", b"eightlong"] {
            far.write_all(text).unwrap();
            let mut got = Vec::new();
            while got.len() < text.len() {
                let count = drive(&poller, near.read(&mut buffer)).unwrap();
                got.extend_from_slice(&buffer[..count]);
            }
            assert_eq!(got, text);
        }
        far.write_all(b"last").unwrap();
        drop(far);
        // Data and end may come with one event.
        poller.wait(PATIENCE);
        assert_eq!(drive(&poller, near.read(&mut buffer)).unwrap(), 4);
        assert_eq!(drive(&poller, near.read(&mut buffer)).unwrap(), 0);
    }

    #[test]
    fn a_full_socket_says_when_it_takes_more() {
        let poller = poller();
        let (mut far, near) = pair(&poller);
        let bytes = vec![7; 1 << 20];
        let mut sent = 0;
        loop {
            match near.send(&bytes).unwrap() {
                0 => break,
                count => sent += count,
            }
        }
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; sent];
            far.read_exact(&mut all).unwrap();
            far
        });
        drive(&poller, near.until_writable());
        assert!(near.send(&bytes[..1]).unwrap() == 1);
        drop(reader.join().unwrap());
    }

    #[test]
    fn a_connection_is_made_or_refused() {
        let poller = poller();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Listener::new(listener, &poller).unwrap();
        let near = drive(&poller, Socket::connect(address, &poller)).unwrap();
        let mut far = drive(&poller, listener.accept()).unwrap();
        near.send(b"hello").unwrap();
        let mut buffer = [0; 5];
        far.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
        drop(listener);
        assert!(drive(&poller, Socket::connect(address, &poller)).is_err());
    }

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let poller = poller();
        let bell = poller.bell();
        std::thread::spawn(move || bell.wake()).join().unwrap();
        let start = std::time::Instant::now();
        poller.wait(PATIENCE);
        assert!(start.elapsed() < PATIENCE);
    }
}
