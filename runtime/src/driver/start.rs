//! Starting and ending a node's cores.

use super::core_loop::{CoreLoop, Hands};
use super::guardian::{keep_awake, watch};
use super::poller::{Listener, Poller};
use super::pulse::{Beats, Pulse};
use super::{
    CoreOptions, Limits, NodeError, NodeOptions, Placement, TlsOptions, admin, clients, disk, peers,
};
use crate::block::BlockPool;
use crate::machine::{CoreBoot, CoreId, Machine};
use crate::mesh::{Endpoint, mesh};
use crate::vitals::Vitals;
use glommio::{LocalExecutorBuilder, PoolPlacement};
use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::task::Waker;
use std::time::Duration;

/// Slots of a mesh ring.
const MESH_SLOTS: usize = 4096;
/// How the names of the cores' threads begin.
pub(super) const THREAD_NAME: &str = "flotilla-core";
/// glommio's preemption timer. Nothing here computes for longer than a few ms, so nothing needs it to yield; but when it
/// fires before an executor has run its first task, as it may under load, glommio parks for good with that task
/// runnable. Longer than any start takes, then.
const PREEMPT: Duration = Duration::from_millis(500);

/// Settings that a node takes over while it runs.
pub struct Reload {
    /// Bounds. What is over them already stays.
    pub limits: Limits,
    /// For connections that begin from then on.
    pub tls: TlsOptions,
    /// For the machines: [`Event::Reloaded`](crate::Event::Reloaded).
    pub settings: Arc<dyn Any + Send + Sync>,
}

/// Asks a node to stop, or to take over other settings.
#[derive(Clone, Default)]
pub struct NodeHandle {
    asked: Arc<AtomicBool>,
    /// How often there were other settings.
    reloads: Arc<AtomicU64>,
    newest: Arc<Mutex<Option<Arc<Reload>>>>,
    beats: Beats,
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl NodeHandle {
    /// Not asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a drain.
    pub fn stop(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Every core takes these over, within some ten milliseconds.
    pub fn reload(&self, reload: Reload) {
        *self.newest.lock().expect("nobody panics holding it") = Some(Arc::new(reload));
        self.reloads.fetch_add(1, Ordering::Release);
    }

    /// Tells, each time that it is asked, which cores haven't turned since the time before.
    pub fn pulse(&self) -> Pulse {
        Pulse::new(&self.beats)
    }
}

/// What the cores of a node share besides the mesh: nothing that is touched while they work.
#[derive(Debug)]
pub(super) struct NodeShared {
    stop: NodeHandle,
    over: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

impl NodeShared {
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.asked.load(Ordering::Relaxed)
    }

    /// How often there were other settings.
    pub(super) fn reloads(&self) -> u64 {
        self.stop.reloads.load(Ordering::Acquire)
    }

    /// The newest of them.
    pub(super) fn newest(&self) -> Option<Arc<Reload>> {
        self.stop.newest.lock().expect("nobody panics holding it").clone()
    }

    /// That core has come round.
    pub(super) fn beat(&self, core: CoreId) {
        self.stop.beats.beat(core.0);
    }

    pub(super) fn register(&self, waker: Waker) {
        self.wakers.lock().expect("nobody panics holding it").push(waker);
    }

    pub(super) fn wake_all(&self) {
        for waker in &*self.wakers.lock().expect("nobody panics holding it") {
            waker.wake_by_ref();
        }
    }

    fn forget_wakers(&self) {
        self.wakers.lock().expect("nobody panics holding it").clear();
    }
}

/// What a core tells the thread that started it.
#[derive(Debug)]
pub(super) enum Report {
    Ready,
    NotStarted(u16, String),
    Halted(String),
    Drained(u16),
    /// Its thread ended. After `Drained`, as it should.
    Gone(u16),
}

/// Tells that a core's thread is gone, however it went.
struct Farewell(u16, mpsc::Sender<Report>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody listens any more: the node has ended for another reason.
        let _ = self.1.send(Report::Gone(self.0));
    }
}

/// Runs a node: builds a machine for every core, calls `ready` when all of them serve, and returns when all of them
/// have drained after [`NodeHandle::stop`].
///
/// # Errors
/// [`NodeError`]. The cores may still be running then: end the process.
pub fn run<M: Machine + 'static>(
    options: NodeOptions,
    build: impl Fn(CoreBoot) -> Result<M, String> + Clone + Send + 'static,
    stop: NodeHandle,
    ready: impl FnOnce(),
) -> Result<(), NodeError> {
    die_of_panics();
    super::memory::keep_what_is_freed();
    stop.beats.begin(options.cores.len());
    let shared = Arc::new(NodeShared { stop, over: AtomicBool::new(false), wakers: Mutex::default() });
    let (reports, inbox) = mpsc::channel();
    let mut options = options;
    let cores = std::mem::take(&mut options.cores);
    let mut admin = options.admin.take();
    let count = cores.len();
    let options = Arc::new(options);
    let endpoints = mesh::<M::Message>(count, MESH_SLOTS);
    let mut threads = Vec::new();
    for ((number, core), endpoint) in (0_u16..).zip(cores).zip(endpoints) {
        let (options, shared, build) = (Arc::clone(&options), Arc::clone(&shared), build.clone());
        let farewell = Farewell(number, reports.clone());
        let builder = builder(&options, number)?;
        let ports = (core, admin.take());
        let thread = builder.spawn(move || async move {
            let reports = farewell.1.clone();
            if let Err(reason) = run_core(number, ports, endpoint, options, shared, build, &reports).await {
                let _ = reports.send(Report::NotStarted(number, reason));
            }
            drop(farewell);
        });
        threads.push(thread.map_err(|error| no_executor(&error, number))?);
    }
    drop(reports);
    let watchdog = watch(&shared).map_err(|error| NodeError::NotStarted {
        core: 0,
        reason: format!("no thread for the watchdog: {error}"),
    })?;
    if let Err(error) = supervise(count, &inbox, ready) {
        return Err(match error {
            // Its thread has ended, and knows why.
            NodeError::Died { core } => match threads.swap_remove(usize::from(core)).join() {
                Err(why) => no_executor(&why, core),
                Ok(()) => NodeError::Died { core },
            },
            error => error,
        });
    }
    shared.over.store(true, Ordering::Relaxed);
    for thread in threads {
        // A panic was reported as `Gone` before.
        let _ = thread.join();
    }
    let _ = watchdog.join();
    shared.forget_wakers();
    Ok(())
}

