//! Records that may wait for others.

use crate::log::testing::{Rig, TestDisk, config};
use flotilla_runtime::machine::SECOND;

#[test]
fn what_may_wait_leaves_with_what_may_not_or_when_its_time_has_come() {
    let (mut rig, _) = Rig::new(TestDisk::default(), 1);
    rig.settle();
    let (_, record) = rig.entry(1, 1, 1, b"at once");
    rig.settle();
    let commits = |rig: &Rig| rig.log.counters().commits;
    let before = commits(&rig);
    let record = record.to_vec();
    for _ in 0..3 {
        rig.log.append_record_by(rig.now + SECOND, &record).unwrap();
        rig.settle();
    }
    assert_eq!(commits(&rig), before, "nobody waits for it");
    let due = rig.log.deadline().unwrap();
    assert!(due > rig.now, "it isn't due yet");
    rig.entry(1, 2, 1, b"at once");
    rig.settle();
    assert_eq!((commits(&rig), rig.log.durable()), (before + 1, rig.log.open_lsn()), "together");

    rig.log.append_record_by(rig.now + SECOND, &record).unwrap();
    rig.settle();
    rig.log.append_record_by(rig.now + 2 * SECOND, &record).unwrap();
    rig.settle();
    rig.now += SECOND / 2;
    rig.settle();
    assert_eq!(commits(&rig), before + 1, "half of its time");
    rig.now += SECOND / 2;
    rig.settle();
    assert_eq!(commits(&rig), before + 2, "the first one's time is over");

    rig.log.append_record_by(rig.now + SECOND, &record).unwrap();
    rig.settle();
    rig.log.hurry();
    rig.settle();
    assert_eq!(commits(&rig), before + 3, "somebody waits for it now");

    let bytes = config(1).backlog_bytes_max / 32 - record.len();
    rig.log.append_record_by(rig.now + SECOND, &record).unwrap();
    let (_, large) = rig.entry(1, 3, 1, &vec![7; bytes]);
    let large = large.to_vec();
    rig.settle();
    assert_eq!(commits(&rig), before + 4);
    rig.log.append_record_by(rig.now + SECOND, &large).unwrap();
    rig.settle();
    assert_eq!(commits(&rig), before + 4, "it isn't too much");
    rig.log.append_record_by(rig.now + SECOND, &record).unwrap();
    rig.settle();
    assert_eq!(commits(&rig), before + 5, "so much would hold up what comes then");
}
