use super::*;
use std::io::{IoSlice, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

struct Mounted {
    // Dropped in this order.
    faulty: FaultFs,
    _folder: tempfile::TempDir,
}

fn mount() -> Option<Mounted> {
    if !is_here() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let faulty = FaultFs::mount(&folder.path().join("behind"), &folder.path().join("mounted")).unwrap();
    Some(Mounted { faulty, _folder: folder })
}

impl Mounted {
    fn path(&self, name: &str) -> PathBuf {
        self.faulty.mounted().join(name)
    }

    fn behind(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.faulty.backing().join(name)).unwrap()
    }

    /// A file opened as the driver does.
    fn direct(&self, name: &str) -> File {
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
        options.open(self.path(name)).unwrap()
    }
}

fn durably(file: &File, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
    rustix::io::pwritev2(file, &[IoSlice::new(bytes)], offset, rustix::io::ReadWriteFlags::DSYNC)
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

#[test]
fn without_a_script_it_is_a_plain_folder() {
    let Some(it) = mount() else { return };
    std::fs::create_dir(it.path("core-0")).unwrap();
    let file = it.direct("core-0/a");
    assert_eq!(file.write_at(&[1; 4096], 0).unwrap(), 4096);
    assert_eq!(durably(&file, &[2; 4096], 4096), Ok(4096));
    file.sync_data().unwrap();
    let mut read = vec![0; 8192];
    assert_eq!(file.read_at(&mut read, 4096).unwrap(), 4096, "up to the end");
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(read[..4096] == [1; 4096] && read[4096..] == [2; 4096] && read == it.behind("core-0/a"));
    file.set_len(100).unwrap();
    assert_eq!(std::fs::metadata(it.path("core-0/a")).unwrap().len(), 100);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 10_000).unwrap();
    assert_eq!(it.behind("core-0/a").len(), 10_000);
    std::fs::write(it.path("core-0/b"), "bytes").unwrap();
    assert!(
        errno(File::options().write(true).create_new(true).open(it.path("core-0/b"))) == Some(Errno::EXIST)
    );
    std::fs::rename(it.path("core-0/b"), it.path("core-0/c")).unwrap();
    File::open(it.path("core-0")).unwrap().sync_all().unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(it.path("core-0")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(std::fs::read_to_string(it.path("core-0/c")).unwrap(), "bytes");
    std::fs::remove_file(it.path("core-0/a")).unwrap();
    assert_eq!(durably(&file, &[3; 4096], 0), Ok(4096), "what is open outlives its name");
    std::fs::remove_dir_all(it.path("core-0")).unwrap();
    assert_eq!(errno(std::fs::metadata(it.path("core-0"))), Some(Errno::NOENT));
    assert!(rustix::fs::statvfs(it.faulty.mounted()).unwrap().f_bavail > 0);
    let counts = [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::Remove];
    assert_eq!(counts.map(|operation| it.faulty.count(operation, "*")), [2, 4, 4, 1, 2]);
}

#[test]
fn what_is_scripted_fails_and_nothing_else() {
    let Some(it) = mount() else { return };
    let (io, nth) = (Fault::Error(Errno::IO), When::Nth(1));
    let file = it.direct("a");
    it.faulty.inject(Operation::Write, "a", When::Nth(2), io);
    assert_eq!([0, 1, 2].map(|_| errno(file.write_at(&[1; 4096], 0))), [None, Some(Errno::IO), None]);
    let rule = it.faulty.inject(Operation::Sync, "a", When::From(2), io);
    assert_eq!([0, 1, 2].map(|_| errno(file.sync_data())), [None, Some(Errno::IO), Some(Errno::IO)]);
    assert_eq!(durably(&file, &[1; 4096], 0), Err(Errno::IO), "it is a sync, too");
    assert_eq!(it.faulty.fired(rule), 3);
    it.faulty.heal();
    it.faulty.inject(Operation::Create, "b", nth, Fault::Error(Errno::MFILE));
    assert_eq!(errno(File::create(it.path("b"))), Some(Errno::MFILE));
    it.faulty.inject(Operation::Rename, "a", nth, io);
    assert_eq!(errno(std::fs::rename(it.path("a"), it.path("c"))), Some(Errno::IO));
    it.faulty.inject(Operation::Remove, "a", nth, Fault::Error(Errno::ACCESS));
    assert_eq!(errno(std::fs::remove_file(it.path("a"))), Some(Errno::ACCESS));
    it.faulty.inject(Operation::Read, "a", nth, io);
    assert_eq!(errno(file.read_at(&mut [0; 4096], 0)), Some(Errno::IO));
    it.faulty.inject(Operation::Fallocate, "a", nth, Fault::Error(Errno::NOSPC));
    let allocated = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 10_000);
    assert_eq!(allocated, Err(Errno::NOSPC));
    assert_eq!(it.behind("a"), [1; 4096]);
}

