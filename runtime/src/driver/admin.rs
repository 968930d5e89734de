//! The admin port: questions of whoever operates the node, over HTTP.
//!
//! ```text
//! accept ─▶ head (httparse, bounded) ─▶ Event::Asked ─▶ … Effect::Answer ─▶ rendered on another thread ─▶ sent ─▶ closed
//! ```
//!
//! What is asked and answered is the machine's; here is only what HTTP wants. It must never disturb the store: its tasks have the
//! class that gets what time the others leave, the text is made on a helper thread, and everything is bounded: connections,
//! the bytes of a head, and the time for each step. A connection has one request, and is closed behind the answer.

use super::core_loop::{CoreLoop, Signal};
use super::outlet::Outlet;
use super::poller::{Listener, Socket};
use crate::machine::{Answer, Event, Machine, QuestionId};
use crate::vitals::ProcessFigures;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Connections at once; more are told so.
const CONNECTIONS_MAX: usize = 32;
/// A request's head.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Its header lines.
const HEADERS_MAX: usize = 64;
/// Whoever hasn't sent a head by then is cut off.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// The machine answers earlier, even for cores that don't.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Whoever hasn't read the answer by then is cut off.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// How long the other side may take to end a connection that we have ended.
const LINGER: Duration = Duration::from_secs(1);
/// Between two looks at what nobody tells.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A browser fetches nothing from elsewhere, and shows no page within another one's.
const ONLY_FROM_HERE: &str = "default-src 'none'; connect-src 'self'; img-src data:; style-src 'unsafe-inline'; \
                              script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The questions that wait for their answers, and the connections.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: Cell<u64>,
    waiting: RefCell<BTreeMap<QuestionId, Rc<Waiting>>>,
    sockets: RefCell<BTreeMap<u64, Rc<Socket>>>,
}

#[derive(Debug, Default)]
struct Waiting {
    answer: RefCell<Option<Answer>>,
    arrived: Signal,
}

impl Questions {
    /// An answer is there.
    pub(super) fn answered(&self, question: QuestionId, answer: Answer) {
        if let Some(waiting) = self.waiting.borrow_mut().remove(&question) {
            *waiting.answer.borrow_mut() = Some(answer);
            waiting.arrived.raise();
        }
    }
}

/// Accepts operators for ever.
pub(super) async fn accept<M: Machine + 'static>(core: Rc<CoreLoop<M>>, listener: Listener) {
    for number in 0.. {
        let Ok(stream) = listener.accept().await else {
            core.poller.sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(socket) = Socket::new(stream, &core.poller) else { continue };
        let outlet = Outlet::new(Rc::clone(&socket));
        if core.questions.sockets.borrow().len() >= CONNECTIONS_MAX {
            outlet.send(&Page::words(503, "too many connections to the admin port").bytes(false));
            outlet.end();
            continue;
        }
        core.questions.sockets.borrow_mut().insert(number, Rc::clone(&socket));
        let owner = Rc::clone(&core);
        let task = async move {
            serve(&owner, &socket, &outlet).await;
            outlet.cut();
            owner.questions.sockets.borrow_mut().remove(&number);
        };
        core.tasks.spawn_bulk("question", task);
    }
}

/// The core ends: nobody waits for it.
pub(super) fn cut_all<M: Machine + 'static>(core: &CoreLoop<M>) {
    for socket in core.questions.sockets.borrow().values() {
        socket.shutdown(std::net::Shutdown::Both);
    }
}

async fn serve<M: Machine + 'static>(core: &Rc<CoreLoop<M>>, socket: &Rc<Socket>, outlet: &Rc<Outlet>) {
    let late = async {
        core.poller.sleep(HEAD_WITHIN).await;
        Err(Page::words(408, "the request took too long"))
    };
    let (page, is_head) = match futures_lite::future::or(head(socket), late).await {
        Ok(None) => return,
        Ok(Some(request)) => (answer(core, &request.path).await, request.is_head),
        Err(page) => (page, false),
    };
    outlet.send(&page.bytes(is_head));
    outlet.end();
    let clock = std::time::Instant::now();
    while outlet.waiting() > 0 && clock.elapsed() < READ_WITHIN {
        core.poller.sleep(LOOK_EVERY).await;
    }
    // What the other side still says is read: else the kernel would take the answer back.
    let to_its_end = async {
        let mut nothing = [0; 1024];
        while socket.read(&mut nothing).await.is_ok_and(|count| count > 0) {}
    };
    let linger = async {
        core.poller.sleep(LINGER).await;
    };
    futures_lite::future::or(to_its_end, linger).await;
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    path: String,
    /// Without the text of the answer.
    is_head: bool,
}

/// Reads a request; `None` if the other side goes away.
async fn head(socket: &Socket) -> Result<Option<Request>, Page> {
    let (mut buffer, mut filled) = (vec![0; HEAD_BYTES_MAX], 0);
    loop {
        match socket.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(count) => filled += count,
        }
        if let Some(request) = parse(&buffer[..filled])? {
            return Ok(Some(request));
        }
        if filled == buffer.len() {
            return Err(Page::words(431, "the request's head is too large"));
        }
    }
}

