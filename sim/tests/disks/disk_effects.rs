//! One table of disk effects, and what each must give: on the simulated disk, and with the real driver on this
//! machine's disk and on a file system that loses what wasn't synced. And what the driver makes of faults.

use crate::effects::Do::*;
use crate::effects::Of::*;
use crate::effects::{Script, on_driver, on_simulated_disk};
use flotilla_runtime::driver::SyncMode;
use flotilla_sim::faultfs::{self, Errno, Fault, FaultFs, Operation, When};
use std::path::{Path, PathBuf};

const NOT_THERE: &str = "open fails: No such file or directory (2)";

const SCRIPTS: &[Script] = &[
    Script {
        name: "a new file is zeros, and stays",
        life: &[&[(Create(Segment, 4), "done")], &[(Read(Segment, 0, 4), "reads ....")]],
        next_life: &[&[(Read(Segment, 0, 4), "reads ....")]],
    },
    Script {
        name: "a new file may be empty",
        life: &[
            &[(Create(Unfinished, 0), "done")],
            &[(Read(Unfinished, 0, 1), "reads "), (Read(Unfinished, 3, 1), "reads ")],
        ],
        next_life: &[],
    },
    Script {
        name: "a file is made once",
        life: &[
            &[(Create(Segment, 1), "done")],
            &[(Durably(Segment, 0, "a"), "done")],
            &[(Create(Segment, 2), "create fails: File exists (17)")],
            &[(Read(Segment, 0, 2), "reads a")],
        ],
        next_life: &[&[(Read(Segment, 0, 2), "reads a")]],
    },
    Script {
        name: "a lone durable write",
        life: &[
            &[(Create(Segment, 3), "done")],
            &[(Durably(Segment, 1, "a"), "done")],
            &[(Read(Segment, 0, 3), "reads .a.")],
            &[(Durably(Segment, 1, "b"), "done")],
        ],
        next_life: &[&[(Read(Segment, 0, 3), "reads .b.")]],
    },
    Script {
        name: "a durable write of several blocks",
        life: &[&[(Create(Segment, 4), "done")], &[(Durably(Segment, 1, "abc"), "done")]],
        next_life: &[&[(Read(Segment, 1, 3), "reads abc")]],
    },
    Script {
        name: "a durable write of more than goes in one request",
        life: &[&[(Create(Segment, 600), "done")], &[(Durably(Segment, 100, "x*400"), "done")]],
        next_life: &[&[(Read(Segment, 100, 400), "reads x*400")]],
    },
    Script {
        name: "durable writes that leave together",
        life: &[
            &[(Create(Segment, 5), "done")],
            &[
                (Durably(Segment, 0, "a"), "done"),
                (Durably(Segment, 4, "e"), "done"),
                (Durably(Segment, 2, "c"), "done"),
            ],
        ],
        next_life: &[&[(Read(Segment, 0, 5), "reads a.c.e")]],
    },
    Script {
        name: "a write without a sync is read back, and may be lost",
        life: &[
            &[(Create(Segment, 2), "done")],
            &[(Write(Segment, 0, "a"), "done")],
            &[(Read(Segment, 0, 2), "reads a.")],
        ],
        next_life: &[&[(Read(Segment, 0, 2), "reads ?.")]],
    },
    Script {
        name: "a sync covers the writes given before it in the same turn",
        life: &[
            &[(Create(Segment, 4), "done")],
            &[(Write(Segment, 0, "a"), "done"), (Write(Segment, 2, "bc"), "done"), (Sync(Segment), "done")],
        ],
        next_life: &[&[(Read(Segment, 0, 4), "reads a.bc")]],
    },
    Script {
        name: "a sync covers the writes of earlier turns",
        life: &[
            &[(Create(Segment, 3), "done")],
            &[(Write(Segment, 0, "a"), "done")],
            &[(Write(Segment, 1, "b"), "done")],
            &[(Sync(Segment), "done"), (Write(Segment, 2, "c"), "done")],
            &[(Sync(Segment), "done")],
            &[(Sync(Segment), "done")],
        ],
        next_life: &[&[(Read(Segment, 0, 3), "reads abc")]],
    },
    Script {
        name: "a sync of one file is none of another",
        life: &[
            &[(Create(Segment, 1), "done"), (Create(Snapshot, 1), "done")],
            &[(Write(Segment, 0, "a"), "done"), (Write(Snapshot, 0, "b"), "done"), (Sync(Snapshot), "done")],
        ],
        next_life: &[&[(Read(Segment, 0, 1), "reads ?"), (Read(Snapshot, 0, 1), "reads b")]],
    },
    Script {
        name: "a durable write of a snapshot covers what was completed before, one of a segment itself",
        life: &[
            &[(Create(Snapshot, 0), "done"), (Create(Segment, 2), "done")],
            &[(Write(Snapshot, 0, "ab"), "done"), (Write(Segment, 0, "a"), "done")],
            &[(Durably(Snapshot, 2, "c"), "done")],
            &[(Durably(Segment, 1, "b"), "done")],
        ],
        next_life: &[&[(Read(Snapshot, 0, 3), "reads abc")], &[(Read(Segment, 0, 2), "reads ?b")]],
    },
    Script {
        name: "a write behind the end makes the file longer",
        life: &[
            &[(Create(Snapshot, 1), "done")],
            &[(Durably(Snapshot, 2, "c"), "done")],
            &[(Read(Snapshot, 0, 4), "reads ..c")],
        ],
        next_life: &[&[(Read(Snapshot, 0, 4), "reads ..c")]],
    },
    Script {
        name: "a read ends where the file does",
        life: &[
            &[(Create(Segment, 2), "done")],
            &[(Durably(Segment, 0, "ab"), "done")],
            &[
                (Read(Segment, 1, 1), "reads b"),
                (Read(Segment, 1, 9), "reads b"),
                (Read(Segment, 2, 1), "reads "),
                (Read(Segment, 7, 2), "reads "),
                (Read(Segment, 0, 0), "reads "),
            ],
        ],
        next_life: &[],
    },
    Script {
        name: "a write of nothing changes nothing",
        life: &[
            &[(Create(Snapshot, 1), "done")],
            &[(Write(Snapshot, 0, ""), "done"), (Durably(Snapshot, 0, ""), "done")],
            &[(Durably(Snapshot, 5, ""), "done")],
            &[(Read(Snapshot, 0, 9), "reads .")],
        ],
        next_life: &[&[(Read(Snapshot, 0, 9), "reads .")]],
    },
    Script {
        name: "what isn't there can't be written, synced, read or renamed, only removed",
        life: &[
            &[(Durably(Segment, 1, "a"), NOT_THERE)],
            &[(Write(Segment, 2, "a"), NOT_THERE), (Durably(Segment, 3, "bc"), NOT_THERE)],
            &[(Sync(Segment), NOT_THERE)],
            &[(Read(Segment, 4, 1), NOT_THERE)],
            &[(Rename(Unfinished, Snapshot), "rename fails: No such file or directory (2)")],
            &[(Remove(Segment), "done")],
        ],
        next_life: &[],
    },
    Script {
        name: "a file that was removed is gone, for its writers too",
        life: &[
            &[(Create(Segment, 1), "done")],
            &[(Durably(Segment, 0, "a"), "done")],
            &[(Remove(Segment), "done")],
            &[(Read(Segment, 0, 1), NOT_THERE), (Durably(Segment, 0, "b"), NOT_THERE)],
            &[(Sync(Segment), NOT_THERE)],
        ],
        next_life: &[&[(Read(Segment, 0, 1), NOT_THERE)]],
    },
    Script {
        name: "removed and made again, it is new",
        life: &[
            &[(Create(Segment, 2), "done")],
            &[(Durably(Segment, 0, "ab"), "done")],
            &[(Remove(Segment), "done")],
            &[(Create(Segment, 1), "done")],
            &[(Read(Segment, 0, 2), "reads .")],
            &[(Durably(Segment, 0, "c"), "done")],
        ],
        next_life: &[&[(Read(Segment, 0, 2), "reads c")]],
    },
    Script {
        name: "a renamed file is there under its new name",
        life: &[
            &[(Create(Unfinished, 0), "done")],
            &[(Write(Unfinished, 0, "a"), "done")],
            &[(Durably(Unfinished, 1, "b"), "done")],
            &[(Rename(Unfinished, Snapshot), "done")],
            &[(Read(Snapshot, 0, 2), "reads ab"), (Read(Unfinished, 0, 2), NOT_THERE)],
            &[(Durably(Snapshot, 2, "c"), "done")],
            &[(Create(Unfinished, 1), "done")],
        ],
        next_life: &[&[(Read(Snapshot, 0, 3), "reads abc")]],
    },
    Script {
        name: "a rename replaces what had the name",
        life: &[
            &[(Create(Snapshot, 3), "done"), (Create(Other, 1), "done")],
            &[(Durably(Snapshot, 0, "old"), "done"), (Durably(Other, 0, "n"), "done")],
            &[(Rename(Other, Snapshot), "done")],
            &[(Read(Snapshot, 0, 3), "reads n"), (Read(Other, 0, 1), NOT_THERE)],
            &[(Durably(Snapshot, 1, "e"), "done")],
        ],
        next_life: &[&[(Read(Snapshot, 0, 3), "reads ne"), (Read(Other, 0, 1), NOT_THERE)]],
    },
    Script {
        name: "a file that isn't synced can be renamed, and what wasn't synced may be lost",
        life: &[
            &[(Create(Unfinished, 2), "done")],
            &[(Durably(Unfinished, 0, "a"), "done")],
            &[(Write(Unfinished, 1, "b"), "done")],
            &[(Rename(Unfinished, Snapshot), "done")],
            &[(Read(Snapshot, 0, 2), "reads ab")],
        ],
        next_life: &[&[(Read(Snapshot, 0, 2), "reads a?")]],
    },
    Script {
        name: "an unfinished file doesn't outlive the core",
        life: &[&[(Create(Unfinished, 2), "done")], &[(Durably(Unfinished, 0, "ab"), "done")]],
        next_life: &[&[(Read(Unfinished, 0, 2), NOT_THERE)]],
    },
];

