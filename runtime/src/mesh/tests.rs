use super::*;
use crate::random::SplitMix64;
use crate::testing::ThreadWaker;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

const A: CoreId = CoreId(0);
const B: CoreId = CoreId(1);
const C: CoreId = CoreId(2);

fn assert_send<S: Send>(_: &S) {}

fn received<T: Send>(endpoint: &mut Endpoint<T>, max: usize) -> Vec<(u16, T)> {
    let mut messages = Vec::new();
    let count = endpoint.receive(max, |from, message| messages.push((from.0, message)));
    assert_eq!(count, messages.len());
    messages
}

#[test]
fn a_message_is_seen_after_publish_and_wakes_once() {
    let [mut a, mut b] = <[_; 2]>::try_from(mesh(2, 4)).expect("two endpoints");
    assert_send(&a);
    let (waker, wakes) = ThreadWaker::current();
    let mut cx = Context::from_waker(&waker);
    assert!(b.poll_ready(&mut cx).is_pending());
    a.send(B, "one").expect("room");
    a.send(B, "two").expect("room");
    assert!(b.poll_ready(&mut cx).is_pending());
    a.publish();
    a.send(B, "three").expect("room");
    a.publish();
    assert_eq!(wakes.count(), 1, "the second publish found it awake");
    assert!(b.poll_ready(&mut cx).is_ready());
    assert_eq!(received(&mut b, 9), [(0, "one"), (0, "two"), (0, "three")]);
    assert!(b.poll_ready(&mut cx).is_pending());
    assert_eq!((a.core(), a.cores(), format!("{b:?}")), (A, 2, "Endpoint(core 1 of 2)".into()));
}

#[test]
fn receive_without_a_poll_counts_as_awake() {
    let [mut a, mut b] = <[_; 2]>::try_from(mesh(2, 4)).expect("two endpoints");
    let (waker, wakes) = ThreadWaker::current();
    assert!(b.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(received(&mut b, 1), []);
    a.send(B, ()).expect("room");
    a.publish();
    assert_eq!(wakes.count(), 0);
}

#[test]
fn a_full_ring_gives_the_message_back_and_wakes_when_there_is_room() {
    let [mut a, mut b] = <[_; 2]>::try_from(mesh(2, 2)).expect("two endpoints");
    let (waker, wakes) = ThreadWaker::current();
    let mut cx = Context::from_waker(&waker);
    assert!(a.poll_room(B, &mut cx).is_ready());
    a.send(B, 1).expect("room");
    a.send(B, 2).expect("room");
    assert_eq!(a.send(B, 3), Err(SendError::Full(3)));
    assert!(a.poll_room(B, &mut cx).is_pending());
    assert_eq!(received(&mut b, 1), [(0, 1)], "waiting for room publishes");
    assert_eq!(received(&mut b, 1), [(0, 2)]);
    assert_eq!(wakes.count(), 1);
    assert!(a.poll_room(B, &mut cx).is_ready());
    a.send(B, 3).expect("room again");
}

#[test]
fn closing_drains_and_is_told_once() {
    let [mut a, mut b] = <[_; 2]>::try_from(mesh(2, 2)).expect("two endpoints");
    let (waker, wakes) = ThreadWaker::current();
    let mut cx = Context::from_waker(&waker);
    a.send(B, 1).expect("room");
    a.close();
    assert_eq!(a.send(B, 2), Err(SendError::Closed(2)));
    assert!(a.poll_room(B, &mut cx).is_ready());
    assert!(b.poll_ready(&mut cx).is_ready() && !b.is_closed(A) && !b.all_closed());
    assert_eq!(received(&mut b, 9), [(0, 1)]);
    assert!(b.is_closed(A) && b.all_closed());
    assert!(b.poll_ready(&mut cx).is_ready(), "the close");
    assert!(b.poll_ready(&mut cx).is_pending(), "once");
    b.send(A, 3).expect("the other direction is still open");
    drop(b);
    assert_eq!(wakes.count(), 0);
    assert_eq!(received(&mut a, 9), [(1, 3)], "a drop publishes");
    assert!(a.all_closed());
}

#[test]
fn a_dropped_receiver_wakes_who_waits_for_room() {
    let [mut a, b] = <[_; 2]>::try_from(mesh(2, 1)).expect("two endpoints");
    let (waker, wakes) = ThreadWaker::current();
    let mut cx = Context::from_waker(&waker);
    let message = Arc::new(());
    a.send(B, Arc::clone(&message)).expect("room");
    assert!(a.poll_room(B, &mut cx).is_pending());
    drop(b);
    assert!(wakes.count() == 1 && a.poll_room(B, &mut cx).is_ready());
    assert!(matches!(a.send(B, Arc::clone(&message)), Err(SendError::Closed(_))));
    assert_eq!(Arc::strong_count(&message), 1, "what was underway was dropped");
}

#[test]
fn senders_share_fairly() {
    let [mut a, mut b, mut c] = <[_; 3]>::try_from(mesh(3, 8)).expect("three endpoints");
    for index in 0..8 {
        a.send(C, index).expect("room");
    }
    b.send(C, 0).expect("room");
    b.send(C, 1).expect("room");
    a.publish();
    b.publish();
    assert_eq!(received(&mut c, 1), [(0, 0)]);
    assert_eq!(received(&mut c, 1), [(1, 0)], "one at a time they take turns");
    assert_eq!(received(&mut c, 4), [(0, 1), (0, 2), (1, 1), (0, 3)], "what one leaves goes to the other");
    assert_eq!(received(&mut c, 0), []);
    assert_eq!(received(&mut c, usize::MAX).len(), 4);
}

#[test]
fn a_mesh_of_one_core_is_never_ready() {
    let mut alone = mesh::<()>(1, 1).remove(0);
    let (waker, _) = ThreadWaker::current();
    assert_eq!(received(&mut alone, 9), []);
    assert!(alone.poll_ready(&mut Context::from_waker(&waker)).is_pending() && alone.all_closed());
}

#[test]
#[should_panic(expected = "no ring between this core and core 0")]
fn sending_to_oneself_is_a_bug() {
    let _ = mesh(2, 1)[0].send(A, ());
}

#[derive(Debug, Clone)]
enum Step {
    Send(u16, u16),
    Publish(u16),
    Receive(u16, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u16..3, 1u16..3).prop_map(|(from, by)| Step::Send(from, (from + by) % 3)),
        2 => (0u16..3).prop_map(Step::Publish),
        2 => ((0u16..3), (0usize..7)).prop_map(|(core, max)| Step::Receive(core, max)),
    ]
}

