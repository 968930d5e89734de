//! Shards that are read for a backup, beside snapshots, while they are written to, led elsewhere and moved.

use flotilla_services::backup::{Entries, EntriesError, Found};
use flotilla_services::client::Reply;
use flotilla_services::slot::Slot;
use flotilla_sim::hazards::Hazard;
use flotilla_sim::script::{Answer, SHARDS, Script, Setup, is_for_another};
use flotilla_sim::trace::Detail;
use flotilla_sim::world::{Plan, simulate};
use std::collections::BTreeMap;

/// Shards of a script without a controller.
const FEW_SHARDS: u16 = 4;

type Data = BTreeMap<String, String>;

/// A reading, and what it has brought.
struct Reading {
    node: usize,
    number: i64,
    piece: u64,
    entries: Entries,
    data: Data,
}

/// How it went on.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    More,
    Last,
    /// It ended before its end.
    Lost,
}

/// A command to a node, and its answer.
fn say(script: &mut Script, node: usize, args: &[&str]) -> Reply {
    let call = script.ask(node, args);
    match script.answered(call, 5_000).unwrap() {
        Answer::Reply(reply) => reply,
        Answer::Lost => Reply::Error("TRYAGAIN the connection broke".to_owned()),
    }
}

/// Tries once; `None` if somebody else leads, or reads.
fn open(script: &mut Script, node: usize, shard: u16, shards: u16) -> Option<Reading> {
    match say(script, node, &["FLOTILLA.BACKUP", "OPEN", &shard.to_string()]) {
        Reply::Array(numbers) => {
            let Reply::Integer(number) = numbers[0] else { panic!("{numbers:?}") };
            Some(Reading { node, number, piece: 0, entries: Entries::new(shard, shards), data: Data::new() })
        }
        Reply::Error(error) if is_for_another(&error) => None,
        other => panic!("{other}"),
    }
}

impl Reading {
    fn next(&mut self, script: &mut Script) -> Read {
        let args = ["FLOTILLA.BACKUP", "READ", &self.number.to_string(), &self.piece.to_string()];
        let parts = match say(script, self.node, &args) {
            Reply::Array(parts) => parts,
            Reply::Error(error) if error.starts_with("READINGLOST ") || error.starts_with("TRYAGAIN ") => {
                return Read::Lost;
            }
            other => panic!("{other}"),
        };
        let [Reply::Integer(is_last), Reply::Bulk(bytes)] = &parts[..] else { panic!("{parts:?}") };
        let data = &mut self.data;
        let read = self.entries.read(bytes, |found| {
            let Found::Whole(head, value) = found else { panic!("values are short") };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            data.insert(text(head.key), text(value));
            Ok::<(), EntriesError>(())
        });
        read.unwrap();
        self.piece += 1;
        if *is_last == 1 { Read::Last } else { Read::More }
    }

    fn finish(self) -> Data {
        let totals = self.entries.finish().unwrap();
        assert_eq!(totals.keys, self.data.len() as u64);
        self.data
    }
}

fn shard_of(tag: &str, shards: u16) -> u16 {
    Slot::of_key(tag.as_bytes()).shard(shards)
}

fn set(script: &mut Script, key: &str, value: &str) {
    let (_, reply) = script.one(&["SET", key, value], 1, true).unwrap();
    assert_eq!(reply, Reply::Status("OK".to_owned()));
}

fn first_index(script: &Script, node: usize) -> u64 {
    script.group(node).unwrap().first_index
}

/// A leader with 200 keys of one shard, of 200 bytes each: some pieces.
fn filled(setup: Setup) -> (Script, usize, Data) {
    let mut script = Script::new(setup);
    script.elected(5_000).unwrap();
    let value = "v".repeat(200);
    let mut data = Data::new();
    for number in 0..200 {
        let key = format!("{{a}}:{number}");
        set(&mut script, &key, &value);
        data.insert(key, value.clone());
    }
    let leader = script.elected(5_000).unwrap();
    (script, leader, data)
}

