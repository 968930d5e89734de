//! The clock tick, the stop signal, and the cure for glommio's lost wake-ups.
//!
//! glommio 0.9 can park an executor that has runnable tasks. One thread of the process therefore wakes a task of
//! every executor every few milliseconds, through a waker that is never used up. That task has a second use: it
//! looks at the clock, which makes a timer of its own unnecessary, and at the stop signal.

use super::core_loop::CoreLoop;
use super::start::{NodeShared, THREAD_NAME};
use crate::machine::{Event, Machine};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How often every core is woken: the longest stall, and the grain of the timeouts.
const PERIOD: Duration = Duration::from_millis(10);

/// Wakes everybody until the node ends.
pub(super) fn watch(shared: &Arc<NodeShared>) -> std::io::Result<std::thread::JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let name = format!("{THREAD_NAME}-watchdog");
    std::thread::Builder::new().name(name).spawn(move || {
        while !shared.is_over() {
            std::thread::sleep(PERIOD);
            shared.wake_all();
        }
    })
}

/// Lets the watchdog wake the calling task, too, from now on: the core's start and its end, when nobody stands guard, must
/// not be slept through. It has to be called before that task waits for the first time, and can't be a task of its own:
/// that would be one more that the executor can forget to run.
pub(super) async fn keep_awake(shared: &NodeShared) {
    poll_fn(|cx| {
        shared.register(cx.waker().clone());
        Poll::Ready(())
    })
    .await;
}

/// The task that is woken: ticks the machine when it is due, tells it to stop when asked to. Ends with the core.
pub(super) async fn stand_guard<M: Machine + 'static>(core: Rc<CoreLoop<M>>, shared: Arc<NodeShared>) {
    let mut registered = false;
    let mut told = false;
    poll_fn(move |cx| {
        if !registered {
            registered = true;
            shared.register(cx.waker().clone());
        }
        if core.is_over() {
            return Poll::Ready(());
        }
        if shared.is_stopping() && !told {
            told = true;
            core.step(Event::Shutdown);
        }
        core.tick_if_due();
        Poll::Pending
    })
    .await;
}