proptest! {
    /// Three cores against nine pairs of queues (unseen, published): nothing lost, nothing out of order, and
    /// `receive` takes as much as there is.
    #[test]
    fn behaves_like_queues(steps in prop::collection::vec(step(), 0..200)) {
        let mut endpoints = mesh(3, 4);
        let mut queues = vec![(VecDeque::new(), VecDeque::new()); 9];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Send(from, to) => {
                    let (unseen, published) = &mut queues[usize::from(from * 3 + to)];
                    let full = unseen.len() + published.len() == 4;
                    let sent = endpoints[usize::from(from)].send(CoreId(to), number);
                    prop_assert_eq!(sent, if full { Err(SendError::Full(number)) } else { Ok(()) });
                    unseen.extend((!full).then_some(number));
                }
                Step::Publish(from) => {
                    endpoints[usize::from(from)].publish();
                    for (unseen, published) in &mut queues[usize::from(from * 3)..][..3] {
                        published.append(unseen);
                    }
                }
                Step::Receive(core, max) => {
                    let waiting: usize = (0..3).map(|from| queues[usize::from(from * 3 + core)].1.len()).sum();
                    let messages = received(&mut endpoints[usize::from(core)], max);
                    prop_assert_eq!(messages.len(), waiting.min(max));
                    for (from, message) in messages {
                        prop_assert_eq!(queues[usize::from(from * 3 + core)].1.pop_front(), Some(message));
                    }
                }
            }
        }
    }
}

/// Thinks for a random while: nothing, a few instructions, a yield, or a nap. The variety of pauses is the point; no
/// one waits for anything here.
fn think(random: &mut SplitMix64) {
    match random.below(64) {
        0 => thread::sleep(Duration::from_micros(random.below(80))),
        1..8 => thread::yield_now(),
        8..24 => (0..random.below(300)).for_each(|_| std::hint::spin_loop()),
        _ => {}
    }
}