#[test]
fn what_is_read_is_the_shard_as_it_was_and_snapshots_wait_for_it() {
    for seed in 0..10 {
        let (mut script, leader, expected) = filled(Setup::new(3).seed(seed).snapshot_after(64 << 10));
        let shard = shard_of("{a}", FEW_SHARDS);
        let mut reading = open(&mut script, leader, shard, FEW_SHARDS).unwrap();
        assert!(open(&mut script, leader, shard, FEW_SHARDS).is_none(), "it has one reader");
        let before = first_index(&script, leader);
        let mut read = Read::More;
        let mut number = 0;
        // Enough is written for a snapshot: it is due, and comes to this shard, while half of it is read.
        while read == Read::More {
            for _ in 0..40 {
                let key = format!("{{a}}:{}", number % 300);
                match number % 5 {
                    4 => drop(script.one(&["DEL", &key], 1, true).unwrap()),
                    _ => set(&mut script, &key, &number.to_string().repeat(100)),
                }
                number += 1;
            }
            assert_eq!(script.readings(leader), 1);
            assert_eq!(first_index(&script, leader), before, "no snapshot without this shard");
            read = reading.next(&mut script);
        }
        assert_eq!((read, script.readings(leader)), (Read::Last, 0));
        assert_eq!(reading.finish(), expected, "seed {seed}");
        // It had waited, and goes on at once.
        for _ in 0..20 {
            set(&mut script, "{a}:more", "m");
        }
        assert!(first_index(&script, leader) > before, "seed {seed}: a snapshot was due");
        // And its file is good: a node that lost its memory comes back with the state of the others.
        script.crash(leader);
        script.restart(leader);
        script.run_for(3_000).unwrap();
    }
}

#[test]
fn a_reading_that_nobody_goes_on_with_ends() {
    let (mut script, leader, _) = filled(Setup::new(3));
    let shard = shard_of("{a}", FEW_SHARDS);
    let mut reading = open(&mut script, leader, shard, FEW_SHARDS).unwrap();
    assert_eq!(reading.next(&mut script), Read::More);
    script.run_for(14_000).unwrap();
    assert_eq!(reading.next(&mut script), Read::More, "it was used in time");
    script.run_for(14_000).unwrap();
    assert_eq!(script.readings(leader), 1);
    script.run_for(1_500).unwrap();
    assert_eq!(script.readings(leader), 0);
    assert_eq!(reading.next(&mut script), Read::Lost);
    // One that is closed ends at once.
    let reading = open(&mut script, leader, shard, FEW_SHARDS).unwrap();
    say(&mut script, leader, &["FLOTILLA.BACKUP", "CLOSE", &reading.number.to_string()]);
    assert_eq!(script.readings(leader), 0);
}

#[test]
fn a_reading_gives_way_to_a_snapshot_before_the_log_is_too_long() {
    let (mut script, leader, _) = filled(Setup::new(3).snapshot_after(64 << 10));
    let shard = shard_of("{a}", FEW_SHARDS);
    let mut reading = open(&mut script, leader, shard, FEW_SHARDS).unwrap();
    let mut longest = 0;
    for _ in 0..400 {
        set(&mut script, "{a}:0", &"w".repeat(2_000));
        longest = longest.max(script.log_bytes(leader));
        if script.readings(leader) == 0 {
            break;
        }
    }
    assert_eq!(reading.next(&mut script), Read::Lost);
    assert!(longest <= 5 * (64 << 10), "{longest} bytes of log");
    let before = first_index(&script, leader);
    for _ in 0..100 {
        set(&mut script, "{a}:0", &"w".repeat(2_000));
    }
    assert!(first_index(&script, leader) > before, "the snapshot that waited is taken");
    assert!(open(&mut script, leader, shard, FEW_SHARDS).is_some());
}

