//! A client of the labs: one command at a time, sent again wherever and as often as it takes, under a session.

use flotilla_services::client::Reply;
use flotilla_sim::linear::{Did, Operation, Verdict, check};
use flotilla_sim::script::{Answer, CallId, Script, is_for_another};
use std::collections::BTreeMap;

/// A node that doesn't answer for so long is given up, in milliseconds.
const PATIENCE_MS: u64 = 500;
/// The longest that a clerk thinks between two commands, in milliseconds.
const THINKS_MS: u64 = 10;

/// What a clerk wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Get,
    Put(String),
    Append(String),
}

/// A wish that came true.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) key: String,
    pub(crate) wish: Wish,
    pub(crate) reply: Reply,
    /// By the number of the events that all clerks saw.
    pub(crate) called: u64,
    pub(crate) returned: u64,
}

#[derive(Debug)]
struct Errand {
    key: String,
    wish: Wish,
    called: u64,
    /// What is under way, where, since when, and whether its answer gets lost.
    call: Option<(CallId, usize, u64, bool)>,
    not_before: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Clerk {
    nodes: usize,
    /// Whom it asks next.
    node: usize,
    /// Requests and answers get lost on its way.
    lossy: bool,
    /// The session and the last write that was answered, by key.
    sessions: BTreeMap<String, (String, u64)>,
    errand: Option<Errand>,
    idle_until: u64,
    /// Commands that were sent again.
    pub(crate) again: u64,
}

impl Clerk {
    pub(crate) fn new(nodes: usize, lossy: bool) -> Self {
        let sessions = BTreeMap::new();
        Self { nodes, node: 0, lossy, sessions, errand: None, idle_until: 0, again: 0 }
    }

    /// Whether it has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.errand.is_none()
    }

    /// Whether it would like to do something.
    pub(crate) fn is_bored(&self, script: &Script) -> bool {
        self.is_idle() && script.now_ms() >= self.idle_until
    }

    pub(crate) fn begin(&mut self, key: &str, wish: Wish, events: &mut u64) {
        assert!(self.errand.is_none(), "one at a time");
        *events += 1;
        let key = key.to_owned();
        self.errand = Some(Errand { key, wish, called: *events, call: None, not_before: 0 });
    }

    /// What the clerk is at, without an answer so far.
    pub(crate) fn pending(&self) -> Option<(&str, &Wish, u64)> {
        self.errand.as_ref().map(|errand| (&errand.key[..], &errand.wish, errand.called))
    }

    /// Looks for an answer, or sends what is to be sent.
    pub(crate) fn step(&mut self, script: &mut Script, events: &mut u64) -> Option<Done> {
        let mut errand = self.errand.take()?;
        match errand.call {
            None if script.now_ms() >= errand.not_before => self.send(script, &mut errand),
            None => {}
            Some((call, node, since, is_lost)) => match script.answer(call).cloned() {
                Some(answer) if !is_lost => {
                    if let Some(reply) = self.understood(&errand, answer) {
                        *events += 1;
                        self.idle_until = script.now_ms() + script.draw(0, THINKS_MS);
                        let Errand { key, wish, called, .. } = errand;
                        return Some(Done { key, wish, reply, called, returned: *events });
                    }
                    self.retry(script, &mut errand);
                }
                Some(_) => self.retry(script, &mut errand),
                None if script.now_ms() > since + PATIENCE_MS => {
                    script.hang_up(node, call);
                    self.node = (node + 1) % self.nodes;
                    self.retry(script, &mut errand);
                }
                None => {}
            },
        }
        self.errand = Some(errand);
        None
    }

    fn retry(&mut self, script: &mut Script, errand: &mut Errand) {
        self.again += 1;
        errand.call = None;
        errand.not_before = script.now_ms() + script.draw(1, 20);
    }

    fn send(&mut self, script: &mut Script, errand: &mut Errand) {
        if self.lossy && script.chance(10) {
            // The request never arrives.
            return self.retry(script, errand);
        }
        let Errand { key, wish, .. } = &*errand;
        let mut command: Vec<String> = Vec::new();
        if *wish != Wish::Get {
            match self.sessions.get(key) {
                None => command.extend(["FLOTILLA.SESSION".to_owned(), key.clone()]),
                Some((number, last)) => {
                    let (write, last) = ((last + 1).to_string(), last.to_string());
                    command.extend(["FLOTILLA.ONCE".to_owned(), number.clone(), write, last]);
                }
            }
        }
        if *wish == Wish::Get || self.sessions.contains_key(key) {
            let words = match wish {
                Wish::Get => vec!["GET", key],
                Wish::Put(value) => vec!["SET", key, value],
                Wish::Append(value) => vec!["APPEND", key, value],
            };
            command.extend(words.into_iter().map(str::to_owned));
        }
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let call = script.ask(self.node, &command);
        let is_lost = self.lossy && script.chance(10);
        errand.call = Some((call, self.node, script.now_ms(), is_lost));
    }

    /// The reply, if it is the one that the clerk waits for; whom to ask next, if not.
    fn understood(&mut self, errand: &Errand, answer: Answer) -> Option<Reply> {
        let next = (self.node + 1) % self.nodes;
        match answer {
            Answer::Reply(Reply::Error(error)) if error.starts_with("MOVED ") => {
                let port = error.rsplit(':').next().and_then(|port| port.parse::<usize>().ok());
                self.node = port.unwrap() - 7001;
                None
            }
            Answer::Reply(Reply::Error(error)) => {
                assert!(is_for_another(&error), "{error} for {errand:?}");
                self.node = next;
                None
            }
            Answer::Lost => {
                self.node = next;
                None
            }
            Answer::Reply(reply) if errand.wish == Wish::Get => Some(reply),
            Answer::Reply(reply) => match self.sessions.get_mut(&errand.key) {
                Some((_, last)) => {
                    *last += 1;
                    Some(reply)
                }
                None => {
                    let Reply::Integer(number) = reply else { panic!("a session is a number: {reply}") };
                    self.sessions.insert(errand.key.clone(), (number.to_string(), 0));
                    None
                }
            },
        }
    }
}

/// The clerks, who put numbers, can have seen what they saw, key by key, and of each key more than so many things.
pub(crate) fn linearizable<'a>(
    done: &'a [Done],
    clerks: impl IntoIterator<Item = &'a Clerk>,
    more_than: usize,
) {
    let mut histories: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().parse().unwrap();
    for Done { key, wish, reply, called, returned } in done {
        let did = match (wish, reply) {
            (Wish::Put(value), _) => Did::Write(Some(number(value.as_bytes()))),
            (_, Reply::Null) => Did::Read(None),
            (_, Reply::Bulk(value)) => Did::Read(Some(number(value))),
            (_, reply) => panic!("{wish:?}: {reply}"),
        };
        histories.entry(key).or_default().push(Operation { called: *called, returned: Some(*returned), did });
    }
    for (key, wish, called) in clerks.into_iter().filter_map(Clerk::pending) {
        if let Wish::Put(value) = wish {
            let did = Did::Write(Some(number(value.as_bytes())));
            histories.entry(key).or_default().push(Operation { called, returned: None, did });
        }
    }
    assert!(!histories.is_empty());
    for (key, history) in histories {
        assert!(history.len() > more_than, "{key}: only {} operations", history.len());
        assert_eq!(check(&history), Verdict::Linearizable, "{key}");
    }
}
