//! The tasks of a core: each has a name, is counted until its end, and is told of when it holds its core for long.
//!
//! Everything that runs on a core but the loop itself is spawned here. At the end of a core [`Tasks::end_all`] ends whatever
//! is left, wherever it waits, and [`Tasks::alive`] says that nothing is: glommio by itself forgets tasks that wait when an
//! executor ends, with everything that they hold.

use super::stalls::{Stalls, Tick};
use crate::sync::{Arc, AtomicBool, Ordering};
use glommio::{Task, TaskQueueHandle};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Wake, Waker};

/// See the module.
pub(super) struct Tasks {
    alive: RefCell<Alive>,
    ending: Cell<Ending>,
    /// The class of what gets the time that the others leave.
    bulk: TaskQueueHandle,
    /// A task of it was made runnable since the last [`Self::take_bulk`]. glommio alone decides when it runs.
    bulk_is_runnable: Arc<AtomicBool>,
    pub(super) stalls: Stalls,
}

/// Who is alive, each in a place of its own: its name, and how it is woken for its end.
#[derive(Default)]
struct Alive {
    places: Vec<Option<(&'static str, Option<Waker>)>>,
    free: Vec<usize>,
}

impl Alive {
    fn add(&mut self, name: &'static str) -> usize {
        let place = self.free.pop().unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(None);
        }
        self.places[place] = Some((name, None));
        place
    }

    fn remove(&mut self, place: usize) -> Option<(&'static str, Option<Waker>)> {
        self.free.push(place);
        self.places[place].take()
    }

    fn all(&self) -> impl Iterator<Item = &(&'static str, Option<Waker>)> {
        self.places.iter().flatten()
    }
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
    place: usize,
    name: &'static str,
    /// From here on it ends.
    ends: Ending,
    /// The tasks know how to wake it: a task's waker is always the same.
    is_known: Cell<bool>,
}

impl Entry {
    fn new(tasks: &Rc<Tasks>, name: &'static str, ends: Ending) -> Self {
        let place = tasks.alive.borrow_mut().add(name);
        Self { tasks: Rc::clone(tasks), place, name, ends, is_known: Cell::new(false) }
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
        let begun = Tick::last();
        let polled = poll(cx).map(Some);
        self.tasks.stalls.look_at_ticks(self.name, begun);
        if polled.is_pending() && !self.is_known.replace(true) {
            let waker = cx.waker().clone();
            self.tasks.alive.borrow_mut().places[self.place] = Some((self.name, Some(waker)));
        }
        polled
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let entry = self.tasks.alive.borrow_mut().remove(self.place);
        drop(entry);
    }
}

impl Tasks {
    /// None yet.
    pub(super) fn new(bulk: TaskQueueHandle, stalls: Stalls) -> Rc<Self> {
        Rc::new(Self {
            alive: RefCell::default(),
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
        let wakers: Vec<Waker> = self.alive.borrow().all().filter_map(|(_, waker)| waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The names of those that haven't ended.
    pub(super) fn alive(&self) -> Vec<&'static str> {
        self.alive.borrow().all().map(|(name, _)| *name).collect()
    }
}

async fn run(entry: Entry, task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    poll_fn(|cx| entry.poll(cx, |cx| task.as_mut().poll(cx))).await;
}

fn bulk_waker(task: &Waker, is_runnable: &Arc<AtomicBool>) -> Waker {
    Waker::from(Arc::new(BulkWaker { task: task.clone(), is_runnable: Arc::clone(is_runnable) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vitals::Vitals;
    use futures_lite::future::{pending, yield_now};
    use glommio::{LocalExecutorBuilder, Placement};

    fn on_an_executor(test: impl AsyncFnOnce(Rc<Tasks>) + Send + 'static) {
        let executor = LocalExecutorBuilder::new(Placement::Unbound);
        let run = move || async move {
            test(Tasks::new(TaskQueueHandle::default(), Stalls::new(0, Vitals::new()))).await;
        };
        executor.spawn(run).unwrap().join().unwrap();
    }

    /// Tells when it is dropped.
    struct Held(Rc<Cell<u32>>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn tasks_that_wait_are_ended_where_they_wait_doors_first() {
        on_an_executor(async |tasks| {
            let dropped = Rc::new(Cell::new(0));
            let forever = || {
                let held = Held(Rc::clone(&dropped));
                async move {
                    let _held = held;
                    pending::<()>().await;
                }
            };
            tasks.spawn_door("a door", forever());
            tasks.spawn("a guest", forever()).detach();
            tasks.spawn_bulk("a sleeper", forever());
            tasks.spawn("quick", async {}).detach();
            while tasks.take_bulk() {
                yield_now().await;
            }
            assert_eq!(tasks.alive(), ["a door", "a guest", "a sleeper"]);
            tasks.close_doors();
            yield_now().await;
            assert_eq!((tasks.alive(), dropped.get()), (vec!["a guest", "a sleeper"], 1));
            tasks.spawn("another", forever()).detach();
            assert_eq!(tasks.alive().len(), 3);
            tasks.end_all();
            assert!(tasks.is_bulk_runnable(), "the loop is told to let it run");
            yield_now().await;
            assert_eq!((tasks.alive().len(), dropped.get()), (0, 4));
        });
    }

    #[test]
    fn places_are_used_again() {
        on_an_executor(async |tasks| {
            for _ in 0..100 {
                tasks.spawn("quick", async {}).await;
                tasks.spawn("slower", yield_now()).await;
            }
            assert_eq!(tasks.alive.borrow().places.len(), 1);
        });
    }
}
