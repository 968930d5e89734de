use super::testing::{Rig, SEGMENT_BYTES, TestDisk};
use crate::record::{HardState, RECORD_HEADER_BYTES, RecordHeader};
use crate::{Damage, Lsn, Progress, StorageError};
use flotilla_runtime::machine::SECOND;
use flotilla_runtime::{Effect, FileId, NodeId, SplitMix64};
use std::collections::BTreeMap;

mod waiting;

/// What a group's log must look like: index → (frame, term, payload).
type Model = BTreeMap<u64, BTreeMap<u64, (Lsn, u64, Vec<u8>)>>;

#[test]
fn what_was_acknowledged_is_read_back_after_every_crash() {
    let seeds = std::env::var("FLOTILLA_LOG_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(400);
    for seed in 0..seeds {
        many_lives(seed);
    }
}

/// Appends, cuts off, marks and crashes at random, over several lives of one disk.
fn many_lives(seed: u64) {
    let mut random = SplitMix64::new(seed);
    let mut disk = TestDisk::default();
    let mut model = Model::new();
    let mut marks: BTreeMap<u64, (u64, Lsn)> = BTreeMap::new();
    // Group → (frame, term) of every term recorded.
    let mut terms: BTreeMap<u64, Vec<(Lsn, u64)>> = BTreeMap::new();
    let mut term = 0;
    for life in 0..4 {
        term += 1;
        let commits = 1 + usize::try_from(random.below(3)).unwrap();
        let (mut rig, recovered) = Rig::new(disk, commits);
        check(seed, life, &recovered, &mut model, &marks, recovered.tail.last);
        for _ in 0..random.below(120) {
            let group = 1 + random.below(3);
            let covered = marks.get(&group).map_or(0, |mark| mark.0);
            let entries = model.entry(group).or_default();
            let last = entries.keys().next_back().copied().unwrap_or(covered);
            match random.below(13) {
                0 if last > covered => {
                    // A new leader's entry takes the place of what isn't committed.
                    let from = covered + 1 + random.below(last - covered);
                    entries.split_off(&from);
                    term += 1;
                }
                1 if last > covered + 4 => {
                    let index = covered + 1 + random.below(last - covered - 2);
                    let lsn = rig.mark(group, index, entries[&index].1);
                    entries.retain(|at, _| *at > index);
                    marks.insert(group, (index, lsn));
                    rig.log.release(group, index);
                }
                12 => {
                    term += 1;
                    let (header, payload) = HardState { term, vote: None, commit: covered }.record(group);
                    rig.log.append(&header, &payload);
                    terms.entry(group).or_default().push((rig.log.open_lsn(), term));
                }
                2..=6 => rig.flush(),
                7..=9 if !rig.waiting.is_empty() => {
                    // Writes in any order; a sync when its turn has come.
                    let any = usize::try_from(random.below(rig.waiting.len() as u64)).unwrap();
                    let is_write = |place: usize| !matches!(rig.waiting[place], Effect::Sync { .. });
                    rig.finish(if is_write(any) { any } else { 0 });
                }
                _ => {
                    let index = entries.keys().next_back().copied().unwrap_or(covered) + 1;
                    let longest = if random.below(20) == 0 { 9000 } else { 200 };
                    let bytes = usize::try_from(random.below(longest)).unwrap();
                    let payload = vec![u8::try_from(random.below(256)).unwrap(); bytes];
                    let (lsn, _) = rig.entry(group, index, term, &payload);
                    model.entry(group).or_default().insert(index, (lsn, term, payload));
                }
            }
            if rig.log.is_full() {
                rig.settle();
            }
        }
        let durable = rig.log.durable();
        disk = rig.disk;
        let tear_bytes = if random.below(2) == 0 { 512 } else { 4096 };
        disk.crash(&mut random, tear_bytes);
        let recovered = disk.recover().unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
        assert!(recovered.tail.last >= durable, "seed {seed}, life {life}: an acknowledged frame is gone");
        assert_eq!(recovered.damage(), [""; 0], "seed {seed}, life {life}: a crash is no damage");
        damage_is_told(seed, &disk, &recovered, &mut random);
        check(seed, life, &recovered, &mut model, &marks, durable);
        for (group, recorded) in &mut terms {
            let found =
                recovered.groups.get(group).and_then(|found| found.hard_state).map_or(0, |it| it.term);
            let least = recorded.iter().filter(|(lsn, _)| *lsn <= durable).map(|(_, term)| *term).max();
            assert!(found >= least.unwrap_or(0), "seed {seed}, life {life}: a term of group {group} is gone");
            *recorded = vec![(Lsn(0), found)];
        }
        marks.retain(|_, mark| mark.1 <= recovered.tail.last);
        for (group, found) in &recovered.groups {
            let covered = found.snapshot.as_ref().map_or(0, |mark| mark.0.index);
            marks.insert(*group, (covered, Lsn(0)));
        }
    }
}

/// Spoils a few blocks: what isn't said to be damaged is as it was.
fn damage_is_told(seed: u64, disk: &TestDisk, good: &crate::Recovered, random: &mut SplitMix64) {
    let mut spoiled = disk.clone();
    for _ in 0..=random.below(3) {
        let file = usize::try_from(random.below(spoiled.files.len().max(1) as u64)).unwrap();
        let Some(image) = spoiled.files.values_mut().nth(file) else { continue };
        let block = usize::try_from(random.below(image.len() as u64 / 4096)).unwrap() * 4096;
        match random.below(3) {
            0 => image[block..block + 4096].fill(0),
            1 => image[block + usize::try_from(random.below(4096)).unwrap()] ^= 0x40,
            _ => image[block] ^= 1,
        }
    }
    let found = spoiled.recover().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let last = good.tail.last;
    for (number, good) in &good.groups {
        let Some(group) = found.groups.get(number) else {
            assert!(!found.holes.is_empty() || found.tail.last < last, "seed {seed}: group {number} is gone");
            continue;
        };
        let whole = same_entries(group, good, good.entries.len())
            && group.snapshot.as_ref().map(|it| it.0) == good.snapshot.as_ref().map(|it| it.0)
            && group.hard_state == good.hard_state;
        assert!(whole || group.damage.is_some() || found.tail.last < last, "seed {seed}: {number}");
        let indices = group.entries.iter().map(|record| RecordHeader::decode(record).unwrap().0.index);
        assert!(indices.clone().zip(indices.skip(1)).all(|(one, next)| next == one + 1), "seed {seed}");
    }
}

/// Everything durable is there; nothing is there that was never written. Then the model is what was found.
fn check(
    seed: u64,
    life: i32,
    recovered: &crate::Recovered,
    model: &mut Model,
    marks: &BTreeMap<u64, (u64, Lsn)>,
    durable: Lsn,
) {
    let mut found_model = Model::new();
    for (group, found) in &recovered.groups {
        let covered = found.snapshot.as_ref().map_or(0, |mark| mark.0.index);
        let mut last = None;
        for record in &found.entries {
            let (header, payload) = RecordHeader::decode(record).unwrap();
            assert!(last.is_none_or(|last| header.index == last + 1), "seed {seed}: contiguous");
            last = Some(header.index);
            if header.index > covered {
                let place = found_model.entry(*group).or_default();
                place.insert(header.index, (Lsn(0), header.term, payload.to_vec()));
            }
        }
    }
    for (group, entries) in &*model {
        for (index, (lsn, term, payload)) in entries {
            let found = found_model.get(group).and_then(|found| found.get(index));
            if *lsn <= durable {
                let (_, found_term, found_payload) = found.unwrap_or_else(|| {
                    panic!("seed {seed}, life {life}: entry {index} of group {group} is gone")
                });
                assert!(
                    (found_term, found_payload) == (term, payload),
                    "seed {seed}, life {life}: entry {index} changed"
                );
            }
        }
    }
    for (group, (index, lsn)) in marks {
        if *index > 0 && *lsn <= durable {
            let found = recovered.groups.get(group).and_then(|found| found.snapshot.as_ref());
            assert!(found.is_some_and(|mark| mark.0.index >= *index), "seed {seed}: a mark is gone");
        }
    }
    *model = found_model;
}

/// A small log at rest, its last frame vouched for by the watermark.
fn log_at_rest() -> Rig {
    let (mut rig, _) = Rig::new(TestDisk::default(), 1);
    rig.settle();
    let (header, payload) = HardState { term: 1, vote: Some(NodeId(2)), commit: 0 }.record(1);
    rig.log.append(&header, &payload);
    rig.settle();
    for index in 1..=3_u8 {
        rig.entry(1, u64::from(index), 1, &[index; 100]);
        rig.entry(2, u64::from(index), 1, &[index; 5000]);
        rig.settle();
    }
    rig.rest();
    rig
}

#[test]
fn every_flipped_byte_is_noticed_or_harmless() {
    let disk = log_at_rest().disk;
    let good = disk.recover().unwrap();
    assert!(good.cut.is_none() && good.holes.is_empty() && good.groups[&1].entries.len() == 3);
    let length = usize::try_from(4096 + good.bytes).unwrap();
    let watermark = length - 4096;
    let (file, image) = disk.files.iter().next().unwrap();
    let (mut noticed, mut harmless) = (0, 0);
    for (place, byte) in image.iter().enumerate().take(length) {
        let mut flipped = disk.clone();
        flipped.files.get_mut(file).unwrap()[place] = byte ^ 0x10;
        let found = flipped.recover().unwrap_or_else(|error| panic!("byte {place}: {error}"));
        assert!(found.holes.len() <= 1, "byte {place}: one place is damaged");
        assert!(place >= watermark || found.tail.last == good.tail.last, "byte {place}: a frame was cut off");
        match found.holes.first() {
            None => harmless += 1,
            Some(hole) => {
                noticed += 1;
                let next = found.groups.values().any(|group| group.damage.is_some());
                assert!(next || place < 4096, "byte {place}: a lost frame concerns somebody");
                assert!(hole.offset <= place as u64, "byte {place}: found where it is, not behind it");
            }
        }
        for (number, good) in &good.groups {
            let group = &found.groups[number];
            match group.damage {
                None => {
                    assert!(same_entries(group, good, good.entries.len()), "byte {place}: entries changed")
                }
                Some(damage) => {
                    let kept = group.entries.len();
                    assert_eq!(damage.from, kept as u64 + 1, "byte {place}");
                    assert!(kept < 3 || damage.vote_lost, "byte {place}: it lost something");
                    assert!(same_entries(group, good, kept), "byte {place}: what is left was so once");
                }
            }
        }
    }
    assert!(noticed > 15_000 && harmless > 1_000, "{noticed} noticed, {harmless} harmless");
}

/// Whether both begin with the same `count` entries, and the first has no more.
fn same_entries(one: &crate::RecoveredGroup, other: &crate::RecoveredGroup, count: usize) -> bool {
    let records = |group: &crate::RecoveredGroup| -> Vec<Vec<u8>> {
        group.entries.iter().map(|record| record.to_vec()).collect()
    };
    records(one) == records(other)[..count.min(other.entries.len())]
}

#[test]
fn damage_names_segment_offset_frames_and_groups() {
    let mut disk = log_at_rest().disk;
    // The frame with the first entry of group 1; that of group 2 has a frame of its own.
    disk.files.values_mut().next().unwrap()[4096 + 4096 + 200] ^= 1;
    let found = disk.recover().unwrap();
    assert_eq!(
        found.damage(),
        [
            "segment-0000000000000001.log is damaged at offset 8192: a damaged frame (Payload(0)); \
             frame 2 is lost, and one group at most is concerned",
            "group 1: entries from 1 to 1 are lost",
        ]
    );
}

#[test]
fn a_commit_index_from_behind_the_damage_isn_t_believed() {
    let mut disk = log_at_rest().disk;
    disk.files.values_mut().next().unwrap()[4096 + 4096 + 200] ^= 1;
    let (mut rig, _) = Rig::new(disk.clone(), 1);
    let (header, payload) = HardState { term: 5, vote: None, commit: 3 }.record(1);
    // Not a life that knew of the damage: it wrote this before.
    rig.log.append(&header, &payload);
    rig.rest();
    let state = rig.disk.recover().unwrap().groups[&1].hard_state.unwrap();
    assert_eq!((state.term, state.commit), (5, 0), "the term counts, the entries it meant aren't there");
}

#[test]
fn what_is_appended_behind_damage_is_read_back() {
    let mut disk = log_at_rest().disk;
    disk.files.values_mut().next().unwrap()[4096 + 4096 + 200] ^= 1;
    let (mut rig, recovered) = Rig::new(disk, 1);
    assert!(recovered.groups[&2].damage.is_none());
    let damaged = recovered.groups[&1].damage.unwrap();
    let holes = [recovered.holes[0].frames];
    let append = |rig: &mut Rig, damage: Option<&Damage>| {
        let (header, payload) = Damage::record(damage, 1, &holes);
        rig.log.append(&header, &payload);
    };
    // The owner says where it goes on, and gets the entries again.
    append(&mut rig, Some(&damaged));
    rig.entry(1, 1, 1, b"again");
    rig.rest();
    let found = rig.disk.recover().unwrap();
    let group = &found.groups[&1];
    assert_eq!((group.entries.len(), group.damage), (1, Some(Damage { seen: None, ..damaged })));
    rig.entry(1, 2, 1, b"all of it");
    append(&mut rig, None);
    rig.rest();
    let found = rig.disk.recover().unwrap();
    assert_eq!((found.groups[&1].entries.len(), found.groups[&1].damage), (2, None));
    assert_eq!(found.groups[&2].entries.len(), 3);
}

#[test]
fn an_unacknowledged_tail_is_cut_and_the_log_goes_on() {
    let (mut rig, _) = Rig::new(TestDisk::default(), 1);
    rig.settle();
    rig.entry(1, 1, 1, b"kept");
    rig.settle();
    rig.entry(1, 2, 1, &[7; 9000]);
    rig.flush();
    // Some of the frame's blocks arrive, others don't.
    let mut random = SplitMix64::new(3);
    let disk = loop {
        let mut disk = rig.disk.clone();
        disk.crash(&mut random, 4096);
        if disk.recover().unwrap().cut.is_some() {
            break disk;
        }
    };
    let (mut rig, recovered) = Rig::new(disk, 1);
    assert_eq!(recovered.groups[&1].entries.len(), 1);
    rig.entry(1, 2, 2, b"instead");
    rig.settle();
    let recovered = rig.disk.recover().unwrap();
    let second = RecordHeader::decode(&recovered.groups[&1].entries[1]).unwrap();
    assert_eq!((second.0.term, second.1), (2, &b"instead"[..]));
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged() {
    for fails_first in [true, false] {
        let (mut rig, _) = Rig::new(TestDisk::default(), 2);
        rig.entry(1, 1, 1, b"the segment is in use");
        rig.settle();
        rig.entry(1, 2, 1, b"a");
        rig.flush();
        rig.entry(1, 3, 1, b"b");
        rig.flush();
        assert_eq!(rig.waiting.len(), 2, "two commits are on their way");
        let durable = rig.log.durable();
        let progress = rig.fail(usize::from(!fails_first), 5);
        assert!(matches!(progress, Progress::Fatal(_)));
        let halted = rig.halted.clone().unwrap();
        assert!(halted.contains("write of segment at offset 4096 failed: injected (os error 5)"), "{halted}");
        assert!(matches!(rig.finish(0), Progress::Fatal(_)), "what completes later counts no more");
        rig.entry(1, 4, 1, b"c");
        rig.flush();
        assert_eq!((rig.log.durable(), rig.waiting.len()), (durable, 0));
    }
}

#[test]
fn acknowledgement_is_of_a_prefix() {
    let (mut rig, _) = Rig::new(TestDisk::default(), 3);
    rig.entry(1, 1, 1, b"the segment is in use");
    rig.settle();
    let frames: Vec<Lsn> = (2..=4)
        .map(|index| {
            let (lsn, _) = rig.entry(1, index, 1, b"x");
            rig.flush();
            lsn
        })
        .collect();
    assert_eq!(rig.finish(2), Progress::Nothing);
    assert_eq!(rig.finish(1), Progress::Nothing);
    assert_eq!(rig.finish(0), Progress::Advanced(frames[2]));
}

/// A log on a disk that has become full, its open segment filled up to the reserve; and its last entry.
fn log_on_a_full_disk() -> (Rig, u64) {
    let (mut rig, _) = Rig::new(TestDisk::default(), 1);
    rig.settle();
    rig.is_disk_full = true;
    let last = rig.fill(0);
    (rig, last)
}

#[test]
fn on_a_full_disk_clients_are_refused_while_there_is_a_reserve() {
    let (mut rig, last) = log_on_a_full_disk();
    assert_eq!(rig.log.no_room_for(100), Some("injected"), "in the system's words");
    assert!(!rig.log.is_full() && rig.halted.is_none());
    assert!(last * 4096 > SEGMENT_BYTES, "the spare was used first");
    // Terms and votes go on being logged, and a follower takes a little more.
    assert!(rig.log.has_room_to_follow(100) && !rig.log.has_room_to_follow(8000));
    let durable = rig.log.durable();
    let (header, payload) = HardState { term: 7, vote: Some(NodeId(2)), commit: 0 }.record(1);
    rig.log.append(&header, &payload);
    rig.settle();
    assert!(rig.log.durable() > durable);
    assert!(!rig.log.has_room_to_follow(100));
    let recovered = rig.disk.recover().unwrap();
    assert_eq!(recovered.groups[&1].entries.len() as u64, last);
    assert_eq!(recovered.groups[&1].hard_state.unwrap().term, 7);
}

#[test]
fn a_record_that_would_eat_the_reserve_is_refused_before_a_small_one() {
    let (mut rig, _) = Rig::new(TestDisk::default(), 1);
    rig.settle();
    rig.is_disk_full = true;
    let mut index = 0;
    while rig.log.no_room_for(12_000).is_none() {
        index += 1;
        rig.entry(1, index, 1, &[1; 100]);
        rig.settle();
    }
    assert_eq!(rig.log.no_room_for(100), None);
    // What waits for the disk counts as well.
    rig.entry(1, index + 1, 1, &[1; 12_000]);
    assert!(rig.log.no_room_for(100).is_some());
}

#[test]
fn on_a_full_disk_a_segment_is_tried_for_once_a_second_until_there_is_room() {
    let (mut rig, last) = log_on_a_full_disk();
    let (tries, from) = (rig.tries, rig.now);
    for _ in 0..50 {
        assert!(rig.log.deadline().unwrap() <= rig.now + SECOND, "somebody must wake it");
        rig.pass(SECOND / 10);
        rig.settle();
        assert!(rig.log.no_room_for(100).is_some());
    }
    assert_eq!(rig.tries - tries, (rig.now - from) / SECOND);
    rig.is_disk_full = false;
    rig.pass(SECOND);
    assert_eq!(rig.log.no_room_for(100), None);
    rig.pass(SECOND);
    assert!(rig.log.deadline().is_none_or(|at| at > rig.now), "nothing is left to try");
    for index in last + 1..last + 40 {
        rig.entry(1, index, 1, &[2; 100]);
        rig.settle();
    }
    rig.rest();
    assert_eq!(rig.disk.recover().unwrap().groups[&1].entries.len() as u64, last + 39);
}

#[test]
fn a_segment_that_is_released_ends_the_refusal_too() {
    let (mut rig, last) = log_on_a_full_disk();
    rig.mark(1, last, 1);
    rig.log.release(1, last);
    rig.settle();
    assert_eq!(rig.log.no_room_for(100), None, "the old segment is the new spare");
}

#[test]
fn a_segment_that_is_too_short_is_not_written_to() {
    let (mut rig, _) = Rig::new(TestDisk::default(), 1);
    rig.settle();
    rig.entry(1, 1, 1, b"kept");
    rig.settle();
    let mut disk = rig.disk;
    let whole: Vec<FileId> = disk.files.keys().copied().collect();
    let half_made = FileId::segment(90);
    disk.files.insert(half_made, vec![0; 8192]);
    let mut tail = disk.recover().unwrap().tail;
    assert!(tail.spares.contains(&half_made));
    let length_of = |file| disk.files[&file].len() as u64;
    assert_eq!(tail.fit(SEGMENT_BYTES, length_of), [half_made]);
    assert_eq!((tail.spares.len(), tail.next_file), (whole.len() - 1, 91));
    assert!(tail.offset.is_some() && tail.fit(SEGMENT_BYTES, length_of).is_empty());
    // Segments have become larger: the old ones aren't made longer.
    assert_eq!(tail.fit(2 * SEGMENT_BYTES, length_of).len(), whole.len() - 1);
    assert_eq!((tail.offset, tail.live.len()), (None, 1));
}

#[test]
fn beyond_the_reserve_too_much_waits_and_nothing_breaks() {
    let (mut rig, mut index) = log_on_a_full_disk();
    while !rig.log.is_full() {
        index += 1;
        rig.entry(1, index, 1, &[1; 4000]);
        rig.flush();
        while !rig.waiting.is_empty() {
            rig.finish(0);
        }
        assert!(index < 300, "the log must fill up");
    }
    assert!(rig.halted.is_none(), "a full disk is no reason to stop");
    let durable = rig.log.durable();
    rig.is_disk_full = false;
    rig.pass(SECOND);
    assert!(rig.log.durable() > durable && !rig.log.is_full());
    assert_eq!(rig.disk.recover().unwrap().groups[&1].entries.len() as u64, index);
}

#[test]
fn segments_are_used_again() {
    let (mut rig, _) = Rig::new(TestDisk::default(), 1);
    let (header, payload) = HardState { term: 9, vote: Some(NodeId(3)), commit: 0 }.record(5);
    rig.log.append(&header, &payload);
    for index in 1..=400 {
        rig.entry(1, index, 1, &[3; 3000]);
        if index % 10 == 0 {
            rig.mark(1, index, 1);
            rig.log.release(1, index);
        }
        rig.settle();
    }
    let written = 400 * 4096;
    assert!(written > 20 * SEGMENT_BYTES);
    assert!(rig.disk.files.len() <= 5, "{} files", rig.disk.files.len());
    let newest = rig.disk.files.keys().next_back().unwrap().number;
    assert!(newest <= 5, "{newest} files were made");
    let recovered = rig.disk.recover().unwrap();
    assert_eq!(recovered.groups[&1].snapshot.as_ref().unwrap().0.index, 400);
    let vote = recovered.groups[&5].hard_state.unwrap();
    assert_eq!((vote.term, vote.vote), (9, Some(NodeId(3))), "the vote was carried along");
}

/// A damaged group of which nothing could be used said so once; since then it has new entries.
#[test]
fn what_was_given_up_once_is_not_given_up_again() {
    let (mut rig, _) = Rig::new(TestDisk::default(), 1);
    rig.mark(1, 0, 0);
    rig.settle();
    rig.log.begin_new_segment();
    for index in 1..=3 {
        rig.entry(1, index, 1, b"since then");
        rig.settle();
    }
    rig.rest();
    let recovered = rig.disk.recover().unwrap();
    assert_eq!(recovered.groups[&1].entries.len(), 3, "though the segment with the mark was given back");
}

#[test]
fn a_group_that_seldom_writes_doesn_t_pin_the_log() {
    let (mut rig, _) = Rig::new(TestDisk::default(), 1);
    let mut seldom: Vec<_> = (1..=3).map(|index| rig.entry(2, index, 1, &[9; 500]).1).collect();
    let mut most = 0;
    for index in 1..=600 {
        rig.entry(1, index, 1, &[3; 3000]);
        if index % 10 == 0 {
            rig.mark(1, index, 1);
            rig.log.release(1, index);
        }
        assert!(!rig.log.pinned_by(1), "that one gives its space back");
        if rig.log.pinned_by(2) {
            seldom = rig.log.rewrite(2, &seldom);
        }
        rig.settle();
        most = most.max(rig.disk.files.len());
    }
    assert!((8..=13).contains(&most), "{most} files");
    let recovered = rig.disk.recover().unwrap();
    let entries: Vec<Vec<u8>> = recovered.groups[&2].entries.iter().map(|entry| entry.to_vec()).collect();
    assert_eq!(entries, seldom.iter().map(|entry| entry.to_vec()).collect::<Vec<_>>());
}

#[test]
fn a_missing_or_foreign_segment_is_refused() {
    let (mut rig, _) = Rig::new(TestDisk::default(), 1);
    for index in 1..=60 {
        rig.entry(1, index, 1, &[3; 3000]);
        rig.settle();
    }
    let mut disk = rig.disk;
    let second = *disk.files.keys().nth(1).unwrap();
    let image = disk.files.remove(&second).unwrap();
    assert!(matches!(disk.recover(), Err(StorageError::MissingSegment { .. })));
    let mut foreign = image;
    foreign[8] ^= 1;
    let crc = crc32fast::hash(&foreign[..68]).to_le_bytes();
    foreign[68..72].copy_from_slice(&crc);
    disk.files.insert(second, foreign);
    assert!(matches!(disk.recover(), Err(StorageError::Foreign { .. })));
}

/// Frozen bytes: a change here is a change of the format, and needs a new version.
#[test]
fn the_format_is_frozen() {
    let rig = log_at_rest();
    let image = rig.disk.files.values().next().unwrap();
    assert_eq!(image[..8], *b"SEG1\x02\0\0\0");
    assert_eq!(image[4096..4104], *b"FRM1\x02\0\x60\0");
    let record = &image[4096 + 96..];
    assert_eq!(record[..8], 1_u64.to_le_bytes());
    assert_eq!((record[30], &record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + 4]), (2, &[2, 0, 0, 0][..]));
    assert_eq!(crc32fast::hash(image), FROZEN, "{:#x}", crc32fast::hash(image));
}

const FROZEN: u32 = 0x6ae4_ab5d;