/// A panic of a core's thread is the node's death: half a node would hold the others up.
fn die_of_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            tell(panic);
            if std::thread::current().name().is_some_and(|name| name.starts_with(THREAD_NAME)) {
                std::process::abort();
            }
        }));
    });
}

fn supervise(count: usize, inbox: &mpsc::Receiver<Report>, ready: impl FnOnce()) -> Result<(), NodeError> {
    let (mut starting, mut ready) = (count, Some(ready));
    let mut drained = BTreeSet::new();
    while drained.len() < count {
        match inbox.recv() {
            Ok(Report::Ready) => {
                starting -= 1;
                if starting == 0
                    && let Some(ready) = ready.take()
                {
                    ready();
                }
            }
            Ok(Report::NotStarted(core, reason)) => return Err(NodeError::NotStarted { core, reason }),
            Ok(Report::Halted(reason)) => return Err(NodeError::Halted(reason)),
            Ok(Report::Drained(core)) => {
                drained.insert(core);
            }
            Ok(Report::Gone(core)) if drained.contains(&core) => {}
            Ok(Report::Gone(core)) => return Err(NodeError::Died { core }),
            Err(mpsc::RecvError) => break,
        }
    }
    Ok(())
}

fn builder(options: &NodeOptions, core: u16) -> Result<LocalExecutorBuilder, NodeError> {
    let placement = match &options.placement {
        Placement::Floating => glommio::Placement::Unbound,
        Placement::Pinned(cpus) => glommio::Placement::Fixed(cpus[usize::from(core)]),
    };
    if let Placement::Pinned(cpus) = &options.placement {
        let cpu = cpus[usize::from(core)];
        let allowed = rustix::thread::sched_getaffinity(None);
        let usable = allowed.is_ok_and(|set| cpu < rustix::thread::CpuSet::MAX_CPU && set.is_set(cpu));
        if !usable {
            let reason = "this process may not run there, or there is no such CPU".to_owned();
            return Err(NodeError::Placement { core, cpu, reason });
        }
    }
    Ok(LocalExecutorBuilder::new(placement)
        .name(THREAD_NAME)
        .io_memory(options.io_memory_bytes)
        .ring_depth(512)
        .preempt_timer(PREEMPT)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1)))
}

