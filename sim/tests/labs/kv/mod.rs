//! SRV-03, KV-A and KV-B: what users of the store may rely on, whatever fails beneath it.
//!
//! | file | what |
//! |---|---|
//! | `plain.rs` | KV-A: one, several, lossy, partitioned, restarted |
//! | `trimmed.rs` | KV-B: the same with snapshots, and what they take |

mod plain;
mod trimmed;

use crate::clerk::{Clerk, Done, Wish, linearizable};
use crate::get;
use flotilla_services::client::Reply;
use flotilla_sim::script::{Script, Setup, Weather};

/// What the log may have before a snapshot is taken, where there are any.
const AFTER: usize = 4096;
/// How long the clerks work in each round, in milliseconds.
const ROUND_MS: u64 = 3_000;

/// The labs' generic test.
#[derive(Clone, Copy, Debug)]
struct Case {
    nodes: usize,
    clerks: usize,
    /// Messages between nodes, and those of clients, get lost and overtake each other.
    lossy: bool,
    /// All nodes crash at the end of each round.
    crashes: bool,
    /// The nodes are parted in two, at random, about once a second.
    partitions: bool,
    trimmed: bool,
    /// The clerks put and get the same few keys, and what they saw must be linearizable.
    shared: bool,
}

/// One clerk, five nodes, and nothing that goes wrong.
const CALM: Case = Case {
    nodes: 5,
    clerks: 1,
    lossy: false,
    crashes: false,
    partitions: false,
    trimmed: false,
    shared: false,
};

/// The clerks, and what they have seen.
struct Office {
    case: Case,
    script: Script,
    clerks: Vec<Clerk>,
    events: u64,
    /// What each has appended to its own key so far.
    own: Vec<(String, u64)>,
    done: Vec<Done>,
    numbers: u64,
}

impl Office {
    fn new(case: Case, seed: u64) -> Self {
        let setup = Setup::new(case.nodes).seed(seed);
        let mut script = Script::new(if case.trimmed { setup.snapshot_after(AFTER) } else { setup });
        script.weather(if case.lossy { Weather::Unreliable } else { Weather::Fair });
        let clerks = (0..case.clerks).map(|_| Clerk::new(case.nodes, case.lossy)).collect();
        let own = vec![(String::new(), 0); case.clerks];
        Self { case, script, clerks, events: 0, own, done: Vec::new(), numbers: 0 }
    }

    /// Every clerk goes on with what it does; a bored one begins something, if there is still time.
    fn step(&mut self, begins: bool) {
        for number in 0..self.clerks.len() {
            if begins && self.clerks[number].is_bored(&self.script) {
                let (key, wish) = self.wish(number);
                self.clerks[number].begin(&key, wish, &mut self.events);
            }
            if let Some(done) = self.clerks[number].step(&mut self.script, &mut self.events) {
                self.look(number, &done);
                self.done.push(done);
            }
        }
        self.script.run_for(1).unwrap();
        if self.case.trimmed {
            for node in 0..self.case.nodes {
                let bytes = self.script.log_bytes(node);
                assert!(bytes <= 8 * AFTER, "node {node} keeps {bytes} bytes of log");
            }
        }
    }

    fn wish(&mut self, number: usize) -> (String, Wish) {
        self.numbers += 1;
        if self.case.shared {
            let key = format!("shared:{}", self.script.draw(0, 3));
            let put = self.script.chance(50);
            return (key, if put { Wish::Put(self.numbers.to_string()) } else { Wish::Get });
        }
        let key = format!("own:{number}");
        let begins_anew = self.own[number].0.len() > 600;
        let wish = match self.script.draw(0, 9) {
            0..=4 if !begins_anew => Wish::Append(format!("x {number} {} y", self.own[number].1)),
            0..=5 => Wish::Put(format!("z {number} {} y", self.own[number].1)),
            _ => Wish::Get,
        };
        (key, wish)
    }

    /// Nobody else writes a clerk's own key: it sees what it wrote, once and in order.
    fn look(&mut self, number: usize, done: &Done) {
        let (value, writes) = &mut self.own[number];
        match (&done.wish, &done.reply) {
            _ if self.case.shared => {}
            (Wish::Put(put), Reply::Status(ok)) if ok == "OK" => {
                (*value, *writes) = (put.clone(), *writes + 1)
            }
            (Wish::Append(piece), Reply::Integer(length)) => {
                (*value, *writes) = (format!("{value}{piece}"), *writes + 1);
                assert_eq!(usize::try_from(*length).unwrap(), value.len(), "{done:?}");
            }
            (Wish::Get, Reply::Bulk(bytes)) => {
                assert_eq!(String::from_utf8_lossy(bytes), *value, "clerk {number}");
            }
            (Wish::Get, Reply::Null) => assert_eq!(value, "", "clerk {number}"),
            _ => panic!("{done:?}"),
        }
    }

