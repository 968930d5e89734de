//! Warnings that others can provoke as often as they like: one a second at most, and the same one a minute.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(1);
const PERIOD_OF_THE_SAME: Duration = Duration::from_secs(60);
/// Reasons that are remembered.
const REASONS_MAX: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Complaints(RefCell<Told>);

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    reasons: BTreeMap<String, Instant>,
    /// How many weren't written since the last that was.
    kept_back: u64,
}

impl Complaints {
    /// Tells that TLS with somebody failed, and why.
    pub(super) fn no_tls(&self, with: &str, reason: &str) {
        if let Some(not_told) = self.0.borrow_mut().is_to_be_told(Instant::now(), reason) {
            tracing::warn!(%with, %reason, not_told, "no TLS connection");
        }
    }

    /// Tells that a link with somebody didn't come about, and why.
    pub(super) fn no_link(&self, with: &str, reason: &str) {
        if let Some(not_told) = self.0.borrow_mut().is_to_be_told(Instant::now(), reason) {
            tracing::warn!(%with, %reason, not_told, "no link between nodes");
        }
    }
}

impl Told {
    /// If this is to be told, how many weren't before it.
    fn is_to_be_told(&mut self, now: Instant, reason: &str) -> Option<u64> {
        let is_soon = |last: Instant, period| now.saturating_duration_since(last) < period;
        self.reasons.retain(|_, last| is_soon(*last, PERIOD_OF_THE_SAME));
        if self.last.is_some_and(|last| is_soon(last, PERIOD))
            || self.reasons.contains_key(reason)
            || self.reasons.len() == REASONS_MAX
        {
            self.kept_back += 1;
            return None;
        }
        self.last = Some(now);
        self.reasons.insert(reason.to_owned(), now);
        Some(std::mem::take(&mut self.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_minute_and_anything_once_a_second() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut tell =
            |seconds: f64, reason: &str| told.is_to_be_told(start + Duration::from_secs_f64(seconds), reason);
        assert_eq!(tell(0.0, "a"), Some(0));
        assert_eq!((tell(0.5, "b"), tell(1.5, "b")), (None, Some(1)));
        assert_eq!((tell(30.0, "a"), tell(59.0, "a"), tell(61.0, "a")), (None, None, Some(2)));
    }
}