/// A core that has no executor lacks descriptors, locked memory or io_uring as a whole.
fn no_executor(error: &glommio::GlommioError<()>, core: u16) -> NodeError {
    let said = error.to_string();
    let cure = match said.contains("Too many open files") {
        true => "raise the limit of open files (ulimit -n, LimitNOFILE= of the unit)",
        false => {
            "raise the limit of locked memory (ulimit -l, LimitMEMLOCK= of the unit), allow io_uring (sysctl kernel.io_uring_disabled); see `flotilla doctor`"
        }
    };
    NodeError::NotStarted { core, reason: format!("io_uring: {said}: {cure}") }
}

async fn run_core<M: Machine + 'static>(
    number: u16,
    (core, admin): (CoreOptions, Option<TcpListener>),
    endpoint: Endpoint<M::Message>,
    options: Arc<NodeOptions>,
    shared: Arc<NodeShared>,
    build: impl Fn(CoreBoot) -> Result<M, String>,
    reports: &mpsc::Sender<Report>,
) -> Result<(), String> {
    keep_awake(&shared).await;
    // Registers membarrier with the kernel: the first park is slow.
    glommio::timer::sleep(Duration::from_micros(100)).await;
    let vitals = Vitals::new();
    let (disk, files) = disk::Disk::open(core.folder, options.sync, Rc::clone(&vitals)).await?;
    let clock = super::core_loop::Clock::start();
    let boot = CoreBoot {
        core: CoreId(number),
        files,
        pool: BlockPool::dma(),
        seed: options.seed ^ (u64::from(number) << 48),
        now: clock.now(),
        vitals: Rc::clone(&vitals),
    };
    let machine = build(boot)?;
    let no_descriptor =
        |error| format!("can't watch its sockets: {error}; raise the limit of open files (ulimit -n)");
    let poller = Poller::new().map_err(no_descriptor)?;
    poller.watch(disk.ring()).map_err(no_descriptor)?;
    let clients = Listener::new(core.clients, &poller).map_err(no_descriptor)?;
    let peers = Listener::new(core.peers, &poller).map_err(no_descriptor)?;
    let admin = admin.map(|admin| Listener::new(admin, &poller)).transpose().map_err(no_descriptor)?;
    let hands = Hands { endpoint, disk, poller, vitals };
    let core_loop = CoreLoop::new(machine, CoreId(number), hands, &options, clock, reports.clone());
    let beats = shared.stop.beats.clone();
    let the_loop = glommio::spawn_local(CoreLoop::run(Rc::clone(&core_loop), shared));
    let mut tasks = vec![
        glommio::spawn_local(clients::accept(Rc::clone(&core_loop), clients)),
        glommio::spawn_local(peers::accept(Rc::clone(&core_loop), peers, Arc::clone(&options))),
    ];
    if let Some(admin) = admin {
        tasks.push(core_loop.disk().spawn_bulk(admin::accept(Rc::clone(&core_loop), admin)));
    }
    for link in core_loop.links() {
        tasks.push(glommio::spawn_local(peers::keep_up(Rc::clone(&core_loop), link, Arc::clone(&options))));
    }
    core_loop.first_tick();
    let _ = reports.send(Report::Ready);
    core_loop.until_over().await;
    for task in tasks {
        task.cancel().await;
    }
    peers::cut_all(&core_loop);
    admin::cut_all(&core_loop);
    clients::cut_all(&core_loop).await;
    core_loop.close_disk().await;
    the_loop.cancel().await;
    beats.end(number);
    let _ = reports.send(Report::Drained(number));
    Ok(())
}