    fn repartition(&mut self) {
        let side: Vec<usize> = (0..self.case.nodes).filter(|_| self.script.chance(50)).collect();
        self.script.partition(&side);
    }

    /// A round of work, and what is to go wrong in it.
    fn round(&mut self) {
        let end = self.script.now_ms() + ROUND_MS;
        let mut repartition_at = self.script.now_ms();
        while self.script.now_ms() < end {
            if self.case.partitions && self.script.now_ms() >= repartition_at {
                self.repartition();
                repartition_at = self.script.now_ms() + self.script.draw(1_000, 1_200);
            }
            self.step(true);
        }
        if self.case.crashes {
            (0..self.case.nodes).for_each(|node| self.script.crash(node));
            for _ in 0..100 {
                self.step(false);
            }
            (0..self.case.nodes).for_each(|node| self.script.restart(node));
        }
        self.script.heal();
        let limit = self.script.now_ms() + 30_000;
        while !self.clerks.iter().all(Clerk::is_idle) {
            assert!(self.script.now_ms() < limit, "commands don't end");
            self.step(false);
        }
    }

    /// What is left when all are done.
    fn close(mut self) -> Self {
        self.script.weather(Weather::Fair);
        self.script.converged(10_000).unwrap();
        if self.case.shared {
            linearizable(&self.done, &self.clerks, 50);
        } else {
            for (number, (value, writes)) in self.own.iter().enumerate() {
                let found = get(&mut self.script, &format!("own:{number}"));
                assert_eq!(found.unwrap_or_default(), *value, "clerk {number}");
                assert!(*writes > 0, "clerk {number} was never served");
            }
        }
        for node in 0..self.case.nodes {
            let first = self.script.group(node).unwrap().first_index;
            assert!(first > 1 || !self.case.trimmed, "node {node} keeps its log from {first} on");
        }
        self
    }
}

/// Three rounds; returns (commands done, commands sent again).
fn generic(case: Case) -> (usize, u64) {
    let (mut done, mut again) = (0, 0);
    for seed in 0..2 {
        let mut office = Office::new(case, seed);
        for _ in 0..3 {
            office.round();
        }
        let office = office.close();
        done += office.done.len();
        again += office.clerks.iter().map(|clerk| clerk.again).sum::<u64>();
    }
    (done, again)
}

/// So many clerks append ten times each to one key; every piece is there once, each clerk's in order, and each clerk was told
/// where its piece ends.
fn append_to_one_key(nodes: usize, clerks: usize, seed: u64) {
    let mut script = Script::new(Setup::new(nodes).seed(seed));
    script.weather(Weather::Unreliable);
    let mut all: Vec<(Clerk, u64)> = (0..clerks).map(|_| (Clerk::new(nodes, true), 0)).collect();
    let (mut events, mut told) = (0, Vec::new());
    while all.iter().any(|(clerk, written)| *written < 10 || !clerk.is_idle()) {
        assert!(script.now_ms() < 60_000, "it takes too long");
        for (number, (clerk, written)) in all.iter_mut().enumerate() {
            if clerk.is_bored(&script) && *written < 10 {
                clerk.begin("k", Wish::Append(format!("x {number} {written} y")), &mut events);
                *written += 1;
            }
            if let Some(done) = clerk.step(&mut script, &mut events) {
                let (Wish::Append(piece), Reply::Integer(length)) = (&done.wish, &done.reply) else {
                    panic!("{done:?}");
                };
                told.push((piece.clone(), usize::try_from(*length).unwrap()));
            }
        }
        script.run_for(1).unwrap();
    }
    script.weather(Weather::Fair);
    let value = get(&mut script, "k").unwrap();
    assert!(all.iter().any(|(clerk, _)| clerk.again > 0), "nothing was ever sent again");
    assert_eq!(value.len(), told.iter().map(|(piece, _)| piece.len()).sum::<usize>());
    for (piece, end) in &told {
        assert_eq!(value.matches(&piece[..]).count(), 1, "{piece} in {value}");
        assert_eq!(value.find(&piece[..]).unwrap() + piece.len(), *end, "{piece} in {value}");
    }
    for number in 0..clerks {
        let places: Vec<_> = (0..10).map(|written| value.find(&format!("x {number} {written} y"))).collect();
        assert!(places.is_sorted() && places[0].is_some(), "clerk {number} in {value}");
    }
}

/// SRV-03: a single server on an unreliable network.
#[test]
fn appends_to_one_server_are_done_once_and_in_order_srv_03() {
    (0..10).for_each(|seed| append_to_one_key(1, 5, seed));
}
