//! The cure for glommio's lost wake-ups.
//!
//! glommio 0.9 can park an executor that has runnable tasks. One thread of the process therefore wakes a task of
//! every executor every few milliseconds, through a waker that is never used up.

use super::start::{NodeShared, THREAD_NAME};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How often every core is woken: the longest stall.
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

/// Lets the watchdog wake the calling task from now on. It has to be called before that task waits for the first time,
/// and can't be a task of its own: that would be one more that the executor can forget to run.
pub(super) async fn keep_awake(shared: &NodeShared) {
    poll_fn(|cx| {
        shared.register(cx.waker().clone());
        Poll::Ready(())
    })
    .await;
}
