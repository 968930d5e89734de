//! What systemd is told of a node (`Type=notify`, `WatchdogSec`): that it serves, that it is alive, that it stops.
//!
//! Alive is a node all of whose cores turn. One that stands still, whatever for, ends the messages, and systemd the process. Elsewhere
//! nobody asked, and nothing is said.

use flotilla_runtime::driver::NodeHandle;
use sd_notify::NotifyState;
use std::time::Duration;

fn tell(state: &NotifyState<'_>) {
    // Whoever listens may have gone; that is no reason not to serve.
    let _ = sd_notify::notify(false, std::slice::from_ref(state));
}

/// The node serves.
pub(super) fn ready() {
    tell(&NotifyState::Ready);
}

/// It has been asked to stop.
pub(super) fn stopping() {
    tell(&NotifyState::Stopping);
}

/// From now on it is said, four times as often as asked for, that all cores turn: as long as they do.
pub(super) fn watch(node: &NodeHandle) {
    let mut micros = 0;
    if !sd_notify::watchdog_enabled(false, &mut micros) {
        return;
    }
    let (period, mut pulse) = (Duration::from_micros(micros) / 4, node.pulse());
    crate::hands::spawn(move || {
        let mut was_stuck = false;
        loop {
            crate::hands::pause(period);
            let stuck = pulse.stuck();
            match (stuck.is_empty(), was_stuck) {
                (true, true) => tracing::warn!("all cores turn again"),
                (false, false) => tracing::error!(
                    ?stuck,
                    "cores haven't turned for {:.1} s: systemd isn't told that this node is alive, and will end it",
                    period.as_secs_f64()
                ),
                _ => {}
            }
            was_stuck = !stuck.is_empty();
            if !was_stuck {
                tell(&NotifyState::Watchdog);
            }
        }
    });
}
