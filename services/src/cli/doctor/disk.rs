//! Where the data is to be: its file system, and how long it takes to make something durable.

use super::Needs;
use super::check::{Check, Kernel};
use crate::config::Sync;
use crate::hands::Stopwatch;
use flotilla_runtime::driver::floor;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Segments that a core should have room for: those in use, the spares, a snapshot and the one that takes its place.
const SEGMENTS_A_CORE: u64 = 10;
/// A sync that takes longer is felt by every client; one that takes this long costs leaders their office.
const SLOW_SYNC: Duration = Duration::from_millis(2);
/// Faster than any medium: what was said to be durable isn't.
const TOO_FAST_SYNC: Duration = Duration::from_micros(2);

/// A mounted file system, as `/proc/self/mountinfo` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// `major:minor`.
    device: String,
    at: PathBuf,
    kind: String,
    source: String,
    /// Those of the mount, and those of the file system.
    options: Vec<String>,
}

pub(super) fn checks(kernel: &Kernel, needs: &Needs, measuring: Duration) -> Vec<Check> {
    let folder = existing(&needs.data);
    let is_there = needs.data.is_dir();
    let mut checks = vec![folder_check(&folder, is_there, needs)];
    let mount = mount_of(kernel, &folder);
    match &mount {
        None => checks.push(Check::skipped("file-system", "not shown")),
        Some(mount) => {
            checks.push(file_system(mount));
            checks.push(discard(mount));
            checks.push(scheduler(kernel, mount));
        }
    }
    checks.push(space(&folder, needs));
    checks.extend(durability(&folder, needs, measuring));
    checks
}

/// The folder, or the nearest above it that is there.
fn existing(folder: &Path) -> PathBuf {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let found = absolute.ancestors().find(|folder| folder.is_dir());
    let found = found.unwrap_or_else(|| Path::new("/"));
    found.canonicalize().unwrap_or_else(|_| found.to_owned())
}

fn folder_check(folder: &Path, is_there: bool, needs: &Needs) -> Check {
    const NAME: &str = "data";
    match rustix::fs::access(folder, rustix::fs::Access::WRITE_OK) {
        Ok(()) if is_there => Check::ok(NAME, folder.display().to_string()),
        Ok(()) => Check::ok(NAME, format!("{}: will be made in {}", needs.data.display(), folder.display())),
        Err(error) => {
            Check::fail(NAME, format!("{}: {error}", folder.display()), "the node can't write its log there")
                .cure(format!("chown the folder to the node's user: chown USER {}", folder.display()))
        }
    }
}

fn mount_of(kernel: &Kernel, folder: &Path) -> Option<Mount> {
    let table = kernel.read("/proc/self/mountinfo")?;
    let holding = table.lines().filter_map(mount).filter(|mount| folder.starts_with(&mount.at));
    // Of those at the same place the last one counts: it was mounted over the others.
    holding
        .enumerate()
        .max_by_key(|(nth, mount)| (mount.at.components().count(), *nth))
        .map(|(_, mount)| mount)
}

/// A line of `/proc/self/mountinfo` (`man 5 proc`).
fn mount(line: &str) -> Option<Mount> {
    let (first, second) = line.split_once(" - ")?;
    let first: Vec<&str> = first.split(' ').collect();
    let second: Vec<&str> = second.split(' ').collect();
    let options = [first.get(5), second.get(2)].into_iter().flatten().flat_map(|list| list.split(','));
    Some(Mount {
        device: (*first.get(2)?).to_owned(),
        at: PathBuf::from(unescaped(first.get(4)?)),
        kind: (*second.first()?).to_owned(),
        source: (*second.get(1)?).to_owned(),
        options: options.map(str::to_owned).collect(),
    })
}

/// Blanks stand there as octal numbers.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn file_system(mount: &Mount) -> Check {
    const NAME: &str = "file-system";
    let found = format!("{} at {} ({})", mount.kind, mount.at.display(), mount.source);
    let is_unsafe = |option: &String| ["nobarrier", "barrier=0"].contains(&option.as_str());
    match mount.kind.as_str() {
        "tmpfs" | "ramfs" => Check::fail(NAME, found, "nothing there survives a restart of the machine")
            .cure("put `data` on a disk, with ext4 or XFS"),
        "nfs" | "nfs4" | "cifs" | "9p" | "fuse" | "fuse.sshfs" => {
            Check::warn(NAME, found, "what it calls durable is another machine's word, and it may stall")
                .cure("put `data` on a local disk, with ext4 or XFS")
        }
        "overlay" | "btrfs" | "zfs" | "bcachefs" => Check::warn(
            NAME,
            found,
            "it writes every block to a new place: segments written ahead are of no use",
        )
        .cure("put `data` on ext4 or XFS"),
        _ if mount.options.iter().any(is_unsafe) => {
            Check::fail(NAME, found + ", without barriers", "a power cut loses what was acknowledged")
                .cure(format!("mount -o remount,barrier=1 {}", mount.at.display()))
        }
        _ if mount.options.iter().any(|option| option == "data=journal") => {
            Check::warn(NAME, found + ", data=journal", "every block is written twice")
                .cure("mount it with data=ordered")
        }
        "ext4" | "xfs" => Check::ok(NAME, found),
        _ => Check::warn(NAME, found, "tried on ext4 only; XFS is known to do direct I/O as well"),
    }
}