#[test]
fn a_reading_goes_on_when_somebody_else_leads() {
    let (mut script, leader, expected) = filled(Setup::new(3));
    let shard = shard_of("{a}", FEW_SHARDS);
    let mut reading = open(&mut script, leader, shard, FEW_SHARDS).unwrap();
    assert_eq!(reading.next(&mut script), Read::More);
    let other = (leader + 1) % 3;
    let moved = say(&mut script, leader, &["FLOTILLA.TRANSFER", "0", &(other + 1).to_string()]);
    assert_eq!(moved, Reply::Status("OK".to_owned()));
    assert!(open(&mut script, leader, shard, FEW_SHARDS).is_none(), "it is opened where the group is led");
    set(&mut script, "{a}:0", "later");
    while reading.next(&mut script) == Read::More {}
    assert_eq!(reading.finish(), expected);
}

#[test]
fn shards_that_move_are_read_whole_and_at_one_moment() {
    let mut readings_lost = 0;
    for seed in 0..6 {
        let setup = Setup::sharded(2, 0).seed(seed).snapshot_after(32 << 10);
        let mut script = Script::new(Setup { spare_groups: 1, nodes: 9, ..setup });
        let shard = shard_of("{a}", SHARDS);
        script.change("JOIN 2").unwrap();
        script.at_home(20_000).unwrap();
        let mut number = 0;
        let mut write = |script: &mut Script| {
            number += 1;
            // Written together: a reading has both or none, and the same of both.
            let (value, keys) = (
                number.to_string(),
                [format!("{{a}}:a{}", number % 100), format!("{{a}}:b{}", number % 100)],
            );
            let value = value.repeat(60);
            script.clerk(&["MSET", &keys[0], &value, &keys[1], &value], 20_000).unwrap();
        };
        for _ in 0..120 {
            write(&mut script);
        }
        let mut done = 0;
        for round in 0..6 {
            let to = round % 3;
            script.change(&format!("MOVE {shard} {to}")).unwrap();
            let mut reading: Option<Reading> = None;
            for _ in 0..60 {
                write(&mut script);
                let Some(open_one) = &mut reading else {
                    let leader = (0..9).find(|node| {
                        (0..3).any(|group| {
                            script.leads(*node, group) && script.served_by(group).contains(&shard)
                        })
                    });
                    reading = leader.and_then(|node| open(&mut script, node, shard, SHARDS));
                    continue;
                };
                match open_one.next(&mut script) {
                    Read::More => {}
                    Read::Lost => {
                        readings_lost += 1;
                        reading = None;
                    }
                    Read::Last => {
                        let data = reading.take().unwrap().finish();
                        for (key, value) in data.iter().filter(|(key, _)| key.starts_with("{a}:a")) {
                            assert_eq!(data.get(&key.replace(":a", ":b")), Some(value), "seed {seed}");
                        }
                        assert_eq!(data.len(), 200, "every key was there from the beginning");
                        done += 1;
                    }
                }
            }
            script.at_home(20_000).unwrap();
        }
        assert!(done >= 6, "seed {seed}: {done}");
    }
    eprintln!("{readings_lost} readings were lost and begun again");
    assert!(readings_lost > 0, "shards went while they were read");
}

#[test]
fn whatever_goes_wrong_a_shard_that_was_read_whole_is_one_that_was() {
    let (mut whole, mut lost) = (0, 0);
    for seed in 0..12 {
        let plan = Plan { hazard: Some(Hazard::Moves), ..Plan::new(seed) };
        let outcome = simulate(&plan, Detail::Faults);
        assert!(outcome.failure.is_none(), "seed {seed}: {:?}", outcome.failure);
        (whole, lost) = (whole + outcome.readings.0, lost + outcome.readings.1);
    }
    eprintln!("{whole} shards were read whole, {lost} had to be begun again");
    assert!(whole > 100 && lost > 0, "{whole}, {lost}");
}
