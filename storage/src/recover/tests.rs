//! What recovery decides, case by case: every combination of good and bad frames, every combination of sectors that
//! arrived.

use crate::log::testing::{Rig, TestDisk};
use crate::record::RecordHeader;
use crate::{Lsn, Recovered};
use flotilla_runtime::FileId;
use std::collections::BTreeSet;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    BadPayload,
    BadHeader,
}

/// A frame of the log under test: the file and the place where it is, and how far it says that the log was durable.
#[derive(Clone, Copy, Debug)]
struct Place {
    file: FileId,
    offset: usize,
    durable: u64,
}

/// Six frames of a block each, numbered from 1, frame n with the only entry of group n; `cut` of them in a first segment,
/// `at_once` of the last ones in flight together.
fn six_frames(cut: u64, at_once: u64) -> (TestDisk, Vec<Place>) {
    let (mut rig, _) = Rig::new(TestDisk::default(), 6);
    rig.settle();
    let mut places = Vec::new();
    for frame in 1..=6 {
        if frame == cut + 1 {
            rig.log.begin_new_segment();
        }
        rig.entry(frame, 1, 1, &[7; 100]);
        let durable = rig.log.durable().0;
        if frame + at_once > 6 {
            rig.flush();
        } else {
            rig.settle();
        }
        let (file, offset) = rig.log.position();
        places.push(Place { file, offset: usize::try_from(offset).unwrap() - 4096, durable });
    }
    rig.settle();
    (rig.disk, places)
}

#[test]
fn every_combination_of_bad_frames_is_judged_as_the_table_says() {
    let states = [State::Good, State::BadPayload, State::BadHeader];
    for (cut, at_once) in [(0, 1), (0, 3), (0, 6), (2, 1), (2, 3), (5, 1), (3, 2)] {
        let (disk, places) = six_frames(cut, at_once);
        for case in 0..3_usize.pow(6) {
            let states: Vec<State> = (0..6).map(|frame| states[case / 3_usize.pow(frame) % 3]).collect();
            let mut disk = disk.clone();
            for (place, state) in places.iter().zip(&states) {
                let image = disk.files.get_mut(&place.file).unwrap();
                match state {
                    State::Good => {}
                    State::BadPayload => image[place.offset + 200] ^= 1,
                    State::BadHeader => image[place.offset + 17] ^= 1,
                }
            }
            let found = disk.recover().unwrap_or_else(|error| panic!("{cut} {at_once} {states:?}: {error}"));
            let expected = judge(&states, &places, cut);
            assert_eq!(verdict(&found), expected, "first segment {cut}, in flight {at_once}: {states:?}");
        }
    }
}

/// What is to be known about the log: its last frame, the groups that have their entry, those that are damaged.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    last: u64,
    whole: BTreeSet<u64>,
    damaged: BTreeSet<u64>,
}

fn verdict(found: &Recovered) -> Verdict {
    let damaged = (1..=6).filter(|group| found.damage_of(*group).is_some());
    let whole = found.groups.iter().filter(|(_, group)| group.damage.is_none() && group.entries.len() == 1);
    Verdict {
        last: found.tail.last.0,
        whole: whole.map(|(group, _)| *group).collect(),
        damaged: damaged.collect(),
    }
}

/// The same from the rules alone: what somebody vouches for is there or lost, what nobody vouches for ends at its first
/// bad frame.
fn judge(states: &[State], places: &[Place], cut: u64) -> Verdict {
    let readable = |frame: u64| states[frame as usize - 1] != State::BadHeader;
    let good = |frame: u64| states[frame as usize - 1] == State::Good;
    let in_last = (cut + 1..=6).filter(|frame| readable(*frame));
    let vouched = in_last.map(|frame| places[frame as usize - 1].durable).max().unwrap_or(0).max(cut);
    // What is unreadable from a frame on that somebody vouches for reaches as far as nothing can be read.
    let reach = (vouched + 1..=6).find(|frame| readable(*frame)).map_or(7, |frame| frame);
    let sure = if vouched > cut && !readable(vouched) { reach } else { vouched + 1 };
    let last = (sure..=6).find(|frame| !good(*frame)).map_or(6, |frame| frame - 1);
    let mut damaged = BTreeSet::new();
    let mut unknown = Vec::new();
    for frame in 1..=last {
        if !readable(frame) {
            unknown.push(frame);
        }
        let next_tells = frame == last || readable(frame + 1);
        if next_tells && !unknown.is_empty() {
            // The frame behind tells about one; of more, or with no frame behind, nothing is known.
            let told = unknown.len() == 1 && frame < 6 && readable(frame + 1);
            damaged.extend(if told { frame..=frame } else { 1..=6 });
            unknown.clear();
        }
        if readable(frame) && !good(frame) {
            damaged.insert(frame);
        }
    }
    let whole = (1..=last).filter(|frame| good(*frame) && !damaged.contains(frame)).collect();
    Verdict { last, whole, damaged }
}

/// A frame that is durable, then two that are in flight, of which any sectors arrive: 65 536 crashes.
#[test]
fn every_combination_of_sectors_is_a_torn_tail() {
    let (mut rig, _) = Rig::new(TestDisk::default(), 2);
    rig.entry(1, 1, 1, &[1; 100]);
    rig.settle();
    let durable = rig.log.durable();
    let before = rig.disk.clone();
    for index in 2..=3 {
        rig.entry(1, index, 1, &[u8::try_from(index).unwrap(); 3800]);
        rig.flush();
    }
    rig.settle();
    let after = rig.disk.files.values().next().unwrap().clone();
    let file = *before.files.keys().next().unwrap();
    let mut lengths = [0; 4];
    for arrived in 0..1_u32 << 16 {
        // Only what matters of the file, to be quick.
        let mut image = before.files[&file][..16 * 1024].to_vec();
        for sector in (0..16).filter(|sector| arrived >> sector & 1 == 1) {
            let at = 8192 + sector * 512;
            image[at..at + 512].copy_from_slice(&after[at..at + 512]);
        }
        let mut disk = TestDisk::default();
        disk.files.insert(file, image);
        let found = disk.recover().unwrap();
        assert!(found.holes.is_empty() && found.tail.last >= durable, "{arrived:016b}");
        let entries = &found.groups[&1].entries;
        lengths[entries.len()] += 1;
        for (place, record) in entries.iter().enumerate() {
            let (header, payload) = RecordHeader::decode(record).unwrap();
            let byte = u8::try_from(header.index).unwrap();
            assert!(
                header.index == place as u64 + 1 && payload.iter().all(|it| *it == byte),
                "{arrived:016b}"
            );
        }
        assert_eq!(found.tail.last, Lsn(durable.0 + entries.len() as u64 - 1), "{arrived:016b}");
    }
    // The second is there if its eight sectors are, the third if all sixteen are.
    assert_eq!(lengths, [0, (1 << 16) - (1 << 8), (1 << 8) - 1, 1]);
}
