//! The ring under loom, which checks every access to a slot and that no item leaks.

use super::*;
use crate::testing::explore;
use loom::thread;

/// Capacity 2, four items in batches of two, so the ring gets full, empty and wraps. Unbounded.
#[test]
fn loom_ring_batches_wrap_full_and_empty() {
    explore("ring_batches_wrap_full_and_empty", None, || {
        let (mut producer, mut consumer) = ring_from(2, usize::MAX - 1);
        let pusher = thread::spawn(move || {
            for item in 0..4 {
                let mut item = Box::new(item);
                while let Err(refused) = producer.push(item) {
                    assert!(matches!(refused, SendError::Full(_)));
                    item = refused.into_message();
                    thread::yield_now();
                }
                if !producer.has_room() {
                    producer.publish();
                }
            }
        });
        let mut expected = 0;
        while !consumer.take_close() {
            let taken = consumer.drain(2, |item| {
                assert_eq!(*item, expected);
                expected += 1;
            });
            if taken == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(expected, 4);
        pusher.join().expect("the producer is done");
    });
}

/// Capacity 2; two items, one of them unpublished at the drop. Unbounded.
#[test]
fn loom_close_is_seen_once_after_the_last_item() {
    explore("close_is_seen_once_after_the_last_item", None, || {
        let (mut producer, mut consumer) = ring(2);
        let pusher = thread::spawn(move || {
            producer.push(Arc::new(0)).expect("room");
            producer.publish();
            producer.push(Arc::new(1)).expect("room");
        });
        let mut taken = 0;
        while !consumer.take_close() {
            if consumer.drain(1, |item| assert_eq!(*item, taken)) == 0 {
                thread::yield_now();
            } else {
                taken += 1;
            }
        }
        assert_eq!(taken, 2, "closed only after the last item");
        assert!(consumer.is_closed() && !consumer.take_close());
        pusher.join().expect("the producer is done");
    });
}

/// The consumer leaves with items inside while the producer goes on. Loom checks that every `Arc` is freed.
/// Capacity 2, three pushes. Unbounded.
#[test]
fn loom_consumer_drops_with_items_inside() {
    explore("consumer_drops_with_items_inside", None, || {
        let item = Arc::new(());
        let (mut producer, mut consumer) = ring(2);
        producer.push(Arc::clone(&item)).expect("room");
        producer.publish();
        let leaver = thread::spawn(move || {
            consumer.drain(1, drop);
        });
        for _ in 0..2 {
            match producer.push(Arc::clone(&item)) {
                Ok(()) => producer.publish(),
                Err(refused) => drop(refused.into_message()),
            }
        }
        leaver.join().expect("the consumer is gone");
        assert!(matches!(producer.push(Arc::clone(&item)), Err(SendError::Closed(_))));
        drop(producer);
        assert_eq!(Arc::strong_count(&item), 1, "every other copy was dropped");
    });
}

/// Both ends drop at the same time, a published and an unpublished item inside. Unbounded.
#[test]
fn loom_both_ends_drop_at_once() {
    explore("both_ends_drop_at_once", None, || {
        let item = Arc::new(());
        let (mut producer, consumer) = ring(2);
        producer.push(Arc::clone(&item)).expect("room");
        producer.publish();
        producer.push(Arc::clone(&item)).expect("room");
        let leaver = thread::spawn(move || drop(consumer));
        drop(producer);
        leaver.join().expect("the consumer is gone");
        assert_eq!(Arc::strong_count(&item), 1, "every other copy was dropped");
    });
}
