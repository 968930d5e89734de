//! The admin port: what an operator is told over HTTP.
//!
//! | path | what | file |
//! |---|---|---|
//! | `/metrics` | numbers, in Prometheus' text format | `metrics.rs` |
//! | `/status` | the node as JSON | `status.rs` |
//! | `/healthz`, `/readyz` | whether the cores turn, and whether they serve | here |
//! | `/` | a page that shows the status | `page.html` |
//!
//! The first core is asked, gathers a [`report::CoreReport`] from each (`services/src/core/questions.rs`), and what is made of them is
//! made here: pure functions of a [`NodeReport`], which run on a helper thread. Whatever is here must never name data or
//! secrets: keys, values, users.

pub mod metrics;
pub mod report;
pub mod status;

use flotilla_runtime::Answer;
use report::NodeReport;

/// What an operator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// `/`
    Page,
    /// `/metrics`
    Metrics,
    /// `/status`
    Status,
    /// `/healthz`
    Healthy,
    /// `/readyz`
    Ready,
}

const PAGE: &str = include_str!("page.html");
const WORDS: &str = "text/plain; charset=utf-8";

impl Topic {
    /// What a path asks for.
    pub fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/metrics" => Self::Metrics,
            "/status" => Self::Status,
            "/healthz" => Self::Healthy,
            "/readyz" => Self::Ready,
            _ => return None,
        })
    }
}

fn text(status: u16, content_type: &'static str, text: impl Into<Vec<u8>>) -> Answer {
    let text = text.into();
    Answer { status, content_type, render: Box::new(move || text) }
}

/// To a path that there isn't.
pub fn not_found() -> Answer {
    text(404, WORDS, "there are /, /metrics, /status, /healthz and /readyz\n")
}

/// The page, which asks for the rest itself.
pub fn page() -> Answer {
    Answer { status: 200, content_type: "text/html; charset=utf-8", render: Box::new(|| PAGE.into()) }
}

/// The answer to what needs everybody's report.
pub fn answer(topic: Topic, report: NodeReport) -> Answer {
    let words = |reasons: Vec<String>, good: &str| match reasons.is_empty() {
        true => text(200, WORDS, format!("{good}\n")),
        false => text(503, WORDS, format!("{}\n", reasons.join("\n"))),
    };
    match topic {
        Topic::Page => page(),
        Topic::Healthy => words(report.why_not_alive(), "ok"),
        Topic::Ready => words(report.why_not_ready(), "ready"),
        Topic::Metrics => Answer {
            status: 200,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            render: Box::new(move || metrics::render(&report).into_bytes()),
        },
        Topic::Status => Answer {
            status: 200,
            content_type: "application/json",
            render: Box::new(move || {
                serde_json::to_vec(&status::Status::of(&report)).expect("a status is plain data")
            }),
        },
    }
}