/// A folder on this machine's disk: where the system keeps temporary files may be memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn mounted(below: &Path) -> (FaultFs, PathBuf) {
    let faulty = FaultFs::mount(&below.join("behind"), &below.join("mounted")).unwrap();
    let core = faulty.mounted().join("core");
    (faulty, core)
}

#[test]
fn every_disk_gives_the_same() {
    let expected = on_simulated_disk(SCRIPTS, 0);
    assert!(expected.len() > 10);
    for seed in 1..200 {
        assert_eq!(on_simulated_disk(SCRIPTS, seed), expected);
    }
    for sync in [SyncMode::Fdatasync, SyncMode::Dsync] {
        let folder = folder();
        assert_eq!(on_driver(SCRIPTS, folder.path(), sync, || {}), expected, "real disk, {sync:?}");
    }
}

#[test]
fn the_driver_makes_durable_what_it_calls_durable() {
    if !faultfs::is_here() {
        return;
    }
    let expected = on_simulated_disk(SCRIPTS, 0);
    for sync in [SyncMode::Fdatasync, SyncMode::Dsync] {
        let folder = folder();
        let (faulty, core) = mounted(folder.path());
        let found = on_driver(SCRIPTS, &core, sync, || faulty.lose_unsynced().unwrap());
        assert_eq!(found, expected, "{sync:?}");
    }
}

