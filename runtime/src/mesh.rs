//! The mesh: how the cores of one node talk.
//!
//! Every ordered pair of cores has a `ring` of its own, so a message never meets a lock or another
//! sender's cache line. Every core has one doorbell, rung by all who send to it when it is parked; every ring
//! has another one in the opposite direction, for a sender parked until there is room.
//!
//! ```text
//!   send … send, publish ──▶ ring 0→1 ──▶ poll_ready, receive           bell of core 1: "look, a message"
//!              poll_room ◀────────────────┘ (slots freed in batches)    bell of ring 0→1: "look, room"
//! ```
//!
//! A turn of a core sends as much as it likes and publishes once: one shared store per ring, one fence, and one
//! wake per receiver that sleeps. Rings are bounded: a full one gives the message back, and the sender decides.
//! A core must go on receiving while it waits for room, or two cores with full rings wait for each other.
//!
//! Shutdown is a drain: [`Endpoint::close`] says that nothing more will be sent, receiving goes on until
//! [`Endpoint::all_closed`]. Then nothing has been lost. Dropping an endpoint closes it both ways at once; what
//! was underway *to* it is dropped.
//!
//! The mesh must never drop a message whose receiver lives, reorder those of one sender, wake a core that is
//! awake, make a system call by itself, or park: it only says [`Poll::Pending`].

use crate::doorbell::{Ringer, Sleeper, announce, doorbell};
use crate::ring::{Consumer, Producer, ring};
use std::fmt;
use std::task::{Context, Poll};

pub use crate::ring::SendError;

/// A core of a node: one pinned thread. Numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

/// Connects `cores` cores, each to each, by rings with room for `capacity` messages. The endpoint at index `n`
/// is core `n`'s. For throughput take 1024 slots or more: smaller rings make both sides park in turns.
///
/// # Panics
/// If `capacity` is not a power of two, or if there are more cores than a [`CoreId`] can number.
pub fn mesh<T: Send>(cores: usize, capacity: usize) -> Vec<Endpoint<T>> {
    assert!(cores <= usize::from(u16::MAX), "{cores} cores are more than a mesh can number");
    assert!(capacity.is_power_of_two(), "a ring's capacity is a power of two, not {capacity}");
    let mut ringers = Vec::with_capacity(cores);
    let mut endpoints: Vec<Endpoint<T>> = Vec::with_capacity(cores);
    for core in 0..cores {
        let (sleeper, ringer) = doorbell();
        ringers.push(ringer);
        endpoints.push(Endpoint {
            core: CoreId(core as u16),
            outbound: Vec::with_capacity(cores),
            unpublished: Vec::with_capacity(cores),
            inbound: Vec::with_capacity(cores),
            first: 0,
            sleeper,
        });
    }
    for from in 0..cores {
        for (to, ringer) in ringers.iter().enumerate() {
            if from == to {
                endpoints[from].outbound.push(None);
                continue;
            }
            let (producer, consumer) = ring(capacity);
            let (room, ring_room) = doorbell();
            endpoints[from].outbound.push(Some(Outbound {
                producer,
                receiver: ringer.clone(),
                room,
                unpublished: false,
            }));
            let from = CoreId(from as u16);
            endpoints[to].inbound.push(Inbound { from, consumer, room: ring_room, freed: false });
        }
    }
    endpoints
}

/// The way to one other core.
struct Outbound<T> {
    producer: Producer<T>,
    /// The other core's doorbell, shared by all who send to it.
    receiver: Ringer,
    /// Where we sleep until this ring has room.
    room: Sleeper,
    /// Whether it is in [`Endpoint::unpublished`].
    unpublished: bool,
}

impl<T> Outbound<T> {
    /// Ready to be sent to, or closed: either way it makes no sense to wait.
    fn has_room(&mut self) -> bool {
        self.producer.is_closed() || self.producer.has_room()
    }

    fn close(&mut self) {
        self.producer.close();
        self.receiver.ring(announce());
    }
}

impl<T> Drop for Outbound<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The way from one other core.
struct Inbound<T> {
    from: CoreId,
    consumer: Consumer<T>,
    /// Wakes the sender when it sleeps until this ring has room.
    room: Ringer,
    /// Whether slots were freed that the sender hasn't been rung for.
    freed: bool,
}

impl<T> Drop for Inbound<T> {
    fn drop(&mut self) {
        self.consumer.close();
        self.room.ring(announce());
    }
}

/// One core's end of the mesh. Made by [`mesh`], moved into the core's thread.
pub struct Endpoint<T> {
    core: CoreId,
    /// By the receiver's number; `None` where that is this core.
    outbound: Vec<Option<Outbound<T>>>,
    /// Receivers with messages they can't see yet.
    unpublished: Vec<usize>,
    /// By the sender's number, without this core.
    inbound: Vec<Inbound<T>>,
    /// The index in `inbound` that the next [`Self::receive`] begins with.
    first: usize,
    sleeper: Sleeper,
}

impl<T: Send> Endpoint<T> {
    /// Which core this is.
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// How many cores the mesh has, this one included.
    pub fn cores(&self) -> usize {
        self.outbound.len()
    }

