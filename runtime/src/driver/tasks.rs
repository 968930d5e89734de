//! The tasks of a core: each has a name, is counted until its end, and is told of when it holds its core for long.
//!
//! Everything that runs on a core but the loop itself is spawned here. At the end of a core [`Tasks::end_all`] ends whatever
//! is left, wherever it waits, and [`Tasks::alive`] says that nothing is: glommio by itself forgets tasks that wait when an
//! executor ends, with everything that they hold.

use super::stalls::Stalls;
use crate::sync::{Arc, AtomicBool, Ordering};
use glommio::{Task, TaskQueueHandle};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

/// See the module.
pub(super) struct Tasks {
    /// Who is alive, by a number, and how it is woken for its end.
    alive: RefCell<BTreeMap<u64, (&'static str, Option<Waker>)>>,
    last: Cell<u64>,
    ending: Cell<Ending>,
    /// The class of what gets the time that the others leave.
    bulk: TaskQueueHandle,
    /// A task of it was made runnable since the last [`Self::take_bulk`]. glommio alone decides when it runs.
    bulk_is_runnable: Arc<AtomicBool>,
    pub(super) stalls: Stalls,
}

/// Who is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Nobody,
    /// Those that others come in by.
    Doors,
    All,
}

/// Wakes a task of the bulk class, and says that one is runnable.
struct BulkWaker {
    task: Waker,
    is_runnable: Arc<AtomicBool>,
}

impl Wake for BulkWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_runnable.store(true, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

/// A task's entry, until it is dropped.
struct Entry {
    tasks: Rc<Tasks>,
    number: u64,
    name: &'static str,
    /// From here on it ends.
    ends: Ending,
}

impl Entry {
    fn new(tasks: &Rc<Tasks>, name: &'static str, ends: Ending) -> Self {
        let number = tasks.last.get() + 1;
        tasks.last.set(number);
        tasks.alive.borrow_mut().insert(number, (name, None));
        Self { tasks: Rc::clone(tasks), number, name, ends }
    }

    /// Polls what the task does, unless it is to end.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Option<T>> {
        if self.tasks.ending.get() >= self.ends {
            return Poll::Ready(None);
        }
        let begun = Instant::now();
        let polled = poll(cx).map(Some);
        self.tasks.stalls.look(self.name, begun);
        if polled.is_pending() {
            let mut alive = self.tasks.alive.borrow_mut();
            if let Some((_, waker @ None)) = alive.get_mut(&self.number) {
                *waker = Some(cx.waker().clone());
            }
        }
        polled
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let entry = self.tasks.alive.borrow_mut().remove(&self.number);
        drop(entry);
    }
}

impl Tasks {
    /// None yet.
    pub(super) fn new(bulk: TaskQueueHandle, stalls: Stalls) -> Rc<Self> {
        Rc::new(Self {
            alive: RefCell::default(),
            last: Cell::new(0),
            ending: Cell::new(Ending::Nobody),
            bulk,
            bulk_is_runnable: Arc::new(AtomicBool::new(false)),
            stalls,
        })
    }

    /// Begins a task, which is polled once before this returns.
    pub(super) fn spawn(
        self: &Rc<Self>,
        name: &'static str,
        task: impl Future<Output = ()> + 'static,
    ) -> Task<()> {
        glommio::spawn_local(run(Entry::new(self, name, Ending::All), task))
    }

    /// Begins a task that others come in by: it ends with [`Self::close_doors`].
    pub(super) fn spawn_door(self: &Rc<Self>, name: &'static str, task: impl Future<Output = ()> + 'static) {
        glommio::spawn_local(run(Entry::new(self, name, Ending::Doors), task)).detach();
    }

    /// Begins a task that gets what time the others leave.
    pub(super) fn spawn_bulk(self: &Rc<Self>, name: &'static str, task: impl Future<Output = ()> + 'static) {
        let entry = Entry::new(self, name, Ending::All);
        let is_runnable = Arc::clone(&self.bulk_is_runnable);
        is_runnable.store(true, Ordering::Relaxed);
        let task = async move {
            let mut task = pin!(task);
            let mut own: Option<(Waker, Waker)> = None;
            poll_fn(|cx| {
                let (_, waker) = match &own {
                    Some(pair) if pair.0.will_wake(cx.waker()) => pair,
                    _ => own.insert((cx.waker().clone(), bulk_waker(cx.waker(), &is_runnable))),
                };
                entry.poll(&mut Context::from_waker(waker), |cx| task.as_mut().poll(cx))
            })
            .await;
        };
        glommio::spawn_local_into(task, self.bulk).expect("the queue lives as long as the executor").detach();
    }

    /// Whether a task of the bulk class has become runnable since the last call.
    pub(super) fn take_bulk(&self) -> bool {
        self.bulk_is_runnable.swap(false, Ordering::Relaxed)
    }

    /// The same, without taking note.
    pub(super) fn is_bulk_runnable(&self) -> bool {
        self.bulk_is_runnable.load(Ordering::Relaxed)
    }

    /// A task of the bulk class may be runnable still.
    pub(super) fn put_back_bulk(&self) {
        self.bulk_is_runnable.store(true, Ordering::Relaxed);
    }

    /// Ends those that others come in by: they are gone when they have run once more.
    pub(super) fn close_doors(&self) {
        self.end(Ending::Doors);
    }

    /// Ends all of them, each where it waits. (Not by cancelling glommio's tasks: one that is cancelled while it waits is
    /// never freed.)
    pub(super) fn end_all(&self) {
        self.end(Ending::All);
    }

    fn end(&self, ending: Ending) {
        self.ending.set(ending);
        let wakers: Vec<Waker> =
            self.alive.borrow().values().filter_map(|(_, waker)| waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The names of those that haven't ended.
    pub(super) fn alive(&self) -> Vec<&'static str> {
        self.alive.borrow().values().map(|(name, _)| *name).collect()
    }
}

async fn run(entry: Entry, task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    poll_fn(|cx| entry.poll(cx, |cx| task.as_mut().poll(cx))).await;
}

fn bulk_waker(task: &Waker, is_runnable: &Arc<AtomicBool>) -> Waker {
    Waker::from(Arc::new(BulkWaker { task: task.clone(), is_runnable: Arc::clone(is_runnable) }))
}
