//! The log: on standard error, as text or JSON, no more of the same than somebody would read.
//!
//! (Failed links and handshakes, which a stranger can provoke, are told more rarely still: `runtime/src/driver/complaints.rs`.)
//!
//! What others can provoke as often as they like must not fill a disk, nor hold a core up. So each line of the program that logs at
//! `info` or above writes so many lines in a while; the rest is counted, and told with the next one. `debug` and `trace` are
//! written whole, for who asks for them wants all of it.

use super::reload::{LEVEL_VARIABLE, SetFilter};
use crate::hands::Stopwatch;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Lines that one place in the program writes in a [`WHILE`], at most.
const LINES_MAX: u32 = 20;
const WHILE: Duration = Duration::from_secs(10);

/// Starts to log; what is returned changes what is logged.
pub(super) fn start(json: bool) -> SetFilter {
    let filter = EnvFilter::try_from_env(LEVEL_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = tracing_subscriber::reload::Layer::new(filter);
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let written: Box<dyn Layer<Registry> + Send + Sync> = match json {
        true => text.json().with_filter(Limited::new()).boxed(),
        false => text.with_filter(Limited::new()).boxed(),
    };
    // A logger that is there already is as good, and keeps its filter.
    let _ = Registry::default().with(written).with(filter).try_init();
    Box::new(move |filter| drop(handle.reload(filter)))
}

/// What a place in the program has written.
#[derive(Debug, Default)]
struct Written {
    /// In which while, counted from the start.
    at: u64,
    lines: u32,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is written; so many like it weren't before.
    Written {
        left_out: u64,
    },
    /// It is the last one that is written for now.
    Last,
    LeftOut,
}

impl Written {
    fn one_more(&mut self, at: u64) -> Verdict {
        if self.at != at {
            (self.at, self.lines) = (at, 0);
        }
        self.lines = self.lines.saturating_add(1);
        match self.lines.cmp(&LINES_MAX) {
            std::cmp::Ordering::Less => Verdict::Written { left_out: std::mem::take(&mut self.left_out) },
            std::cmp::Ordering::Equal => Verdict::Last,
            std::cmp::Ordering::Greater => {
                self.left_out += 1;
                Verdict::LeftOut
            }
        }
    }
}

/// Lets so much of the same through, and no more.
struct Limited {
    clock: Stopwatch,
    /// By file and line.
    places: Mutex<BTreeMap<(&'static str, u32), Written>>,
}

impl Limited {
    fn new() -> Self {
        Self { clock: Stopwatch::start(), places: Mutex::default() }
    }
}

impl<S: Subscriber> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return true;
        }
        let at = self.clock.elapsed().as_secs() / WHILE.as_secs();
        let place = (metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = places.entry(place).or_default().one_more(at);
        // What is logged about it comes by here as well.
        drop(places);
        let told = match verdict {
            Verdict::Written { left_out: 0 } => return true,
            Verdict::LeftOut => return false,
            Verdict::Written { left_out } => format!("{left_out} lines like the next one weren't written"),
            Verdict::Last => {
                format!("more lines like the next one aren't written for up to {} s", WHILE.as_secs())
            }
        };
        // Whoever wants to hear of errors only is to hear of this, too.
        match *metadata.level() == Level::ERROR {
            true => tracing::error!("{told}"),
            false => tracing::warn!("{told}"),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::Arc;

    #[test]
    fn so_many_lines_in_a_while_and_the_rest_is_counted() {
        let mut place = Written::default();
        for _ in 1..LINES_MAX {
            assert_eq!(place.one_more(0), Verdict::Written { left_out: 0 });
        }
        assert_eq!(place.one_more(0), Verdict::Last);
        assert_eq!([0; 3].map(|at| place.one_more(at)), [Verdict::LeftOut; 3]);
        assert_eq!(place.one_more(1), Verdict::Written { left_out: 3 });
        assert_eq!(place.one_more(1), Verdict::Written { left_out: 0 }, "told once");
        assert_eq!(place.one_more(9), Verdict::Written { left_out: 0 });
    }

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_place_is_limited_by_itself_and_details_are_whole() {
        let paper = Paper::default();
        let to = paper.clone();
        let written = tracing_subscriber::fmt::layer().with_writer(move || to.clone()).with_ansi(false);
        let subscriber = Registry::default().with(written.with_filter(Limited::new()));
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..100 {
                tracing::warn!(number, "provoked");
                tracing::debug!(number, "asked for");
            }
            tracing::warn!("another place");
        });
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let lines = |word: &str| text.lines().filter(|line| line.contains(word)).count();
        // The while may end in the middle of it.
        assert!((LINES_MAX as usize..=2 * LINES_MAX as usize).contains(&lines("provoked")), "{text}");
        assert_eq!((lines("asked for"), lines("another place")), (100, 1));
    }
}
