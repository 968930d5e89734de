//! Raft under one lock, as in Figure 2 of the paper.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Entries in the log before a snapshot cuts it: the labs' `maxraftstate`, in entries.
const LOG_MAX: usize = 1000;

/// A client's command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    Get(String),
    Set(String, String),
    /// A new leader's first entry.
    Nothing,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub term: u64,
    pub command: Command,
}

/// What survives a crash: all of it is written whenever any of it changes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Persistent {
    pub term: u64,
    pub voted_for: Option<usize>,
    /// The log begins behind this index.
    pub base_index: u64,
    pub base_term: u64,
    pub log: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Follower,
    Candidate,
    Leader,
}

/// Everything behind the lock.
pub struct State {
    pub persistent: Persistent,
    pub role: Role,
    pub commit: u64,
    pub applied: u64,
    pub next: Vec<u64>,
    pub matched: Vec<u64>,
    pub heard: Instant,
    pub keys: HashMap<String, String>,
    /// Clients by the index of their entry, with its term.
    pub waiting: HashMap<u64, (u64, Sender<Option<Option<String>>>)>,
    folder: PathBuf,
}

/// A node.
pub struct Node {
    pub id: usize,
    pub nodes: usize,
    state: Mutex<State>,
    /// Something is to be sent.
    pub to_send: Condvar,
    /// Something is to be applied.
    pub to_apply: Condvar,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    Vote { term: u64, candidate: usize, last_index: u64, last_term: u64 },
    Append { term: u64, leader: usize, prev_index: u64, prev_term: u64, entries: Vec<Entry>, commit: u64 },
    Snapshot { term: u64, leader: usize, index: u64, index_term: u64, keys: HashMap<String, String> },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    pub term: u64,
    pub success: bool,
    /// Where the follower's log and the leader's may agree, if they didn't.
    pub retry_from: u64,
}

impl State {
    pub fn last_index(&self) -> u64 {
        self.persistent.base_index + self.persistent.log.len() as u64
    }

    /// None if it is behind the log's end, or cut off.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.persistent.base_index {
            return Some(self.persistent.base_term);
        }
        let place = index.checked_sub(self.persistent.base_index + 1)?;
        Some(self.persistent.log.get(place as usize)?.term)
    }

    /// The labs' `persist()`: all of it. A node that can't write must not go on.
    pub fn persist(&self) {
        self.save("state", &serde_json::to_vec(&self.persistent).expect("it has a form"));
    }

    fn save(&self, name: &str, bytes: &[u8]) {
        let (temporary, path) = (self.folder.join(format!("{name}.new")), self.folder.join(name));
        let saved = File::create(&temporary)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_data()))
            .and_then(|()| fs::rename(&temporary, &path))
            // The name lasts once its folder is synced, too.
            .and_then(|()| File::open(&self.folder)?.sync_all());
        if let Err(error) = saved {
            eprintln!("naive-kv: {}: {error}", path.display());
            std::process::exit(1);
        }
    }

    pub fn become_follower(&mut self, term: u64) {
        if term > self.persistent.term {
            self.persistent.term = term;
            self.persistent.voted_for = None;
            self.persist();
        }
        self.role = Role::Follower;
    }

    /// Cuts the log where it is applied, if it has grown long.
    fn snapshot(&mut self) {
        if self.persistent.log.len() < LOG_MAX || self.applied == self.persistent.base_index {
            return;
        }
        let term = self.term_at(self.applied).expect("applied entries are in the log");
        let image = (self.applied, term, &self.keys);
        self.save("snapshot", &serde_json::to_vec(&image).expect("it has a form"));
        let cut = (self.applied - self.persistent.base_index) as usize;
        self.persistent.log.drain(..cut);
        self.persistent.base_index = self.applied;
        self.persistent.base_term = term;
        self.persist();
    }
}

impl Node {
    /// With what is in `folder`.
    pub fn open(id: usize, nodes: usize, folder: PathBuf) -> std::io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut persistent = Persistent::default();
        if let Ok(bytes) = fs::read(folder.join("state")) {
            persistent = serde_json::from_slice(&bytes)?;
        }
        let (mut applied, mut keys) = (0, HashMap::new());
        if let Ok(bytes) = fs::read(folder.join("snapshot")) {
            let (index, term, found): (u64, u64, HashMap<String, String>) = serde_json::from_slice(&bytes)?;
            // The state may be from before the snapshot that was to cut it.
            if index > persistent.base_index {
                let cut = ((index - persistent.base_index) as usize).min(persistent.log.len());
                persistent.log.drain(..cut);
                (persistent.base_index, persistent.base_term) = (index, term);
            }
            (applied, keys) = (index, found);
        }
        let state = State {
            persistent,
            role: Role::Follower,
            commit: applied,
            applied,
            next: vec![1; nodes],
            matched: vec![0; nodes],
            heard: Instant::now(),
            keys,
            waiting: HashMap::new(),
            folder,
        };
        Ok(Self { id, nodes, state: Mutex::new(state), to_send: Condvar::new(), to_apply: Condvar::new() })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The labs' `Start()`: false if this node doesn't lead. `answer` hears what the command returned once it is applied,
    /// or nothing if another leader's entry took its place.
    pub fn start(&self, command: Command, answer: Sender<Option<Option<String>>>) -> bool {
        let mut state = self.lock();
        if state.role != Role::Leader {
            return false;
        }
        let term = state.persistent.term;
        state.persistent.log.push(Entry { term, command });
        let index = state.last_index();
        state.persist();
        state.matched[self.id] = index;
        state.waiting.insert(index, (term, answer));
        self.advance(&mut state);
        self.to_send.notify_all();
        true
    }

