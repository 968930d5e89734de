//! The mesh beside other ways from one core to another, all in one process on the same two CPUs, one after the other. Prints one
//! JSON object: nanoseconds one way, and messages a second.
//!
//! `mesh-peers SECONDS [FIGURE]`: about so long for each of the eight measurements, or for that one.

use flotilla_runtime::{CoreId, Endpoint, mesh};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// 64 bytes.
type Message = [u64; 8];
const SLOTS: usize = 4096;
const BATCH: usize = 64;
/// Round trips in one sample, so that reading the clock doesn't count.
const TRIPS: u32 = 50;
const A: CoreId = CoreId(0);
const B: CoreId = CoreId(1);

fn main() {
    // Before any thread is pinned: others inherit that.
    LazyLock::force(&CPUS);
    let text = std::env::args().nth(1).unwrap_or_else(|| "1".to_owned());
    let Some(seconds) = text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds)) else {
        eprintln!("mesh-peers: SECONDS is a number from 0 to 86400, not {text:?}");
        std::process::exit(2);
    };
    let time = Duration::from_secs_f64(seconds);
    let wanted = std::env::args().nth(2);
    let figures: [(&str, fn(Duration) -> f64); 8] = [
        ("rtrb_one_way_ns", rtrb_one_way),
        ("mesh_one_way_ns", mesh_one_way),
        ("eventfd_one_way_ns", eventfd_one_way),
        ("mesh_parked_one_way_ns", mesh_parked_one_way),
        ("shared_channel_per_second", shared_channel_throughput),
        ("crossbeam_per_second", crossbeam_throughput),
        ("rtrb_per_second", rtrb_throughput),
        ("mesh_per_second", mesh_throughput),
    ];
    let asked = figures.iter().filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == name));
    let fields: Vec<String> =
        asked.map(|(name, measure)| format!("\"{name}\": {:.1}", measure(time))).collect();
    println!("{{{}}}", fields.join(", "));
}

/// The CPUs that this process may use, as it was started.
static CPUS: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let allowed = rustix::thread::sched_getaffinity(None).expect("the process has CPUs");
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect()
});

/// The calling thread, and those that it starts until they say otherwise, run on the n-th of them.
fn pin(n: usize) {
    let mut one = rustix::thread::CpuSet::new();
    one.set(CPUS[n % CPUS.len()]);
    rustix::thread::sched_setaffinity(None, &one).expect("it is one of its own");
}

/// Spins, but lets others run when that takes long: the machine may be busy.
fn until(mut done: impl FnMut() -> bool) {
    let mut spins = 0;
    while !done() {
        spins += 1;
        if spins % 4096 == 0 {
            thread::yield_now();
        }
        spin_loop();
    }
}