/// One core of the stress: numbers its messages per receiver, checks the numbers of every sender, parks when it
/// can neither send nor receive, and drains at the end. Returns how many it sent and received.
fn stress_core(mut endpoint: Endpoint<u64>, until: Instant, progress: &AtomicU64) -> (u64, u64) {
    let me = u64::from(endpoint.core().0);
    let cores = endpoint.cores() as u64;
    let mut chance = SplitMix64::new(0x9E37_79B9 + me);
    let (_, wakes) = ThreadWaker::current();
    let mut sent = vec![0u64; endpoint.cores()];
    let mut expected = vec![0u64; endpoint.cores()];
    let mut open = true;
    loop {
        let mut full = None;
        if open && Instant::now() >= until {
            endpoint.close();
            open = false;
        }
        for _ in 0..if open { chance.below(12) } else { 0 } {
            let to = (me + 1 + chance.below(cores - 1)) % cores;
            match endpoint.send(CoreId(to as u16), sent[to as usize]) {
                Ok(()) => sent[to as usize] += 1,
                Err(refused) => {
                    assert_eq!(refused, SendError::Full(sent[to as usize]));
                    full = Some(CoreId(to as u16));
                    break;
                }
            }
        }
        think(&mut chance);
        if chance.below(2) == 0 {
            endpoint.publish();
        }
        let max = 1 + chance.below(20) as usize;
        let count = endpoint.receive(max, |from, number| {
            assert_eq!(number, expected[usize::from(from.0)], "in order, none lost, none twice");
            expected[usize::from(from.0)] += 1;
        });
        progress.fetch_add(count as u64, Ordering::Relaxed);
        if !open && endpoint.all_closed() {
            return (sent.iter().sum(), expected.iter().sum());
        }
        // An open core that isn't full always has something to send, so it never parks.
        if full.is_some() || !open {
            wakes.park_until(|cx| match full.map(|to| endpoint.poll_room(to, cx)) {
                Some(Poll::Ready(())) => Poll::Ready(()),
                _ => endpoint.poll_ready(cx),
            });
        }
        think(&mut chance);
    }
}

/// Waits for the end of all that hold a sender of `ended`. Fails when `progress` stands still, instead of hanging
/// with it.
fn watch(progress: &AtomicU64, ended: &mpsc::Receiver<()>) {
    let mut last = 0;
    while ended.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout) {
        let now = progress.load(Ordering::Relaxed);
        assert!(now != last, "nothing for 20 s: a wake-up was lost");
        last = now;
    }
}

fn stress(cores: usize, capacity: usize, time: Duration) {
    let progress = Arc::new(AtomicU64::new(0));
    let until = Instant::now() + time;
    let (alive, ended) = mpsc::channel();
    let threads: Vec<_> = mesh(cores, capacity)
        .into_iter()
        .map(|endpoint| {
            let (progress, alive) = (Arc::clone(&progress), alive.clone());
            thread::spawn(move || {
                let totals = stress_core(endpoint, until, &progress);
                drop(alive);
                totals
            })
        })
        .collect();
    drop(alive);
    watch(&progress, &ended);
    let totals = threads.into_iter().map(|thread| thread.join().expect("a core of the stress failed"));
    let (sent, received) = totals.fold((0, 0), |sum, core| (sum.0 + core.0, sum.1 + core.1));
    assert_eq!(sent, received);
    assert!(sent > 1000, "only {sent} messages");
}

/// As long as `FLOTILLA_STRESS_SECONDS` says, else so many.
fn lasting(seconds: u64) -> Duration {
    let asked = std::env::var("FLOTILLA_STRESS_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(seconds))
}

#[test]
fn stress_two_cores() {
    stress(2, 8, lasting(2));
}

#[test]
fn stress_four_cores() {
    stress(4, 2, lasting(1));
}

/// Others want the CPUs too, so that threads are stopped anywhere, for whole time slices.
#[test]
fn stress_two_cores_under_heavy_load() {
    let is_over = Arc::new(AtomicBool::new(false));
    let hogs = 2 * thread::available_parallelism().map_or(1, usize::from);
    let hogs: Vec<_> = (0..hogs)
        .map(|_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || while !is_over.load(Ordering::Relaxed) {})
        })
        .collect();
    stress(2, 8, lasting(5));
    is_over.store(true, Ordering::Relaxed);
    hogs.into_iter().for_each(|hog| hog.join().expect("it ends"));
}

/// Request and reply: each side sleeps for every message, so every wake-up is needed.
#[test]
fn ping_pong_parks_for_every_message() {
    const ROUNDS: u64 = 20_000;
    let [mut a, mut b] = <[_; 2]>::try_from(mesh(2, 1)).expect("two endpoints");
    let progress = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&progress);
    let echo = thread::spawn(move || {
        let (_, wakes) = ThreadWaker::current();
        while !b.all_closed() {
            wakes.park_until(|cx| b.poll_ready(cx));
            let mut reply = None;
            b.receive(1, |_, message| reply = Some(message));
            if let Some(reply) = reply {
                b.send(A, reply).expect("room for the only reply");
            }
        }
    });
    let (alive, ended) = mpsc::channel();
    let caller = thread::spawn(move || {
        let _alive = alive;
        let (_, wakes) = ThreadWaker::current();
        let mut chance = SplitMix64::new(7);
        for round in 0..ROUNDS {
            a.send(B, round).expect("room for the only request");
            think(&mut chance);
            wakes.park_until(|cx| a.poll_ready(cx));
            assert_eq!(a.receive(2, |_, reply| assert_eq!(reply, round)), 1);
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    watch(&progress, &ended);
    caller.join().expect("the caller is done");
    echo.join().expect("the echo ended with the caller");
}