    /// What a majority has is committed, if it is of this term.
    pub fn advance(&self, state: &mut State) {
        let mut matched = state.matched.clone();
        matched.sort_unstable();
        let index = matched[(self.nodes - 1) / 2];
        if index > state.commit && state.term_at(index) == Some(state.persistent.term) {
            state.commit = index;
            self.to_apply.notify_all();
            // Followers are to hear of it, too.
            self.to_send.notify_all();
        }
    }

    /// Applies what is committed, for as long as the process lives.
    pub fn apply(&self) {
        let mut state = self.lock();
        loop {
            while state.applied >= state.commit {
                state = self.to_apply.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let index = state.applied + 1;
            let place = (index - state.persistent.base_index - 1) as usize;
            let entry = state.persistent.log[place].clone();
            let result = match entry.command {
                Command::Get(key) => state.keys.get(&key).cloned(),
                Command::Set(key, value) => state.keys.insert(key, value).and(None),
                Command::Nothing => None,
            };
            state.applied = index;
            if let Some((term, answer)) = state.waiting.remove(&index) {
                // A client that has gone away needs no answer.
                let _ = answer.send((term == entry.term).then_some(result));
            }
            state.snapshot();
        }
    }

    /// Answers another node.
    pub fn handle(&self, request: Request) -> Reply {
        let mut state = self.lock();
        let (Request::Vote { term, .. } | Request::Append { term, .. } | Request::Snapshot { term, .. }) =
            &request;
        let refused =
            |state: &State, retry_from| Reply { term: state.persistent.term, success: false, retry_from };
        if *term < state.persistent.term {
            return refused(&state, 0);
        }
        if *term > state.persistent.term || !matches!(request, Request::Vote { .. }) {
            state.become_follower(*term);
        }
        match request {
            Request::Vote { candidate, last_index, last_term, .. } => {
                let own_term = state.term_at(state.last_index()).unwrap_or(0);
                let is_current = (last_term, last_index) >= (own_term, state.last_index());
                if !is_current || state.persistent.voted_for.is_some_and(|voted| voted != candidate) {
                    return refused(&state, 0);
                }
                state.persistent.voted_for = Some(candidate);
                state.persist();
                state.heard = Instant::now();
            }
            Request::Append { prev_index, prev_term, entries, commit, .. } => {
                state.heard = Instant::now();
                if prev_index < state.persistent.base_index {
                    let from = state.persistent.base_index + 1;
                    return refused(&state, from);
                }
                if state.term_at(prev_index) != Some(prev_term) {
                    // Back over the whole of the term that is wrong.
                    let mut from = prev_index.min(state.last_index() + 1);
                    let wrong = state.term_at(from);
                    while from > state.persistent.base_index + 1 && state.term_at(from - 1) == wrong {
                        from -= 1;
                    }
                    return refused(&state, from.max(1));
                }
                let end = prev_index + entries.len() as u64;
                let mut changed = false;
                for (place, entry) in entries.into_iter().enumerate() {
                    let index = prev_index + 1 + place as u64;
                    if state.term_at(index) == Some(entry.term) {
                        continue;
                    }
                    let keep = (index - state.persistent.base_index - 1) as usize;
                    state.persistent.log.truncate(keep);
                    state.persistent.log.push(entry);
                    changed = true;
                }
                if changed {
                    state.persist();
                }
                if commit.min(end) > state.commit {
                    state.commit = commit.min(end);
                    self.to_apply.notify_all();
                }
            }
            Request::Snapshot { index, index_term, keys, .. } => {
                state.heard = Instant::now();
                if index > state.applied {
                    state.persistent.log.clear();
                    (state.persistent.base_index, state.persistent.base_term) = (index, index_term);
                    (state.commit, state.applied) = (index, index);
                    let image = (index, index_term, &keys);
                    state.save("snapshot", &serde_json::to_vec(&image).expect("it has a form"));
                    state.keys = keys;
                    state.persist();
                }
            }
        }
        Reply { term: state.persistent.term, success: true, retry_from: 0 }
    }

    /// How long a follower waits for its leader: random, from the clock's last digits.
    pub fn election_timeout(&self) -> Duration {
        let digits = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos());
        Duration::from_millis(1500 + u64::from(digits / 1000 % 1500) + 100 * self.id as u64)
    }
}