/// The so manieth of these operations on the files with such names (the core's folder is called `core`) goes wrong, and
/// that is what the driver says. What follows shows that it works again.
struct Case {
    operation: Operation,
    nth: u64,
    name: &'static str,
    fault: Fault,
    script: &'static [Script],
}

const IO: Fault = Fault::Error(Errno::IO);
const FULL: Fault = Fault::Error(Errno::NOSPC);

macro_rules! case {
    ($operation:ident $nth:literal $name:literal $fault:expr => $($turn:expr),+) => {
        Case {
            operation: Operation::$operation,
            nth: $nth,
            name: $name,
            fault: $fault,
            script: &[Script {
                name: stringify!($operation $nth $name $fault),
                life: &[$(&$turn),+],
                next_life: &[],
            }],
        }
    };
}

/// Making a file of zeros takes a write and a sync of the file, and a sync of the folder.
const CASES: &[Case] = &[
    case!(Create 1 "segment*" FULL =>
        [(Create(Segment, 2), "create fails: No space left on device (28)")],
        [(Create(Segment, 2), "done")]),
    case!(Write 1 "segment*" FULL =>
        [(Create(Segment, 2), "create fails: No space left on device (28)")],
        [(Create(Segment, 2), "done")]),
    case!(Sync 1 "segment*" IO =>
        [(Create(Segment, 2), "create fails: Input/output error (5)")],
        [(Create(Segment, 2), "done")]),
    case!(Sync 1 "core" IO =>
        [(Create(Segment, 2), "sync fails: Input/output error (5)")],
        [(Create(Segment, 2), "done")]),
    // Alone and small: on the spot. Else through the ring.
    case!(Write 2 "segment*" IO =>
        [(Create(Segment, 2), "done")],
        [(Durably(Segment, 1, "a"), "write fails: Input/output error (5)")],
        [(Read(Segment, 0, 2), "reads ..")],
        [(Durably(Segment, 1, "a"), "done")]),
    case!(Write 2 "segment*" IO =>
        [(Create(Segment, 4), "done")],
        [(Durably(Segment, 1, "ab"), "write fails: Input/output error (5)")],
        [(Read(Segment, 1, 2), "reads ..")],
        [(Durably(Segment, 1, "ab"), "done")]),
    case!(Write 2 "segment*" IO =>
        [(Create(Segment, 2), "done")],
        [(Write(Segment, 1, "a"), "write fails: Input/output error (5)")]),
    // Through the ring there is no short write to be seen: FUSE makes an error of it, and on other file systems the
    // kernel goes on behind it.
    case!(Write 2 "segment*" Fault::Short(512) =>
        [(Create(Segment, 2), "done")],
        [(Durably(Segment, 1, "a"), "write fails: only 512 of 4096 bytes were written (0)")]),
    case!(Sync 2 "segment*" IO =>
        [(Create(Segment, 2), "done")],
        [(Durably(Segment, 1, "a"), "write fails: Input/output error (5)")]),
    case!(Sync 2 "segment*" IO =>
        [(Create(Segment, 4), "done")],
        [(Durably(Segment, 1, "ab"), "write fails: Input/output error (5)")]),
    case!(Sync 1 "*.snap" IO =>
        [(Create(Snapshot, 0), "create fails: Input/output error (5)")],
        [(Create(Snapshot, 0), "done")]),
    case!(Sync 2 "*.snap" IO =>
        [(Create(Snapshot, 0), "done")],
        [(Write(Snapshot, 0, "a"), "done")],
        [(Durably(Snapshot, 1, "b"), "write fails: Input/output error (5)")]),
    case!(Sync 2 "segment*" IO =>
        [(Create(Segment, 2), "done")],
        [(Write(Segment, 0, "a"), "done"), (Write(Segment, 1, "b"), "done")],
        [(Sync(Segment), "sync fails: Input/output error (5)")]),
    case!(Rename 1 "*.tmp" IO =>
        [(Create(Unfinished, 1), "done")],
        [(Rename(Unfinished, Snapshot), "rename fails: Input/output error (5)")],
        [(Read(Unfinished, 0, 1), "reads .")],
        [(Rename(Unfinished, Snapshot), "done")]),
    case!(Remove 1 "segment*" Fault::Error(Errno::ACCESS) =>
        [(Create(Segment, 1), "done")],
        [(Remove(Segment), "remove fails: Permission denied (13)")],
        [(Read(Segment, 0, 1), "reads .")],
        [(Remove(Segment), "done")]),
    case!(Read 1 "segment*" IO =>
        [(Create(Segment, 2), "done")],
        [(Read(Segment, 1, 1), "read fails: Input/output error (5)")],
        [(Read(Segment, 1, 1), "reads .")]),
    case!(Read 1 "segment*" Fault::Short(4096) =>
        [(Create(Segment, 3), "done")],
        [(Read(Segment, 1, 9), "read fails: only 4096 of 8192 bytes were read (0)")],
        [(Read(Segment, 1, 9), "reads ..")]),
];

#[test]
fn the_driver_passes_on_what_goes_wrong() {
    if !faultfs::is_here() {
        return;
    }
    for Case { operation, nth, name, fault, script } in CASES {
        let folder = folder();
        let (faulty, core) = mounted(folder.path());
        let rule = faulty.inject(*operation, name, When::Nth(*nth), *fault);
        on_driver(script, &core, SyncMode::Fdatasync, || {});
        assert_eq!(faulty.fired(rule), 1, "{}", script[0].name);
    }
}