    /// Puts a message into the ring to another core, which sees it after [`Self::publish`].
    ///
    /// # Errors
    /// [`SendError::Full`] when there is no room: see [`Self::poll_room`]. [`SendError::Closed`] when the
    /// receiver was dropped or this end was [closed](Self::close). Both give the message back.
    ///
    /// # Panics
    /// If `to` is this core itself, or no core of the mesh.
    #[inline]
    pub fn send(&mut self, to: CoreId, message: T) -> Result<(), SendError<T>> {
        let outbound = way_to(&mut self.outbound, to);
        outbound.producer.push(message)?;
        outbound.room.get_up();
        if !outbound.unpublished {
            outbound.unpublished = true;
            self.unpublished.push(usize::from(to.0));
        }
        Ok(())
    }

    /// Shows the receivers all that was sent, and rings those who are parked, once each. Returns how many it woke.
    pub fn publish(&mut self) -> u64 {
        if self.unpublished.is_empty() {
            return 0;
        }
        for &to in &self.unpublished {
            self.outbound[to].as_mut().expect("sent there").producer.publish();
        }
        let (announced, mut woken) = (announce(), 0);
        for to in self.unpublished.drain(..) {
            let outbound = self.outbound[to].as_mut().expect("sent there");
            outbound.unpublished = false;
            woken += u64::from(outbound.receiver.ring(announced));
        }
        woken
    }

    /// Hands at most `max` messages to `f`, each sender's in order, and returns how many. Fair: every sender gets
    /// an equal share of `max`, what some leave goes to the others, and the next call begins with the one after
    /// the last served. The slots become free when `f` has had all of a sender's share.
    pub fn receive(&mut self, max: usize, mut f: impl FnMut(CoreId, T)) -> usize {
        self.sleeper.get_up();
        let senders = self.inbound.len();
        let mut left = max;
        let mut more = senders > 0;
        while more && left > 0 {
            let share = left.div_ceil(senders);
            more = false;
            for _ in 0..senders {
                let inbound = &mut self.inbound[self.first];
                self.first = (self.first + 1) % senders;
                let wanted = share.min(left);
                let from = inbound.from;
                let count = inbound.consumer.drain(wanted, |message| f(from, message));
                inbound.freed |= count > 0;
                more |= count == wanted;
                left -= count;
                if left == 0 {
                    break;
                }
            }
        }
        self.ring_for_room();
        max - left
    }

    /// Ready when a message can be received, and once more for each sender that closed after its last message
    /// (see [`Self::is_closed`]). Otherwise publishes what was sent, parks, and the next message or close wakes
    /// `cx`'s waker, if only spuriously. One task polls this: an earlier task's waker is forgotten.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.sleeper.get_up();
        if self.is_ready() {
            return Poll::Ready(());
        }
        self.publish();
        self.sleeper.lie_down(cx.waker());
        if self.is_ready() {
            self.sleeper.get_up();
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Ready when the ring to `to` has room, or closed. Otherwise publishes what was sent (the receiver can't
    /// free what it doesn't see), parks, and room or the close wakes `cx`'s waker. Every ring has a bell of its
    /// own for this, so different tasks may wait for different receivers, besides [`Self::poll_ready`]'s.
    ///
    /// # Panics
    /// If `to` is this core itself, or no core of the mesh.
    pub fn poll_room(&mut self, to: CoreId, cx: &mut Context<'_>) -> Poll<()> {
        let outbound = way_to(&mut self.outbound, to);
        outbound.room.get_up();
        if outbound.has_room() {
            return Poll::Ready(());
        }
        self.publish();
        let outbound = way_to(&mut self.outbound, to);
        outbound.room.lie_down(cx.waker());
        if outbound.has_room() {
            outbound.room.get_up();
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Publishes what was sent and tells every receiver that nothing follows. Receiving goes on.
    pub fn close(&mut self) {
        self.publish();
        self.outbound.iter_mut().flatten().for_each(Outbound::close);
    }

    /// Whether `from` has closed its end, or dropped it, and everything it sent has been received.
    ///
    /// # Panics
    /// If `from` is this core itself, or no core of the mesh.
    pub fn is_closed(&self, from: CoreId) -> bool {
        let inbound = self.inbound.iter().find(|inbound| inbound.from == from);
        inbound.unwrap_or_else(|| no_way(from)).consumer.is_closed()
    }

    /// Whether [`Self::is_closed`] holds for every sender: nothing will ever be received again.
    pub fn all_closed(&self) -> bool {
        self.inbound.iter().all(|inbound| inbound.consumer.is_closed())
    }

    fn is_ready(&mut self) -> bool {
        self.inbound.iter_mut().any(|inbound| inbound.consumer.has_items() || inbound.consumer.take_close())
    }

    /// Wakes those who sleep until there is room where slots were just freed.
    fn ring_for_room(&mut self) {
        if self.inbound.iter().any(|inbound| inbound.freed) {
            let announced = announce();
            for inbound in self.inbound.iter_mut().filter(|inbound| inbound.freed) {
                inbound.freed = false;
                inbound.room.ring(announced);
            }
        }
    }
}

impl<T> fmt::Debug for Endpoint<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint(core {} of {})", self.core.0, self.outbound.len())
    }
}

#[inline]
fn way_to<T>(outbound: &mut [Option<Outbound<T>>], to: CoreId) -> &mut Outbound<T> {
    outbound.get_mut(usize::from(to.0)).and_then(Option::as_mut).unwrap_or_else(|| no_way(to))
}

#[cold]
fn no_way(core: CoreId) -> ! {
    panic!("the mesh has no ring between this core and core {}: it is this core itself, or none", core.0)
}

#[cfg(all(test, loom))]
mod loom_models;
#[cfg(all(test, not(loom)))]
mod tests;
