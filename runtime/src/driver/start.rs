//! Starting and ending a node's cores.

use super::clock::Clock;
use super::core_loop::{CoreLoop, Hands};
use super::guardian::{Guardian, Watch};
use super::poller::{Listener, Poller};
use super::pulse::Pulse;
use super::stalls::Stalls;
use super::tasks::Tasks;
use super::timers::Timers;
use super::{
    CoreOptions, Limits, NodeError, NodeOptions, TlsOptions, admin, clients, disk, peers, placement,
};
use crate::block::BlockPool;
use crate::control::Control;
use crate::machine::{CoreBoot, CoreId, Machine};
use crate::mesh::{Endpoint, mesh};
use crate::sync::Arc;
use crate::vitals::Vitals;
use glommio::{Latency, LocalExecutorBuilder, PoolPlacement, Shares};
use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Once, mpsc};
use std::time::{Duration, Instant};

/// Slots of a mesh ring.
const MESH_SLOTS: usize = 4096;
/// How the names of the cores' threads begin.
pub(super) const THREAD_NAME: &str = "flotilla-core";
/// glommio's preemption timer. Nothing here computes for longer than a few ms, so nothing needs it to yield; but when it
/// fires before an executor has run its first task, as it may under load, glommio parks for good with that task
/// runnable. Longer than any start takes, then.
const PREEMPT: Duration = Duration::from_millis(500);
/// Of the CPU, against 1000 for everything else, for what has time.
const BULK_SHARES: usize = 50;
/// When a machine has drained, what its core has begun may take so long to end.
const END_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Settings that a node takes over while it runs.
pub struct Reload {
    /// Bounds. What is over them already stays.
    pub limits: Limits,
    /// For connections that begin from then on.
    pub tls: TlsOptions,
    /// For the machines: [`Event::Reloaded`](crate::Event::Reloaded).
    pub settings: Arc<dyn Any + Send + Sync>,
}

/// Asks a node to stop, or to take over other settings, from any thread. A handle is for one node.
#[derive(Clone)]
pub struct NodeHandle(Arc<Control<Reload>>);

impl Default for NodeHandle {
    fn default() -> Self {
        Self(Arc::new(Control::new()))
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("is_stopping", &self.0.is_stopping()).finish_non_exhaustive()
    }
}

impl NodeHandle {
    /// Not asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a drain.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Whether that has been asked for.
    pub fn is_stopping(&self) -> bool {
        self.0.is_stopping()
    }

    /// Every core takes these over.
    pub fn reload(&self, reload: Reload) {
        self.0.reload(reload);
    }

    /// Tells, each time that it is asked, which cores haven't turned since the time before.
    pub fn pulse(&self) -> Pulse {
        Pulse::new(&self.0)
    }
}

/// What the cores of a node share besides the mesh: nothing that is written while they work.
pub(super) struct NodeShared {
    handle: NodeHandle,
    options: NodeOptions,
}

impl NodeShared {
    pub(super) fn control(&self) -> &Control<Reload> {
        &self.handle.0
    }