fn discard(mount: &Mount) -> Check {
    const NAME: &str = "discard";
    if !mount.options.iter().any(|option| option == "discard") {
        return Check::ok(NAME, "freed blocks are told to the device in batches, if at all");
    }
    let why =
        "the device hears of freed blocks at once: a segment's removal held up all syncs for 20 to 50 ms";
    Check::warn(NAME, "mounted with discard", why).cure(format!(
        "mount -o remount,nodiscard {} && systemctl enable --now fstrim.timer",
        mount.at.display()
    ))
}

fn scheduler(kernel: &Kernel, mount: &Mount) -> Check {
    const NAME: &str = "scheduler";
    let of_disk = format!("/sys/dev/block/{}/queue/scheduler", mount.device);
    // A partition's queue is its disk's.
    let of_partition = format!("/sys/dev/block/{}/../queue/scheduler", mount.device);
    let found = [of_disk, of_partition].into_iter().find_map(|file| Some((kernel.read(&file)?, file)));
    let Some((text, file)) = found else { return Check::skipped(NAME, "not shown") };
    let chosen = text.split(['[', ']']).nth(1).unwrap_or(&text).to_owned();
    if ["none", "mq-deadline", "kyber"].contains(&chosen.as_str()) {
        return Check::ok(NAME, chosen);
    }
    Check::warn(NAME, chosen, "it holds a lone write back, to serve others first")
        .setting("none", [kernel.path(&file)])
}

fn space(folder: &Path, needs: &Needs) -> Check {
    const NAME: &str = "space";
    let free = match rustix::fs::statvfs(folder) {
        Ok(it) => it.f_bavail.saturating_mul(it.f_frsize),
        Err(error) => return Check::skipped(NAME, error.to_string()),
    };
    let needed = SEGMENTS_A_CORE * needs.segment_bytes * u64::from(needs.cores);
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let found = format!("{:.1} GiB free", gib(free));
    if free >= needed {
        return Check::ok(NAME, found);
    }
    let found = format!("{found}, {:.1} wanted for {} cores, and twice the data", gib(needed), needs.cores);
    Check::warn(NAME, found, "a full disk takes no writes").cure("make room, or a smaller log.segment_bytes")
}

fn durability(folder: &Path, needs: &Needs, measuring: Duration) -> Vec<Check> {
    let synced = floor::measure_sync(folder, lasting(measuring));
    let synced = match synced.map(Percentiles::of) {
        Ok(Some(times)) => times,
        Ok(None) => return vec![Check::skipped("sync", "no time to measure it")],
        Err(error) => return vec![no_direct_io(&error)],
    };
    let mut checks = vec![Check::ok("direct-io", "blocks of 4 KiB"), sync(&synced, needs)];
    if let Ok(times) = floor::measure_dsync(folder, lasting(measuring))
        && let Some(times) = Percentiles::of(times)
    {
        checks.push(dsync(&synced, &times, needs.sync));
    }
    checks
}

/// Goes on for so long from the first sample.
fn lasting(time: Duration) -> impl FnMut(usize) -> bool {
    let mut clock = None;
    move |_| clock.get_or_insert_with(Stopwatch::start).elapsed() < time
}

fn no_direct_io(error: &std::io::Error) -> Check {
    Check::fail("direct-io", error.to_string(), "the log is written past the page cache, in blocks of 4 KiB")
        .cure("put `data` on ext4 or XFS, on a disk whose sectors have at most 4 KiB")
}

#[derive(Clone, Copy, Debug)]
struct Percentiles {
    p50: Duration,
    p99: Duration,
}

impl Percentiles {
    fn of(mut nanos: Vec<u64>) -> Option<Self> {
        nanos.sort_unstable();
        let at = |part: usize| nanos.get(nanos.len() * part / 100).copied().map(Duration::from_nanos);
        Some(Self { p50: at(50)?, p99: at(99)? })
    }
}

fn sync(times: &Percentiles, needs: &Needs) -> Check {
    const NAME: &str = "sync";
    let found = format!("p50 {:.0?}, p99 {:.0?} for 4 KiB", times.p50, times.p99);
    if times.p99 >= needs.election_timeout {
        return Check::fail(NAME, found, "leaders lose their office while they wait for the disk")
            .cure("a disk with power-loss protection, or raft.election_timeout_ms of ten times that");
    }
    if times.p50 >= SLOW_SYNC {
        return Check::warn(NAME, found, "every write of a client waits for one on two nodes")
            .cure("a disk with power-loss protection (its cache counts as durable)");
    }
    if times.p50 < TOO_FAST_SYNC {
        return Check::warn(
            NAME,
            found,
            "no medium is that fast: is something between here and it that lies?",
        )
        .cure("look at the hypervisor's cache mode (writeback and unsafe lie), and at the mount options");
    }
    Check::ok(NAME, found)
}