/// The median nanoseconds one way of round trips that `trip` makes.
fn one_way(time: Duration, mut trip: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut samples = Vec::new();
    // However short the time, there is a sample.
    while samples.is_empty() || begun.elapsed() < time {
        let start = Instant::now();
        (0..TRIPS).for_each(|_| trip());
        samples.push(start.elapsed().as_nanos() as f64 / f64::from(2 * TRIPS));
    }
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn rtrb_one_way(time: Duration) -> f64 {
    let (mut to, mut at) = rtrb::RingBuffer::<Message>::new(SLOTS);
    let (mut back, mut home) = rtrb::RingBuffer::<Message>::new(SLOTS);
    let echo = thread::spawn(move || {
        pin(1);
        while !at.is_abandoned() || !at.is_empty() {
            if let Ok(message) = at.pop() {
                back.push(message).expect("room");
            }
            spin_loop();
        }
    });
    pin(0);
    let found = one_way(time, || {
        to.push([1; 8]).expect("room");
        until(|| home.pop().is_ok());
    });
    drop(to);
    echo.join().expect("it ends");
    found
}

fn two() -> [Endpoint<Message>; 2] {
    mesh(2, SLOTS).try_into().expect("two endpoints")
}

fn mesh_one_way(time: Duration) -> f64 {
    let [mut a, mut b] = two();
    let echo = thread::spawn(move || {
        pin(1);
        loop {
            let mut got = None;
            if b.receive(1, |_, message| got = Some(message)) == 0 && b.all_closed() {
                return;
            }
            if let Some(message) = got {
                b.send(A, message).expect("room");
                b.publish();
            }
            spin_loop();
        }
    });
    pin(0);
    let found = one_way(time, || {
        a.send(B, [1; 8]).expect("room");
        a.publish();
        until(|| a.receive(1, |_, _| ()) > 0);
    });
    drop(a);
    echo.join().expect("it ends");
    found
}

/// Wakes a thread that reads it, as a core's bell does.
struct Bell(OwnedFd);

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd")))
    }

    fn ring(&self) {
        rustix::io::write(&self.0, &1_u64.to_ne_bytes()).expect("it counts");
    }

    fn wait(&self) {
        rustix::io::read(&self.0, &mut [0; 8]).expect("it counts");
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

fn eventfd_one_way(time: Duration) -> f64 {
    let (there, back, over) = (Bell::new(), Bell::new(), Arc::new(AtomicBool::new(false)));
    let (at, home, is_over) = (Arc::clone(&there), Arc::clone(&back), Arc::clone(&over));
    let echo = thread::spawn(move || {
        pin(1);
        while !is_over.load(Ordering::Relaxed) {
            at.wait();
            home.ring();
        }
    });
    pin(0);
    let found = one_way(time, || {
        there.ring();
        back.wait();
    });
    over.store(true, Ordering::Relaxed);
    there.ring();
    echo.join().expect("it ends");
    found
}

/// Waits on its bell until something can be received, and receives it. Says whether anything was.
fn receive_parked(endpoint: &mut Endpoint<Message>, bell: &Arc<Bell>, waker: &Waker) -> bool {
    while endpoint.poll_ready(&mut Context::from_waker(waker)) == Poll::Pending {
        bell.wait();
    }
    endpoint.receive(1, |_, _| ()) > 0
}

fn mesh_parked_one_way(time: Duration) -> f64 {
    let [mut a, mut b] = two();
    let echo = thread::spawn(move || {
        pin(1);
        let bell = Bell::new();
        let waker = Waker::from(Arc::clone(&bell));
        while receive_parked(&mut b, &bell, &waker) {
            b.send(A, [1; 8]).expect("room");
            b.publish();
        }
    });
    pin(0);
    let bell = Bell::new();
    let waker = Waker::from(Arc::clone(&bell));
    let found = one_way(time, || {
        a.send(B, [1; 8]).expect("room");
        a.publish();
        receive_parked(&mut a, &bell, &waker);
    });
    drop(a);
    echo.join().expect("it ends");
    found
}

/// Messages a second from `send`, which sends a batch, to `sink`, which counts them and sums up their first words until the sender has gone.
fn throughput(
    time: Duration,
    mut send: impl FnMut(),
    sink: impl FnOnce() -> (u64, u64) + Send + 'static,
) -> f64 {
    let sink = thread::spawn(move || {
        pin(1);
        sink()
    });
    pin(0);
    let begun = Instant::now();
    while begun.elapsed() < time {
        (0..16).for_each(|_| send());
    }
    drop(send);
    let (count, sum) = sink.join().expect("it ends");
    assert_eq!(sum, count);
    count as f64 / begun.elapsed().as_secs_f64()
}

fn mesh_throughput(time: Duration) -> f64 {
    let [mut a, mut b] = two();
    let send = move || {
        for _ in 0..BATCH {
            until(|| a.send(B, [1; 8]).is_ok());
        }
        a.publish();
    };
    throughput(time, send, move || {
        let (mut count, mut sum) = (0, 0);
        while !b.all_closed() {
            count += b.receive(256, |_, message| sum += message[0]) as u64;
            spin_loop();
        }
        (count, sum)
    })
}

fn rtrb_throughput(time: Duration) -> f64 {
    let (mut to, mut at) = rtrb::RingBuffer::<Message>::new(SLOTS);
    let send = move || {
        until(|| match to.write_chunk_uninit(BATCH) {
            Ok(chunk) => {
                chunk.fill_from_iter([[1; 8]; BATCH]);
                true
            }
            Err(_) => false,
        });
    };
    throughput(time, send, move || {
        let (mut count, mut sum) = (0, 0);
        while !at.is_abandoned() || !at.is_empty() {
            if let Ok(chunk) = at.read_chunk(at.slots().min(256)) {
                for message in chunk {
                    sum += message[0];
                    count += 1;
                }
            }
            spin_loop();
        }
        (count, sum)
    })
}

fn crossbeam_throughput(time: Duration) -> f64 {
    let (to, at) = crossbeam_channel::bounded::<Message>(SLOTS);
    let send = move || (0..BATCH).for_each(|_| to.send([1; 8]).expect("it receives"));
    throughput(time, send, move || {
        let (mut count, mut sum) = (0, 0);
        while let Ok(message) = at.recv() {
            sum += message[0];
            count += 1;
        }
        (count, sum)
    })
}

fn shared_channel_throughput(time: Duration) -> f64 {
    use glommio::channels::shared_channel;
    use glommio::{LocalExecutorBuilder, Placement};
    let (to, at) = shared_channel::new_bounded::<Message>(SLOTS);
    let received = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&received);
    let executor =
        |cpu| LocalExecutorBuilder::new(Placement::Fixed(cpu)).spin_before_park(Duration::from_millis(1));
    let sink = executor(CPUS[1 % CPUS.len()])
        .spawn(move || async move {
            let at = at.connect().await;
            let mut count = 0;
            while let Some(message) = at.recv().await {
                count += message[0];
            }
            counted.store(count, Ordering::Relaxed);
        })
        .expect("an executor");
    let source = executor(CPUS[0])
        .spawn(move || async move {
            let to = to.connect().await;
            let begun = Instant::now();
            while begun.elapsed() < time {
                for _ in 0..16 * BATCH {
                    to.send([1; 8]).await.expect("it receives");
                }
            }
            drop(to);
            begun
        })
        .expect("an executor");
    let begun = source.join().expect("it ends");
    // Bounded: what is left in it is the smaller part.
    let until = begun.elapsed();
    sink.join().expect("it ends");
    received.load(Ordering::Relaxed) as f64 / until.as_secs_f64()
}
