//! The mesh under loom. A lost wake-up is a deadlock, an item leaked or freed twice an error, to it.

use super::*;
use crate::sync::Arc;
use crate::testing::{ThreadWaker, explore};
use loom::thread;

const A: CoreId = CoreId(0);
const B: CoreId = CoreId(1);
const C: CoreId = CoreId(2);

/// Two producers and one consumer that share its doorbell, one message each, then the close. Three preemptions.
#[test]
fn loom_two_producers_share_one_doorbell() {
    explore("two_producers_share_one_doorbell", Some(3), || {
        let [a, b, mut c] = <[_; 3]>::try_from(mesh(3, 1)).expect("three endpoints");
        let senders = [a, b].map(|mut endpoint: Endpoint<Arc<u16>>| {
            thread::spawn(move || {
                endpoint.send(C, Arc::new(endpoint.core().0)).expect("room");
                endpoint.publish();
            })
        });
        let (_, wakes) = ThreadWaker::current();
        let (mut sum, mut polls) = (0, 0);
        while sum != 0b11 {
            wakes.park_until(|cx| {
                polls += 1;
                c.poll_ready(cx)
            });
            c.receive(2, |from, message| {
                assert_eq!(from.0, *message);
                sum += 1 << from.0;
            });
        }
        senders.into_iter().for_each(|sender| sender.join().expect("sent"));
        assert!(
            wakes.count() <= polls,
            "{} wakes, though each of {polls} polls slept once at most",
            wakes.count()
        );
        assert!(c.all_closed());
    });
}

/// Ring of one slot, three messages: the sender parks for room, the receiver for messages. Three preemptions.
#[test]
fn loom_back_pressure_full_then_room_then_wake() {
    explore("back_pressure_full_then_room_then_wake", Some(3), || {
        let [mut a, mut b] = <[_; 2]>::try_from(mesh(2, 1)).expect("two endpoints");
        let sender = thread::spawn(move || {
            let (_, wakes) = ThreadWaker::current();
            for message in 0..3 {
                wakes.park_until(|cx| a.poll_room(B, cx));
                a.send(B, message).expect("room was promised");
            }
        });
        let (_, wakes) = ThreadWaker::current();
        let mut expected = 0;
        while !b.all_closed() {
            wakes.park_until(|cx| b.poll_ready(cx));
            b.receive(1, |from, message| {
                assert_eq!((from, message), (A, expected));
                expected += 1;
            });
        }
        assert_eq!(expected, 3);
        sender.join().expect("the sender is done");
    });
}

/// The receiver goes away while the sender waits for room. Unbounded.
#[test]
fn loom_a_dropped_receiver_wakes_who_waits_for_room() {
    explore("a_dropped_receiver_wakes_who_waits_for_room", None, || {
        let [mut a, b] = <[_; 2]>::try_from(mesh(2, 1)).expect("two endpoints");
        let message = Arc::new(());
        a.send(B, Arc::clone(&message)).expect("room");
        let receiver = thread::spawn(move || drop(b));
        ThreadWaker::current().1.park_until(|cx| a.poll_room(B, cx));
        match a.send(B, Arc::clone(&message)) {
            Ok(()) => {}
            Err(refused) => drop(refused.into_message()),
        }
        receiver.join().expect("dropped");
        drop(a);
        assert_eq!(Arc::strong_count(&message), 1);
    });
}

/// One core that drains: sends `count` messages, then closes, then receives until the other has closed too.
fn drain(mut endpoint: Endpoint<Arc<u32>>, to: CoreId, count: u32) -> u32 {
    let (_, wakes) = ThreadWaker::current();
    let (mut sent, mut received) = (0, 0);
    while !endpoint.all_closed() || sent < count {
        let mut full = false;
        while sent < count && !full {
            match endpoint.send(to, Arc::new(sent)) {
                Ok(()) => sent += 1,
                Err(refused) => {
                    full = true;
                    assert!(matches!(refused, SendError::Full(_)));
                }
            }
        }
        if sent == count {
            endpoint.close();
        }
        let taken = endpoint.receive(2, |_, message| {
            assert_eq!(*message, received);
            received += 1;
        });
        if taken == 0 && (full || !endpoint.all_closed()) {
            wakes.park_until(|cx| match full.then(|| endpoint.poll_room(to, cx)) {
                Some(Poll::Ready(())) => Poll::Ready(()),
                _ => endpoint.poll_ready(cx),
            });
        }
    }
    received
}

/// Two cores stop each other with full rings: one slot, two messages each way. Nothing is lost, nobody waits for
/// ever. Two preemptions.
#[test]
fn loom_two_cores_stop_each_other_with_full_rings() {
    explore("two_cores_stop_each_other_with_full_rings", Some(2), || {
        let [a, b] = <[_; 2]>::try_from(mesh(2, 1)).expect("two endpoints");
        let other = thread::spawn(move || drain(b, A, 2));
        assert_eq!(drain(a, B, 2), 2);
        assert_eq!(other.join().expect("the other core is done"), 2);
    });
}