fn dsync(synced: &Percentiles, times: &Percentiles, chosen: Sync) -> Check {
    const NAME: &str = "o-dsync";
    let found = format!("p50 {:.0?}, p99 {:.0?}, beside a write and fdatasync", times.p50, times.p99);
    let is_slower = times.p50 > synced.p50 * 3 / 2 || times.p99 > synced.p99 * 3;
    if chosen == Sync::Dsync && is_slower {
        return Check::warn(NAME, found, "writes that sync by themselves are slower here")
            .cure("log.sync = \"fdatasync\"");
    }
    Check::ok(NAME, found)
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::super::testing::kernel_of;
    use super::*;

    const TABLE: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:30 / /run rw,nosuid - tmpfs tmpfs rw,size=10%
40 22 8:17 / /srv/my\\040data rw,noatime - xfs /dev/sdb1 rw,attr2
41 22 8:33 / /srv/lax rw - ext4 /dev/sdc1 rw,nobarrier
42 22 8:49 / /srv/lax rw - ext4 /dev/sdd1 rw
nonsense";

    fn at(folder: &str) -> Mount {
        let (_keep, kernel) = kernel_of(&[("/proc/self/mountinfo", TABLE)]);
        mount_of(&kernel, Path::new(folder)).unwrap()
    }

    #[test]
    fn the_mount_under_a_folder_is_found() {
        assert_eq!((at("/var/lib").device, at("/var/lib").kind), ("254:0".to_owned(), "ext4".to_owned()));
        assert_eq!(at("/srv/my data/x").source, "/dev/sdb1");
        assert_eq!(at("/runaway").kind, "ext4", "a name that begins alike is another folder");
        assert_eq!(at("/srv/lax").source, "/dev/sdd1", "the one mounted last");
        let (_keep, nothing) = kernel_of(&[]);
        assert_eq!(mount_of(&nothing, Path::new("/")), None);
    }

    #[test]
    fn file_systems_and_their_options_are_judged() {
        assert_eq!(file_system(&at("/run/x")).verdict, Verdict::Fail);
        assert_eq!(file_system(&at("/srv/my data")).verdict, Verdict::Ok);
        let lax = TABLE.lines().filter_map(mount).find(|mount| mount.source == "/dev/sdc1").unwrap();
        let check = file_system(&lax);
        assert!(check.verdict == Verdict::Fail && check.cure.unwrap().contains("/srv/lax"));
        assert_eq!(discard(&at("/")).verdict, Verdict::Warn);
        assert_eq!(discard(&at("/srv/lax")).verdict, Verdict::Ok);
        let overlay = Mount { kind: "overlay".to_owned(), ..at("/srv/lax") };
        assert_eq!(file_system(&overlay).verdict, Verdict::Warn);
    }

    #[test]
    fn the_scheduler_of_a_partition_is_its_disk_s() {
        let (_keep, kernel) = kernel_of(&[
            ("/sys/dev/block/8:17/partition", "1"),
            ("/sys/dev/block/queue/scheduler", "none mq-deadline [bfq]"),
        ]);
        let check = scheduler(&kernel, &at("/srv/my data"));
        assert!(check.verdict == Verdict::Warn && check.settings.len() == 1, "{check:?}");
        let (_keep, kernel) = kernel_of(&[("/sys/dev/block/254:0/queue/scheduler", "[none] mq-deadline")]);
        assert_eq!(scheduler(&kernel, &at("/")).verdict, Verdict::Ok);
    }

    #[test]
    fn syncs_are_judged_by_their_times() {
        let times =
            |p50, p99| Percentiles { p50: Duration::from_micros(p50), p99: Duration::from_micros(p99) };
        let needs = Needs { election_timeout: Duration::from_millis(400), ..Needs::default() };
        assert_eq!(sync(&times(90, 300), &needs).verdict, Verdict::Ok);
        assert_eq!(sync(&times(8_000, 20_000), &needs).verdict, Verdict::Warn);
        assert_eq!(sync(&times(90, 500_000), &needs).verdict, Verdict::Fail);
        assert_eq!(sync(&times(1, 2), &needs).verdict, Verdict::Warn);
        let fdatasync = times(90, 300);
        assert_eq!(dsync(&fdatasync, &times(4_000, 4_100), Sync::Dsync).verdict, Verdict::Warn);
        assert_eq!(dsync(&fdatasync, &times(4_000, 4_100), Sync::Fdatasync).verdict, Verdict::Ok);
        assert_eq!(dsync(&fdatasync, &times(80, 300), Sync::Dsync).verdict, Verdict::Ok);
    }

    #[test]
    fn a_real_folder_is_measured_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let needs = Needs { data: folder.path().join("not/yet"), ..Needs::default() };
        let checks = checks(&Kernel::at("/"), &needs, Duration::from_millis(50));
        assert!(checks.iter().any(|check| ["sync", "direct-io"].contains(&check.name)), "{checks:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