    pub(super) fn options(&self) -> &NodeOptions {
        &self.options
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
    let (reports, inbox) = mpsc::channel();
    let mut options = options;
    let cores = std::mem::take(&mut options.cores);
    let mut admin = options.admin.take();
    let count = cores.len();
    let places = placement::place(&options.placement, count)?;
    placement::tell(&places);
    let shared = Arc::new(NodeShared { handle: stop, options });
    // Before any core, so that none is forgotten at its start.
    let (guardian, watches) = Guardian::start(count).map_err(|error| NodeError::NotStarted {
        core: 0,
        reason: format!("no thread for the watchdog: {error}"),
    })?;
    shared.control().appoint(watches.iter().map(Watch::post).collect());
    let endpoints = mesh::<M::Message>(count, MESH_SLOTS);
    let mut threads = Vec::new();
    for (((number, core), endpoint), watch) in (0_u16..).zip(cores).zip(endpoints).zip(watches) {
        let (of_core, build) = (Arc::clone(&shared), build.clone());
        let farewell = Farewell(number, reports.clone());
        let builder = builder(&shared.options, places[usize::from(number)]);
        let ports = (core, admin.take());
        let thread = builder.spawn(move || async move {
            let reports = farewell.1.clone();
            if let Err(reason) = run_core(number, ports, (endpoint, watch), of_core, build, &reports).await {
                let _ = reports.send(Report::NotStarted(number, reason));
            }
            drop(farewell);
        });
        threads.push(thread.map_err(|error| no_executor(&error, number))?);
    }
    drop(reports);
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
    if shared.options.ends_process {
        return Ok(());
    }
    for thread in threads {
        // A panic was reported as `Gone` before.
        let _ = thread.join();
    }
    guardian.end();
    shared.control().dismiss();
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

fn builder(options: &NodeOptions, cpu: Option<usize>) -> LocalExecutorBuilder {
    let placement = cpu.map_or(glommio::Placement::Unbound, glommio::Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(THREAD_NAME)
        .io_memory(options.io_memory_bytes)
        .ring_depth(512)
        .preempt_timer(PREEMPT)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
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
    (endpoint, watch): (Endpoint<M::Message>, Watch),
    shared: Arc<NodeShared>,
    build: impl Fn(CoreBoot) -> Result<M, String>,
    reports: &mpsc::Sender<Report>,
) -> Result<(), String> {
    watch.keep_awake().await;
    // Registers membarrier with the kernel: the first park is slow.
    glommio::timer::sleep(Duration::from_micros(100)).await;
    let options = &shared.options;
    let (clock, vitals) = (Clock::start(), Vitals::new());
    let bulk =
        glommio::executor().create_task_queue(Shares::Static(BULK_SHARES), Latency::NotImportant, "bulk");
    let tasks = Tasks::new(bulk, Stalls::new(number, Rc::clone(&vitals)));
    let disk = disk::Disk::open(core.folder, options.sync, Rc::clone(&tasks), Rc::clone(&vitals));
    let (disk, files) = disk.await?;
    let boot = CoreBoot {
        core: CoreId(number),
        files,
        pool: BlockPool::new(),
        seed: options.seed ^ (u64::from(number) << 48),
        now: clock.now(),
        vitals: Rc::clone(&vitals),
    };
    watch.beat();
    let machine = build(boot)?;
    watch.beat();
    let no_descriptor =
        |error| format!("can't watch its sockets: {error}; raise the limit of open files (ulimit -n)");
    let poller = Poller::new(Timers::new(clock), Rc::clone(&tasks)).map_err(no_descriptor)?;
    poller.watch(disk.ring()).map_err(no_descriptor)?;
    let clients = Listener::new(core.clients, &poller).map_err(no_descriptor)?;
    let peers = Listener::new(core.peers, &poller).map_err(no_descriptor)?;
    let admin = admin.map(|admin| Listener::new(admin, &poller)).transpose().map_err(no_descriptor)?;
    let hands = Hands { endpoint, disk, poller, vitals, tasks, watch };
    let core_loop = CoreLoop::new(machine, CoreId(number), hands, options, clock, reports.clone());
    let the_loop = glommio::spawn_local(CoreLoop::run(Rc::clone(&core_loop), Arc::clone(&shared)));
    open_doors(&core_loop, (clients, peers, admin), &shared);
    core_loop.first_tick();
    let _ = reports.send(Report::Ready);
    core_loop.until_over().await;
    end(&core_loop).await;
    the_loop.cancel().await;
    let _ = reports.send(Report::Drained(number));
    Ok(())
}

/// Those who let others in, and who call on them.
fn open_doors<M: Machine + 'static>(
    core: &Rc<CoreLoop<M>>,
    (clients, peers, admin): (Listener, Listener, Option<Listener>),
    shared: &Arc<NodeShared>,
) {
    let tasks = &core.tasks;
    tasks.spawn_door("accepting clients", clients::accept(Rc::clone(core), clients));
    tasks.spawn_door("accepting peers", peers::accept(Rc::clone(core), peers, Arc::clone(shared)));
    if let Some(admin) = admin {
        tasks.spawn_bulk("accepting operators", admin::accept(Rc::clone(core), admin));
    }
    for link in core.links() {
        tasks.spawn_door("a link", peers::keep_up(Rc::clone(core), link, Arc::clone(shared)));
    }
}

/// The machine has drained: replies go out, operations come to their end, and then every task is ended.
async fn end<M: Machine + 'static>(core: &Rc<CoreLoop<M>>) {
    core.tasks.close_doors();
    core.poller.stir();
    peers::cut_all(core);
    admin::cut_all(core);
    clients::cut_all(core).await;
    let begun = Instant::now();
    while core.disk().is_busy() && begun.elapsed() < END_WITHIN {
        core.poller.sleep(LOOK_EVERY).await;
    }
    core.tasks.end_all();
    core.poller.stir();
    while !core.tasks.alive().is_empty() && begun.elapsed() < END_WITHIN {
        core.poller.sleep(LOOK_EVERY).await;
    }
    let left = core.tasks.alive();
    if !left.is_empty() {
        tracing::warn!(core = core.id.0, ?left, "tasks didn't end");
    }
    debug_assert!(left.is_empty(), "tasks of core {} didn't end: {left:?}", core.id.0);
    core.close_disk().await;
}