/// A request from its bytes; `None` if they aren't all there.
fn parse(bytes: &[u8]) -> Result<Option<Request>, Page> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Page::words(431, "the request has too many headers"));
        }
        Err(error) => return Err(Page::words(400, &format!("this isn't an HTTP request: {error}"))),
    }
    let is_head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Page::words(405, "the admin port takes GET and HEAD")),
    };
    let target = request.path.unwrap_or_default();
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(Page::words(400, "the request's target isn't a path"));
    }
    Ok(Some(Request { path: path.to_owned(), is_head }))
}

async fn answer<M: Machine + 'static>(core: &Rc<CoreLoop<M>>, path: &str) -> Page {
    let figures = core.disk().elsewhere(process_figures).await;
    core.vitals.process.set(figures);
    let questions = &core.questions;
    let question = QuestionId(questions.last.get() + 1);
    questions.last.set(question.0);
    let waiting = Rc::new(Waiting::default());
    questions.waiting.borrow_mut().insert(question, Rc::clone(&waiting));
    core.step(Event::Asked { question, path });
    core.poller.stir();
    let arrived = async {
        waiting.arrived.wait().await;
        waiting.answer.borrow_mut().take()
    };
    let late = async {
        core.poller.sleep(ANSWER_WITHIN).await;
        None
    };
    let answer = futures_lite::future::or(arrived, late).await;
    questions.waiting.borrow_mut().remove(&question);
    match answer {
        None => Page::words(503, "the node's first core doesn't answer"),
        Some(Answer { status, content_type, render }) => {
            Page { status, content_type, text: core.disk().elsewhere(render).await }
        }
    }
}

/// A response.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    status: u16,
    content_type: &'static str,
    text: Vec<u8>,
}

impl Page {
    fn words(status: u16, words: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", text: format!("{words}\n").into_bytes() }
    }

    fn bytes(&self, is_head: bool) -> Vec<u8> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let allow = if self.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Security-Policy: {ONLY_FROM_HERE}\r\n{allow}Connection: close\r\n\r\n",
            self.status,
            self.content_type,
            self.text.len(),
        );
        let mut bytes = head.into_bytes();
        if !is_head {
            bytes.extend_from_slice(&self.text);
        }
        bytes
    }
}

/// What the kernel says of this process. What it doesn't say is 0.
fn process_figures() -> ProcessFigures {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let stat = read("stat");
    // Behind the name, which may have anything in it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
    let system = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    ProcessFigures {
        cpu_ticks: field(11) + field(12),
        ticks_per_second,
        virtual_bytes: field(20),
        resident_bytes: field(21) * rustix::param::page_size() as u64,
        // The look itself is one.
        open_files: open_files.saturating_sub(1) as u64,
        open_files_max: limit.unwrap_or(u64::MAX),
        started_unix_seconds: booted.map_or(0, |at| at + field(19) / ticks_per_second),
        threads: field(17),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bytes: &[u8]) -> u16 {
        parse(bytes).expect_err("it is refused").status
    }

    #[test]
    fn a_request_is_its_path() {
        let request = parse(b"GET /metrics?x=1 HTTP/1.1\r\nHost: here\r\n\r\n").unwrap().unwrap();
        assert_eq!(request, Request { path: "/metrics".to_owned(), is_head: false });
        let request = parse(b"HEAD / HTTP/1.0\r\n\r\n").unwrap().unwrap();
        assert_eq!(request, Request { path: "/".to_owned(), is_head: true });
        for end in 0..b"GET / HTTP/1.1\r\n\r\n".len() {
            assert_eq!(parse(&b"GET / HTTP/1.1\r\n\r\n"[..end]), Ok(None));
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\x00\x01"), 400);
        assert_eq!(status(b"*1\r\n$4\r\nPING\r\n"), 400);
        assert_eq!(status(b"GET http://elsewhere/ HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status(b"GET / HTTP/9.9\r\n\r\n"), 400);
        assert_eq!(status(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), 405);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(status(many.as_bytes()), 431);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_request_or_refused(bytes in proptest::collection::vec(0_u8.., 0..300)) {
            if let Ok(Some(request)) = parse(&bytes) {
                proptest::prop_assert!(request.path.starts_with('/'));
            }
        }
    }

    #[test]
    fn a_page_says_what_it_is() {
        let page = Page::words(405, "no");
        let text = String::from_utf8(page.bytes(false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && text.ends_with("\r\n\r\nno\n"));
        assert!(text.contains("\r\nContent-Length: 3\r\n") && text.contains("\r\nAllow: GET, HEAD\r\n"));
        assert!(String::from_utf8(page.bytes(true)).unwrap().ends_with("Connection: close\r\n\r\n"));
    }

    #[test]
    fn the_kernel_knows_this_process() {
        let figures = process_figures();
        assert!(figures.resident_bytes > 1 << 16 && figures.virtual_bytes >= figures.resident_bytes);
        assert!(figures.open_files >= 3 && figures.open_files <= figures.open_files_max);
        assert!(figures.threads >= 1 && figures.started_unix_seconds > 1_000_000_000, "{figures:?}");
    }
}