#[test]
fn short_and_slow_operations_reach_the_program() {
    let Some(it) = mount() else { return };
    let file = it.direct("a");
    it.faulty.inject(Operation::Write, "*", When::Nth(1), Fault::Short(512));
    assert_eq!(file.write_at(&[1; 8192], 0).unwrap(), 512);
    it.faulty.inject(Operation::Read, "*", When::Nth(1), Fault::Short(100));
    assert_eq!(file.read_at(&mut [0; 4096], 0).unwrap(), 100);
    assert_eq!(file.read_at(&mut [0; 4096], 0).unwrap(), 512);
    let time = Duration::from_millis(30);
    it.faulty.inject(Operation::Sync, "*", When::Nth(1), Fault::Delay(time));
    #[allow(clippy::disallowed_methods, reason = "a delay is measured")]
    let begun = Instant::now();
    file.sync_data().unwrap();
    assert!(begun.elapsed() >= time);
}

#[test]
fn a_full_disk_takes_overwrites_only_and_what_is_removed_makes_room() {
    let Some(it) = mount() else { return };
    let old = it.direct("old");
    old.write_all_at(&[1; 8192], 0).unwrap();
    it.faulty.set_room(Some(10_000));
    let new = it.direct("new");
    assert_eq!(errno(new.write_at(&[2; 16_384], 0)), Some(Errno::NOSPC));
    new.write_all_at(&[2; 8192], 0).unwrap();
    assert_eq!(errno(new.write_at(&[2; 4096], 8192)), Some(Errno::NOSPC));
    old.write_all_at(&[3; 8192], 0).unwrap();
    let free = rustix::fs::statvfs(it.faulty.mounted()).unwrap();
    assert_eq!(free.f_bavail, 0);
    std::fs::remove_file(it.path("new")).unwrap();
    File::create(it.path("third")).unwrap().write_all(&[4; 10_000]).unwrap();
    it.faulty.heal();
    it.direct("fourth").write_all_at(&[5; 100_000], 0).unwrap();
}

#[test]
fn a_loss_of_power_takes_back_what_was_not_synced() {
    let Some(it) = mount() else { return };
    let file = it.direct("a");
    file.write_all_at(&[1; 12_288], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 8192], 0).unwrap();
    assert_eq!(durably(&file, &[3; 4096], 4096), Ok(4096), "over one that isn't durable");
    file.write_all_at(&[4; 8192], 8192).unwrap();
    drop(file);
    it.faulty.lose_unsynced().unwrap();
    let expected = [[1; 4096], [3; 4096], [1; 4096]].concat();
    assert!(it.behind("a") == expected, "the end has its place again, too");
    // A sync that fails loses at once.
    let file = it.direct("a");
    file.write_all_at(&[5; 4096], 0).unwrap();
    it.faulty.inject(Operation::Sync, "a", When::Nth(1), Fault::Error(Errno::IO));
    assert_eq!(errno(file.sync_data()), Some(Errno::IO));
    file.sync_data().unwrap();
    let mut read = Vec::new();
    File::open(it.path("a")).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == expected);
}

#[test]
fn it_is_unmounted_when_a_test_panics_with_files_open() {
    if !is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mounted = folder.path().join("mounted");
    let is_mounted =
        || std::fs::read_to_string("/proc/self/mounts").unwrap().contains(mounted.to_str().unwrap());
    let mut left_open = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let faulty = FaultFs::mount(&folder.path().join("behind"), &mounted).unwrap();
        left_open = Some(File::create(faulty.mounted().join("a")).unwrap());
        assert!(is_mounted());
        panic!("as a test does");
    }));
    assert!(panicked.is_err() && !is_mounted());
    assert!(
        errno(left_open.unwrap().write_at(b"x", 0)).is_some(),
        "nobody is there any more, and nobody waits"
    );
}
