use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::rc::Rc;

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Publish,
    Drain(usize),
    CloseProducer,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1usize..6).prop_map(Step::Push),
        6 => Just(Step::Publish),
        6 => (0usize..6).prop_map(Step::Drain),
        1 => Just(Step::CloseProducer),
    ]
}

proptest! {
    /// The ring is two queues: pushed but unseen, and published. Every item is an `Rc` of one counter,
    /// so its count at the end says that each was dropped once.
    #[test]
    fn behaves_like_two_queues(
        shift in 0u32..4,
        start in prop_oneof![Just(0), (usize::MAX - 9)..=usize::MAX],
        steps in prop::collection::vec(step(), 0..120),
        producer_first in any::<bool>(),
    ) {
        let alive = Rc::new(());
        let capacity = 1usize << shift;
        let (mut producer, mut consumer) = ring_from(capacity, start);
        let (mut unseen, mut published) = (VecDeque::new(), VecDeque::new());
        let (mut next, mut closed, mut closes_told) = (0u32, false, 0);
        for step in steps {
            match step {
                Step::Push(count) => for _ in 0..count {
                    let full = unseen.len() + published.len() == capacity;
                    prop_assert_eq!(producer.has_room(), !full);
                    match producer.push((next, Rc::clone(&alive))) {
                        Ok(()) => {
                            prop_assert!(!full && !closed);
                            unseen.push_back(next);
                        }
                        Err(SendError::Full((back, _))) => prop_assert!(full && !closed && back == next),
                        Err(SendError::Closed((back, _))) => prop_assert!(closed && back == next),
                    }
                    next += 1;
                },
                Step::Publish => {
                    producer.publish();
                    published.append(&mut unseen);
                }
                Step::Drain(max) => {
                    let mut taken = Vec::new();
                    let count = consumer.drain(max, |(item, _)| taken.push(item));
                    let expected: Vec<u32> = published.drain(..max.min(published.len())).collect();
                    prop_assert_eq!(count, expected.len());
                    prop_assert_eq!(taken, expected);
                    prop_assert_eq!(consumer.has_items(), !published.is_empty());
                    let told = consumer.take_close();
                    closes_told += usize::from(told);
                    prop_assert!(!told || (closed && published.is_empty() && closes_told == 1));
                    prop_assert_eq!(consumer.is_closed(), closed && published.is_empty());
                }
                Step::CloseProducer => {
                    producer.close();
                    published.append(&mut unseen);
                    closed = true;
                }
            }
        }
        if producer_first {
            drop(producer);
            drop(consumer);
        } else {
            drop(consumer);
            prop_assert!(matches!(producer.push((0, Rc::clone(&alive))), Err(SendError::Closed(_))));
            drop(producer);
        }
        prop_assert_eq!(Rc::strong_count(&alive), 1);
    }
}

#[test]
fn a_panic_while_draining_drops_each_item_once() {
    let alive = Rc::new(());
    let (mut producer, mut consumer) = ring(4);
    for index in 0..4 {
        producer.push((index, Rc::clone(&alive))).expect("room for four");
    }
    producer.publish();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        consumer.drain(4, |(index, _)| assert!(index < 2, "the third item is too much"));
    }));
    assert!(panicked.is_err());
    assert_eq!(Rc::strong_count(&alive), 2, "three are gone, the fourth is still inside");
    assert!(!producer.has_room());
    assert_eq!(consumer.drain(4, |(index, _)| assert_eq!(index, 3)), 1);
    assert!(producer.has_room());
    drop((producer, consumer));
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
#[should_panic(expected = "power of two")]
fn a_capacity_that_is_no_power_of_two_is_refused() {
    drop(ring::<()>(3));
}
